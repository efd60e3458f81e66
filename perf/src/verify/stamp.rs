//! What verification writes into each block: who wrote it, where it belongs, which version it is, and a checksum.
//!
//! All fields are little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0 to 7 | `SLDGPERF` |
//! | 8 to 15 | number of the run |
//! | 16 to 23 | seed of the job |
//! | 24 to 31 | this block, counted from the start of the target |
//! | 32 to 39 | first block of the write |
//! | 40 to 43 | blocks of the write |
//! | 44 to 47 | version |
//! | 48 to 9th last | content that differs with all of the above |
//! | 8th to 5th last | version again |
//! | last 4 | CRC-32C of all before |

use crate::workload::random::mix;
use crc_fast::CrcAlgorithm;

const MAGIC: [u8; 8] = *b"SLDGPERF";
const HEADER: usize = 48;
const TRAILER: usize = 8;

/// What a block says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the run that wrote it.
    pub run: u64,
    /// Seed of the job that wrote it.
    pub seed: u64,
    /// Where it belongs.
    pub block: u64,
    /// First block of the write.
    pub start: u64,
    /// Blocks of the write.
    pub blocks: u32,
    /// Version, rising with each write of a lane.
    pub version: u32,
}

/// A block that is not as any write left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Zeroes.
    Zeroes,
    /// No header.
    Foreign,
    /// Begins with one version and ends with another.
    Torn {
        /// Version at the beginning.
        first: u32,
        /// Version at the end.
        last: u32,
    },
    /// The checksum is not that of the content.
    Checksum(Stamp),
}

impl Stamp {
    /// Fills a block (at least 512 bytes, a multiple of 8).
    pub fn write(&self, bytes: &mut [u8]) {
        let end = bytes.len() - TRAILER;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&self.run.to_le_bytes());
        header[16..24].copy_from_slice(&self.seed.to_le_bytes());
        header[24..32].copy_from_slice(&self.block.to_le_bytes());
        header[32..40].copy_from_slice(&self.start.to_le_bytes());
        header[40..44].copy_from_slice(&self.blocks.to_le_bytes());
        header[44..].copy_from_slice(&self.version.to_le_bytes());
        bytes[..HEADER].copy_from_slice(&header);
        let seed = mix(self.run ^ self.block.rotate_left(32) ^ u64::from(self.version));
        let mut word = seed;
        for place in bytes[HEADER..end].as_chunks_mut::<8>().0 {
            word = word.wrapping_add(0x9E37_79B9_7F4A_7C15);
            *place = word.wrapping_mul(seed | 1).to_le_bytes();
        }
        bytes[end..end + 4].copy_from_slice(&self.version.to_le_bytes());
        let checksum = checksum(&bytes[..end + 4]);
        bytes[end + 4..].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads what a block says of itself.
    ///
    /// # Errors
    /// What is wrong with the block, whatever it ought to hold.
    pub fn read(bytes: &[u8]) -> Result<Self, Damage> {
        let (Some((header, _)), Some((_, trailer))) =
            (bytes.split_first_chunk::<HEADER>(), bytes.split_last_chunk::<TRAILER>())
        else {
            return Err(Damage::Foreign);
        };
        if header[..8] != MAGIC {
            let zeroes = bytes.iter().all(|byte| *byte == 0);
            return Err(if zeroes { Damage::Zeroes } else { Damage::Foreign });
        }
        let stamp = Self {
            run: long(header, 8),
            seed: long(header, 16),
            block: long(header, 24),
            start: long(header, 32),
            blocks: short(header, 40),
            version: short(header, 44),
        };
        if short(trailer, 4) == checksum(&bytes[..bytes.len() - 4]) {
            return Ok(stamp);
        }
        let last = short(trailer, 0);
        let torn = last != stamp.version;
        Err(if torn { Damage::Torn { first: stamp.version, last } } else { Damage::Checksum(stamp) })
    }
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(short(bytes, at)) | u64::from(short(bytes, at + 4)) << 32
}

fn short(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
