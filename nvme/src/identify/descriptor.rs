//! Namespace Identification Descriptors (CNS 03h): the lasting names of a namespace.
//!
//! Owns the list's bytes and their meaning. Invariant: writing never passes the end; reading stops at the first
//! descriptor that is empty or does not fit, and skips types that are not known here.

use crate::wire::wire_enum;

use super::{CommandSet, IDENTIFY_BYTES};

wire_enum! {
    /// Namespace Identifier Type (NIDT, Base 5.17.2.3).
    pub enum IdentifierType: u8 {
        Eui64 = 1, "IEEE Extended Unique Identifier";
        Nguid = 2, "Namespace Globally Unique Identifier";
        Uuid = 3, "Namespace UUID";
        CommandSet = 4, "Command Set Identifier";
    }
}

/// One name of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceIdentifier {
    /// IEEE Extended Unique Identifier, big endian.
    Eui64([u8; 8]),
    /// Namespace Globally Unique Identifier, big endian.
    Nguid([u8; 16]),
    /// UUID, in the byte order of RFC 4122.
    Uuid([u8; 16]),
    /// The I/O command set of the namespace; mandatory from Base 2.0.
    CommandSet(CommandSet),
}

const HEADER_BYTES: usize = 4;

/// Namespace Identification Descriptor list (Base 5.17.2.3, CNS 03h), 4,096 bytes, each descriptor a type, a length,
/// two reserved bytes and the identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorList {
    bytes: [u8; IDENTIFY_BYTES],
    used: usize,
}

impl DescriptorList {
    /// An empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; IDENTIFY_BYTES], used: 0 }
    }

    /// Adds a name. False when there is no room left, which four names of each type can't bring about.
    pub fn push(&mut self, identifier: NamespaceIdentifier) -> bool {
        match identifier {
            NamespaceIdentifier::Eui64(id) => self.append(IdentifierType::Eui64, &id),
            NamespaceIdentifier::Nguid(id) => self.append(IdentifierType::Nguid, &id),
            NamespaceIdentifier::Uuid(id) => self.append(IdentifierType::Uuid, &id),
            NamespaceIdentifier::CommandSet(set) => self.append(IdentifierType::CommandSet, &[set.value()]),
        }
    }

    fn append(&mut self, kind: IdentifierType, identifier: &[u8]) -> bool {
        let start = self.used + HEADER_BYTES;
        let end = start + identifier.len();
        let Some(place) = self.bytes.get_mut(start..end) else { return false };
        place.copy_from_slice(identifier);
        self.bytes[self.used] = kind.value();
        self.bytes[self.used + 1] = identifier.len() as u8;
        self.used = end;
        true
    }

    /// The bytes of the list.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; IDENTIFY_BYTES] {
        &self.bytes
    }
}

impl Default for DescriptorList {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads the names in a list's bytes.
#[derive(Clone, Debug)]
pub struct NamespaceIdentifiers<'a> {
    rest: &'a [u8],
}

impl<'a> NamespaceIdentifiers<'a> {
    /// Reads from the start of a list.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for NamespaceIdentifiers<'_> {
    type Item = NamespaceIdentifier;

    fn next(&mut self) -> Option<NamespaceIdentifier> {
        loop {
            let (header, rest) = self.rest.split_first_chunk::<HEADER_BYTES>()?;
            let [kind, length, ..] = *header;
            if length == 0 {
                return None;
            }
            let (identifier, rest) = rest.split_at_checked(length.into())?;
            self.rest = rest;
            let found = match IdentifierType::from_value(kind) {
                Some(IdentifierType::Eui64) => identifier.try_into().ok().map(NamespaceIdentifier::Eui64),
                Some(IdentifierType::Nguid) => identifier.try_into().ok().map(NamespaceIdentifier::Nguid),
                Some(IdentifierType::Uuid) => identifier.try_into().ok().map(NamespaceIdentifier::Uuid),
                Some(IdentifierType::CommandSet) => match *identifier {
                    [set] => CommandSet::from_value(set).map(NamespaceIdentifier::CommandSet),
                    _ => None,
                },
                None => None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a namespace lose its UUID, and multipath hosts merge or split disks.
    #[test]
    fn writes_and_reads_names() {
        let names = [
            NamespaceIdentifier::Eui64([1; 8]),
            NamespaceIdentifier::Nguid([2; 16]),
            NamespaceIdentifier::Uuid([3; 16]),
            NamespaceIdentifier::CommandSet(CommandSet::Nvm),
        ];
        let mut list = DescriptorList::new();
        assert!(names.iter().all(|&name| list.push(name)));
        let bytes = list.as_bytes();
        assert_eq!(bytes[..16], [1, 8, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 16, 0, 0]);
        assert_eq!(bytes[52..58], [4, 1, 0, 0, 0, 0]);
        assert_eq!(NamespaceIdentifiers::new(bytes).collect::<Vec<_>>(), names);
    }

    // Deleting this lets another target's malformed list crash the host, or run past its end.
    #[test]
    fn reading_stops_at_nonsense() {
        let bytes = [9, 2, 0, 0, 7, 7, 3, 4, 0, 0, 1, 2, 3, 4, 4, 1, 0, 0, 0, 3, 16, 0, 0, 1];
        assert_eq!(
            NamespaceIdentifiers::new(&bytes).collect::<Vec<_>>(),
            [NamespaceIdentifier::CommandSet(CommandSet::Nvm)]
        );
        let mut list = DescriptorList::new();
        let pushed = (0..1000).filter(|_| list.push(NamespaceIdentifier::Uuid([1; 16]))).count();
        assert_eq!(pushed, IDENTIFY_BYTES / 20);
    }
}
