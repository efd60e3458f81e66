//! The delay device: makes each command on another device wait for a set time first.
//!
//! For tests of slow disks. A command waits before it goes down, not after, so that it holds no range meanwhile.
//! Latencies may be changed at any time from any thread and hold for commands that come later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use sledge_nvme::io::{Channel, Geometry, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::time::{self, Instant};
use uuid::Uuid;

use crate::device::{BlockDevice, Description, DeviceError, check_shape};
use crate::relay::Relay;
use crate::statistics::DeviceCounters;

/// Latencies in microseconds. Every hundredth command, by chance, gets the 99th percentile instead of the average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// Most commands that read or compare.
    pub avg_read_latency: u64,
    /// One in a hundred of them.
    pub p99_read_latency: u64,
    /// Most commands that write, clear or flush.
    pub avg_write_latency: u64,
    /// One in a hundred of them.
    pub p99_write_latency: u64,
}

/// Which of the latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyKind {
    /// `avg_read`
    AverageRead,
    /// `p99_read`
    P99Read,
    /// `avg_write`
    AverageWrite,
    /// `p99_write`
    P99Write,
}

impl LatencyKind {
    /// From its name in `bdev_delay_update_latency`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "avg_read" => Self::AverageRead,
            "p99_read" => Self::P99Read,
            "avg_write" => Self::AverageWrite,
            "p99_write" => Self::P99Write,
            _ => return None,
        })
    }
}

/// Parameters of `bdev_delay_create`, but for the device below.
#[derive(Clone, Debug)]
pub struct DelayOptions {
    /// Name.
    pub name: String,
    /// Identity; random when not given.
    pub uuid: Option<Uuid>,
    /// Latencies at first.
    pub latencies: Latencies,
}

/// The latencies in force, in microseconds, by [`LatencyKind`].
type Settings = [AtomicU64; 4];

/// A device that is slower than the one below.
pub struct DelayDevice {
    name: String,
    uuid: Uuid,
    base: Arc<dyn BlockDevice>,
    settings: Arc<Settings>,
    counters: Arc<DeviceCounters>,
}

impl DelayDevice {
    /// Makes the device on `base`.
    ///
    /// # Errors
    /// A parameter can't be.
    pub fn new(base: Arc<dyn BlockDevice>, options: DelayOptions) -> Result<DelayDevice, DeviceError> {
        let DelayOptions { name, uuid, latencies } = options;
        let Geometry { blocks, block_bytes, .. } = base.geometry();
        check_shape(&name, blocks, block_bytes)?;
        let Latencies { avg_read_latency, p99_read_latency, avg_write_latency, p99_write_latency } =
            latencies;
        let settings = [avg_read_latency, p99_read_latency, avg_write_latency, p99_write_latency];
        Ok(DelayDevice {
            name,
            uuid: uuid.unwrap_or_else(Uuid::new_v4),
            base,
            settings: Arc::new(settings.map(AtomicU64::new)),
            counters: Arc::default(),
        })
    }

    /// The latencies in force.
    #[must_use]
    pub fn latencies(&self) -> Latencies {
        let at = |kind: LatencyKind| self.settings[kind as usize].load(Ordering::Relaxed);
        Latencies {
            avg_read_latency: at(LatencyKind::AverageRead),
            p99_read_latency: at(LatencyKind::P99Read),
            avg_write_latency: at(LatencyKind::AverageWrite),
            p99_write_latency: at(LatencyKind::P99Write),
        }
    }

    /// Changes a latency, in microseconds, for commands that come from now on.
    pub fn update_latency(&self, kind: LatencyKind, microseconds: u64) {
        self.settings[kind as usize].store(microseconds, Ordering::Relaxed);
    }
}

impl BlockDevice for DelayDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn product(&self) -> &'static str {
        "delay"
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
        Ok(Box::new(DelayChannel {
            relay,
            settings: self.settings.clone(),
            waiting: BinaryHeap::new(),
            sequence: 0,
        }))
    }

    fn description(&self) -> Description {
        Description::Delay {
            name: self.name.clone(),
            base_bdev_name: self.base.name().to_owned(),
            latencies: self.latencies(),
        }
    }

    fn counters(&self) -> &DeviceCounters {
        &self.counters
    }

    fn lower(&self) -> Option<Arc<dyn BlockDevice>> {
        Some(self.base.clone())
    }
}

/// A command that waits, ordered by when it goes down and then by when it came.
struct Delayed {
    due: Instant,
    sequence: u64,
    io: IoCommand,
}

impl PartialEq for Delayed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Delayed {}

impl PartialOrd for Delayed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Delayed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

struct DelayChannel {
    relay: Relay<()>,
    settings: Arc<Settings>,
    waiting: BinaryHeap<Reverse<Delayed>>,
    sequence: u64,
}

impl DelayChannel {
    /// How long a command that comes now waits.
    fn latency(&self, operation: Operation) -> Duration {
        let unlucky = sledge_reactor::random::random_u64().is_multiple_of(100);
        let kind = match operation {
            Operation::Read | Operation::Compare | Operation::Verify if unlucky => LatencyKind::P99Read,
            Operation::Read | Operation::Compare | Operation::Verify => LatencyKind::AverageRead,
            _ if unlucky => LatencyKind::P99Write,
            _ => LatencyKind::AverageWrite,
        };
        Duration::from_micros(self.settings[kind as usize].load(Ordering::Relaxed))
    }
}

impl Channel for DelayChannel {
    fn submit(&mut self, mut io: IoCommand) -> Submitted {
        if let Err(status) = self.relay.accept(&mut io, ()) {
            return Submitted::Done(io.complete(status));
        }
        let latency = self.latency(io.operation);
        if latency.is_zero() {
            return match self.relay.send(io) {
                Some((completion, ())) => Submitted::Done(completion),
                None => Submitted::Pending,
            };
        }
        self.sequence += 1;
        let delayed = Delayed { due: time::now() + latency, sequence: self.sequence, io };
        self.waiting.push(Reverse(delayed));
        Submitted::Pending
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        let now = time::now();
        while self.waiting.peek().is_some_and(|first| first.0.due <= now) {
            let Some(Reverse(delayed)) = self.waiting.pop() else { break };
            done.extend(self.relay.send(delayed.io).map(|(completion, ())| completion));
        }
        self.relay.poll(done, |completion, ()| completion);
    }

    fn outstanding(&self) -> usize {
        self.relay.outstanding()
    }

    /// While commands wait the reactor must not sleep: nothing wakes it when one is due.
    fn needs_polling(&self) -> bool {
        !self.waiting.is_empty() || self.relay.needs_polling()
    }

    fn abort(&mut self, token: u64) -> bool {
        let Some(number) = self.relay.number_of(token) else { return false };
        let (found, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|delayed| delayed.0.io.token == u64::from(number));
        self.waiting = waiting.into();
        match found.into_iter().next() {
            Some(Reverse(delayed)) => {
                self.relay.abort_here(delayed.io);
                true
            }
            None => self.relay.abort_below(number),
        }
    }
}
