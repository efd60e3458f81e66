//! The report as a page: figures, tables, plots. All of it is in the page; nothing is fetched and nothing runs.

use std::fmt::Write;

use super::fio::date;
use super::options;
use super::plot::{Axis, COLORS, Plot, Series, escape, number};
use super::summary::{JobSummary, Latency, Rates, Report};
use crate::results::Second;

const STYLE: &str = include_str!("page.css");
const MIB: f64 = 1_048_576.0;
/// Percentiles of the table.
const COLUMNS: [(f64, &str); 6] =
    [(50.0, "p50"), (90.0, "p90"), (99.0, "p99"), (99.9, "p99.9"), (99.99, "p99.99"), (99.999, "p99.999")];
/// Bars of the histogram for each doubling of the latency.
const STEPS: f64 = 6.0;

/// The whole page.
pub fn render(report: &Report) -> String {
    let mut page = String::new();
    let names: Vec<&str> = report.jobs.iter().map(|job| job.results.job.name.as_str()).collect();
    let title = escape(&format!("sledge-perf: {}", names.join(", ")));
    // Writing to a String can't fail, here and below.
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
         <p class=\"faint\">{} UTC, {:.1} s measured, sledge-perf {}</p>\n",
        date(report.began_unix_s),
        report.overall.elapsed.as_secs_f64(),
        env!("CARGO_PKG_VERSION")
    );
    if let Some(failure) = report.failure() {
        let _ = writeln!(page, "<p class=\"bad\">Failed: {}</p>", escape(&failure));
    }
    write_tiles(&mut page, &report.overall.total);
    write_rates(&mut page, report);
    for jobs in chunks(report) {
        for plot in [percentiles(&jobs), histogram(&jobs), iops(&jobs), latency_over_time(&jobs)] {
            page.push_str(&plot.render());
        }
    }
    write_jobs(&mut page, report);
    page.push_str("</body>\n</html>\n");
    page
}

fn write_tiles(page: &mut String, total: &Rates) {
    let mut tiles = vec![
        (number(total.iops.round()), "I/Os a second"),
        (format!("{:.1}", total.bytes_per_second / MIB), "MiB a second"),
    ];
    if let Some(latency) = &total.latency {
        tiles.push((micros(latency.percentile(50.0)), "us, median latency"));
        tiles.push((micros(latency.percentile(99.0)), "us, 99th percentile"));
    }
    page.push_str("<div class=\"tiles\">\n");
    for (value, name) in tiles {
        let _ = writeln!(page, "<div><b>{value}</b><span>{name}</span></div>");
    }
    page.push_str("</div>\n");
}

fn micros(nanoseconds: u64) -> String {
    let micros = nanoseconds as f64 / 1e3;
    if micros < 1e4 { format!("{micros:.1}") } else { format!("{micros:.0}") }
}

fn write_rates(page: &mut String, report: &Report) {
    page.push_str(
        "<h2>Rates, and latencies in microseconds</h2>\n<div class=\"wide\"><table>\n<tr><th>job</th>",
    );
    page.push_str("<th></th><th>kIOPS</th><th>MiB/s</th><th>min</th><th>mean</th>");
    for (_, name) in COLUMNS {
        let _ = write!(page, "<th>{name}</th>");
    }
    page.push_str("<th>max</th></tr>\n");
    for job in &report.jobs {
        for (direction, rates, latency) in job.sums.used() {
            write_row(page, &job.results.job.name, direction, rates, latency);
        }
    }
    for (index, group) in report.groups.iter().enumerate() {
        let name = match report.groups.len() {
            1 => "all jobs".to_owned(),
            _ => format!("group {index}"),
        };
        let is_many = report.jobs.iter().filter(|job| job.group == index).count() > 1;
        if let Some(latency) = group.sums.total.latency.as_ref().filter(|_| is_many) {
            write_row(page, &name, "all", &group.sums.total, latency);
        }
    }
    page.push_str("</table></div>\n");
}

fn write_row(page: &mut String, name: &str, direction: &str, rates: &Rates, latency: &Latency) {
    let _ = write!(
        page,
        "<tr><td>{}</td><td>{direction}</td><td>{:.2}</td><td>{:.1}</td><td>{}</td><td>{}</td>",
        escape(name),
        rates.iops / 1e3,
        rates.bytes_per_second / MIB,
        micros(latency.min),
        micros(latency.mean as u64)
    );
    for (percent, _) in COLUMNS {
        let _ = write!(page, "<td>{}</td>", micros(latency.percentile(percent)));
    }
    let _ = writeln!(page, "<td>{}</td></tr>", micros(latency.max));
}

fn write_jobs(page: &mut String, report: &Report) {
    page.push_str("<h2>Jobs</h2>\n<div class=\"wide\"><table>\n<tr><th>job</th><th></th><th>errors</th>");
    page.push_str("<th>verified</th></tr>\n");
    for job in &report.jobs {
        let asked = &job.results.job;
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td class=\"text\">{}<br>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&asked.name),
            escape(&options::line(asked)),
            escape(&asked.target.to_string()),
            job.results.errors,
            job.results.verified
        );
    }
    page.push_str("</table></div>\n");
    let costs: Vec<(usize, [Option<f64>; 2])> = report
        .groups
        .iter()
        .enumerate()
        .map(|(index, group)| (index, [group.host_us_per_io(), group.target_us_per_io()]))
        .filter(|(_, costs)| costs.iter().any(Option::is_some))
        .collect();
    if costs.is_empty() {
        return;
    }
    page.push_str("<h2>Processor time for each I/O, in microseconds</h2>\n<table>\n");
    page.push_str("<tr><th>group</th><th>host</th><th>target</th></tr>\n");
    for (index, costs) in costs {
        let [host, target] = costs.map(|cost| cost.map_or("not known".into(), |cost| format!("{cost:.2}")));
        let _ = writeln!(page, "<tr><td>{index}</td><td>{host}</td><td>{target}</td></tr>");
    }
    page.push_str("</table>\n");
}

/// One line of a plot by job and direction.
struct Line<'a> {
    name: String,
    color: usize,
    latency: &'a Latency,
}

/// Jobs of one set of plots: few enough for the colours.
fn chunks(report: &Report) -> Vec<Vec<&JobSummary>> {
    let (mut chunks, mut room) = (Vec::<Vec<&JobSummary>>::new(), 0);
    for job in &report.jobs {
        let lines = job.sums.used().count();
        match chunks.last_mut().filter(|_| lines <= room) {
            Some(chunk) => chunk.push(job),
            None => {
                room = COLORS;
                chunks.push(vec![job]);
            }
        }
        room -= lines.min(room);
    }
    chunks
}

fn lines<'a>(jobs: &[&'a JobSummary]) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    for job in jobs {
        for (direction, _, latency) in job.sums.used() {
            let name = format!("{} {direction}", job.results.job.name);
            lines.push(Line { name, color: lines.len(), latency });
        }
    }
    lines
}

fn percentiles(jobs: &[&JobSummary]) -> Plot {
    let lines = lines(jobs);
    // Each factor of ten closer to 100 % takes the same width.
    let place = |percent: f64| -(1.0 - percent / 100.0).log10();
    let marks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999];
    let most = lines.iter().map(|line| line.latency.percentile(99.999)).max().unwrap_or(1);
    let least = lines.iter().map(|line| line.latency.min).min().unwrap_or(1);
    let series = lines.iter().map(|line| Series {
        name: line.name.clone(),
        color: line.color,
        is_dashed: false,
        points: (0..=100)
            .map(|step| 100.0 - 10f64.powf(2.0 - f64::from(step) / 20.0))
            .map(|percent| {
                let value = if percent <= 0.0 { line.latency.min } else { line.latency.percentile(percent) };
                let words = format!("{}: {percent:.3} % within {} us", line.name, micros(value));
                (place(percent), value as f64 / 1e3, words)
            })
            .collect(),
    });
    Plot {
        title: "Latency by percentile".into(),
        x: Axis::marked("percentile", marks.map(|percent| (place(percent), percent.to_string())).into()),
        y: Axis::log("latency, us", least as f64 / 1e3, most as f64 / 1e3),
        series: series.collect(),
    }
}

fn histogram(jobs: &[&JobSummary]) -> Plot {
    let lines = lines(jobs);
    let step = |nanoseconds: u64| ((nanoseconds.max(1) as f64).log2() * STEPS).floor() as i64;
    let edge = |step: i64| (step as f64 / STEPS).exp2() / 1e3;
    let (mut first, mut last, mut highest) = (i64::MAX, 0, 0f64);
    let mut series = Vec::new();
    for line in &lines {
        let (from, to) = (step(line.latency.min), step(line.latency.percentile(99.999)));
        let mut shares = vec![0u64; usize::try_from(to - from + 1).unwrap_or(1)];
        for (value, count) in line.latency.recorded() {
            // The histogram is coarser than the steps at its ends: what falls beside them belongs to the last.
            let index = usize::try_from(step(value) - from).unwrap_or(0).min(shares.len() - 1);
            shares[index] += count;
        }
        let mut points = vec![(edge(from), 0.0, String::new())];
        for (index, count) in shares.iter().enumerate() {
            let (low, high) = (edge(from + index as i64), edge(from + index as i64 + 1));
            let share = *count as f64 / line.latency.count().max(1) as f64 * 100.0;
            let words = format!("{}: {share:.2} % from {low:.1} to {high:.1} us", line.name);
            points.push((low, share, words.clone()));
            points.push((high, share, words));
            highest = highest.max(share);
        }
        points.push((edge(to + 1), 0.0, String::new()));
        (first, last) = (first.min(from), last.max(to + 1));
        series.push(Series { name: line.name.clone(), color: line.color, is_dashed: false, points });
    }
    let first = first.min(last);
    Plot {
        title: "Histogram of latency".into(),
        x: Axis::log("latency, us", edge(first), edge(last)),
        y: Axis::linear("% of the I/Os", highest),
        series,
    }
}

/// A step for each second, as high as `value`. A last second too short to say anything is left out.
fn over_time(job: &JobSummary, value: impl Fn(&Second) -> (f64, String)) -> Vec<(f64, f64, String)> {
    let seconds = &job.results.seconds;
    let mut at = job.results.job.start_delay.as_secs_f64();
    let mut points = Vec::new();
    for second in seconds.iter().filter(|second| seconds.len() == 1 || second.length.as_secs_f64() >= 0.5) {
        let from = at;
        at += second.length.as_secs_f64();
        let (value, words) = value(second);
        let words = format!("{from:.0} to {at:.1} s, {}: {words}", job.results.job.name);
        points.push((from, value, words.clone()));
        points.push((at, value, words));
    }
    points
}

fn time_axis(jobs: &[&JobSummary]) -> Axis {
    let end = |job: &&JobSummary| (job.results.job.start_delay + job.results.elapsed).as_secs_f64();
    Axis::time("seconds", jobs.iter().map(end).fold(0.0, f64::max))
}

fn highest(series: &[Series]) -> f64 {
    series.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.0, f64::max)
}

fn iops(jobs: &[&JobSummary]) -> Plot {
    let mut series = Vec::new();
    for job in jobs {
        for (index, rates) in job.sums.directions.iter().enumerate().filter(|(_, rates)| rates.ios > 0) {
            let direction = super::summary::DIRECTIONS[index];
            debug_assert!(rates.latency.is_some());
            let points = over_time(job, |second| {
                let length = second.length.as_secs_f64().max(1e-9);
                let iops = second.ios[index] as f64 / length;
                (iops, format!("{} {direction} IOPS", number(iops.round())))
            });
            let name = format!("{} {direction}", job.results.job.name);
            series.push(Series { name, color: series.len(), is_dashed: false, points });
        }
    }
    let y = Axis::linear("IOPS", highest(&series));
    Plot { title: "IOPS of each second".into(), x: time_axis(jobs), y, series }
}

fn latency_over_time(jobs: &[&JobSummary]) -> Plot {
    let mut series = Vec::new();
    let mut color = 0;
    for job in jobs {
        for (is_dashed, word) in [(false, "p99"), (true, "p50")] {
            let points = over_time(job, |second| {
                let nanoseconds = if is_dashed { second.p50_ns } else { second.p99_ns };
                (nanoseconds as f64 / 1e3, format!("{word} {} us", micros(nanoseconds)))
            });
            series.push(Series {
                name: format!("{} {word}", job.results.job.name),
                color,
                is_dashed,
                points,
            });
        }
        // The colour of the job's first line in the other plots.
        color += job.sums.used().count();
    }
    let y = Axis::linear("latency, us", highest(&series));
    Plot { title: "Latency of each second: p99, and p50 dashed".into(), x: time_axis(jobs), y, series }
}
