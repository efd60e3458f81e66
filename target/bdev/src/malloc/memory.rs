//! The bytes of a memory device, and the gate that orders access to them.
//!
//! Invariant: bytes are read only under a share of their range in [`Memory::gate`], and changed only under its
//! exclusive hold; that is what the unsafe methods ask of the channel, their only caller.

use std::io;
use std::ptr::NonNull;

use sledge_reactor::memory::map_anonymous;

use super::stream;
use crate::gate::Gate;

/// Bytes of an ordinary page.
const PAGE: usize = 4096;
/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;
/// Devices from this size on are unmapped on a thread of their own: freeing gigabytes takes long.
const SLOW_TO_UNMAP: usize = 64 << 20;

/// A mapping.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is an address range; what may be done to its bytes is `Memory`'s to say.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: we made this mapping and nobody can reach it any more. An error leaves it mapped: harmless.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The memory of one device.
pub(super) struct Memory {
    /// `Some` until dropped.
    mapping: Option<Mapping>,
    start: NonNull<u8>,
    /// Whether deallocated pages go back to the kernel. Reserved huge pages don't: they are set aside for this mapping in
    /// any case, and before Linux 6.9 another process could take one that was given back, so that touching it again
    /// would end ours.
    gives_back: bool,
    gate: Gate,
}

// SAFETY: shared access to the bytes is ordered by the gate, as the unsafe methods require of their callers.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` bytes of zeroes.
    pub(super) fn new(bytes: u64, hugepages: bool) -> io::Result<Memory> {
        let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
        let bytes = usize::try_from(bytes).map_err(|_| too_large())?;
        let round = |unit: usize| bytes.checked_next_multiple_of(unit).ok_or_else(too_large);
        // Of 2 MiB by name: the machine's default may be 1 GiB.
        let reserved = if hugepages {
            map(round(HUGE_PAGE)?, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)
                .inspect_err(
                    |error| tracing::info!(%error, bytes, "no reserved huge pages: using transparent ones"),
                )
                .ok()
        } else {
            None
        };
        let (mapping, gives_back) = match reserved {
            Some(mapping) => (mapping, false),
            None => {
                let mapping = map(round(PAGE)?, 0)?;
                // A random block of a large device is in no TLB: copying 4 KiB to it takes a fifth to a half longer on small
                // pages. A kernel without transparent huge pages refuses, which changes nothing else.
                advise(&mapping, 0, mapping.len, libc::MADV_HUGEPAGE);
                (mapping, true)
            }
        };
        let start = mapping.start;
        Ok(Memory { mapping: Some(mapping), start, gives_back, gate: Gate::exact(bytes as u64) })
    }

    /// Whether [`Memory::free`] gives pages back to the kernel, and does not write zeroes to all of the range.
    pub(super) fn gives_back(&self) -> bool {
        self.gives_back
    }

    /// The locks of its ranges.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Address of the byte at `offset`, which must lie on the device.
    pub(super) fn address(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(self.mapping.as_ref().is_some_and(|mapping| offset <= mapping.len));
        // SAFETY: callers pass offsets on the device, hence within the mapping.
        unsafe { self.start.add(offset) }
    }

    /// The bytes of a range.
    ///
    /// # Safety
    /// The range lies on the device, and a share (or more) of it is held while the result is used.
    pub(super) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: mapped and initialised; nobody writes while the share is held.
        unsafe { std::slice::from_raw_parts(self.address(offset).as_ptr(), len) }
    }

    /// Copies bytes in.
    ///
    /// # Safety
    /// The range lies on the device and is held exclusively, and [`Memory::settle`] is called before the hold ends.
    pub(super) unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        // SAFETY: mapped, ours alone, and no borrow of it exists that `bytes` could be: a loan holds a share.
        unsafe { stream::copy(self.address(offset).as_ptr(), bytes.as_ptr(), bytes.len()) };
    }

    /// Makes what this thread wrote appear to others before whatever it does next.
    pub(super) fn settle(&self) {
        stream::fence();
    }

    /// Writes zeroes.
    ///
    /// # Safety
    /// The range lies on the device and is held exclusively.
    pub(super) unsafe fn zero(&self, offset: usize, len: usize) {
        // SAFETY: mapped and ours alone.
        unsafe { self.address(offset).write_bytes(0, len) };
    }

    /// Gives whole pages back to the kernel, unless they are reserved, and writes zeroes to the rest of the range.
    ///
    /// # Safety
    /// The range lies on the device and is held exclusively.
    pub(super) unsafe fn free(&self, offset: usize, len: usize) {
        let end = offset + len;
        let (first, last) = (offset.next_multiple_of(PAGE), end / PAGE * PAGE);
        let freed = self.gives_back
            && first < last
            && self
                .mapping
                .as_ref()
                .is_some_and(|mapping| advise(mapping, first, last - first, libc::MADV_DONTNEED));
        if !freed {
            // SAFETY: as the caller promised.
            return unsafe { self.zero(offset, len) };
        }
        // SAFETY: both parts lie in the caller's range.
        unsafe {
            self.zero(offset, first - offset);
            self.zero(last, end - last);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let Some(mapping) = self.mapping.take() else { return };
        debug_assert!(self.gate.is_idle(), "a loan or a command outlives its device");
        if mapping.len >= SLOW_TO_UNMAP {
            // If there is no thread to be had, the closure is dropped here and unmaps in place.
            let _ = std::thread::Builder::new().name("unmap".to_owned()).spawn(move || drop(mapping));
        }
    }
}

/// Maps `len` bytes. The kernel checks the size against what the machine could have at all.
fn map(len: usize, extra_flags: libc::c_int) -> io::Result<Mapping> {
    let start = map_anonymous(len, libc::PROT_READ | libc::PROT_WRITE, extra_flags)?;
    Ok(Mapping { start, len })
}

/// Whether the kernel took the advice about a range of a mapping.
fn advise(mapping: &Mapping, offset: usize, len: usize, advice: libc::c_int) -> bool {
    debug_assert!(offset + len <= mapping.len);
    // SAFETY: the range lies in our mapping; `MADV_HUGEPAGE` changes no content, and `MADV_DONTNEED` is called
    // only by `free`, whose caller holds the range exclusively.
    unsafe { libc::madvise(mapping.start.as_ptr().add(offset).cast(), len, advice) == 0 }
}
