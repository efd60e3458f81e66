//! One disk request on its way: which system call comes next, and what its result means.
//!
//! Invariant: the memory that a call points to belongs to the transfer, which is kept in place until the call
//! has ended. Short transfers go on from where they stopped; what lacks a way to free or zero a range gets the
//! next best.

use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::engine::QueueShared;
use super::file::KernelThreads;
use crate::disk::{DiskCompletion, DiskOperation, DiskRequest};
use crate::memory::{MAX_SEGMENTS, Segment};

/// Memory slices of one call.
pub(super) type Slices = [libc::iovec; MAX_SEGMENTS];

/// No slices.
pub(super) const NO_SLICES: Slices =
    [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_SEGMENTS];

const ZEROS_BYTES: usize = 64 << 10;

/// What explicit zeros are written from, aligned for direct I/O.
#[repr(align(4096))]
struct Zeros([u8; ZEROS_BYTES]);

static ZEROS: Zeros = Zeros([0; ZEROS_BYTES]);

/// A system call, as io_uring and a blocking thread both can make it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// The open file.
    pub descriptor: RawFd,
    /// Its place in the ring's table of files, if it has one.
    pub place: Option<u32>,
    /// What to do.
    pub kind: CallKind,
    /// First byte on the disk.
    pub offset: u64,
}

/// What a call does.
#[derive(Clone, Copy, Debug)]
pub(super) enum CallKind {
    /// Fills this many slices.
    Read(usize),
    /// Writes this many slices.
    Write(usize, /* durable */ bool),
    /// Makes all data durable.
    Sync,
    /// Changes a range's allocation: `fallocate`'s mode and length.
    Allocate(i32, u64),
    /// Tells a block device that so many bytes hold nothing of worth.
    Discard(u64),
}

/// How a request to free or zero a range is served. What the kernel can't do is tried in the next best way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Clearing {
    /// A block device is told; its content is anything then.
    Discard,
    /// The file system or device marks the range as zero. A block device keeps it allocated; one that can't gets zeros
    /// from the kernel.
    Mark,
    /// It frees the range, which then reads as zeros. A block device does so only where it promises them.
    Free,
    /// Zeros are written.
    Write,
}

impl Clearing {
    /// The first attempt of an operation.
    fn first(operation: DiskOperation, on_block_device: bool) -> Clearing {
        match operation {
            DiskOperation::Discard if on_block_device => Clearing::Discard,
            DiskOperation::Discard | DiskOperation::WriteZeroes { deallocate: true } => Clearing::Free,
            _ => Clearing::Mark,
        }
    }

    /// What is tried after this has failed with `code`, if that says that the kernel can't.
    fn after(self, code: i32, operation: DiskOperation) -> Option<Clearing> {
        let unsupported = code == libc::EOPNOTSUPP;
        let DiskOperation::WriteZeroes { deallocate } = operation else {
            // Before Linux 5.19 a ring does not know the command at all.
            let next = self == Clearing::Discard && (unsupported || code == libc::EINVAL);
            return next.then_some(Clearing::Free);
        };
        match self {
            _ if !unsupported => None,
            Clearing::Mark if !deallocate => Some(Clearing::Free),
            Clearing::Free if deallocate => Some(Clearing::Mark),
            Clearing::Mark | Clearing::Free => Some(Clearing::Write),
            Clearing::Discard | Clearing::Write => None,
        }
    }
}

/// What a call's result means.
pub(super) enum Next {
    /// Another call is needed.
    Again,
    /// The request has ended.
    Finished(io::Result<usize>),
}

/// A request that the engine works on.
#[derive(Debug)]
pub(super) struct Transfer {
    request: DiskRequest,
    queue: Rc<QueueShared>,
    /// Bytes transferred so far.
    done: u64,
    clearing: Clearing,
}

impl Transfer {
    /// Takes a request that `check` has passed.
    pub(super) fn new(request: DiskRequest, queue: Rc<QueueShared>) -> Transfer {
        let clearing = Clearing::first(request.operation, queue.is_on_block_device());
        Transfer { request, queue, done: 0, clearing }
    }

    /// Whether a request makes sense on a disk of `len_bytes`.
    pub(super) fn check(request: &DiskRequest, len_bytes: u64, read_only: bool) -> io::Result<()> {
        let refuse = |kind, text| Err(io::Error::new(kind, text));
        if request.operation == DiskOperation::Flush {
            return Ok(());
        }
        if request.offset.checked_add(request.length).is_none_or(|end| end > len_bytes) {
            return refuse(io::ErrorKind::UnexpectedEof, "the range ends past the disk's end");
        }
        let writes = request.operation != DiskOperation::Read;
        if writes && read_only {
            return refuse(io::ErrorKind::PermissionDenied, "the disk was opened for reading only");
        }
        if matches!(request.operation, DiskOperation::Read | DiskOperation::Write { .. }) {
            let room = request.segments.len_bytes().saturating_sub(request.skip);
            if request.length > room as u64 {
                return refuse(io::ErrorKind::InvalidInput, "the transfer is longer than its memory");
            }
        }
        let lent = |segment: &Segment| matches!(segment, Segment::Lent(_));
        if !writes && request.segments.iter().any(lent) {
            return refuse(io::ErrorKind::InvalidInput, "lent memory can't be read into");
        }
        Ok(())
    }

    /// Whether a thread of the kernel has a part in it, which may need this very core: see [`KernelThreads`].
    pub(super) fn needs_threads(&self) -> bool {
        match self.queue.threads() {
            KernelThreads::Never => false,
            KernelThreads::Writes => self.request.operation != DiskOperation::Read,
            KernelThreads::Always => true,
        }
    }

    /// The next call, with its slices.
    pub(super) fn call(&mut self, slices: &mut Slices) -> Call {
        let offset = self.request.offset + self.done;
        let left = self.request.length - self.done;
        let kind = match self.request.operation {
            DiskOperation::Read => CallKind::Read(self.fill(slices)),
            DiskOperation::Write { durable } => CallKind::Write(self.fill(slices), durable),
            DiskOperation::Flush => CallKind::Sync,
            DiskOperation::Discard | DiskOperation::WriteZeroes { .. } => match self.clearing {
                Clearing::Discard => CallKind::Discard(left),
                Clearing::Mark => CallKind::Allocate(MARK, left),
                Clearing::Free => CallKind::Allocate(FREE, left),
                Clearing::Write => CallKind::Write(fill_zeros(slices, left), false),
            },
        };
        Call { descriptor: self.queue.descriptor(), place: self.queue.place(), kind, offset }
    }

    /// Points the slices at what is left of the data.
    fn fill(&mut self, slices: &mut Slices) -> usize {
        let mut skip = self.request.skip + self.done as usize;
        let mut left = (self.request.length - self.done) as usize;
        let mut count = 0;
        for segment in self.request.segments.iter_mut() {
            let len = segment.len();
            if skip >= len {
                skip -= len;
                continue;
            }
            let part = (len - skip).min(left);
            if part == 0 {
                break;
            }
            let base = match segment {
                Segment::Buffer(buffer) => buffer[skip..].as_mut_ptr(),
                // Only for writing to the disk, which `check` makes sure of: the kernel does not change it.
                Segment::Lent(lent) => lent[skip..].as_ptr().cast_mut(),
            };
            slices[count] = libc::iovec { iov_base: base.cast(), iov_len: part };
            count += 1;
            left -= part;
            skip = 0;
        }
        count
    }

    /// What a call's result (`-errno` when negative) means.
    pub(super) fn advance(&mut self, result: i32) -> Next {
        if result < 0 {
            return self.failed(-result);
        }
        let whole = self.request.length as usize;
        let transferred = match self.request.operation {
            DiskOperation::Read | DiskOperation::Write { .. } => result as u64,
            DiskOperation::WriteZeroes { .. } if self.clearing == Clearing::Write => result as u64,
            DiskOperation::Flush => return Next::Finished(Ok(0)),
            DiskOperation::Discard | DiskOperation::WriteZeroes { .. } => return Next::Finished(Ok(whole)),
        };
        self.done += transferred;
        if self.done >= self.request.length {
            return Next::Finished(Ok(whole));
        }
        if transferred == 0 {
            return Next::Finished(Err(match self.request.operation {
                DiskOperation::Read => ended_early(),
                _ => io::Error::new(io::ErrorKind::WriteZero, "the disk takes no more"),
            }));
        }
        Next::Again
    }

    fn failed(&mut self, code: i32) -> Next {
        if code == libc::EINTR || code == libc::EAGAIN {
            return Next::Again;
        }
        if matches!(self.request.operation, DiskOperation::Discard | DiskOperation::WriteZeroes { .. })
            && let Some(next) = self.clearing.after(code, self.request.operation)
        {
            self.clearing = next;
            return Next::Again;
        }
        let end = self.request.offset.saturating_add(self.request.length);
        if code == libc::ENOSPC && self.queue.is_on_block_device() && self.queue.len_now() < end {
            // What a block device that has shrunk, or gone, says to writes. One that is thinly provisioned says it, too.
            return Next::Finished(Err(ended_early()));
        }
        Next::Finished(Err(io::Error::from_raw_os_error(code)))
    }

    /// Hands the result to the queue.
    pub(super) fn deliver(self, result: io::Result<usize>) {
        let DiskRequest { token, operation, segments, .. } = self.request;
        self.queue.deliver(DiskCompletion { token, operation, segments, result });
    }
}

fn ended_early() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the disk has become shorter")
}

const FREE: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
const MARK: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;

fn fill_zeros(slices: &mut Slices, left: u64) -> usize {
    let mut left = left;
    let mut count = 0;
    for slice in slices {
        let part = left.min(ZEROS_BYTES as u64);
        if part == 0 {
            break;
        }
        let base = ZEROS.0.as_ptr().cast_mut();
        *slice = libc::iovec { iov_base: base.cast(), iov_len: part as usize };
        left -= part;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a range could be left as it is, kept although it is to be given back, or given back where that promises no
    // zeros, on a disk that can't do what is asked for first.
    #[test]
    fn what_the_kernel_cannot_is_done_in_the_next_best_way() {
        use Clearing::{Discard, Free, Mark, Write};
        let zeroes = |deallocate| DiskOperation::WriteZeroes { deallocate };
        for (operation, on_block_device, ways) in [
            (DiskOperation::Discard, false, &[Free][..]),
            (DiskOperation::Discard, true, &[Discard, Free]),
            (zeroes(false), false, &[Mark, Free, Write]),
            (zeroes(false), true, &[Mark, Free, Write]),
            (zeroes(true), false, &[Free, Mark, Write]),
            (zeroes(true), true, &[Free, Mark, Write]),
        ] {
            let mut way = Some(Clearing::first(operation, on_block_device));
            for expected in ways {
                assert_eq!(way, Some(*expected), "{operation:?} {on_block_device}");
                assert_eq!(expected.after(libc::EIO, operation), None);
                way = expected.after(libc::EOPNOTSUPP, operation);
            }
            assert_eq!(way, None, "{operation:?} {on_block_device}");
        }
        assert_eq!(Discard.after(libc::EINVAL, DiskOperation::Discard), Some(Free));
        assert_eq!(Mark.after(libc::EINVAL, zeroes(false)), None);
    }
}
