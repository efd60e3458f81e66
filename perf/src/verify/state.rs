//! What verification knew at the end of a run, in a file: which version each place of each lane holds. A later run
//! that only reads checks against it, and finds also what no block can say of itself: that its last write is lost.
//!
//! All fields are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 7 | `SLDGSTAT` |
//! | 8 to 11 | 1 |
//! | 12 to 15 | bytes of a block |
//! | 16 to 23 | number of the run |
//! | 24 to 31 | seed of the job |
//! | 32 to 35 | blocks of a place |
//! | 36 to 39 | lanes |
//! | then of each lane | first block, places (8 bytes each), version of each place (4 bytes each; 0 is unknown) |
//! | last 4 | CRC-32C of all before |

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use crc_fast::{CrcAlgorithm, Digest};

use super::Author;

const MAGIC: [u8; 8] = *b"SLDGSTAT";
const FORM: u32 = 1;
const HEADER: usize = 40;
/// Largest file that is read: that of 64 lanes with all the places a lane can keep track of.
const MOST_BYTES: u64 = 4 << 30;

/// What was known at the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Who wrote.
    pub author: Author,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Blocks of a place.
    pub grain: u32,
    /// Lanes, by their first blocks.
    pub lanes: Vec<LaneState>,
}

/// What was known of a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneState {
    /// The first block.
    pub first: u64,
    /// Version of each place; 0 is unknown.
    pub versions: Vec<u32>,
}

impl State {
    /// The version that a block ought to hold; 0 is unknown.
    pub fn version(&self, block: u64) -> u32 {
        let after = self.lanes.partition_point(|lane| lane.first <= block);
        let Some(lane) = after.checked_sub(1).and_then(|index| self.lanes.get(index)) else { return 0 };
        let place = (block - lane.first) / u64::from(self.grain);
        usize::try_from(place).ok().and_then(|place| lane.versions.get(place)).copied().unwrap_or(0)
    }

    /// Writes the file, in one piece: one that is there stays whole until the new one is.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let file = File::create(&beside)?;
        let mut out = Summed { inner: BufWriter::new(file), digest: Digest::new(CrcAlgorithm::Crc32Iscsi) };
        out.put(&MAGIC)?;
        out.put(&FORM.to_le_bytes())?;
        out.put(&self.block_bytes.to_le_bytes())?;
        out.put(&self.author.run.to_le_bytes())?;
        out.put(&self.author.seed.to_le_bytes())?;
        out.put(&self.grain.to_le_bytes())?;
        let lanes = u32::try_from(self.lanes.len()).map_err(|_| io::Error::other("too many lanes"))?;
        out.put(&lanes.to_le_bytes())?;
        for lane in &self.lanes {
            out.put(&lane.first.to_le_bytes())?;
            out.put(&(lane.versions.len() as u64).to_le_bytes())?;
            lane.versions.iter().try_for_each(|version| out.put(&version.to_le_bytes()))?;
        }
        let sum = out.digest.finalize() as u32;
        out.inner.write_all(&sum.to_le_bytes())?;
        out.inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&beside, path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read, or is not what [`State::save`] wrote.
    pub fn load(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Self::parse(&bytes).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "not a state of verification, or a damaged one")
        })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, body) as u32 != u32::from_le_bytes(*sum) {
            return None;
        }
        let (header, mut rest) = body.split_at_checked(HEADER)?;
        let short = |at: usize| {
            let bytes = header.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        let long = |at: usize| Some(u64::from(short(at)?) | u64::from(short(at + 4)?) << 32);
        let (block_bytes, grain) = (short(12)?, short(32)?);
        if header[..8] != MAGIC || short(8)? != FORM || block_bytes == 0 || grain == 0 {
            return None;
        }
        let author = Author { run: long(16)?, seed: long(24)? };
        let mut lanes = Vec::new();
        for _ in 0..short(36)? {
            let (first, after) = rest.split_first_chunk::<8>()?;
            let (places, after) = after.split_first_chunk::<8>()?;
            let length = usize::try_from(u64::from_le_bytes(*places)).ok()?.checked_mul(4)?;
            let (versions, after) = after.split_at_checked(length)?;
            let versions = versions.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
            lanes.push(LaneState { first: u64::from_le_bytes(*first), versions: versions.collect() });
            rest = after;
        }
        lanes.sort_by_key(|lane| lane.first);
        rest.is_empty().then_some(Self { author, block_bytes, grain, lanes })
    }
}

/// What is written, and the checksum of it.
struct Summed {
    inner: BufWriter<File>,
    digest: Digest,
}

impl Summed {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.inner.write_all(bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state() -> State {
        let lane = |first, versions: &[u32]| LaneState { first, versions: versions.to_vec() };
        let author = Author { run: 1 << 40 | 3, seed: 9 };
        State { author, block_bytes: 512, grain: 8, lanes: vec![lane(16, &[1, 0, 7]), lane(64, &[5])] }
    }

    // Without it a later run could hold blocks against versions of others, or of none.
    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        state().save(&path).unwrap();
        let read = State::load(&path).unwrap();
        assert_eq!(read, state());
        let versions: Vec<u32> =
            [15, 16, 23, 24, 39, 40, 63, 64, 71, 72].map(|block| read.version(block)).into();
        assert_eq!(versions, [0, 1, 1, 0, 7, 0, 0, 5, 5, 0]);
    }

    // Without it a file that is damaged, or of something else, could decide what is right, or end the program.
    #[test]
    fn damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        state().save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(State::parse(&damaged), None, "byte {at}");
            assert_eq!(State::parse(&bytes[..at]), None, "length {at}");
        }
        // A count that is larger than the file, with a checksum that is right.
        let mut long = bytes[..bytes.len() - 4].to_vec();
        long[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
        let sum = crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, &long) as u32;
        long.extend(sum.to_le_bytes());
        assert_eq!(State::parse(&long), None);
    }
}
