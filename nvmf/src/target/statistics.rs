//! Counters of one subsystem: every reactor adds to its own cache line, whoever reports sums them up.
//!
//! They outlive connections and controllers; SMART / Health (NVMe Base 2.0, 5.16.1.3) is made from them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use sledge_reactor::time::Instant;

/// One reactor's share, alone in its cache lines so that reactors never contend for it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ReactorCounters {
    /// Read and Compare commands completed.
    pub read_commands: AtomicU64,
    /// Write commands completed.
    pub write_commands: AtomicU64,
    /// Bytes read by hosts.
    pub read_bytes: AtomicU64,
    /// Bytes written by hosts.
    pub written_bytes: AtomicU64,
    /// Commands that ended in a media or data integrity error.
    pub media_errors: AtomicU64,
    /// Entries that were added to error logs.
    pub error_log_entries: AtomicU64,
    /// Nanoseconds with at least one I/O command outstanding.
    pub busy_ns: AtomicU64,
}

/// All reactors' shares.
#[derive(Debug)]
pub struct SubsystemStatistics {
    reactors: Box<[ReactorCounters]>,
    /// When a reactor first served the subsystem, in nanoseconds of the reactors' clock; 0 before that.
    started_ns: AtomicU64,
}

/// The sum over all reactors at about one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Read and Compare commands completed.
    pub read_commands: u64,
    /// Write commands completed.
    pub write_commands: u64,
    /// Bytes read by hosts.
    pub read_bytes: u64,
    /// Bytes written by hosts.
    pub written_bytes: u64,
    /// Commands that ended in a media or data integrity error.
    pub media_errors: u64,
    /// Entries that were added to error logs.
    pub error_log_entries: u64,
    /// Nanoseconds with at least one I/O command outstanding, summed over reactors.
    pub busy_ns: u64,
}

impl SubsystemStatistics {
    /// Counters for reactors 0 to `reactors - 1`.
    #[must_use]
    pub fn new(reactors: usize) -> Self {
        let reactors = (0..reactors).map(|_| ReactorCounters::default()).collect();
        Self { reactors, started_ns: AtomicU64::new(0) }
    }

    /// Notes that the subsystem is served from `now` on; later calls change nothing.
    pub fn start(&self, now: Instant) {
        let _ = self.started_ns.compare_exchange(0, now.as_nanos().max(1), Relaxed, Relaxed);
    }

    /// For how long the subsystem has been served.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        match self.started_ns.load(Relaxed) {
            0 => Duration::ZERO,
            started => now - Instant::from_nanos(started),
        }
    }

    /// The counters that reactor `id` adds to.
    #[must_use]
    pub fn of_reactor(&self, id: u32) -> &ReactorCounters {
        &self.reactors[id as usize]
    }

    /// Sums all reactors.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let sum = |pick: fn(&ReactorCounters) -> &AtomicU64| {
            self.reactors.iter().map(|counters| pick(counters).load(Relaxed)).sum()
        };
        Totals {
            read_commands: sum(|c| &c.read_commands),
            write_commands: sum(|c| &c.write_commands),
            read_bytes: sum(|c| &c.read_bytes),
            written_bytes: sum(|c| &c.written_bytes),
            media_errors: sum(|c| &c.media_errors),
            error_log_entries: sum(|c| &c.error_log_entries),
            busy_ns: sum(|c| &c.busy_ns),
        }
    }
}

/// Adds to a counter that only this reactor writes: a plain load and store, no locked instruction.
pub fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}
