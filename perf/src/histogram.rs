//! Latencies: counted on the reactor in a log-linear array, turned into an HDR histogram for the report.

use hdrhistogram::Histogram;

/// Buckets of each power of two; a latency is off by at most one part in 64.
const SUB_BITS: u32 = 6;
const SUB: usize = 1 << SUB_BITS;
/// Latencies from 2^40 ns (18 minutes) on count as that.
const MAX_BITS: u32 = 40;
const BUCKETS: usize = SUB * (MAX_BITS - SUB_BITS + 1) as usize;

/// Counts of latencies in nanoseconds. Recording is a few instructions and never allocates.
#[derive(Clone, Debug)]
pub struct Latencies {
    counts: Box<[u64]>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Latencies {
    /// None yet.
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), count: 0, sum: 0, min: u64::MAX, max: 0 }
    }

    /// Counts one.
    pub fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.sum += nanoseconds;
        self.min = self.min.min(nanoseconds);
        self.max = self.max.max(nanoseconds);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        (self.count, self.sum, self.min, self.max) = (0, 0, u64::MAX, 0);
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Smallest, mean, largest; zeros when there is none.
    pub fn extent(&self) -> (u64, f64, u64) {
        if self.count == 0 { (0, 0.0, 0) } else { (self.min, self.sum as f64 / self.count as f64, self.max) }
    }

    /// The latency below or at which this share of them is; zero when there is none.
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(index).clamp(self.min, self.max);
            }
        }
        0
    }

    /// As an HDR histogram of two significant digits.
    ///
    /// # Errors
    /// None in fact: the bounds are constants that the histogram accepts.
    pub fn to_hdr(&self) -> Result<Histogram<u64>, hdrhistogram::CreationError> {
        let mut histogram = Histogram::new_with_bounds(1, 1 << (MAX_BITS + 1), 2)?;
        for (index, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            histogram.saturating_record_n(middle(index).max(1), *count);
        }
        Ok(histogram)
    }
}

fn bucket(value: u64) -> usize {
    if value < SUB as u64 {
        return value as usize;
    }
    let value = value.min((1 << MAX_BITS) - 1);
    let top = value.ilog2();
    let shift = top - SUB_BITS;
    (shift as usize + 1) * SUB + ((value >> shift) as usize & (SUB - 1))
}

/// The value in the middle of a bucket.
fn middle(bucket: usize) -> u64 {
    if bucket < SUB {
        return bucket as u64;
    }
    let shift = (bucket / SUB - 1) as u32;
    let low = ((SUB + bucket % SUB) as u64) << shift;
    low + (1u64 << shift) / 2
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it latencies could land in the wrong bucket, and every report be wrong.
    #[test]
    fn buckets_are_within_two_percent() {
        for value in
            (0..1000).chain((0..40).map(|bit| 1u64 << bit)).chain((10..39).map(|bit| (3u64 << bit) - 1))
        {
            let back = middle(bucket(value));
            assert!(back.abs_diff(value) as f64 <= value as f64 / 60.0 + 1.0, "{value} became {back}");
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    // Without it the percentiles of a report could be anything.
    #[test]
    fn percentiles_of_a_known_distribution() {
        let mut latencies = Latencies::new();
        for value in 1..=100_000u64 {
            latencies.record(value);
        }
        let mut twice = latencies.clone();
        twice.merge(&latencies);
        let histogram = twice.to_hdr().unwrap();
        assert_eq!(twice.count(), 200_000);
        for (quantile, expected) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let found = histogram.value_at_quantile(quantile) as f64;
            assert!((found - expected).abs() < expected * 0.03, "{quantile}: {found}");
        }
        assert_eq!(twice.extent().0, 1);
        assert_eq!(twice.extent().2, 100_000);
    }
}
