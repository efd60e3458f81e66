//! The in-process form of an NVMe I/O command, used by every layer between the target's capsules and the devices.
//!
//! Owns [`IoCommand`], [`IoCompletion`] and the [`Channel`] trait. Invariant: every command that a channel accepts is
//! completed exactly once, either by [`Submitted::Done`] or by a later [`Channel::poll`], with its own token.
//! The NVMe-oF target and the host side submit; block devices implement channels. Nothing here allocates.

use sledge_reactor::memory::Segments;

use crate::status::Status;

/// What to do with a range of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Read the range.
    Read,
    /// Write the range.
    Write,
    /// Make every write that has completed on this device durable; the range is ignored.
    Flush,
    /// Compare the range with the data; `COMPARE_FAILURE` when they differ.
    Compare,
    /// Compare the range with the first half of the data and, if equal, write the second half, atomically.
    CompareAndWrite,
    /// Make the range read as zeroes.
    WriteZeroes {
        /// Whether the device should also free the space.
        deallocate: bool,
    },
    /// Free the range's space; it reads as zeroes afterwards where the device says so.
    Deallocate,
    /// Check that the range can be read, without transferring it.
    Verify,
}

impl Operation {
    /// Whether the operation changes content.
    #[must_use]
    pub const fn modifies(self) -> bool {
        matches!(self, Self::Write | Self::CompareAndWrite | Self::WriteZeroes { .. } | Self::Deallocate)
    }

    /// Bytes of data that the caller must give for `blocks` blocks of `block_bytes` bytes; reads may give none.
    #[must_use]
    pub const fn data_bytes(self, blocks: u32, block_bytes: u32) -> u64 {
        let range = blocks as u64 * block_bytes as u64;
        match self {
            Self::Read | Self::Write | Self::Compare => range,
            Self::CompareAndWrite => 2 * range,
            Self::Flush | Self::WriteZeroes { .. } | Self::Deallocate | Self::Verify => 0,
        }
    }
}

/// One I/O for a device.
#[derive(Debug)]
pub struct IoCommand {
    /// The submitter's name for it, returned in the completion.
    pub token: u64,
    /// What to do.
    pub operation: Operation,
    /// First logical block.
    pub slba: u64,
    /// Number of logical blocks, a plain count.
    pub blocks: u32,
    /// Force Unit Access: a write is durable when it completes.
    pub fua: bool,
    /// Data. Read: empty, and the device supplies it (pool buffer or lent memory) in the completion, or buffers to
    /// fill. Compare and Write: the data. Compare-and-write: expected bytes, then new bytes.
    pub data: Segments,
}

impl IoCommand {
    /// A command without data and without FUA.
    #[must_use]
    pub fn new(token: u64, operation: Operation, slba: u64, blocks: u32) -> Self {
        Self { token, operation, slba, blocks, fua: false, data: Segments::new() }
    }

    /// Ends the command with a status, giving its data back.
    #[must_use]
    pub fn complete(self, status: Status) -> IoCompletion {
        IoCompletion { token: self.token, status, data: self.data }
    }
}

/// The end of one I/O.
#[derive(Debug)]
pub struct IoCompletion {
    /// Token of the command.
    pub token: u64,
    /// What became of it.
    pub status: Status,
    /// The command's data, given back; for a read without data, what the device supplied.
    pub data: Segments,
}

/// What became of a submission.
#[derive(Debug)]
pub enum Submitted {
    /// The command is complete already.
    Done(IoCompletion),
    /// A later [`Channel::poll`] completes it.
    Pending,
}

/// One reactor's way to a device. Not shared between reactors.
pub trait Channel {
    /// Takes a command. A channel is bounded: when it is full it keeps the command in its own bounded queue, or
    /// completes it with a retryable status.
    fn submit(&mut self, io: IoCommand) -> Submitted;

    /// Appends what has completed. Does not allocate in steady state (beyond what `done` needs to grow).
    fn poll(&mut self, done: &mut Vec<IoCompletion>);

    /// Commands that were accepted and are not yet complete.
    fn outstanding(&self) -> usize;

    /// Whether progress needs [`Channel::poll`] though no event will wake the reactor (retry of a gated range).
    fn needs_polling(&self) -> bool;

    /// Whether writes are nearly always done with their data when [`Channel::submit`] returns, whatever its alignment.
    /// Data is then lent from where it was received rather than copied to a buffer. Never changes.
    fn takes_data_at_once(&self) -> bool {
        false
    }

    /// Asks for a command to be given up. True: it will never touch the device again and completes soon with
    /// `ABORTED_BY_REQUEST`, by [`Channel::poll`]. False: it is unknown, or too far along, and completes as usual.
    fn abort(&mut self, token: u64) -> bool {
        let _ = token;
        false
    }
}

/// The shape of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in logical blocks.
    pub blocks: u64,
    /// Bytes of a logical block: 512 or 4096.
    pub block_bytes: u32,
    /// Best I/O size and alignment in logical blocks; 0 when there is none.
    pub optimal_io_blocks: u32,
    /// Most logical blocks in one deallocate; 0 when there is no limit.
    pub max_deallocate_blocks: u32,
}

impl Geometry {
    /// A device of `blocks` blocks of `block_bytes` bytes, without preferences or limits.
    #[must_use]
    pub const fn new(blocks: u64, block_bytes: u32) -> Self {
        Self { blocks, block_bytes, optimal_io_blocks: 0, max_deallocate_blocks: 0 }
    }

    /// Size in bytes (saturating).
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_bytes as u64)
    }

    /// Binary logarithm of the block size: 9 or 12.
    #[must_use]
    pub const fn block_shift(&self) -> u32 {
        self.block_bytes.trailing_zeros()
    }

    /// Whether all of a range lies on the device; an empty range at or below its end does.
    #[must_use]
    pub const fn contains(&self, slba: u64, blocks: u64) -> bool {
        match slba.checked_add(blocks) {
            Some(end) => end <= self.blocks,
            None => false,
        }
    }

    /// Checks a range.
    ///
    /// # Errors
    /// `LBA_OUT_OF_RANGE`, not to be retried, when some of it lies beyond the device (NVM 3.1.4 and 2.1.1).
    pub const fn check(&self, slba: u64, blocks: u64) -> Result<(), Status> {
        if self.contains(slba, blocks) { Ok(()) } else { Err(Status::LBA_OUT_OF_RANGE.do_not_retry()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets an I/O pass the end of a device, or wrap around.
    #[test]
    fn ranges_end_where_the_device_does() {
        let geometry = Geometry::new(100, 512);
        assert_eq!((geometry.bytes(), geometry.block_shift()), (51_200, 9));
        assert!(geometry.contains(0, 100) && geometry.contains(99, 1) && geometry.contains(100, 0));
        assert!(!geometry.contains(99, 2) && !geometry.contains(101, 0));
        assert!(!geometry.contains(u64::MAX, 2));
        assert_eq!(geometry.check(100, 1), Err(Status::LBA_OUT_OF_RANGE.do_not_retry()));
    }

    // Deleting this lets a compare-and-write run with half of its data.
    #[test]
    fn operations_say_how_much_data_they_need() {
        assert_eq!(Operation::CompareAndWrite.data_bytes(2, 512), 2048);
        assert_eq!(Operation::Write.data_bytes(8, 4096), 32_768);
        assert_eq!(Operation::WriteZeroes { deallocate: true }.data_bytes(8, 4096), 0);
        assert!(Operation::Deallocate.modifies() && !Operation::Verify.modifies());
    }
}
