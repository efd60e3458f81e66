//! The data path allocates nothing once it has warmed up: counted by a global allocator of this process.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use sledge_nvme::driver::io_queue::IoQueueOptions;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvme::model::ModelOptions;
use sledge_reactor::memory;

use crate::rig::{Rig, simulated};

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

/// Allocations of the calls that `calls` makes.
fn count(total: &mut u64, calls: impl FnOnce()) {
    let before = ALLOCATIONS.with(Cell::get);
    calls();
    *total += ALLOCATIONS.with(Cell::get) - before;
}

// Deleting this lets an allocation per command creep into the data path.
#[test]
fn nothing_is_allocated_per_command() {
    simulated(|| async {
        for sgl in [false, true] {
            let rig = Rig::new(
                ModelOptions { sgl, mdts: 4, ..ModelOptions::default() },
                IoQueueOptions { depth: 16, ..IoQueueOptions::default() },
            );
            let mut channel = rig.channel(1);
            // The model's own work is not counted: it works between the calls.
            rig.model.automatic(false);
            let mut done: Vec<IoCompletion> = Vec::with_capacity(256);
            let mut allocations = 0;
            for round in 0..60 {
                let mut counted = 0;
                for index in 0..40 {
                    let (operation, blocks) = match index % 8 {
                        0..=2 => (Operation::Read, 8),
                        3 | 4 => (Operation::Write, 8),
                        5 => (Operation::WriteZeroes { deallocate: false }, 8),
                        6 => (Operation::Deallocate, 100),
                        _ => (Operation::Read, 512),
                    };
                    let mut io = IoCommand::new(index, operation, index * 16, blocks);
                    if operation == Operation::Write {
                        io.data = memory::allocate(4096).unwrap().into();
                    }
                    count(&mut counted, || assert!(matches!(channel.submit(io), Submitted::Pending)));
                }
                let mut ended = 0;
                while ended < 40 {
                    rig.model.step();
                    count(&mut counted, || channel.poll(&mut done));
                    ended += done.len();
                    assert!(done.drain(..).all(|completion| completion.status.is_success()));
                }
                if round >= 10 {
                    allocations += counted;
                }
            }
            assert_eq!(allocations, 0, "for 2000 commands, {}", if sgl { "SGLs" } else { "PRPs" });
        }
    });
}
