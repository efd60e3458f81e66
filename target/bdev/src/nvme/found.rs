//! A namespace as a path shows it: geometry, identity, and whether it can be used.
//!
//! Owns [`Found`] and [`Identity`]. Invariant: two paths are taken for ways to one namespace only when every
//! identifier that either shows is the same.

use sledge_nvme::identify::{NamespaceData, NamespaceIdentifier, NamespaceIdentifiers, capability};
use sledge_nvme::io::Geometry;
use uuid::Uuid;

/// The lasting names of a namespace; zero bytes where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Identity {
    /// UUID.
    pub uuid: [u8; 16],
    /// Namespace Globally Unique Identifier.
    pub nguid: [u8; 16],
    /// IEEE Extended Unique Identifier.
    pub eui64: [u8; 8],
}

impl Identity {
    /// What Identify Namespace and the list of Namespace Identification Descriptors say.
    pub(crate) fn read(data: &NamespaceData, descriptors: &[u8]) -> Self {
        let mut identity = Self { uuid: [0; 16], nguid: data.nguid, eui64: data.eui64 };
        for found in NamespaceIdentifiers::new(descriptors) {
            match found {
                NamespaceIdentifier::Uuid(uuid) => identity.uuid = uuid,
                NamespaceIdentifier::Nguid(nguid) => identity.nguid = nguid,
                NamespaceIdentifier::Eui64(eui64) => identity.eui64 = eui64,
                NamespaceIdentifier::CommandSet(_) => {}
            }
        }
        identity
    }

    /// Whether it has any name at all.
    pub(crate) fn is_known(&self) -> bool {
        *self != Self::default()
    }

    /// The device's UUID: the namespace's own; else the NGUID's bytes; else one that is always the same for `owner`
    /// (the subsystem or drive), the EUI-64 and the namespace identifier.
    pub(crate) fn device_uuid(&self, owner: &str, nsid: u32) -> Uuid {
        if self.uuid != [0; 16] {
            return Uuid::from_bytes(self.uuid);
        }
        if self.nguid != [0; 16] {
            return Uuid::from_bytes(self.nguid);
        }
        let mut bytes = [0; 16];
        for (half, seed) in bytes.chunks_exact_mut(8).zip([0xcbf2_9ce4_8422_2325_u64, 0x9e37_79b9_7f4a_7c15])
        {
            // FNV-1a: spread is all that is asked of it.
            let text = owner.bytes().chain(self.eui64).chain(nsid.to_le_bytes());
            let hash = text.fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            half.copy_from_slice(&hash.to_be_bytes());
        }
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// A namespace as a path shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) nsid: u32,
    pub(crate) geometry: Geometry,
    pub(crate) identity: Identity,
    /// ANA group; 0 without ANA.
    pub(crate) ana_group: u32,
    /// Other controllers may have it, too.
    pub(crate) shared: bool,
    /// Deallocated blocks read as zeroes.
    pub(crate) zeroes_after_deallocate: bool,
}

impl Found {
    /// Takes a namespace's structures apart.
    ///
    /// # Errors
    /// Why it can't be used.
    pub(crate) fn read(nsid: u32, data: &NamespaceData, descriptors: &[u8]) -> Result<Self, String> {
        if data.metadata_bytes() != 0 {
            return Err(format!("it is formatted with {} bytes of metadata", data.metadata_bytes()));
        }
        let block_bytes = data
            .block_bytes()
            .filter(|bytes| matches!(bytes, 512 | 4096))
            .ok_or_else(|| "its blocks have neither 512 nor 4096 bytes".to_owned())?;
        let mut geometry = Geometry::new(data.nsze.get(), block_bytes);
        if geometry.blocks == 0 || geometry.bytes() > i64::MAX as u64 {
            return Err(format!("it has {} blocks", geometry.blocks));
        }
        geometry.optimal_io_blocks = data.noiob.get().into();
        Ok(Self {
            nsid,
            geometry,
            identity: Identity::read(data, descriptors),
            ana_group: data.anagrpid.get(),
            shared: data.nmic & capability::nmic::SHARED != 0,
            zeroes_after_deallocate: data.dlfeat & 0x7 == 1,
        })
    }

    /// Whether this is the namespace that a device stands for, which has `geometry` and `identity`; it may have grown.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn is_the_same(&self, geometry: &Geometry, identity: &Identity) -> Result<(), String> {
        if self.identity != *identity {
            return Err(format!("namespace {} has other identifiers", self.nsid));
        }
        if self.geometry.block_bytes != geometry.block_bytes {
            let (now, before) = (self.geometry.block_bytes, geometry.block_bytes);
            return Err(format!("namespace {} has blocks of {now} bytes, not {before}", self.nsid));
        }
        if self.geometry.blocks < geometry.blocks {
            let (now, before) = (self.geometry.blocks, geometry.blocks);
            return Err(format!("namespace {} has {now} blocks, fewer than {before}", self.nsid));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found() -> Found {
        let mut data = NamespaceData::new(1000, 12);
        data.nguid = [7; 16];
        Found::read(1, &data, &[]).unwrap()
    }

    // Deleting this lets a path to another disk carry I/O of this one, or a disk that shrank be written past its end.
    #[test]
    fn another_disk_is_told_from_the_same() {
        let first = found();
        assert_eq!(first.is_the_same(&first.geometry, &first.identity), Ok(()));
        let grown = Found { geometry: Geometry::new(1001, 4096), ..first.clone() };
        assert_eq!(grown.is_the_same(&first.geometry, &first.identity), Ok(()));
        assert!(first.is_the_same(&grown.geometry, &first.identity).is_err());
        let other = Identity { uuid: [1; 16], ..first.identity };
        assert!(first.is_the_same(&first.geometry, &other).is_err());
        let small = Found { geometry: Geometry::new(8000, 512), ..first.clone() };
        assert!(small.is_the_same(&first.geometry, &first.identity).is_err());
    }

    // Deleting this lets a device's UUID change from one start to the next, or two devices have the same.
    #[test]
    fn devices_keep_their_uuid() {
        let first = found();
        assert_eq!(first.identity.device_uuid("nqn", 1), Uuid::from_bytes([7; 16]));
        let none = Identity::default();
        assert!(!none.is_known() && first.identity.is_known());
        assert_eq!(none.device_uuid("nqn", 1), none.device_uuid("nqn", 1));
        assert_ne!(none.device_uuid("nqn", 1), none.device_uuid("nqn", 2));
        assert_ne!(none.device_uuid("nqn", 1), none.device_uuid("other", 1));
    }

    // Deleting this lets a namespace with metadata be read as if it had none.
    #[test]
    fn what_can_not_be_used_says_why() {
        let mut data = NamespaceData::new(1000, 12);
        data.lbaf[0].metadata_bytes = 8.into();
        assert!(Found::read(1, &data, &[]).unwrap_err().contains("metadata"));
        assert!(Found::read(1, &NamespaceData::new(1000, 13), &[]).unwrap_err().contains("neither"));
        assert!(Found::read(1, &NamespaceData::new(0, 12), &[]).is_err());
    }
}
