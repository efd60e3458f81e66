//! Fabrics commands other than Connect: Property Get and Set, Authentication Send and Receive, Disconnect.
//!
//! Owns their 64-byte layouts. Invariant: each is a reinterpretation of the bytes of a [`Command`], so converting
//! back and forth changes nothing.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute, transmute_ref};

use crate::command::{Command, DataPointerKind};
use crate::opcode::{FABRICS, FabricsType};
use crate::property::Property;
use crate::sgl::Descriptor;
use crate::wire::{assert_layout, wire_enum};

/// Adds the conversions between a Fabrics command's layout and [`Command`].
macro_rules! fabrics_command {
    ($type:ty) => {
        impl $type {
            /// The same bytes as this command; the caller has checked opcode and FCTYPE.
            #[must_use]
            pub fn of(command: &Command) -> &Self {
                transmute_ref!(command)
            }
        }

        impl From<$type> for Command {
            fn from(command: $type) -> Self {
                transmute!(command)
            }
        }
    };
}
pub(super) use fabrics_command;

/// Flags of a Fabrics command: PSDT 01b, no fused operation (Base 6).
pub(super) const FLAGS: u8 = DataPointerKind::SglContiguousMetadata.value() << 6;

wire_enum! {
    /// Size of a property in Property Get and Set (ATTRIB bits 2:0, Base 6.5 and 6.6).
    pub enum PropertySize: u8 {
        Four = 0, "4 bytes";
        Eight = 1, "8 bytes";
    }
}

impl PropertySize {
    /// The size of a property.
    #[must_use]
    pub const fn of(property: Property) -> Self {
        if property.bytes() == 8 { Self::Eight } else { Self::Four }
    }
}

/// Property Get command (Base 6.5), 64 bytes. The answer's DW0 and DW1 carry the value.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct PropertyGetCommand {
    /// Opcode, 7Fh.
    pub opcode: u8,
    /// Flags of DW0.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type, 04h.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 19],
    /// Reserved (these commands carry no data).
    pub reserved24: [u8; 16],
    /// Attributes (ATTRIB): size in bits 2:0.
    pub attributes: u8,
    /// Reserved.
    pub reserved41: [u8; 3],
    /// Offset (OFST) of the property.
    pub offset: U32,
    /// Reserved.
    pub reserved48: [u8; 16],
}

assert_layout!(PropertyGetCommand, 64, cid @ 2, fctype @ 4, attributes @ 40, offset @ 44);
fabrics_command!(PropertyGetCommand);

impl PropertyGetCommand {
    /// Gets a property.
    #[must_use]
    pub fn new(property: Property) -> Self {
        Self {
            opcode: FABRICS,
            flags: FLAGS,
            fctype: FabricsType::PropertyGet.value(),
            attributes: PropertySize::of(property).value(),
            offset: U32::new(property.value()),
            ..Self::default()
        }
    }

    /// Size asked for; `None` when reserved.
    #[must_use]
    pub const fn size(&self) -> Option<PropertySize> {
        PropertySize::from_value(self.attributes & 0x7)
    }

    /// Property at the offset; `None` when there is none.
    #[must_use]
    pub const fn property(&self) -> Option<Property> {
        Property::from_value(self.offset.get())
    }
}

/// Property Set command (Base 6.6), 64 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct PropertySetCommand {
    /// Opcode, 7Fh.
    pub opcode: u8,
    /// Flags of DW0.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type, 00h.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 19],
    /// Reserved (these commands carry no data).
    pub reserved24: [u8; 16],
    /// Attributes (ATTRIB): size in bits 2:0.
    pub attributes: u8,
    /// Reserved.
    pub reserved41: [u8; 3],
    /// Offset (OFST) of the property.
    pub offset: U32,
    /// Value: the low 4 bytes for a property of 4.
    pub value: U64,
    /// Reserved.
    pub reserved56: [u8; 8],
}

assert_layout!(PropertySetCommand, 64, cid @ 2, fctype @ 4, attributes @ 40, offset @ 44, value @ 48);
fabrics_command!(PropertySetCommand);

impl PropertySetCommand {
    /// Sets a property.
    #[must_use]
    pub fn new(property: Property, value: u64) -> Self {
        Self {
            opcode: FABRICS,
            flags: FLAGS,
            fctype: FabricsType::PropertySet.value(),
            attributes: PropertySize::of(property).value(),
            offset: U32::new(property.value()),
            value: U64::new(value),
            ..Self::default()
        }
    }

    /// Size given; `None` when reserved.
    #[must_use]
    pub const fn size(&self) -> Option<PropertySize> {
        PropertySize::from_value(self.attributes & 0x7)
    }

    /// Property at the offset; `None` when there is none.
    #[must_use]
    pub const fn property(&self) -> Option<Property> {
        Property::from_value(self.offset.get())
    }
}

/// Authentication Send (Base 6.2) and Authentication Receive (Base 6.1) commands, 64 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct AuthenticationCommand {
    /// Opcode, 7Fh.
    pub opcode: u8,
    /// Flags of DW0.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type, 05h or 06h.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 19],
    /// SGL 1.
    pub sgl: Descriptor,
    /// Reserved.
    pub reserved40: u8,
    /// SP Specific 0 (SPSP0), 01h.
    pub spsp0: u8,
    /// SP Specific 1 (SPSP1), 01h.
    pub spsp1: u8,
    /// Security Protocol (SECP), E9h.
    pub security_protocol: u8,
    /// Transfer Length (TL) of Send, Allocation Length (AL) of Receive, in bytes.
    pub length: U32,
    /// Reserved.
    pub reserved48: [u8; 16],
}

assert_layout!(AuthenticationCommand, 64, fctype @ 4, sgl @ 24, spsp0 @ 41, security_protocol @ 43, length @ 44);
fabrics_command!(AuthenticationCommand);

impl AuthenticationCommand {
    /// Security Protocol of NVMe in-band authentication (Base 8.13).
    pub const SECURITY_PROTOCOL: u8 = 0xe9;

    fn make(fctype: FabricsType, sgl: Descriptor, length: u32) -> Self {
        Self {
            opcode: FABRICS,
            flags: FLAGS,
            fctype: fctype.value(),
            sgl,
            spsp0: 1,
            spsp1: 1,
            security_protocol: Self::SECURITY_PROTOCOL,
            length: U32::new(length),
            ..Self::default()
        }
    }

    /// Sends `length` bytes of authentication data.
    #[must_use]
    pub fn send(sgl: Descriptor, length: u32) -> Self {
        Self::make(FabricsType::AuthenticationSend, sgl, length)
    }

    /// Receives up to `length` bytes of authentication data.
    #[must_use]
    pub fn receive(sgl: Descriptor, length: u32) -> Self {
        Self::make(FabricsType::AuthenticationReceive, sgl, length)
    }
}

/// Disconnect command (Base 6.4), 64 bytes: deletes the I/O queue that carries it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct DisconnectCommand {
    /// Opcode, 7Fh.
    pub opcode: u8,
    /// Flags of DW0.
    pub flags: u8,
    /// Command Identifier.
    pub cid: U16,
    /// Fabrics Command Type, 08h.
    pub fctype: u8,
    /// Reserved.
    pub reserved5: [u8; 19],
    /// Reserved (these commands carry no data).
    pub reserved24: [u8; 16],
    /// Record Format (RECFMT), 0.
    pub record_format: U16,
    /// Reserved.
    pub reserved42: [u8; 22],
}

assert_layout!(DisconnectCommand, 64, fctype @ 4, record_format @ 40);
fabrics_command!(DisconnectCommand);

impl DisconnectCommand {
    /// Deletes the queue that carries it.
    #[must_use]
    pub fn new() -> Self {
        Self { opcode: FABRICS, flags: FLAGS, fctype: FabricsType::Disconnect.value(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets the bytes of property commands change, and no controller be enabled.
    #[test]
    fn property_commands() {
        let set = Command::from(PropertySetCommand::new(Property::Cc, 0x0046_0001)).with_cid(9);
        let bytes = set.as_bytes();
        assert_eq!(bytes[..5], [0x7f, 0x40, 9, 0, 0]);
        assert_eq!(bytes[40..56], [0, 0, 0, 0, 0x14, 0, 0, 0, 1, 0, 0x46, 0, 0, 0, 0, 0]);
        let read = PropertySetCommand::of(&set);
        assert_eq!(read.property(), Some(Property::Cc));
        assert_eq!((read.size(), read.value.get()), (Some(PropertySize::Four), 0x0046_0001));
        let get = Command::from(PropertyGetCommand::new(Property::Cap));
        assert_eq!(get.fctype(), FabricsType::PropertyGet.value());
        assert_eq!(PropertyGetCommand::of(&get).size(), Some(PropertySize::Eight));
        assert_eq!(PropertyGetCommand { attributes: 7, ..PropertyGetCommand::default() }.size(), None);
    }

    // Deleting this lets authentication and disconnect commands change their bytes.
    #[test]
    fn authentication_and_disconnect() {
        let send = Command::from(AuthenticationCommand::send(Descriptor::in_capsule(0, 16), 16));
        assert_eq!(send.as_bytes()[40..48], [0, 1, 1, 0xe9, 16, 0, 0, 0]);
        assert_eq!(send.dptr, Descriptor::in_capsule(0, 16));
        assert_eq!(send.fctype(), 5);
        let receive = Command::from(AuthenticationCommand::receive(Descriptor::transport(64), 64));
        assert_eq!(receive.fctype(), 6);
        let disconnect = Command::from(DisconnectCommand::new());
        assert_eq!((disconnect.opcode, disconnect.fctype()), (0x7f, 8));
    }
}
