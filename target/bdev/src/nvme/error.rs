//! Why something asked of NVMe controllers failed.

use std::time::Duration;

use sledge_nvme::driver::DriverError;
use sledge_nvmf::host::HostError;
use sledge_reactor::message::ReactorGone;

use crate::device::DeviceError;

/// Why a controller could not be attached, found, changed or detached.
#[derive(Debug, thiserror::Error)]
pub enum NvmeError {
    /// There is no controller of that name.
    #[error("there is no NVMe controller named {name}: list them with bdev_nvme_get_controllers")]
    NotFound {
        /// The name.
        name: String,
    },
    /// There is no such path.
    #[error("NVMe controller {name} has no such path: list them with bdev_nvme_get_controllers")]
    NoSuchPath {
        /// The controller.
        name: String,
    },
    /// The name is in use and more paths are not wanted.
    #[error("a controller named {name} exists already and multipath is disabled")]
    Exists {
        /// The name.
        name: String,
    },
    /// The path is there already.
    #[error("a controller named {name} exists already with the specified network path")]
    PathExists {
        /// The name.
        name: String,
    },
    /// A parameter can't be.
    #[error("NVMe controller {name}: {parameter} {problem}")]
    Parameter {
        /// The controller.
        name: String,
        /// The parameter, as the management interface names it.
        parameter: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The path leads to something else than the paths that are there.
    #[error("NVMe controller {name}: {to} is not another path to the same: {problem}")]
    Differs {
        /// The controller.
        name: String,
        /// The path.
        to: String,
        /// What differs.
        problem: String,
    },
    /// The controller can't be reached, or refuses.
    #[error("can't attach {to}: {source}")]
    Host {
        /// The path.
        to: String,
        /// Why.
        source: HostError,
    },
    /// The drive does not come up, or fails what it is asked.
    #[error("can't use {to}: {source}")]
    Drive {
        /// Which.
        to: String,
        /// Why.
        source: DriverError,
    },
    /// The drive can't be opened.
    #[error("can't open {to}: {reason}")]
    Open {
        /// Which.
        to: String,
        /// Why, with what to do about it.
        reason: String,
    },
    /// It took too long.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What.
        what: String,
        /// How long it was waited.
        limit: Duration,
    },
    /// One of its devices is in use.
    #[error("{0}")]
    Device(#[from] DeviceError),
    /// The controller is not connected at this moment.
    #[error("NVMe controller {name} is not connected")]
    NotConnected {
        /// The controller.
        name: String,
    },
    /// A reactor has ended.
    #[error("a reactor has ended")]
    Gone(#[from] ReactorGone),
    /// Reactors don't run yet.
    #[error("the target does not run yet")]
    NotStarted,
}

impl NvmeError {
    /// The positive Linux error number that a management client gets for it.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            NvmeError::NotFound { .. } | NvmeError::NoSuchPath { .. } => libc::ENODEV,
            NvmeError::Exists { .. } | NvmeError::PathExists { .. } => libc::EALREADY,
            NvmeError::Parameter { .. } | NvmeError::Differs { .. } => libc::EINVAL,
            NvmeError::Timeout { .. } => libc::ETIMEDOUT,
            NvmeError::NotConnected { .. } => libc::ENXIO,
            NvmeError::Device(error) => error.errno(),
            NvmeError::NotStarted => libc::EAGAIN,
            NvmeError::Gone(_) => libc::EIO,
            NvmeError::Open { .. } => libc::ENODEV,
            NvmeError::Drive { source, .. } => match source {
                DriverError::Timeout { .. } => libc::ETIMEDOUT,
                DriverError::Removed | DriverError::Detached => libc::ENXIO,
                DriverError::NotReady(_) | DriverError::QueueFull => libc::EAGAIN,
                DriverError::Unsupported(_) => libc::EOPNOTSUPP,
                DriverError::Option(_) => libc::EINVAL,
                _ => libc::EIO,
            },
            NvmeError::Host { source, .. } => match source {
                HostError::Connect { source, .. } => source.raw_os_error().unwrap_or(libc::ENOTCONN),
                HostError::Timeout { .. } => libc::ETIMEDOUT,
                HostError::Refused { .. } => libc::ECONNREFUSED,
                HostError::Option(_) => libc::EINVAL,
                HostError::Unsupported(_) => libc::EOPNOTSUPP,
                _ => libc::EIO,
            },
        }
    }
}
