//! Memory for queues and other structures of one function: chunks of 2 MiB, given out in pages.
//!
//! Invariants: a page is in at most one [`DmaMemory`]; it is zeroed before it is given out, and contiguous for the
//! device; a chunk is unmapped for the device before its memory goes back to the kernel, and both only when the arena
//! and all that came from the chunk are gone. Huge pages where there are some; else ordinary ones, which the mapping
//! for an IOMMU locks, and without an IOMMU a refusal.

#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use sledge_reactor::memory::map_anonymous;

use super::address_space::PAGE;
use super::pci_function::Memory;
use super::reach::Reach;
use crate::function::{DmaError, DmaMemory, Registration};

const CHUNK: usize = 2 << 20;

/// The chunks of one function.
pub(super) struct Arena {
    reach: Reach,
    chunks: Mutex<Vec<Arc<Chunk>>>,
}

struct Chunk {
    device_address: u64,
    /// For each page, whether it is out.
    out: Mutex<Vec<bool>>,
    // In this order: the device loses the memory before the process does.
    _registration: Registration,
    memory: Mapping,
}

/// Memory of the kernel's. Dropping it gives it back.
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: memory of one owner, not bound to a thread.
unsafe impl Send for Mapping {}
// SAFETY: shared, it gives out its address only; `Chunk::out` decides who may use which page.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this length; the last page that was out held the chunk, so nothing refers to it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// Pages that are out; dropping it puts them back.
struct Pages {
    chunk: Arc<Chunk>,
    first: usize,
    count: usize,
}

impl Drop for Pages {
    fn drop(&mut self) {
        let mut out = self.chunk.out.lock().unwrap_or_else(PoisonError::into_inner);
        out[self.first..self.first + self.count].fill(false);
    }
}

impl Arena {
    /// An arena without memory.
    pub(super) fn new(reach: Reach) -> Arena {
        Arena { reach, chunks: Mutex::new(Vec::new()) }
    }
}

impl Memory for Arena {
    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError> {
        let too_much = || DmaError::Memory { bytes, source: io::Error::from_raw_os_error(libc::EOVERFLOW) };
        let count = bytes
            .max(1)
            .checked_next_multiple_of(CHUNK)
            .ok_or_else(too_much)
            .map(|_| bytes.max(1).div_ceil(PAGE))?;
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        let found = chunks.iter().find_map(|chunk| Some((chunk.clone(), chunk.take(count)?)));
        let (chunk, first) = match found {
            Some(found) => found,
            None => {
                let chunk = Arc::new(self.chunk((count * PAGE).next_multiple_of(CHUNK))?);
                let first = chunk.take(count).ok_or_else(too_much)?;
                chunks.push(chunk.clone());
                (chunk, first)
            }
        };
        drop(chunks);
        let device_address = chunk.device_address + (first * PAGE) as u64;
        // SAFETY: `take` gave pages inside of the chunk.
        let start = unsafe { chunk.memory.start.add(first * PAGE) };
        let keep = Box::new(Pages { chunk, first, count });
        // SAFETY: the pages are inside the mapping and, until `keep` is dropped, nobody else's.
        unsafe { start.as_ptr().write_bytes(0, count * PAGE) };
        // SAFETY: whole pages, initialised just now, ours alone until `keep` is dropped, and contiguous at
        // `device_address`, as the chunk is.
        Ok(unsafe { DmaMemory::new(start, count * PAGE, device_address, keep) })
    }

    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Registration, DmaError> {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.reach.register(start, bytes) }
    }
}

impl Arena {
    fn chunk(&self, bytes: usize) -> Result<Chunk, DmaError> {
        let failed = |source| DmaError::Memory { bytes, source };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let start = match (map_anonymous(bytes, access, libc::MAP_HUGETLB | libc::MAP_POPULATE), &self.reach)
        {
            (Ok(start), _) => start,
            (Err(_), Reach::Translated(_)) => map_anonymous(bytes, access, 0).map_err(failed)?,
            (Err(source), Reach::Physical) => return Err(failed(source)),
        };
        let memory = Mapping { start, bytes };
        // SAFETY: `memory` keeps the range mapped, and the chunk drops it after the registration.
        let registration = unsafe { self.reach.register(start, bytes) }?;
        let contiguous =
            |(address, run)| (run == bytes || self.is_contiguous(&registration)).then_some(address);
        let device_address = registration.device_address(start.as_ptr().addr()).and_then(contiguous);
        let device_address = device_address.ok_or_else(|| DmaError::Unsuitable {
            address: start.as_ptr().addr(),
            reason: format!("{bytes} bytes are not in one piece; only an IOMMU can make them so"),
        })?;
        let out = Mutex::new(vec![false; bytes / PAGE]);
        Ok(Chunk { device_address, out, _registration: registration, memory })
    }

    /// Whether all pages of a registration follow each other for the device.
    fn is_contiguous(&self, registration: &Registration) -> bool {
        let Some((first, _)) = registration.device_address(registration.start()) else { return false };
        (0..registration.bytes()).step_by(CHUNK).all(|offset| {
            registration.device_address(registration.start() + offset).map(|(address, _)| address)
                == Some(first + offset as u64)
        })
    }
}

impl Chunk {
    /// Takes `count` neighbouring pages, the first that are free.
    fn take(&self, count: usize) -> Option<usize> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let first = out.windows(count).position(|pages| pages.iter().all(|out| !out))?;
        out[first..first + count].fill(true);
        Some(first)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pci::address_space::tests::{Table, space};

    // Deleting this lets two queues share memory, or a queue begin with another one's old completions.
    #[test]
    fn memory_is_zeroed_and_nobody_elses() {
        let table = Table::default();
        let arena = Arena::new(Reach::Translated(space(&table)));
        let mut held = Vec::new();
        for (round, bytes) in [1, 4096, 5000, 1 << 20, 64, 3 << 20].into_iter().enumerate() {
            let mut memory = arena.allocate(bytes).unwrap();
            assert!(memory.bytes() >= bytes && memory.bytes().is_multiple_of(4096));
            for offset in (0..memory.bytes()).step_by(512) {
                assert_eq!(memory.read::<u64>(offset), 0);
                memory.write(offset, round as u64 + 1);
            }
            let range = memory.device_address(0)..memory.device_address(memory.bytes());
            assert!(held.iter().all(|(other, _): &(std::ops::Range<u64>, DmaMemory)| {
                other.end <= range.start || range.end <= other.start
            }));
            held.push((range, memory));
        }
        for (round, (_, memory)) in held.iter().enumerate() {
            assert!((0..memory.bytes()).step_by(512).all(|at| memory.read::<u64>(at) == round as u64 + 1));
        }
        // What came back is given out again, as clean as new.
        let (range, memory) = held.remove(3);
        drop(memory);
        let again = arena.allocate(1 << 20).unwrap();
        assert_eq!(again.device_address(0), range.start);
        assert!((0..again.bytes()).step_by(512).all(|at| again.read::<u64>(at) == 0));
    }

    // Deleting this lets memory go back to the kernel while the device can still write to it.
    #[test]
    fn a_chunk_is_the_devices_as_long_as_someone_has_a_part() {
        let table = Table::default();
        let arena = Arena::new(Reach::Translated(space(&table)));
        let (first, second) = (arena.allocate(4096).unwrap(), arena.allocate(4096).unwrap());
        let mapped = || table.0.lock().unwrap().len();
        assert_eq!(mapped(), 1);
        drop((first, arena));
        assert_eq!(mapped(), 1);
        assert_eq!(second.read::<u64>(0), 0);
        drop(second);
        assert_eq!(mapped(), 0);
    }

    // Deleting this lets sizes that make no sense end the process, or be cut short.
    #[test]
    fn what_can_not_be_had_is_refused() {
        let arena = Arena::new(Reach::Translated(space(&Table::default())));
        assert!(arena.allocate(usize::MAX).is_err());
        assert!(arena.allocate(1 << 46).is_err());
        assert_eq!(arena.allocate(0).unwrap().bytes(), 4096);
    }
}
