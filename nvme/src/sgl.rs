//! SGL descriptors: where a command's data lies.
//!
//! Owns the 16-byte descriptor and its decoded form. Invariant: decoding never fails; a descriptor that nobody knows
//! decodes to [`Sgl::Unknown`], and the caller answers it with `SGL_DESCRIPTOR_TYPE_INVALID`.
//! Commands carry one as their data pointer; the NVMe/TCP target reads it, the host writes it.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::assert_layout;

/// SGL Descriptor Type values (Base 4.1.2, byte 15 bits 7:4).
pub mod descriptor_type {
    /// SGL Data Block.
    pub const DATA_BLOCK: u8 = 0x0;
    /// SGL Bit Bucket.
    pub const BIT_BUCKET: u8 = 0x1;
    /// SGL Segment.
    pub const SEGMENT: u8 = 0x2;
    /// SGL Last Segment.
    pub const LAST_SEGMENT: u8 = 0x3;
    /// Keyed SGL Data Block.
    pub const KEYED_DATA_BLOCK: u8 = 0x4;
    /// Transport SGL Data Block.
    pub const TRANSPORT_DATA_BLOCK: u8 = 0x5;
}

/// SGL Descriptor Sub Type values (Base 4.1.2, byte 15 bits 3:0).
pub mod descriptor_subtype {
    /// The address is a host memory address.
    pub const ADDRESS: u8 = 0x0;
    /// The address is an offset into the capsule's data.
    pub const OFFSET: u8 = 0x1;
    /// The transport decides; NVMe/TCP uses it for data that follows in data transfer PDUs (TCP 1.0, 3.3.2.1.1).
    pub const TRANSPORT: u8 = 0xa;
    /// Keyed data block whose key is invalidated when the command completes (RDMA).
    pub const KEYED_INVALIDATE: u8 = 0xf;
}

/// One SGL descriptor (Base 4.1.2), 16 bytes.
///
/// Keyed descriptors use the last of the length bytes and the reserved bytes for the key; [`Descriptor::decode`]
/// takes that into account.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Descriptor {
    /// Address or offset in bytes.
    pub address: U64,
    /// Length in bytes.
    pub length: U32,
    /// Reserved, or the upper bytes of a key.
    pub reserved: [u8; 3],
    /// Type in bits 7:4, sub type in bits 3:0.
    pub identifier: u8,
}

assert_layout!(Descriptor, 16, address @ 0, length @ 8, identifier @ 15);

/// A descriptor, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sgl {
    /// Data in memory that an address reaches.
    DataBlock {
        /// First byte's address.
        address: u64,
        /// Bytes.
        length: u32,
    },
    /// Data inside the command capsule.
    InCapsule {
        /// Offset from the start of the capsule's data (after ICDOFF), in bytes.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// Read data that the host does not want.
    BitBucket {
        /// Bytes.
        length: u32,
    },
    /// More descriptors, among them another segment.
    Segment {
        /// Address, or offset in the capsule when `in_capsule`.
        address: u64,
        /// Bytes of descriptors.
        length: u32,
        /// Whether the descriptors lie in the capsule.
        in_capsule: bool,
    },
    /// The last descriptors.
    LastSegment {
        /// Address, or offset in the capsule when `in_capsule`.
        address: u64,
        /// Bytes of descriptors.
        length: u32,
        /// Whether the descriptors lie in the capsule.
        in_capsule: bool,
    },
    /// Data in remote memory that a key opens (RDMA).
    Keyed {
        /// First byte's address.
        address: u64,
        /// Bytes (24 bits).
        length: u32,
        /// Remote key.
        key: u32,
        /// Whether the key is to be invalidated when the command completes.
        invalidate: bool,
    },
    /// Data that the transport moves by itself: data transfer PDUs in NVMe/TCP.
    Transport {
        /// Bytes.
        length: u32,
    },
    /// A type or sub type that this crate does not know.
    Unknown {
        /// SGL Descriptor Type.
        descriptor_type: u8,
        /// SGL Descriptor Sub Type.
        subtype: u8,
    },
}

impl Descriptor {
    const fn make(address: u64, length: u32, descriptor_type: u8, subtype: u8) -> Self {
        Self {
            address: U64::new(address),
            length: U32::new(length),
            reserved: [0; 3],
            identifier: descriptor_type << 4 | subtype,
        }
    }

    /// A data block at a memory address.
    #[must_use]
    pub const fn data_block(address: u64, length: u32) -> Self {
        Self::make(address, length, descriptor_type::DATA_BLOCK, descriptor_subtype::ADDRESS)
    }

    /// A data block inside the command capsule, at an offset from the start of its data.
    #[must_use]
    pub const fn in_capsule(offset: u64, length: u32) -> Self {
        Self::make(offset, length, descriptor_type::DATA_BLOCK, descriptor_subtype::OFFSET)
    }

    /// A data block that the transport moves (NVMe/TCP: H2CData and C2HData PDUs).
    #[must_use]
    pub const fn transport(length: u32) -> Self {
        Self::make(0, length, descriptor_type::TRANSPORT_DATA_BLOCK, descriptor_subtype::TRANSPORT)
    }

    /// A keyed data block; `length` is cut to its 24 bits.
    #[must_use]
    pub const fn keyed(address: u64, length: u32, key: u32) -> Self {
        let key = key.to_le_bytes();
        Self {
            address: U64::new(address),
            length: U32::new((length & 0x00ff_ffff) | (key[0] as u32) << 24),
            reserved: [key[1], key[2], key[3]],
            identifier: descriptor_type::KEYED_DATA_BLOCK << 4 | descriptor_subtype::ADDRESS,
        }
    }

    /// SGL Descriptor Type.
    #[must_use]
    pub const fn descriptor_type(&self) -> u8 {
        self.identifier >> 4
    }

    /// SGL Descriptor Sub Type.
    #[must_use]
    pub const fn subtype(&self) -> u8 {
        self.identifier & 0xf
    }

    /// The meaning of the bytes.
    #[must_use]
    pub const fn decode(&self) -> Sgl {
        use descriptor_subtype as sub;
        use descriptor_type as ty;
        let address = self.address.get();
        let length = self.length.get();
        match (self.descriptor_type(), self.subtype()) {
            (ty::DATA_BLOCK, sub::ADDRESS) => Sgl::DataBlock { address, length },
            (ty::DATA_BLOCK, sub::OFFSET) => Sgl::InCapsule { offset: address, length },
            (ty::BIT_BUCKET, sub::ADDRESS) => Sgl::BitBucket { length },
            (ty::SEGMENT, subtype @ (sub::ADDRESS | sub::OFFSET)) => {
                Sgl::Segment { address, length, in_capsule: subtype == sub::OFFSET }
            }
            (ty::LAST_SEGMENT, subtype @ (sub::ADDRESS | sub::OFFSET)) => {
                Sgl::LastSegment { address, length, in_capsule: subtype == sub::OFFSET }
            }
            (ty::KEYED_DATA_BLOCK, subtype @ (sub::ADDRESS | sub::KEYED_INVALIDATE)) => Sgl::Keyed {
                address,
                length: length & 0x00ff_ffff,
                key: u32::from_le_bytes([
                    (length >> 24) as u8,
                    self.reserved[0],
                    self.reserved[1],
                    self.reserved[2],
                ]),
                invalidate: subtype == sub::KEYED_INVALIDATE,
            },
            (ty::TRANSPORT_DATA_BLOCK, sub::TRANSPORT) => Sgl::Transport { length },
            (descriptor_type, subtype) => Sgl::Unknown { descriptor_type, subtype },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a descriptor's bytes change, which no Linux host would understand.
    #[test]
    fn bytes_are_the_specifications() {
        let in_capsule = Descriptor::in_capsule(0x20, 0x1000);
        assert_eq!(in_capsule.as_bytes(), [0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0x01]);
        let transport = Descriptor::transport(0x2_0000);
        assert_eq!(transport.as_bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0x5a]);
        let keyed = Descriptor::keyed(1, 0x0012_3456, 0xaabb_ccdd);
        assert_eq!(
            keyed.as_bytes(),
            [1, 0, 0, 0, 0, 0, 0, 0, 0x56, 0x34, 0x12, 0xdd, 0xcc, 0xbb, 0xaa, 0x40]
        );
    }

    // Deleting this lets decode and encode disagree.
    #[test]
    fn decodes_what_it_encodes() {
        assert_eq!(Descriptor::data_block(7, 8).decode(), Sgl::DataBlock { address: 7, length: 8 });
        assert_eq!(Descriptor::in_capsule(7, 8).decode(), Sgl::InCapsule { offset: 7, length: 8 });
        assert_eq!(Descriptor::transport(8).decode(), Sgl::Transport { length: 8 });
        assert_eq!(
            Descriptor::keyed(7, 8, 0x0102_0304).decode(),
            Sgl::Keyed { address: 7, length: 8, key: 0x0102_0304, invalidate: false }
        );
        let odd = Descriptor { identifier: 0x6b, ..Descriptor::default() };
        assert_eq!(odd.decode(), Sgl::Unknown { descriptor_type: 6, subtype: 0xb });
    }
}
