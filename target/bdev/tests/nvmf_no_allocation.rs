//! Reads and writes over the wire touch the heap neither on the host nor on the target, once they flow.
#![allow(clippy::unwrap_used)]

mod host_support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use host_support::*;
use sledge_bdev::BlockDevice;
use sledge_bdev::nvme::Controllers;
use sledge_bdev::nvme::options::{AttachOptions, NvmeOptions, Transport};
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvmf::host::{Controller, QueuePair};
use sledge_nvmf::target::{Target, TransportOptions};
use sledge_reactor::memory::{PoolOptions, Segments, allocate};
use sledge_reactor::options::{CoreList, ReactorOptions, Wait};
use sledge_reactor::poller::{Poller, Turn, register_poller};
use sledge_reactor::time::sleep;
use sledge_reactor::{Reactors, peers};

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

/// I/Os that are counted, by size; half as many before let every list grow to its size.
const LOADS: [(usize, u64); 2] = [(4096, 6000), (128 * 1024, 600)];
/// Timers and keep-alives may allocate now and then; an I/O that allocates does so each time.
const IOS_PER_ALLOCATION: u64 = 20;

/// Keeps a queue pair full with reads and writes of one size, and counts.
struct Load {
    pair: Box<dyn Channel>,
    bytes: usize,
    done: Vec<IoCompletion>,
    idle: Vec<(u64, Segments)>,
    ended: Rc<Cell<u64>>,
}

impl Poller for Load {
    fn name(&self) -> &'static str {
        "test-load"
    }

    fn poll(&mut self) -> Turn {
        self.pair.poll(&mut self.done);
        for completion in self.done.drain(..) {
            assert!(completion.status.is_success(), "{}", completion.status);
            self.ended.set(self.ended.get() + 1);
            self.idle.push((completion.token, completion.data));
        }
        let blocks = (self.bytes / BLOCK) as u32;
        while let Some((token, data)) = self.idle.pop() {
            let operation = if token.is_multiple_of(2) { Operation::Read } else { Operation::Write };
            let mut command = IoCommand::new(token, operation, token % 7 * u64::from(blocks), blocks);
            command.data = data;
            assert!(matches!(self.pair.submit(command), Submitted::Pending));
        }
        Turn::KeepPolling
    }
}

/// By which way the namespace is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Queue,
    QueueWithDigests,
    /// Through an NVMe device, which chooses a path for each I/O.
    Device,
}

async fn measure(address: SocketAddr, bytes: usize, counted: u64, way: Way) -> u64 {
    let mut options = options(address);
    let digests = way == Way::QueueWithDigests;
    (options.header_digest, options.data_digest) = (digests, digests);
    let (mut controller, controllers) = (None, Controllers::new());
    let pair: Box<dyn Channel> = if way == Way::Device {
        controllers.start(peers());
        let transport = Transport::Tcp { address, subsystem: options.subsystem };
        let wanted = AttachOptions::new("Nvme0", transport);
        let attached = controllers.attach(wanted, &NvmeOptions::default()).await.unwrap();
        attached.made[0].open_channel().unwrap()
    } else {
        let connected = Controller::connect(options).await.unwrap();
        let pair = QueuePair::open(&connected, 1).await.unwrap();
        controller = Some(connected);
        Box::new(pair)
    };
    let idle = (0..16).map(|token| (token, Segments::from(allocate(bytes).unwrap()))).collect();
    let ended = Rc::new(Cell::new(0));
    let load = Load { pair, bytes, done: Vec::with_capacity(64), idle, ended: ended.clone() };
    let poller = register_poller(load);
    let until = async |count: u64| {
        while ended.get() < count {
            sleep(Duration::from_millis(1)).await;
        }
    };
    until(counted / 2).await;
    let before = ALLOCATIONS.get();
    until(counted / 2 + counted).await;
    let allocations = ALLOCATIONS.get() - before;
    drop(poller);
    drop(controller);
    controllers.shut_down().await;
    allocations
}

// Without it the data path could start to allocate for each I/O, and nobody would notice but the profiler.
#[test]
fn reads_and_writes_do_not_allocate() {
    let reactors = Reactors::start(ReactorOptions {
        cores: CoreList::floating(1),
        wait: Wait::Busy,
        pool: PoolOptions { total_bytes: 32 << 20 },
    })
    .unwrap();
    // Host and target share the reactor, so that its thread's counter sees both.
    let address = free_address();
    let results = reactors.handles()[0].spawn(move || async move {
        let target = Target::start(peers()).await.unwrap();
        let device = device();
        target.apply(definition(&target, &device, address, TransportOptions::default())).await.unwrap();
        let results = RefCell::new(BTreeMap::new());
        for (bytes, counted) in LOADS {
            for way in [Way::Queue, Way::QueueWithDigests, Way::Device] {
                let allocations = measure(address, bytes, counted, way).await;
                results.borrow_mut().insert((bytes, way), (allocations, counted));
            }
        }
        results.into_inner()
    });
    let results = results.wait_blocking().unwrap();
    reactors.stop();
    let few = results.values().all(|(allocations, ios)| allocations * IOS_PER_ALLOCATION <= *ios);
    assert!(few, "(bytes, way): (allocations, I/Os): {results:?}");
}
