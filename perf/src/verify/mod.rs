//! Verification: what each block of a lane ought to hold, and whether it does.
//!
//! Owns the versions that a lane wrote. Invariants: no two I/Os of a lane touch the same block at once, so that what
//! a block holds is always known; a write that failed leaves its blocks unknown, and they are not checked. Lanes
//! claim an I/O's blocks before it goes and release them when it has ended.
//!
//! | file | what |
//! |---|---|
//! | `stamp` | what is written into each block |
//! | `earlier` | blocks that an earlier run wrote |
//! | `state` | what a run knew at its end, in a file |
//! | `fault` | what is wrong with a block, in words |

mod earlier;
mod fault;
mod stamp;
mod state;

pub use earlier::Earlier;
pub use fault::Fault;
pub use stamp::{Damage, Stamp};
pub use state::{LaneState, State};

use crate::workload::{Kind, Range, Step};
use sledge_reactor::memory::{Segment, Segments};

/// Most places of one lane that verification keeps track of (4 bytes each).
pub const MAX_PLACES: u64 = 16 << 20;
/// Marks a place that an I/O is using.
const IN_USE: u32 = 1 << 31;
/// In place of a version: zeroes were written.
const ZEROED: u32 = IN_USE - 1;
/// Versions after which they begin again.
const MOST_VERSIONS: u32 = ZEROED - 1;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Author {
    /// A number that no other run has.
    pub run: u64,
    /// The seed of the job.
    pub seed: u64,
}

/// What a lane's blocks ought to hold.
#[derive(Debug)]
pub struct Verifier {
    author: Author,
    range: Range,
    block_bytes: u32,
    /// Blocks of a place: all I/Os consist of whole places.
    grain: u32,
    /// Version of each place; 0 is unknown. None are kept of what an earlier run wrote.
    versions: Vec<u32>,
    /// Reads are held against what an earlier run wrote.
    earlier: Option<Earlier>,
    latest: u32,
    /// The next place to read back.
    read_back: usize,
}

impl Verifier {
    /// Nothing is known of any block of `range`. Sizes and offsets of I/Os are multiples of `grain` blocks.
    pub fn new(author: Author, range: Range, block_bytes: u32, grain: u32) -> Self {
        let versions = vec![0; (range.blocks / u64::from(grain)) as usize];
        Self { author, range, block_bytes, grain, versions, earlier: None, latest: 0, read_back: 0 }
    }

    /// Of a lane that only reads what an earlier run wrote.
    pub fn of_earlier(author: Author, range: Range, block_bytes: u32, earlier: Earlier) -> Self {
        let earlier = Some(earlier);
        Self { author, range, block_bytes, grain: 1, versions: Vec::new(), earlier, latest: 0, read_back: 0 }
    }

    /// What is known now, for a later run. Only when no I/O is outstanding.
    pub fn into_state(self) -> LaneState {
        LaneState { first: self.range.first, versions: self.versions }
    }

    fn places(&self, step: &Step) -> std::ops::Range<usize> {
        let first = ((step.block - self.range.first) / u64::from(self.grain)) as usize;
        first..first + (step.blocks / self.grain) as usize
    }

    /// Takes the blocks of an I/O, or the next free ones behind them, and gives a write its version. False when no
    /// blocks are free.
    pub fn claim(&mut self, step: &mut Step) -> bool {
        if step.kind == Kind::Flush || self.earlier.is_some() {
            return true;
        }
        let length = self.places(step).len();
        let mut first = self.places(step).start;
        let mut tries = 0;
        loop {
            let claimed = self.versions.get(first..first + length);
            match claimed.map(|places| places.iter().rposition(|version| version & IN_USE != 0)) {
                Some(None) => break,
                Some(Some(last)) => first += last + 1,
                None => first = 0,
            }
            tries += 1;
            if tries > self.versions.len() {
                return false;
            }
        }
        step.block = self.range.first + first as u64 * u64::from(self.grain);
        if step.kind == Kind::Write {
            self.latest = if self.latest == MOST_VERSIONS { 1 } else { self.latest + 1 };
            step.version = self.latest;
        }
        self.versions[first..first + length].iter_mut().for_each(|version| *version |= IN_USE);
        true
    }

    /// An I/O ended.
    pub fn release(&mut self, step: &Step, success: bool) {
        if step.kind == Kind::Flush || self.earlier.is_some() {
            return;
        }
        let places = self.places(step);
        for version in &mut self.versions[places] {
            *version = match (step.kind, success) {
                (Kind::Read, _) => *version & !IN_USE,
                (Kind::Write, true) => step.version,
                (Kind::Zeroes, true) => ZEROED,
                _ => 0,
            };
        }
    }

    /// Fills the memory of a write, which is whole blocks in each piece.
    pub fn fill(&self, step: &Step, data: &mut [Segments]) {
        let pieces = data.iter_mut().flat_map(Segments::iter_mut).filter_map(Segment::as_mut_slice);
        let blocks = pieces.flat_map(|memory| memory.chunks_exact_mut(self.block_bytes as usize));
        let Author { run, seed } = self.author;
        for (block, bytes) in (step.block..).zip(blocks.take(step.blocks as usize)) {
            let (start, blocks, version) = (step.block, step.blocks, step.version);
            Stamp { run, seed, block, start, blocks, version }.write(bytes);
        }
    }

    /// Checks what a read brought, whole blocks in the one segment of each piece. True when something was known of it, false when
    /// there was nothing to check.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, step: &Step, data: &[Segments]) -> Result<bool, Fault> {
        self.check_pieces(step, data.iter().filter_map(|data| data.get(0)).map(Segment::as_slice))
    }

    fn check_pieces<'a>(
        &self,
        step: &Step,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<bool, Fault> {
        let blocks = pieces.flat_map(|memory| memory.chunks_exact(self.block_bytes as usize));
        let blocks = (step.block..).zip(blocks.take(step.blocks as usize));
        if let Some(earlier) = &self.earlier {
            return earlier.check(blocks);
        }
        let mut any = false;
        for (block, bytes) in blocks.clone() {
            let expected = self.expected(block);
            if expected == 0 {
                continue;
            }
            any = true;
            if expected == ZEROED {
                expect_zeroes(block, self.block_bytes, bytes)?;
                continue;
            }
            let found = Stamp::read(bytes);
            let right = |stamp: &Stamp| {
                let Author { run, seed } = self.author;
                (stamp.run, stamp.seed, stamp.block, stamp.version) == (run, seed, block, expected)
            };
            if !found.as_ref().is_ok_and(right) {
                let partly = self.arrived_elsewhere(blocks, expected);
                return Err(Fault::new(self.author, block, self.block_bytes, expected, found, partly));
            }
        }
        Ok(any)
    }

    fn expected(&self, block: u64) -> u32 {
        let place = (block - self.range.first) / u64::from(self.grain);
        self.versions.get(place as usize).map_or(0, |version| version & !IN_USE)
    }

    /// Whether some block of a read holds version `version` where it ought to.
    fn arrived_elsewhere<'a>(&self, mut blocks: impl Iterator<Item = (u64, &'a [u8])>, version: u32) -> bool {
        blocks.any(|(block, bytes)| {
            self.expected(block) == version
                && Stamp::read(bytes).is_ok_and(|stamp| (stamp.block, stamp.version) == (block, version))
        })
    }

    /// The next blocks to read back, at most `most` of them (a multiple of the grain): every place of which something
    /// is known is read once. Claims them. Only when no other I/O is outstanding.
    pub fn read_back(&mut self, most: u32) -> Option<Step> {
        let known = |version: &u32| version & !IN_USE != 0;
        let skipped = self.versions.get(self.read_back..)?.iter().position(known)?;
        let first = self.read_back + skipped;
        let most = (most / self.grain).max(1) as usize;
        let length = self.versions[first..].iter().take(most).take_while(|version| known(version)).count();
        self.read_back = first + length;
        self.versions[first..first + length].iter_mut().for_each(|version| *version |= IN_USE);
        let block = self.range.first + first as u64 * u64::from(self.grain);
        Some(Step { kind: Kind::Read, block, blocks: length as u32 * self.grain, version: 0 })
    }
}

/// Holds a block against the zeroes that were written there.
fn expect_zeroes(block: u64, block_bytes: u32, bytes: &[u8]) -> Result<(), Fault> {
    match bytes.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(Fault::of_zeroes(block, block_bytes, Stamp::read(bytes))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
