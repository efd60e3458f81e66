//! What a run measured, for people and for programs.

use crate::arguments::RunOptions;
use crate::histogram::Latencies;
use crate::worker::Outcome;
use serde::Serialize;
use std::fmt::Write;

/// A whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    workload: Load,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<Direction>,
    total: Totals,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
    /// Units whose content was checked.
    verified: u64,
}

/// What was asked for.
#[derive(Debug, Serialize)]
struct Load {
    rw: &'static str,
    read_percent: u8,
    block_bytes: u64,
    iodepth: usize,
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
    /// Puts together what the workers measured.
    pub fn new(options: &RunOptions, outcomes: &[Outcome]) -> Self {
        let (mut reads, mut writes) = (Latencies::new(), Latencies::new());
        for outcome in outcomes {
            reads.merge(&outcome.reads);
            writes.merge(&outcome.writes);
        }
        let longest = outcomes.iter().map(|outcome| outcome.elapsed.as_secs_f64()).fold(0.0, f64::max);
        let seconds = longest.max(1e-9);
        let ios = reads.count() + writes.count();
        let iops = ios as f64 / seconds;
        Self {
            workload: Load {
                rw: options.rw.name(),
                read_percent: options.rw.read_percent(options.rwmix),
                block_bytes: options.bs,
                iodepth: outcomes.iter().map(|outcome| outcome.depth).min().unwrap_or(0),
                cores: outcomes.len(),
                queues_per_core: options.queues,
                seconds: longest,
                busy: options.busy,
                header_digest: options.header_digest,
                data_digest: options.data_digest,
            },
            read: Direction::new(&reads, options.bs, seconds),
            write: Direction::new(&writes, options.bs, seconds),
            total: Totals { ios, iops, bytes_per_second: iops * options.bs as f64 },
            errors: outcomes.iter().map(|outcome| outcome.errors).sum(),
            first_error: outcomes.iter().find_map(|outcome| outcome.first_error.clone()),
            verified: outcomes.iter().map(|outcome| outcome.verified).sum(),
        }
    }

    /// What makes the run a failure.
    pub fn failure(&self) -> Option<String> {
        let first = self.first_error.as_deref()?;
        Some(if self.errors == 1 {
            first.to_owned()
        } else {
            format!("{} errors; the first: {first}", self.errors)
        })
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        // Only numbers, texts and lists: nothing that JSON can't say. If it ever fails, the reader sees why.
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }

    /// A few lines for people.
    pub fn to_text(&self) -> String {
        let load = &self.workload;
        let mut text = format!(
            "{} of {} bytes, depth {}, {} core(s) of {} queue(s), {:.1} s",
            load.rw, load.block_bytes, load.iodepth, load.cores, load.queues_per_core, load.seconds
        );
        for (name, direction) in [("read", &self.read), ("write", &self.write)] {
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
        text
    }
}

impl Direction {
    fn new(latencies: &Latencies, bytes: u64, seconds: f64) -> Option<Self> {
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
            bytes_per_second: iops * bytes as f64,
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
