//! Both drivers of the disk engine, without a reactor around them.

use std::cell::Cell;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::engine::{Driver, Engine, TABLE, Waited};
use super::file::open_disk;
use super::poll::Poll;
use super::registered::Range;
use super::ring::Ring;
use super::threads::Threads;
use super::transfer::{Call, CallKind, NO_SLICES};
use super::wake::RealWaker;
use crate::backend::{DiskQueueOps, Readiness, ReadinessSink, Wake};
use crate::disk::{DiskCompletion, DiskOperation, DiskOptions, DiskRequest, QUEUE_DEPTH};
use crate::memory::{Pool, PoolOptions, Segments};

const BLOCK: usize = 4096;

fn for_each_driver(test: impl Fn(&std::rc::Rc<Engine>)) {
    for_each_driver_with(&Arc::new(RealWaker::new().unwrap()), test);
}

fn for_each_driver_with(waker: &Arc<RealWaker>, test: impl Fn(&std::rc::Rc<Engine>)) {
    let mut drivers: Vec<Box<dyn Driver>> = vec![Box::new(Threads::new(waker.clone()).unwrap())];
    match Ring::new(&[]) {
        Ok(ring) => drivers.push(Box::new(ring)),
        Err(error) => println!("left out: the kernel refuses io_uring: {error}"),
    }
    for driver in drivers {
        let engine = Engine::over(driver);
        test(&engine);
        engine.drain();
    }
}

fn run(engine: &std::rc::Rc<Engine>, queue: &mut dyn DiskQueueOps, request: DiskRequest) -> DiskCompletion {
    queue.submit(request).unwrap();
    let mut done = Vec::new();
    while done.is_empty() {
        engine.flush();
        engine.reap();
        queue.poll(&mut done);
    }
    done.remove(0)
}

fn disk(folder: &tempfile::TempDir, len: u64) -> crate::disk::Disk {
    let options = DiskOptions { create_bytes: Some(len), direct: false, ..DiskOptions::default() };
    open_disk(&folder.path().join("disk"), &options).unwrap()
}

// Without it the threads, which few machines need, could differ from the ring in what they do.
#[test]
fn both_drivers_do_the_same() {
    for_each_driver(|engine| {
        let folder = tempfile::tempdir().unwrap();
        let pool = Pool::ordinary(&PoolOptions { total_bytes: 4 << 20 }).unwrap();
        let mut queue = engine.open_queue(&disk(&folder, 1 << 20)).unwrap();
        let mut request = |operation, offset, length: usize, byte: u8| {
            let mut segments = Segments::new();
            if matches!(operation, DiskOperation::Read | DiskOperation::Write { .. }) {
                // 100 bytes to skip, then two parts.
                for len in [100 + BLOCK, length - BLOCK] {
                    let mut buffer = pool.allocate(len).unwrap();
                    buffer.fill(byte);
                    segments.push(buffer).unwrap();
                }
            }
            let length = length as u64;
            let request = DiskRequest { token: 5, operation, offset, length, segments, skip: 100 };
            run(engine, &mut *queue, request)
        };
        for durable in [false, true] {
            let end = request(DiskOperation::Write { durable }, 0, 5 * BLOCK, 7);
            assert_eq!((end.token, end.operation), (5, DiskOperation::Write { durable }));
            assert_eq!(end.result.unwrap(), 5 * BLOCK);
        }
        assert_eq!(request(DiskOperation::Flush, 0, 0, 0).result.unwrap(), 0);
        assert_eq!(request(DiskOperation::Discard, BLOCK as u64, BLOCK, 0).result.unwrap(), BLOCK);
        let zeroes = request(DiskOperation::WriteZeroes { deallocate: false }, 3 * BLOCK as u64, BLOCK, 0);
        assert_eq!(zeroes.result.unwrap(), BLOCK);
        let read = request(DiskOperation::Read, 0, 5 * BLOCK, 9);
        assert_eq!(read.result.unwrap(), 5 * BLOCK);
        let mut data = vec![1; 100 + 5 * BLOCK];
        read.segments.copy_to(0, &mut data);
        assert!(data[..100].iter().all(|byte| *byte == 9), "what is skipped is left alone");
        for (index, expected) in [7, 0, 7, 0, 7].into_iter().enumerate() {
            let block = &data[100 + index * BLOCK..][..BLOCK];
            assert!(block.iter().all(|byte| *byte == expected), "block {index}");
        }
    });
}

// Without it a queue could take more than it promised, or a table that is full could lose a request.
#[test]
fn full_queues_and_a_full_table_refuse() {
    for_each_driver(|engine| {
        let folder = tempfile::tempdir().unwrap();
        let disk = disk(&folder, 1 << 20);
        let mut queues: Vec<_> = (0..3).map(|_| engine.open_queue(&disk).unwrap()).collect();
        let request = |token| DiskRequest {
            token,
            operation: DiskOperation::Flush,
            offset: 0,
            length: 0,
            segments: Segments::EMPTY,
            skip: 0,
        };
        for queue in &mut queues[..2] {
            for token in 0..QUEUE_DEPTH as u64 {
                queue.submit(request(token)).unwrap();
            }
            assert_eq!(queue.submit(request(u64::MAX)).unwrap_err().token, u64::MAX);
        }
        assert_eq!(2 * QUEUE_DEPTH, TABLE);
        assert_eq!(queues[2].submit(request(1)).unwrap_err().token, 1);
        let mut tokens = Vec::new();
        while tokens.len() < TABLE {
            engine.flush();
            engine.reap();
            let mut done = Vec::new();
            for queue in &mut queues {
                queue.poll(&mut done);
            }
            tokens.extend(done.into_iter().map(|completion| completion.token));
        }
        tokens.sort_unstable();
        let expected: Vec<u64> = (0..QUEUE_DEPTH as u64).flat_map(|token| [token, token]).collect();
        assert_eq!(tokens, expected);
        queues[2].submit(request(1)).unwrap();
        assert_eq!(queues[2].outstanding(), 1);
    });
}

// Without it a reactor could sleep on a completion that came just before, or never be woken by one that comes.
#[test]
fn a_completion_is_seen_before_sleep_or_ends_it() {
    let waker = Arc::new(RealWaker::new().unwrap());
    let poll = Poll::new().unwrap();
    poll.register_wake(waker.descriptor()).unwrap();
    for_each_driver_with(&waker, |engine| {
        let folder = tempfile::tempdir().unwrap();
        let mut queue = engine.open_queue(&disk(&folder, 1 << 20)).unwrap();
        let request = DiskRequest {
            token: 1,
            operation: DiskOperation::Flush,
            offset: 0,
            length: 0,
            segments: Segments::EMPTY,
            skip: 0,
        };
        queue.submit(request).unwrap();
        engine.flush();
        // As a reactor does. Without a limit: a completion that is missed keeps the test from ending.
        loop {
            waker.rest().begin_turn();
            if engine.reap() == 1 {
                break;
            }
            if waker.rest().try_sleep() {
                engine.sleep(&poll, None);
            }
        }
        // With nothing in flight only the epoll ends the wait.
        assert!(!engine.knows_epoll_quiet());
        assert!(!engine.waits_for_threads());
        engine.sleep(&poll, Some(Duration::ZERO));
    });
}

// Without it data could go to or come from the wrong place when buffers are registered: at a chunk's begin and end, in
// both ranges, and in memory that is in none.
#[test]
fn registered_memory_is_the_memory_of_the_transfer() {
    let pools = [0; 3].map(|_| Pool::ordinary(&PoolOptions { total_bytes: 3 << 20 }).unwrap());
    let ranges = [0, 1].map(|index: usize| {
        let (start, len) = pools[index].range();
        Range { start, len }
    });
    let Ok(ring) = Ring::new(&ranges) else {
        println!("left out: the kernel refuses io_uring");
        return;
    };
    let engine = Engine::over(Box::new(ring));
    let folder = tempfile::tempdir().unwrap();
    let mut queue = engine.open_queue(&disk(&folder, 1 << 20)).unwrap();
    for (number, pool) in pools.iter().enumerate() {
        // Two of its three chunks.
        let mut buffers: Vec<_> = (0..512).map(|_| pool.allocate(BLOCK).unwrap()).collect();
        for (index, buffer) in buffers.iter_mut().enumerate() {
            buffer.fill((index * 7 + number) as u8);
        }
        for (index, buffer) in
            buffers.into_iter().enumerate().filter(|(index, _)| index % 51 == 0 || index % 256 > 253)
        {
            let mut request = DiskRequest {
                token: index as u64,
                operation: DiskOperation::Write { durable: false },
                offset: 4096 * (index as u64 % 256),
                length: BLOCK as u64,
                segments: Segments::from(buffer),
                skip: 0,
            };
            let (offset, length) = (request.offset, request.length);
            request =
                DiskRequest { segments: run(&engine, &mut *queue, request).segments, ..read(offset, length) };
            request.segments.copy_from(0, &[0; BLOCK]);
            let end = run(&engine, &mut *queue, request);
            assert_eq!(end.result.unwrap(), BLOCK);
            let mut data = vec![0; BLOCK];
            end.segments.copy_to(0, &mut data);
            assert_eq!(data, vec![(index * 7 + number) as u8; BLOCK], "buffer {index} of pool {number}");
        }
    }
    drop(queue);
    engine.drain();
}

fn read(offset: u64, length: u64) -> DiskRequest {
    DiskRequest {
        token: 0,
        operation: DiskOperation::Read,
        offset,
        length,
        segments: Segments::EMPTY,
        skip: 0,
    }
}

/// Calls that have ended: number and result.
type Ended = [(u32, i32)];

/// Notes that its socket became readable.
struct Noted(Cell<bool>);

impl ReadinessSink for Noted {
    fn ready(&self, readiness: Readiness) {
        self.0.set(self.0.get() || readiness.readable);
    }
}

// Without it a reactor with a slow disk could sleep on a message or a socket until the disk answers: the ring's wait must
// end with either, whether it comes before the wait or in it, time after time.
#[test]
fn messages_and_sockets_end_the_sleep_while_calls_are_in_flight() {
    each_event_ends_the_sleep(Waited { in_flight: 1, on_threads: false });
    // Of so many calls that threads end, several are waited for together; a lone event must still end the sleep.
    each_event_ends_the_sleep(Waited { in_flight: 64, on_threads: true });
}

fn each_event_ends_the_sleep(waited: Waited) {
    let waker = Arc::new(RealWaker::new().unwrap());
    let poll = Poll::new().unwrap();
    poll.register_wake(waker.descriptor()).unwrap();
    let Ok(mut ring) = Ring::new(&[]) else {
        println!("left out: the kernel refuses io_uring");
        return;
    };
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let watch = poll.register(ours.as_raw_fd()).unwrap();
    let noted = Rc::new(Noted(Cell::new(false)));
    watch.set_sink(noted.clone());

    // A call that ends when this test lets it.
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut byte = [0u8];
    let mut slices = NO_SLICES;
    slices[0] = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let call = Call { descriptor: reader.as_raw_fd(), place: None, kind: CallKind::Read(1), offset: 0 };
    ring.push(3, &call, &slices);
    ring.flush();

    let mut ended = Vec::new();
    // As a reactor does. Without a limit: what is missed keeps the test from ending.
    let mut turns_until = |found: &mut dyn FnMut(&Ended) -> bool| {
        loop {
            waker.rest().begin_turn();
            ring.reap(&mut ended);
            if !ring.knows_epoll_quiet() {
                poll.dispatch();
            }
            if found(&ended) {
                return;
            }
            if waker.rest().try_sleep() {
                ring.sleep(&poll, None, waited);
            }
        }
    };
    for _ in 0..200 {
        let sent = Arc::new(AtomicBool::new(false));
        let sender = std::thread::spawn({
            let (sent, waker) = (sent.clone(), waker.clone());
            move || {
                sent.store(true, Ordering::Release);
                waker.wake();
            }
        });
        turns_until(&mut |_| sent.load(Ordering::Acquire));
        sender.join().unwrap();

        let writing = std::thread::spawn(move || {
            theirs.write_all(b"x").unwrap();
            theirs
        });
        turns_until(&mut |_| noted.0.take());
        theirs = writing.join().unwrap();
        ours.read_exact(&mut [0]).unwrap();
    }
    writer.write_all(b"y").unwrap();
    turns_until(&mut |ended| !ended.is_empty());
    assert_eq!((ended, byte), (vec![(3, 1)], *b"y"));
    poll.forget(&watch);
}
