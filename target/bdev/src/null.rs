//! The null device: reads give zeroes out of one shared region, writes are forgotten.
//!
//! It shows what everything above costs. Invariant: no command waits and no data is copied, but into buffers that
//! the reader brings. Stateless, so it needs no gate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sledge_nvme::Status;
use sledge_nvme::io::{Channel, Geometry, IoCommand, IoCompletion, Operation, Submitted};
use uuid::Uuid;

use crate::command;
use crate::device::{BlockDevice, Description, DeviceError, UndoResize, check_growth, check_shape};
use crate::statistics::{ChannelCounters, DeviceCounters};
use crate::zero::{ZERO_BYTES, Zeroes};

/// Parameters of `bdev_null_create`.
#[derive(Clone, Debug)]
pub struct NullOptions {
    /// Name.
    pub name: String,
    /// Identity; random when not given.
    pub uuid: Option<Uuid>,
    /// Size in blocks.
    pub num_blocks: u64,
    /// Bytes of a block: 512 or 4096.
    pub block_size: u32,
}

/// A device of zeroes.
pub struct NullDevice {
    name: String,
    uuid: Uuid,
    blocks: AtomicU64,
    block_bytes: u32,
    counters: Arc<DeviceCounters>,
}

impl NullDevice {
    /// Makes the device.
    ///
    /// # Errors
    /// A parameter can't be.
    pub fn new(options: NullOptions) -> Result<NullDevice, DeviceError> {
        let NullOptions { name, uuid, num_blocks, block_size } = options;
        check_shape(&name, num_blocks, block_size)?;
        Ok(NullDevice {
            name,
            uuid: uuid.unwrap_or_else(Uuid::new_v4),
            blocks: AtomicU64::new(num_blocks),
            block_bytes: block_size,
            counters: Arc::default(),
        })
    }

    /// Makes the device larger. Channels that are open keep the size that they were opened with.
    ///
    /// # Errors
    /// The device would be smaller than it is, which those who use it do not expect, or too large.
    pub fn resize(self: &Arc<Self>, num_blocks: u64) -> Result<UndoResize, DeviceError> {
        check_shape(&self.name, num_blocks, self.block_bytes)?;
        let before = self.blocks.load(Ordering::Relaxed);
        check_growth(&self.name, "new_size", before, num_blocks)?;
        self.blocks.store(num_blocks, Ordering::Relaxed);
        let device = Arc::clone(self);
        Ok(Box::new(move || device.blocks.store(before, Ordering::Relaxed)))
    }
}

impl BlockDevice for NullDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn product(&self) -> &'static str {
        "Null disk"
    }

    fn geometry(&self) -> Geometry {
        Geometry::new(self.blocks.load(Ordering::Relaxed), self.block_bytes)
    }

    fn supports(&self, operation: Operation) -> bool {
        !matches!(operation, Operation::Compare | Operation::CompareAndWrite)
    }

    fn volatile_write_cache(&self) -> bool {
        false
    }

    fn open_channel(&self) -> Result<Box<dyn Channel>, DeviceError> {
        let zeroes =
            Zeroes::open().map_err(|source| DeviceError::Channel { name: self.name.clone(), source })?;
        Ok(Box::new(NullChannel { geometry: self.geometry(), zeroes, counters: self.counters.open() }))
    }

    fn description(&self) -> Description {
        Description::Null {}
    }

    fn counters(&self) -> &DeviceCounters {
        &self.counters
    }
}

struct NullChannel {
    geometry: Geometry,
    zeroes: Zeroes,
    counters: ChannelCounters,
}

impl NullChannel {
    /// Does a command of `bytes` bytes.
    fn run(&self, io: &mut IoCommand, bytes: u64) -> Result<(), Status> {
        command::check(io, &self.geometry)?;
        match io.operation {
            Operation::Read => self.read(io, bytes as usize),
            Operation::Compare | Operation::CompareAndWrite => Err(Status::INVALID_OPCODE.do_not_retry()),
            _ => Ok(()),
        }
    }

    fn read(&self, io: &mut IoCommand, len: usize) -> Result<(), Status> {
        if io.data.is_empty() {
            io.data = self.zeroes.lend_all(len).ok_or(Status::INVALID_FIELD.do_not_retry())?;
            return Ok(());
        }
        let mut filled = 0;
        while filled < len {
            let part = (len - filled).min(ZERO_BYTES);
            if io.data.copy_from(filled, &self.zeroes.bytes()[..part]) != part {
                return Err(Status::INVALID_FIELD.do_not_retry());
            }
            filled += part;
        }
        Ok(())
    }
}

impl Channel for NullChannel {
    fn submit(&mut self, mut io: IoCommand) -> Submitted {
        let (_, bytes) = command::byte_range(&io, &self.geometry);
        let status = self.run(&mut io, bytes).err().unwrap_or(Status::SUCCESS);
        self.counters.count_at_once(io.operation, bytes, status);
        Submitted::Done(io.complete(status))
    }

    fn poll(&mut self, _done: &mut Vec<IoCompletion>) {}

    fn outstanding(&self) -> usize {
        0
    }

    fn takes_data_at_once(&self) -> bool {
        true
    }

    fn needs_polling(&self) -> bool {
        false
    }
}
