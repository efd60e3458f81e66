//! A PCI function through DPDK: opened by its EAL's VFIO container, on its memory.
//!
//! Invariants: the EAL's own memory is mapped for the container's devices by the EAL itself, and other memory by us, at
//! addresses that the EAL never uses; a device stays in the container as long as one of our mappings that was made for it
//! is there: they end with the container's last device, and the EAL, which is not told, would make them again for the next.
//! Registers, reset and orderly removal are VFIO's.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::PciAddress;
use super::address_space::{AddressSpace, Translate};
use super::open_error::{OpenError, Step};
use super::pci_function::{Memory, PciFunction};
use super::reach::Reach;
use super::system::System;
use super::vfio;
use crate::dpdk::{self, Block, Eal, IovaMode, Opened, Pages, container};
use crate::function::{DmaError, DmaMemory, Registration};

/// Addresses of memory from outside of the EAL, for all of the process's devices. They are the same container's.
static OUTSIDE: OnceLock<Arc<AddressSpace>> = OnceLock::new();

/// Opens a function; brings the EAL up when it is not yet.
pub(super) fn open(system: &System, address: PciAddress) -> Result<PciFunction, OpenError> {
    vfio::raise_lock_limit();
    let eal = dpdk::start(None)?;
    let folder = system.function(&address);
    let devices = folder.parent().unwrap_or(&folder);
    let opened = Opened::new(eal, devices, &address.to_string());
    let opened = Arc::new(opened.map_err(|source| {
        // The EAL does not say why, the kernel does.
        vfio::obstacle(system, address)
            .unwrap_or(OpenError::Refused { step: "open the function through DPDK", source })
    })?);
    let file = opened.file().step("share the function's file")?;
    let outside = match eal.iova_mode() {
        IovaMode::Virtual => {
            let allowed = container::free_for(eal, &reserved(&folder));
            let space =
                OUTSIDE.get_or_init(|| Arc::new(AddressSpace::new(Box::<Outside>::default(), &allowed)));
            // Each device may come with reserved addresses of its own.
            space.restrict(&allowed);
            Some(space.clone())
        }
        IovaMode::Physical => None,
    };
    let memory = EalMemory { eal, outside, opened: opened.clone() };
    vfio::function(system, address, "dpdk", file, Box::new(memory), Box::new(opened))
}

/// The addresses that the platform keeps from a function.
fn reserved(folder: &Path) -> Vec<Range<u64>> {
    // Each line is the first and the last address, and what is there. Without the file, the kernel refuses what is wrong.
    let text = std::fs::read_to_string(folder.join("iommu_group/reserved_regions")).unwrap_or_default();
    text.lines().filter_map(region).collect()
}

/// One line of such a file.
fn region(line: &str) -> Option<Range<u64>> {
    let mut words = line.split_whitespace();
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    Some(number()?..number()?.saturating_add(1))
}

/// Maps memory from outside of the EAL, and knows where it is in this process by the devices' addresses: the EAL wants to
/// be told again when it ends.
#[derive(Default)]
struct Outside(Mutex<BTreeMap<u64, usize>>);

impl Translate for Outside {
    fn map(&self, start: usize, bytes: usize, iova: u64) -> io::Result<()> {
        container::map(start, bytes, iova)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(iova, start);
        Ok(())
    }

    fn unmap(&self, iova: u64, bytes: usize) -> io::Result<()> {
        let start = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&iova);
        container::unmap(start.ok_or(io::ErrorKind::NotFound)?, bytes, iova)
    }
}

/// The EAL's memory, for one function.
struct EalMemory {
    eal: &'static Eal,
    /// `None` when devices' addresses are physical ones.
    outside: Option<Arc<AddressSpace>>,
    opened: Arc<Opened>,
}

impl Memory for EalMemory {
    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError> {
        let (block, device_address) = Block::contiguous(self.eal, bytes)?;
        let (start, bytes) = (block.start(), block.bytes());
        // SAFETY: the block is zeroed, aligned, ours alone until it is dropped, and mapped by the EAL for the container's
        // devices as long as one is there.
        Ok(unsafe { DmaMemory::new(start, bytes, device_address, Box::new(block)) })
    }

    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Registration, DmaError> {
        let address = start.as_ptr().addr();
        match (Pages::of(start, bytes), &self.outside) {
            (Some(Pages::Contiguous(device_address)), _) => {
                Ok(Registration::contiguous(address, bytes, device_address, Box::new(())))
            }
            (Some(Pages::Paged { shift, addresses }), _) => {
                Ok(Registration::paged(address, bytes, shift, addresses, Box::new(())))
            }
            (None, Some(space)) => {
                // SAFETY: the caller's promise is the one that is asked for.
                let mapped = unsafe { Reach::Translated(space.clone()).register(start, bytes) }?;
                let (device_address, _) = mapped.device_address(address).ok_or_else(|| {
                    DmaError::Unsuitable { address, reason: "it is not mapped where it begins".to_owned() }
                })?;
                // The mapping ends before the device leaves the container.
                let keep = Box::new((mapped, self.opened.clone()));
                Ok(Registration::contiguous(address, bytes, device_address, keep))
            }
            (None, None) => Err(DmaError::Unsuitable {
                address,
                reason:
                    "DPDK gives devices physical addresses here, and knows those of its own memory only; \
                         start the target with --dpdk, so that its pools are DPDK's"
                        .to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets memory be mapped where a device's interrupts go.
    #[test]
    fn reserved_regions_are_read() {
        assert_eq!(region("0x00000000fee00000 0x00000000feefffff msi"), Some(0xfee0_0000..0xfef0_0000));
        assert_eq!(region("0x0 0xffffffffffffffff reserved"), Some(0..u64::MAX));
        for line in ["", "0x10", "10 20 msi", "0xx 0x1 msi"] {
            assert_eq!(region(line), None, "{line}");
        }
    }
}
