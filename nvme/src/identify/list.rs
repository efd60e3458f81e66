//! Lists that Identify and log pages return: namespaces, controllers, I/O command set combinations.
//!
//! Owns the three layouts. Invariant: lists are filled in ascending order and end at the first zero (namespaces) or
//! at their count (controllers), whatever follows.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::assert_layout;

/// Namespace List (Base 4.4.2), 4,096 bytes: up to 1,024 namespace identifiers in ascending order, then zeroes.
///
/// Identify returns it for CNS 02h, 07h, 10h and 1Ah; it is also the Changed Namespace List log page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NamespaceList {
    /// Namespace identifiers.
    pub nsids: [U32; 1024],
}

assert_layout!(NamespaceList, 4096);

impl NamespaceList {
    /// Most identifiers in one list.
    pub const CAPACITY: usize = 1024;

    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }

    /// The first 1,024 of `nsids` (ascending) that are greater than `after`: what Identify asks for.
    #[must_use]
    pub fn after(after: u32, nsids: impl IntoIterator<Item = u32>) -> Self {
        let mut list = Self::new();
        for (slot, nsid) in list.nsids.iter_mut().zip(nsids.into_iter().filter(|&nsid| nsid > after)) {
            *slot = U32::new(nsid);
        }
        list
    }

    /// The Changed Namespace List log page of `nsids` (ascending): FFFFFFFFh alone when there are more than 1,024
    /// (Base 5.16.1.5).
    #[must_use]
    pub fn changed(nsids: impl ExactSizeIterator<Item = u32>) -> Self {
        if nsids.len() > Self::CAPACITY {
            let mut list = Self::new();
            list.nsids[0] = U32::new(u32::MAX);
            list
        } else {
            Self::after(0, nsids)
        }
    }

    /// The identifiers up to the first zero.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.nsids.iter().map(|nsid| nsid.get()).take_while(|&nsid| nsid != 0)
    }
}

impl Default for NamespaceList {
    fn default() -> Self {
        Self::new()
    }
}

/// Controller List (Base 4.4.1), 4,096 bytes: a count and up to 2,047 controller identifiers in ascending order.
///
/// Identify returns it for CNS 12h and 13h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ControllerList {
    /// Number of Identifiers.
    pub count: U16,
    /// Controller identifiers.
    pub ids: [U16; 2047],
}

assert_layout!(ControllerList, 4096, ids @ 2);

impl ControllerList {
    /// Most identifiers in one list.
    pub const CAPACITY: usize = 2047;

    /// The first 2,047 of `ids` (ascending) that are at least `from`: what Identify asks for.
    #[must_use]
    pub fn starting_at(from: u16, ids: impl IntoIterator<Item = u16>) -> Self {
        let mut list = Self::new_zeroed();
        let mut count = 0;
        for (slot, id) in list.ids.iter_mut().zip(ids.into_iter().filter(|&id| id >= from)) {
            *slot = U16::new(id);
            count += 1;
        }
        list.count = U16::new(count);
        list
    }

    /// The identifiers up to the count.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.ids.iter().take(self.count.get().into()).map(|id| id.get())
    }
}

/// Identify I/O Command Set data structure (Base 5.17.2.21, CNS 1Ch), 4,096 bytes: the combinations of command sets
/// that can be enabled together, each a bit vector by Command Set Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CommandSetVectors {
    /// Combinations; the first zero ends them.
    pub vectors: [U64; 512],
}

assert_layout!(CommandSetVectors, 4096);

impl CommandSetVectors {
    /// One combination: the NVM command set alone.
    #[must_use]
    pub fn nvm() -> Self {
        let mut data = Self::new_zeroed();
        data.vectors[0] = U64::new(1 << super::CommandSet::Nvm.value());
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a host miss namespaces, or see the same ones for ever.
    #[test]
    fn namespace_lists_continue_after_an_identifier() {
        let list = NamespaceList::after(2, [1, 2, 3, 0x0102_0304]);
        assert_eq!(list.as_bytes()[..12], [3, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0]);
        assert_eq!(list.iter().collect::<Vec<_>>(), [3, 0x0102_0304]);
        let full = NamespaceList::after(0, 1..=2000);
        assert_eq!((full.iter().count(), full.iter().last()), (1024, Some(1024)));
    }

    // Deleting this lets a host miss that more namespaces changed than the log can name.
    #[test]
    fn changed_list_overflows_to_all() {
        assert_eq!(NamespaceList::changed([4, 9].into_iter()).iter().collect::<Vec<_>>(), [4, 9]);
        let many: Vec<u32> = (1..=1025).collect();
        assert_eq!(NamespaceList::changed(many.into_iter()).iter().collect::<Vec<_>>(), [u32::MAX]);
    }

    // Deleting this lets the controller list's count and content disagree.
    #[test]
    fn controller_lists_start_at_an_identifier() {
        let list = ControllerList::starting_at(2, [1, 2, 5]);
        assert_eq!(list.as_bytes()[..8], [2, 0, 2, 0, 5, 0, 0, 0]);
        assert_eq!(list.iter().collect::<Vec<_>>(), [2, 5]);
        let lying = ControllerList { count: U16::new(0xffff), ..list };
        assert_eq!(lying.iter().count(), 2047);
        assert_eq!(CommandSetVectors::nvm().as_bytes()[..9], [1, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
