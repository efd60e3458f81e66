//! The model as a PCI function: its IOMMU, and the registers' way to the controller.
//!
//! Owns every mapping that was handed out. Invariant: the controller reaches memory only through [`Iommu::read`] and
//! [`Iommu::write`], under the lock that unmapping takes, too; so memory is never touched once its `DmaMemory` or
//! `Registration` is dropped, and every access outside is refused and recorded.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Model;
use crate::function::{DmaError, DmaMemory, Function, Presence, Registration};

const PAGE: usize = 4096;
/// Where device addresses begin; far from those of the process, so that the two are not mistaken for each other.
const FIRST_ADDRESS: u64 = 0x1000_0000;

/// An access of the model controller that an IOMMU refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaFault {
    /// Device address.
    pub address: u64,
    /// Bytes.
    pub bytes: usize,
    /// Whether it was a write to memory.
    pub write: bool,
}

/// What the device can reach.
#[derive(Default)]
pub(super) struct Iommu {
    table: Mutex<Table>,
}

struct Table {
    mappings: BTreeMap<u64, Mapping>,
    next: u64,
    faults: Vec<DmaFault>,
    bus_master: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self { mappings: BTreeMap::new(), next: FIRST_ADDRESS, faults: Vec::new(), bus_master: false }
    }
}

struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is an address and a length; what lies there is only touched by `Iommu`, under its lock.
unsafe impl Send for Mapping {}

impl Table {
    /// Hands out addresses with a hole behind them, so that running over the end is a fault.
    fn map(&mut self, start: NonNull<u8>, bytes: usize) -> u64 {
        // The offset within the page stays, as it does in a page table.
        let address = self.next + (start.as_ptr().addr() % PAGE) as u64;
        self.mappings.insert(address, Mapping { start, bytes });
        self.next = (address + bytes as u64).next_multiple_of(PAGE as u64) + PAGE as u64;
        address
    }

    /// Where `bytes` bytes at a device address lie.
    fn place(&self, address: u64, bytes: usize) -> Option<NonNull<u8>> {
        let (start, mapping) = self.mappings.range(..=address).next_back()?;
        let offset = usize::try_from(address - start).ok()?;
        if !self.bus_master || offset.checked_add(bytes)? > mapping.bytes {
            return None;
        }
        // SAFETY: the offset lies within the mapping, which is one allocation.
        Some(unsafe { mapping.start.add(offset) })
    }

    fn fault(&mut self, address: u64, bytes: usize, write: bool) -> DmaFault {
        let fault = DmaFault { address, bytes, write };
        self.faults.push(fault);
        fault
    }
}

impl Iommu {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accesses that were refused so far.
    pub(super) fn faults(&self) -> Vec<DmaFault> {
        self.table().faults.clone()
    }

    /// Bytes that the device can reach.
    pub(super) fn mapped_bytes(&self) -> usize {
        self.table().mappings.values().map(|mapping| mapping.bytes).sum()
    }

    pub(super) fn set_bus_master(&self, on: bool) {
        self.table().bus_master = on;
    }

    /// The device reads memory.
    pub(super) fn read(&self, address: u64, to: &mut [u8]) -> Result<(), DmaFault> {
        let mut table = self.table();
        let Some(from) = table.place(address, to.len()) else {
            return Err(table.fault(address, to.len(), false));
        };
        let words = if from.as_ptr().addr().is_multiple_of(8) { to.len() / 8 } else { 0 };
        for (index, word) in to[..words * 8].chunks_exact_mut(8).enumerate() {
            // SAFETY: `place` found the bytes inside a mapping, which stays while the table is locked (see `map`'s
            // callers); the word is aligned; atomic, because the host may write at the same time.
            let value = unsafe { AtomicU64::from_ptr(from.add(index * 8).as_ptr().cast()) };
            word.copy_from_slice(&value.load(Ordering::Relaxed).to_ne_bytes());
        }
        for (index, byte) in to.iter_mut().enumerate().skip(words * 8) {
            // SAFETY: as above, for a byte.
            *byte = unsafe { AtomicU8::from_ptr(from.add(index).as_ptr()) }.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        Ok(())
    }

    /// The device writes memory; the last 8 bytes of an aligned access become visible after all others.
    pub(super) fn write(&self, address: u64, from: &[u8]) -> Result<(), DmaFault> {
        let mut table = self.table();
        let Some(to) = table.place(address, from.len()) else {
            return Err(table.fault(address, from.len(), true));
        };
        let words = if to.as_ptr().addr().is_multiple_of(8) { from.len() / 8 } else { 0 };
        for (index, byte) in from.iter().enumerate().skip(words * 8) {
            // SAFETY: as in `read`; memory that is mapped for the device may be written by it.
            unsafe { AtomicU8::from_ptr(to.add(index).as_ptr()) }.store(*byte, Ordering::Relaxed);
        }
        for (index, word) in from[..words * 8].as_chunks::<8>().0.iter().enumerate() {
            let order = if index + 1 == words { Ordering::Release } else { Ordering::Relaxed };
            // SAFETY: as above, for an aligned word.
            unsafe { AtomicU64::from_ptr(to.add(index * 8).as_ptr().cast()) }
                .store(u64::from_ne_bytes(*word), order);
        }
        Ok(())
    }
}

/// Ends the mappings at `addresses`, then frees the memory when it is its own.
struct Unmap {
    iommu: Arc<Iommu>,
    addresses: Box<[u64]>,
    owned: Option<(NonNull<u8>, Layout)>,
}

// SAFETY: the pointer is the only one to memory that nobody but the drop uses it for.
unsafe impl Send for Unmap {}
// SAFETY: nothing can be done with a shared reference.
unsafe impl Sync for Unmap {}

impl Drop for Unmap {
    fn drop(&mut self) {
        let mut table = self.iommu.table();
        for address in &self.addresses {
            table.mappings.remove(address);
        }
        drop(table);
        if let Some((start, layout)) = self.owned {
            // SAFETY: allocated with this layout in `allocate`, unmapped just now, and the `DmaMemory` that used it is
            // being dropped.
            unsafe { dealloc(start.as_ptr(), layout) };
        }
    }
}

impl Function for Model {
    fn address(&self) -> &str {
        &self.address
    }

    fn environment(&self) -> &'static str {
        "model"
    }

    fn register_bytes(&self) -> usize {
        self.register_bytes
    }

    fn read_u32(&self, offset: usize) -> u32 {
        let value = self.read_register(offset & !7);
        if offset.is_multiple_of(8) { value as u32 } else { (value >> 32) as u32 }
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.write_register(offset, value);
    }

    fn read_u64(&self, offset: usize) -> u64 {
        self.read_register(offset)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        self.write_register(offset, value as u32);
        self.write_register(offset + 4, (value >> 32) as u32);
    }

    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError> {
        let short = || DmaError::Memory { bytes, source: io::ErrorKind::OutOfMemory.into() };
        if self.take_allocation_failure() {
            return Err(short());
        }
        let size = bytes.max(1).next_multiple_of(PAGE);
        let layout = Layout::from_size_align(size, PAGE).map_err(|_| short())?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(short)?;
        let address = self.iommu.table().map(start, size);
        let owner =
            Unmap { iommu: self.iommu.clone(), addresses: [address].into(), owned: Some((start, layout)) };
        // SAFETY: fresh zeroed memory, aligned to a page, freed only when `owner` is dropped.
        Ok(unsafe { DmaMemory::new(start, size, address, Box::new(owner)) })
    }

    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Arc<Registration>, DmaError> {
        let first = start.as_ptr().addr();
        let unsuitable = |reason: &str| DmaError::Unsuitable { address: first, reason: reason.into() };
        if bytes == 0 {
            return Err(unsuitable("it is empty"));
        }
        if self.take_allocation_failure() {
            return Err(DmaError::Map { address: first, bytes, source: io::ErrorKind::OutOfMemory.into() });
        }
        let unmap = |addresses| Unmap { iommu: self.iommu.clone(), addresses, owned: None };
        let mut table = self.iommu.table();
        // The caller keeps the memory mapped until the registration, and with it `unmap`, is dropped; only accesses under
        // the table's lock use it.
        if !self.scattered {
            let address = table.map(start, bytes);
            let keep = Box::new(unmap([address].into()));
            return Ok(Arc::new(Registration::contiguous(first, bytes, address, keep)));
        }
        if !first.is_multiple_of(PAGE) {
            return Err(unsuitable("it does not begin at a page"));
        }
        let pages: Box<[u64]> = (0..bytes)
            .step_by(PAGE)
            // SAFETY: the offset is inside the range.
            .map(|offset| table.map(unsafe { start.add(offset) }, PAGE.min(bytes - offset)))
            .collect();
        let keep = Box::new(unmap(pages.clone()));
        Ok(Arc::new(Registration::paged(first, bytes, PAGE.trailing_zeros(), pages, keep)))
    }

    fn set_bus_master(&self, on: bool) -> io::Result<()> {
        self.iommu.set_bus_master(on);
        Ok(())
    }

    fn reset(&self) -> io::Result<bool> {
        Ok(self.function_reset())
    }

    fn presence(&self) -> Presence {
        self.presence_now()
    }
}

/// Registers memory for as long as `using` runs, for tests, which must not say `unsafe` themselves.
#[cfg(test)]
pub(super) fn with_registered(model: &Model, memory: &mut [u8], using: impl FnOnce(&Registration)) {
    // SAFETY: the registration ends in here, and the memory is borrowed as long.
    let registration = unsafe { model.register(NonNull::from(&mut *memory).cast(), memory.len()) };
    using(&registration.unwrap_or_else(|error| panic!("{error}")));
}
