//! Rates and percentiles, worked out once for every form of report.
//!
//! A rate is over the time that was measured; the rate of several jobs at once is over the longest of their times,
//! and the rate of runs that followed one another over the sum of these.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::histogram::Latencies;
use crate::results::{Direction, JobResults, Results};
use crate::workload::DIRECTIONS as COUNT;

/// Names of the directions, in the order in which all lists of them are.
pub const DIRECTIONS: [&str; COUNT] = ["read", "write", "trim", "zeroes"];

/// What is measured at these percentages.
pub const PERCENTILES: [(f64, &str); 8] = [
    (50.0, "p50"),
    (75.0, "p75"),
    (90.0, "p90"),
    (95.0, "p95"),
    (99.0, "p99"),
    (99.9, "p99.9"),
    (99.99, "p99.99"),
    (99.999, "p99.999"),
];

/// Everything that a report says.
#[derive(Debug)]
pub struct Report {
    /// When the first run began, in seconds since 1970.
    pub began_unix_s: u64,
    /// Runs that followed one another, one in most cases.
    pub groups: Vec<Group>,
    /// The jobs of all groups.
    pub jobs: Vec<JobSummary>,
    /// All jobs together.
    pub overall: Sums,
}

/// Jobs that ran at the same time.
#[derive(Debug)]
pub struct Group {
    /// When it began, in seconds since 1970.
    pub began_unix_s: u64,
    /// Processor time of the host's reactors.
    pub host_cpu: Option<Duration>,
    /// Processor time of the target.
    pub target_cpu: Option<Duration>,
    /// Its jobs together.
    pub sums: Sums,
}

/// One job.
#[derive(Debug)]
pub struct JobSummary {
    /// Which group it ran in, counted from 0.
    pub group: usize,
    /// What it measured.
    pub results: JobResults,
    /// The same as rates.
    pub sums: Sums,
}

/// The directions, by themselves and together.
#[derive(Debug)]
pub struct Sums {
    /// Time that rates are over.
    pub elapsed: Duration,
    /// As in [`DIRECTIONS`].
    pub directions: [Rates; COUNT],
    /// All of them.
    pub total: Rates,
    /// Flushes, which move no bytes and are no part of the total.
    pub flushes: Rates,
}

/// What one direction did.
#[derive(Debug)]
pub struct Rates {
    /// I/Os that ended.
    pub ios: u64,
    /// Bytes that they moved.
    pub bytes: u64,
    /// I/Os a second.
    pub iops: f64,
    /// Bytes a second.
    pub bytes_per_second: f64,
    /// None when there was no I/O.
    pub latency: Option<Latency>,
}

/// Latencies, in nanoseconds.
#[derive(Debug)]
pub struct Latency {
    /// Smallest.
    pub min: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation, to the precision of the histogram.
    pub stddev: f64,
    /// Largest.
    pub max: u64,
    histogram: Histogram<u64>,
}

impl Report {
    /// Of runs that followed one another.
    pub fn new(runs: Vec<Results>) -> Self {
        let began_unix_s = runs.first().map_or(0, |run| run.began_unix_s);
        let (mut groups, mut jobs) = (Vec::new(), Vec::new());
        for (index, run) in runs.into_iter().enumerate() {
            groups.push(Group {
                began_unix_s: run.began_unix_s,
                host_cpu: run.host_cpu,
                target_cpu: run.target_cpu,
                sums: Sums::at_once(run.jobs.iter()),
            });
            for results in run.jobs {
                let sums = Sums::at_once(std::iter::once(&results));
                jobs.push(JobSummary { group: index, results, sums });
            }
        }
        let elapsed = groups.iter().map(|group| group.sums.elapsed).sum();
        let overall = Sums::over(elapsed, jobs.iter().map(|job| &job.results));
        Self { began_unix_s, groups, jobs, overall }
    }

    /// I/Os whose data was checked.
    pub fn verified(&self) -> u64 {
        self.jobs.iter().map(|job| job.results.verified).sum()
    }

    /// I/Os of open loops that were due and had not ended.
    pub fn backlog(&self) -> u64 {
        self.jobs.iter().map(|job| job.results.backlog).sum()
    }

    /// I/Os that failed.
    pub fn errors(&self) -> u64 {
        self.jobs.iter().map(|job| job.results.errors).sum()
    }
}

impl Group {
    /// Processor time of the host for each I/O, in microseconds.
    pub fn host_us_per_io(&self) -> Option<f64> {
        per_io(self.host_cpu, self.sums.total.ios)
    }

    /// Processor time of the target for each I/O, in microseconds.
    pub fn target_us_per_io(&self) -> Option<f64> {
        per_io(self.target_cpu, self.sums.total.ios)
    }
}

fn per_io(cpu: Option<Duration>, ios: u64) -> Option<f64> {
    cpu.filter(|_| ios > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / ios as f64)
}

impl Sums {
    /// Of jobs that ran at the same time.
    fn at_once<'a>(jobs: impl Iterator<Item = &'a JobResults> + Clone) -> Self {
        let longest = jobs.clone().map(|job| job.elapsed).max().unwrap_or_default();
        Self::over(longest, jobs)
    }

    fn over<'a>(elapsed: Duration, jobs: impl Iterator<Item = &'a JobResults> + Clone) -> Self {
        let seconds = elapsed.as_secs_f64();
        let mut all = Latencies::new();
        let mut bytes = 0;
        let directions = std::array::from_fn(|index| {
            let mut latencies = Latencies::new();
            let mut moved = 0;
            for job in jobs.clone() {
                let direction = directions(job)[index];
                latencies.merge(&direction.latencies);
                moved += direction.bytes;
            }
            all.merge(&latencies);
            bytes += moved;
            Rates::new(&latencies, moved, seconds)
        });
        let mut flushes = Latencies::new();
        jobs.for_each(|job| flushes.merge(&job.flushes.latencies));
        let (total, flushes) = (Rates::new(&all, bytes, seconds), Rates::new(&flushes, 0, seconds));
        Self { elapsed, directions, total, flushes }
    }

    /// The directions that did something, by name.
    pub fn used(&self) -> impl Iterator<Item = (&'static str, &Rates, &Latency)> {
        let named = DIRECTIONS.into_iter().zip(&self.directions);
        named.filter_map(|(name, rates)| Some((name, rates, rates.latency.as_ref()?)))
    }
}

/// A job's directions, as in [`DIRECTIONS`].
pub fn directions(job: &JobResults) -> [&Direction; COUNT] {
    [&job.reads, &job.writes, &job.trims, &job.zeroes]
}

impl Rates {
    fn new(latencies: &Latencies, bytes: u64, seconds: f64) -> Self {
        let a_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        let ios = latencies.count();
        Self {
            ios,
            bytes,
            iops: a_second(ios),
            bytes_per_second: a_second(bytes),
            latency: Latency::new(latencies),
        }
    }
}

impl Latency {
    fn new(latencies: &Latencies) -> Option<Self> {
        if latencies.count() == 0 {
            return None;
        }
        let (min, mean, max) = latencies.extent();
        let histogram = latencies.to_hdr().ok()?;
        Some(Self { min, mean, stddev: histogram.stdev(), max, histogram })
    }

    /// The latency that so many percent of the I/Os kept within.
    pub fn percentile(&self, percent: f64) -> u64 {
        self.histogram.value_at_percentile(percent).clamp(self.min, self.max)
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Share of the I/Os, of 1, with a latency in `from..below`.
    pub fn share(&self, from: u64, below: u64) -> f64 {
        let counted: u64 = self
            .histogram
            .iter_recorded()
            .filter(|step| (from..below).contains(&step.value_iterated_to()))
            .map(|step| step.count_since_last_iteration())
            .sum();
        counted as f64 / self.histogram.len().max(1) as f64
    }

    /// Every latency that occurred, to the precision of the histogram, and how often.
    pub fn recorded(&self) -> impl Iterator<Item = (u64, u64)> {
        self.histogram
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
    }
}
