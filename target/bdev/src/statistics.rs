//! What a device has done, counted per channel without contended locks.
//!
//! Owns [`Counters`] (one writer each: the channel that has it) and the list of them on a device. Invariant: a
//! counter never goes back, also when its channel closes: the next channel of that reactor goes on with the same
//! counters. The management side sums them at any time, from any thread, and sees each counter at some recent value.
//! Counting anew is its doing alone: it remembers what there was, and takes that off what it reports.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

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
#[derive(Debug)]
#[repr(align(128))]
struct Counters {
    classes: [ClassCounters; CLASSES],
    /// The reactor of its channels.
    reactor: u32,
    taken: AtomicBool,
    next: OnceLock<Arc<Counters>>,
}

impl Counters {
    fn of(reactor: u32) -> Arc<Counters> {
        Arc::new(Counters {
            classes: Default::default(),
            reactor,
            taken: AtomicBool::new(false),
            next: OnceLock::new(),
        })
    }

    /// What its channels have counted.
    fn read(&self) -> DeviceStatistics {
        let mut read = DeviceStatistics::default();
        for (class, counted) in self.classes.iter().zip(read.all_mut()) {
            *counted = OperationStatistics {
                operations: class.operations.load(Ordering::Relaxed),
                bytes: class.bytes.load(Ordering::Relaxed),
                nanoseconds: class.nanoseconds.load(Ordering::Relaxed),
                longest_nanoseconds: class.longest.load(Ordering::Relaxed),
                failures: class.failures.load(Ordering::Relaxed),
            };
        }
        read
    }
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

/// What to count anew from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Nothing.
    Nothing,
    /// The longest times.
    Longest,
    /// Failures.
    Failures,
    /// Everything.
    All,
}

/// All counters of a device: a list that only grows, to the most channels that were ever open at once on each reactor.
#[derive(Debug, Default)]
pub struct DeviceCounters {
    first: OnceLock<Arc<Counters>>,
    /// What the counters at each place of the list had when they were last reset, where they were.
    before: Mutex<BTreeMap<usize, DeviceStatistics>>,
}

impl DeviceCounters {
    /// Counters for a new channel on the current reactor.
    pub(crate) fn open(&self) -> ChannelCounters {
        self.open_on(sledge_reactor::message::current().id())
    }

    fn open_on(&self, reactor: u32) -> ChannelCounters {
        let mut place = &self.first;
        loop {
            let counters = place.get_or_init(|| Counters::of(reactor));
            let taken = &counters.taken;
            if counters.reactor == reactor
                && taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return ChannelCounters(counters.clone());
            }
            place = &counters.next;
        }
    }

    fn before(&self) -> MutexGuard<'_, BTreeMap<usize, DeviceStatistics>> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sum over all channels, past and present, since the last reset.
    #[must_use]
    pub fn sum(&self) -> DeviceStatistics {
        sum(&self.take(Reset::Nothing))
    }

    /// As [`DeviceCounters::sum`], of the channels of each reactor that ever had one. Counts `reset` anew from what this
    /// returns, so that nothing is counted twice, or not at all, between two calls.
    pub fn take(&self, reset: Reset) -> BTreeMap<u32, DeviceStatistics> {
        let mut before = self.before();
        let mut by_reactor = BTreeMap::<u32, DeviceStatistics>::new();
        let mut place = self.first.get();
        for index in 0.. {
            let Some(counters) = place else { break };
            let read = counters.read();
            let since = before.get(&index).map_or(read, |before| read.since(before));
            by_reactor.entry(counters.reactor).or_default().add(&since);
            match reset {
                Reset::Nothing | Reset::Longest => {}
                Reset::Failures => before.entry(index).or_default().take_failures(&read),
                Reset::All => {
                    before.insert(index, read);
                }
            }
            if matches!(reset, Reset::Longest | Reset::All) {
                // A command that ends in this moment may be left out, as if it had ended before.
                counters.classes.iter().for_each(|class| class.longest.store(0, Ordering::Relaxed));
            }
            place = counters.next.get();
        }
        by_reactor
    }
}

/// The sum of what reactors have counted.
#[must_use]
pub fn sum(by_reactor: &BTreeMap<u32, DeviceStatistics>) -> DeviceStatistics {
    let mut sum = DeviceStatistics::default();
    by_reactor.values().for_each(|counted| sum.add(counted));
    sum
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

impl DeviceStatistics {
    fn all_mut(&mut self) -> [&mut OperationStatistics; CLASSES] {
        [
            &mut self.reads,
            &mut self.writes,
            &mut self.deallocates,
            &mut self.write_zeroes,
            &mut self.flushes,
            &mut self.compares,
        ]
    }

    fn all(&self) -> [&OperationStatistics; CLASSES] {
        let DeviceStatistics { reads, writes, deallocates, write_zeroes, flushes, compares } = self;
        [reads, writes, deallocates, write_zeroes, flushes, compares]
    }

    fn add(&mut self, more: &DeviceStatistics) {
        for (sum, more) in self.all_mut().into_iter().zip(more.all()) {
            sum.operations += more.operations;
            sum.bytes += more.bytes;
            sum.nanoseconds += more.nanoseconds;
            sum.longest_nanoseconds = sum.longest_nanoseconds.max(more.longest_nanoseconds);
            sum.failures += more.failures;
        }
    }

    /// What was counted after `before`. The longest times are those since their own reset.
    fn since(&self, before: &DeviceStatistics) -> DeviceStatistics {
        let mut since = *self;
        for (since, before) in since.all_mut().into_iter().zip(before.all()) {
            since.operations -= before.operations;
            since.bytes -= before.bytes;
            since.nanoseconds -= before.nanoseconds;
            since.failures -= before.failures;
        }
        since
    }

    fn take_failures(&mut self, from: &DeviceStatistics) {
        for (ours, from) in self.all_mut().into_iter().zip(from.all()) {
            ours.failures = from.failures;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(counters: &ChannelCounters, bytes: u64, nanoseconds: u64) {
        counters.count_at_once(Operation::Write, bytes, Status::SUCCESS);
        let class = &counters.0.classes[Class::Write as usize];
        add(&class.nanoseconds, nanoseconds);
        class.longest.store(nanoseconds.max(class.longest.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    // Without it: what one reactor does would be shown as another's, or be forgotten when a host goes.
    #[test]
    fn reactors_are_counted_apart_and_channels_go_on() {
        let device = DeviceCounters::default();
        let (first, other) = (device.open_on(3), device.open_on(1));
        write(&first, 10, 5);
        write(&other, 1, 7);
        drop(first);
        let (again, more) = (device.open_on(3), device.open_on(3));
        write(&again, 20, 4);
        write(&more, 40, 9);
        let by_reactor = device.take(Reset::Nothing);
        assert_eq!(by_reactor.keys().copied().collect::<Vec<_>>(), [1, 3]);
        let of = |reactor| by_reactor[&reactor].writes;
        assert_eq!((of(1).operations, of(1).bytes, of(1).longest_nanoseconds), (1, 1, 7));
        assert_eq!((of(3).operations, of(3).bytes, of(3).longest_nanoseconds), (3, 70, 9));
        assert_eq!((of(3).nanoseconds, device.sum().writes.bytes), (18, 71));
        drop((other, again, more));
    }

    // Without it: counting anew would forget what is to stay, or report again what was reported.
    #[test]
    fn what_is_reset_is_counted_anew() {
        let device = DeviceCounters::default();
        let channel = device.open_on(0);
        let fail = || channel.count_at_once(Operation::Write, 1, Status::WRITE_FAULT);
        write(&channel, 10, 5);
        fail();
        assert_eq!(device.take(Reset::Failures)[&0].writes.failures, 1);
        fail();
        let left = device.take(Reset::Longest)[&0].writes;
        assert_eq!((left.operations, left.failures, left.longest_nanoseconds), (1, 1, 5));
        write(&channel, 10, 3);
        let left = device.take(Reset::All)[&0].writes;
        assert_eq!((left.operations, left.bytes, left.nanoseconds), (2, 20, 8));
        assert_eq!((left.failures, left.longest_nanoseconds), (1, 3));
        assert_eq!(device.sum(), DeviceStatistics::default());
        write(&channel, 7, 2);
        let left = device.sum().writes;
        assert_eq!((left.operations, left.bytes, left.nanoseconds, left.longest_nanoseconds), (1, 7, 2, 2));
        // A channel that is opened later is not reset with those before it.
        let later = device.open_on(0);
        write(&later, 100, 1);
        assert_eq!(device.sum().writes.bytes, 107);
    }
}
