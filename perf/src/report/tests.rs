//! Reports of constructed results: what is measured is known, so what is reported can be checked.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::Value;

use super::{Format, Report, merge_jobs};
use crate::histogram::Latencies;
use crate::job::{Distribution, Job, Mode, SizeSplit, Target};
use crate::results::{Direction, JobResults, Results, Second};

fn job(name: &str, mode: Mode) -> Job {
    Job {
        name: name.into(),
        mode,
        write_sizes: SizeSplit(vec![(4096, 50), (8192, 50)]),
        distribution: Distribution::Zipf(1.2),
        cores: vec![1],
        size: Some(1 << 30),
        ramp: Duration::from_secs(1),
        time: Duration::from_secs(2),
        verify: true,
        busy: true,
        ..Job::new("nvme-tcp://127.0.0.1/nqn.2016-06.io.spdk:cnode1".parse::<Target>().unwrap())
    }
}

/// Latencies of 1, 2, 3 .. `count` microseconds.
fn direction(count: u64) -> Direction {
    let mut latencies = Latencies::new();
    (1..=count).for_each(|micros| latencies.record(micros * 1000));
    Direction { latencies, bytes: count * 4096 }
}

fn second(length_ms: u64, reads: u64, writes: u64) -> Second {
    Second {
        length: Duration::from_millis(length_ms),
        ios: [reads, writes, 0, 0],
        bytes: [reads * 4096, writes * 4096, 0, 0],
        p50_ns: 10_000,
        p99_ns: 90_000,
    }
}

/// 7,000 reads, 3,000 writes in two seconds and a bit.
pub fn measured(name: &str) -> JobResults {
    JobResults {
        job: job(name, Mode::Randrw),
        reads: direction(7000),
        writes: direction(3000),
        trims: direction(0),
        zeroes: direction(0),
        flushes: direction(0),
        elapsed: Duration::from_millis(2001),
        seconds: vec![second(1000, 3000, 1000), second(1000, 4000, 2000), second(1, 0, 0)],
        errors: 0,
        first_error: None,
        steady: None,
        verified: 6000,
        backlog: 0,
    }
}

fn run(jobs: Vec<JobResults>) -> Results {
    Results {
        began_unix_s: 1_795_277_483,
        jobs,
        host_cpu: Some(Duration::from_secs(2)),
        target_cpu: Some(Duration::from_secs(1)),
    }
}

fn parsed(report: &Report, format: Format) -> Value {
    serde_json::from_str(&report.render(format)).unwrap()
}

// Without it a benchmark script could read a rate over the wrong time or a percentile of the wrong rank.
#[test]
fn the_json_says_what_was_measured() {
    let report = Report::new(vec![run(vec![measured("a"), measured("b")]), run(vec![measured("c")])]);
    let json = parsed(&report, Format::Json);
    assert_eq!((&json["schema"], &json["errors"], &json["verified"]), (&1.into(), &0.into(), &18_000.into()));
    assert_eq!(json["jobs"][2]["group"], 1);
    let close = |value: &Value, expected: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - expected).abs() <= expected * 0.03, "{value} is not {expected}");
    };
    close(&json["jobs"][0]["read"]["iops"], 7000.0 / 2.001);
    close(&json["jobs"][0]["total"]["iops"], 10_000.0 / 2.001);
    close(&json["groups"][0]["total"]["iops"], 20_000.0 / 2.001);
    close(&json["total"]["iops"], 30_000.0 / 4.002);
    close(&json["groups"][0]["host_cpu_us_per_io"], 100.0);
    close(&json["jobs"][0]["read"]["latency_ns"]["p50"], 3.5e6);
    close(&json["jobs"][0]["read"]["latency_ns"]["p99_9"], 6.993e6);
    close(&json["jobs"][0]["write"]["latency_ns"]["max"], 3e6);
    close(&json["jobs"][0]["read"]["latency_ns"]["stddev"], 7e6 / 12f64.sqrt());
    let histogram = json["jobs"][0]["read"]["latency_ns"]["histogram"].as_array().unwrap();
    assert_eq!(histogram.iter().map(|bar| bar[1].as_u64().unwrap()).sum::<u64>(), 7000);
    assert_eq!(json["jobs"][0]["seconds"][1]["read_iops"], 4000.0);
    assert!(json.get("trim").is_none());
    assert_eq!(
        json["jobs"][0]["options"]["target"],
        "nvme-tcp://127.0.0.1:4420/nqn.2016-06.io.spdk:cnode1?nsid=1"
    );
}

fn keys(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            found.push(key.clone());
            keys(value, found);
        }),
        Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

// Without it the schema could grow a field that nobody described.
#[test]
fn every_field_of_the_json_is_documented() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/sledge-perf.md");
    let document = std::fs::read_to_string(document).unwrap();
    let mut found = Vec::new();
    keys(&parsed(&Report::new(vec![run(vec![measured("a")])]), Format::Json), &mut found);
    for key in found {
        assert!(document.contains(&format!("`{key}`")), "{key} is not in docs/sledge-perf.md");
    }
}

// Without it `--output-format=fio` could lose a key that plotting tools and benchmark scripts read.
#[test]
fn fio_shape_has_the_keys_that_tools_read() {
    let json = parsed(&Report::new(vec![run(vec![measured("a"), measured("b")])]), Format::Fio);
    assert_eq!(json["time"], "Sat Nov 21 16:11:23 2026");
    assert!(json["fio version"].as_str().unwrap().starts_with("fio-3."));
    let integer = |path: &str| assert!(at(&json, path).is_u64(), "{path} is no whole number");
    let float = |path: &str| assert!(at(&json, path).is_f64(), "{path} is no number with a fraction");
    integer("/timestamp");
    integer("/timestamp_ms");
    for key in ["groupid", "error", "eta", "elapsed", "job_runtime", "ctx", "majf", "minf", "latency_depth"] {
        integer(&format!("/jobs/0/{key}"));
    }
    for key in ["usr_cpu", "sys_cpu", "latency_percentile", "iodepth_level/32", "iodepth_submit/>=64"] {
        float(&format!("/jobs/0/{key}"));
    }
    for way in ["read", "write", "trim"] {
        for key in [
            "io_bytes",
            "io_kbytes",
            "bw_bytes",
            "bw",
            "runtime",
            "total_ios",
            "short_ios",
            "drop_ios",
            "bw_min",
            "bw_max",
            "bw_samples",
            "iops_min",
            "iops_max",
            "iops_samples",
            "slat_ns/N",
            "clat_ns/min",
            "clat_ns/max",
            "clat_ns/N",
            "lat_ns/min",
            "lat_ns/max",
            "lat_ns/N",
        ] {
            integer(&format!("/jobs/0/{way}/{key}"));
        }
        for key in [
            "iops",
            "bw_agg",
            "bw_mean",
            "bw_dev",
            "iops_mean",
            "iops_stddev",
            "slat_ns/mean",
            "slat_ns/stddev",
            "clat_ns/mean",
            "clat_ns/stddev",
            "lat_ns/mean",
            "lat_ns/stddev",
        ] {
            float(&format!("/jobs/0/{way}/{key}"));
        }
    }
    for percentile in
        ["1.000000", "50.000000", "95.000000", "99.000000", "99.900000", "99.950000", "99.990000"]
    {
        integer(&format!("/jobs/0/read/clat_ns/percentile/{percentile}"));
    }
    for key in ["name", "rw", "bssplit", "iodepth", "numjobs", "runtime", "ioengine", "filename", "rwmixread"]
    {
        assert!(at(&json, &format!("/jobs/0/job options/{key}")).is_string(), "{key}");
    }
    integer("/jobs/0/sync/total_ios");
    integer("/jobs/0/sync/lat_ns/N");
    assert!(json["disk_util"].is_array() && json["global options"].is_object());
}

fn at<'a>(json: &'a Value, path: &str) -> &'a Value {
    json.pointer(path).unwrap_or_else(|| panic!("{path} is missing"))
}

// Without it the numbers of the fio shape could be in other units than fio's.
#[test]
fn fio_shape_has_fios_units() {
    let json = parsed(&Report::new(vec![run(vec![measured("a"), measured("b")])]), Format::Fio);
    let read = &json["jobs"][0]["read"];
    let whole = |key: &str| read[key].as_u64().unwrap();
    assert_eq!(whole("io_bytes"), 7000 * 4096);
    assert_eq!(whole("bw_bytes") / 1024, whole("bw"));
    assert_eq!(whole("bw"), 28_000 * 1000 / 2001);
    assert_eq!((whole("runtime"), whole("iops_min"), whole("iops_max")), (2001, 3000, 4000));
    assert_eq!((whole("iops_samples"), &read["iops_mean"]), (2, &3500.0.into()));
    assert!((read["iops_stddev"].as_f64().unwrap() - 500_000f64.sqrt()).abs() < 0.001);
    assert_eq!((whole("bw_min"), &read["bw_agg"]), (12_000, &50.0.into()));
    let shares: f64 = ["latency_ns", "latency_us", "latency_ms"]
        .iter()
        .flat_map(|unit| json["jobs"][0][unit].as_object().unwrap().values())
        .map(|share| share.as_f64().unwrap())
        .sum();
    assert!((shares - 100.0).abs() < 1e-6, "{shares}");
    // 1,2,3 .. 7000 and 1,2,3 .. 3000 us: a fifth is below one millisecond.
    let below: f64 = json["jobs"][0]["latency_us"]
        .as_object()
        .unwrap()
        .values()
        .map(|share| share.as_f64().unwrap())
        .sum();
    assert!((below - 20.0).abs() < 0.5, "{below}");
    assert_eq!(json["jobs"][0]["error"], 0);
    assert_eq!(json["jobs"][0]["iodepth_level"]["32"], 100.0);
    // Two seconds of processor time, two jobs.
    assert!((json["jobs"][0]["usr_cpu"].as_f64().unwrap() - 50.0).abs() < 0.1);
}

// Without it a run of no length, or one that moved nothing, could end in a division by zero or a panic.
#[test]
fn nothing_measured_is_reported_too() {
    let mut nothing = measured("nothing");
    (nothing.reads, nothing.writes, nothing.elapsed) = (direction(0), direction(0), Duration::ZERO);
    nothing.seconds.clear();
    let mut one = nothing.clone();
    one.reads = direction(1);
    for report in [
        Report::new(Vec::new()),
        Report::new(vec![run(vec![nothing.clone()])]),
        Report::new(vec![run(vec![one])]),
    ] {
        for format in [Format::Json, Format::Fio] {
            let text = report.render(format);
            assert!(!text.contains("null,\n          \"iops\""), "{text}");
            serde_json::from_str::<Value>(&text).unwrap();
        }
        assert!(!report.render(Format::Text).contains("NaN"));
        assert!(!report.render_html().contains("NaN"));
    }
}

// Without it people could miss a direction, the cost of an I/O, or that something failed.
#[test]
fn the_text_is_for_people() {
    let mut failed = measured("b");
    (failed.backlog, failed.flushes) = (33, direction(10));
    (failed.flushes.bytes, failed.job.rate_iops) = (0, Some(500.0));
    (failed.errors, failed.first_error) = (3, Some("read of block 7 failed".into()));
    let report = Report::new(vec![run(vec![measured("a"), failed])]);
    let text = report.render(Format::Text);
    for words in [
        "a: randrw 4k,4k/50:8k/50, 70 % reads, zipf 1.2, depth 32, core 1, busy, verified, 2.0 s",
        "on nvme-tcp://127.0.0.1:4420/nqn.2016-06.io.spdk:cnode1?nsid=1",
        " read: 3.50 kIOPS, 13.7 MiB/s, 7000 I/Os",
        "write: 1.50 kIOPS",
        "total: 5.00 kIOPS",
        "p99.999",
        "verified: 6000 I/Os hold what was written",
        "errors: 3; the first: read of block 7 failed",
        "flushes: 10, p50 5.",
        "500 due each second",
        "33 I/Os were due and had not ended when it was over: the target did not keep up",
        "all 2 jobs",
        "processor: host 100.00 us an I/O, 2.0 s; target 50.00 us an I/O, 1.0 s",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 120 && line == line.trim_end()));
    assert_eq!(report.failure().unwrap(), "3 errors; the first: read of block 7 failed");
}

// Without it a page could fetch something, run something, or let the name of a job be markup.
#[test]
fn the_page_stands_alone() {
    let report = Report::new(vec![run((0..11).map(|index| measured(&format!("<b>{index}&"))).collect())]);
    let page = report.render_html();
    for word in ["src=", "href=", "<script", "@import", "url(", "<b>0"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.contains("&lt;b&gt;0&amp;"));
    // Four plots for each four jobs, since each has two directions and there are eight colours.
    assert_eq!(page.matches("<figure>").count(), 12);
    assert_eq!(page.matches("<figure>").count(), page.matches("</figure>").count());
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(page.contains("prefers-color-scheme: dark"));
    assert!(!page.contains("NaN") && !page.contains("inf"));
}

// Without it `group_reporting` could lose I/Os, or count their time several times.
#[test]
fn jobs_merge_into_one() {
    let mut results = run(vec![measured("a"), measured("b"), measured("c")]);
    results.jobs[1].job.cores = vec![2];
    results.jobs[1].seconds[0].p50_ns = 20_000;
    results.jobs[1].seconds[0].p99_ns = 95_000;
    merge_jobs(&mut results, &[0, 0, 1]);
    assert_eq!(results.jobs.len(), 2);
    let merged = &results.jobs[0];
    assert_eq!(
        (merged.job.name.as_str(), merged.reads.latencies.count(), merged.writes.bytes),
        ("a", 14_000, 24_576_000)
    );
    assert_eq!((merged.job.lanes, merged.job.cores.as_slice()), (1, [1, 2].as_slice()));
    assert_eq!(merged.elapsed, Duration::from_millis(2001));
    assert_eq!(
        (merged.seconds[0].ios, merged.seconds[0].p50_ns, merged.seconds[0].p99_ns),
        ([6000, 2000, 0, 0], 15_000, 95_000)
    );
    assert_eq!(merged.verified, 12_000);
}

// Without it the date of a report could be off by a day around leap years.
#[test]
fn dates() {
    for (second, date) in [
        (0, "Thu Jan  1 00:00:00 1970"),
        (951_782_400, "Tue Feb 29 00:00:00 2000"),
        (951_868_799, "Tue Feb 29 23:59:59 2000"),
        (1_709_251_200, "Fri Mar  1 00:00:00 2024"),
        (1_735_689_599, "Tue Dec 31 23:59:59 2024"),
        (4_107_542_400, "Mon Mar  1 00:00:00 2100"),
    ] {
        assert_eq!(super::fio::date(second), date);
    }
}
