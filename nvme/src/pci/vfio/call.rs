//! The kernel's VFIO calls: one function each, which gives the kernel what it expects.
//!
//! Structures and numbers come from `vfio-bindings`, which generates them from the kernel's header. Every structure
//! begins with its own size, by which the kernel knows how much of it it may read and write.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use vfio_bindings::bindings::vfio as abi;

/// VFIO's calls have no size or direction in their numbers: `_IO(VFIO_TYPE, VFIO_BASE + n)`.
const fn number(n: u32) -> libc::c_ulong {
    ((abi::VFIO_TYPE as u32) << abi::_IOC_TYPESHIFT | (abi::VFIO_BASE + n)) as libc::c_ulong
}

const GET_API_VERSION: libc::c_ulong = number(0);
const CHECK_EXTENSION: libc::c_ulong = number(1);
const SET_IOMMU: libc::c_ulong = number(2);
const GROUP_GET_STATUS: libc::c_ulong = number(3);
const GROUP_SET_CONTAINER: libc::c_ulong = number(4);
const GROUP_GET_DEVICE_FD: libc::c_ulong = number(6);
const DEVICE_GET_INFO: libc::c_ulong = number(7);
const DEVICE_GET_REGION_INFO: libc::c_ulong = number(8);
const DEVICE_GET_IRQ_INFO: libc::c_ulong = number(9);
const DEVICE_SET_IRQS: libc::c_ulong = number(10);
const DEVICE_RESET: libc::c_ulong = number(11);
const IOMMU_GET_INFO: libc::c_ulong = number(12);
const IOMMU_MAP_DMA: libc::c_ulong = number(13);
const IOMMU_UNMAP_DMA: libc::c_ulong = number(14);
const DEVICE_BIND_IOMMUFD: libc::c_ulong = number(18);
const DEVICE_ATTACH_IOMMUFD_PT: libc::c_ulong = number(19);

/// A call with a number as its argument, or none.
fn call(file: &File, number: libc::c_ulong, argument: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: for these calls the kernel takes the argument as a number and touches no memory of ours.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), number, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A call with a structure, of which the kernel reads and writes `size_of::<T>()` bytes at most.
fn call_with<T>(file: &File, number: libc::c_ulong, argument: &mut T) -> io::Result<i32> {
    // SAFETY: the structure is ours for the call, and the kernel goes by its first member, which every caller here
    // sets to its size (`vfio_irq_set` and raw numbers are the two that differ, with a fixed layout).
    let result = unsafe { libc::ioctl(file.as_raw_fd(), number, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The size of a structure as its first member wants it.
pub(super) fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// Whether this is the VFIO that we know.
pub(super) fn is_known(container: &File) -> io::Result<bool> {
    Ok(call(container, GET_API_VERSION, 0)? == abi::VFIO_API_VERSION as i32)
}

/// Whether the container can have an IOMMU of a kind.
pub(super) fn has_extension(container: &File, kind: u32) -> io::Result<bool> {
    Ok(call(container, CHECK_EXTENSION, kind.into())? == 1)
}

/// Chooses the container's kind of IOMMU; it has a group already.
pub(super) fn set_iommu(container: &File, kind: u32) -> io::Result<()> {
    call(container, SET_IOMMU, kind.into()).map(drop)
}

/// Whether all functions of a group are VFIO's.
pub(super) fn is_viable(group: &File) -> io::Result<bool> {
    let mut status = abi::vfio_group_status { argsz: size::<abi::vfio_group_status>(), flags: 0 };
    call_with(group, GROUP_GET_STATUS, &mut status)?;
    Ok(status.flags & abi::VFIO_GROUP_FLAGS_VIABLE != 0)
}

/// Puts a group into a container.
pub(super) fn set_container(group: &File, container: &File) -> io::Result<()> {
    call_with(group, GROUP_SET_CONTAINER, &mut container.as_raw_fd()).map(drop)
}

/// Opens a function of a group.
pub(super) fn open_device(group: &File, address: &str) -> io::Result<File> {
    let name = CString::new(address).map_err(io::Error::other)?;
    // SAFETY: the kernel reads the name up to its end.
    let result = unsafe { libc::ioctl(group.as_raw_fd(), GROUP_GET_DEVICE_FD, name.as_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(result) }))
}

/// Whether a function can be reset.
pub(super) fn can_reset(device: &File) -> io::Result<bool> {
    let mut info =
        abi::vfio_device_info { argsz: size::<abi::vfio_device_info>(), ..abi::vfio_device_info::default() };
    call_with(device, DEVICE_GET_INFO, &mut info)?;
    Ok(info.flags & abi::VFIO_DEVICE_FLAGS_RESET != 0)
}

/// Resets a function.
pub(super) fn reset(device: &File) -> io::Result<()> {
    call(device, DEVICE_RESET, 0).map(drop)
}

/// A part of a device's file.
pub(super) struct Region {
    /// Where it begins in the file.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
    /// Whether it can be mapped.
    pub mappable: bool,
}

/// Where a region lies.
pub(super) fn region(device: &File, index: u32) -> io::Result<Region> {
    let mut info = abi::vfio_region_info {
        argsz: size::<abi::vfio_region_info>(),
        index,
        ..abi::vfio_region_info::default()
    };
    call_with(device, DEVICE_GET_REGION_INFO, &mut info)?;
    let mappable = info.flags & abi::VFIO_REGION_INFO_FLAG_MMAP != 0;
    Ok(Region { offset: info.offset, bytes: info.size, mappable })
}

/// Whether a function has an interrupt of a kind that an eventfd can hear.
pub(super) fn has_interrupt(device: &File, index: u32) -> io::Result<bool> {
    let mut info =
        abi::vfio_irq_info { argsz: size::<abi::vfio_irq_info>(), index, ..abi::vfio_irq_info::default() };
    call_with(device, DEVICE_GET_IRQ_INFO, &mut info)?;
    Ok(info.count > 0 && info.flags & abi::VFIO_IRQ_INFO_EVENTFD != 0)
}

/// `vfio_irq_set` with room for one descriptor.
#[repr(C)]
struct OneInterrupt {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    eventfd: RawFd,
}

/// Has the first interrupt of a kind signal an eventfd.
pub(super) fn set_interrupt(device: &File, index: u32, eventfd: BorrowedFd<'_>) -> io::Result<()> {
    let mut set = OneInterrupt {
        argsz: size::<OneInterrupt>(),
        flags: abi::VFIO_IRQ_SET_DATA_EVENTFD | abi::VFIO_IRQ_SET_ACTION_TRIGGER,
        index,
        start: 0,
        count: 1,
        eventfd: eventfd.as_raw_fd(),
    };
    call_with(device, DEVICE_SET_IRQS, &mut set).map(drop)
}

/// `vfio_iommu_type1_info` with room for its capabilities.
#[repr(C)]
struct IommuInfo {
    head: abi::vfio_iommu_type1_info,
    capabilities: [u8; 8192],
}

/// The device addresses that a container's IOMMU allows; `None` when the kernel does not tell (before 5.4).
pub(super) fn allowed_addresses(container: &File) -> io::Result<Option<Vec<RangeInclusive<u64>>>> {
    let head = abi::vfio_iommu_type1_info { argsz: size::<IommuInfo>(), ..Default::default() };
    let mut info = IommuInfo { head, capabilities: [0; 8192] };
    call_with(container, IOMMU_GET_INFO, &mut info)?;
    if info.head.flags & abi::VFIO_IOMMU_INFO_CAPS == 0 {
        return Ok(None);
    }
    // Offsets count from the structure's first byte.
    let from = size_of::<abi::vfio_iommu_type1_info>();
    let Some(first) = (info.head.cap_offset as usize).checked_sub(from) else { return Ok(None) };
    Ok(ranges(&info.capabilities, first, from))
}

/// Finds the ranges in a chain of capabilities: each is `{ id: u16, version: u16, next: u32 }` and its content, and
/// `next` counts from `from` bytes before `bytes`.
fn ranges(bytes: &[u8], first: usize, from: usize) -> Option<Vec<RangeInclusive<u64>>> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let mut at = first;
    // A chain can't have more links than there is room for.
    for _ in 0..bytes.len() / 8 {
        let id = u32::from(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        if id == abi::VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE {
            let count = word(at + 8)? as usize;
            return (0..count).map(|n| Some(long(at + 16 + n * 16)?..=long(at + 24 + n * 16)?)).collect();
        }
        at = (word(at + 4)? as usize).checked_sub(from)?;
    }
    None
}

/// Maps memory of this process for a container's devices. The kernel holds the pages until it is unmapped.
pub(super) fn map(container: &File, start: usize, bytes: usize, iova: u64) -> io::Result<()> {
    let mut map = abi::vfio_iommu_type1_dma_map {
        argsz: size::<abi::vfio_iommu_type1_dma_map>(),
        flags: abi::VFIO_DMA_MAP_FLAG_READ | abi::VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: start as u64,
        iova,
        size: bytes as u64,
    };
    call_with(container, IOMMU_MAP_DMA, &mut map).map(drop)
}

/// Ends a mapping.
pub(super) fn unmap(container: &File, iova: u64, bytes: usize) -> io::Result<()> {
    let mut unmap = abi::vfio_iommu_type1_dma_unmap {
        argsz: size::<abi::vfio_iommu_type1_dma_unmap>(),
        iova,
        size: bytes as u64,
        ..Default::default()
    };
    call_with(container, IOMMU_UNMAP_DMA, &mut unmap)?;
    // The kernel tells how much it unmapped.
    if unmap.size == bytes as u64 { Ok(()) } else { Err(io::Error::other("only a part was mapped")) }
}

/// Gives an opened character device of VFIO to an iommufd.
pub(super) fn bind_iommufd(device: &File, iommufd: &File) -> io::Result<()> {
    let mut bind = abi::vfio_device_bind_iommufd {
        argsz: size::<abi::vfio_device_bind_iommufd>(),
        iommufd: iommufd.as_raw_fd(),
        ..Default::default()
    };
    call_with(device, DEVICE_BIND_IOMMUFD, &mut bind).map(drop)
}

/// Puts a device into an address space of its iommufd.
pub(super) fn attach(device: &File, space: u32) -> io::Result<()> {
    let mut attach = abi::vfio_device_attach_iommufd_pt {
        argsz: size::<abi::vfio_device_attach_iommufd_pt>(),
        pt_id: space,
        ..Default::default()
    };
    call_with(device, DEVICE_ATTACH_IOMMUFD_PT, &mut attach).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets another call be made than is meant: the numbers are those of the kernel's header.
    #[test]
    fn calls_have_the_numbers_of_the_header() {
        assert_eq!((GET_API_VERSION, GROUP_GET_DEVICE_FD, IOMMU_UNMAP_DMA), (0x3b64, 0x3b6a, 0x3b72));
        assert_eq!((DEVICE_BIND_IOMMUFD, DEVICE_ATTACH_IOMMUFD_PT), (0x3b76, 0x3b77));
        assert_eq!(std::mem::offset_of!(OneInterrupt, eventfd), size_of::<abi::vfio_irq_set>());
    }

    // Deleting this lets device addresses be taken from where the IOMMU has none, or a bad chain loop for ever.
    #[test]
    fn ranges_are_found_in_the_chain() {
        let from = 24;
        let mut bytes = Vec::new();
        let mut put = |id: u16, next: u32, content: &[u64]| {
            bytes.extend(id.to_ne_bytes().into_iter().chain(1u16.to_ne_bytes()));
            bytes.extend(next.to_ne_bytes());
            bytes.extend(content.iter().flat_map(|word| word.to_ne_bytes()));
        };
        put(2, from + 32, &[1, 2, 3]);
        put(1, 0, &[2, 0, 0xfedf_ffff, 0xfef0_0000, 0x7f_ffff_ffff]);
        let found = ranges(&bytes, 0, from as usize).unwrap();
        assert_eq!(found, [0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff]);
        assert_eq!(ranges(&bytes, bytes.len() - 4, from as usize), None);
        // A chain that leads back to itself.
        bytes[4..8].copy_from_slice(&from.to_ne_bytes());
        assert_eq!(ranges(&bytes, 0, from as usize), None);
    }
}
