//! I/O Command Set specific Identify structures of the NVM command set (CNS 05h and 06h).
//!
//! Owns both layouts. Invariant: a limit of zero means that there is none.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::assert_layout;

/// Identify Namespace data structure for the NVM command set (NVM 4.1.5.3, CNS 05h), 4,096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NvmNamespaceData {
    /// Logical Block Storage Tag Mask.
    pub lbstm: U64,
    /// Protection Information Capabilities.
    pub pic: u8,
    /// Protection Information Format Attribute (NVM 1.1).
    pub pifa: u8,
    /// Reserved.
    pub reserved10: [u8; 2],
    /// Extended LBA Formats: Storage Tag Size in bits 6:0, Protection Information Format in bits 8:7.
    pub elbaf: [U32; 64],
    /// Namespace Preferred Deallocate Granularity Large in logical blocks (NVM 1.1).
    pub npdgl: U32,
    /// Namespace Preferred Read Granularity in logical blocks (NVM 1.1).
    pub nprg: U32,
    /// Namespace Preferred Read Alignment in logical blocks (NVM 1.1).
    pub npra: U32,
    /// Namespace Optimal Read Size in logical blocks (NVM 1.1).
    pub nors: U32,
    /// Namespace Preferred Deallocate Alignment Large in logical blocks (NVM 1.1).
    pub npdal: U32,
    /// Reserved, and fields that Sledge does not use.
    pub reserved288: [u8; 3808],
}

assert_layout!(NvmNamespaceData, 4096, pic @ 8, elbaf @ 12, npdgl @ 268, nors @ 280, npdal @ 284);

impl NvmNamespaceData {
    /// All zero: no protection information, nothing preferred.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }
}

impl Default for NvmNamespaceData {
    fn default() -> Self {
        Self::new()
    }
}

/// Identify Controller data structure for the NVM command set (NVM 4.1.5.4, CNS 06h), 4,096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NvmControllerData {
    /// Verify Size Limit: 2^this pages of CAP.MPSMIN.
    pub vsl: u8,
    /// Write Zeroes Size Limit: 2^this pages of CAP.MPSMIN.
    pub wzsl: u8,
    /// Write Uncorrectable Size Limit: 2^this pages of CAP.MPSMIN.
    pub wusl: u8,
    /// Dataset Management Ranges Limit: most ranges in one command.
    pub dmrl: u8,
    /// Dataset Management Range Size Limit: most logical blocks in one range.
    pub dmrsl: U32,
    /// Dataset Management Size Limit: most logical blocks in all ranges of one command.
    pub dmsl: U64,
    /// Reserved, and fields that Sledge does not use.
    pub reserved16: [u8; 4080],
}

assert_layout!(NvmControllerData, 4096, vsl @ 0, wzsl @ 1, wusl @ 2, dmrl @ 3, dmrsl @ 4, dmsl @ 8);

impl NvmControllerData {
    /// All zero: no limits.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }
}

impl Default for NvmControllerData {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets limits reach the host in other fields, and commands come larger than we take.
    #[test]
    fn bytes() {
        let mut data = NvmControllerData::new();
        (data.vsl, data.wzsl, data.dmrl) = (8, 9, 255);
        data.dmrsl = U32::new(0x0102_0304);
        data.dmsl = U64::new(5);
        assert_eq!(data.as_bytes()[..16], [8, 9, 0, 255, 4, 3, 2, 1, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert!(NvmNamespaceData::default().as_bytes().iter().all(|&byte| byte == 0));
    }
}
