//! The namespaces of a controller: what each is, and whether this driver can use it.
//!
//! Owns [`NamespaceInfo`] and the rules by which a namespace is refused, with a reason. Invariant: a namespace has a shape
//! for the data path, or a reason why not: it is of the NVM command set, and the shape serves its format. Read by the
//! channels and by whoever makes block devices of namespaces.

use std::sync::Arc;

use super::shape::NamespaceShape;
use crate::identify::capability::{dlfeat, nmic, nsattr};
use crate::identify::{
    CommandSet, ControllerData, NamespaceData, NamespaceIdentifier, NamespaceIdentifiers, NvmControllerData,
};
use crate::io::{Geometry, Operation};

/// Metadata of each logical block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Bytes a block.
    pub bytes: u16,
    /// It follows each block's data in the same buffer, rather than lying in a buffer of its own (MPTR).
    pub interleaved: bool,
    /// Protection information type, 1 to 3; 0: none of it is that.
    pub protection: u8,
    /// Protection information is the first eight bytes rather than the last.
    pub protection_first: bool,
}

/// An active namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Namespace identifier.
    pub nsid: u32,
    /// Size and preferences. Zero blocks of 512 bytes when the format is none that could be told.
    pub geometry: Geometry,
    /// Command set; `None` for one that is not known here.
    pub command_set: Option<CommandSet>,
    /// Namespace Globally Unique Identifier, where it has one.
    pub nguid: Option<[u8; 16]>,
    /// IEEE Extended Unique Identifier, where it has one.
    pub eui64: Option<[u8; 8]>,
    /// UUID in the byte order of RFC 4122, where it has one.
    pub uuid: Option<[u8; 16]>,
    /// Metadata of each block, where there is some.
    pub metadata: Option<Metadata>,
    /// Deallocated blocks read as zeroes.
    pub deallocated_reads_zeroes: bool,
    /// Write protected now.
    pub write_protected: bool,
    /// Other controllers may have it, too.
    pub shared: bool,
    /// What the data path does with it; none when it is refused.
    pub shape: Option<Arc<NamespaceShape>>,
    /// Why it can't be used, and what would help; `None`: it can.
    pub refused: Option<String>,
}

impl NamespaceInfo {
    /// Whether a channel takes an operation.
    #[must_use]
    pub fn supports(&self, operation: Operation) -> bool {
        let can = self.shape.as_ref().is_some_and(|shape| shape.supports(operation));
        can && !(self.write_protected && operation.modifies())
    }

    /// Whether there is a volatile write cache, so that Flush and FUA mean something.
    #[must_use]
    pub fn has_write_cache(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.volatile_cache)
    }

    /// Whether this is `other`, changed at most in size and limits: what was addressed in the one may be in the other.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let names = |info: &Self| (info.nsid, info.nguid, info.eui64, info.uuid);
        let format =
            |info: &Self| info.shape.as_ref().map(|shape| (shape.geometry.block_bytes, shape.protection));
        names(self) == names(other) && format(self) == format(other) && self.metadata == other.metadata
    }

    /// Reads a namespace of the NVM command set from Identify data and its descriptors (CNS 03h; empty where there are
    /// none).
    #[must_use]
    pub fn new(
        nsid: u32,
        controller: &ControllerData,
        limits: Option<&NvmControllerData>,
        data: &NamespaceData,
        descriptors: &[u8],
    ) -> Self {
        let mut info = Self::nameless(nsid, Some(CommandSet::Nvm));
        (info.nguid, info.eui64) = (some_unless_zero(data.nguid), some_unless_zero(data.eui64));
        info.name(descriptors);
        info.geometry = Geometry::new(data.nsze.get(), data.block_bytes().unwrap_or(512));
        info.deallocated_reads_zeroes = data.dlfeat & 0x7 == dlfeat::READS_ZEROES;
        info.write_protected = data.nsattr & nsattr::WRITE_PROTECTED != 0;
        info.shared = data.nmic & nmic::SHARED != 0;
        let bytes = data.metadata_bytes();
        info.metadata = (bytes != 0).then_some(Metadata {
            bytes,
            interleaved: data.flbas & 0x10 != 0,
            protection: data.dps & 0x7,
            protection_first: data.dps & 0x8 != 0,
        });
        match NamespaceShape::new(nsid, controller, limits, data) {
            Ok(shape) => {
                info.geometry = shape.geometry;
                info.shape = Some(Arc::new(shape));
            }
            Err(reason) => info.refused = Some(reason),
        }
        info
    }

    /// A namespace of another command set than NVM (`None`: one that is not known), which Identify Namespace says
    /// nothing about.
    #[must_use]
    pub fn foreign(nsid: u32, command_set: Option<CommandSet>, descriptors: &[u8]) -> Self {
        let mut info = Self::nameless(nsid, command_set);
        info.name(descriptors);
        info.refused = Some(match command_set {
            Some(CommandSet::Zoned) => {
                "it is zoned, and zones, whose blocks are only written in order, are not supported".into()
            }
            Some(other) => format!("it is of the {}, which is not supported", other.name()),
            None => "it is of a command set that is not known".into(),
        });
        info
    }

    fn nameless(nsid: u32, command_set: Option<CommandSet>) -> Self {
        Self {
            nsid,
            geometry: Geometry::new(0, 512),
            command_set,
            nguid: None,
            eui64: None,
            uuid: None,
            metadata: None,
            deallocated_reads_zeroes: false,
            write_protected: false,
            shared: false,
            shape: None,
            refused: None,
        }
    }

    /// Fills in its names.
    fn name(&mut self, descriptors: &[u8]) {
        for identifier in NamespaceIdentifiers::new(descriptors) {
            match identifier {
                NamespaceIdentifier::Eui64(id) => self.eui64 = some_unless_zero(id),
                NamespaceIdentifier::Nguid(id) => self.nguid = some_unless_zero(id),
                NamespaceIdentifier::Uuid(id) => self.uuid = some_unless_zero(id),
                NamespaceIdentifier::CommandSet(_) => {}
            }
        }
    }
}

fn some_unless_zero<const N: usize>(id: [u8; N]) -> Option<[u8; N]> {
    (id != [0; N]).then_some(id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::identify::DescriptorList;

    // Deleting this lets a namespace that can't be served right be offered, or be hidden without a reason, or lose its
    // names.
    #[test]
    fn namespaces_have_a_shape_or_a_reason() {
        let controller = ControllerData::new();
        let of = |data: &NamespaceData, list: &[u8]| NamespaceInfo::new(3, &controller, None, data, list);
        let mut names = DescriptorList::new();
        assert!(names.push(NamespaceIdentifier::Uuid([7; 16])));
        let mut plain = NamespaceData::new(1000, 12);
        plain.nguid = [9; 16];
        let info = of(&plain, names.as_bytes());
        assert_eq!((info.uuid, info.nguid, info.eui64), (Some([7; 16]), Some([9; 16]), None));
        assert_eq!((info.geometry.blocks, info.geometry.block_bytes), (1000, 4096));
        assert!(info.refused.is_none() && info.supports(Operation::Write));

        plain.nsattr = nsattr::WRITE_PROTECTED;
        assert!(!of(&plain, &[]).supports(Operation::Write) && of(&plain, &[]).supports(Operation::Read));

        let mut metadata = NamespaceData::new(1000, 9);
        metadata.lbaf[0].metadata_bytes = 8.into();
        let info = of(&metadata, &[]);
        assert!(info.refused.is_some() && info.shape.is_none() && !info.supports(Operation::Read));
        metadata.dps = 1;
        let info = of(&metadata, &[]);
        assert_eq!(info.refused, None);
        assert_eq!(info.metadata.map(|metadata| (metadata.bytes, metadata.protection)), Some((8, 1)));

        for set in [Some(CommandSet::Zoned), Some(CommandSet::KeyValue), None] {
            let info = NamespaceInfo::foreign(4, set, names.as_bytes());
            assert!(info.refused.is_some() && info.uuid == Some([7; 16]) && !info.supports(Operation::Read));
        }
        assert!(of(&NamespaceData::new(1000, 11), &[]).refused.unwrap().contains("2048"));
    }
}
