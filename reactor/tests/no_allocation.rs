//! The steady state of a reactor's I/O touches the heap not once: buffers, sockets, disks, timers, wakes.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{IoSlice, IoSliceMut};
use std::time::Duration;

use sledge_reactor::{
    CoreList, Disk, DiskCompletion, DiskOperation, DiskOptions, DiskQueue, DiskRequest, PoolOptions,
    ReactorOptions, Reactors, Segments, TcpListener, TcpStream, Wait, allocate, sleep, yield_now,
};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts allocations by thread.
struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches only a thread-local without a
// destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the allocator's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

struct Work {
    client: TcpStream,
    server: TcpStream,
    queue: DiskQueue,
    done: Vec<DiskCompletion>,
}

impl Work {
    /// A read from disk, sent over a socket and received, with a timer in between.
    async fn round(&mut self) {
        let buffer = allocate(4096).unwrap();
        let request = DiskRequest {
            token: 1,
            operation: DiskOperation::Read,
            offset: 4096,
            length: 4096,
            segments: Segments::from(buffer),
            skip: 0,
        };
        self.queue.submit(request).unwrap();
        while self.done.is_empty() {
            yield_now().await;
            self.queue.poll(&mut self.done);
        }
        let completion = self.done.pop().unwrap();
        assert_eq!(completion.result.unwrap(), 4096);
        let data = completion.segments.get(0).unwrap().as_slice();
        assert_eq!(self.client.try_write(&[IoSlice::new(data)]).unwrap(), Some(4096));
        let mut bytes = [0; 4096];
        let mut read = 0;
        while read < 4096 {
            match self.server.try_read(&mut [IoSliceMut::new(&mut bytes[read..])]).unwrap() {
                Some(more) => read += more,
                None => self.server.readable().await,
            }
        }
        assert_eq!(bytes, [5; 4096]);
        sleep(Duration::from_micros(20)).await;
    }
}

// Without it an allocation per I/O could creep into the path that every command takes.
#[test]
fn io_in_steady_state_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![5; 1 << 20]).unwrap();
    for wait in [Wait::Busy, Wait::Adaptive { spin: Duration::ZERO }] {
        let pool = PoolOptions { total_bytes: 1 << 20 };
        let reactors = Reactors::start(ReactorOptions { cores: CoreList::floating(1), wait, pool }).unwrap();
        let path = path.clone();
        let counted = reactors.handles()[0].spawn(|| async move {
            let disk = Disk::open(&path, DiskOptions { direct: false, ..DiskOptions::default() }).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let server = listener.accept().await.unwrap().0.attach().unwrap();
            let queue = DiskQueue::open(&disk).unwrap();
            let mut work = Work { client, server, queue, done: Vec::with_capacity(1) };
            for _ in 0..100 {
                work.round().await;
            }
            let before = allocations();
            for _ in 0..1000 {
                work.round().await;
            }
            allocations() - before
        });
        assert_eq!(counted.wait_blocking(), Ok(0), "{wait:?}");
        reactors.stop();
    }
}
