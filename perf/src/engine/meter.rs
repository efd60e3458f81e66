//! What one reactor counts of a job.
//!
//! Each I/O is counted once, in the current second; seconds are added to the total as they end.

use crate::histogram::Latencies;
use crate::workload::{DIRECTIONS, KINDS, Kind};

/// Counts by kind of I/O.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Latencies of each kind.
    pub latencies: [Latencies; KINDS],
    /// Bytes moved by each kind.
    pub bytes: [u64; KINDS],
}

impl Counts {
    fn new() -> Self {
        Self { latencies: std::array::from_fn(|_| Latencies::new()), bytes: [0; KINDS] }
    }

    fn clear(&mut self) {
        self.latencies.iter_mut().for_each(Latencies::clear);
        self.bytes = [0; KINDS];
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for kind in 0..KINDS {
            self.latencies[kind].merge(&other.latencies[kind]);
            self.bytes[kind] += other.bytes[kind];
        }
    }

    /// I/Os of each direction.
    pub fn ios(&self) -> [u64; DIRECTIONS] {
        std::array::from_fn(|kind| self.latencies[kind].count())
    }
}

/// The current second, and all before it.
#[derive(Debug)]
pub struct Meter {
    second: Counts,
    total: Counts,
    /// What was forgotten: for those who watch.
    before: ([u64; DIRECTIONS], [u64; DIRECTIONS]),
}

impl Meter {
    pub fn new() -> Self {
        Self { second: Counts::new(), total: Counts::new(), before: ([0; DIRECTIONS], [0; DIRECTIONS]) }
    }

    /// Counts an I/O.
    #[inline]
    pub fn record(&mut self, kind: Kind, nanoseconds: u64, bytes: u64) {
        self.second.latencies[kind as usize].record(nanoseconds);
        self.second.bytes[kind as usize] += bytes;
    }

    /// Forgets all that was counted.
    pub fn clear(&mut self) {
        self.before = self.so_far();
        self.second.clear();
        self.total.clear();
    }

    /// Ends a second and gives its counts to `use_it`.
    pub fn end_second(&mut self, use_it: impl FnOnce(&Counts)) {
        use_it(&self.second);
        self.total.merge(&self.second);
        self.second.clear();
    }

    /// All seconds that have ended.
    pub fn total(&self) -> &Counts {
        &self.total
    }

    /// I/Os and bytes of each direction since the load began.
    pub fn so_far(&self) -> ([u64; DIRECTIONS], [u64; DIRECTIONS]) {
        let (second, total) = (self.second.ios(), self.total.ios());
        let ios = std::array::from_fn(|kind| self.before.0[kind] + second[kind] + total[kind]);
        let bytes = |kind: usize| self.before.1[kind] + self.second.bytes[kind] + self.total.bytes[kind];
        (ios, std::array::from_fn(bytes))
    }
}
