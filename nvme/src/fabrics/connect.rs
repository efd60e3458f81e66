//! The Connect command: how a host binds a connection to a queue of a controller.
//!
//! Owns its command, data and response layouts (Base 6.3). Invariant: an invalid parameter is always reported with
//! the offset of the field that is wrong. The target's connection state machine and the host side use it.

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned, transmute, transmute_ref,
};

use super::command::{FLAGS, fabrics_command};
use super::nqn::{NQN_FIELD_BYTES, Nqn};
use crate::command::Command;
use crate::opcode::{FABRICS, FabricsType};
use crate::sgl::Descriptor;
use crate::wire::{assert_layout, bit_fields};

/// Controller ID that asks for a dynamic controller (Base 6.3, CNTLID).
pub const ADMIN_CONTROLLER_DYNAMIC: u16 = 0xffff;
/// Controller ID that asks for any static controller (Base 6.3, CNTLID).
pub const ADMIN_CONTROLLER_STATIC: u16 = 0xfffe;

bit_fields! {
    /// Connect Attributes (CATTR, Base 6.3).
    pub struct ConnectAttributes: u8 {
        flags {
            /// The host does not use SQHD: submission queue flow control is off if the controller agrees.
            disable_flow_control, with_disable_flow_control = 2;
            /// The host can delete single I/O queues with Disconnect.
            individual_queue_deletion, with_individual_queue_deletion = 3;
        }
        fields {
            /// Priority class of the queue: 0 urgent, 1 high, 2 medium, 3 low.
            priority, with_priority: u8 = 0, 2;
        }
    }
}

/// Connect command (Base 6.3, "Connect Command"), 64 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ConnectCommand {
    /// Opcode, 7Fh.
    pub opcode: u8,
    /// Flags of DW0.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type, 01h.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 19],
    /// SGL 1: the Connect data.
    pub sgl: Descriptor,
    /// Record Format (RECFMT), 0.
    pub record_format: U16,
    /// Queue ID (QID): 0 the Admin queue.
    pub qid: U16,
    /// Submission Queue Size (SQSIZE), 0's based.
    pub sqsize: U16,
    /// Connect Attributes (CATTR).
    pub attributes: u8,
    /// Reserved.
    pub reserved47: u8,
    /// Keep Alive Timeout (KATO) in milliseconds; 0 none. Only meaningful for the Admin queue.
    pub keep_alive_timeout: U32,
    /// Reserved.
    pub reserved52: [u8; 12],
}

assert_layout!(
    ConnectCommand, 64, cid @ 2, fctype @ 4, sgl @ 24, record_format @ 40, qid @ 42, sqsize @ 44, attributes @ 46,
    keep_alive_timeout @ 48,
);
fabrics_command!(ConnectCommand);

impl ConnectCommand {
    /// Connects queue `qid` of `entries` (2 to 65,536) entries, with a keep alive timeout in milliseconds, its data
    /// (always [`ConnectData`], 1,024 bytes) in the capsule.
    #[must_use]
    pub fn new(qid: u16, entries: u32, keep_alive_timeout_ms: u32) -> Self {
        debug_assert!((2..=0x1_0000).contains(&entries), "a queue has 2 to 65,536 entries");
        Self {
            opcode: FABRICS,
            flags: FLAGS,
            fctype: FabricsType::Connect.value(),
            sgl: Descriptor::in_capsule(0, size_of::<ConnectData>() as u32),
            qid: U16::new(qid),
            sqsize: U16::new(entries.wrapping_sub(1) as u16),
            keep_alive_timeout: U32::new(keep_alive_timeout_ms),
            ..Self::default()
        }
    }

    /// The same with these attributes.
    #[must_use]
    pub const fn with_attributes(mut self, attributes: ConnectAttributes) -> Self {
        self.attributes = attributes.bits();
        self
    }

    /// Entries of the submission queue, 1 to 65,536 (1 is invalid).
    #[must_use]
    pub const fn entries(&self) -> u32 {
        self.sqsize.get() as u32 + 1
    }

    /// Connect Attributes.
    #[must_use]
    pub const fn connect_attributes(&self) -> ConnectAttributes {
        ConnectAttributes::from_bits(self.attributes)
    }
}

/// Data of the Connect command (Base 6.3, "Connect Command - Data"), 1,024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ConnectData {
    /// Host Identifier (HOSTID), 128 bits; not zero.
    pub host_id: [u8; 16],
    /// Controller ID (CNTLID): see [`ADMIN_CONTROLLER_DYNAMIC`]; the controller's own for I/O queues.
    pub cntlid: U16,
    /// Reserved.
    pub reserved18: [u8; 238],
    /// NVM Subsystem NQN (SUBNQN), NUL terminated.
    pub subnqn: [u8; NQN_FIELD_BYTES],
    /// Host NQN (HOSTNQN), NUL terminated.
    pub hostnqn: [u8; NQN_FIELD_BYTES],
    /// Reserved.
    pub reserved768: [u8; 256],
}

assert_layout!(ConnectData, 1024, cntlid @ 16, subnqn @ 256, hostnqn @ 512);

impl ConnectData {
    /// The data to connect to a subsystem as a host.
    #[must_use]
    pub fn new(host_id: [u8; 16], cntlid: u16, subnqn: &Nqn, hostnqn: &Nqn) -> Self {
        let mut data = Self::new_zeroed();
        data.host_id = host_id;
        data.cntlid = U16::new(cntlid);
        data.subnqn = subnqn.to_field();
        data.hostnqn = hostnqn.to_field();
        data
    }
}

bit_fields! {
    /// DW0 of a successful Connect's response (Base 6.3, "Connect Response").
    pub struct ConnectResponse: u32 {
        flags {
            /// AUTHREQ: an authentication transaction is required (ATR).
            authentication_required, with_authentication_required = 17;
            /// AUTHREQ: authentication and a secure channel are required (ASCR).
            secure_channel_required, with_secure_channel_required = 18;
        }
        fields {
            /// Controller ID (CNTLID) of the controller that the queue now belongs to.
            cntlid, with_cntlid: u16 = 0, 16;
        }
    }
}

/// DW0 of a Connect that ended with `CONNECT_INVALID_PARAMETERS` (Base 6.3, "Connect Response"): which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidParameter {
    /// Invalid Attributes (IATTR) bit 0: the offset is into the Connect data rather than the command.
    pub in_data: bool,
    /// Invalid Parameter Offset (IPO), in bytes.
    pub offset: u16,
}

impl InvalidParameter {
    /// RECFMT of the command (the specification asks for `CONNECT_INCOMPATIBLE_FORMAT` instead in most cases).
    pub const RECORD_FORMAT: Self = Self::in_command(offset_of!(ConnectCommand, record_format));
    /// QID of the command.
    pub const QID: Self = Self::in_command(offset_of!(ConnectCommand, qid));
    /// SQSIZE of the command.
    pub const SQSIZE: Self = Self::in_command(offset_of!(ConnectCommand, sqsize));
    /// CATTR of the command.
    pub const ATTRIBUTES: Self = Self::in_command(offset_of!(ConnectCommand, attributes));
    /// KATO of the command.
    pub const KEEP_ALIVE_TIMEOUT: Self = Self::in_command(offset_of!(ConnectCommand, keep_alive_timeout));
    /// HOSTID of the data.
    pub const HOST_ID: Self = Self::in_connect_data(offset_of!(ConnectData, host_id));
    /// CNTLID of the data.
    pub const CNTLID: Self = Self::in_connect_data(offset_of!(ConnectData, cntlid));
    /// SUBNQN of the data.
    pub const SUBNQN: Self = Self::in_connect_data(offset_of!(ConnectData, subnqn));
    /// HOSTNQN of the data.
    pub const HOSTNQN: Self = Self::in_connect_data(offset_of!(ConnectData, hostnqn));

    const fn in_command(offset: usize) -> Self {
        Self { in_data: false, offset: offset as u16 }
    }

    const fn in_connect_data(offset: usize) -> Self {
        Self { in_data: true, offset: offset as u16 }
    }

    /// The response's DW0.
    #[must_use]
    pub const fn to_result(self) -> u32 {
        self.offset as u32 | (self.in_data as u32) << 16
    }

    /// Reads the response's DW0.
    #[must_use]
    pub const fn from_result(result: u32) -> Self {
        Self { in_data: result & 1 << 16 != 0, offset: result as u16 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets the Connect bytes change, and no host attach.
    #[test]
    fn bytes_are_the_specifications() {
        let command = Command::from(ConnectCommand::new(1, 128, 0x0001_0203)).with_cid(3);
        let bytes = command.as_bytes();
        assert_eq!(bytes[..5], [0x7f, 0x40, 3, 0, 1]);
        assert_eq!(bytes[24..40], [0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 1]);
        assert_eq!(bytes[40..52], [0, 0, 1, 0, 127, 0, 0, 0, 3, 2, 1, 0]);
        assert_eq!(ConnectCommand::of(&command).entries(), 128);
        let host = Nqn::new("nqn.2016-06.io.spdk:host").unwrap();
        let data = ConnectData::new([7; 16], ADMIN_CONTROLLER_DYNAMIC, &Nqn::discovery(), &host);
        let bytes = data.as_bytes();
        assert_eq!(bytes[..18], [7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 0xff, 0xff]);
        assert!(bytes[256..].starts_with(b"nqn.2014-08.org.nvmexpress.discovery\0"));
        assert!(bytes[512..].starts_with(b"nqn.2016-06.io.spdk:host\0"));
        let read = ConnectData::read_from_bytes(bytes).unwrap();
        assert_eq!(Nqn::from_field(&read.hostnqn), Ok(host));
    }

    // Deleting this lets a host be pointed at the wrong field when it is refused.
    #[test]
    fn results() {
        assert_eq!(InvalidParameter::SUBNQN.to_result(), 0x0001_0100);
        assert_eq!(InvalidParameter::HOSTNQN.to_result(), 0x0001_0200);
        assert_eq!(InvalidParameter::CNTLID.to_result(), 0x0001_0010);
        assert_eq!(InvalidParameter::SQSIZE.to_result(), 44);
        assert_eq!(InvalidParameter::from_result(0x0001_0010), InvalidParameter::CNTLID);
        let response = ConnectResponse::default().with_cntlid(5).with_authentication_required(true);
        assert_eq!(response.bits(), 0x0002_0005);
    }
}
