//! Spreads ranks over a range, so that what is drawn most does not lie side by side.

use super::random::mix;

/// A bijection of the numbers below `count`.
#[derive(Clone, Debug)]
pub struct Scatter {
    count: u64,
    factor: u64,
    shift: u64,
}

impl Scatter {
    /// One of many, chosen by `seed`.
    pub fn new(count: u64, seed: u64) -> Self {
        let count = count.max(1);
        // Near the golden ratio of the range, where neighbours end far apart.
        let mut factor = ((u128::from(count) * 0x9E37_79B9_7F4A_7C15) >> 64) as u64;
        factor = factor.max(1);
        while common_divisor(factor, count) != 1 {
            factor -= 1;
        }
        Self { count, factor, shift: mix(seed) % count }
    }

    /// Where `rank`, below `count`, goes.
    #[inline]
    pub fn place(&self, rank: u64) -> u64 {
        let product = u128::from(rank) * u128::from(self.factor) + u128::from(self.shift);
        match u64::try_from(product) {
            Ok(product) => product % self.count,
            Err(_) => (product % u128::from(self.count)) as u64,
        }
    }
}

fn common_divisor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it some blocks would never be drawn, and others twice as often as they should.
    #[test]
    fn every_place_is_taken_once() {
        for count in [1, 2, 3, 7, 64, 1000, 4099] {
            let scatter = Scatter::new(count, 5);
            let mut places: Vec<u64> = (0..count).map(|rank| scatter.place(rank)).collect();
            places.sort_unstable();
            assert!(places.into_iter().eq(0..count), "{count}");
        }
        let large = Scatter::new(u64::MAX - 1, 1);
        assert!(large.place(u64::MAX - 2) < u64::MAX - 1);
    }
}
