//! Why a command is refused: what it is answered with, and which of its fields is to blame.
//!
//! Invariant: a location is given only where exactly that field of the submission queue entry made the command fail, so
//! that the Error Information log (Base 5.16.1.2) never accuses another one. Made where commands are checked, by
//! connections and controllers; connections answer with it.

use sledge_nvme::Status;
use sledge_nvme::log_page::ParameterLocation;

/// Byte offsets of a submission queue entry's fields (Base 3.3.3.1), of all commands and of single ones.
pub(crate) mod field {
    /// FUSE and PSDT.
    pub const FLAGS: u8 = 1;
    /// CID.
    pub const CID: u8 = 2;
    /// NSID; FCTYPE of Fabrics commands.
    pub const NSID: u8 = 4;
    /// Address, or offset, of SGL 1.
    pub const SGL: u8 = 24;
    /// Length of SGL 1.
    pub const SGL_LENGTH: u8 = 32;
    /// Type of SGL 1.
    pub const SGL_TYPE: u8 = 39;
    /// CDW10: SLBA, CNS, LID, FID; ATTRIB of Property Get and Set, RECFMT of Connect.
    pub const DWORD_10: u8 = 40;
    /// CDW11: a feature's value; OFST of Property Get and Set.
    pub const DWORD_11: u8 = 44;
    /// CDW12: NLB; VALUE of Property Set; LPOL.
    pub const DWORD_12: u8 = 48;
    /// CDW14: of Get Log Page.
    pub const DWORD_14: u8 = 56;
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What the command is answered with.
    pub status: Status,
    /// The field that is to blame; [`ParameterLocation::NONE`] when it is not one alone.
    pub location: ParameterLocation,
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self { status, location: ParameterLocation::NONE }
    }
}

impl Fault {
    /// A refusal, not to be retried, for the field that starts at a byte.
    #[must_use]
    pub const fn at(status: Status, byte: u8) -> Self {
        Self::at_bit(status, byte, 0)
    }

    /// A refusal, not to be retried, for the field that starts at a bit of a byte.
    #[must_use]
    pub const fn at_bit(status: Status, byte: u8, bit: u8) -> Self {
        let location = ParameterLocation::from_bits(0).with_byte(byte).with_bit(bit);
        Self { status: status.do_not_retry(), location }
    }

    /// Invalid Field, for the field that starts at a byte.
    #[must_use]
    pub const fn field(byte: u8) -> Self {
        Self::at(Status::INVALID_FIELD, byte)
    }

    /// Invalid Field, for the field that starts at a bit of a byte.
    #[must_use]
    pub const fn field_bit(byte: u8, bit: u8) -> Self {
        Self::at_bit(Status::INVALID_FIELD, byte, bit)
    }

    /// Invalid Opcode.
    pub const OPCODE: Self = Self::at(Status::INVALID_OPCODE, 0);
    /// Invalid Namespace or Format, for NSID.
    pub const NAMESPACE: Self = Self::at(Status::INVALID_NAMESPACE_OR_FORMAT, field::NSID);
}
