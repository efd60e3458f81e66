//! Fields and constructors of the NVM command set's I/O commands.
//!
//! Owns the meaning of dwords 10 to 15 of Read, Write, Compare, Write Zeroes, Verify, Flush and Dataset Management.
//! Invariant: block counts are given and returned as counts; the wire's "0's based" form stays in here.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Command;
use crate::opcode::Nvm;
use crate::wire::assert_layout;

const LIMITED_RETRY: u32 = 1 << 31;
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
const PRINFO_SHIFT: u32 = 26;
const DEALLOCATE: u32 = 1 << 25;
const STORAGE_TAG_CHECK: u32 = 1 << 24;

/// Most ranges in one Dataset Management command (NVM 3.2.3: NR is 8 bits, 0's based).
pub const MAX_DATASET_RANGES: usize = 256;

/// Read, Write, Compare, Write Zeroes, Verify (NVM 3.2.1, 3.2.4 to 3.2.8).
impl Command {
    /// A command on `blocks` (1 to 65,536) logical blocks from `slba`.
    #[inline]
    #[must_use]
    pub fn on_blocks(opcode: Nvm, nsid: u32, slba: u64, blocks: u32) -> Self {
        debug_assert!((1..=0x1_0000).contains(&blocks), "NLB holds 1 to 65,536 blocks");
        let mut command = Self::new(opcode.value(), nsid);
        command.set_slba(slba);
        command.cdw12 = U32::new(blocks.wrapping_sub(1) & 0xffff);
        command
    }

    /// Read `blocks` (1 to 65,536) blocks from `slba`.
    #[inline]
    #[must_use]
    pub fn read(nsid: u32, slba: u64, blocks: u32) -> Self {
        Self::on_blocks(Nvm::Read, nsid, slba, blocks)
    }

    /// Write `blocks` (1 to 65,536) blocks from `slba`.
    #[inline]
    #[must_use]
    pub fn write(nsid: u32, slba: u64, blocks: u32) -> Self {
        Self::on_blocks(Nvm::Write, nsid, slba, blocks)
    }

    /// Compare `blocks` (1 to 65,536) blocks from `slba` with the data.
    #[must_use]
    pub fn compare(nsid: u32, slba: u64, blocks: u32) -> Self {
        Self::on_blocks(Nvm::Compare, nsid, slba, blocks)
    }

    /// Verify `blocks` (1 to 65,536) blocks from `slba`.
    #[must_use]
    pub fn verify(nsid: u32, slba: u64, blocks: u32) -> Self {
        Self::on_blocks(Nvm::Verify, nsid, slba, blocks)
    }

    /// Zero `blocks` (1 to 65,536) blocks from `slba`, deallocating them if asked to.
    #[must_use]
    pub fn write_zeroes(nsid: u32, slba: u64, blocks: u32, deallocate: bool) -> Self {
        let mut command = Self::on_blocks(Nvm::WriteZeroes, nsid, slba, blocks);
        if deallocate {
            command.cdw12 = U32::new(command.cdw12.get() | DEALLOCATE);
        }
        command
    }

    /// Flush a namespace's volatile write cache (NVM 3.2 and Base 7.1).
    #[must_use]
    pub fn flush(nsid: u32) -> Self {
        Self::new(Nvm::Flush.value(), nsid)
    }

    /// The same command with Force Unit Access: durable before it completes.
    #[must_use]
    pub const fn with_fua(mut self) -> Self {
        self.cdw12 = U32::new(self.cdw12.get() | FORCE_UNIT_ACCESS);
        self
    }

    /// Starting LBA (SLBA), dwords 10 and 11.
    #[must_use]
    pub const fn slba(&self) -> u64 {
        (self.cdw11.get() as u64) << 32 | self.cdw10.get() as u64
    }

    /// Sets the Starting LBA.
    pub const fn set_slba(&mut self, slba: u64) {
        self.cdw10 = U32::new(slba as u32);
        self.cdw11 = U32::new((slba >> 32) as u32);
    }

    /// Number of Logical Blocks (NLB) as a count, 1 to 65,536.
    #[must_use]
    pub const fn blocks(&self) -> u32 {
        (self.cdw12.get() & 0xffff) + 1
    }

    /// Force Unit Access (FUA).
    #[must_use]
    pub const fn fua(&self) -> bool {
        self.cdw12.get() & FORCE_UNIT_ACCESS != 0
    }

    /// Limited Retry (LR).
    #[must_use]
    pub const fn limited_retry(&self) -> bool {
        self.cdw12.get() & LIMITED_RETRY != 0
    }

    /// Protection Information Field (PRINFO): PRACT in bit 3, PRCHK in bits 2:0.
    #[must_use]
    pub const fn prinfo(&self) -> u8 {
        ((self.cdw12.get() >> PRINFO_SHIFT) & 0xf) as u8
    }

    /// Deallocate (DEAC) of Write Zeroes.
    #[must_use]
    pub const fn deallocate(&self) -> bool {
        self.cdw12.get() & DEALLOCATE != 0
    }

    /// Storage Tag Check (STC).
    #[must_use]
    pub const fn storage_tag_check(&self) -> bool {
        self.cdw12.get() & STORAGE_TAG_CHECK != 0
    }

    /// Directive Type (DTYPE) of Write.
    #[must_use]
    pub const fn directive_type(&self) -> u8 {
        ((self.cdw12.get() >> 20) & 0xf) as u8
    }

    /// Directive Specific (DSPEC) of Write.
    #[must_use]
    pub const fn directive_specific(&self) -> u16 {
        (self.cdw13.get() >> 16) as u16
    }

    /// Dataset Management hints (DSM) of Read and Write: access frequency, latency, sequential, incompressible.
    #[must_use]
    pub const fn dataset_hints(&self) -> u8 {
        (self.cdw13.get() & 0xff) as u8
    }

    /// Expected Initial Logical Block Reference Tag (or, for Write, Initial), lower 32 bits.
    #[must_use]
    pub const fn reference_tag(&self) -> u32 {
        self.cdw14.get()
    }

    /// Logical Block Application Tag.
    #[must_use]
    pub const fn application_tag(&self) -> u16 {
        (self.cdw15.get() & 0xffff) as u16
    }

    /// Logical Block Application Tag Mask.
    #[must_use]
    pub const fn application_tag_mask(&self) -> u16 {
        (self.cdw15.get() >> 16) as u16
    }
}

/// Dataset Management (NVM 3.2.3).
impl Command {
    /// Deallocate the `ranges` (1 to 256) that the data lists.
    #[must_use]
    pub fn deallocate_ranges(nsid: u32, ranges: usize) -> Self {
        debug_assert!((1..=MAX_DATASET_RANGES).contains(&ranges), "NR holds 1 to 256 ranges");
        let mut command = Self::new(Nvm::DatasetManagement.value(), nsid);
        command.cdw10 = U32::new(ranges.wrapping_sub(1) as u32 & 0xff);
        command.cdw11 = U32::new(1 << 2);
        command
    }

    /// Number of Ranges (NR) as a count, 1 to 256.
    #[must_use]
    pub const fn dataset_ranges(&self) -> usize {
        (self.cdw10.get() & 0xff) as usize + 1
    }

    /// Attribute - Deallocate (AD).
    #[must_use]
    pub const fn dataset_deallocate(&self) -> bool {
        self.cdw11.get() & 1 << 2 != 0
    }

    /// Attribute - Integral Dataset for Write (IDW).
    #[must_use]
    pub const fn dataset_integral_write(&self) -> bool {
        self.cdw11.get() & 1 << 1 != 0
    }

    /// Attribute - Integral Dataset for Read (IDR).
    #[must_use]
    pub const fn dataset_integral_read(&self) -> bool {
        self.cdw11.get() & 1 != 0
    }
}

/// Context Attributes of a dataset range (NVM 3.2.3.1): hints that a controller may ignore.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ContextAttributes(pub U32);

impl ContextAttributes {
    /// Command Access Size in logical blocks; 0 when not told.
    #[must_use]
    pub const fn access_size(self) -> u8 {
        (self.0.get() >> 24) as u8
    }

    /// Write Prepare: the range is expected to be written soon.
    #[must_use]
    pub const fn write_prepare(self) -> bool {
        self.0.get() & 1 << 10 != 0
    }
}

/// One range of a Dataset Management command's data (NVM 3.2.3, "Range Definition"), 16 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DatasetRange {
    /// Hints.
    pub context_attributes: ContextAttributes,
    /// Length in logical blocks, a plain count (0 is an empty range).
    pub blocks: U32,
    /// Starting LBA.
    pub slba: U64,
}

assert_layout!(DatasetRange, 16, blocks @ 4, slba @ 8);

impl DatasetRange {
    /// A range without hints.
    #[must_use]
    pub const fn new(slba: u64, blocks: u32) -> Self {
        Self {
            context_attributes: ContextAttributes(U32::ZERO),
            blocks: U32::new(blocks),
            slba: U64::new(slba),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a read or write go to other blocks than the host named.
    #[test]
    fn read_and_write_fields() {
        let command = Command::write(1, 0x0001_0203_0405_0607, 0x1_0000).with_fua();
        assert_eq!(command.as_bytes()[40..52], [7, 6, 5, 4, 3, 2, 1, 0, 0xff, 0xff, 0, 0x40]);
        assert_eq!(command.slba(), 0x0001_0203_0405_0607);
        assert_eq!(command.blocks(), 0x1_0000);
        assert!(command.fua() && !command.limited_retry());
        let command = Command::read(1, 9, 8);
        assert_eq!((command.opcode, command.blocks(), command.slba()), (2, 8, 9));
        assert!(!command.fua());
        let zeroes = Command::write_zeroes(1, 0, 1, true);
        assert_eq!(zeroes.cdw12.get(), 1 << 25);
        assert!(zeroes.deallocate());
        let protected = Command { cdw12: U32::new(0xf << 26), ..Command::default() };
        assert_eq!(protected.prinfo(), 0xf);
    }

    // Deleting this lets a discard free other ranges than the host named.
    #[test]
    fn dataset_management_fields() {
        let command = Command::deallocate_ranges(3, 256);
        assert_eq!(command.dataset_ranges(), 256);
        assert!(command.dataset_deallocate());
        assert!(!command.dataset_integral_read() && !command.dataset_integral_write());
        assert_eq!(
            DatasetRange::new(0x10, 0x20).as_bytes(),
            [0, 0, 0, 0, 0x20, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0]
        );
    }
}
