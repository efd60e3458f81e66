//! The Error Information log of one controller (Base 5.16.1.2).
//!
//! Invariant: at most [`CAPACITY`] entries, newest first, with error counts that only grow while the controller
//! lives. The poll group reports each failed command once, before it is answered.

use std::collections::VecDeque;

use sledge_nvme::Status;
use sledge_nvme::log_page::ParameterLocation;

/// Entries that are kept; Identify Controller's ELPE is one less.
pub const CAPACITY: usize = 64;

/// A command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// Submission queue it came from.
    pub sqid: u16,
    /// Its command identifier.
    pub cid: u16,
    /// What it is answered with.
    pub status: Status,
    /// The field of the submission queue entry that is wrong; [`ParameterLocation::NONE`] when no single one is.
    pub location: ParameterLocation,
    /// First logical block that the error is about; 0 when it is not about blocks.
    pub lba: u64,
    /// Namespace; 0 when it is not about one.
    pub nsid: u32,
    /// Opcode of the command.
    pub opcode: u8,
}

/// One entry: a failed command and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Error Count: from 1, never used twice.
    pub count: u64,
    /// What failed.
    pub error: CommandError,
}

/// The newest errors of a controller.
#[derive(Debug, Default)]
pub(super) struct ErrorLog {
    entries: VecDeque<Entry>,
    count: u64,
}

impl ErrorLog {
    /// Adds an error, dropping the oldest one when the log is full.
    pub fn add(&mut self, error: CommandError) {
        if self.entries.len() == CAPACITY {
            self.entries.pop_back();
        }
        self.count += 1;
        self.entries.push_front(Entry { count: self.count, error });
    }

    /// Entries, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Errors since the controller was made.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(cid: u16) -> CommandError {
        CommandError {
            sqid: 1,
            cid,
            status: Status::LBA_OUT_OF_RANGE,
            location: ParameterLocation::NONE,
            lba: 0,
            nsid: 1,
            opcode: 2,
        }
    }

    // Deleting this lets a host that fails commands on purpose grow the log without bound, or counts repeat.
    #[test]
    fn the_log_is_bounded_and_counts_go_on() {
        let mut log = ErrorLog::default();
        (0..100).for_each(|cid| log.add(error(cid)));
        assert_eq!(log.count(), 100);
        let counts: Vec<u64> = log.iter().map(|entry| entry.count).collect();
        assert_eq!(counts, (37..=100).rev().collect::<Vec<u64>>());
        assert_eq!(log.iter().next().map(|entry| entry.error.cid), Some(99));
    }
}
