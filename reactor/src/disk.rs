//! Disks: files and kernel block devices, or the simulator's, read and written asynchronously.
//!
//! A [`Disk`] is opened once and shared; each reactor opens its own [`DiskQueue`] on it. Invariant: a queue
//! owns a request's memory from `submit` until the completion that gives it back, also when the queue is
//! dropped in between. Called by block devices.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::backend::DiskQueueOps;
use crate::memory::Segments;

/// Most requests that one queue holds.
pub const QUEUE_DEPTH: usize = 1024;

/// How to open a disk.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Refuse writes.
    pub read_only: bool,
    /// Create the file, sparse, with this many bytes if it does not exist; an existing one keeps its size.
    pub create_bytes: Option<u64>,
    /// Bypass the kernel's page cache (`O_DIRECT`). Where the file system can't, opening says so in the log and
    /// goes on without.
    pub direct: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions { read_only: false, create_bytes: None, direct: true }
    }
}

/// An open disk; a cheap handle that any thread may hold.
#[derive(Clone)]
pub struct Disk {
    inner: Arc<Inner>,
}

struct Inner {
    len_bytes: u64,
    block_bytes: u32,
    is_block_device: bool,
    discarded_reads_zeroes: bool,
    read_only: bool,
    medium: Box<dyn Any + Send + Sync>,
}

/// What a backend tells of a disk that it opened.
pub(crate) struct DiskParts {
    /// Length in bytes.
    pub len_bytes: u64,
    /// Smallest unit of direct I/O in bytes.
    pub block_bytes: u32,
    /// Whether it is a block device rather than a file.
    pub is_block_device: bool,
    /// Whether a discarded range reads as zeros.
    pub discarded_reads_zeroes: bool,
    /// Whether writes are refused.
    pub read_only: bool,
    /// What the backend's queue needs: see [`Disk::medium`].
    pub medium: Box<dyn Any + Send + Sync>,
}

impl Disk {
    /// Opens a disk. May block: call it at start-up or from the management side. On a reactor of the simulator
    /// it opens the node's simulated disk of that name. A kernel block device that is to be written is opened for
    /// this process alone.
    ///
    /// # Errors
    /// What the operating system says, with the path in the text; `ResourceBusy` for a block device that is mounted
    /// or otherwise in use.
    pub fn open(path: impl AsRef<Path>, options: DiskOptions) -> io::Result<Disk> {
        let path = path.as_ref();
        let opened = match crate::core::try_backend() {
            Some(backend) => backend.open_disk(path, &options),
            None => crate::real::open_disk(path, &options),
        };
        opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Wraps what a backend opened.
    pub(crate) fn from_parts(parts: DiskParts) -> Disk {
        let DiskParts { len_bytes, block_bytes, is_block_device, discarded_reads_zeroes, read_only, medium } =
            parts;
        let inner =
            Inner { len_bytes, block_bytes, is_block_device, discarded_reads_zeroes, read_only, medium };
        Disk { inner: Arc::new(inner) }
    }

    /// The backend's own part, if it is of this type; another type means another backend opened the disk.
    pub(crate) fn medium<T: Any>(&self) -> Option<&T> {
        self.inner.medium.downcast_ref()
    }

    /// Length in bytes when it was opened.
    pub fn len_bytes(&self) -> u64 {
        self.inner.len_bytes
    }

    /// Logical block size in bytes (512 or 4096): offsets and lengths of requests are multiples of it.
    pub fn block_bytes(&self) -> u32 {
        self.inner.block_bytes
    }

    /// Whether it is a block device rather than a file.
    pub fn is_block_device(&self) -> bool {
        self.inner.is_block_device
    }

    /// Whether a range that a [`DiskOperation::Discard`] has freed reads as zeros. If not, it reads as anything, or
    /// nothing can be freed.
    pub fn discarded_reads_zeroes(&self) -> bool {
        self.inner.discarded_reads_zeroes
    }

    /// The same open file or device with the size that it has now. Queues keep the size of the disk that they were
    /// opened on. May block.
    ///
    /// # Errors
    /// What the operating system says, for instance that the device is gone.
    pub fn measured_again(&self) -> io::Result<Disk> {
        // Simulated disks keep their size.
        crate::real::measured_again(self).unwrap_or_else(|| Ok(self.clone()))
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.inner.read_only
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("len_bytes", &self.inner.len_bytes)
            .field("block_bytes", &self.inner.block_bytes)
            .field("is_block_device", &self.inner.is_block_device)
            .field("read_only", &self.inner.read_only)
            .finish_non_exhaustive()
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// Fills the segments from the disk.
    Read,
    /// Writes the segments to the disk.
    Write {
        /// Complete only when the data is on stable storage.
        durable: bool,
    },
    /// Completes when every write completed so far is on stable storage. Offset and length are ignored.
    Flush,
    /// Gives the range back to the file system or device; it then reads as zeros or, on a block device, as
    /// whatever the device chooses.
    Discard,
    /// Makes the range read as zeros.
    WriteZeroes {
        /// Give the range back as well, where the disk promises zeros all the same.
        deallocate: bool,
    },
}

/// One request to a disk.
#[derive(Debug)]
pub struct DiskRequest {
    /// Given back in the completion.
    pub token: u64,
    /// What to do.
    pub operation: DiskOperation,
    /// First byte on the disk.
    pub offset: u64,
    /// Bytes to transfer, discard or zero; at most the segments' bytes after `skip` for a transfer.
    pub length: u64,
    /// The data's memory; empty when there is none.
    pub segments: Segments,
    /// Bytes at the start of the segments that are not part of the transfer; 0 normally.
    pub skip: usize,
}

/// The end of a request.
#[derive(Debug)]
pub struct DiskCompletion {
    /// The request's token.
    pub token: u64,
    /// The request's operation.
    pub operation: DiskOperation,
    /// The request's memory.
    pub segments: Segments,
    /// The whole length in bytes, or what went wrong. A transfer past the disk's end is an error
    /// (`UnexpectedEof`), never a short count.
    pub result: io::Result<usize>,
}

/// One reactor's queue on one disk. Completions wake the reactor; `poll` hands them over.
pub struct DiskQueue {
    ops: Box<dyn DiskQueueOps>,
}

impl DiskQueue {
    /// Opens a queue on the current reactor.
    ///
    /// # Errors
    /// When the reactor has no means of disk I/O (the text says what to do), or the disk belongs to another
    /// world.
    ///
    /// # Panics
    /// Outside a reactor.
    pub fn open(disk: &Disk) -> io::Result<DiskQueue> {
        let ops = crate::core::with_current(|core| core.backend().clone()).disk_queue(disk)?;
        Ok(DiskQueue { ops })
    }

    /// Takes a request. It goes to the kernel at the end of the turn, with all others.
    ///
    /// # Errors
    /// Gives the request back when the queue is full ([`QUEUE_DEPTH`], or the reactor's own limit).
    // The error is the request itself, moved and not boxed: refusing must not allocate.
    #[allow(clippy::result_large_err)]
    pub fn submit(&mut self, request: DiskRequest) -> Result<(), DiskRequest> {
        self.ops.submit(request)
    }

    /// Appends what has completed.
    pub fn poll(&mut self, done: &mut Vec<DiskCompletion>) {
        self.ops.poll(done);
    }

    /// Requests taken and not yet given back by `poll`.
    pub fn outstanding(&self) -> usize {
        self.ops.outstanding()
    }

    /// Moves the queue out, with all that it has outstanding: for an owner that is being dropped. What is left in its
    /// place takes no requests.
    #[must_use = "a queue that is dropped tells nobody of what it had outstanding"]
    pub fn take(&mut self) -> DiskQueue {
        DiskQueue { ops: std::mem::replace(&mut self.ops, Box::new(Taken)) }
    }
}

/// What [`DiskQueue::take`] leaves.
struct Taken;

impl DiskQueueOps for Taken {
    fn submit(&mut self, request: DiskRequest) -> Result<(), DiskRequest> {
        Err(request)
    }

    fn poll(&mut self, _done: &mut Vec<DiskCompletion>) {}

    fn outstanding(&self) -> usize {
        0
    }
}

impl fmt::Debug for DiskQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskQueue").field("outstanding", &self.outstanding()).finish_non_exhaustive()
    }
}
