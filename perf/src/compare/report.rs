//! What a comparison found, for people and for programs.

use std::fmt::Write;

use serde::Serialize;

use super::options::{CompareOptions, Metric};
use super::sample::Sample;
use super::statistics::{Estimate, estimate, median};

/// How the figures came about; part of every report.
const METHOD: &str = "each round is one turn of A and one of B, next to each other in time, and the order alternates \
    (A B, B A, ...); every turn is a fresh process. A and B are medians over the rounds. The ratio is the median over \
    the rounds of A/B within a round; its interval is that of the sign test (order statistics), at least 95 % from \
    six rounds on. Bounds are held against the median ratio.";

/// A whole report.
#[derive(Debug, Serialize)]
pub struct CompareReport {
    schema: u32,
    a: String,
    b: String,
    method: &'static str,
    round_time_s: f64,
    nice: Option<i8>,
    metrics: Vec<Row>,
    bounds: Vec<Bound>,
    met: bool,
    rounds: Vec<Round>,
}

/// A bound on what this load does not have.
#[derive(Debug, thiserror::Error)]
#[error("a bound is asked for {0}, which {1}")]
pub struct NotMeasured(&'static str, &'static str);

impl NotMeasured {
    fn of(metric: Metric) -> Self {
        let reason = match metric {
            Metric::TargetCpu => {
                "is known of targets that --start-a and --start-b start, and with --target-pid in --run-options"
            }
            Metric::HostCpu => "some turn did not measure: use a longer --round-time",
            _ => "a load without a fixed number of outstanding I/Os does not have",
        };
        Self(metric.name(), reason)
    }
}

/// One round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Round {
    /// Whether A had its turn first.
    pub a_first: bool,
    /// What A measured.
    pub a: Sample,
    /// What B measured.
    pub b: Sample,
}

/// One metric over all rounds.
#[derive(Debug, Serialize)]
struct Row {
    metric: &'static str,
    /// Median of A: I/Os or bytes a second, or nanoseconds.
    a: f64,
    b: f64,
    ratio: Estimate,
    #[serde(skip)]
    which: Metric,
}

/// One bound that was asked for.
#[derive(Debug, Serialize)]
struct Bound {
    metric: &'static str,
    /// `min` or `max`.
    kind: &'static str,
    bound: f64,
    ratio: f64,
    met: bool,
    /// Whether the interval lies on both sides of the bound: more rounds may decide otherwise.
    undecided: bool,
}

impl CompareReport {
    /// Puts together what was measured.
    ///
    /// # Errors
    /// When a bound is asked for something that could not be measured: it can't be called met.
    pub fn new(options: &CompareOptions, rounds: Vec<Round>) -> Result<Self, NotMeasured> {
        let row = |which: Metric| {
            let values = |side: fn(&Round) -> &Sample| -> Option<Vec<f64>> {
                rounds.iter().map(|round| side(round).get(which)).collect()
            };
            let (a, b) = (values(|round| &round.a)?, values(|round| &round.b)?);
            // A turn without a single I/O fails, so nothing is divided by zero.
            let ratios: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a / b).collect();
            let ratio = estimate(&ratios)?;
            Some(Row { metric: which.name(), a: median(&a), b: median(&b), ratio, which })
        };
        let metrics: Vec<Row> = Metric::ALL.into_iter().filter_map(row).collect();
        let wanted = [("min", &options.min_ratio), ("max", &options.max_ratio)];
        let wanted = wanted.into_iter().flat_map(|(kind, list)| list.iter().map(move |one| (kind, one)));
        let bounds: Result<Vec<Bound>, NotMeasured> = wanted
            .map(|(kind, (metric, bound))| {
                let row = metrics.iter().find(|row| row.which == *metric);
                row.map(|row| Bound::new(kind, row, *bound)).ok_or(NotMeasured::of(*metric))
            })
            .collect();
        let bounds = bounds?;
        Ok(Self {
            schema: 1,
            a: options.a.to_string(),
            b: options.b.to_string(),
            method: METHOD,
            round_time_s: options.round_time,
            nice: options.nice,
            met: bounds.iter().all(|bound| bound.met),
            metrics,
            bounds,
            rounds,
        })
    }

    /// Whether every bound is met.
    pub fn met(&self) -> bool {
        self.met
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        // Only numbers, texts and lists: nothing that JSON can't say. If it ever fails, the reader sees why.
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
    }

    /// A table for people.
    pub fn to_text(&self) -> String {
        let mut text = format!("A: {}\nB: {}\n", self.a, self.b);
        let confidence = self.metrics.first().map_or(0.0, |row| row.ratio.confidence) * 100.0;
        let rounds = self.rounds.len();
        // Writing to a String can't fail.
        let _ = writeln!(text, "{rounds} rounds of {} s each side, medians", self.round_time_s);
        let interval = format!("{confidence:.1} % interval");
        let _ = writeln!(text, "\n{:<20} {:>11} {:>11} {:>8}   {interval}", "", "A", "B", "A/B");
        for row in &self.metrics {
            let (name, unit, digits) = match row.which {
                Metric::Iops => ("kIOPS".to_owned(), 1e3, 1),
                Metric::Steady => ("steady kIOPS".to_owned(), 1e3, 1),
                Metric::Bandwidth => ("GiB/s".to_owned(), f64::from(1 << 30), 3),
                other => (format!("{} us", other.name()), 1e3, 2),
            };
            let Estimate { median, low, high, .. } = row.ratio;
            let (a, b) = (row.a / unit, row.b / unit);
            let _ = writeln!(
                text,
                "{name:<20} {a:>11.digits$} {b:>11.digits$} {median:>8.3}   {low:.3} to {high:.3}"
            );
        }
        for bound in &self.bounds {
            let Bound { metric, kind, bound: wanted, ratio, met, undecided } = bound;
            let sign = if *kind == "min" { "at least" } else { "at most" };
            let verdict = if *met { "met" } else { "NOT met" };
            let _ = write!(text, "\n{metric} {sign} {wanted}: {verdict}, {ratio:.3}");
            if *undecided {
                text.push_str(
                    " (the interval lies on both sides of the bound: more rounds may decide otherwise)",
                );
            }
        }
        text.trim_end().to_owned()
    }
}

impl Bound {
    fn new(kind: &'static str, row: &Row, bound: f64) -> Self {
        let Estimate { median, low, high, .. } = row.ratio;
        let met = if kind == "min" { median >= bound } else { median <= bound };
        let undecided = low < bound && bound < high;
        Self { metric: row.metric, kind, bound, ratio: median, met, undecided }
    }
}
