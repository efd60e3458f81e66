//! What is wrong with a block, in words: stale, torn, misplaced and corrupt blocks have different causes, and whoever
//! looks for one wants to know which it is.

use super::{Author, Damage, Stamp};
use std::fmt;

/// A block that does not hold what it ought to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    block: u64,
    byte: u64,
    /// The version that was written last; 0 when it is not known.
    expected: u32,
    sort: Sort,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// An earlier version, or none.
    Stale(Option<u32>),
    /// What another run left.
    OtherRun(Stamp),
    /// A write that arrived in some blocks only; this one has an earlier version.
    TornWrite(Option<u32>),
    /// A block that begins with one version and ends with another.
    TornBlock(u32, u32),
    /// What belongs elsewhere.
    Misplaced(Stamp),
    /// A later version than the last that succeeded.
    Newer(u32),
    /// A header, and content that is not as its checksum says.
    Corrupt(u32),
    /// No header.
    Foreign,
    /// Something, where zeroes were written.
    NotZeroes(Option<u32>),
}

impl Fault {
    /// Finds what is wrong with a block in which `found` was found instead of version `expected`; `partly` says that
    /// other blocks hold that version.
    pub(super) fn new(
        author: Author,
        block: u64,
        block_bytes: u32,
        expected: u32,
        found: Result<Stamp, Damage>,
        partly: bool,
    ) -> Self {
        let old = |version| if partly { Sort::TornWrite(version) } else { Sort::Stale(version) };
        let sort = match found {
            Err(Damage::Zeroes) => old(None),
            Err(Damage::Foreign) => Sort::Foreign,
            Err(Damage::Torn { first, last }) => Sort::TornBlock(first, last),
            Err(Damage::Checksum(stamp)) => Sort::Corrupt(stamp.version),
            Ok(stamp) if stamp.block != block => Sort::Misplaced(stamp),
            Ok(stamp) if (stamp.run, stamp.seed) != (author.run, author.seed) => Sort::OtherRun(stamp),
            Ok(stamp) if stamp.version > expected => Sort::Newer(stamp.version),
            Ok(stamp) => old(Some(stamp.version)),
        };
        Self { block, byte: block * u64::from(block_bytes), expected, sort }
    }

    /// What is wrong with a block of which it is only known that some version was written.
    pub(super) fn of_unknown(block: u64, block_bytes: u32, found: Result<Stamp, Damage>) -> Self {
        // A stamp at its home is not wrong by itself.
        Self::new(Author { run: 0, seed: 0 }, block, block_bytes, 0, found, false)
    }

    /// What is wrong with a block where zeroes were written last.
    pub(super) fn of_zeroes(block: u64, block_bytes: u32, found: Result<Stamp, Damage>) -> Self {
        let sort = Sort::NotZeroes(found.ok().map(|stamp| stamp.version));
        Self { block, byte: block * u64::from(block_bytes), expected: 0, sort }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { block, byte, expected, sort } = self;
        let place = format_args!("block {block} (byte {byte})");
        let holds = |version: &Option<u32>| match version {
            Some(version) => format!("version {version}"),
            None => "zeroes".to_owned(),
        };
        let written = match expected {
            0 => "some version was to be there".to_owned(),
            version => format!("version {version} was written"),
        };
        match sort {
            Sort::Stale(version) => write!(f, "stale: {place} holds {}, {written}", holds(version)),
            Sort::OtherRun(Stamp { seed, version, .. }) => write!(
                f,
                "stale: {place} holds version {version} of another run or job (seed {seed}), version {expected} of \
                 this one was written"
            ),
            Sort::TornWrite(version) => write!(
                f,
                "torn: {place} holds {}, other blocks of the same write hold version {expected}",
                holds(version)
            ),
            Sort::TornBlock(first, last) => {
                write!(f, "torn: {place} begins with version {first} and ends with version {last}, {written}")
            }
            Sort::Misplaced(stamp) => write!(
                f,
                "misplaced: {place} holds block {}, version {}; {written}",
                stamp.block, stamp.version
            ),
            Sort::Newer(version) => write!(
                f,
                "unexpected: {place} holds version {version}, the last that was written is {expected}"
            ),
            Sort::Corrupt(version) => write!(
                f,
                "corrupt: {place} says version {version}, its content is not as its checksum says; {written}"
            ),
            Sort::Foreign => write!(f, "corrupt: {place} has no header of verification, {written}"),
            Sort::NotZeroes(Some(version)) => {
                write!(f, "stale: {place} holds version {version}, zeroes were written")
            }
            Sort::NotZeroes(None) => {
                write!(f, "corrupt: {place} holds what is neither zeroes nor a version, zeroes were written")
            }
        }
    }
}
