//! What one turn measured, read from the report of its process.

use serde::Serialize;
use serde_json::Value;

use super::options::Metric;

/// Share of the I/Os, the fastest ones, that nothing held up.
const UNDISTURBED: f64 = 0.99;

/// Why a report has nothing to compare.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not such a report.
    #[error("the report of a turn has no {0}")]
    Lacking(&'static str),
    /// No I/O ended in the time.
    #[error("no I/O ended in a whole turn: use a longer --round-time")]
    NoIo,
}

/// One turn: I/Os and bytes a second, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    iops: f64,
    /// None when the load is no closed loop.
    steady_iops: Option<f64>,
    bytes_per_second: f64,
    mean_ns: f64,
    p50_ns: f64,
    p90_ns: f64,
    p99_ns: f64,
    p99_9_ns: f64,
    /// Processor time for each I/O, where it is known.
    host_cpu_ns: Option<f64>,
    target_cpu_ns: Option<f64>,
}

impl Sample {
    /// Reads the report that `run --json` or `limit --json` prints.
    ///
    /// # Errors
    /// What it has not.
    pub fn read(output: &[u8]) -> Result<Self, Unreadable> {
        let report: Value = serde_json::from_slice(output).map_err(|_| Unreadable::Lacking("JSON"))?;
        let total = &report["total"];
        let number = |value: &Value, name| value.as_f64().ok_or(Unreadable::Lacking(name));
        if number(&total["iops"], "IOPS")? == 0.0 {
            return Err(Unreadable::NoIo);
        }
        let latency = &total["latency_ns"];
        Ok(Self {
            iops: number(&total["iops"], "IOPS")?,
            steady_iops: steady(&report),
            bytes_per_second: number(&total["bytes_per_second"], "bandwidth")?,
            mean_ns: number(&latency["mean"], "mean latency")?,
            p50_ns: number(&latency["p50"], "p50")?,
            p90_ns: number(&latency["p90"], "p90")?,
            p99_ns: number(&latency["p99"], "p99")?,
            p99_9_ns: number(&latency["p99_9"], "p99.9")?,
            host_cpu_ns: cpu(&report, "host_cpu_us_per_io"),
            target_cpu_ns: cpu(&report, "target_cpu_us_per_io"),
        })
    }

    /// One of its values.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Iops => Some(self.iops),
            Metric::Steady => self.steady_iops,
            Metric::Bandwidth => Some(self.bytes_per_second),
            Metric::Mean => Some(self.mean_ns),
            Metric::P50 => Some(self.p50_ns),
            Metric::P90 => Some(self.p90_ns),
            Metric::P99 => Some(self.p99_ns),
            Metric::P99_9 => Some(self.p99_9_ns),
            Metric::HostCpu => self.host_cpu_ns,
            Metric::TargetCpu => self.target_cpu_ns,
        }
    }
}

/// Processor time for each I/O in nanoseconds: of a run's only group, or of the limit. None of it is as good as unknown.
fn cpu(report: &Value, name: &str) -> Option<f64> {
    let micros = report[name].as_f64().or_else(|| report["groups"][0][name].as_f64());
    micros.map(|micros| micros * 1e3).filter(|cpu| *cpu > 0.0)
}

/// I/Os a second while nothing held the turn up: by Little's law, outstanding I/Os over their mean latency, of the
/// fastest I/Os only. An interruption of 50 ms costs a turn of half a second a tenth of its I/Os, but only those that
/// were outstanding then have a long latency.
fn steady(report: &Value) -> Option<f64> {
    let own = std::slice::from_ref(report);
    let jobs = report["jobs"].as_array().map_or(own, Vec::as_slice);
    let mut outstanding = 0.0;
    let mut latencies: Vec<(f64, f64)> = Vec::new();
    for job in jobs {
        outstanding += places(job)?;
        for direction in ["read", "write", "trim"] {
            let pairs = job[direction]["latency_ns"]["histogram"].as_array();
            latencies.extend(
                pairs.into_iter().flatten().filter_map(|pair| Some((pair[0].as_f64()?, pair[1].as_f64()?))),
            );
        }
    }
    latencies.sort_by(|one, other| one.0.total_cmp(&other.0));
    let count: f64 = latencies.iter().map(|(_, count)| count).sum::<f64>() * UNDISTURBED;
    let mut left = count;
    let mut sum = 0.0;
    for (latency, many) in latencies {
        let many = many.min(left);
        sum += latency * many;
        left -= many;
    }
    (sum > 0.0).then(|| outstanding * 1e9 * count / sum)
}

/// I/Os that a job of a run, or the limit, keeps outstanding; none when it doesn't keep a number of them.
fn places(job: &Value) -> Option<f64> {
    let (options, limit) = (&job["options"], &job["workload"]);
    if options.is_object() {
        if !options["rate_iops"].is_null() || options["think_time_us"].as_f64()? > 0.0 {
            return None;
        }
        let cores = options["cores"].as_array()?.len() as f64;
        return Some(options["iodepth"].as_f64()? * options["lanes_per_core"].as_f64()? * cores);
    }
    Some(limit["iodepth"].as_f64()? * limit["connections"].as_f64()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    // Without it an interruption could count as slowness of a side, or an open loop be taken for a closed one.
    #[test]
    fn steady_iops_leave_interruptions_out() {
        let histogram = |rare: u64| json!([[10_000, 9_990], [50_000_000, rare]]);
        let limit = |rare| {
            json!({
                "workload": {"iodepth": 4, "connections": 8},
                "read": {"latency_ns": {"histogram": histogram(rare)}},
            })
        };
        let (undisturbed, disturbed) = (steady(&limit(0)).unwrap(), steady(&limit(10)).unwrap());
        assert!((undisturbed - 3_200_000.0).abs() < 1.0, "{undisturbed}");
        assert!((disturbed - 3_200_000.0).abs() < 1.0, "{disturbed}");
        let run = |think: f64| {
            json!({"jobs": [{
                "options": {"iodepth": 2, "lanes_per_core": 2, "cores": [1, 3], "rate_iops": null, "think_time_us": think},
                "write": {"latency_ns": {"histogram": histogram(10)}},
            }]})
        };
        assert!((steady(&run(0.0)).unwrap() - 800_000.0).abs() < 1.0);
        assert_eq!(steady(&run(5.0)), None);
        let of_run = json!({"groups": [{"host_cpu_us_per_io": 2.5, "target_cpu_us_per_io": 0.0}]});
        assert_eq!(cpu(&of_run, "host_cpu_us_per_io"), Some(2500.0));
        assert_eq!(cpu(&of_run, "target_cpu_us_per_io"), None, "nothing can be divided by it");
        assert_eq!(cpu(&json!({"host_cpu_us_per_io": 1.0}), "host_cpu_us_per_io"), Some(1000.0));
        assert_eq!(Sample::read(b"{}"), Err(Unreadable::Lacking("IOPS")));
        assert_eq!(Sample::read(br#"{"total": {"iops": 0.0}}"#), Err(Unreadable::NoIo));
    }
}
