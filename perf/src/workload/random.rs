//! Random numbers of one lane: splitmix64, whose every state gives a good number at once.

/// Adds up to the state with each number.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// A sequence of random numbers.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: mix(seed ^ STEP) }
    }

    /// Any number.
    #[inline]
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A number below `bound`.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is uniform, without a division.
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// A number above 0 and below 1, of 52 bits.
    #[inline]
    pub fn fraction(&mut self) -> f64 {
        // 1.x of the mantissa's bits, less one; half a step up keeps zero out.
        f64::from_bits((self.draw() >> 12) | 1.0f64.to_bits()) - (1.0 - f64::EPSILON / 2.0)
    }
}

/// A bijection of 64 bits in which every bit depends on every other.
pub fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it the distributions that start from a fraction could see zero, of which no logarithm is to be had.
    #[test]
    fn fractions_lie_between_zero_and_one() {
        let mut random = Random::new(1);
        let mut sum = 0.0;
        for _ in 0..100_000 {
            let fraction = random.fraction();
            assert!(fraction > 0.0 && fraction < 1.0);
            sum += fraction;
        }
        assert!((sum / 100_000.0 - 0.5f64).abs() < 0.01);
    }
}
