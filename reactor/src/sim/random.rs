//! Randomness and its witness: the generator from which a simulation draws every decision, and the hash
//! that every decision is folded into.
//!
//! Invariant: equal seeds give equal sequences on every machine and in every build; nothing here reads the
//! environment, an address or a clock. Called by all of the simulator.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Spreads a 64-bit value over all bits (the finalizer of SplitMix64).
pub(super) fn spread(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// xoshiro256**, seeded through SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: [u64; 4],
}

impl Random {
    /// The generator of one purpose: `stream` separates generators that share a seed, so that drawing more
    /// from one does not change what another gives.
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        let mut word = spread(seed ^ spread(stream));
        let mut state = [0; 4];
        for slot in &mut state {
            word = spread(word);
            *slot = word;
        }
        Random { state }
    }

    /// The next 64 bits.
    pub(super) fn next_u64(&mut self) -> u64 {
        let result = self.state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = self.state[1] << 17;
        self.state[2] ^= self.state[0];
        self.state[3] ^= self.state[1];
        self.state[1] ^= self.state[2];
        self.state[0] ^= self.state[3];
        self.state[2] ^= shifted;
        self.state[3] = self.state[3].rotate_left(45);
        result
    }

    /// A number below `bound`; 0 when `bound` is 0. The bias of the multiplication is below 2^-32 for every
    /// bound that the simulator uses.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `low..=high`; `low` when the range is empty.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        if high <= low {
            return low;
        }
        let span = (high - low).saturating_add(1);
        low + self.below(span)
    }

    /// True in `per_million` of a million draws.
    pub(super) fn chance(&mut self, per_million: u32) -> bool {
        per_million != 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// A number of nanoseconds within a range of durations.
    pub(super) fn nanos(&mut self, range: &RangeInclusive<Duration>) -> u64 {
        self.between(nanos(*range.start()), nanos(*range.end()))
    }

    /// Puts a slice in random order.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// A duration in whole nanoseconds; saturates after 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What happened so far, as one number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace {
    hash: u64,
    verbose: bool,
}

impl Trace {
    /// Nothing has happened yet. With `verbose` each event is also a line on standard error.
    pub(super) fn new(verbose: bool) -> Trace {
        Trace { hash: 0x5EED_1E55_5EED_1E55, verbose }
    }

    /// Folds one event in: its time, what it was, and two numbers that say which.
    pub(super) fn event(&mut self, now: u64, what: &'static str, first: u64, second: u64) {
        let word = what.bytes().fold(0u64, |word, byte| word.rotate_left(8) ^ u64::from(byte));
        let mut hash = spread(self.hash ^ word);
        hash = spread(hash ^ now);
        hash = spread(hash ^ first);
        self.hash = spread(hash ^ second);
        if self.verbose {
            eprintln!("{:>16} ns  {what} {first} {second:#x}", now);
        }
    }

    /// The hash of all events so far.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}

/// A hash of bytes that were moved, for [`Trace::event`].
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29);
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(29);
    }
    spread(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without this, a change to the generator would silently make every recorded failing seed useless.
    #[test]
    fn the_sequence_of_a_seed_never_changes() {
        let mut random = Random::new(42, 7);
        let first = [random.next_u64(), random.next_u64(), random.next_u64()];
        assert_eq!(
            first,
            [14_269_976_301_232_037_783, 9_109_414_312_276_027_574, 11_356_083_532_293_027_233]
        );
    }

    // Without this, a range that never reaches its ends (latency, torn position) would go unnoticed.
    #[test]
    fn ranges_reach_both_ends_and_nothing_else() {
        let mut random = Random::new(1, 1);
        let mut seen = [false; 5];
        for _ in 0..500 {
            seen[(random.between(10, 14) - 10) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
        assert_eq!(random.between(9, 3), 9);
        assert_eq!(random.below(0), 0);
        assert!(!random.chance(0));
        assert!(random.chance(1_000_000));
    }

    // Without this, two deliveries that differ in one byte could leave the same trace.
    #[test]
    fn every_byte_changes_the_hash() {
        let bytes = [7u8; 43];
        let whole = hash_bytes(&bytes);
        for index in 0..bytes.len() {
            let mut other = bytes;
            other[index] ^= 1;
            assert_ne!(hash_bytes(&other), whole, "byte {index}");
        }
        assert_ne!(hash_bytes(&bytes[..42]), whole);
    }
}
