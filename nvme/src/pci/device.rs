//! The NVMe controllers of a machine, as its PCI bus shows them.

use std::path::{Path, PathBuf};

use super::PciAddress;
use super::system::{FileError, System, link_name, names, number, read};
use super::usage::{BlockDevice, Usage, driver};

/// Class of mass storage controllers with NVM, without the programming interface: PCI Code and ID Assignment, 1.2.
const NVM_CLASS: u32 = 0x0108;

/// A PCI function that holds an NVMe controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Where it is.
    pub address: PciAddress,
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device of that vendor.
    pub device: u16,
    /// Class, subclass and programming interface; `0x010802` for NVMe.
    pub class: u32,
    /// The driver that has it.
    pub driver: Option<String>,
    /// The driver that it is reserved for.
    pub driver_override: Option<String>,
    /// Number of its IOMMU group; `None` when no IOMMU is on.
    pub iommu_group: Option<u32>,
    /// The NUMA node it is nearest to.
    pub numa_node: Option<u32>,
    /// Model and serial number, which only the kernel's driver tells.
    pub identity: Option<String>,
    /// Disks that the kernel's driver made of it, with what uses them.
    pub block_devices: Vec<BlockDevice>,
    /// Processes that drive it by themselves.
    pub users: Vec<String>,
}

impl PciDevice {
    /// All that speaks against taking it from its driver; empty when it is free.
    #[must_use]
    pub fn uses(&self) -> Vec<String> {
        let disks = self.block_devices.iter().flat_map(|device| device.uses.iter().cloned());
        disks.chain(self.users.iter().map(|user| format!("it is driven by {user}"))).collect()
    }
}

/// The NVMe controllers, by address.
///
/// # Errors
/// When the bus can't be read.
pub fn list(system: &System) -> Result<Vec<PciDevice>, FileError> {
    let folder = system.path("/sys/bus/pci/devices");
    // A machine without PCI has no such folder, which is worth an error; an empty one is not.
    std::fs::read_dir(&folder).map_err(|source| FileError { path: folder.clone(), source })?;
    let usage = Usage::read(system);
    let addresses = names(&folder).into_iter().filter_map(|name| name.parse().ok());
    Ok(addresses.filter_map(|address| look(system, &usage, address)).collect())
}

/// The controller at an address; `None` when there is none.
pub(super) fn find(system: &System, usage: &Usage<'_>, address: PciAddress) -> Option<PciDevice> {
    look(system, usage, address)
}

fn look(system: &System, usage: &Usage<'_>, address: PciAddress) -> Option<PciDevice> {
    let folder = system.function(&address);
    let class = u32::try_from(number(&folder.join("class"))?).ok()?;
    if class >> 8 != NVM_CLASS {
        return None;
    }
    let id = |name: &str| number(&folder.join(name)).and_then(|id| u16::try_from(id).ok()).unwrap_or(0);
    let iommu_group = iommu_group(&folder);
    let held = read(&folder.join("driver_override")).ok();
    Some(PciDevice {
        address,
        vendor: id("vendor"),
        device: id("device"),
        class,
        driver: driver(&folder),
        driver_override: held.filter(|name| !name.is_empty() && name != "(null)"),
        iommu_group,
        numa_node: number(&folder.join("numa_node")).and_then(|node| u32::try_from(node).ok()),
        identity: identity(&folder),
        block_devices: usage.block_devices(&folder),
        users: users(&folder, iommu_group, usage),
    })
}

/// The number of a function's IOMMU group.
pub(super) fn iommu_group(folder: &Path) -> Option<u32> {
    link_name(&folder.join("iommu_group"))?.parse().ok()
}

/// The number of a function's `/dev/uioN`.
pub(super) fn uio_number(folder: &Path) -> Option<u32> {
    names(&folder.join("uio")).iter().find_map(|name| name.strip_prefix("uio")?.parse().ok())
}

/// The name of a function's `/dev/vfio/devices/vfioN`, where the kernel has such.
pub(super) fn vfio_name(folder: &Path) -> Option<String> {
    names(&folder.join("vfio-dev")).into_iter().find(|name| name.starts_with("vfio"))
}

/// Processes that have the function open through VFIO or UIO, or send it commands by the character devices of the
/// kernel's driver. A VFIO group that several functions share makes each of them used.
fn users(folder: &Path, group: Option<u32>, usage: &Usage<'_>) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    if driver(folder).is_some_and(|driver| driver.contains("vfio")) {
        paths.extend(
            group
                .iter()
                .flat_map(|group| [format!("/dev/vfio/{group}"), format!("/dev/vfio/noiommu-{group}")]),
        );
        paths.extend(vfio_name(folder).map(|name| format!("/dev/vfio/devices/{name}")));
    }
    paths.extend(uio_number(folder).map(|number| format!("/dev/uio{number}")));
    for controller in names(&folder.join("nvme")) {
        let generic = names(&folder.join("nvme").join(&controller));
        paths.extend(generic.iter().filter(|name| name.starts_with("ng")).map(|name| format!("/dev/{name}")));
        paths.push(format!("/dev/{controller}"));
    }
    let mut users: Vec<String> =
        paths.iter().flat_map(|path| usage.processes(path).iter().cloned()).collect();
    users.sort();
    users.dedup();
    users
}

fn identity(folder: &Path) -> Option<String> {
    let controllers: PathBuf = folder.join("nvme");
    let controller = controllers.join(names(&controllers).into_iter().next()?);
    let (model, serial) = (read(&controller.join("model")).ok()?, read(&controller.join("serial")).ok()?);
    Some(format!("{model}, serial {serial}"))
}
