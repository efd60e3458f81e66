//! Fields and constructors of the commands that only PCIe controllers have: PRP entries, I/O queues, doorbell buffers.
//!
//! Owns the meaning of their dwords. Invariant: numbers of entries are plain counts here; "0's based" stays inside. The
//! driver of PCIe controllers builds them.

use zerocopy::little_endian::{U32, U64};

use super::Command;
use crate::opcode::Admin;
use crate::sgl::Descriptor;

/// Physically Contiguous (PC), bit 0 of dword 11 of both Create commands.
const CONTIGUOUS: u32 = 1;

impl Command {
    /// The same command with PRP entries for its data (Base 4.1.1); PSDT says so. A second entry of 0 is none.
    #[must_use]
    pub fn with_prps(mut self, first: u64, second: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = second.to_le_bytes();
        self.flags &= 0x3f;
        self.dptr = Descriptor {
            address: U64::new(first),
            length: U32::new(u32::from_le_bytes([a, b, c, d])),
            reserved: [e, f, g],
            identifier: h,
        };
        self
    }

    /// Create I/O Completion Queue (Base 5.4) of `entries` (2 to 65,536) contiguous entries, without interrupts.
    #[must_use]
    pub fn create_io_completion_queue(id: u16, entries: u32, address: u64) -> Self {
        let mut command = Self::new(Admin::CreateIoCompletionQueue.value(), 0).with_prps(address, 0);
        command.cdw10 = U32::new(u32::from(id) | entries.wrapping_sub(1) << 16);
        command.cdw11 = U32::new(CONTIGUOUS);
        command
    }

    /// Create I/O Submission Queue (Base 5.5) of `entries` (2 to 65,536) contiguous entries, whose commands complete to
    /// completion queue `completion`.
    #[must_use]
    pub fn create_io_submission_queue(id: u16, entries: u32, address: u64, completion: u16) -> Self {
        let mut command = Self::new(Admin::CreateIoSubmissionQueue.value(), 0).with_prps(address, 0);
        command.cdw10 = U32::new(u32::from(id) | entries.wrapping_sub(1) << 16);
        command.cdw11 = U32::new(CONTIGUOUS | u32::from(completion) << 16);
        command
    }

    /// Delete I/O Completion Queue (Base 5.6).
    #[must_use]
    pub fn delete_io_completion_queue(id: u16) -> Self {
        let mut command = Self::new(Admin::DeleteIoCompletionQueue.value(), 0).with_prps(0, 0);
        command.cdw10 = U32::new(id.into());
        command
    }

    /// Delete I/O Submission Queue (Base 5.7).
    #[must_use]
    pub fn delete_io_submission_queue(id: u16) -> Self {
        let mut command = Self::new(Admin::DeleteIoSubmissionQueue.value(), 0).with_prps(0, 0);
        command.cdw10 = U32::new(id.into());
        command
    }

    /// Doorbell Buffer Config (Base 5.8): where the Shadow Doorbell and EventIdx buffers are.
    #[must_use]
    pub fn doorbell_buffer_config(doorbells: u64, events: u64) -> Self {
        Self::new(Admin::DoorbellBufferConfig.value(), 0).with_prps(doorbells, events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    // Deleting this lets a queue be created with another size, place or identifier than the driver uses.
    #[test]
    fn queues_and_prps_are_the_specifications() {
        let command = Command::create_io_submission_queue(3, 256, 0x1122_3344_5566_7000, 4);
        assert_eq!(command.as_bytes()[..4], [0x01, 0x00, 0, 0]);
        assert_eq!(command.as_bytes()[24..32], 0x1122_3344_5566_7000u64.to_le_bytes());
        assert_eq!((command.cdw10.get(), command.cdw11.get()), (0x00ff_0003, 0x0004_0001));
        let command = Command::create_io_completion_queue(3, 65_536, 0x7000);
        assert_eq!((command.opcode, command.cdw10.get(), command.cdw11.get()), (5, 0xffff_0003, 1));
        assert_eq!(Command::delete_io_submission_queue(3).cdw10.get(), 3);
        assert_eq!((Command::delete_io_completion_queue(3).opcode, 0), (4, 0));
        let command = Command::doorbell_buffer_config(0x1000, 0xf1e2_d3c4_b5a6_9788);
        assert_eq!(command.as_bytes()[32..40], 0xf1e2_d3c4_b5a6_9788u64.to_le_bytes());
        assert_eq!((command.opcode, command.flags), (0x7c, 0));
    }
}
