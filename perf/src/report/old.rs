//! What a run measured, for people and for programs.

use crate::job::{Job, Target};
use crate::results::{Direction as Measured, JobResults, Results};
use serde::Serialize;
use std::fmt::Write;

/// A whole report.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Report {
    /// Of one job.
    One(Box<JobReport>),
    /// Of several.
    Several {
        /// In the order they were asked for.
        jobs: Vec<JobReport>,
    },
}

/// One job.
#[derive(Debug, Serialize)]
pub struct JobReport {
    workload: Load,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trim: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flush: Option<Direction>,
    total: Totals,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
    /// I/Os whose content was checked.
    verified: u64,
    /// I/Os of an open loop that were due and not done when it was over.
    backlog: u64,
}

/// What was asked for.
#[derive(Debug, Serialize)]
struct Load {
    name: String,
    target: String,
    rw: &'static str,
    read_percent: u8,
    block_bytes: u32,
    iodepth: u16,
    cores: usize,
    queues_per_core: u16,
    seconds: f64,
    busy: bool,
    header_digest: bool,
    data_digest: bool,
}

/// Both directions together.
#[derive(Debug, Serialize)]
struct Totals {
    ios: u64,
    iops: f64,
    bytes_per_second: f64,
}

/// One direction.
#[derive(Debug, Serialize)]
struct Direction {
    ios: u64,
    iops: f64,
    bytes_per_second: f64,
    latency_ns: Latency,
}

/// Nanoseconds.
#[derive(Debug, Serialize)]
struct Latency {
    min: u64,
    mean: f64,
    max: u64,
    p50: u64,
    p90: u64,
    p95: u64,
    p99: u64,
    p99_9: u64,
    p99_99: u64,
    p99_999: u64,
}

impl Report {
    /// Of what a run measured.
    pub fn new(results: &Results) -> Self {
        let mut jobs: Vec<JobReport> = results.jobs.iter().map(JobReport::new).collect();
        match jobs.pop() {
            Some(job) if jobs.is_empty() => Self::One(Box::new(job)),
            job => {
                jobs.extend(job);
                Self::Several { jobs }
            }
        }
    }

    fn jobs(&self) -> &[JobReport] {
        match self {
            Self::One(job) => std::slice::from_ref(job),
            Self::Several { jobs } => jobs,
        }
    }

    /// What makes the run a failure.
    pub fn failure(&self) -> Option<String> {
        let errors: u64 = self.jobs().iter().map(|job| job.errors).sum();
        let first = self.jobs().iter().find_map(|job| job.first_error.as_deref())?;
        Some(if errors == 1 { first.to_owned() } else { format!("{errors} errors; the first: {first}") })
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        // Only numbers, texts and lists: nothing that JSON can't say. If it ever fails, the reader sees why.
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }

    /// A few lines for people.
    pub fn to_text(&self) -> String {
        self.jobs().iter().map(JobReport::to_text).collect::<Vec<_>>().join("\n")
    }
}

impl JobReport {
    fn new(results: &JobResults) -> Self {
        let job = &results.job;
        let seconds = results.elapsed.as_secs_f64().max(1e-9);
        let all = [&results.reads, &results.writes, &results.trims];
        let ios = all.iter().map(|direction| direction.latencies.count()).sum::<u64>();
        let bytes = all.iter().map(|direction| direction.bytes).sum::<u64>();
        Self {
            workload: Load::new(job, results.elapsed.as_secs_f64()),
            read: Direction::new(&results.reads, seconds),
            write: Direction::new(&results.writes, seconds),
            trim: Direction::new(&results.trims, seconds),
            flush: Direction::new(&results.flushes, seconds),
            total: Totals { ios, iops: ios as f64 / seconds, bytes_per_second: bytes as f64 / seconds },
            errors: results.errors,
            first_error: results.first_error.clone(),
            verified: results.verified,
            backlog: results.backlog,
        }
    }

    fn to_text(&self) -> String {
        let load = &self.workload;
        let mut text = format!(
            "{}: {} of {} bytes, depth {}, {} core(s) of {} queue(s), {:.1} s",
            load.target,
            load.rw,
            load.block_bytes,
            load.iodepth,
            load.cores,
            load.queues_per_core,
            load.seconds
        );
        for (name, direction) in
            [("read", &self.read), ("write", &self.write), ("trim", &self.trim), ("flush", &self.flush)]
        {
            let Some(direction) = direction else { continue };
            let latency = &direction.latency_ns;
            // Writing to a String can't fail.
            let _ = write!(
                text,
                "\n{name:>6}: {:.1} kIOPS, {:.3} GiB/s\n        latency us: min {:.1}, mean {:.1}",
                direction.iops / 1e3,
                direction.bytes_per_second / f64::from(1 << 30),
                latency.min as f64 / 1e3,
                latency.mean / 1e3,
            );
            for (name, nanoseconds) in latency.quantiles() {
                let _ = write!(text, ", {name} {:.1}", nanoseconds as f64 / 1e3);
            }
            let _ = write!(text, ", max {:.1}", latency.max as f64 / 1e3);
        }
        if self.verified > 0 {
            let _ = write!(text, "\nverified: {} I/Os hold what was written", self.verified);
        }
        if self.backlog > 0 {
            let _ = write!(text, "\nnot done in time: {} I/Os that were due", self.backlog);
        }
        text
    }
}

impl Load {
    fn new(job: &Job, seconds: f64) -> Self {
        let (header_digest, data_digest) = match &job.target {
            Target::NvmeTcp(target) => (target.header_digest, target.data_digest),
            Target::File { .. } => (false, false),
        };
        let read_percent = job.mode.read_percent(job.read_percent);
        let sizes = if read_percent > 0 { &job.read_sizes } else { &job.write_sizes };
        Self {
            name: job.name.clone(),
            target: job.target.to_string(),
            rw: job.mode.name(),
            read_percent,
            block_bytes: sizes.largest(),
            iodepth: job.depth,
            cores: job.cores.len(),
            queues_per_core: job.lanes,
            seconds,
            busy: job.busy,
            header_digest,
            data_digest,
        }
    }
}

impl Direction {
    fn new(measured: &Measured, seconds: f64) -> Option<Self> {
        let latencies = &measured.latencies;
        if latencies.count() == 0 {
            return None;
        }
        let (min, mean, max) = latencies.extent();
        let histogram = latencies.to_hdr().ok()?;
        let at = |quantile| histogram.value_at_quantile(quantile).clamp(min, max);
        let iops = latencies.count() as f64 / seconds;
        Some(Self {
            ios: latencies.count(),
            iops,
            bytes_per_second: measured.bytes as f64 / seconds,
            latency_ns: Latency {
                min,
                mean,
                max,
                p50: at(0.5),
                p90: at(0.9),
                p95: at(0.95),
                p99: at(0.99),
                p99_9: at(0.999),
                p99_99: at(0.9999),
                p99_999: at(0.99999),
            },
        })
    }
}

impl Latency {
    /// As people write them.
    fn quantiles(&self) -> [(&'static str, u64); 7] {
        [
            ("p50", self.p50),
            ("p90", self.p90),
            ("p95", self.p95),
            ("p99", self.p99),
            ("p99.9", self.p99_9),
            ("p99.99", self.p99_99),
            ("p99.999", self.p99_999),
        ]
    }
}
