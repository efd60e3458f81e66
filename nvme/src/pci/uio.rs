//! A PCI function through `uio_pci_generic`: registers from sysfs, memory by physical address, nothing guarded.
//!
//! For machines without an IOMMU, and only when it is asked for by name: a device, or a mistake of ours in an address,
//! can write to any memory of the machine. The kernel stops the device's DMA when `/dev/uioN` closes, so also when this
//! process dies, but what was under way may still land in memory that is someone else's by then.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::PciAddress;
use super::arena::Arena;
use super::binding::translates;
use super::config_space::ConfigSpace;
use super::device;
use super::open_error::{OpenError, Step};
use super::pci_function::{Control, PciFunction, Place};
use super::reach::Reach;
use super::system::{FileError, System};
use super::window::Window;

/// Opens a function.
pub(super) fn open(system: &System, address: PciAddress) -> Result<PciFunction, OpenError> {
    let folder = system.function(&address);
    if device::iommu_group(&folder).is_some_and(|group| translates(system, group)) {
        return Err(OpenError::Translated(address));
    }
    let number = device::uio_number(&folder).ok_or(OpenError::Kernel("the function has no /dev/uioN"))?;
    let path = system.path(&format!("/dev/uio{number}"));
    let uio = open_file(path.clone())?;
    lock(&uio).map_err(|error| OpenError::of_file(&path, error))?;

    let config = ConfigSpace::new(open_file(folder.join("config"))?, 0);
    config.set_bus_master(false).step("switch DMA off")?;
    config.enable_registers().step("switch the registers on")?;
    let bar = open_file(folder.join("resource0"))?;
    let bytes = usize::try_from(bar.metadata().step("find the registers")?.len()).unwrap_or(0);
    // SAFETY: the file is BAR 0, registers of the device.
    let registers = unsafe { Window::map(bar.as_fd(), 0, bytes) }.step("map the registers")?;
    let control = Device { reset: folder.join("reset"), _uio: uio };
    Ok(PciFunction {
        address: address.to_string(),
        environment: "uio_pci_generic",
        place: Place::of(folder).step("find the function's folder")?,
        registers,
        config,
        memory: Box::new(Arena::new(Reach::Physical)),
        control: Box::new(control),
    })
}

/// An opened function.
struct Device {
    reset: PathBuf,
    /// While it is open the kernel leaves the device's DMA on.
    _uio: File,
}

impl Control for Device {
    fn reset(&self) -> io::Result<bool> {
        match File::options().write(true).open(&self.reset) {
            Ok(mut file) => io::Write::write_all(&mut file, b"1").map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn leaving(&self) -> bool {
        false
    }
}

fn open_file(path: PathBuf) -> Result<File, OpenError> {
    File::options().read(true).write(true).open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => OpenError::of_file(&path, error),
        _ => FileError { path, source: error }.into(),
    })
}

/// The kernel lets any number of processes open it; two drivers would ruin each other.
fn lock(uio: &File) -> io::Result<()> {
    match uio.try_lock() {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}
