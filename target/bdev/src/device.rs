//! The block device: anything with blocks that a namespace, or another device, can stand on.
//!
//! Owns the trait [`BlockDevice`], what a device tells about itself, and [`DeviceError`]. Invariant: a device may
//! be used from all reactors at once, each through channels of its own ([`BlockDevice::open_channel`]); a device
//! lives until its last channel is gone. Devices are made by the management side and held in a
//! [`Registry`](crate::Registry).

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use sledge_nvme::io::{Channel, Geometry, Operation};
use uuid::Uuid;

pub use crate::statistics::{DeviceCounters, DeviceStatistics, OperationStatistics};

/// Something with blocks.
///
/// What a name promises: each single block is never torn (a read gives it as one write left it), and
/// compare-and-write is atomic over its whole range, across all channels on all reactors.
pub trait BlockDevice: Any + Send + Sync {
    /// Its name in the registry.
    fn name(&self) -> &str;

    /// Its identity, as hosts see it.
    fn uuid(&self) -> Uuid;

    /// What kind of device it is, in the words that management clients know ("Malloc disk").
    fn product(&self) -> &'static str;

    /// Its size and block size.
    fn geometry(&self) -> Geometry;

    /// Whether it can do an operation.
    fn supports(&self, operation: Operation) -> bool;

    /// Whether a completed write may be lost in a power cut until a flush or FUA makes it durable.
    fn volatile_write_cache(&self) -> bool;

    /// Whether deallocated blocks read as zeroes; if not, they read as anything.
    fn deallocated_reads_zeroes(&self) -> bool {
        true
    }

    /// Opens a channel on the current reactor, where it stays.
    ///
    /// # Errors
    /// When the reactor can't get what the channel needs.
    fn open_channel(&self) -> Result<Box<dyn Channel>, DeviceError>;

    /// What is particular to its kind.
    fn description(&self) -> Description;

    /// What its channels count.
    fn counters(&self) -> &DeviceCounters;

    /// What it has done, over all channels.
    fn statistics(&self) -> DeviceStatistics {
        self.counters().sum()
    }

    /// The names that hosts know the namespace behind it by already, for one that has such names.
    fn namespace_identity(&self) -> Option<crate::nvme::Identity> {
        None
    }

    /// The device below, for one that stands on another.
    fn lower(&self) -> Option<Arc<dyn BlockDevice>> {
        None
    }
}

impl std::fmt::Debug for dyn BlockDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockDevice").field("name", &self.name()).field("product", &self.product()).finish()
    }
}

/// Gives a device the size back that it had; for a change that is not made after all.
pub type UndoResize = Box<dyn FnOnce() + Send>;

/// What is particular to a kind of device; serialised, it is the `driver_specific` of `bdev_get_bdevs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Description {
    /// Reads zeroes, forgets writes.
    Null {},
    /// Memory.
    Malloc {
        /// Whether it asked for huge pages.
        hugepages: bool,
    },
    /// A file or a kernel block device.
    Uring {
        /// Path as given.
        filename: PathBuf,
    },
    /// Adds latency.
    Delay {
        /// Its own name.
        name: String,
        /// The device below.
        base_bdev_name: String,
        /// Latencies.
        #[serde(flatten)]
        latencies: crate::delay::Latencies,
    },
    /// Injects errors.
    Error {
        /// Its own name.
        name: String,
        /// The device below.
        base_bdev: String,
    },
    /// A namespace of an NVMe controller.
    #[serde(untagged)]
    Nvme(crate::nvme::report::NvmeDescription),
}

/// Why a device could not be made, found, used or removed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The name is in use.
    #[error("a device named {name} exists already: choose another name, or delete that one first")]
    Exists {
        /// The name.
        name: String,
    },
    /// The UUID is in use.
    #[error("device {name} can't have UUID {uuid}: device {other} has it already; give another, or none")]
    UuidExists {
        /// The new device.
        name: String,
        /// The UUID.
        uuid: Uuid,
        /// The device that has it.
        other: String,
    },
    /// There is no such device.
    #[error("there is no device named {name}: list them with bdev_get_bdevs")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The device is of another kind.
    #[error("device {name} is a {product}, which this does not apply to")]
    WrongKind {
        /// The name.
        name: String,
        /// What it is.
        product: &'static str,
    },
    /// Something uses the device.
    #[error("device {name} is in use by {by}: remove that first")]
    InUse {
        /// The device.
        name: String,
        /// Who uses it.
        by: String,
    },
    /// A parameter can't be.
    #[error("device {name}: {parameter} {problem}")]
    Parameter {
        /// The device.
        name: String,
        /// The parameter, as the management interface names it.
        parameter: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The file could not be opened; the reason names it.
    #[error("device {name}: can't open its file: {source}")]
    Open {
        /// The device.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// There is not enough memory.
    #[error("device {name}: can't get {bytes} bytes of memory ({source}): make it smaller, or use a file")]
    Memory {
        /// The device.
        name: String,
        /// Bytes asked for.
        bytes: u64,
        /// Why.
        source: io::Error,
    },
    /// A reactor could not open a channel.
    #[error("device {name}: can't open a channel: {source}")]
    Channel {
        /// The device.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl DeviceError {
    /// The positive Linux error number that a management client gets for it.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            DeviceError::Exists { .. } | DeviceError::UuidExists { .. } => libc::EEXIST,
            DeviceError::NotFound { .. } => libc::ENODEV,
            DeviceError::WrongKind { .. } | DeviceError::Parameter { .. } => libc::EINVAL,
            DeviceError::InUse { .. } => libc::EBUSY,
            DeviceError::Memory { .. } => libc::ENOMEM,
            DeviceError::Open { source, .. } | DeviceError::Channel { source, .. } => {
                source.raw_os_error().unwrap_or(match source.kind() {
                    io::ErrorKind::NotFound => libc::ENOENT,
                    io::ErrorKind::PermissionDenied => libc::EACCES,
                    io::ErrorKind::ResourceBusy => libc::EBUSY,
                    io::ErrorKind::OutOfMemory => libc::ENOMEM,
                    io::ErrorKind::InvalidInput => libc::EINVAL,
                    io::ErrorKind::ReadOnlyFilesystem => libc::EROFS,
                    io::ErrorKind::StorageFull => libc::ENOSPC,
                    _ => libc::EIO,
                })
            }
        }
    }
}

/// Longest name of a device, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// Checks that a device does not shrink.
pub(crate) fn check_growth(
    name: &str,
    parameter: &'static str,
    blocks: u64,
    wanted: u64,
) -> Result<(), DeviceError> {
    if wanted >= blocks {
        return Ok(());
    }
    Err(DeviceError::Parameter {
        name: name.to_owned(),
        parameter,
        problem: format!("gives {wanted} blocks, but the device has {blocks} and can only grow"),
    })
}

/// Checks what all devices have in common: name, block size, size.
pub(crate) fn check_shape(name: &str, blocks: u64, block_size: u32) -> Result<(), DeviceError> {
    let fail = |parameter, problem: String| {
        Err(DeviceError::Parameter { name: name.to_owned(), parameter, problem })
    };
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return fail("name", format!("must have 1 to {MAX_NAME_BYTES} bytes"));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return fail("name", "must not contain spaces or control characters".to_owned());
    }
    if block_size != 512 && block_size != 4096 {
        return fail("block_size", format!("is {block_size}: it must be 512 or 4096"));
    }
    if blocks == 0 {
        return fail("num_blocks", "is 0: a device needs at least one block".to_owned());
    }
    if blocks.checked_mul(u64::from(block_size)).is_none_or(|bytes| bytes > i64::MAX as u64) {
        return fail("num_blocks", format!("is {blocks}: no device can be that large"));
    }
    Ok(())
}
