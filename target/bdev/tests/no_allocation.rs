//! No device allocates for a command once it has warmed up: counted by a global allocator of this process.

#![allow(clippy::unwrap_used)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies};
use sledge_bdev::null::{NullDevice, NullOptions};
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::{memory, sleep, yield_now};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(start, layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(start, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often is counted.
const TRIES: usize = 5;

/// Submits a batch of commands and polls until all have ended.
async fn batch(channel: &mut dyn Channel, number: u64, done: &mut Vec<IoCompletion>, pause: Duration) {
    let mut pending = 0;
    for index in 0..16u64 {
        let operation = match (number + index) % 4 {
            0 | 1 => Operation::Read,
            2 => Operation::Write,
            _ => Operation::WriteZeroes { deallocate: false },
        };
        // Neighbours overlap, so that some wait for others.
        let mut io = IoCommand::new(index, operation, index / 2, 1);
        if operation == Operation::Write {
            io.data = memory::allocate(4096).unwrap().into();
        }
        match channel.submit(io) {
            Submitted::Done(completion) => assert!(completion.status.is_success()),
            Submitted::Pending => pending += 1,
        }
    }
    sleep(pause).await;
    while pending > 0 {
        channel.poll(done);
        pending -= done.len();
        assert!(done.drain(..).all(|completion| completion.status.is_success()));
        yield_now().await;
    }
}

// Deleting this lets an allocation per command creep into a device.
#[test]
fn no_device_allocates_per_command() {
    let folder = common::folder();
    let null = NullOptions { name: "Null0".to_owned(), uuid: None, num_blocks: 64, block_size: 4096 };
    let latencies = Latencies { avg_read_latency: 30, avg_write_latency: 20, ..Latencies::default() };
    let delay = DelayOptions { name: "Delay0".to_owned(), uuid: None, latencies };
    let devices: Vec<Arc<dyn BlockDevice>> = vec![
        Arc::new(NullDevice::new(null).unwrap()),
        common::malloc(64, 4096),
        common::uring(&folder.path().join("disk"), 64, 4096).unwrap(),
        Arc::new(DelayDevice::new(common::malloc(64, 4096), delay).unwrap()),
    ];
    for device in devices {
        let name = device.name().to_owned();
        let allocations = common::on_reactor(move || async move {
            let mut channel = device.open_channel().unwrap();
            let mut done = Vec::with_capacity(64);
            for number in 0..50 {
                // Long enough that many end at once: tables reach the size that they need.
                batch(channel.as_mut(), number, &mut done, Duration::from_millis(number % 5)).await;
            }
            let mut counts = Vec::with_capacity(TRIES);
            // A table that a slow disk kept small may grow once more; what allocates for commands does so each time.
            while counts.len() < TRIES && counts.last() != Some(&0) {
                let before = ALLOCATIONS.with(Cell::get);
                for number in 0..100 {
                    batch(channel.as_mut(), number, &mut done, Duration::ZERO).await;
                }
                counts.push(ALLOCATIONS.with(Cell::get) - before);
            }
            counts
        });
        assert_eq!(allocations.last(), Some(&0), "{name} allocated for each 1600 commands: {allocations:?}");
    }
}
