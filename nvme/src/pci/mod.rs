//! NVMe controllers on this machine's PCI bus, taken from the kernel's driver and driven from this process.
//!
//! Owns the environment of the driver, as the kernel offers it: which controllers there are and who uses them
//! ([`list`]), which kernel driver has one ([`bind`], [`unbind`]), and a [`Function`] for the driver to stand on
//! ([`open`]). Invariants: a controller that is in use is never taken; an environment without an IOMMU is used only
//! when it is asked for by name; a device that vanishes ends no process. Callers are `driver`'s users (the block
//! devices) and `sledge setup`.

mod address;
mod address_space;
mod arena;
mod binding;
mod bus_error;
mod closing;
mod config_space;
mod device;
#[cfg(feature = "dpdk")]
mod dpdk;
mod hotplug;
pub mod hugepages;
mod iova;
mod open_error;
mod pci_function;
mod physical;
mod reach;
mod system;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod uio;
mod usage;
mod vfio;
mod window;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::function::Function;

pub use address::{NoPciAddress, PciAddress};
pub use binding::{BindError, Bound, UIO_PCI_GENERIC, VFIO_PCI, bind, unbind};
pub use device::{PciDevice, list};
pub use hotplug::{Change, Watch};
pub use open_error::OpenError;
pub use system::{FileError, System};
pub use usage::BlockDevice;

/// A way to drive a PCI function from user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnvironmentKind {
    /// VFIO: the IOMMU keeps the device to the memory that is mapped for it.
    #[default]
    Vfio,
    /// `uio_pci_generic`: nothing guards memory. Only when asked for by name.
    UioPciGeneric,
    /// VFIO without an IOMMU: nothing guards memory. Only when asked for by name.
    VfioNoIommu,
    /// DPDK: its EAL's memory and its VFIO container. In programs built with the feature `dpdk`.
    Dpdk,
}

impl EnvironmentKind {
    /// The kernel driver that must have the function.
    #[must_use]
    pub fn driver(self) -> &'static str {
        match self {
            EnvironmentKind::Vfio | EnvironmentKind::VfioNoIommu | EnvironmentKind::Dpdk => VFIO_PCI,
            EnvironmentKind::UioPciGeneric => UIO_PCI_GENERIC,
        }
    }
}

impl fmt::Display for EnvironmentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EnvironmentKind::Vfio => "vfio",
            EnvironmentKind::UioPciGeneric => "uio_pci_generic",
            EnvironmentKind::VfioNoIommu => "vfio-noiommu",
            EnvironmentKind::Dpdk => "dpdk",
        })
    }
}

/// A name is none of an environment's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no environment; there are vfio, uio_pci_generic, vfio-noiommu and dpdk")]
pub struct NoEnvironment(String);

impl FromStr for EnvironmentKind {
    type Err = NoEnvironment;

    fn from_str(text: &str) -> Result<Self, NoEnvironment> {
        match text {
            "vfio" => Ok(EnvironmentKind::Vfio),
            "uio_pci_generic" => Ok(EnvironmentKind::UioPciGeneric),
            "vfio-noiommu" => Ok(EnvironmentKind::VfioNoIommu),
            "dpdk" => Ok(EnvironmentKind::Dpdk),
            other => Err(NoEnvironment(other.to_owned())),
        }
    }
}

/// Opens an NVMe controller that [`bind`] has given to the environment's driver. DMA is off. Blocks, for seconds when this
/// process has just let go of the same controller.
///
/// # Errors
/// Why it can't be driven, with what to do about it.
pub fn open(address: &PciAddress, kind: EnvironmentKind) -> Result<Arc<dyn Function>, OpenError> {
    open_on(&System::host(), *address, kind)
}

/// [`open`] on a machine that may be a tree of files.
///
/// # Errors
/// As [`open`].
pub fn open_on(
    system: &System,
    address: PciAddress,
    kind: EnvironmentKind,
) -> Result<Arc<dyn Function>, OpenError> {
    let folder = system.function(&address);
    let class = system::number(&folder.join("class"));
    if class.is_none_or(|class| class >> 8 != 0x0108) {
        return Err(OpenError::NoController(address));
    }
    if kind == EnvironmentKind::Vfio && device::iommu_group(&folder).is_none() {
        return Err(OpenError::NoIommu(address));
    }
    let driver = usage::driver(&folder);
    if driver.as_deref() != Some(kind.driver()) {
        let option = if kind == EnvironmentKind::UioPciGeneric { " --driver uio_pci_generic" } else { "" };
        return Err(OpenError::WrongDriver { address, driver, option });
    }
    // If it is still being closed after that, the kernel says so.
    closing::wait(&address.to_string(), closing::MOST_WAIT);
    let function = match kind {
        EnvironmentKind::Vfio => vfio::open(system, address)?,
        EnvironmentKind::UioPciGeneric => uio::open(system, address)?,
        EnvironmentKind::VfioNoIommu => vfio::open_unguarded(system, address)?,
        #[cfg(feature = "dpdk")]
        EnvironmentKind::Dpdk => dpdk::open(system, address)?,
        #[cfg(not(feature = "dpdk"))]
        EnvironmentKind::Dpdk => return Err(OpenError::NoDpdk),
    };
    Ok(Arc::new(closing::Closing::new(function)))
}
