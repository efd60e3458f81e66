//! The Firmware Slot Information log page (LID 03h).
//!
//! Owns the 512-byte layout. Invariant: a slot without firmware is all zero.

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{assert_layout, get_ascii, put_ascii};

/// Firmware Slot Information log page (Base 5.16.1.4), 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FirmwareSlotLog {
    /// Active Firmware Info: running slot in bits 2:0, slot of the next reset in bits 6:4.
    pub active: u8,
    /// Reserved.
    pub reserved1: [u8; 7],
    /// Firmware Revision for Slots 1 to 7, ASCII.
    pub revisions: [[u8; 8]; 7],
    /// Reserved.
    pub reserved64: [u8; 448],
}

assert_layout!(FirmwareSlotLog, 512, revisions @ 8, reserved64 @ 64);

impl FirmwareSlotLog {
    /// One slot, which runs a revision.
    #[must_use]
    pub fn single(revision: &str) -> Self {
        let mut log = Self::new_zeroed();
        log.active = 1;
        put_ascii(&mut log.revisions[0], revision);
        log
    }

    /// Revision in a slot, 1 to 7; empty when there is none.
    #[must_use]
    pub fn revision(&self, slot: usize) -> &str {
        slot.checked_sub(1).and_then(|index| self.revisions.get(index)).map_or("", |field| get_ascii(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets `nvme fw-log` name the wrong slot.
    #[test]
    fn bytes() {
        let log = FirmwareSlotLog::single("0.1");
        assert_eq!(log.as_bytes()[..17], *b"\x01\0\0\0\0\0\0\x000.1     \0");
        assert_eq!((log.revision(1), log.revision(2), log.revision(0), log.revision(8)), ("0.1", "", "", ""));
    }
}
