//! A drive that is nothing but two rings: for each command it writes a completion, and touches no data. What is counted
//! over it is the driver.
//!
//! Owns the device's side of one queue pair. Invariant: it completes each command that was rung for once, in order, when
//! it is asked to, or in the doorbell's write when it is automatic. Made on the reactor that uses it.

use super::Failure;
use sledge_nvme::Completion;
use sledge_nvme::driver::NamespaceChannel;
use sledge_nvme::driver::io_queue::{IoQueue, IoQueueOptions};
use sledge_nvme::driver::shape::NamespaceShape;
use sledge_nvme::function::{DmaError, DmaMemory, Function, Presence, Registration};
use sledge_nvme::identify::{ControllerData, NamespaceData};
use std::alloc::{Layout, alloc_zeroed};
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Entries of its queues.
pub const DEPTH: u16 = 1024;
const SUBMISSION_DOORBELL: usize = 0x1008;
const PAGE: usize = 4096;

/// The drive. All of it is used by one thread; the atomics satisfy the compiler and cost what plain words do.
#[derive(Debug, Default)]
pub struct BareDrive {
    automatic: AtomicBool,
    submission: AtomicUsize,
    completion: AtomicUsize,
    tail: AtomicUsize,
    head: AtomicUsize,
    /// Writes to doorbells.
    pub doorbells: AtomicU64,
}

impl BareDrive {
    /// A drive, and the driver's queue on it, running.
    pub fn start(automatic: bool) -> Result<(Arc<Self>, Rc<IoQueue>), Failure> {
        let drive = Arc::new(Self::default());
        let options = IoQueueOptions { depth: DEPTH, ..IoQueueOptions::default() };
        let queue = IoQueue::new(drive.clone(), &options)?;
        let addresses = queue.addresses().ok_or("the queue has no rings")?;
        drive.at(addresses.submission, addresses.completion, automatic);
        queue.start();
        Ok((drive, queue))
    }

    /// Where its rings lie.
    pub fn at(&self, submission: u64, completion: u64, automatic: bool) {
        self.submission.store(submission as usize, Ordering::Relaxed);
        self.completion.store(completion as usize, Ordering::Relaxed);
        self.automatic.store(automatic, Ordering::Relaxed);
    }

    /// Completes all that was rung for.
    pub fn complete(&self) {
        let submission = self.submission.load(Ordering::Relaxed) as *const u16;
        let completion = self.completion.load(Ordering::Relaxed) as *mut u64;
        let (mut head, tail) = (self.head.load(Ordering::Relaxed), self.tail.load(Ordering::Relaxed));
        // Heads count on, so that the Phase Tag follows from them.
        while head % usize::from(DEPTH) != tail {
            let (slot, round) = (head % usize::from(DEPTH), head / usize::from(DEPTH));
            let phase = (round as u64 + 1) & 1;
            // SAFETY: both rings have `DEPTH` entries, of 64 and of 16 bytes, aligned to pages, and live as long as the
            // queue, which alone rings; this thread is the only one.
            unsafe {
                let cid = u64::from(submission.add(slot * 32 + 1).read_volatile());
                let sqhd = (slot as u64 + 1) % u64::from(DEPTH);
                completion.add(slot * 2 + 1).write_volatile(sqhd | 1 << 16 | cid << 32 | phase << 48);
            }
            head += 1;
        }
        self.head.store(head, Ordering::Relaxed);
    }
}

const _: () = assert!(size_of::<Completion>() == 16);

/// A channel to the namespace that the drive is taken to have: `blocks` blocks of 512 bytes.
pub fn channel(queue: &Rc<IoQueue>, blocks: u64) -> Result<NamespaceChannel, Failure> {
    let shape = NamespaceShape::new(1, &ControllerData::new(), None, &NamespaceData::new(blocks, 9))?;
    queue.open_channel(Arc::new(shape)).ok_or_else(|| "no channel".into())
}

impl Function for BareDrive {
    fn address(&self) -> &str {
        "bare"
    }

    fn environment(&self) -> &'static str {
        "benchmark"
    }

    fn register_bytes(&self) -> usize {
        2 * PAGE
    }

    fn read_u32(&self, _offset: usize) -> u32 {
        0
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.doorbells.fetch_add(1, Ordering::Relaxed);
        if offset == SUBMISSION_DOORBELL {
            self.tail.store(value as usize, Ordering::Relaxed);
            if self.automatic.load(Ordering::Relaxed) {
                self.complete();
            }
        }
    }

    fn read_u64(&self, _offset: usize) -> u64 {
        0
    }

    fn write_u64(&self, _offset: usize, _value: u64) {}

    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError> {
        let short = || DmaError::Memory { bytes, source: io::ErrorKind::OutOfMemory.into() };
        let layout =
            Layout::from_size_align(bytes.max(1).next_multiple_of(PAGE), PAGE).map_err(|_| short())?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(short)?;
        let address = start.as_ptr().addr() as u64;
        // SAFETY: fresh zeroed memory, aligned to a page, which is never freed: the process ends with the case.
        Ok(unsafe { DmaMemory::new(start, layout.size(), address, Box::new(())) })
    }

    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Arc<Registration>, DmaError> {
        let first = start.as_ptr().addr();
        Ok(Arc::new(Registration::contiguous(first, bytes, first as u64, Box::new(()))))
    }

    fn set_bus_master(&self, _on: bool) -> io::Result<()> {
        Ok(())
    }

    fn reset(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn presence(&self) -> Presence {
        Presence::Present
    }
}
