//! iommufd: the newer way to an IOMMU, of kernels that are built with it and with VFIO's character devices.
//!
//! Structures and numbers are those of the kernel's `iommufd.h` (Linux 6.6), which no crate here has. Each begins with
//! its size; a kernel that knows a longer one takes the rest for zeroes.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::call::size;
use crate::pci::address_space::Translate;

/// `_IO(';', 0x80 + n)`.
const fn number(n: u32) -> libc::c_ulong {
    (0x3b << 8 | (0x80 + n)) as libc::c_ulong
}
const IOAS_ALLOC: libc::c_ulong = number(1);
const IOAS_IOVA_RANGES: libc::c_ulong = number(4);
const IOAS_MAP: libc::c_ulong = number(5);
const IOAS_UNMAP: libc::c_ulong = number(6);

/// Flags of a mapping.
const FIXED_IOVA: u32 = 1;
const WRITEABLE: u32 = 2;
const READABLE: u32 = 4;

/// Most ranges that are asked for; a machine has a handful.
const MOST_RANGES: usize = 256;

#[repr(C)]
#[derive(Default)]
struct Alloc {
    size: u32,
    flags: u32,
    id: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Range {
    start: u64,
    last: u64,
}

#[repr(C)]
#[derive(Default)]
struct Ranges {
    size: u32,
    space: u32,
    count: u32,
    reserved: u32,
    list: u64,
    alignment: u64,
}

#[repr(C)]
#[derive(Default)]
struct Map {
    size: u32,
    flags: u32,
    space: u32,
    reserved: u32,
    start: u64,
    bytes: u64,
    iova: u64,
}

#[repr(C)]
#[derive(Default)]
struct Unmap {
    size: u32,
    space: u32,
    iova: u64,
    bytes: u64,
}

/// An address space of an iommufd.
#[derive(Clone)]
pub(super) struct Space {
    file: Arc<File>,
    id: u32,
}

impl Space {
    /// A new, empty one.
    pub(super) fn new(file: File) -> io::Result<Space> {
        let mut alloc = Alloc { size: size::<Alloc>(), ..Alloc::default() };
        call(&file, IOAS_ALLOC, &mut alloc)?;
        Ok(Space { file: Arc::new(file), id: alloc.id })
    }

    /// Puts a device into it.
    pub(super) fn attach(&self, device: &File) -> io::Result<()> {
        super::call::bind_iommufd(device, &self.file)?;
        super::call::attach(device, self.id)
    }

    /// The device addresses that all of its devices' IOMMUs allow.
    pub(super) fn allowed_addresses(&self) -> io::Result<Vec<RangeInclusive<u64>>> {
        let mut list = [Range::default(); MOST_RANGES];
        let mut ranges = Ranges {
            size: size::<Ranges>(),
            space: self.id,
            count: MOST_RANGES as u32,
            list: list.as_mut_ptr().expose_provenance() as u64,
            ..Ranges::default()
        };
        call(&self.file, IOAS_IOVA_RANGES, &mut ranges)?;
        let count = (ranges.count as usize).min(MOST_RANGES);
        Ok(list[..count].iter().map(|range| range.start..=range.last).collect())
    }
}

impl Translate for Space {
    fn map(&self, start: usize, bytes: usize, iova: u64) -> io::Result<()> {
        let mut map = Map {
            size: size::<Map>(),
            flags: FIXED_IOVA | READABLE | WRITEABLE,
            space: self.id,
            start: start as u64,
            bytes: bytes as u64,
            iova,
            ..Map::default()
        };
        call(&self.file, IOAS_MAP, &mut map)
    }

    fn unmap(&self, iova: u64, bytes: usize) -> io::Result<()> {
        let mut unmap = Unmap { size: size::<Unmap>(), space: self.id, iova, bytes: bytes as u64 };
        call(&self.file, IOAS_UNMAP, &mut unmap)
    }
}

fn call<T>(file: &File, number: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: the structure is ours for the call and begins with its size, which is all that the kernel touches; what
    // `Ranges::list` points to has as many entries as `count` says, and `Map` and `Unmap` name memory by address only.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), number, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a structure differ from the kernel's, which would then read a length as an address.
    #[test]
    fn structures_are_those_of_the_header() {
        assert_eq!((IOAS_ALLOC, IOAS_UNMAP), (0x3b81, 0x3b86));
        assert_eq!((size::<Alloc>(), size::<Ranges>(), size::<Map>(), size::<Unmap>()), (12, 32, 40, 24));
        assert_eq!((std::mem::offset_of!(Map, start), std::mem::offset_of!(Ranges, list)), (16, 16));
    }
}
