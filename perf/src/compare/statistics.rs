//! Medians, and how sure they are.
//!
//! The interval of a median is taken from the order of the values alone (the sign test turned round): whatever their
//! distribution, the median lies between the k-th smallest and the k-th largest of n values unless fewer than k of
//! them fell on one of its sides, and the chance of that is the binomial's. No assumption of symmetry or of normal
//! noise, nothing drawn at random: the same values give the same interval.

use serde::Serialize;

/// Chance with which an interval shall hold the median.
const CONFIDENCE: f64 = 0.95;

/// A median and the interval that holds the true one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The median of the values.
    pub median: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Chance that the interval holds the true median: at least 0.95 from six values on, less with fewer.
    pub confidence: f64,
}

/// The median; zero of no values.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        count if count % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The median with its interval; None without values.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (sorted.first()?, sorted.last()?);
    let count = sorted.len();
    // The chance that the median is below the smallest of all values, or above the largest.
    let mut term = 0.5f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut tail = term;
    let mut found =
        Estimate { median: median(values), low: *first, high: *last, confidence: 1.0 - 2.0 * tail };
    for leave in 1..count.div_ceil(2) {
        term *= (count - leave + 1) as f64 / leave as f64;
        tail += term;
        if 1.0 - 2.0 * tail < CONFIDENCE {
            break;
        }
        found.low = sorted[leave];
        found.high = sorted[count - 1 - leave];
        found.confidence = 1.0 - 2.0 * tail;
    }
    Some(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn first(count: u32) -> Vec<f64> {
        // In an order that is not sorted.
        (0..count).map(|index| f64::from((index * 7) % count + 1)).collect()
    }

    // Without it an interval could claim more than its values say.
    #[test]
    fn intervals_are_those_of_the_sign_test() {
        // From tables of the sign test: n, rank of the lower end, confidence.
        for (count, rank, confidence) in [(6, 1, 0.969), (9, 2, 0.961), (15, 4, 0.965), (20, 6, 0.959)] {
            let estimate = estimate(&first(count)).unwrap();
            assert_eq!(
                (estimate.low, estimate.high),
                (f64::from(rank), f64::from(count + 1 - rank)),
                "{count}"
            );
            assert!((estimate.confidence - confidence).abs() < 0.001, "{count}: {}", estimate.confidence);
            assert_eq!(estimate.median, f64::from(count + 1) / 2.0);
        }
        let three = estimate(&first(3)).unwrap();
        assert_eq!((three.low, three.high, three.confidence), (1.0, 3.0, 0.75));
        assert_eq!(estimate(&[]), None);
    }

    // Without it one round that another program spoiled could decide a comparison.
    #[test]
    fn one_wild_value_changes_nothing() {
        let mut values = first(15);
        let before = estimate(&values).unwrap();
        let largest = values.iter().position(|value| *value == 15.0).unwrap();
        values[largest] = 1e9;
        assert_eq!(estimate(&values).unwrap(), before);
    }
}
