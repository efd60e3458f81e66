//! Takes NVMe controllers from the kernel's driver and gives them back, by `driver_override` as `driverctl` does it.
//!
//! Invariants: nothing changes before every controller that was named has been looked at and none is in use; the disks
//! are held by `O_EXCL` from the look until the driver has let go, so that no one can mount them in between; what fails
//! half-way is given back to the kernel. Nothing of it lasts over a reboot. Called by `sledge setup`.

use std::fs::File;
use std::path::Path;

use super::PciAddress;
use super::device::{self, PciDevice};
use super::system::{FileError, System, link_name, names};
use super::usage::{Usage, claim, device_paths, driver};

/// The driver of VFIO.
pub const VFIO_PCI: &str = "vfio-pci";
/// The driver that hands out registers without guarding memory.
pub const UIO_PCI_GENERIC: &str = "uio_pci_generic";

/// Why a controller stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// There is no such controller.
    #[error("{0} is no NVMe controller; `sledge setup status` lists them")]
    NoController(PciAddress),
    /// It, or a part of it, is used.
    #[error("{address} is in use: {}; unmount it, or end what uses it, first", uses.join(", "))]
    InUse {
        /// The controller.
        address: PciAddress,
        /// What uses it.
        uses: Vec<String>,
    },
    /// Another function that the IOMMU can't tell from it belongs to the kernel.
    #[error(
        "{address} shares IOMMU group {group} with {other}, which driver {driver} has: a group goes to one owner as a \
         whole; bind the NVMe controllers of a group in one command, or use another slot of the machine"
    )]
    SharedGroup {
        /// The controller.
        address: PciAddress,
        /// The group.
        group: u32,
        /// The other function.
        other: String,
        /// Its driver.
        driver: String,
    },
    /// VFIO needs an IOMMU.
    #[error(
        "no IOMMU guards {0}: turn it on in the firmware (VT-d, AMD-Vi) and, on Intel, boot the kernel with \
         intel_iommu=on; where that can't be, `sledge setup bind --driver uio_pci_generic {0}` does without"
    )]
    NoIommu(PciAddress),
    /// An IOMMU would block all that an unguarded driver does.
    #[error("an IOMMU translates for {0}, so only VFIO can drive it: `sledge setup bind {0}`")]
    Translated(PciAddress),
    /// The driver is not there.
    #[error("the kernel has no driver {0}: `modprobe {0}`")]
    NoDriver(String),
    /// The driver did not take it.
    #[error("{driver} did not take {address}{}; the kernel's log (`dmesg`) says why", restored(*given_back))]
    NotTaken {
        /// The controller.
        address: PciAddress,
        /// The driver that was to have it.
        driver: String,
        /// Whether the kernel's driver has it again.
        given_back: bool,
    },
    /// No driver of the kernel's took it back.
    #[error("no driver took {0} back: `modprobe nvme`")]
    NotTakenBack(PciAddress),
    /// The kernel refused a step.
    #[error(transparent)]
    File(#[from] FileError),
}

fn restored(given_back: bool) -> &'static str {
    if given_back { ", and the kernel has it again" } else { "" }
}

/// What became of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The driver has it now.
    Now,
    /// The driver had it already.
    Already,
}

/// Gives controllers to a driver for user space, [`VFIO_PCI`] or [`UIO_PCI_GENERIC`].
///
/// # Errors
/// Why one of them can't be had. All that was done is undone then.
pub fn bind(system: &System, addresses: &[PciAddress], driver: &str) -> Result<Vec<Bound>, BindError> {
    let usage = Usage::read(system);
    let mut plan = Vec::new();
    for address in addresses {
        let device = device::find(system, &usage, *address).ok_or(BindError::NoController(*address))?;
        if device.driver.as_deref() == Some(driver) && device.driver_override.as_deref() == Some(driver) {
            plan.push((device, Vec::new(), Bound::Already));
            continue;
        }
        let held = free_to_go(system, &device)?;
        suits(system, &device, driver, addresses)?;
        plan.push((device, held, Bound::Now));
    }
    if !system.path("/sys/bus/pci/drivers").join(driver).exists() {
        return Err(BindError::NoDriver(driver.to_owned()));
    }
    let mut result = Vec::new();
    let mut done: Vec<PciAddress> = Vec::new();
    for (device, held, bound) in plan {
        if bound == Bound::Now
            && let Err(error) = move_to(system, device.address, driver, held)
        {
            for address in done {
                let _ = move_back(system, address);
            }
            return Err(error);
        }
        if bound == Bound::Now {
            done.push(device.address);
        }
        result.push(bound);
    }
    Ok(result)
}

/// Gives controllers back to the kernel's own driver. Returns the driver that has each.
///
/// # Errors
/// When one is in use, or no driver takes it.
pub fn unbind(system: &System, addresses: &[PciAddress]) -> Result<Vec<String>, BindError> {
    let usage = Usage::read(system);
    let mut ours = Vec::new();
    for address in addresses {
        let device = device::find(system, &usage, *address).ok_or(BindError::NoController(*address))?;
        // The kernel would wait, for ever maybe, until the process lets go of it.
        if device.driver.as_deref().is_some_and(for_user_space) && !device.users.is_empty() {
            return Err(BindError::InUse { address: *address, uses: device.uses() });
        }
        ours.push((*address, device.driver));
    }
    ours.into_iter()
        .map(|(address, driver)| match driver {
            Some(driver) if !for_user_space(&driver) => Ok(driver),
            // One that was told the device's identity by hand takes it again; that is no way back.
            _ => move_back(system, address)?
                .filter(|driver| !for_user_space(driver))
                .ok_or(BindError::NotTakenBack(address)),
        })
        .collect()
}

fn for_user_space(driver: &str) -> bool {
    driver == VFIO_PCI || driver == UIO_PCI_GENERIC
}

/// Makes sure that nobody uses the controller, and holds its disks.
fn free_to_go(system: &System, device: &PciDevice) -> Result<Vec<File>, BindError> {
    let in_use = |uses| BindError::InUse { address: device.address, uses };
    let uses = device.uses();
    if !uses.is_empty() {
        return Err(in_use(uses));
    }
    let mut held = Vec::new();
    for path in device_paths(system, &device.block_devices) {
        match claim(&path) {
            Ok(file) => held.push(file),
            // A namespace that the kernel shows without a device node can't be mounted either.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(in_use(vec![format!("{} is claimed", path.display())]));
            }
            // The disk is broken or gone, which is no use of it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::ENXIO | libc::ENODEV)) => {}
            Err(source) => return Err(FileError { path, source }.into()),
        }
    }
    Ok(held)
}

/// Makes sure that the driver can drive it, as far as the IOMMU has a say.
fn suits(
    system: &System,
    device: &PciDevice,
    driver: &str,
    together: &[PciAddress],
) -> Result<(), BindError> {
    let address = device.address;
    let Some(group) = device.iommu_group else {
        // Without an IOMMU, VFIO serves only where its no-IOMMU mode was turned on.
        let unguarded = system.path("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
        let allowed = super::system::read(&unguarded).is_ok_and(|value| value == "Y" || value == "1");
        return if driver == VFIO_PCI && !allowed { Err(BindError::NoIommu(address)) } else { Ok(()) };
    };
    if driver != VFIO_PCI {
        return if translates(system, group) { Err(BindError::Translated(address)) } else { Ok(()) };
    }
    for other in names(&system.path(&format!("/sys/kernel/iommu_groups/{group}/devices"))) {
        let of_us = other.parse().is_ok_and(|other| together.contains(&other));
        let Some(driver) = link_name(&system.path("/sys/bus/pci/devices").join(&other).join("driver")) else {
            continue;
        };
        if !of_us && !shares_well(&driver) {
            return Err(BindError::SharedGroup { address, group, other, driver });
        }
    }
    Ok(())
}

/// Drivers whose functions VFIO lets stay in a group: its own, and those that do no DMA for the kernel.
fn shares_well(driver: &str) -> bool {
    driver.starts_with("vfio") || matches!(driver, "pci-stub" | "pcieport")
}

/// Whether the IOMMU translates the group's addresses, so that physical ones lead nowhere.
pub(super) fn translates(system: &System, group: u32) -> bool {
    let kind = system.path(&format!("/sys/kernel/iommu_groups/{group}/type"));
    super::system::read(&kind).map_or(true, |kind| kind != "identity")
}

/// Moves a controller to a driver; gives it back when the driver does not take it.
fn move_to(system: &System, address: PciAddress, driver: &str, held: Vec<File>) -> Result<(), BindError> {
    let folder = system.function(&address);
    let taken = (|| {
        system.write(&folder.join("driver_override"), driver)?;
        release(system, &folder, address)?;
        system.write(&system.path("/sys/bus/pci/drivers_probe"), &address.to_string())
    })();
    drop(held);
    if taken.is_ok() && self::driver(&folder).as_deref() == Some(driver) {
        return Ok(());
    }
    let given_back = move_back(system, address).is_ok_and(|driver| driver.is_some());
    match taken {
        Err(error) if !given_back => Err(error.into()),
        _ => Err(BindError::NotTaken { address, driver: driver.to_owned(), given_back }),
    }
}

/// Has the kernel choose the driver; returns which it is.
fn move_back(system: &System, address: PciAddress) -> Result<Option<String>, FileError> {
    let folder = system.function(&address);
    // An empty line clears it.
    system.write(&folder.join("driver_override"), "\n")?;
    release(system, &folder, address)?;
    system.write(&system.path("/sys/bus/pci/drivers_probe"), &address.to_string())?;
    Ok(driver(&folder))
}

/// Takes a controller from its driver, if it has one.
fn release(system: &System, folder: &Path, address: PciAddress) -> Result<(), FileError> {
    if driver(folder).is_none() {
        return Ok(());
    }
    system.write(&folder.join("driver/unbind"), &address.to_string())
}
