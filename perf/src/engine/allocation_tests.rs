//! The hot loop does not touch the heap.

use super::tests::run_here;
use crate::job::{Distribution, Job, Mode, SizeSplit, Target};
use sledge_reactor::Reactors;
use sledge_reactor::options::{CoreList, ReactorOptions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more; nobody reads it then.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`; the memory came from `System`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`; the memory came from `System`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What a job allocates on its reactor, all in all.
fn allocations(job: Job) -> u64 {
    let options = ReactorOptions { cores: CoreList::floating(1), ..ReactorOptions::default() };
    let reactors = Reactors::start(options).unwrap();
    let counted = reactors.handles()[0].spawn(|| async {
        let before = ALLOCATIONS.get();
        let results = run_here(job).await;
        assert_eq!((results.errors, results.first_error), (0, None));
        ALLOCATIONS.get() - before
    });
    let counted = counted.wait_blocking().unwrap();
    reactors.stop();
    counted
}

// Without it an allocation for each I/O could come in, and take more time than all the rest of the loop.
#[test]
fn more_ios_allocate_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let base = || Job {
        mode: Mode::Randrw,
        read_sizes: SizeSplit(vec![(4096, 50), (8192, 50)]),
        size: Some(8 << 20),
        depth: 8,
        time: Duration::from_secs(600),
        flush_every: Some(500),
        ..Job::new(Target::File { path: path.clone(), direct: false })
    };
    let shapes: [fn(&mut Job); 4] = [
        |job| (job.verify, job.distribution) = (true, Distribution::Zipf(1.1)),
        |job| job.rate_iops = Some(1e7),
        |job| (job.think_time, job.distribution) = (Duration::from_nanos(1), Distribution::Pareto(0.2)),
        // These go in parts.
        |job| job.read_sizes = SizeSplit(vec![(4096, 99), (2 << 20, 1)]),
    ];
    for (number, shape) in shapes.into_iter().enumerate() {
        let of = |ios: u64| {
            let mut job = base();
            shape(&mut job);
            job.io_count = Some(ios);
            allocations(job)
        };
        let (few, many) = (of(100), of(10_000));
        // A longer run has more ticks, whose timers may allocate now and then.
        assert!(many < few + 500, "shape {number}: {few} for 100 I/Os, {many} for 10,000");
    }
}
