//! A queue pair without traffic takes little of the target's memory.
#![allow(clippy::unwrap_used)]

mod host_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, Instant};

use host_support::*;
use sledge_nvmf::host::{Controller, QueuePair};
use sledge_nvmf::target::{Target, TransportOptions};
use sledge_reactor::memory::PoolOptions;
use sledge_reactor::options::{CoreList, ReactorOptions, Wait};
use sledge_reactor::time::sleep;
use sledge_reactor::{Reactors, peers};

struct Counting;

thread_local! {
    /// Bytes that this thread took from the heap, less those that it gave back.
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // A thread that is ending has no counter any more; nobody reads it then.
    let _ = LIVE.try_with(|live| live.set(live.get() + bytes));
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller keeps the contract of `dealloc`; the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller keeps the contract of `realloc`; the memory came from `System`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Queue pairs that are opened.
const QUEUES: u16 = 96;
/// What each may take once it is idle.
const MOST_BYTES: i64 = 1024;
/// A queue pair counts as idle after two seconds; a busy machine gets more.
const PATIENCE: Duration = Duration::from_secs(60);

fn start() -> Reactors {
    Reactors::start(ReactorOptions {
        cores: CoreList::floating(1),
        wait: Wait::default(),
        pool: PoolOptions { total_bytes: 32 << 20 },
    })
    .unwrap()
}

// Without this a target with thousands of hosts could take a multiple of the memory that it needs, as each queue pair
// kept what its busiest moment took.
#[test]
fn idle_queue_pairs_are_small() {
    let (targets, hosts) = (start(), start());
    let target_reactor = targets.handles()[0].clone();
    let address = free_address();
    let started = target_reactor.spawn(move || async move {
        let target = Target::start(peers()).await.unwrap();
        let device = device();
        target.apply(definition(&target, &device, address, TransportOptions::default())).await.unwrap();
    });
    started.wait_blocking().unwrap();
    let measured = hosts.handles()[0].spawn(move || async move {
        let mut options = options(address);
        options.io_queues = QUEUES;
        let controller = Controller::connect(options).await.unwrap();
        let live = async || target_reactor.spawn(|| async { LIVE.get() }).await.unwrap();
        let before = live().await;
        let mut pairs = Vec::new();
        for _ in 0..QUEUES {
            pairs.push(QueuePair::open(&controller, 1).await.unwrap());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let each = (live().await - before) / i64::from(QUEUES);
            if each <= MOST_BYTES || Instant::now() > deadline {
                return each;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    let each = measured.wait_blocking().unwrap();
    hosts.stop();
    targets.stop();
    println!("an idle queue pair takes {each} bytes");
    assert!(each <= MOST_BYTES, "an idle queue pair takes {each} bytes, more than {MOST_BYTES}");
}
