//! Where the next I/O goes, as a number of places from the start of the range.
//!
//! Zipf and Pareto draw a rank; ranks are spread over the range, since hot data rarely lies side by side.

use super::Kind;
use super::course::Course;
use super::random::Random;
use super::scatter::Scatter;
use super::zipf::Zipf;
use crate::job::Zones;
use crate::trace::Replay;

/// A distribution of places.
#[derive(Clone, Debug)]
pub enum Offsets {
    /// One behind the other; kept in blocks, since sizes may differ.
    Sequential {
        /// Where the next one starts.
        next: u64,
    },
    /// All places alike.
    Uniform {
        /// How many there are.
        places: u64,
    },
    /// By Zipf's law.
    Zipf {
        /// Which rank.
        zipf: Zipf,
        /// Where the rank is.
        scatter: Scatter,
    },
    /// By Pareto's principle.
    Pareto {
        /// How many places there are.
        places: f64,
        /// The exponent that gives a share of 1 - h to the first h of the ranks.
        exponent: f64,
        /// Where the rank is.
        scatter: Scatter,
    },
    /// By zones.
    Zoned {
        /// Of each hundredth of the I/Os, the first place of its zone and how many there are.
        table: Box<[(u64, u64); 100]>,
    },
    /// Each place twice: what was drawn is kept until it is due again.
    Twice {
        /// Offset and length in blocks.
        due: Option<(u64, u32)>,
        /// The places.
        places: Box<Offsets>,
    },
    /// Where a trace has them.
    Trace {
        /// The trace.
        replay: Replay,
        /// Bytes of a block, as a power of two.
        shift: u32,
    },
    /// With holes, in runs, or in zones; in blocks, too.
    Course(Box<Course>),
    /// Some go to random places, the others on behind one another; kept in blocks, as a sequence is.
    Partly {
        /// How many are random, out of 2^32.
        chance: u64,
        /// Where the last one ended.
        next: u64,
        /// The random places.
        random: Box<Offsets>,
    },
}

impl Offsets {
    /// From the start to the end, and again.
    pub fn sequential() -> Self {
        Self::Sequential { next: 0 }
    }

    /// By zones of `places`, each of one place at least.
    pub fn zoned(places: u64, zones: &Zones) -> Self {
        let mut table = Box::new([(0, places); 100]);
        let mut left = table.iter_mut();
        let mut before = 0u32;
        for (ios, size) in zones.parts() {
            let bound = |percent: u32| (u128::from(places) * u128::from(percent) / 100) as u64;
            let first = bound(before).min(places - 1);
            before += u32::from(*size);
            let count = bound(before).saturating_sub(first).max(1);
            left.by_ref().take(usize::from(*ios)).for_each(|entry| *entry = (first, count));
        }
        Self::Zoned { table }
    }

    /// With holes, in runs, or in zones.
    pub fn course(course: Course) -> Self {
        Self::Course(Box::new(course))
    }

    /// Each of these places twice.
    pub fn twice(places: Self) -> Self {
        Self::Twice { due: None, places: Box::new(places) }
    }

    /// Where an I/O of `blocks` blocks starts in a range of `range` blocks, whose places are `grain` blocks apart.
    pub fn next(&mut self, random: &mut Random, kind: Kind, blocks: u32, range: u64, grain: u64) -> u64 {
        match self {
            Self::Course(course) => course.next(random, kind, blocks, grain),
            Self::Sequential { next } => advance(next, blocks, range),
            Self::Partly { chance, next, random: places } => {
                if (random.draw() >> 32) < *chance {
                    *next = places.draw(random) * grain;
                }
                advance(next, blocks, range)
            }
            Self::Twice { places, .. } => places.next(random, kind, blocks, range, grain),
            places => places.draw(random) * grain,
        }
    }

    /// Out of 2^32, `chance` of them as `random` has it, the others each behind the one before.
    pub fn partly(random: Self, chance: u64) -> Self {
        Self::Partly { chance, next: 0, random: Box::new(random) }
    }

    /// All of `places` alike.
    pub fn uniform(places: u64) -> Self {
        Self::Uniform { places }
    }

    /// By Zipf's law with exponent `theta`, above 0.
    pub fn zipf(places: u64, theta: f64, seed: u64) -> Self {
        Self::Zipf { zipf: Zipf::new(places, theta), scatter: Scatter::new(places, seed) }
    }

    /// The share `h` (between 0 and 1) of the places gets the share 1 - h of the I/Os, and so on within.
    pub fn pareto(places: u64, h: f64, seed: u64) -> Self {
        let exponent = h.ln() / (1.0 - h).ln();
        Self::Pareto { places: places as f64, exponent, scatter: Scatter::new(places, seed) }
    }

    /// The next place of a distribution; 0 of what goes on behind the last one.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> u64 {
        match self {
            Self::Sequential { .. }
            | Self::Partly { .. }
            | Self::Twice { .. }
            | Self::Trace { .. }
            | Self::Course(_) => 0,
            Self::Uniform { places } => random.below(*places),
            Self::Zoned { table } => {
                let (first, places) = table[random.below(100) as usize];
                first + random.below(places)
            }
            Self::Zipf { zipf, scatter } => scatter.place(zipf.draw(random)),
            Self::Pareto { places, exponent, scatter } => {
                let rank = random.fraction().powf(*exponent) * places;
                scatter.place((rank as u64).min(*places as u64 - 1))
            }
        }
    }
}

/// Where the next I/O of a sequence starts, or at the beginning again when it would reach over the end.
#[inline]
pub fn advance(next: &mut u64, blocks: u32, range: u64) -> u64 {
    let at = if *next + u64::from(blocks) > range { 0 } else { *next };
    *next = at + u64::from(blocks);
    at
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Shares of the draws that the hottest tenths of the places got, hottest first.
    fn shares(offsets: &Offsets, places: usize) -> Vec<f64> {
        const DRAWS: usize = 400_000;
        let mut random = Random::new(11);
        let mut seen = vec![0u32; places];
        for _ in 0..DRAWS {
            seen[offsets.draw(&mut random) as usize] += 1;
        }
        seen.sort_unstable_by(|one, other| other.cmp(one));
        seen.chunks(places / 10).map(|part| part.iter().sum::<u32>() as f64 / DRAWS as f64).collect()
    }

    // Without it a Pareto load could be a uniform one, or another than h asks for.
    #[test]
    fn pareto_gives_the_few_the_many() {
        for (h, tenths) in [(0.2, 2), (0.1, 1), (0.3, 3)] {
            let shares = shares(&Offsets::pareto(1000, h, 3), 1000);
            let hot: f64 = shares[..tenths].iter().sum();
            assert!((hot - (1.0 - h)).abs() < 0.01, "h {h}: {hot}");
        }
    }

    // Without it a zone could get another's I/Os, or an end of the range none.
    #[test]
    fn zones_get_their_shares() {
        let zones = Zones::parse("50/5:30/15:20/").unwrap();
        assert_eq!(zones.to_string(), "50/5:30/15:20/80");
        let offsets = Offsets::zoned(1000, &zones);
        let mut random = Random::new(5);
        let mut seen = [0u32; 3];
        let (mut first, mut last) = (u64::MAX, 0);
        for _ in 0..100_000 {
            let place = offsets.draw(&mut random);
            (first, last) = (first.min(place), last.max(place));
            seen[usize::from(place >= 50) + usize::from(place >= 200)] += 1;
        }
        assert_eq!((first, last), (0, 999));
        for (count, share) in seen.iter().zip([50_000u32, 30_000, 20_000]) {
            assert!(count.abs_diff(share) < 800, "{seen:?}");
        }
        let few = Offsets::zoned(3, &zones);
        assert!((0..1000).all(|_| few.draw(&mut random) < 3));
        for text in ["50/5", "60/50:60/50", "50/0:50/100", "x/50:50/50", "/:".repeat(17).as_str()] {
            assert!(Zones::parse(text).is_err(), "{text}");
        }
    }

    // Without it uniform load could have hot places.
    #[test]
    fn uniform_is_even() {
        let shares = shares(&Offsets::uniform(100), 100);
        assert!(shares.iter().all(|share| (share - 0.1).abs() < 0.005), "{shares:?}");
    }

    // Without it a Zipf load's hot blocks would lie side by side, as on no real disk.
    #[test]
    fn hot_places_are_apart() {
        let offsets = Offsets::zipf(1000, 1.5, 3);
        let mut random = Random::new(11);
        let mut seen = vec![0u32; 1000];
        for _ in 0..100_000 {
            seen[offsets.draw(&mut random) as usize] += 1;
        }
        let mut ranks: Vec<usize> = (0..1000).collect();
        ranks.sort_unstable_by_key(|place| std::cmp::Reverse(seen[*place]));
        assert!(ranks[0].abs_diff(ranks[1]) > 10, "{:?}", &ranks[..4]);
        // The hottest of 1000 places gets 1 / zeta(1.5), a little more since the rest ends at 1000.
        let share = f64::from(*seen.iter().max().unwrap()) / 100_000.0;
        assert!((share - 0.3925).abs() < 0.01, "{share}");
    }
}
