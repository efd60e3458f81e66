//! Why a function can't be driven, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use super::PciAddress;
use super::system::FileError;

/// Why a function could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such controller.
    #[error("{0} is no NVMe controller; `sledge setup status` lists them")]
    NoController(PciAddress),
    /// Another driver has it.
    #[error("{address} is with {}; `sledge setup bind{option} {address}` takes it", driver.as_deref().unwrap_or("no driver"))]
    WrongDriver {
        /// The function.
        address: PciAddress,
        /// Who has it.
        driver: Option<String>,
        /// What to say besides.
        option: &'static str,
    },
    /// VFIO needs an IOMMU.
    #[error(
        "no IOMMU guards {0}: turn it on in the firmware (VT-d, AMD-Vi) and, on Intel, boot the kernel with \
         intel_iommu=on; or ask for uio_pci_generic by name"
    )]
    NoIommu(PciAddress),
    /// An IOMMU would block all that an unguarded driver does.
    #[error("an IOMMU translates for {0}, so only VFIO can drive it: `sledge setup bind {0}`")]
    Translated(PciAddress),
    /// A part of the IOMMU group is the kernel's.
    #[error(
        "not all functions of {group} are VFIO's: bind the others, too; \
         /sys/kernel/iommu_groups lists the members of a group"
    )]
    NotViable {
        /// The group's device file.
        group: String,
    },
    /// Another process has it.
    #[error("another process has {} open; a device has one driver", .0.display())]
    Busy(PathBuf),
    /// This process may not.
    #[error("no access to {}: run the target as root, or let its user own that file", .0.display())]
    Denied(PathBuf),
    /// A device file is missing.
    #[error("there is no {}: {advice}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What makes it.
        advice: &'static str,
    },
    /// The kernel lacks something.
    #[error("this kernel can't: {0}")]
    Kernel(&'static str),
    /// The kernel refused a step.
    #[error("can't {step}: {source}; the kernel's log (`dmesg`) may say why")]
    Refused {
        /// The step.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
    /// DPDK would not start.
    #[cfg(feature = "dpdk")]
    #[error(transparent)]
    Dpdk(#[from] crate::dpdk::EalError),
    /// This program has no DPDK.
    #[cfg(not(feature = "dpdk"))]
    #[error("this program was built without DPDK; build it with `--features dpdk`")]
    NoDpdk,
    /// A file of the kernel's.
    #[error(transparent)]
    File(#[from] FileError),
}

impl OpenError {
    /// What it means that a device file can't be opened.
    pub(super) fn of_file(path: &Path, error: io::Error) -> OpenError {
        let path = path.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => {
                let uio = path.to_string_lossy().contains("uio");
                let advice = if uio { "`modprobe uio_pci_generic`" } else { "`modprobe vfio-pci`" };
                OpenError::Missing { path, advice }
            }
            io::ErrorKind::PermissionDenied => OpenError::Denied(path),
            io::ErrorKind::ResourceBusy => OpenError::Busy(path),
            _ => OpenError::File(FileError { path, source: error }),
        }
    }
}

/// Names the step that failed.
pub(super) trait Step<T> {
    /// The value, or that `step` failed.
    fn step(self, step: &'static str) -> Result<T, OpenError>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: &'static str) -> Result<T, OpenError> {
        self.map_err(|source| OpenError::Refused { step, source })
    }
}
