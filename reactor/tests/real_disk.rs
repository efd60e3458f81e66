//! Real reactors: files on the kernel's file system.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use sledge_reactor::{
    CoreList, Disk, DiskCompletion, DiskOperation, DiskOptions, DiskQueue, DiskRequest, Poller, PollerHandle,
    PoolOptions, ReactorOptions, Reactors, Segments, Turn, Wait, allocate, register_poller,
};

const MIB: usize = 1 << 20;

fn start() -> Reactors {
    let wait = Wait::Adaptive { spin: Duration::ZERO };
    let pool = PoolOptions { total_bytes: 16 * MIB };
    Reactors::start(ReactorOptions { cores: CoreList::floating(1), wait, pool }).unwrap()
}

/// A folder on the file system of the build, which has direct I/O more likely than /tmp.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A queue with a poller that wakes who waits for a completion: the reactor sleeps in between.
#[derive(Clone)]
struct Io {
    state: Rc<RefCell<State>>,
}

struct State {
    queue: DiskQueue,
    done: BTreeMap<u64, DiskCompletion>,
    waiters: BTreeMap<u64, std::task::Waker>,
    next: u64,
}

struct IoPoller(Rc<RefCell<State>>);

impl Poller for IoPoller {
    fn name(&self) -> &'static str {
        "io"
    }

    fn poll(&mut self) -> Turn {
        let mut state = self.0.borrow_mut();
        let mut done = Vec::new();
        state.queue.poll(&mut done);
        let count = done.len() as u32;
        for completion in done {
            if let Some(waiter) = state.waiters.remove(&completion.token) {
                waiter.wake();
            }
            state.done.insert(completion.token, completion);
        }
        if count > 0 { Turn::Worked(count) } else { Turn::Idle }
    }
}

impl Io {
    fn open(disk: &Disk) -> (Io, PollerHandle) {
        let queue = DiskQueue::open(disk).unwrap();
        let state = State { queue, done: BTreeMap::new(), waiters: BTreeMap::new(), next: 0 };
        let state = Rc::new(RefCell::new(state));
        let poller = register_poller(IoPoller(state.clone()));
        (Io { state }, poller)
    }

    fn submit(&self, operation: DiskOperation, offset: u64, length: usize, segments: Segments) -> u64 {
        let mut state = self.state.borrow_mut();
        state.next += 1;
        let token = state.next;
        let request = DiskRequest { token, operation, offset, length: length as u64, segments, skip: 0 };
        state.queue.submit(request).unwrap();
        token
    }

    async fn wait(&self, token: u64) -> DiskCompletion {
        std::future::poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            match state.done.remove(&token) {
                Some(completion) => std::task::Poll::Ready(completion),
                None => {
                    state.waiters.insert(token, context.waker().clone());
                    std::task::Poll::Pending
                }
            }
        })
        .await
    }

    async fn run(
        &self,
        operation: DiskOperation,
        offset: u64,
        length: usize,
        segments: Segments,
    ) -> DiskCompletion {
        let token = self.submit(operation, offset, length, segments);
        self.wait(token).await
    }

    async fn write(&self, offset: u64, data: &[u8], durable: bool) -> io::Result<usize> {
        self.run(DiskOperation::Write { durable }, offset, data.len(), filled(data)).await.result
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let segments = filled(&vec![0xee; length]);
        let completion = self.run(DiskOperation::Read, offset, length, segments).await;
        let read = completion.result?;
        let mut data = vec![0; read];
        assert_eq!(completion.segments.copy_to(0, &mut data), read);
        Ok(data)
    }
}

/// Two segments where the length allows, so that vectors are tried too.
fn filled(data: &[u8]) -> Segments {
    let cut = (data.len() / 2).next_multiple_of(4096).min(data.len());
    let mut segments = Segments::new();
    for part in [&data[..cut], &data[cut..]] {
        if !part.is_empty() {
            let mut buffer = allocate(part.len()).unwrap();
            buffer.copy_from_slice(part);
            segments.push(buffer).unwrap();
        }
    }
    segments
}

fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| ((index + seed) * 131 % 253) as u8).collect()
}

fn with_disk(options: DiskOptions, test: impl AsyncFn(Io, Disk, PathBuf) + Send + Copy + 'static) {
    let folder = folder();
    let path = folder.path().join("disk");
    let reactors = start();
    let done = reactors.handles()[0].spawn(move || async move {
        let disk = Disk::open(&path, options).unwrap();
        let (io, _poller) = Io::open(&disk);
        test(io, disk, path).await;
    });
    assert_eq!(done.wait_blocking(), Ok(()));
    reactors.stop();
}

fn created(direct: bool) -> DiskOptions {
    DiskOptions { read_only: false, create_bytes: Some(8 * MIB as u64), direct }
}

// Without it what is written to a real file could come back from elsewhere, or not at all.
#[test]
fn what_is_written_is_read() {
    for direct in [true, false] {
        with_disk(created(direct), async |io, disk, _| {
            assert_eq!(disk.len_bytes(), 8 * MIB as u64);
            assert!([512, 4096].contains(&disk.block_bytes()) && !disk.is_block_device());
            assert_eq!(io.read(0, 8192).await.unwrap(), vec![0; 8192]);
            for (seed, (offset, length)) in [(0, 4096), (4096, 131_072), (MIB, MIB)].into_iter().enumerate() {
                let data = pattern(seed, length);
                assert_eq!(io.write(offset as u64, &data, seed == 1).await.unwrap(), length);
                assert_eq!(io.read(offset as u64, length).await.unwrap(), data);
            }
            assert_eq!(io.run(DiskOperation::Flush, 0, 0, Segments::EMPTY).await.result.unwrap(), 0);
            // The first write is where it was.
            assert_eq!(io.read(0, 4096).await.unwrap(), pattern(0, 4096));
        });
    }
}

// Without it many requests at once could be mixed up, or a full queue lose one.
#[test]
fn many_requests_fly_at_once() {
    with_disk(created(true), async |io, _, _| {
        let writes: Vec<u64> = (0..1000u64)
            .map(|index| {
                let data = pattern(index as usize, 4096);
                io.submit(DiskOperation::Write { durable: false }, index * 4096, 4096, filled(&data))
            })
            .collect();
        assert_eq!(io.state.borrow().queue.outstanding(), 1000);
        for token in writes {
            assert_eq!(io.wait(token).await.result.unwrap(), 4096);
        }
        assert_eq!(io.state.borrow().queue.outstanding(), 0);
        for index in (0..1000u64).step_by(37) {
            assert_eq!(io.read(index * 4096, 4096).await.unwrap(), pattern(index as usize, 4096));
        }
    });
}

// Without it deallocation could free nothing, or free what lies beside it.
#[test]
fn discarded_and_zeroed_ranges_read_as_zeros_and_discard_frees() {
    with_disk(created(true), async |io, _, path| {
        let data = pattern(3, MIB);
        for index in 0..4 {
            io.write(index * MIB as u64, &data, false).await.unwrap();
        }
        io.run(DiskOperation::Flush, 0, 0, Segments::EMPTY).await.result.unwrap();
        let before = std::fs::metadata(&path).unwrap().blocks();
        let end = io.run(DiskOperation::Discard, MIB as u64, 2 * MIB, Segments::EMPTY).await;
        assert_eq!(end.result.unwrap(), 2 * MIB);
        let after = std::fs::metadata(&path).unwrap().blocks();
        assert!(after + 2 * 1900 <= before, "{before} blocks before, {after} after 2 MiB were discarded");
        let zeroed =
            io.run(DiskOperation::WriteZeroes { deallocate: false }, 4096, 8192, Segments::EMPTY).await;
        assert_eq!(zeroed.result.unwrap(), 8192);

        assert_eq!(io.read(0, 4096).await.unwrap(), data[..4096]);
        assert_eq!(io.read(4096, 8192).await.unwrap(), vec![0; 8192]);
        assert_eq!(io.read(12_288, 4096).await.unwrap(), data[12_288..16_384]);
        assert_eq!(io.read(MIB as u64, MIB).await.unwrap(), vec![0; MIB]);
        assert_eq!(io.read(3 * MIB as u64, MIB).await.unwrap(), data);
    });
}

// Without it a request past the end could grow the file, and a shrunken file could give short data as whole.
#[test]
fn ranges_past_the_end_are_errors() {
    with_disk(created(true), async |io, disk, path| {
        let end = disk.len_bytes();
        let kind = |result: io::Result<usize>| result.unwrap_err().kind();
        let write = io.write(end, &pattern(0, 4096), false).await;
        assert_eq!(kind(write), io::ErrorKind::UnexpectedEof);
        let read = io.run(DiskOperation::Read, u64::MAX - 100, 4096, filled(&[0; 4096])).await;
        assert_eq!(kind(read.result), io::ErrorKind::UnexpectedEof);
        let short = io.run(DiskOperation::Read, 0, 8192, filled(&[0; 4096])).await;
        assert_eq!(kind(short.result), io::ErrorKind::InvalidInput);
        let nothing = io.run(DiskOperation::Discard, 0, 0, Segments::EMPTY).await;
        assert_eq!(nothing.result.unwrap(), 0);

        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(4096).unwrap();
        assert_eq!(kind(io.read(0, 8192).await.map(|data| data.len())), io::ErrorKind::UnexpectedEof);
    });
}

// Without it opening could wipe what is there, or a disk opened for reading be written.
#[test]
fn an_existing_file_is_kept_and_read_only_is_kept() {
    let folder = folder();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let kept = Disk::open(&path, created(true)).unwrap();
    assert_eq!(kept.len_bytes(), 8192);
    let missing = Disk::open(folder.path().join("missing"), DiskOptions::default());
    let text = missing.unwrap_err().to_string();
    assert!(text.contains("missing"), "{text}");
    assert!(Disk::open(folder.path(), DiskOptions { read_only: true, ..DiskOptions::default() }).is_err());

    let reactors = start();
    let done = reactors.handles()[0].spawn(move || async move {
        let disk = Disk::open(&path, DiskOptions { read_only: true, ..DiskOptions::default() }).unwrap();
        let (io, _poller) = Io::open(&disk);
        assert_eq!(io.read(0, 8192).await.unwrap(), vec![7; 8192]);
        let written = io.write(0, &[1; 4096], false).await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    });
    assert_eq!(done.wait_blocking(), Ok(()));
    reactors.stop();
}

// Without it memory of a dropped queue's requests could be reused while the kernel still writes there, or the
// reactor's end could hang or leak.
#[test]
fn a_queue_may_go_with_requests_in_flight() {
    let folder = folder();
    let path = folder.path().join("disk");
    let reactors = start();
    let done = reactors.handles()[0].spawn(move || async move {
        let disk = Disk::open(&path, created(true)).unwrap();
        for round in 0..20 {
            let mut queue = DiskQueue::open(&disk).unwrap();
            for token in 0..16u64 {
                let segments = filled(&pattern(round, 65_536));
                let operation = if token % 2 == 0 {
                    DiskOperation::Read
                } else {
                    DiskOperation::Write { durable: false }
                };
                let request = DiskRequest {
                    token,
                    operation,
                    offset: token * 65_536,
                    length: 65_536,
                    segments,
                    skip: 0,
                };
                queue.submit(request).unwrap();
            }
            drop(queue);
            // Until their memory is back, so that the pool does not run dry.
            while sledge_reactor::memory::statistics().used_buffers > 0 {
                sledge_reactor::yield_now().await;
            }
        }
        // And some that are in flight at the reactor's end.
        let mut queue = DiskQueue::open(&disk).unwrap();
        for token in 0..16u64 {
            let segments = filled(&pattern(0, 65_536));
            let operation = DiskOperation::Write { durable: true };
            let request =
                DiskRequest { token, operation, offset: token * 65_536, length: 65_536, segments, skip: 0 };
            queue.submit(request).unwrap();
        }
    });
    assert_eq!(done.wait_blocking(), Ok(()));
    reactors.stop();
}
