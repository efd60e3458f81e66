//! Which I/O comes next on one lane.
//!
//! Owns the lane's random numbers and its place in a sequence. Invariants: every I/O lies within the lane's range; a
//! draw takes the same short time whatever the range, and allocates nothing. Lanes call [`Workload::step`] for each
//! I/O.
//!
//! | file | what |
//! |---|---|
//! | `offsets` | where: sequential, uniform, Zipf, Pareto |
//! | `zipf` | Zipf's law by rejection-inversion |
//! | `scatter` | spreads ranks over the range |
//! | `sizes` | how large: one size, or a split |
//! | `pace` | when: at once, after thinking, or on a schedule |
//! | `random` | random numbers |

pub mod offsets;
pub mod pace;
pub mod random;
mod scatter;
pub mod sizes;
mod zipf;

use crate::job::{Distribution, Job, Mode};
use offsets::Offsets;
use random::Random;
use sizes::Sizes;

/// What an I/O does; its number is its place in arrays of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads.
    Read = 0,
    /// Writes.
    Write = 1,
    /// Deallocates.
    Trim = 2,
    /// Makes what was written durable.
    Flush = 3,
}

/// Kinds of I/O.
pub const KINDS: usize = 4;

impl Kind {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Trim => "trim",
            Self::Flush => "flush",
        }
    }
}

/// The next I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub kind: Kind,
    /// First logical block, counted from the start of the target.
    pub block: u64,
    /// Logical blocks.
    pub blocks: u32,
    /// With verification: the version that is written.
    pub version: u32,
}

/// Blocks of a target that a lane may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// How many.
    pub blocks: u64,
}

/// One lane's sequence of I/Os.
#[derive(Debug)]
pub struct Workload {
    random: Random,
    /// Reads, out of 2^32.
    reads: u64,
    other: Kind,
    offsets: Offsets,
    read_sizes: Sizes,
    write_sizes: Sizes,
    range: Range,
    /// Blocks by which offsets differ: the smallest size.
    grain: u32,
}

impl Workload {
    /// What `job` wants of a lane on `range`, whose blocks have `block_bytes` bytes. The job has been checked against
    /// the target: the range holds the largest I/O. Lanes of equal `seed` draw equal I/Os; lanes of a job share
    /// `places`, so that they have the same hot blocks.
    pub fn new(job: &Job, range: Range, block_bytes: u32, seed: u64, places: u64) -> Self {
        let read_sizes = Sizes::new(&job.read_sizes, block_bytes);
        let write_sizes = Sizes::new(&job.write_sizes, block_bytes);
        let (reads, other) = match job.mode {
            Mode::Read | Mode::Randread => (1 << 32, Kind::Write),
            Mode::Write | Mode::Randwrite => (0, Kind::Write),
            Mode::Rw | Mode::Randrw => ((u64::from(job.read_percent) << 32) / 100, Kind::Write),
            Mode::Trim | Mode::Randtrim => (0, Kind::Trim),
        };
        let in_use: &[&Sizes] = match reads {
            0 => &[&write_sizes],
            share if share == 1 << 32 => &[&read_sizes],
            _ => &[&read_sizes, &write_sizes],
        };
        let grain = in_use.iter().map(|sizes| sizes.smallest()).min().unwrap_or(1);
        let largest = in_use.iter().map(|sizes| sizes.largest()).max().unwrap_or(1);
        let places_count = range.blocks.saturating_sub(u64::from(largest)) / u64::from(grain) + 1;
        let offsets = match job.distribution {
            _ if !job.mode.is_random() => Offsets::sequential(),
            Distribution::Uniform => Offsets::uniform(places_count),
            Distribution::Zipf(theta) => Offsets::zipf(places_count, theta, places),
            Distribution::Pareto(h) => Offsets::pareto(places_count, h, places),
        };
        Self { random: Random::new(seed), reads, other, offsets, read_sizes, write_sizes, range, grain }
    }

    /// The next I/O.
    #[inline]
    pub fn step(&mut self) -> Step {
        let read = match self.reads {
            0 => false,
            share if share == 1 << 32 => true,
            share => (self.random.draw() >> 32) < share,
        };
        let (kind, sizes) =
            if read { (Kind::Read, &self.read_sizes) } else { (self.other, &self.write_sizes) };
        let blocks = sizes.draw(&mut self.random);
        let offset = match &mut self.offsets {
            Offsets::Sequential { next } => {
                let at = if *next + u64::from(blocks) > self.range.blocks { 0 } else { *next };
                *next = at + u64::from(blocks);
                at
            }
            random => random.draw(&mut self.random) * u64::from(self.grain),
        };
        Step { kind, block: self.range.first + offset, blocks, version: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{SizeSplit, Target};

    fn job(mode: Mode) -> Job {
        let target = Target::File { path: "/dev/null".into(), direct: false };
        let mut job = Job::new(target);
        (job.mode, job.read_percent) = (mode, 50);
        (job.read_sizes, job.write_sizes) = (SizeSplit::one(512), SizeSplit::one(512));
        job
    }

    // Without it lanes could overlap, or sequential load skip or leave its range.
    #[test]
    fn sequences_stay_in_their_range() {
        let range = Range { first: 10, blocks: 3 };
        let mut sequential = Workload::new(&job(Mode::Read), range, 512, 1, 1);
        let blocks: Vec<u64> = (0..5).map(|_| sequential.step().block).collect();
        assert_eq!(blocks, [10, 11, 12, 10, 11]);
        let mut random = Workload::new(&job(Mode::Randrw), Range { first: 100, blocks: 7 }, 512, 1, 1);
        let mut seen = [0; 7];
        let mut writes = 0;
        for _ in 0..7000 {
            let step = random.step();
            seen[(step.block - 100) as usize] += 1;
            writes += u32::from(step.kind == Kind::Write);
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert!((3200..3800).contains(&writes), "{writes}");
    }

    // Without it an I/O of a split could reach over the end of its range into another lane's.
    #[test]
    fn split_sizes_stay_in_their_range_and_keep_their_shares() {
        for mode in [Mode::Randread, Mode::Read] {
            let mut job = job(mode);
            job.read_sizes = SizeSplit(vec![(1024, 75), (8192, 25)]);
            let mut workload = Workload::new(&job, Range { first: 8, blocks: 41 }, 512, 3, 1);
            let mut large = 0;
            for _ in 0..10_000 {
                let step = workload.step();
                assert!(step.block >= 8 && step.block + u64::from(step.blocks) <= 49, "{step:?}");
                assert!((step.block - 8).is_multiple_of(2), "{step:?}");
                large += u32::from(step.blocks == 16);
            }
            assert!((2300..2700).contains(&large), "{large}");
        }
    }

    // Without it a job of deallocations could write.
    #[test]
    fn trims_trim() {
        let mut workload = Workload::new(&job(Mode::Randtrim), Range { first: 0, blocks: 64 }, 512, 3, 1);
        assert!((0..100).all(|_| workload.step().kind == Kind::Trim));
    }
}
