//! The content of a simulated disk: what reads see, what a power cut may leave of it, and what is allocated.
//!
//! A block keeps its versions since it was last durable. Invariant: the oldest kept version is durable, the
//! newest is what reads see; a power cut leaves one of them, or, torn, sectors of several, and nothing else.
//! Owned by a simulated disk.

use std::collections::{BTreeMap, BTreeSet};

use super::random::Random;

/// The unit in which a power cut tears a block, bytes.
const SECTOR_BYTES: usize = 512;
/// Versions that a block keeps at most; then the disk has written the oldest out by itself.
const MOST_VERSIONS: usize = 4;
/// What a block without data reads as.
static ZEROES: [u8; 4096] = [0; 4096];

/// What a block holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing is allocated; reads as zeros.
    Hole,
    /// Allocated zeros.
    Zeroes,
    /// Data, as long as a block.
    Data(Box<[u8]>),
}

/// What a block held after a write.
#[derive(Clone, Debug)]
struct Version {
    /// The number of the write.
    write: u64,
    content: Content,
}

/// A block that has ever been written.
#[derive(Clone, Debug)]
struct Block {
    /// Versions before the newest, oldest first.
    older: Vec<Version>,
    newest: Version,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Medium {
    len_bytes: u64,
    block_bytes: u32,
    blocks: BTreeMap<u64, Block>,
    unsynced: BTreeSet<u64>,
    writes: u64,
    /// Whether a power cut may leave a sector that is partly old and partly new.
    pub tears_sectors: bool,
}

impl Medium {
    /// An empty disk. `block_bytes` is 512 or 4096.
    pub(super) fn new(len_bytes: u64, block_bytes: u32) -> Medium {
        Medium {
            len_bytes,
            block_bytes,
            blocks: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            writes: 0,
            tears_sectors: true,
        }
    }

    /// Length in bytes.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Block size in bytes.
    pub(super) fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// What a block reads as, one block long.
    pub(super) fn read(&self, block: u64) -> &[u8] {
        match self.blocks.get(&block).map(|block| &block.newest.content) {
            Some(Content::Data(data)) => data,
            Some(Content::Zeroes | Content::Hole) | None => &ZEROES[..self.block_bytes as usize],
        }
    }

    /// Replaces a block. A durable write is safe from then on, and so is nothing else.
    pub(super) fn write(&mut self, block: u64, content: Content, durable: bool) {
        self.writes += 1;
        let newest = Version { write: self.writes, content };
        let hole = Version { write: 0, content: Content::Hole };
        let entry = self.blocks.entry(block).or_insert(Block { older: Vec::new(), newest: hole });
        let before = std::mem::replace(&mut entry.newest, newest);
        entry.older.push(before);
        if durable {
            self.sync_block(block, u64::MAX);
        } else {
            if entry.older.len() >= MOST_VERSIONS {
                entry.older.remove(0);
            }
            self.unsynced.insert(block);
        }
    }

    /// The number of the latest write so far.
    pub(super) fn latest_write(&self) -> u64 {
        self.writes
    }

    /// Makes every write up to that number durable.
    pub(super) fn sync(&mut self, up_to: u64) {
        let blocks: Vec<u64> = self.unsynced.iter().copied().collect();
        for block in blocks {
            self.sync_block(block, up_to);
        }
    }

    fn sync_block(&mut self, block: u64, up_to: u64) {
        let Some(entry) = self.blocks.get_mut(&block) else { return };
        if entry.newest.write <= up_to {
            entry.older.clear();
            self.unsynced.remove(&block);
            if entry.newest.content == Content::Hole {
                self.blocks.remove(&block);
            }
        } else if let Some(durable) = entry.older.iter().rposition(|version| version.write <= up_to) {
            entry.older.drain(..durable);
        }
    }

    /// The power fails: every block with unsynced writes keeps one of its versions or a mixture. Returns
    /// how many blocks lost their newest content.
    pub(super) fn cut_power(&mut self, random: &mut Random) -> u64 {
        let mood = random.below(8);
        let mut lost = 0;
        for number in std::mem::take(&mut self.unsynced) {
            let Some(block) = self.blocks.get_mut(&number) else { continue };
            let mut versions = std::mem::take(&mut block.older);
            versions.push(block.newest.clone());
            let kept = match mood {
                0 => versions[0].content.clone(),
                1 => block.newest.content.clone(),
                _ => match random.below(3) {
                    0 => versions[random.below(versions.len() as u64) as usize].content.clone(),
                    1 => block.newest.content.clone(),
                    _ => tear(&versions, self.block_bytes as usize, self.tears_sectors, random),
                },
            };
            lost += u64::from(kept != block.newest.content);
            if kept == Content::Hole {
                self.blocks.remove(&number);
            } else {
                block.newest.content = kept;
            }
        }
        lost
    }

    /// Bytes that are allocated, as reads see them.
    pub(super) fn allocated_bytes(&self) -> u64 {
        let allocated = self.blocks.values().filter(|block| block.newest.content != Content::Hole);
        allocated.count() as u64 * u64::from(self.block_bytes)
    }

    /// How many blocks have writes that a power cut could lose.
    pub(super) fn unsynced_blocks(&self) -> u64 {
        self.unsynced.len() as u64
    }
}

/// A mixture of versions: each sector from one of them, or cut between two.
fn tear(versions: &[Version], block_bytes: usize, tears_sectors: bool, random: &mut Random) -> Content {
    let bytes_of = |version: &Version| -> Box<[u8]> {
        match &version.content {
            Content::Data(data) => data.clone(),
            Content::Hole | Content::Zeroes => ZEROES[..block_bytes].into(),
        }
    };
    let choose = |random: &mut Random| &versions[random.below(versions.len() as u64) as usize];
    let mut torn = vec![0; block_bytes].into_boxed_slice();
    for start in (0..block_bytes).step_by(SECTOR_BYTES) {
        let sector = start..start + SECTOR_BYTES;
        torn[sector.clone()].copy_from_slice(&bytes_of(choose(random))[sector.clone()]);
        let cut_often = if block_bytes == SECTOR_BYTES { 500_000 } else { 60_000 };
        if tears_sectors && random.chance(cut_often) {
            let rest = start + random.below(SECTOR_BYTES as u64) as usize..sector.end;
            torn[rest.clone()].copy_from_slice(&bytes_of(choose(random))[rest]);
        }
    }
    Content::Data(torn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8, block_bytes: usize) -> Content {
        Content::Data(vec![byte; block_bytes].into())
    }

    // Without this, a power cut could take what a flush has promised, and every crash test above it would
    // report losses that no real disk causes.
    #[test]
    fn a_power_cut_keeps_what_was_synced() {
        for seed in 0..200 {
            let mut random = Random::new(seed, 0);
            let mut medium = Medium::new(1 << 20, 4096);
            medium.write(1, filled(1, 4096), false);
            medium.write(2, filled(2, 4096), false);
            let barrier = medium.latest_write();
            medium.write(2, filled(3, 4096), false);
            medium.sync(barrier);
            medium.write(5, filled(9, 4096), true);
            assert_eq!(medium.unsynced_blocks(), 1);
            medium.cut_power(&mut random);
            assert_eq!(medium.read(1), [1; 4096], "seed {seed}");
            assert!(medium.read(2).iter().all(|byte| [2, 3].contains(byte)), "seed {seed}");
            assert_eq!(medium.read(5), [9; 4096], "seed {seed}");
        }
    }

    // Without this, the simulated disk could be kinder than a real one: nothing lost, nothing torn, or all
    // sectors sharing one fate.
    #[test]
    fn unsynced_blocks_survive_or_are_lost_or_torn() {
        let (mut survived, mut lost, mut torn, mut cut) = (0, 0, 0, 0);
        for seed in 0..300 {
            let mut random = Random::new(seed, 0);
            let mut medium = Medium::new(1 << 20, 4096);
            medium.write(7, filled(1, 4096), true);
            medium.write(7, filled(2, 4096), false);
            medium.cut_power(&mut random);
            let after = medium.read(7);
            match (after.contains(&1), after.contains(&2)) {
                (false, true) => survived += 1,
                (true, false) => lost += 1,
                _ => torn += 1,
            }
            let mixed = |sector: &[u8]| sector.contains(&1) && sector.contains(&2);
            cut += u32::from(after.chunks(SECTOR_BYTES).any(mixed));
        }
        assert!(survived > 50 && lost > 20 && torn > 50 && cut > 5, "{survived} {lost} {torn} {cut}");
    }

    // Without this, a disk that writes one block over and over without a flush would grow without bound.
    #[test]
    fn versions_are_bounded() {
        let mut medium = Medium::new(1 << 20, 512);
        for byte in 0..100 {
            medium.write(3, filled(byte, 512), false);
        }
        assert!(medium.blocks[&3].older.len() < MOST_VERSIONS);
        assert_eq!(medium.read(3), [99; 512]);
    }

    // Without this, deallocation could leak space that nobody ever gets back.
    #[test]
    fn holes_are_not_allocated() {
        let mut medium = Medium::new(1 << 20, 512);
        medium.write(0, filled(1, 512), true);
        medium.write(1, Content::Zeroes, false);
        assert_eq!(medium.allocated_bytes(), 1024);
        medium.write(0, Content::Hole, false);
        assert_eq!(medium.allocated_bytes(), 512);
        assert_eq!(medium.read(0), [0; 512]);
        medium.sync(u64::MAX);
        assert_eq!(medium.blocks.len(), 1);
    }
}
