//! Whether the rate of a job is steady: judged each time a second of it has ended.

use crate::job::{SteadyRate, SteadyState};
use crate::results::Second;
use std::time::Duration;

/// A shorter second, the last of a run, says nothing.
const WHOLE: Duration = Duration::from_millis(500);

/// Whether the seconds of a job, from the first that was measured, end with a window in which its rate is steady.
pub fn is_steady(seconds: &[Second], asked: &SteadyState) -> bool {
    let count = asked.window.as_secs().max(2) as usize;
    let after = asked.after.as_secs_f64().ceil() as usize;
    let rates: Vec<f64> = seconds
        .iter()
        .skip(after)
        .filter(|second| second.length >= WHOLE)
        .map(|second| rate(second, asked.rate))
        .collect();
    let Some(window) = rates.len().checked_sub(count).map(|first| &rates[first..]) else { return false };
    let mean = window.iter().sum::<f64>() / count as f64;
    if mean <= 0.0 {
        return false;
    }
    let off = if asked.slope { slope(window, mean).abs() } else { deviation(window, mean) };
    let off = if asked.percent { off / mean * 100.0 } else { off };
    off < asked.limit
}

fn rate(second: &Second, of: SteadyRate) -> f64 {
    let amounts = match of {
        SteadyRate::Iops => &second.ios,
        SteadyRate::Bandwidth => &second.bytes,
    };
    amounts.iter().sum::<u64>() as f64 / second.length.as_secs_f64()
}

/// The largest distance from the mean.
fn deviation(rates: &[f64], mean: f64) -> f64 {
    rates.iter().map(|rate| (rate - mean).abs()).fold(0.0, f64::max)
}

/// The slope of the line of best fit (least squares), a second.
fn slope(rates: &[f64], mean: f64) -> f64 {
    let middle = (rates.len() as f64 - 1.0) / 2.0;
    let distances = (0..rates.len()).map(|index| index as f64 - middle);
    let above: f64 = distances.clone().zip(rates).map(|(distance, rate)| distance * (rate - mean)).sum();
    above / distances.map(|distance| distance * distance).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(ios: &[u64]) -> Vec<Second> {
        let second = |ios: &u64| Second {
            length: Duration::from_secs(1),
            ios: [*ios, 0, 0, 0],
            bytes: [*ios * 512, 0, 0, 0],
            p50_ns: 0,
            p99_ns: 0,
        };
        ios.iter().map(second).collect()
    }

    fn asked(slope: bool, limit: f64, percent: bool) -> SteadyState {
        let (window, after) = (Duration::from_secs(4), Duration::from_secs(2));
        SteadyState { rate: SteadyRate::Iops, slope, limit, percent, window, after }
    }

    // Without it a job could end before it is steady, or never.
    #[test]
    fn windows_are_judged() {
        let rising = [10, 10, 100, 110, 120, 130];
        let around = [10, 10, 100, 104, 96, 100];
        for (ios, slope, limit, percent, steady) in [
            (&rising[..], false, 15.1, false, true),
            (&rising[..], false, 14.9, false, false),
            (&rising[..], true, 10.1, false, true),
            (&rising[..], true, 9.9, false, false),
            (&around[..], false, 4.1, true, true),
            (&around[..], false, 3.9, true, false),
            (&around[..], true, 1.0, true, true),
            // The window is not full: the first two seconds don't count.
            (&around[..5], false, 50.0, true, false),
            (&[0; 6][..], false, 50.0, true, false),
        ] {
            let asked = asked(slope, limit, percent);
            assert_eq!(is_steady(&seconds(ios), &asked), steady, "{ios:?} {asked:?}");
        }
        let bytes = SteadyState { rate: SteadyRate::Bandwidth, ..asked(false, 15.1 * 512.0, false) };
        assert!(is_steady(&seconds(&rising), &bytes));
        assert!(!is_steady(&seconds(&rising), &SteadyState { limit: 15.1, ..bytes }));
    }
}
