//! What a run measured: plain data, from which every report is made.

use std::time::Duration;

use crate::histogram::Latencies;
use crate::job::Job;
use crate::workload::DIRECTIONS;

/// Everything that one run measured.
#[derive(Clone, Debug)]
pub struct Results {
    /// When it began, in seconds since 1970.
    pub began_unix_s: u64,
    /// Its jobs, in the order they were asked for. They ran at the same time.
    pub jobs: Vec<JobResults>,
    /// Processor time of this process's reactors while measuring.
    pub host_cpu: Option<Duration>,
    /// Processor time of the target's process while measuring, where it is known.
    pub target_cpu: Option<Duration>,
}

/// What one job measured.
#[derive(Clone, Debug)]
pub struct JobResults {
    /// What was asked for, with what was settled since (depth granted, size of the target).
    pub job: Job,
    /// Reads.
    pub reads: Direction,
    /// Writes.
    pub writes: Direction,
    /// Deallocations.
    pub trims: Direction,
    /// Write Zeroes.
    pub zeroes: Direction,
    /// Flushes (they move no bytes, and are in no one-second entry).
    pub flushes: Direction,
    /// Time measured.
    pub elapsed: Duration,
    /// One entry a second, the last one perhaps shorter.
    pub seconds: Vec<Second>,
    /// I/Os that failed, or whose data was not what had been written.
    pub errors: u64,
    /// What the first of them was.
    pub first_error: Option<String>,
    /// I/Os whose data was checked.
    pub verified: u64,
    /// Whether it was found to be steady, of a job that ends by that.
    pub steady: Option<bool>,
    /// Open loop: I/Os that were due while measuring and had not ended when it was over. More than the depth of the
    /// lanes means that the target did not keep up, and that latencies would have grown on.
    pub backlog: u64,
}

/// I/O of one direction.
#[derive(Clone, Debug)]
pub struct Direction {
    /// Latencies, one for each I/O; in an open loop from when the I/O was due.
    pub latencies: Latencies,
    /// Bytes moved.
    pub bytes: u64,
}

/// One second of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Second {
    /// How long it was: one second, but for the last.
    pub length: Duration,
    /// I/Os that ended, by direction: reads, writes, deallocations, and writes of zeroes.
    pub ios: [u64; DIRECTIONS],
    /// Bytes that they moved.
    pub bytes: [u64; DIRECTIONS],
    /// Median and 99th percentile of latency over all of them, in nanoseconds.
    pub p50_ns: u64,
    /// See `p50_ns`.
    pub p99_ns: u64,
}
