//! The report for programs. `docs/sledge-perf.md` describes each field.
//!
//! Schema 1. Within a schema fields are only added; taking one away or changing its meaning makes it schema 2.
//! Units are in the names: `_s` seconds, `_ns` nanoseconds, `_us` microseconds; all else is bytes or a count.

use serde::Serialize;

use super::summary::{Group, JobSummary, Latency, Rates, Report, Sums};
use crate::job::{Arrivals, Distribution, Job, SizeSplit, SteadyState};
use crate::results::Second;

/// Number of the schema.
const SCHEMA: u32 = 1;

/// One JSON object on several lines.
pub fn render(report: &Report) -> String {
    let document = Document {
        schema: SCHEMA,
        program: "sledge-perf",
        version: env!("CARGO_PKG_VERSION"),
        began_unix_s: report.began_unix_s,
        elapsed_s: report.overall.elapsed.as_secs_f64(),
        errors: report.errors(),
        first_error: report.jobs.iter().find_map(|job| job.results.first_error.as_deref()),
        verified: report.verified(),
        backlog: report.backlog(),
        sums: sums(&report.overall, None),
        groups: report.groups.iter().map(group).collect(),
        jobs: report.jobs.iter().map(job).collect(),
    };
    // Only numbers, texts and lists: nothing that JSON can't say. If it ever fails, the reader sees why.
    serde_json::to_string_pretty(&document).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    program: &'static str,
    version: &'static str,
    began_unix_s: u64,
    elapsed_s: f64,
    errors: u64,
    first_error: Option<&'a str>,
    verified: u64,
    backlog: u64,
    #[serde(flatten)]
    sums: SumsJson,
    groups: Vec<GroupJson>,
    jobs: Vec<JobJson<'a>>,
}

/// Directions without I/O are left out.
#[derive(Serialize)]
struct SumsJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    read: Option<RatesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    write: Option<RatesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trim: Option<RatesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zeroes: Option<RatesJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flush: Option<RatesJson>,
    total: RatesJson,
}

#[derive(Serialize)]
struct RatesJson {
    ios: u64,
    bytes: u64,
    iops: f64,
    bytes_per_second: f64,
    latency_ns: Option<LatencyJson>,
}

#[derive(Serialize)]
struct LatencyJson {
    min: u64,
    mean: f64,
    stddev: f64,
    max: u64,
    p1: u64,
    p5: u64,
    p10: u64,
    p25: u64,
    p50: u64,
    p75: u64,
    p90: u64,
    p95: u64,
    p99: u64,
    p99_5: u64,
    p99_9: u64,
    p99_95: u64,
    p99_99: u64,
    p99_999: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percentiles: Vec<(f64, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    histogram: Vec<(u64, u64)>,
}

#[derive(Serialize)]
struct GroupJson {
    began_unix_s: u64,
    elapsed_s: f64,
    host_cpu_s: Option<f64>,
    target_cpu_s: Option<f64>,
    host_cpu_us_per_io: Option<f64>,
    target_cpu_us_per_io: Option<f64>,
    #[serde(flatten)]
    sums: SumsJson,
}

#[derive(Serialize)]
struct JobJson<'a> {
    name: &'a str,
    group: usize,
    options: OptionsJson,
    elapsed_s: f64,
    errors: u64,
    first_error: Option<&'a str>,
    verified: u64,
    backlog: u64,
    steady: Option<bool>,
    #[serde(flatten)]
    sums: SumsJson,
    seconds: Vec<SecondJson>,
}

#[derive(Serialize)]
struct OptionsJson {
    target: String,
    rw: &'static str,
    read_percent: u8,
    trim_percent: u8,
    zeroes_percent: u8,
    read_sizes: Vec<SizeJson>,
    write_sizes: Vec<SizeJson>,
    stride: i64,
    run: u32,
    identical: bool,
    zones: Option<ZonesJson>,
    read_iolog: Option<String>,
    write_iolog: Option<String>,
    random_distribution: &'static str,
    random_parameter: Option<f64>,
    random_zones: Vec<(u8, u8)>,
    random_percent: u8,
    align: Option<u32>,
    iodepth: u16,
    lanes_per_core: u16,
    cores: Vec<usize>,
    offset: u64,
    size: Option<u64>,
    io_bytes: Option<u64>,
    io_count: Option<u64>,
    start_delay_s: f64,
    ramp_s: f64,
    time_s: f64,
    rate_iops: Option<f64>,
    arrivals: &'static str,
    think_time_us: f64,
    fua: bool,
    flush_every: Option<u32>,
    verify: bool,
    read_back: bool,
    verify_state: Option<String>,
    steady: Option<String>,
    steady_window_s: Option<f64>,
    steady_after_s: Option<f64>,
    ends_all: bool,
    seed: u64,
    busy: bool,
}

#[derive(Serialize)]
struct ZonesJson {
    zonesize: u64,
    zonerange: u64,
    zoneskip: u64,
}

#[derive(Serialize)]
struct SizeJson {
    bytes: u32,
    percent: u8,
}

#[derive(Serialize)]
struct SecondJson {
    length_s: f64,
    read_iops: f64,
    write_iops: f64,
    trim_iops: f64,
    zeroes_iops: f64,
    read_bytes: u64,
    write_bytes: u64,
    trim_bytes: u64,
    zeroes_bytes: u64,
    p50_ns: u64,
    p99_ns: u64,
}

/// Of one job, with what is only told of jobs: percentiles that were asked for, and the histogram.
fn sums(sums: &Sums, job: Option<&Job>) -> SumsJson {
    let [read, write, trim, zeroes] =
        sums.directions.each_ref().map(|one| (one.ios > 0).then(|| rates(one, job)));
    let flush = (sums.flushes.ios > 0).then(|| rates(&sums.flushes, job));
    SumsJson { read, write, trim, zeroes, flush, total: rates(&sums.total, None) }
}

fn rates(rates: &Rates, job: Option<&Job>) -> RatesJson {
    RatesJson {
        ios: rates.ios,
        bytes: rates.bytes,
        iops: rates.iops,
        bytes_per_second: rates.bytes_per_second,
        latency_ns: rates.latency.as_ref().map(|latencies| latency(latencies, job)),
    }
}

fn latency(latency: &Latency, job: Option<&Job>) -> LatencyJson {
    let at = |percent| latency.percentile(percent);
    LatencyJson {
        min: latency.min,
        mean: latency.mean,
        stddev: latency.stddev,
        max: latency.max,
        p1: at(1.0),
        p5: at(5.0),
        p10: at(10.0),
        p25: at(25.0),
        p50: at(50.0),
        p75: at(75.0),
        p90: at(90.0),
        p95: at(95.0),
        p99: at(99.0),
        p99_5: at(99.5),
        p99_9: at(99.9),
        p99_95: at(99.95),
        p99_99: at(99.99),
        p99_999: at(99.999),
        percentiles: job
            .into_iter()
            .flat_map(|job| &job.percentiles)
            .map(|asked| (*asked, at(*asked)))
            .collect(),
        histogram: job.map_or(Vec::new(), |_| latency.recorded().collect()),
    }
}

fn group(group: &Group) -> GroupJson {
    GroupJson {
        began_unix_s: group.began_unix_s,
        elapsed_s: group.sums.elapsed.as_secs_f64(),
        host_cpu_s: group.host_cpu.map(|cpu| cpu.as_secs_f64()),
        target_cpu_s: group.target_cpu.map(|cpu| cpu.as_secs_f64()),
        host_cpu_us_per_io: group.host_us_per_io(),
        target_cpu_us_per_io: group.target_us_per_io(),
        sums: sums(&group.sums, None),
    }
}

fn job(job: &JobSummary) -> JobJson<'_> {
    JobJson {
        name: &job.results.job.name,
        group: job.group,
        options: asked(&job.results.job),
        elapsed_s: job.results.elapsed.as_secs_f64(),
        errors: job.results.errors,
        first_error: job.results.first_error.as_deref(),
        verified: job.results.verified,
        backlog: job.results.backlog,
        steady: job.results.steady,
        sums: sums(&job.sums, Some(&job.results.job)),
        seconds: job.results.seconds.iter().map(second).collect(),
    }
}

fn asked(job: &Job) -> OptionsJson {
    let (random_distribution, random_parameter) = match job.distribution {
        Distribution::Uniform => ("uniform", None),
        Distribution::Zipf(theta) => ("zipf", Some(theta)),
        Distribution::Pareto(h) => ("pareto", Some(h)),
        Distribution::Zoned(_) => ("zoned", None),
    };
    let random_zones = match job.distribution {
        Distribution::Zoned(zones) => zones.parts().to_vec(),
        _ => Vec::new(),
    };
    OptionsJson {
        target: job.target.to_string(),
        rw: job.mode.name(),
        read_percent: job.read_percent,
        trim_percent: job.trim_percent,
        zeroes_percent: job.zeroes_percent,
        read_sizes: sizes(&job.read_sizes),
        write_sizes: sizes(&job.write_sizes),
        stride: job.walk.stride,
        run: job.walk.run,
        identical: job.walk.again,
        zones: job.walk.zones.map(|zones| ZonesJson {
            zonesize: zones.size,
            zonerange: zones.range,
            zoneskip: zones.skip,
        }),
        read_iolog: job.trace.as_ref().map(|trace| trace.rules.path.display().to_string()),
        write_iolog: job.record.as_ref().map(|path| path.display().to_string()),
        random_distribution,
        random_parameter,
        random_zones,
        random_percent: job.random_percent,
        align: job.align,
        iodepth: job.depth,
        lanes_per_core: job.lanes,
        cores: job.cores.clone(),
        offset: job.offset,
        size: job.size,
        io_bytes: job.io_bytes,
        io_count: job.io_count,
        start_delay_s: job.start_delay.as_secs_f64(),
        ramp_s: job.ramp.as_secs_f64(),
        time_s: job.time.as_secs_f64(),
        rate_iops: job.rate_iops,
        arrivals: match job.arrivals {
            Arrivals::Even => "even",
            Arrivals::Poisson => "poisson",
        },
        think_time_us: job.think_time.as_secs_f64() * 1e6,
        fua: job.fua,
        flush_every: job.flush_every,
        verify: job.verify,
        read_back: job.read_back,
        verify_state: job.verify_state.as_ref().map(|path| path.display().to_string()),
        steady: job.steady.as_ref().map(SteadyState::name),
        steady_window_s: job.steady.map(|steady| steady.window.as_secs_f64()),
        steady_after_s: job.steady.map(|steady| steady.after.as_secs_f64()),
        ends_all: job.ends_all,
        seed: job.seed,
        busy: job.busy,
    }
}

fn sizes(split: &SizeSplit) -> Vec<SizeJson> {
    split.0.iter().map(|(bytes, percent)| SizeJson { bytes: *bytes, percent: *percent }).collect()
}

fn second(second: &Second) -> SecondJson {
    let length_s = second.length.as_secs_f64();
    let [read_iops, write_iops, trim_iops, zeroes_iops] =
        second.ios.map(|ios| if length_s > 0.0 { ios as f64 / length_s } else { 0.0 });
    let [read_bytes, write_bytes, trim_bytes, zeroes_bytes] = second.bytes;
    let (p50_ns, p99_ns) = (second.p50_ns, second.p99_ns);
    SecondJson {
        length_s,
        read_iops,
        write_iops,
        trim_iops,
        zeroes_iops,
        read_bytes,
        write_bytes,
        trim_bytes,
        zeroes_bytes,
        p50_ns,
        p99_ns,
    }
}
