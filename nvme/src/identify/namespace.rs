//! Identify Namespace (CNS 00h) and its command-set independent form (CNS 08h): size, format and features.
//!
//! Owns both layouts. Invariant: `flbas` selects one of the `nlbaf + 1` formats; [`NamespaceData::block_bytes`]
//! answers `None` rather than a nonsensical size when the bytes of another's target do not say so.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::assert_layout;

/// LBA Format (LBAF, NVM 4.1.5.1), 4 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct LbaFormat {
    /// Metadata Size (MS) in bytes.
    pub metadata_bytes: U16,
    /// LBA Data Size (LBADS): 2^this bytes, at least 9; 0 when the format is not supported.
    pub data_shift: u8,
    /// Relative Performance (RP) in bits 1:0, 0 best.
    pub relative_performance: u8,
}

assert_layout!(LbaFormat, 4, data_shift @ 2);

/// Identify Namespace data structure, NVM command set (NVM 4.1.5.1, CNS 00h), 4,096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NamespaceData {
    /// Namespace Size in logical blocks.
    pub nsze: U64,
    /// Namespace Capacity in logical blocks.
    pub ncap: U64,
    /// Namespace Utilization in logical blocks.
    pub nuse: U64,
    /// Namespace Features; see [`super::capability::nsfeat`].
    pub nsfeat: u8,
    /// Number of LBA Formats, 0's based.
    pub nlbaf: u8,
    /// Formatted LBA Size: format index in bits 3:0 and 6:5, bit 4 metadata at the end of the data.
    pub flbas: u8,
    /// Metadata Capabilities.
    pub mc: u8,
    /// End-to-end Data Protection Capabilities.
    pub dpc: u8,
    /// End-to-end Data Protection Type Settings.
    pub dps: u8,
    /// Multi-path I/O and sharing; see [`super::capability::nmic`].
    pub nmic: u8,
    /// Reservation Capabilities.
    pub rescap: u8,
    /// Format Progress Indicator.
    pub fpi: u8,
    /// Deallocate Logical Block Features; see [`super::capability::dlfeat`].
    pub dlfeat: u8,
    /// Namespace Atomic Write Unit Normal, 0's based.
    pub nawun: U16,
    /// Namespace Atomic Write Unit Power Fail, 0's based.
    pub nawupf: U16,
    /// Namespace Atomic Compare & Write Unit, 0's based.
    pub nacwu: U16,
    /// Namespace Atomic Boundary Size Normal, 0's based.
    pub nabsn: U16,
    /// Namespace Atomic Boundary Offset in logical blocks.
    pub nabo: U16,
    /// Namespace Atomic Boundary Size Power Fail, 0's based.
    pub nabspf: U16,
    /// Namespace Optimal I/O Boundary in logical blocks; 0 not reported.
    pub noiob: U16,
    /// NVM Capacity in bytes.
    pub nvmcap: U128,
    /// Namespace Preferred Write Granularity in logical blocks, 0's based.
    pub npwg: U16,
    /// Namespace Preferred Write Alignment in logical blocks, 0's based.
    pub npwa: U16,
    /// Namespace Preferred Deallocate Granularity in logical blocks, 0's based.
    pub npdg: U16,
    /// Namespace Preferred Deallocate Alignment in logical blocks, 0's based.
    pub npda: U16,
    /// Namespace Optimal Write Size in logical blocks, 0's based.
    pub nows: U16,
    /// Maximum Single Source Range Length of Copy in logical blocks.
    pub mssrl: U16,
    /// Maximum Copy Length in logical blocks.
    pub mcl: U32,
    /// Maximum Source Range Count of Copy, 0's based.
    pub msrc: u8,
    /// Key Per I/O Status.
    pub kpios: u8,
    /// Number of Unique Capability LBA Formats, 0's based.
    pub nulbaf: u8,
    /// Reserved.
    pub reserved83: [u8; 9],
    /// ANA Group Identifier; 0 when ANA is not supported.
    pub anagrpid: U32,
    /// Reserved.
    pub reserved96: [u8; 3],
    /// Namespace Attributes; see [`super::capability::nsattr`].
    pub nsattr: u8,
    /// NVM Set Identifier.
    pub nvmsetid: U16,
    /// Endurance Group Identifier.
    pub endgid: U16,
    /// Namespace Globally Unique Identifier, big endian; zero when there is none.
    pub nguid: [u8; 16],
    /// IEEE Extended Unique Identifier, big endian; zero when there is none.
    pub eui64: [u8; 8],
    /// LBA formats.
    pub lbaf: [LbaFormat; 64],
    /// Vendor Specific.
    pub vendor: [u8; 3712],
}

assert_layout!(
    NamespaceData, 4096, ncap @ 8, nuse @ 16, nsfeat @ 24, nlbaf @ 25, flbas @ 26, dps @ 29, nmic @ 30, rescap @ 31,
    dlfeat @ 33, nawun @ 34, nacwu @ 38, nabspf @ 44, noiob @ 46, nvmcap @ 48, npwg @ 64, npdg @ 68, nows @ 72,
    mssrl @ 74, mcl @ 76, msrc @ 80, nulbaf @ 82, anagrpid @ 92, nsattr @ 99, nvmsetid @ 100, endgid @ 102,
    nguid @ 104, eui64 @ 120, lbaf @ 128, vendor @ 384,
);

impl NamespaceData {
    /// All zero: what Identify returns for an NSID that is valid but inactive.
    #[must_use]
    pub fn inactive() -> Self {
        Self::new_zeroed()
    }

    /// A fully provisioned namespace of `blocks` blocks of `2^block_shift` bytes, with one format and no metadata.
    #[must_use]
    pub fn new(blocks: u64, block_shift: u8) -> Self {
        let mut data = Self::new_zeroed();
        data.nsze = U64::new(blocks);
        data.ncap = U64::new(blocks);
        data.nuse = U64::new(blocks);
        data.nvmcap = U128::new(u128::from(blocks).checked_shl(block_shift.into()).unwrap_or(0));
        data.lbaf[0].data_shift = block_shift;
        data
    }

    /// Index of the format in use.
    #[must_use]
    pub const fn format_index(&self) -> usize {
        ((self.flbas & 0xf) | (self.flbas >> 1 & 0x30)) as usize
    }

    /// Bytes of a logical block without metadata; `None` when the format in use says less than 512 or over 2^31.
    #[must_use]
    pub fn block_bytes(&self) -> Option<u32> {
        let shift = self.lbaf[self.format_index()].data_shift;
        if (9..=31).contains(&shift) { Some(1 << shift) } else { None }
    }

    /// Bytes of metadata of a logical block.
    #[must_use]
    pub fn metadata_bytes(&self) -> u16 {
        self.lbaf[self.format_index()].metadata_bytes.get()
    }
}

/// I/O Command Set Independent Identify Namespace data structure (Base 5.17.2.8, CNS 08h), 4,096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IndependentNamespaceData {
    /// Common Namespace Features: bit 3 identifiers are not reused, bit 4 rotational media, bit 5 no write cache.
    pub nsfeat: u8,
    /// Multi-path I/O and sharing; see [`super::capability::nmic`].
    pub nmic: u8,
    /// Reservation Capabilities.
    pub rescap: u8,
    /// Format Progress Indicator.
    pub fpi: u8,
    /// ANA Group Identifier.
    pub anagrpid: U32,
    /// Namespace Attributes; see [`super::capability::nsattr`].
    pub nsattr: u8,
    /// Reserved.
    pub reserved9: u8,
    /// NVM Set Identifier.
    pub nvmsetid: U16,
    /// Endurance Group Identifier.
    pub endgid: U16,
    /// Namespace Status; see [`super::capability::nstat`].
    pub nstat: u8,
    /// Key Per I/O Status.
    pub kpios: u8,
    /// Maximum Key Tag.
    pub maxkt: U16,
    /// Reserved.
    pub reserved18: [u8; 2],
    /// Reachability Group Identifier.
    pub rgrpid: U32,
    /// Reserved.
    pub reserved24: [u8; 4072],
}

assert_layout!(
    IndependentNamespaceData, 4096, anagrpid @ 4, nsattr @ 8, nvmsetid @ 10, endgid @ 12, nstat @ 14, maxkt @ 16,
    rgrpid @ 20,
);

impl IndependentNamespaceData {
    /// All zero: not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }

    /// What the two structures share, taken from the other one, with a readiness.
    #[must_use]
    pub fn of(namespace: &NamespaceData, ready: bool) -> Self {
        let mut data = Self::new_zeroed();
        data.nsfeat = namespace.nsfeat & super::capability::nsfeat::IDENTIFIERS_NOT_REUSED;
        data.nmic = namespace.nmic;
        data.rescap = namespace.rescap;
        data.fpi = namespace.fpi;
        data.anagrpid = namespace.anagrpid;
        data.nsattr = namespace.nsattr;
        data.nvmsetid = namespace.nvmsetid;
        data.endgid = namespace.endgid;
        data.nstat = if ready { super::capability::nstat::READY } else { 0 };
        data
    }
}

impl Default for IndependentNamespaceData {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a namespace's size or block size reach the host wrong.
    #[test]
    fn sizes_and_formats() {
        let data = NamespaceData::new(0x0102_0304, 12);
        let bytes = data.as_bytes();
        assert_eq!(bytes[..9], [4, 3, 2, 1, 0, 0, 0, 0, 4]);
        assert_eq!(bytes[128..132], [0, 0, 12, 0]);
        assert_eq!(data.nvmcap.get(), 0x0102_0304 << 12);
        assert_eq!((data.block_bytes(), data.metadata_bytes()), (Some(4096), 0));
        let mut data = data;
        data.flbas = 0x23;
        data.lbaf[0x13] = LbaFormat { metadata_bytes: U16::new(8), data_shift: 9, relative_performance: 0 };
        assert_eq!(data.format_index(), 0x13);
        assert_eq!((data.block_bytes(), data.metadata_bytes()), (Some(512), 8));
        assert_eq!(NamespaceData::inactive().block_bytes(), None);
        data.lbaf[0x13].data_shift = 0xff;
        assert_eq!(data.block_bytes(), None);
    }

    // Deleting this lets the two Identify structures of one namespace contradict each other.
    #[test]
    fn independent_data_follows_namespace_data() {
        let mut data = NamespaceData::new(8, 9);
        data.nmic = 1;
        data.anagrpid = U32::new(5);
        data.nsfeat = 0xff;
        let independent = IndependentNamespaceData::of(&data, true);
        assert_eq!(independent.as_bytes()[..16], [8, 1, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    }
}
