//! The report for people: jobs one after another, rates in IOPS or kIOPS and MiB/s, latencies in microseconds.

use std::fmt::Write;
use std::time::Duration;

use super::options;
use super::summary::{Group, JobSummary, Latency, PERCENTILES, Rates, Report, Sums};

const MIB: f64 = 1_048_576.0;

/// Without a line break at its end.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for (index, group) in report.groups.iter().enumerate() {
        let jobs: Vec<&JobSummary> = report.jobs.iter().filter(|job| job.group == index).collect();
        for job in &jobs {
            write_job(&mut text, job);
        }
        if jobs.len() > 1 {
            line(&mut text, &format!("all {} jobs, {:.1} s", jobs.len(), group.sums.elapsed.as_secs_f64()));
            let asked = jobs.first().map_or(&[][..], |job| job.results.job.percentiles.as_slice());
            write_sums(&mut text, &group.sums, asked);
        }
        write_cpu(&mut text, group);
    }
    text.truncate(text.trim_end().len());
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

/// The time that was measured, short or long.
fn time(elapsed: Duration) -> String {
    match elapsed.as_secs_f64() {
        seconds if seconds < 0.1 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.1} s"),
    }
}

fn write_job(text: &mut String, job: &JobSummary) {
    let asked = &job.results.job;
    let elapsed = time(job.results.elapsed);
    line(text, &format!("{}: {}, {elapsed}", asked.name, options::line(asked)));
    line(text, &format!("  on {}", asked.target));
    write_sums(text, &job.sums, &asked.percentiles);
    if job.results.verified > 0 {
        line(text, &format!("  verified: {} I/Os hold what was written", job.results.verified));
    }
    let flushes = &job.sums.flushes;
    if let Some(latency) = &flushes.latency {
        let [p50, p99] = [50.0, 99.0].map(|percent| micros(latency.percentile(percent) as f64));
        line(text, &format!("  flushes: {}, p50 {p50} us, p99 {p99} us", flushes.ios));
    }
    if job.results.backlog > 0 {
        let backlog = job.results.backlog;
        let kept = backlog <= u64::from(asked.depth) * options::lanes(asked) as u64;
        let words = if kept { "" } else { ": the target did not keep up" };
        line(text, &format!("  {backlog} I/Os were due and had not ended when it was over{words}"));
    }
    if let (Some(steady), Some(reached)) = (&asked.steady, job.results.steady) {
        let words = if reached { "steady" } else { "not steady when it was over" };
        line(text, &format!("  {words}: {} over {} s", steady.name(), options::seconds(steady.window)));
    }
    if job.results.errors > 0 {
        let first = job.results.first_error.as_deref().unwrap_or("not known");
        line(text, &format!("  errors: {}; the first: {first}", job.results.errors));
    }
}

/// An empty list of percentiles stands for the usual ones.
fn write_sums(text: &mut String, sums: &Sums, asked: &[f64]) {
    let usual = || PERCENTILES.map(|(percent, _)| percent).to_vec();
    let percentiles = if asked.is_empty() { usual() } else { asked.to_vec() };
    let rows: Vec<(&str, &Rates, &Latency)> = sums.used().collect();
    if rows.is_empty() {
        return line(text, "  no I/O");
    }
    for (name, rates, _) in &rows {
        write_rates(text, name, rates);
    }
    if rows.len() > 1 {
        write_rates(text, "total", &sums.total);
    }
    let mut heading = format!("  {:<10}{:>9}{:>9}", "latency us", "min", "mean");
    for percent in &percentiles {
        // Writing to a String can't fail, here and below.
        let _ = write!(heading, "{:>9}", format!("p{percent}"));
    }
    line(text, &format!("{heading}{:>9}", "max"));
    for (name, _, latency) in &rows {
        let mut row = format!("  {name:>10}{:>9}{:>9}", micros(latency.min as f64), micros(latency.mean));
        for percent in &percentiles {
            let percent = *percent;
            let _ = write!(row, "{:>9}", micros(latency.percentile(percent) as f64));
        }
        line(text, &format!("{row}{:>9}", micros(latency.max as f64)));
    }
}

fn write_rates(text: &mut String, name: &str, rates: &Rates) {
    let mib = rates.bytes_per_second / MIB;
    let iops = match rates.iops {
        iops if iops < 1e3 => format!("{iops:.1} IOPS"),
        iops => format!("{:.2} kIOPS", iops / 1e3),
    };
    line(text, &format!("  {name:>5}: {iops}, {mib:.1} MiB/s, {} I/Os", rates.ios));
}

/// Three digits where it matters.
fn micros(nanoseconds: f64) -> String {
    let micros = nanoseconds / 1e3;
    if micros < 1e4 { format!("{micros:.1}") } else { format!("{micros:.0}") }
}

fn write_cpu(text: &mut String, group: &Group) {
    let mut parts = Vec::new();
    let per_io = [("host", group.host_us_per_io()), ("target", group.target_us_per_io())];
    for ((name, per_io), cpu) in per_io.into_iter().zip([group.host_cpu, group.target_cpu]) {
        if let (Some(per_io), Some(cpu)) = (per_io, cpu) {
            parts.push(format!("{name} {per_io:.2} us an I/O, {:.1} s", cpu.as_secs_f64()));
        }
    }
    if !parts.is_empty() {
        line(text, &format!("processor: {}", parts.join("; ")));
    }
}
