//! Protection information of 8 bytes: a guard, an application tag and a reference tag behind each block's data.
//!
//! Owns nothing. Invariant: as NVM 5.2 (types 1 to 3, 16-bit guard) has it; a namespace without it is never checked.

use super::options::ModelNamespace;
use crate::{Command, Status};

const PRACT: u8 = 1 << 3;
const CHECK_GUARD: u8 = 1 << 2;
const CHECK_APPLICATION: u8 = 1 << 1;
const CHECK_REFERENCE: u8 = 1 << 0;

/// What a command asks for.
#[derive(Clone, Copy)]
pub(super) struct Protection {
    kind: u8,
    prinfo: u8,
    block_bytes: usize,
}

/// The tags that one block is to have.
#[derive(Clone, Copy)]
pub(super) struct Tags {
    reference: u32,
    application: u16,
    application_mask: u16,
}

impl Tags {
    pub(super) const fn of(command: &Command, lba: u64) -> Self {
        Self {
            reference: command.reference_tag().wrapping_add(lba.wrapping_sub(command.slba()) as u32),
            application: command.application_tag(),
            application_mask: command.application_tag_mask(),
        }
    }
}

impl Protection {
    /// What a command asks for on a namespace; fails when a command of type 1 names another reference tag than its LBA.
    pub(super) const fn of(namespace: &ModelNamespace, command: &Command) -> Result<Self, Status> {
        let kind = if namespace.metadata_bytes == 8 { namespace.protection } else { 0 };
        let prinfo = if kind == 0 { 0 } else { command.prinfo() };
        let mismatch = command.reference_tag() != command.slba() as u32;
        if kind == 1 && prinfo & CHECK_REFERENCE != 0 && mismatch {
            return Err(Status::INVALID_PROTECTION_INFORMATION.do_not_retry());
        }
        Ok(Self { kind, prinfo, block_bytes: namespace.block_bytes as usize })
    }

    /// Whether the controller makes and takes away the information itself (PRACT).
    pub(super) const fn generates(self) -> bool {
        self.prinfo & PRACT != 0
    }

    /// Writes a block's information behind its data.
    pub(super) fn generate(self, block: &mut [u8], tags: Tags) {
        let (data, information) = block.split_at_mut(self.block_bytes);
        information[..2].copy_from_slice(&guard(data).to_be_bytes());
        information[2..4].copy_from_slice(&tags.application.to_be_bytes());
        information[4..8].copy_from_slice(&tags.reference.to_be_bytes());
    }

    /// Checks what the command asks to be checked.
    pub(super) fn check(self, block: &[u8], tags: Tags) -> Result<(), Status> {
        if self.kind == 0 {
            return Ok(());
        }
        let (data, information) = block.split_at(self.block_bytes);
        let word = |at: usize| u16::from_be_bytes([information[at], information[at + 1]]);
        let application = word(2);
        let reference = u32::from(word(4)) << 16 | u32::from(word(6));
        if application == 0xffff && (self.kind != 3 || reference == u32::MAX) {
            return Ok(());
        }
        let asked = |bit: u8| self.prinfo & bit != 0;
        if asked(CHECK_GUARD) && word(0) != guard(data) {
            return Err(Status::GUARD_CHECK_ERROR);
        }
        let differs = (application ^ tags.application) & tags.application_mask != 0;
        if asked(CHECK_APPLICATION) && differs {
            return Err(Status::APPLICATION_TAG_CHECK_ERROR);
        }
        if asked(CHECK_REFERENCE) && self.kind != 3 && reference != tags.reference {
            return Err(Status::REFERENCE_TAG_CHECK_ERROR);
        }
        Ok(())
    }
}

/// CRC-16 of T10 DIF: polynomial 8BB7h, from zero, most significant bit first.
fn guard(data: &[u8]) -> u16 {
    data.iter().fold(0, |crc, byte| {
        (0..8)
            .fold(crc ^ u16::from(*byte) << 8, |crc, _| crc << 1 ^ if crc & 0x8000 != 0 { 0x8bb7 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    // Deleting this lets the guard be another checksum than drives have.
    #[test]
    fn guard_is_the_check_value_of_crc_16_t10_dif() {
        assert_eq!(super::guard(b"123456789"), 0xd0db);
    }
}
