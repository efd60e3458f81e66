//! The error device: lets a person break commands on another device on purpose.
//!
//! What is injected is set from any thread and holds for all channels: the next `num` commands of a kind fail, hang
//! or have their data corrupted. Invariant: each injection hits exactly `num` commands over all reactors.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sledge_nvme::Status;
use sledge_nvme::io::{Channel, Geometry, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::memory::Segments;
use uuid::Uuid;

use crate::command::{self, BUSY};
use crate::device::{BlockDevice, Description, DeviceError, check_shape};
use crate::relay::Relay;
use crate::statistics::DeviceCounters;

/// Kinds of command that errors are injected into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoType {
    /// Reads and verifies.
    Read,
    /// Writes.
    Write,
    /// Deallocations.
    Unmap,
    /// Flushes.
    Flush,
    /// Write-zeroes commands.
    WriteZeroes,
    /// Compares, and compare-and-writes.
    Compare,
}

impl IoType {
    /// Every kind.
    pub const ALL: [IoType; 6] =
        [IoType::Read, IoType::Write, IoType::Unmap, IoType::Flush, IoType::WriteZeroes, IoType::Compare];

    /// The kinds that a name of `bdev_error_inject_error` stands for: one, or all.
    #[must_use]
    pub fn from_name(name: &str) -> Option<&'static [IoType]> {
        Some(match name {
            "read" => &[IoType::Read],
            "write" => &[IoType::Write],
            "unmap" => &[IoType::Unmap],
            "flush" => &[IoType::Flush],
            "write_zeroes" => &[IoType::WriteZeroes],
            "compare" => &[IoType::Compare],
            "all" => &IoType::ALL,
            _ => return None,
        })
    }

    fn of(operation: Operation) -> IoType {
        match operation {
            Operation::Read | Operation::Verify => IoType::Read,
            Operation::Write => IoType::Write,
            Operation::Deallocate => IoType::Unmap,
            Operation::Flush => IoType::Flush,
            Operation::WriteZeroes { .. } => IoType::WriteZeroes,
            Operation::Compare | Operation::CompareAndWrite => IoType::Compare,
        }
    }
}

/// What happens to a command that is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// `failure`: it fails as if the medium did.
    Failure,
    /// `nvme_failure`: it fails with this status.
    NvmeFailure(Status),
    /// `nomem`: it is refused, to be retried.
    NoMemory,
    /// `pending`: it hangs until [`ErrorDevice::resume_pending`].
    Pending,
    /// `corrupt_data`: one byte of what is read or written is changed. Other commands pass.
    CorruptData {
        /// Which byte of the command's data.
        offset: u64,
        /// What it is XORed with; not 0.
        value: u8,
    },
}

const FAILURE: u64 = 0;
const NVME_FAILURE: u64 = 1;
const NO_MEMORY: u64 = 2;
const PENDING: u64 = 3;
const CORRUPT: u64 = 4;

/// An injection in force, in words that reactors read without a lock.
#[derive(Debug, Default)]
struct Setting {
    /// Commands still to hit; written last.
    remaining: AtomicU64,
    /// Kind of injection (8 bits), corruption value (8), status (16), queue depth (32).
    what: AtomicU64,
    offset: AtomicU64,
}

impl Setting {
    fn set(&self, injection: Injection, num: u64, queue_depth: u32) {
        self.remaining.store(0, Ordering::Relaxed);
        let (kind, value, status, offset) = match injection {
            Injection::Failure => (FAILURE, 0, 0, 0),
            Injection::NvmeFailure(status) => (NVME_FAILURE, 0, status.bits(), 0),
            Injection::NoMemory => (NO_MEMORY, 0, 0, 0),
            Injection::Pending => (PENDING, 0, 0, 0),
            Injection::CorruptData { offset, value } => (CORRUPT, value, 0, offset),
        };
        let what = kind | u64::from(value) << 8 | u64::from(status) << 16 | u64::from(queue_depth) << 32;
        self.what.store(what, Ordering::Relaxed);
        self.offset.store(offset, Ordering::Relaxed);
        self.remaining.store(num, Ordering::Release);
    }

    /// The injection, if it hits a command that comes when `outstanding` others are under way on its channel.
    fn hit(&self, outstanding: usize) -> Option<Injection> {
        if self.remaining.load(Ordering::Acquire) == 0 {
            return None;
        }
        let (what, offset) = (self.what.load(Ordering::Relaxed), self.offset.load(Ordering::Relaxed));
        if (outstanding as u64) < what >> 32 {
            return None;
        }
        let take = |left: u64| left.checked_sub(1);
        self.remaining.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(match what & 0xff {
            FAILURE => Injection::Failure,
            NVME_FAILURE => Injection::NvmeFailure(Status::from_bits((what >> 16) as u16)),
            NO_MEMORY => Injection::NoMemory,
            PENDING => Injection::Pending,
            _ => Injection::CorruptData { offset, value: (what >> 8) as u8 },
        })
    }
}

#[derive(Debug, Default)]
struct Settings {
    by_type: [Setting; IoType::ALL.len()],
    /// How often pending commands were resumed.
    resumed: AtomicU64,
}

/// Parameters of `bdev_error_create`, but for the device below.
#[derive(Clone, Debug, Default)]
pub struct ErrorOptions {
    /// Name; `EE_` and the name of the device below when not given.
    pub name: Option<String>,
    /// Identity; random when not given.
    pub uuid: Option<Uuid>,
}

/// A device that fails when told to.
pub struct ErrorDevice {
    name: String,
    uuid: Uuid,
    base: Arc<dyn BlockDevice>,
    settings: Arc<Settings>,
    counters: Arc<DeviceCounters>,
}

impl ErrorDevice {
    /// Makes the device on `base`.
    ///
    /// # Errors
    /// A parameter can't be.
    pub fn new(base: Arc<dyn BlockDevice>, options: ErrorOptions) -> Result<ErrorDevice, DeviceError> {
        let name = options.name.unwrap_or_else(|| format!("EE_{}", base.name()));
        let Geometry { blocks, block_bytes, .. } = base.geometry();
        check_shape(&name, blocks, block_bytes)?;
        let uuid = options.uuid.unwrap_or_else(Uuid::new_v4);
        Ok(ErrorDevice { name, uuid, base, settings: Arc::default(), counters: Arc::default() })
    }

    /// Makes the next `num` commands of each of `types` misbehave, in place of what was set for them before. Only
    /// commands count that come when at least `queue_depth` others are under way on their channel.
    ///
    /// # Errors
    /// A corruption by 0 would change nothing.
    pub fn inject(
        &self,
        types: &[IoType],
        injection: Injection,
        num: u64,
        queue_depth: u32,
    ) -> Result<(), DeviceError> {
        if matches!(injection, Injection::CorruptData { value: 0, .. }) {
            return Err(DeviceError::Parameter {
                name: self.name.clone(),
                parameter: "corrupt_value",
                problem: "is 0, which corrupts nothing: give 1 to 255".to_owned(),
            });
        }
        for io_type in types {
            self.settings.by_type[*io_type as usize].set(injection, num, queue_depth);
        }
        Ok(())
    }

    /// Ends all injections. Pending commands stay pending.
    pub fn clear(&self) {
        for setting in &self.settings.by_type {
            setting.remaining.store(0, Ordering::Relaxed);
        }
    }

    /// Lets pending commands go on to the device below.
    pub fn resume_pending(&self) {
        self.settings.resumed.fetch_add(1, Ordering::Relaxed);
    }
}

impl BlockDevice for ErrorDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn product(&self) -> &'static str {
        "Error Injection Disk"
    }

    fn geometry(&self) -> Geometry {
        self.base.geometry()
    }

    fn supports(&self, operation: Operation) -> bool {
        self.base.supports(operation)
    }

    fn volatile_write_cache(&self) -> bool {
        self.base.volatile_write_cache()
    }

    fn deallocated_reads_zeroes(&self) -> bool {
        self.base.deallocated_reads_zeroes()
    }

    fn open_channel(&self) -> Result<Box<dyn Channel>, DeviceError> {
        let relay = Relay::new(self.base.open_channel()?, self.base.geometry(), self.counters.open());
        let resumed = self.settings.resumed.load(Ordering::Relaxed);
        Ok(Box::new(ErrorChannel {
            relay,
            settings: self.settings.clone(),
            pending: VecDeque::new(),
            resumed,
        }))
    }

    fn description(&self) -> Description {
        Description::Error { name: self.name.clone(), base_bdev: self.base.name().to_owned() }
    }

    fn counters(&self) -> &DeviceCounters {
        &self.counters
    }

    fn lower(&self) -> Option<Arc<dyn BlockDevice>> {
        Some(self.base.clone())
    }
}

/// What a read's data is corrupted by once it is there: offset and value.
type Corruption = Option<(u64, u8)>;

struct ErrorChannel {
    relay: Relay<Corruption>,
    settings: Arc<Settings>,
    pending: VecDeque<IoCommand>,
    /// Value of `settings.resumed` when `pending` was last let go.
    resumed: u64,
}

impl ErrorChannel {
    /// Ends a command here, with a status.
    fn fail(&mut self, io: IoCommand, status: Status) -> Submitted {
        match self.relay.answer(io.complete(status)) {
            Some((completion, _)) => Submitted::Done(completion),
            None => Submitted::Pending,
        }
    }

    fn send(&mut self, io: IoCommand) -> Submitted {
        match self.relay.send(io) {
            Some((completion, corruption)) => Submitted::Done(corrupt_read(completion, corruption)),
            None => Submitted::Pending,
        }
    }
}

impl Channel for ErrorChannel {
    fn submit(&mut self, mut io: IoCommand) -> Submitted {
        let setting = &self.settings.by_type[IoType::of(io.operation) as usize];
        let injection = setting.hit(self.relay.outstanding());
        let corruption = match injection {
            Some(Injection::CorruptData { offset, value }) => Some((offset, value)),
            _ => None,
        };
        let is_read = io.operation == Operation::Read;
        if let Err(status) = self.relay.accept(&mut io, corruption.filter(|_| is_read)) {
            return Submitted::Done(io.complete(status));
        }
        match (injection, corruption) {
            (Some(Injection::Failure), _) => {
                let status = if is_read || io.operation == Operation::Verify {
                    Status::UNRECOVERED_READ_ERROR
                } else {
                    Status::WRITE_FAULT
                };
                self.fail(io, status)
            }
            (Some(Injection::NvmeFailure(status)), _) => self.fail(io, status),
            (Some(Injection::NoMemory), _) => self.fail(io, BUSY),
            (Some(Injection::Pending), _) => {
                self.pending.push_back(io);
                Submitted::Pending
            }
            (_, Some((offset, value))) => {
                if is_read && io.data.is_empty() {
                    // Our own buffers: what the device below lends can't be changed.
                    let bytes = u64::from(io.blocks) << self.relay.geometry().block_shift();
                    match command::allocate(bytes) {
                        Ok(Some(data)) => io.data = data,
                        Ok(None) => return self.fail(io, BUSY),
                        Err(status) => return self.fail(io, status),
                    }
                } else if !is_read {
                    corrupt(&mut io.data, offset, value);
                }
                self.send(io)
            }
            _ => self.send(io),
        }
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        let resumed = self.settings.resumed.load(Ordering::Relaxed);
        if resumed != self.resumed {
            self.resumed = resumed;
            while let Some(io) = self.pending.pop_front() {
                if let Submitted::Done(completion) = self.send(io) {
                    done.push(completion);
                }
            }
        }
        self.relay.poll(done, corrupt_read);
    }

    fn outstanding(&self) -> usize {
        self.relay.outstanding()
    }

    /// While commands are pending the reactor must not sleep: nothing wakes it when they are resumed.
    fn needs_polling(&self) -> bool {
        !self.pending.is_empty() || self.relay.needs_polling()
    }

    fn abort(&mut self, token: u64) -> bool {
        let Some(number) = self.relay.number_of(token) else { return false };
        let pending = self.pending.iter().position(|io| io.token == u64::from(number));
        match pending.and_then(|at| self.pending.remove(at)) {
            Some(io) => {
                self.relay.abort_here(io);
                true
            }
            None => self.relay.abort_below(number),
        }
    }
}

fn corrupt_read(mut completion: IoCompletion, corruption: Corruption) -> IoCompletion {
    if let Some((offset, value)) = corruption
        && completion.status.is_success()
    {
        corrupt(&mut completion.data, offset, value);
    }
    completion
}

/// Changes the byte at `offset`, if there is one.
fn corrupt(data: &mut Segments, offset: u64, value: u8) {
    let mut byte = [0];
    if let Ok(offset) = usize::try_from(offset)
        && data.copy_to(offset, &mut byte) == 1
    {
        data.copy_from(offset, &[byte[0] ^ value]);
    }
}
