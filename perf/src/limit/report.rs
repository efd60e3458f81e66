//! What the limit was, for people and for programs.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::client::Measured;
use super::options::{Core, LimitOptions};
use super::stream::Calls;
use crate::histogram::Latencies;

/// A whole report.
#[derive(Clone, Debug, Serialize)]
pub struct LimitReport {
    workload: Load,
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<Direction>,
    total: Totals,
    /// Processor time of the asking thread for each I/O, in microseconds.
    host_cpu_us_per_io: Option<f64>,
    /// That of the answering thread.
    target_cpu_us_per_io: Option<f64>,
    /// System calls of the client while it measured.
    client: Calls,
    /// System calls of the server from start to end.
    server: Calls,
}

#[derive(Clone, Debug, Serialize)]
struct Load {
    rw: &'static str,
    read_percent: u8,
    block_bytes: u64,
    iodepth: u16,
    connections: u16,
    seconds: f64,
    server_core: Option<usize>,
    client_core: Option<usize>,
    header_digest: bool,
    data_digest: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Totals {
    ios: u64,
    iops: f64,
    bytes_per_second: f64,
    latency_ns: Option<Latency>,
}

#[derive(Clone, Debug, Serialize)]
struct Direction {
    ios: u64,
    iops: f64,
    bytes_per_second: f64,
    latency_ns: Latency,
}

/// Nanoseconds.
#[derive(Clone, Debug, Serialize)]
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
    /// Pairs of a latency and how many I/Os had it; only of a direction.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    histogram: Vec<(u64, u64)>,
}

impl LimitReport {
    /// Puts together what was measured.
    pub fn new(options: &LimitOptions, measured: &Measured, server: Calls) -> Self {
        let seconds = measured.elapsed.as_secs_f64().max(1e-9);
        let ios = measured.reads.count() + measured.writes.count();
        let iops = ios as f64 / seconds;
        let per_io =
            |cpu: Option<Duration>| cpu.filter(|_| ios > 0).map(|cpu| cpu.as_secs_f64() * 1e6 / ios as f64);
        let mut all = measured.reads.clone();
        all.merge(&measured.writes);
        let core = |core| match core {
            Core::Number(number) => Some(number),
            Core::Any => None,
        };
        Self {
            workload: Load {
                rw: options.rw.name(),
                read_percent: options.rw.read_percent(options.rwmix),
                block_bytes: options.bs,
                iodepth: options.iodepth,
                connections: options.connections,
                seconds,
                server_core: core(options.server_core),
                client_core: core(options.client_core),
                header_digest: options.header_digest,
                data_digest: options.data_digest,
            },
            read: Direction::new(&measured.reads, options.bs, seconds),
            write: Direction::new(&measured.writes, options.bs, seconds),
            total: Totals {
                ios,
                iops,
                bytes_per_second: iops * options.bs as f64,
                latency_ns: Latency::new(&all, false),
            },
            host_cpu_us_per_io: per_io(measured.cpu[0]),
            target_cpu_us_per_io: per_io(measured.cpu[1]),
            client: measured.calls,
            server,
        }
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
            "socket limit: {} of {} bytes, depth {}, {} connection(s), {:.1} s",
            load.rw, load.block_bytes, load.iodepth, load.connections, load.seconds
        );
        for (name, direction) in [("read", &self.read), ("write", &self.write)] {
            let Some(direction) = direction else { continue };
            let latency = &direction.latency_ns;
            let us = |nanoseconds: u64| nanoseconds as f64 / 1e3;
            // Writing to a String can't fail.
            let _ = write!(
                text,
                "\n{name:>6}: {:.1} kIOPS, {:.3} GiB/s\n        latency us: min {:.1}, mean {:.1}, p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, p99.99 {:.1}, max {:.1}",
                direction.iops / 1e3,
                direction.bytes_per_second / f64::from(1 << 30),
                us(latency.min),
                latency.mean / 1e3,
                us(latency.p50),
                us(latency.p90),
                us(latency.p99),
                us(latency.p99_9),
                us(latency.p99_99),
                us(latency.max),
            );
        }
        let each = |calls: u64| self.total.ios as f64 / calls.max(1) as f64;
        let _ = write!(
            text,
            "\nclient: {:.1} I/Os each send, {:.1} each receive",
            each(self.client.sends),
            each(self.client.receives)
        );
        text
    }
}

impl Direction {
    fn new(latencies: &Latencies, bytes: u64, seconds: f64) -> Option<Self> {
        let iops = latencies.count() as f64 / seconds;
        Some(Self {
            ios: latencies.count(),
            iops,
            bytes_per_second: iops * bytes as f64,
            latency_ns: Latency::new(latencies, true)?,
        })
    }
}

impl Latency {
    /// None without any.
    fn new(latencies: &Latencies, with_histogram: bool) -> Option<Self> {
        if latencies.count() == 0 {
            return None;
        }
        let (min, mean, max) = latencies.extent();
        let histogram = latencies.to_hdr().ok()?;
        let at = |quantile| histogram.value_at_quantile(quantile).clamp(min, max);
        let recorded = histogram.iter_recorded();
        let recorded = recorded.map(|step| (step.value_iterated_to(), step.count_since_last_iteration()));
        Some(Self {
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
            histogram: if with_histogram { recorded.collect() } else { Vec::new() },
        })
    }
}
