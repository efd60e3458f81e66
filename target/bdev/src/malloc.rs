//! The memory device: blocks in anonymous memory of this process.
//!
//! Reads lend the device's own memory, under a share of its gate until the loan is dropped, so a socket sends
//! straight from it; writes copy into it, alone in their range. Memory is taken as it is first written, by 2 MiB where the
//! kernel has transparent huge pages, and really given back by deallocate, but for reserved huge pages. `memory` owns the
//! bytes, `channel` the path of a command, `stream` the copying.

mod channel;
mod memory;
mod stream;

use std::sync::Arc;

use sledge_nvme::io::{Channel, Geometry, Operation};
use uuid::Uuid;

use crate::device::{BlockDevice, Description, DeviceError, check_shape};
use crate::statistics::DeviceCounters;
use channel::MallocChannel;
use memory::Memory;

/// Parameters of `bdev_malloc_create`.
#[derive(Clone, Debug)]
pub struct MallocOptions {
    /// Name.
    pub name: String,
    /// Identity; random when not given.
    pub uuid: Option<Uuid>,
    /// Size in blocks.
    pub num_blocks: u64,
    /// Bytes of a block: 512 or 4096.
    pub block_size: u32,
    /// Best I/O size in blocks, as told to hosts; 0 for none.
    pub optimal_io_boundary: u32,
    /// Use reserved huge pages if there are enough, which stay the device's whatever is deallocated. Else they are
    /// transparent ones, where the kernel has them, and memory is taken in units of 2 MiB all the same.
    pub hugepages: bool,
}

/// A device in memory.
pub struct MallocDevice {
    name: String,
    uuid: Uuid,
    geometry: Geometry,
    hugepages: bool,
    memory: Arc<Memory>,
    counters: Arc<DeviceCounters>,
}

impl MallocDevice {
    /// Makes the device, all zeroes.
    ///
    /// # Errors
    /// A parameter can't be, or the kernel refuses that much memory.
    pub fn new(options: MallocOptions) -> Result<MallocDevice, DeviceError> {
        let MallocOptions { name, uuid, num_blocks, block_size, optimal_io_boundary, hugepages } = options;
        check_shape(&name, num_blocks, block_size)?;
        let mut geometry = Geometry::new(num_blocks, block_size);
        geometry.optimal_io_blocks = optimal_io_boundary;
        let bytes = geometry.bytes();
        let memory = Memory::new(bytes, hugepages).map_err(|source| DeviceError::Memory {
            name: name.clone(),
            bytes,
            source,
        })?;
        Ok(MallocDevice {
            name,
            uuid: uuid.unwrap_or_else(Uuid::new_v4),
            geometry,
            hugepages,
            memory: Arc::new(memory),
            counters: Arc::default(),
        })
    }
}

impl BlockDevice for MallocDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn product(&self) -> &'static str {
        "Malloc disk"
    }

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn supports(&self, _operation: Operation) -> bool {
        true
    }

    fn volatile_write_cache(&self) -> bool {
        false
    }

    fn open_channel(&self) -> Result<Box<dyn Channel>, DeviceError> {
        Ok(Box::new(MallocChannel::new(self.memory.clone(), self.geometry, self.counters.open())))
    }

    fn description(&self) -> Description {
        Description::Malloc { hugepages: self.hugepages }
    }

    fn counters(&self) -> &DeviceCounters {
        &self.counters
    }
}
