//! Pool memory from elsewhere. A process of its own, as the source is the whole process's.

#![allow(clippy::unwrap_used)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sledge_reactor::memory::{Backing, PoolMemory, pools, set_pool_source, statistics};
use sledge_reactor::{CoreList, PoolOptions, ReactorOptions, Reactors};

const MIB: usize = 1 << 20;

/// Memory of the heap, which counts itself.
struct Block {
    start: usize,
    layout: Layout,
    out: Arc<AtomicUsize>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.out.fetch_sub(1, Ordering::SeqCst);
        // SAFETY: `start` was allocated with this layout and is given back once.
        unsafe { dealloc(self.start as *mut u8, self.layout) }
    }
}

// Without it an environment that brings its own memory would see buffers that its devices can't reach, or lose memory.
#[test]
fn pools_come_from_the_source_and_go_back() {
    let out = Arc::new(AtomicUsize::new(0));
    let counted = out.clone();
    let source = move |bytes: usize| {
        let layout = Layout::from_size_align(bytes, 2 * MIB).map_err(io::Error::other)?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        counted.fetch_add(1, Ordering::SeqCst);
        let keep = Block { start: start.as_ptr() as usize, layout, out: counted.clone() };
        // SAFETY: the block is zeroed memory of this length, which `keep` frees.
        Ok(unsafe { PoolMemory::new(start, bytes, Backing::HugePages, keep) })
    };
    assert!(set_pool_source(Box::new(source)).is_ok());
    assert!(set_pool_source(Box::new(|_| Err(io::Error::other("another")))).is_err());

    let options = ReactorOptions {
        cores: CoreList::parse("0").unwrap(),
        pool: PoolOptions { total_bytes: 4 * MIB },
        ..ReactorOptions::default()
    };
    let reactors = Reactors::start(options).unwrap();
    let ranges = reactors.handles()[0]
        .spawn(|| async {
            assert_eq!(statistics().backing, Backing::HugePages);
            let mut buffer = sledge_reactor::allocate(4096).unwrap();
            buffer.fill(1);
            let ranges = pools();
            let at = buffer.as_ptr().addr();
            let start = ranges[0].start().addr().get();
            assert!((start..start + ranges[0].bytes()).contains(&at));
            ranges
        })
        .wait_blocking()
        .unwrap();
    reactors.stop();
    // What a device may still reach stays; the rest went back.
    assert_eq!(out.load(Ordering::SeqCst), 2);
    drop(ranges);
    assert_eq!(out.load(Ordering::SeqCst), 0);
}
