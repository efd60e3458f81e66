//! How a function reaches memory of this process: through an IOMMU, or by physical addresses.
//!
//! Owns what makes a [`Registration`] of a range. Invariant: what is registered stays where the device finds it until
//! the registration is dropped: the kernel holds the pages of a mapping for an IOMMU, and huge pages don't move.

#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use super::address_space::{AddressSpace, PAGE};
use super::physical;
use crate::function::{DmaError, Registration};

/// How memory is reached.
#[derive(Clone)]
pub(super) enum Reach {
    /// Through an IOMMU, which blocks all that is not mapped.
    Translated(Arc<AddressSpace>),
    /// By physical addresses, with nothing in between.
    Physical,
}

impl Reach {
    /// Lets the device reach a range.
    ///
    /// # Safety
    /// The range stays mapped in this process until the registration is dropped.
    pub(super) unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Registration, DmaError> {
        let address = start.as_ptr().addr();
        if bytes == 0 || address.checked_add(bytes).is_none() {
            return Err(unsuitable(address, "it is empty"));
        }
        match self {
            Reach::Translated(space) => {
                let before = address % PAGE;
                let whole = (before + bytes).next_multiple_of(PAGE);
                // SAFETY: the first byte of the page that the range begins in, which is mapped as the range is.
                let page = unsafe { start.sub(before) };
                let mapped = space.map(page, whole).map_err(|source| refused(address, bytes, source))?;
                let device_address = mapped.iova() + before as u64;
                Ok(Registration::contiguous(address, bytes, device_address, Box::new(mapped)))
            }
            Reach::Physical => {
                let failed = |error: physical::NoAddress| unsuitable(address, &error.to_string());
                let page_bytes = physical::huge_page_bytes(start, bytes).map_err(failed)?;
                physical::keep_from_children(start, bytes, page_bytes)
                    .map_err(|error| failed(error.into()))?;
                if address.is_multiple_of(page_bytes) {
                    let pages = physical::addresses(start, bytes, page_bytes).map_err(failed)?;
                    let shift = page_bytes.trailing_zeros();
                    return Ok(Registration::paged(address, bytes, shift, pages, Box::new(())));
                }
                // Pages are counted from the first byte, so a range that begins within one is told in small steps.
                if !address.is_multiple_of(PAGE) {
                    return Err(unsuitable(address, "it does not begin at a page"));
                }
                let pages = physical::addresses(start, bytes, PAGE).map_err(failed)?;
                Ok(Registration::paged(address, bytes, PAGE.trailing_zeros(), pages, Box::new(())))
            }
        }
    }
}

fn unsuitable(address: usize, reason: &str) -> DmaError {
    DmaError::Unsuitable { address, reason: reason.to_owned() }
}

fn refused(address: usize, bytes: usize, source: io::Error) -> DmaError {
    DmaError::Map { address, bytes, source }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::pci::address_space::tests::{Table, space};

    // Deleting this lets a device be told the address of the page instead of that of the byte.
    #[test]
    fn ranges_need_not_begin_at_a_page() {
        let table = Table::default();
        let reach = Reach::Translated(space(&table));
        let memory = vec![0u8; 3 * PAGE];
        let start = NonNull::from(&memory[100]);
        // SAFETY: `memory` lives longer than the registration.
        let registered = unsafe { reach.register(start, 5000) }.unwrap();
        let (device, run) = registered.device_address(start.as_ptr().addr()).unwrap();
        assert_eq!((device as usize % PAGE, run), (start.as_ptr().addr() % PAGE, 5000));
        let (page, bytes) = *table.0.lock().unwrap().values().next().unwrap();
        assert!(page.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE));
        assert!(page <= start.as_ptr().addr() && page + bytes >= start.as_ptr().addr() + 5000);
        // SAFETY: an empty range promises nothing.
        assert!(matches!(unsafe { reach.register(start, 0) }, Err(DmaError::Unsuitable { .. })));
        // SAFETY: it is refused before anything is done with it.
        let ordinary = unsafe { Reach::Physical.register(start, 5000) }.unwrap_err().to_string();
        assert!(ordinary.contains("sledge setup hugepages"), "{ordinary}");
        drop(registered);
        assert!(table.0.lock().unwrap().is_empty());
    }
}
