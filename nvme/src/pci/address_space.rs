//! Memory that devices behind an IOMMU reach: one address space for all of the process's devices.
//!
//! Invariants: a page is mapped for the devices as long as a [`Mapped`] of its range is there, and not longer; the same
//! range asked for twice is mapped once and counted. A range that only overlaps another one gets addresses of its own:
//! sharing them would tie one's memory to the other's life. Called by `arena` and by the function's `register`.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::iova::Addresses;

/// Bytes of the pages that are mapped.
pub(super) const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// What maps memory for devices: the kernel's VFIO or iommufd.
pub(super) trait Translate: Send + Sync {
    /// Lets the devices read and write `bytes` bytes of this process at `start`, at the device address `iova`.
    fn map(&self, start: usize, bytes: usize, iova: u64) -> io::Result<()>;

    /// Ends that. What the device then does there is blocked.
    fn unmap(&self, iova: u64, bytes: usize) -> io::Result<()>;
}

/// The devices' address space.
pub(super) struct AddressSpace {
    translate: Box<dyn Translate>,
    state: Mutex<State>,
}

struct State {
    addresses: Addresses,
    /// By first byte and length in this process.
    mappings: BTreeMap<(usize, usize), Mapping>,
}

struct Mapping {
    iova: u64,
    users: usize,
}

impl AddressSpace {
    /// A space in which nothing is mapped.
    pub(super) fn new(translate: Box<dyn Translate>, allowed: &[RangeInclusive<u64>]) -> AddressSpace {
        let state = State { addresses: Addresses::new(allowed), mappings: BTreeMap::new() };
        AddressSpace { translate, state: Mutex::new(state) }
    }

    /// From now on only these device addresses can be given out.
    pub(super) fn restrict(&self, allowed: &[RangeInclusive<u64>]) {
        self.state().addresses.restrict(allowed);
    }

    /// Maps whole pages. Whoever calls keeps them in this process until the result is dropped.
    pub(super) fn map(self: &Arc<Self>, start: NonNull<u8>, bytes: usize) -> io::Result<Mapped> {
        let key = (start.as_ptr().addr(), bytes);
        if bytes == 0 || !key.0.is_multiple_of(PAGE) || !bytes.is_multiple_of(PAGE) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only whole pages can be mapped"));
        }
        let mut state = self.state();
        let state = &mut *state;
        if let Some(mapping) = state.mappings.get_mut(&key) {
            mapping.users += 1;
            return Ok(Mapped { space: self.clone(), key, iova: mapping.iova });
        }
        // Where both sides are aligned to huge pages, so can the IOMMU's tables be.
        let huge = key.0.is_multiple_of(HUGE_PAGE) && bytes >= HUGE_PAGE;
        let alignment = if huge { HUGE_PAGE } else { PAGE };
        let iova = state.addresses.take(bytes as u64, alignment as u64);
        let iova = iova.ok_or_else(|| io::Error::other("the IOMMU's addresses are used up"))?;
        if let Err(error) = self.translate.map(key.0, bytes, iova) {
            state.addresses.give(iova, bytes as u64);
            return Err(error);
        }
        state.mappings.insert(key, Mapping { iova, users: 1 });
        Ok(Mapped { space: self.clone(), key, iova })
    }

    fn unmap(&self, key: (usize, usize)) {
        let mut state = self.state();
        let Some(mapping) = state.mappings.get_mut(&key) else { return };
        mapping.users -= 1;
        if mapping.users > 0 {
            return;
        }
        let iova = mapping.iova;
        state.mappings.remove(&key);
        match self.translate.unmap(iova, key.1) {
            Ok(()) => state.addresses.give(iova, key.1 as u64),
            // The addresses are not used again: the device might still reach what was there.
            Err(error) => tracing::debug!(iova, bytes = key.1, %error, "memory stays mapped for DMA"),
        }
    }

    /// Nothing panics while it is held; and if it did, what is mapped is still what the kernel has.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mapped range. Dropping it unmaps it, unless it was mapped more often.
pub(super) struct Mapped {
    space: Arc<AddressSpace>,
    key: (usize, usize),
    iova: u64,
}

impl Mapped {
    /// The device's address of the first byte; all that follow are contiguous.
    pub(super) fn iova(&self) -> u64 {
        self.iova
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.space.unmap(self.key);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// Remembers what is mapped, by device address.
    #[derive(Clone, Default)]
    pub(in crate::pci) struct Table(pub(in crate::pci) Arc<Mutex<BTreeMap<u64, (usize, usize)>>>);

    impl Translate for Table {
        fn map(&self, start: usize, bytes: usize, iova: u64) -> io::Result<()> {
            if bytes == 13 * PAGE {
                return Err(io::Error::from_raw_os_error(libc::ENOMEM));
            }
            assert!(self.0.lock().unwrap().insert(iova, (start, bytes)).is_none());
            Ok(())
        }

        fn unmap(&self, iova: u64, bytes: usize) -> io::Result<()> {
            let was = self.0.lock().unwrap().remove(&iova);
            if was.is_some_and(|was| was.1 == bytes) { Ok(()) } else { Err(io::Error::other("not mapped")) }
        }
    }

    pub(in crate::pci) fn space(table: &Table) -> Arc<AddressSpace> {
        Arc::new(AddressSpace::new(Box::new(table.clone()), &[0..=(1 << 32) - 1]))
    }

    fn at(address: usize) -> NonNull<u8> {
        NonNull::new(std::ptr::without_provenance_mut(address)).unwrap()
    }

    // Deleting this lets a pool that several controllers registered be unmapped under the second one's transfers.
    #[test]
    fn a_range_is_mapped_once_and_as_long_as_someone_needs_it() {
        let table = Table::default();
        let space = space(&table);
        let pool = space.map(at(0x4000_0000), 8 << 20).unwrap();
        let again = space.map(at(0x4000_0000), 8 << 20).unwrap();
        assert_eq!((pool.iova(), again.iova()), (2 << 20, 2 << 20));
        // A part of it is another range, whose owner may live longer.
        let part = space.map(at(0x4000_0000), PAGE).unwrap();
        assert_ne!(part.iova(), pool.iova());
        assert_eq!(table.0.lock().unwrap().len(), 2);
        drop(pool);
        assert_eq!(table.0.lock().unwrap().len(), 2);
        drop(again);
        assert_eq!(table.0.lock().unwrap().keys().copied().collect::<Vec<_>>(), [part.iova()]);
        drop(part);
        assert!(table.0.lock().unwrap().is_empty());
        assert_eq!(space.map(at(0x4000_0000), 8 << 20).unwrap().iova(), 2 << 20);
    }

    // Deleting this lets a refused mapping use up the devices' addresses, or be handed out as if it were there.
    #[test]
    fn a_refused_mapping_leaves_nothing() {
        let table = Table::default();
        let space = space(&table);
        for _ in 0..3 {
            assert_eq!(space.map(at(0x10_0000), 13 * PAGE).err().unwrap().raw_os_error(), Some(libc::ENOMEM));
        }
        assert!(space.map(at(0x10_0001), PAGE).is_err() && space.map(at(0x10_0000), 100).is_err());
        assert_eq!(space.map(at(0x10_0000), PAGE).unwrap().iova(), 1 << 20);
        assert!(space.map(at(0x10_0000), 1 << 40).is_err());
    }
}
