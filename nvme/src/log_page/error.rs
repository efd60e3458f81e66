//! The Error Information log page (LID 01h): the latest failed commands.
//!
//! Owns the 64-byte entry. Invariant: an entry whose error count is zero is empty.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::status::Status;
use crate::wire::{assert_layout, bit_fields};

bit_fields! {
    /// Parameter Error Location (Base 5.16.1.2): where in the command the bad parameter lies.
    pub struct ParameterLocation: u16 {
        flags {}
        fields {
            /// Byte of the command, 0 to 63.
            byte, with_byte: u8 = 0, 8;
            /// Bit of that byte, 0 to 7.
            bit, with_bit: u8 = 8, 3;
        }
    }
}

impl ParameterLocation {
    /// No particular parameter.
    pub const NONE: Self = Self::from_bits(0xffff);
}

/// Error Information log entry (Base 5.16.1.2), 64 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ErrorEntry {
    /// Error Count: unique and increasing since the controller's beginning; 0 for an empty entry.
    pub error_count: U64,
    /// Submission Queue ID; FFFFh when the error is not of a command.
    pub sqid: U16,
    /// Command ID; FFFFh when the error is not of a command.
    pub cid: U16,
    /// Status field in bits 15:1 as in the completion, Phase Tag in bit 0.
    pub status_field: U16,
    /// Parameter Error Location; see [`ParameterLocation`].
    pub parameter_location: U16,
    /// First logical block that failed.
    pub lba: U64,
    /// Namespace.
    pub nsid: U32,
    /// Vendor Specific Information Available: a log page identifier, or 0.
    pub vendor_log: u8,
    /// Transport Type (TRTYPE); see [`crate::fabrics::TransportType`].
    pub transport_type: u8,
    /// Command Set Identifier, when the log page version is 1.
    pub command_set: u8,
    /// Opcode, when the log page version is 1.
    pub opcode: u8,
    /// Command Specific Information.
    pub command_specific: U64,
    /// Transport Type Specific Information.
    pub transport_specific: U16,
    /// Reserved.
    pub reserved42: [u8; 21],
    /// Log Page Version: 1 when command set and opcode are given.
    pub version: u8,
}

assert_layout!(
    ErrorEntry, 64, sqid @ 8, cid @ 10, status_field @ 12, parameter_location @ 14, lba @ 16, nsid @ 24,
    vendor_log @ 28, transport_type @ 29, opcode @ 31, command_specific @ 32, transport_specific @ 40, version @ 63,
);

impl ErrorEntry {
    /// An entry for a command that failed, without a parameter location.
    #[must_use]
    pub fn new(error_count: u64, sqid: u16, cid: u16, status: Status) -> Self {
        Self {
            error_count: U64::new(error_count),
            sqid: U16::new(sqid),
            cid: U16::new(cid),
            status_field: U16::new(status.to_completion_field()),
            parameter_location: U16::new(ParameterLocation::NONE.bits()),
            ..Self::default()
        }
    }

    /// Status of the command.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status::from_completion_field(self.status_field.get())
    }

    /// Sets opcode and command set, and the version that says so.
    pub fn set_opcode(&mut self, command_set: u8, opcode: u8) {
        self.command_set = command_set;
        self.opcode = opcode;
        self.version = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets `nvme error-log` show another command or reason than the one that failed.
    #[test]
    fn bytes() {
        let mut entry = ErrorEntry::new(2, 1, 0x55, Status::LBA_OUT_OF_RANGE.do_not_retry());
        entry.lba = U64::new(0x99);
        entry.nsid = U32::new(1);
        entry.transport_type = 3;
        entry.set_opcode(0, 2);
        let bytes = entry.as_bytes();
        assert_eq!(bytes[..20], [2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x55, 0, 0, 0x81, 0xff, 0xff, 0x99, 0, 0, 0]);
        assert_eq!((bytes[24], bytes[29], bytes[31], bytes[63]), (1, 3, 2, 1));
        assert_eq!(entry.status(), Status::LBA_OUT_OF_RANGE.do_not_retry());
        assert_eq!(ParameterLocation::default().with_byte(40).with_bit(3).bits(), 0x0328);
    }
}
