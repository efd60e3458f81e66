//! Which I/O comes next on one lane.
//!
//! Owns the lane's random numbers and its place in a sequence. Invariants: every I/O lies within the lane's range; a
//! draw takes the same short time whatever the range, and allocates nothing. Lanes call [`Workload::step`] for each
//! I/O.
//!
//! | file | what |
//! |---|---|
//! | `offsets` | where: sequential, uniform, Zipf, Pareto |
//! | `course` | where: with holes, in runs, in zones |
//! | `zipf` | Zipf's law by rejection-inversion |
//! | `scatter` | spreads ranks over the range |
//! | `sizes` | how large: one size, or a split |
//! | `pace` | when: at once, after thinking, or on a schedule |
//! | `random` | random numbers |

mod course;
pub mod offsets;
pub mod pace;
pub mod random;
mod scatter;
pub mod sizes;
mod zipf;

use crate::job::{Distribution, Job, Mode};
use crate::trace::{Entry, Replay};
use course::Course;
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
    /// Writes zeroes, which moves no data.
    Zeroes = 3,
    /// Makes what was written durable.
    Flush = 4,
}

/// Kinds of I/O.
pub const KINDS: usize = 5;
/// Those that reach blocks: all but the flush, which comes last.
pub const DIRECTIONS: usize = 4;

impl Kind {
    /// Whether data goes with it.
    #[inline]
    pub fn moves_data(self) -> bool {
        (self as u8) < Self::Trim as u8
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Trim => "trim",
            Self::Zeroes => "write of zeroes",
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
    /// What else there is besides reads, where it is not all the same.
    mix: Option<Mix>,
    offsets: Offsets,
    read_sizes: Sizes,
    write_sizes: Sizes,
    range: Range,
    /// Blocks by which offsets differ: the smallest size, unless another alignment was asked for.
    grain: u32,
}

/// I/Os that don't read, of several kinds.
#[derive(Debug)]
enum Mix {
    /// By chance: bounds of deallocations and of writes of zeroes, out of 2^32.
    Shares { trims: u64, zeroes: u64 },
    /// Each place is deallocated and then written, which is what comes next.
    TrimFirst { is_write: bool },
    /// As a trace has it.
    Trace(Replay),
}

/// A percentage out of 2^32.
fn share(percent: u8) -> u64 {
    (u64::from(percent) << 32) / 100
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
            Mode::Rw | Mode::Randrw => (share(job.read_percent), Kind::Write),
            Mode::Trim | Mode::Randtrim => (0, Kind::Trim),
            Mode::Trimwrite | Mode::Randtrimwrite => (0, Kind::Write),
        };
        let (trims, zeroes) = (job.trim_percent, job.zeroes_percent);
        let mix = match (job.mode.trims_first(), trims > 0 || zeroes > 0) {
            (true, _) => Some(Mix::TrimFirst { is_write: false }),
            (_, true) => {
                Some(Mix::Shares { trims: share(trims), zeroes: share(trims.saturating_add(zeroes)) })
            }
            _ => None,
        };
        let in_use: &[&Sizes] = match reads {
            0 => &[&write_sizes],
            share if share == 1 << 32 => &[&read_sizes],
            _ => &[&read_sizes, &write_sizes],
        };
        let smallest = in_use.iter().map(|sizes| sizes.smallest()).min().unwrap_or(1);
        let grain = job.align.map_or(smallest, |bytes| (bytes / block_bytes).max(1));
        let largest = in_use.iter().map(|sizes| sizes.largest()).max().unwrap_or(1);
        let room = job.walk.zones.map_or(u64::MAX, |zones| zones.range / u64::from(block_bytes));
        let room = room.min(range.blocks).saturating_sub(u64::from(largest));
        let places_count = room / u64::from(grain) + 1;
        let offsets = match job.distribution {
            _ if !job.mode.is_random() => Offsets::sequential(),
            Distribution::Uniform => Offsets::uniform(places_count),
            Distribution::Zipf(theta) => Offsets::zipf(places_count, theta, places),
            Distribution::Pareto(h) => Offsets::pareto(places_count, h, places),
            Distribution::Zoned(zones) => Offsets::zoned(places_count, &zones),
        };
        // The reads and the writes of a sequential mix have their own places.
        let is_plain = job.walk.is_plain() && job.mode != Mode::Rw;
        let offsets = match job.random_percent {
            _ if !is_plain => {
                let random = job.mode.is_random().then(|| (offsets, share(job.random_percent)));
                Offsets::course(Course::new(&job.walk, range.blocks, block_bytes, random))
            }
            percent if job.mode.is_random() && percent < 100 => Offsets::partly(offsets, share(percent)),
            _ => offsets,
        };
        let offsets = if job.mode.trims_first() { Offsets::twice(offsets) } else { offsets };
        Self { random: Random::new(seed), reads, other, mix, offsets, read_sizes, write_sizes, range, grain }
    }

    /// What a trace wants of a lane, whose blocks have 2 to the power of `shift` bytes.
    pub fn of_trace(replay: &Replay, shift: u32) -> Self {
        Self {
            random: Random::new(0),
            reads: 0,
            other: Kind::Write,
            mix: Some(Mix::Trace(replay.clone())),
            offsets: Offsets::Trace { replay: replay.clone(), shift },
            read_sizes: Sizes::One(1),
            write_sizes: Sizes::One(1),
            range: Range { first: 0, blocks: u64::MAX },
            grain: 1,
        }
    }

    /// The next I/O.
    #[inline]
    pub fn step(&mut self) -> Step {
        let read = match self.reads {
            0 => false,
            share if share == 1 << 32 => true,
            share => (self.random.draw() >> 32) < share,
        };
        // Whatever is rare is called and answers in registers, so that what is usual stays in them, too.
        let kind = match (read, &self.mix) {
            (true, _) => Kind::Read,
            (_, None) => self.other,
            _ => self.mixed(),
        };
        let sizes = if kind == Kind::Read { &self.read_sizes } else { &self.write_sizes };
        let blocks = sizes.draw(&mut self.random);
        let (offset, blocks) = match &mut self.offsets {
            Offsets::Sequential { next } => (offsets::advance(next, blocks, self.range.blocks), blocks),
            Offsets::Uniform { places } => (self.random.below(*places) * u64::from(self.grain), blocks),
            _ => self.elsewhere(kind, blocks),
        };
        Step { kind, block: self.range.first + offset, blocks, version: 0 }
    }

    /// What an I/O that doesn't read does, where these are of several kinds.
    #[cold]
    #[inline(never)]
    fn mixed(&mut self) -> Kind {
        match self.mix.as_mut() {
            Some(Mix::TrimFirst { is_write }) => {
                *is_write = !*is_write;
                if *is_write { Kind::Trim } else { Kind::Write }
            }
            Some(Mix::Shares { trims, zeroes }) => match self.random.draw() >> 32 {
                chance if chance < *trims => Kind::Trim,
                chance if chance < *zeroes => Kind::Zeroes,
                _ => Kind::Write,
            },
            // It is asked when there is one.
            Some(Mix::Trace(replay)) => replay.peek().map_or(Kind::Flush, |entry| entry.kind),
            None => self.other,
        }
    }

    /// Where an I/O goes that is neither one of a sequence nor anywhere alike, and its blocks.
    #[inline(never)]
    fn elsewhere(&mut self, kind: Kind, blocks: u32) -> (u64, u32) {
        let (range, grain) = (self.range.blocks, u64::from(self.grain));
        match &mut self.offsets {
            Offsets::Trace { replay, shift } => replay
                .take()
                .map_or((0, 0), |Entry { offset, length, .. }| (offset >> *shift, length >> *shift)),
            Offsets::Twice { due, places } => match due.take().filter(|_| kind == Kind::Write) {
                Some(again) => again,
                None => {
                    let offset = places.next(&mut self.random, kind, blocks, range, grain);
                    *due = Some((offset, blocks));
                    (offset, blocks)
                }
            },
            other => (other.next(&mut self.random, kind, blocks, range, grain), blocks),
        }
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

    fn blocks_of(job: &Job, steps: usize) -> Vec<(Kind, u64)> {
        let mut workload = Workload::new(job, Range { first: 0, blocks: 1024 }, 512, 3, 1);
        (0..steps).map(|_| workload.step()).map(|step| (step.kind, step.block)).collect()
    }

    // Without it a mix could deallocate or write zeroes more or less often than it was told to.
    #[test]
    fn mixes_keep_their_shares() {
        let mut job = job(Mode::Randrw);
        (job.trim_percent, job.zeroes_percent) = (20, 30);
        let steps = blocks_of(&job, 20_000);
        let of = |kind| steps.iter().filter(|step| step.0 == kind).count();
        assert!(of(Kind::Read).abs_diff(10_000) < 300, "{}", of(Kind::Read));
        assert!(of(Kind::Trim).abs_diff(2000) < 150, "{}", of(Kind::Trim));
        assert!(of(Kind::Zeroes).abs_diff(3000) < 200, "{}", of(Kind::Zeroes));
        (job.mode, job.trim_percent, job.zeroes_percent) = (Mode::Randwrite, 0, 100);
        assert!(blocks_of(&job, 1000).iter().all(|step| step.0 == Kind::Zeroes));
    }

    // Without it a place could be written before it is deallocated, or another one.
    #[test]
    fn each_place_is_deallocated_and_then_written() {
        for mode in [Mode::Trimwrite, Mode::Randtrimwrite] {
            for pair in blocks_of(&job(mode), 100).chunks(2) {
                assert_eq!((pair[0].0, pair[1].0, pair[0].1), (Kind::Trim, Kind::Write, pair[1].1));
            }
        }
    }

    // Without it an alignment could be passed over, or lead over the end of the range.
    #[test]
    fn places_are_aligned_as_asked() {
        let mut job = job(Mode::Randread);
        job.read_sizes = SizeSplit::one(4096);
        for (align, blocks) in [(512, 1), (8192, 16)] {
            job.align = Some(align);
            let places = blocks_of(&job, 2000);
            assert!(places.iter().all(|step| step.1 % blocks == 0 && step.1 + 8 <= 1024));
            assert!(places.iter().any(|step| step.1 / blocks % 2 == 1));
        }
    }

    // Without it a load that is partly sequential could be all of one sort.
    #[test]
    fn a_share_is_random_and_the_rest_goes_on() {
        let mut job = job(Mode::Randread);
        job.random_percent = 25;
        let places = blocks_of(&job, 10_000);
        let on = places.windows(2).filter(|pair| pair[1].1 == (pair[0].1 + 1) % 1024).count();
        assert!(on.abs_diff(7500) < 250, "{on}");
    }
}
