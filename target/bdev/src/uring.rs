//! The file device: blocks in a file or on a kernel block device, through the reactor's io_uring.
//!
//! Opened without the page cache where the file system can, so a completed write survives this process; what a
//! power cut takes is decided by the disk's own cache, hence a real flush. Deallocate punches holes in a file and
//! discards on a block device, which is opened for this process alone. `task` owns one command's steps, `channel` the queue and what commands wait for.

mod abandoned;
mod channel;
mod hold;
mod status;
mod task;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use sledge_nvme::io::{Channel, Geometry, Operation};
use sledge_reactor::disk::{Disk, DiskOptions};
use uuid::Uuid;

use crate::device::{BlockDevice, Description, DeviceError, UndoResize, check_growth, check_shape};
use crate::gate::Gate;
use crate::statistics::DeviceCounters;
use channel::UringChannel;
use hold::Hold;

/// Parameters of `bdev_uring_create`.
#[derive(Clone, Debug)]
pub struct UringOptions {
    /// Name.
    pub name: String,
    /// File or block device.
    pub filename: PathBuf,
    /// Bytes of a block: 512 or 4096; the disk's own when not given.
    pub block_size: Option<u32>,
    /// Identity; random when not given. Give the same after a restart, or hosts take it for another disk.
    pub uuid: Option<Uuid>,
    /// Create the file, sparse, with this many bytes if it does not exist.
    pub create_bytes: Option<u64>,
}

/// A device on a file or kernel block device.
pub struct UringDevice {
    name: String,
    uuid: Uuid,
    filename: PathBuf,
    identity: Option<(u64, u64)>,
    _hold: Option<Hold>,
    /// Replaced when the file has grown; channels keep what they were opened with.
    shared: RwLock<Arc<Shared>>,
    counters: Arc<DeviceCounters>,
}

/// What all channels of a device use.
struct Shared {
    name: String,
    disk: Disk,
    geometry: Geometry,
    /// One for the device's whole life, so that commands of older and newer channels order each other.
    gate: Arc<Gate>,
}

impl UringDevice {
    /// Opens the file. Blocks: call it from the management side.
    ///
    /// # Errors
    /// The file can't be opened or is in use, or the block size is not the disk's or a multiple of it.
    pub fn open(options: UringOptions) -> Result<UringDevice, DeviceError> {
        let UringOptions { name, filename, block_size, uuid, create_bytes } = options;
        // What is wrong with the name is said before a file is made.
        check_shape(&name, 1, block_size.unwrap_or(512))?;
        let disk = open_disk(&name, &filename, create_bytes)?;
        let hold =
            Hold::take(&filename).map_err(|source| DeviceError::Open { name: name.clone(), source })?;
        let disk_block = disk.block_bytes();
        let block_size = block_size.unwrap_or(disk_block.max(512));
        if block_size < disk_block || !block_size.is_multiple_of(disk_block.max(1)) {
            return Err(DeviceError::Parameter {
                name,
                parameter: "block_size",
                problem: format!(
                    "is {block_size}, but the disk has blocks of {disk_block} bytes: use {disk_block}"
                ),
            });
        }
        let geometry = geometry(&name, &filename, &disk, block_size)?;
        let shared = Shared { name: name.clone(), disk, geometry, gate: Arc::new(Gate::hashed()) };
        let uuid = uuid.unwrap_or_else(Uuid::new_v4);
        let shared = RwLock::new(Arc::new(shared));
        let identity = identity(&filename);
        Ok(UringDevice { name, uuid, filename, identity, _hold: hold, shared, counters: Arc::default() })
    }

    /// Looks at the size of the file again, which may have grown. Channels that are open keep the size that they
    /// were opened with. Blocks: call it from the management side.
    ///
    /// # Errors
    /// The file is gone or another one, has become smaller, or its blocks larger.
    pub fn rescan(self: &Arc<Self>) -> Result<UndoResize, DeviceError> {
        let old = self.shared();
        let disk = (old.disk.measured_again())
            .map_err(|source| DeviceError::Open { name: self.name.clone(), source })?;
        let now = if identity(&self.filename) != self.identity {
            "is another file now"
        } else if disk.block_bytes() > old.geometry.block_bytes {
            "has larger blocks now"
        } else {
            ""
        };
        if !now.is_empty() {
            return Err(DeviceError::Parameter {
                name: self.name.clone(),
                parameter: "name",
                problem: format!(
                    "stands on {}, which {now}: delete the device and create it again",
                    self.filename.display()
                ),
            });
        }
        let geometry = geometry(&self.name, &self.filename, &disk, old.geometry.block_bytes)?;
        check_growth(&self.name, "name", old.geometry.blocks, geometry.blocks)?;
        let new = Shared { name: self.name.clone(), disk, geometry, gate: old.gate.clone() };
        self.share(Arc::new(new));
        let device = Arc::clone(self);
        Ok(Box::new(move || device.share(old)))
    }

    fn share(&self, shared: Arc<Shared>) {
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = shared;
    }

    fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What tells a file from others: device and inode. In the simulator's world there is neither.
fn identity(filename: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(filename).ok().map(|found| (found.dev(), found.ino()))
}

fn open_disk(name: &str, filename: &Path, create_bytes: Option<u64>) -> Result<Disk, DeviceError> {
    Disk::open(filename, DiskOptions { read_only: false, create_bytes, direct: true })
        .map_err(|source| DeviceError::Open { name: name.to_owned(), source })
}

/// The shape that a disk gives a device with blocks of `block_size`.
fn geometry(name: &str, filename: &Path, disk: &Disk, block_size: u32) -> Result<Geometry, DeviceError> {
    let blocks = disk.len_bytes() / u64::from(block_size);
    if blocks == 0 {
        return Err(DeviceError::Parameter {
            name: name.to_owned(),
            parameter: "filename",
            problem: format!(
                "{} has {} bytes, less than one block: give it a size first (truncate -s 1G …)",
                filename.display(),
                disk.len_bytes()
            ),
        });
    }
    check_shape(name, blocks, block_size)?;
    let mut geometry = Geometry::new(blocks, block_size);
    // File systems and disks work in pages, whatever the smallest block.
    geometry.optimal_io_blocks = 4096 / block_size;
    Ok(geometry)
}

impl BlockDevice for UringDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn product(&self) -> &'static str {
        "URING bdev"
    }

    fn geometry(&self) -> Geometry {
        self.shared().geometry
    }

    fn supports(&self, _operation: Operation) -> bool {
        true
    }

    fn volatile_write_cache(&self) -> bool {
        true
    }

    fn deallocated_reads_zeroes(&self) -> bool {
        self.shared().disk.discarded_reads_zeroes()
    }

    fn open_channel(&self) -> Result<Box<dyn Channel>, DeviceError> {
        let channel = UringChannel::open(self.shared(), self.counters.open())
            .map_err(|source| DeviceError::Channel { name: self.name.clone(), source })?;
        Ok(Box::new(channel))
    }

    fn description(&self) -> Description {
        Description::Uring { filename: self.filename.clone() }
    }

    fn counters(&self) -> &DeviceCounters {
        &self.counters
    }
}
