//! The report in the shape of `fio --output-format=json`, version 3, for tools that read that.
//!
//! Keys, nesting, units and types are fio's. What is not measured here is there with a zero: submission latency
//! (`slat_ns`; all latency is completion latency), batch sizes, context switches and page faults, `sys_cpu` (`usr_cpu`
//! has all processor time of the reactors, shared out evenly among the jobs of a group), and `disk_util` is empty.
//! Options that a job file gave in `[global]` are in `job options`, where fio's tools look first.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::options;
use super::summary::{DIRECTIONS, Group, JobSummary, Latency, Rates, Report};
use crate::results::{JobResults, Second};

/// What this program says when it is asked for the version of fio that it stands for.
pub const VERSION: &str = concat!("fio-3.33-sledge-perf-", env!("CARGO_PKG_VERSION"));

/// fio's choice, and the last, which it does not print.
const PERCENTILES: [f64; 18] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99,
    99.999,
];

/// Upper ends of the buckets of each of the three latency distributions, and nanoseconds of their unit.
const BUCKETS: [u64; 10] = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000];

/// Directions that fio has, too.
const FIO_DIRECTIONS: usize = 3;

/// What fio reports as the error of a job whose I/O failed.
const EIO: u32 = 5;

/// One JSON object on several lines.
pub fn render(report: &Report) -> String {
    let jobs: Vec<Value> = report
        .jobs
        .iter()
        .filter_map(|job| Some(job_json(job, report.groups.get(job.group)?, jobs_beside(report, job))))
        .collect();
    let document = json!({
        // Tools look at what follows `fio-` to tell the units of latencies.
        "fio version": VERSION,
        "timestamp": report.began_unix_s,
        "timestamp_ms": report.began_unix_s * 1000,
        "time": date(report.began_unix_s),
        "global options": {},
        "jobs": jobs,
        "disk_util": [],
    });
    // Only numbers, texts and lists: nothing that JSON can't say. If it ever fails, the reader sees why.
    serde_json::to_string_pretty(&Ordered(&document))
        .unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
}

/// Keys in the order in which fio writes them: people read its reports, and some tools read them line by line.
const ORDER: [&str; 67] = [
    "fio version",
    "timestamp",
    "timestamp_ms",
    "time",
    "global options",
    "jobs",
    "jobname",
    "groupid",
    "error",
    "eta",
    "elapsed",
    "job options",
    "read",
    "write",
    "trim",
    "zeroes",
    "sync",
    "job_runtime",
    "usr_cpu",
    "sys_cpu",
    "ctx",
    "majf",
    "minf",
    "iodepth_level",
    "iodepth_submit",
    "iodepth_complete",
    "latency_ns",
    "latency_us",
    "latency_ms",
    "latency_depth",
    "latency_target",
    "latency_percentile",
    "latency_window",
    "steadystate",
    "disk_util",
    "io_bytes",
    "io_kbytes",
    "bw_bytes",
    "bw",
    "iops",
    "runtime",
    "total_ios",
    "short_ios",
    "drop_ios",
    "slat_ns",
    "clat_ns",
    "lat_ns",
    "min",
    "max",
    "mean",
    "stddev",
    "N",
    "percentile",
    "bw_min",
    "bw_max",
    "bw_agg",
    "bw_mean",
    "bw_dev",
    "bw_samples",
    "iops_min",
    "iops_max",
    "iops_mean",
    "iops_stddev",
    "iops_samples",
    "ss",
    "duration",
    "attained",
];

/// A value whose objects have their keys in fio's order; numbers among them rise, and what is not known comes last.
struct Ordered<'a>(&'a Value);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(list) => serializer.collect_seq(list.iter().map(Ordered)),
            Value::Object(map) => {
                let rank = |key: &str| match (key.parse::<f64>(), key.starts_with(">=")) {
                    (Ok(number), _) => number,
                    (_, true) => f64::MAX,
                    _ => ORDER.iter().position(|known| *known == key).unwrap_or(ORDER.len()) as f64,
                };
                let mut entries: Vec<(&String, Ordered<'_>)> =
                    map.iter().map(|(key, value)| (key, Ordered(value))).collect();
                entries.sort_by(|one, other| rank(one.0).total_cmp(&rank(other.0)));
                serializer.collect_map(entries)
            }
            plain => plain.serialize(serializer),
        }
    }
}

fn jobs_beside(report: &Report, job: &JobSummary) -> usize {
    report.jobs.iter().filter(|other| other.group == job.group).count()
}

fn job_json(job: &JobSummary, group: &Group, jobs: usize) -> Value {
    let results = &job.results;
    let elapsed = results.elapsed.as_secs_f64();
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| {
        object.insert(key.to_owned(), value);
    };
    put("jobname", json!(results.job.name));
    put("groupid", json!(job.group));
    put("error", json!(if results.errors > 0 { EIO } else { 0 }));
    put("eta", json!(0));
    let whole = results.job.start_delay + results.job.ramp + results.elapsed;
    put("elapsed", json!(whole.as_secs_f64().ceil() as u64));
    let asked = options::fio_options(&results.job);
    put("job options", asked.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect());
    let used = if job.sums.total.ios > 0 { elapsed } else { 0.0 };
    for (index, name) in DIRECTIONS.into_iter().enumerate() {
        let (mine, all) = (&job.sums.directions[index], &group.sums.directions[index]);
        // fio has no writes of zeroes.
        if index >= FIO_DIRECTIONS && mine.ios == 0 {
            continue;
        }
        put(name, direction(mine, all, index, used, results));
    }
    put("sync", sync(&job.sums.flushes, &results.job.percentiles));
    put("job_runtime", json!(milliseconds(elapsed)));
    let cpu = group.host_cpu.map_or(0.0, |cpu| cpu.as_secs_f64()) / jobs.max(1) as f64;
    put("usr_cpu", json!(if elapsed > 0.0 { cpu / elapsed * 100.0 } else { 0.0 }));
    put("sys_cpu", json!(0.0));
    for key in ["ctx", "majf", "minf"] {
        put(key, json!(0));
    }
    put("iodepth_level", depth(job));
    for key in ["iodepth_submit", "iodepth_complete"] {
        let zeros = ["0", "4", "8", "16", "32", "64", ">=64"].map(|key| (key.to_owned(), json!(0.0)));
        put(key, Value::Object(zeros.into_iter().collect()));
    }
    for (key, unit) in [("latency_ns", 1), ("latency_us", 1000), ("latency_ms", 1_000_000)] {
        put(key, distribution(job.sums.total.latency.as_ref(), unit));
    }
    put("latency_depth", json!(results.job.depth));
    put("latency_target", json!(0));
    put("latency_percentile", json!(100.0));
    put("latency_window", json!(0));
    if let (Some(asked), Some(attained)) = (&results.job.steady, results.steady) {
        let (ss, duration) = (asked.name(), asked.window.as_secs());
        put("steadystate", json!({ "ss": ss, "duration": duration, "attained": u8::from(attained) }));
    }
    Value::Object(object)
}

fn sync(flushes: &Rates, asked: &[f64]) -> Value {
    json!({ "total_ios": flushes.ios, "lat_ns": latency(flushes.latency.as_ref(), Some(asked)) })
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3).round() as u64
}

fn direction(rates: &Rates, group: &Rates, index: usize, elapsed: f64, results: &JobResults) -> Value {
    let (seconds, asked) = (&results.seconds, Some(results.job.percentiles.as_slice()));
    let is_used = rates.ios > 0;
    let share =
        if group.bytes_per_second > 0.0 { rates.bytes_per_second / group.bytes_per_second } else { 0.0 };
    let bw = Samples::new(seconds, is_used, |second| second.bytes[index] as f64 / 1024.0);
    let iops = Samples::new(seconds, is_used, |second| second.ios[index] as f64);
    json!({
        "io_bytes": rates.bytes,
        "io_kbytes": rates.bytes / 1024,
        "bw_bytes": rates.bytes_per_second as u64,
        "bw": (rates.bytes_per_second / 1024.0) as u64,
        "iops": rates.iops,
        "runtime": if is_used { milliseconds(elapsed) } else { 0 },
        "total_ios": rates.ios,
        "short_ios": 0,
        "drop_ios": 0,
        "slat_ns": latency(None, None),
        "clat_ns": latency(rates.latency.as_ref(), asked),
        "lat_ns": latency(rates.latency.as_ref(), asked),
        "bw_min": bw.min as u64,
        "bw_max": bw.max as u64,
        "bw_agg": share * 100.0,
        "bw_mean": bw.mean,
        "bw_dev": bw.deviation,
        "bw_samples": bw.count,
        "iops_min": iops.min as u64,
        "iops_max": iops.max as u64,
        "iops_mean": iops.mean,
        "iops_stddev": iops.deviation,
        "iops_samples": iops.count,
    })
}

/// Without latencies there are zeros, and no percentiles. An empty list stands for fio's own.
fn latency(latency: Option<&Latency>, percentiles: Option<&[f64]>) -> Value {
    let Some(latency) = latency else {
        return json!({ "min": 0, "max": 0, "mean": 0.0, "stddev": 0.0, "N": 0 });
    };
    let mut object = json!({
        "min": latency.min,
        "max": latency.max,
        "mean": latency.mean,
        "stddev": latency.stddev,
        "N": latency.count(),
    });
    if let Some(asked) = percentiles {
        let list = if asked.is_empty() { PERCENTILES.as_slice() } else { asked };
        let one = |percent: &f64| (format!("{percent:.6}"), json!(latency.percentile(*percent)));
        let all = list.iter().map(one);
        object["percentile"] = Value::Object(all.collect());
    }
    object
}

/// What the seconds of a run have in common.
#[derive(Default)]
struct Samples {
    count: usize,
    min: f64,
    max: f64,
    mean: f64,
    deviation: f64,
}

impl Samples {
    /// Rates of each second; a last one that is too short to say anything is left out.
    fn new(seconds: &[Second], is_used: bool, amount: impl Fn(&Second) -> f64) -> Self {
        let enough = |second: &&Second| seconds.len() == 1 || second.length.as_secs_f64() >= 0.5;
        let rates: Vec<f64> = seconds
            .iter()
            .filter(|second| is_used && !second.length.is_zero())
            .filter(enough)
            .map(|second| amount(second) / second.length.as_secs_f64())
            .collect();
        if rates.is_empty() {
            return Self::default();
        }
        let count = rates.len();
        let mean = rates.iter().sum::<f64>() / count as f64;
        let squares: f64 = rates.iter().map(|rate| (rate - mean).powi(2)).sum();
        Self {
            count,
            min: rates.iter().copied().fold(f64::INFINITY, f64::min),
            max: rates.iter().copied().fold(0.0, f64::max),
            mean,
            deviation: (squares / (count.max(2) - 1) as f64).sqrt(),
        }
    }
}

/// A closed loop keeps its depth all the time; of an open loop it is not known.
fn depth(job: &JobSummary) -> Value {
    let levels = [(1, "1"), (2, "2"), (4, "4"), (8, "8"), (16, "16"), (32, "32"), (64, ">=64")];
    let asked = &job.results.job;
    let is_kept = asked.rate_iops.is_none() && asked.think_time.is_zero() && job.sums.total.ios > 0;
    let reached = levels.iter().rev().find(|(level, _)| asked.depth >= *level).filter(|_| is_kept);
    let shares = levels.iter().map(|level| {
        let share = if Some(level) == reached { 100.0 } else { 0.0 };
        (level.1.to_owned(), json!(share))
    });
    Value::Object(shares.collect())
}

/// Percentages of latencies below each bound and not below the one before, for one of the three units.
fn distribution(latency: Option<&Latency>, unit: u64) -> Value {
    let share = |from, below| latency.map_or(0.0, |latency| latency.share(from, below) * 100.0);
    let mut object = Map::new();
    // The distribution of a unit begins where that of the unit below it ends.
    let mut from = if unit == 1 { 0 } else { unit };
    for bound in BUCKETS {
        object.insert(bound.to_string(), json!(share(from, bound * unit)));
        from = bound * unit;
    }
    if unit == 1_000_000 {
        object.insert("2000".into(), json!(share(from, 2000 * unit)));
        object.insert(">=2000".into(), json!(share(2000 * unit, u64::MAX)));
    }
    Value::Object(object)
}

/// A time as C's `ctime` writes it, in UTC.
pub fn date(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    // Years are counted from March, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(days % 7) as usize];
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday} {} {day:2} {hour:02}:{minute:02}:{second:02} {year}", names[month as usize])
}
