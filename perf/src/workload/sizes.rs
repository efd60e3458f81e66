//! How large the next I/O is.

use super::random::Random;
use crate::job::SizeSplit;

/// Shares are hundredths.
const SHARES: usize = 100;

/// Sizes in logical blocks, with their shares.
#[derive(Clone, Debug)]
pub enum Sizes {
    /// All the same.
    One(u32),
    /// A table with an entry for each hundredth.
    Split(Box<[u32; SHARES]>),
}

impl Sizes {
    /// The sizes of a job, which has been checked, on blocks of `block_bytes` bytes.
    pub fn new(split: &SizeSplit, block_bytes: u32) -> Self {
        let blocks = |bytes: u32| (bytes / block_bytes).max(1);
        match split.0.as_slice() {
            [(bytes, _)] => Self::One(blocks(*bytes)),
            all => {
                let mut table = Box::new([1; SHARES]);
                let entries = all.iter().flat_map(|(bytes, share)| (0..*share).map(move |_| blocks(*bytes)));
                for (place, entry) in table.iter_mut().zip(entries) {
                    *place = entry;
                }
                Self::Split(table)
            }
        }
    }

    /// The next size.
    #[inline]
    pub fn draw(&self, random: &mut Random) -> u32 {
        match self {
            Self::One(blocks) => *blocks,
            Self::Split(table) => table[random.below(SHARES as u64) as usize],
        }
    }

    /// The smallest.
    pub fn smallest(&self) -> u32 {
        match self {
            Self::One(blocks) => *blocks,
            Self::Split(table) => table.iter().copied().min().unwrap_or(1),
        }
    }

    /// The largest.
    pub fn largest(&self) -> u32 {
        match self {
            Self::One(blocks) => *blocks,
            Self::Split(table) => table.iter().copied().max().unwrap_or(1),
        }
    }
}
