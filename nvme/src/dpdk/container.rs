//! The EAL's VFIO container: devices in it, and memory from outside of the EAL that they reach.
//!
//! Invariants: the EAL closes a device once, when its [`Opened`] is dropped; addresses for memory from outside are taken
//! only from those that are [`free_for`] it, as the EAL takes a mapping that is in the way of a new one for the new one.
//! Called by `pci::dpdk`.

#![allow(unsafe_code)]

use std::ffi::{CString, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem;
use std::ops::{Range, RangeInclusive};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sledge_dpdk_sys as sys;

use super::eal::{Eal, last_error};

/// Where addresses for memory from outside end: what the narrowest IOMMUs reach, among them the usual emulated ones. The
/// EAL's own memory begins at 4 GiB for the same reason.
const HIGHEST: u64 = (1 << 39) - 1;

/// Held while the EAL opens or closes a device: it counts the devices of a group without a lock of its own.
static DEVICES: Mutex<()> = Mutex::new(());

/// A device that the EAL has opened. Dropping it closes it.
#[derive(Debug)]
pub(crate) struct Opened {
    descriptor: c_int,
    folder: CString,
    address: CString,
}

impl Opened {
    /// Opens a device, whose driver is `vfio-pci`; `folder` is that of all devices in sysfs.
    pub(crate) fn new(_eal: &'static Eal, folder: &Path, address: &str) -> io::Result<Opened> {
        // The EAL puts a slash between the two.
        let folder = CString::new(folder.as_os_str().as_bytes())?;
        let address = CString::new(address)?;
        let mut descriptor = -1;
        let mut info = sys::vfio_device_info {
            argsz: mem::size_of::<sys::vfio_device_info>() as u32,
            ..Default::default()
        };
        let _one_at_a_time = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the EAL is up; the strings end with zero and it copies what it keeps; the rest is ours to be written.
        let code = unsafe {
            sys::rte_vfio_setup_device(folder.as_ptr(), address.as_ptr(), &raw mut descriptor, &raw mut info)
        };
        match code {
            0 if descriptor >= 0 => Ok(Opened { descriptor, folder, address }),
            // Its word for a device that is not VFIO's.
            1 => Err(io::Error::from_raw_os_error(libc::ENODEV)),
            _ => Err(io::Error::other("DPDK refused, and has written why to standard error")),
        }
    }

    /// The device's file, once more.
    pub(crate) fn file(&self) -> io::Result<File> {
        // SAFETY: the descriptor is open until `self` is dropped.
        let borrowed = unsafe { BorrowedFd::borrow_raw(self.descriptor) };
        Ok(File::from(borrowed.try_clone_to_owned()?))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let _one_at_a_time = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: opened by `new`, and closed nowhere else.
        let code = unsafe {
            sys::rte_vfio_release_device(self.folder.as_ptr(), self.address.as_ptr(), self.descriptor)
        };
        if code != 0 {
            tracing::warn!(address = ?self.address, "DPDK could not close a device");
        }
    }
}

/// Lets the container's devices reach `bytes` bytes of this process at `start`, whole pages, at the address `iova`.
pub(crate) fn map(start: usize, bytes: usize, iova: u64) -> io::Result<()> {
    let container = sys::RTE_VFIO_DEFAULT_CONTAINER_FD;
    // SAFETY: the EAL and the kernel only note the range; what devices may do with it is the caller's matter.
    match unsafe { sys::rte_vfio_container_dma_map(container, start as u64, iova, bytes as u64) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// Ends that.
pub(crate) fn unmap(start: usize, bytes: usize, iova: u64) -> io::Result<()> {
    let container = sys::RTE_VFIO_DEFAULT_CONTAINER_FD;
    // SAFETY: as for `map`.
    match unsafe { sys::rte_vfio_container_dma_unmap(container, start as u64, iova, bytes as u64) } {
        0 => Ok(()),
        _ => Err(last_error()),
    }
}

/// The devices' addresses that memory from outside can have: neither those where the EAL's memory is or may come to be
/// (its addresses are the same for devices), nor those in `reserved`, which the platform keeps from a device.
pub(crate) fn free_for(_eal: &'static Eal, reserved: &[Range<u64>]) -> Vec<RangeInclusive<u64>> {
    unsafe extern "C" fn note(list: *const sys::rte_memseg_list, ranges: *mut c_void) -> c_int {
        // SAFETY: `list` is one of the EAL's, and `ranges` the vector below, whose only user this is during the walk.
        unsafe {
            let start = sys::sledge_memseg_list_start(list);
            (*ranges.cast::<Vec<Range<u64>>>()).push(start..start.saturating_add((*list).len as u64));
        }
        0
    }
    let mut occupied = reserved.to_vec();
    // SAFETY: the EAL is up; `note` is called before this returns only, with what it expects.
    unsafe { sys::rte_memseg_list_walk(Some(note), (&raw mut occupied).cast()) };
    gaps(occupied)
}

/// What lies between ranges, up to [`HIGHEST`].
fn gaps(mut occupied: Vec<Range<u64>>) -> Vec<RangeInclusive<u64>> {
    occupied.sort_unstable_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut from = 0;
    for range in occupied {
        if from < range.start && from <= HIGHEST {
            gaps.push(from..=(range.start - 1).min(HIGHEST));
        }
        from = from.max(range.end);
    }
    if from <= HIGHEST {
        gaps.push(from..=HIGHEST);
    }
    gaps
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets a device's write meant for one buffer go to another, or to the interrupt controller.
    #[test]
    fn addresses_lie_around_what_is_there() {
        let occupied = vec![64..80, 16..24, 20..32, 18..19, 80..96, HIGHEST - 7..u64::MAX];
        assert_eq!(gaps(occupied), [0..=15, 32..=63, 96..=HIGHEST - 8]);
        assert_eq!(gaps(vec![0..8, HIGHEST + 1..u64::MAX]), [8..=HIGHEST]);
        assert_eq!(gaps(vec![0..HIGHEST, HIGHEST..HIGHEST + 1]), []);
        assert_eq!(gaps(vec![]), [0..=HIGHEST]);
    }
}
