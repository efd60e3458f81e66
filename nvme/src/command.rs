//! Submission queue entries: the commands.
//!
//! Owns the 64-byte layout and the fields that every command has; `nvm` and `admin` add what the command sets define.
//! Invariant: an accessor reads exactly the bits that the specification names and never fails; whether the values
//! make sense is the controller's business. The host builds commands here, the target takes them apart.

mod admin;
mod nvm;
mod pcie;

pub use nvm::{ContextAttributes, DatasetRange, MAX_DATASET_RANGES};

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::sgl::Descriptor;
use crate::wire::{assert_layout, wire_enum};

/// Namespace Identifier that means every namespace (Base 3.2.1.2).
pub const BROADCAST_NSID: u32 = 0xffff_ffff;

/// Common command format (Base 3.3.3.1), 64 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Command {
    /// Opcode (OPC).
    pub opcode: u8,
    /// Fused Operation (FUSE) in bits 1:0, PRP or SGL for Data Transfer (PSDT) in bits 7:6.
    pub flags: u8,
    /// Command Identifier (CID).
    pub cid: U16,
    /// Namespace Identifier (NSID); Fabrics commands have FCTYPE in its first byte.
    pub nsid: U32,
    /// Command Dword 2.
    pub cdw2: U32,
    /// Command Dword 3.
    pub cdw3: U32,
    /// Metadata Pointer (MPTR).
    pub mptr: U64,
    /// Data Pointer (DPTR): SGL 1 in Fabrics.
    pub dptr: Descriptor,
    /// Command Dword 10.
    pub cdw10: U32,
    /// Command Dword 11.
    pub cdw11: U32,
    /// Command Dword 12.
    pub cdw12: U32,
    /// Command Dword 13.
    pub cdw13: U32,
    /// Command Dword 14.
    pub cdw14: U32,
    /// Command Dword 15.
    pub cdw15: U32,
}

assert_layout!(Command, 64, cid @ 2, nsid @ 4, mptr @ 16, dptr @ 24, cdw10 @ 40, cdw12 @ 48, cdw15 @ 60);

wire_enum! {
    /// Fused Operation (FUSE, Base 3.3.3.1 DW0 bits 9:8).
    pub enum Fuse: u8 {
        Normal = 0, "normal operation";
        First = 1, "fused operation, first command";
        Second = 2, "fused operation, second command";
    }
}

wire_enum! {
    /// PRP or SGL for Data Transfer (PSDT, Base 3.3.3.1 DW0 bits 15:14).
    pub enum DataPointerKind: u8 {
        Prp = 0, "PRPs";
        SglContiguousMetadata = 1, "SGLs, metadata in one contiguous buffer";
        SglSegmentMetadata = 2, "SGLs, metadata in an SGL segment";
    }
}

impl Command {
    /// A command with an opcode and a namespace, SGLs for data (as Fabrics requires) and everything else zero.
    #[inline]
    #[must_use]
    pub fn new(opcode: u8, nsid: u32) -> Self {
        Self {
            opcode,
            flags: DataPointerKind::SglContiguousMetadata.value() << 6,
            nsid: U32::new(nsid),
            ..Self::default()
        }
    }

    /// The same command with a Command Identifier.
    #[must_use]
    pub const fn with_cid(mut self, cid: u16) -> Self {
        self.cid = U16::new(cid);
        self
    }

    /// The same command with a data pointer.
    #[must_use]
    pub const fn with_data(mut self, descriptor: Descriptor) -> Self {
        self.dptr = descriptor;
        self
    }

    /// The same command as part of a fused operation.
    #[must_use]
    pub const fn with_fuse(mut self, fuse: Fuse) -> Self {
        self.flags = (self.flags & !0x3) | fuse.value();
        self
    }

    /// Fused Operation; `None` for the reserved value 3.
    #[must_use]
    pub const fn fuse(&self) -> Option<Fuse> {
        Fuse::from_value(self.flags & 0x3)
    }

    /// PRP or SGL for Data Transfer; `None` for the reserved value 3.
    #[must_use]
    pub const fn data_pointer_kind(&self) -> Option<DataPointerKind> {
        DataPointerKind::from_value(self.flags >> 6)
    }

    /// Fabrics Command Type (FCTYPE, byte 4): meaningful when the opcode is [`crate::opcode::FABRICS`].
    #[must_use]
    pub const fn fctype(&self) -> u8 {
        (self.nsid.get() & 0xff) as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets the flag bits of DW0 move.
    #[test]
    fn flags_are_the_specifications() {
        let command = Command::new(0x01, 7).with_cid(0xabcd).with_fuse(Fuse::Second);
        assert_eq!(command.as_bytes()[..8], [0x01, 0x42, 0xcd, 0xab, 7, 0, 0, 0]);
        assert_eq!(command.fuse(), Some(Fuse::Second));
        assert_eq!(command.data_pointer_kind(), Some(DataPointerKind::SglContiguousMetadata));
        let odd = Command { flags: 0xc3, ..Command::default() };
        assert_eq!(odd.fuse(), None);
        assert_eq!(odd.data_pointer_kind(), None);
    }
}
