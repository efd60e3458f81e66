//! What a ring knows beforehand: the reactor's memory and its open files, so that the kernel neither pins pages nor
//! looks descriptors up for each transfer.
//!
//! Owns the ring's tables of buffers and files. Memory is registered in chunks of [`MAX_BUFFER_BYTES`] when each is
//! first used, so that a pool's untouched pages stay untouched; no buffer crosses a chunk's end. Invariants: a file
//! is in its place while a queue is open on it; what the kernel refuses is used without registration, and said once.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use io_uring::Submitter;

use crate::memory::MAX_BUFFER_BYTES;

const CHUNK_SHIFT: u32 = MAX_BUFFER_BYTES.trailing_zeros();
/// The kernel's limit on a table of buffers.
const MOST_CHUNKS: usize = 1 << 14;
/// Files that are registered; queues on more are served by their descriptors.
const FILES: usize = 256;
/// A place for no file.
const NO_FILE: RawFd = -1;

/// A part of the address space that buffers lie in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    /// First byte, at a multiple of [`MAX_BUFFER_BYTES`].
    pub start: NonNull<u8>,
    /// Bytes.
    pub len: usize,
}

/// The tables of one ring.
#[derive(Debug, Default)]
pub(super) struct Registered {
    /// Each with the number of its first chunk.
    ranges: Vec<(Range, usize)>,
    /// Whether the kernel knows a chunk.
    known: Vec<bool>,
    files: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    descriptor: RawFd,
    queues: usize,
}

impl Registered {
    /// Makes both tables, empty, as far as the kernel has them. Buffers lie in `memory`.
    pub(super) fn new(submitter: &Submitter<'_>, memory: &[Range]) -> Registered {
        let mut registered = Registered::default();
        // Linux 5.19.
        if submitter.register_files_sparse(FILES as u32).is_ok() {
            registered.files = vec![Place { descriptor: NO_FILE, queues: 0 }; FILES];
        }
        let mut chunks = 0;
        for range in memory {
            registered.ranges.push((*range, chunks));
            chunks += range.len.div_ceil(MAX_BUFFER_BYTES);
        }
        if chunks == 0 || chunks > MOST_CHUNKS || submitter.register_buffers_sparse(chunks as u32).is_err() {
            registered.ranges.clear();
        }
        registered.known = vec![false; chunks];
        registered
    }

    /// The place of the chunk that `len` bytes at `start` lie in, unless the kernel doesn't know it.
    #[inline]
    pub(super) fn buffer(&mut self, submitter: &Submitter<'_>, start: *const u8, len: usize) -> Option<u16> {
        for (range, first) in &self.ranges {
            let offset = start.addr().wrapping_sub(range.start.as_ptr().addr());
            if offset >= range.len || len > range.len - offset {
                continue;
            }
            let chunk = offset >> CHUNK_SHIFT;
            if (offset + len.max(1) - 1) >> CHUNK_SHIFT != chunk {
                return None;
            }
            let index = first + chunk;
            if self.known[index] {
                return Some(index as u16);
            }
            let (range, first) = (*range, *first);
            return self.introduce(submitter, range, first, chunk);
        }
        None
    }

    /// Registers a chunk.
    #[cold]
    fn introduce(
        &mut self,
        submitter: &Submitter<'_>,
        range: Range,
        first: usize,
        chunk: usize,
    ) -> Option<u16> {
        let offset = chunk << CHUNK_SHIFT;
        let slice = libc::iovec {
            iov_base: range.start.as_ptr().wrapping_add(offset).cast(),
            iov_len: MAX_BUFFER_BYTES.min(range.len - offset),
        };
        let index = first + chunk;
        // SAFETY: the chunk lies in the reactor's memory, which is mapped as long as the ring takes transfers to or
        // from it; the kernel holds its pages besides.
        match unsafe { submitter.register_buffers_update(index as u32, &[slice], None) } {
            Ok(()) => {
                self.known[index] = true;
                Some(index as u16)
            }
            Err(error) => {
                tracing::info!(
                    %error,
                    "the kernel registers no more I/O buffers (limit of locked memory, ulimit -l); disks go on without, \
                     slower"
                );
                // Chunks that are known stay so in the kernel, unused.
                self.ranges.clear();
                None
            }
        }
    }

    /// A queue was opened on `descriptor`: gives its place, unless there is none.
    pub(super) fn open_file(&mut self, submitter: &Submitter<'_>, descriptor: RawFd) -> Option<u32> {
        if let Some(index) = self.files.iter().position(|place| place.descriptor == descriptor) {
            self.files[index].queues += 1;
            return Some(index as u32);
        }
        let index = self.files.iter().position(|place| place.descriptor == NO_FILE)?;
        self.set(submitter, index, descriptor).ok()?;
        self.files[index] = Place { descriptor, queues: 1 };
        Some(index as u32)
    }

    /// A queue that `open_file` gave this place was closed, and has nothing in flight.
    pub(super) fn close_file(&mut self, submitter: &Submitter<'_>, index: u32) {
        let Some(place) = self.files.get_mut(index as usize) else { return };
        place.queues -= 1;
        if place.queues == 0 {
            // The kernel knows the place, so it can't refuse; the next file takes it in any case.
            place.descriptor = NO_FILE;
            let _ = self.set(submitter, index as usize, NO_FILE);
        }
    }

    fn set(&self, submitter: &Submitter<'_>, index: usize, descriptor: RawFd) -> io::Result<()> {
        submitter.register_files_update(index as u32, &[descriptor]).map(drop)
    }
}
