//! What a device has done, counted per channel without contended locks.
//!
//! Owns [`Counters`] (one writer each: the channel that has it) and the list of them on a device. Invariant: a
//! counter never goes back, also when its channel closes: the next channel goes on with the same counters. The
//! management side sums them at any time, from any thread, and sees each counter at some recent value.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use sledge_nvme::Status;
use sledge_nvme::io::Operation;
use sledge_reactor::time::Instant;

/// Kinds of operation that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Read,
    Write,
    Deallocate,
    WriteZeroes,
    Flush,
    Compare,
}

const CLASSES: usize = 6;

impl Class {
    fn of(operation: Operation) -> Class {
        match operation {
            Operation::Read => Class::Read,
            Operation::Write | Operation::CompareAndWrite => Class::Write,
            Operation::Deallocate => Class::Deallocate,
            Operation::WriteZeroes { .. } => Class::WriteZeroes,
            Operation::Flush => Class::Flush,
            Operation::Compare | Operation::Verify => Class::Compare,
        }
    }
}

/// Counters of one class on one channel.
#[derive(Debug, Default)]
struct ClassCounters {
    operations: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    longest: AtomicU64,
    failures: AtomicU64,
}

/// Counters of one channel, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters {
    classes: [ClassCounters; CLASSES],
    taken: AtomicBool,
    next: OnceLock<Arc<Counters>>,
}

/// Adds to a counter that has one writer: no bus lock.
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

/// A channel's counters; dropping it frees them for the next channel.
#[derive(Debug)]
pub(crate) struct ChannelCounters(Arc<Counters>);

impl ChannelCounters {
    /// Counts a command that ended as soon as it began, within one turn and hence in no time.
    pub(crate) fn count_at_once(&self, operation: Operation, bytes: u64, status: Status) {
        let class = &self.0.classes[Class::of(operation) as usize];
        if !status.is_success() {
            add(&class.failures, 1);
            return;
        }
        add(&class.operations, 1);
        add(&class.bytes, bytes);
    }

    /// Counts the end of a command that moved `bytes` bytes and began at `started`.
    pub(crate) fn count(&self, operation: Operation, bytes: u64, started: Instant, status: Status) {
        self.count_at_once(operation, bytes, status);
        if !status.is_success() {
            return;
        }
        let class = &self.0.classes[Class::of(operation) as usize];
        let taken = (sledge_reactor::time::now() - started).as_nanos() as u64;
        if taken != 0 {
            add(&class.nanoseconds, taken);
            if taken > class.longest.load(Ordering::Relaxed) {
                class.longest.store(taken, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for ChannelCounters {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}

/// All counters of a device: a list that only grows, to the most channels that were ever open at once.
#[derive(Debug, Default)]
pub(crate) struct DeviceCounters(Arc<Counters>);

impl DeviceCounters {
    /// Counters for a new channel.
    pub(crate) fn open(&self) -> ChannelCounters {
        let mut place = &self.0;
        loop {
            if place.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return ChannelCounters(place.clone());
            }
            place = place.next.get_or_init(Arc::default);
        }
    }

    /// The sum over all channels, past and present.
    pub(crate) fn sum(&self) -> DeviceStatistics {
        let mut sum = DeviceStatistics::default();
        let mut place = Some(&self.0);
        while let Some(counters) = place {
            let all = [
                &mut sum.reads,
                &mut sum.writes,
                &mut sum.deallocates,
                &mut sum.write_zeroes,
                &mut sum.flushes,
                &mut sum.compares,
            ];
            for (class, total) in counters.classes.iter().zip(all) {
                total.operations += class.operations.load(Ordering::Relaxed);
                total.bytes += class.bytes.load(Ordering::Relaxed);
                total.nanoseconds += class.nanoseconds.load(Ordering::Relaxed);
                total.longest_nanoseconds =
                    total.longest_nanoseconds.max(class.longest.load(Ordering::Relaxed));
                total.failures += class.failures.load(Ordering::Relaxed);
            }
            place = counters.next.get();
        }
        sum
    }
}

/// What became of one kind of operation since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct OperationStatistics {
    /// Commands that succeeded.
    pub operations: u64,
    /// Bytes of the ranges of those commands.
    pub bytes: u64,
    /// Time from submission to completion of those commands, summed, in nanoseconds.
    pub nanoseconds: u64,
    /// The longest of those times, in nanoseconds.
    pub longest_nanoseconds: u64,
    /// Commands that failed.
    pub failures: u64,
}

/// What a device has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DeviceStatistics {
    /// Reads.
    pub reads: OperationStatistics,
    /// Writes, and the writing half of compare-and-write.
    pub writes: OperationStatistics,
    /// Deallocations (unmap, trim).
    pub deallocates: OperationStatistics,
    /// Write-zeroes commands.
    pub write_zeroes: OperationStatistics,
    /// Flushes.
    pub flushes: OperationStatistics,
    /// Compares and verifies.
    pub compares: OperationStatistics,
}
