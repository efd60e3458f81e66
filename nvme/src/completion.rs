//! Completion queue entries: the answer to a command.
//!
//! Owns the 16-byte layout. Invariant: the Phase Tag is carried but means nothing in Fabrics, where it is zero.
//! The target encodes one into each response capsule; the host decodes it.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::status::Status;
use crate::wire::assert_layout;

/// Common completion queue entry (Base 3.3.3.2), also the response capsule of Fabrics (Base 3.3.2.1.2), 16 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Completion {
    /// DW0: command specific result.
    pub result: U32,
    /// DW1: command specific result, upper half (Fabrics Property Get uses it).
    pub result_high: U32,
    /// SQ Head Pointer (SQHD).
    pub sqhd: U16,
    /// SQ Identifier; reserved in Fabrics.
    pub sqid: U16,
    /// Command Identifier (CID) of the command.
    pub cid: U16,
    /// Phase Tag in bit 0, Status in bits 15:1.
    pub status_field: U16,
}

assert_layout!(Completion, 16, result @ 0, sqhd @ 8, cid @ 12, status_field @ 14);

impl Completion {
    /// An entry for command `cid` with a status and no result.
    #[must_use]
    pub const fn new(cid: u16, status: Status) -> Self {
        Self {
            result: U32::ZERO,
            result_high: U32::ZERO,
            sqhd: U16::ZERO,
            sqid: U16::ZERO,
            cid: U16::new(cid),
            status_field: U16::new(status.to_completion_field()),
        }
    }

    /// The same entry with DW0.
    #[must_use]
    pub const fn with_result(mut self, result: u32) -> Self {
        self.result = U32::new(result);
        self
    }

    /// The same entry with DW0 and DW1.
    #[must_use]
    pub const fn with_result_u64(mut self, result: u64) -> Self {
        self.result = U32::new(result as u32);
        self.result_high = U32::new((result >> 32) as u32);
        self
    }

    /// The same entry with a submission queue head pointer.
    #[must_use]
    pub const fn with_sqhd(mut self, sqhd: u16) -> Self {
        self.sqhd = U16::new(sqhd);
        self
    }

    /// Status, without the Phase Tag.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status::from_completion_field(self.status_field.get())
    }

    /// Sets the status and clears the Phase Tag.
    pub const fn set_status(&mut self, status: Status) {
        self.status_field = U16::new(status.to_completion_field());
    }

    /// Phase Tag; zero in Fabrics.
    #[must_use]
    pub const fn phase(&self) -> bool {
        self.status_field.get() & 1 != 0
    }

    /// DW0 and DW1 as one value.
    #[must_use]
    pub const fn result_u64(&self) -> u64 {
        (self.result_high.get() as u64) << 32 | self.result.get() as u64
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets the response capsule's bytes change.
    #[test]
    fn bytes_are_the_specifications() {
        let entry = Completion::new(0x1234, Status::INVALID_FIELD.do_not_retry())
            .with_result_u64(0x1122_3344_5566_7788)
            .with_sqhd(5);
        assert_eq!(
            entry.as_bytes(),
            [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 5, 0, 0, 0, 0x34, 0x12, 0x04, 0x80]
        );
        let read = Completion::read_from_bytes(entry.as_bytes()).unwrap();
        assert_eq!(read.status(), Status::INVALID_FIELD.do_not_retry());
        assert_eq!(read.result_u64(), 0x1122_3344_5566_7788);
        assert!(!read.phase());
    }
}
