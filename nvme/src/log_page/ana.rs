//! The Asymmetric Namespace Access log page (LID 0Ch): which paths to a namespace are good.
//!
//! Owns the header, the group descriptor and the states. Invariant: descriptors follow the header without gaps, each
//! with as many namespace identifiers after it as it says. Multipath hosts choose their path by it.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::status::Status;
use crate::wire::{assert_layout, wire_enum};

wire_enum! {
    /// Asymmetric Namespace Access State (Base 8.1.3 and 5.16.1.13).
    pub enum AnaState: u8 {
        Optimized = 0x1, "ANA Optimized state";
        NonOptimized = 0x2, "ANA Non-Optimized state";
        Inaccessible = 0x3, "ANA Inaccessible state";
        PersistentLoss = 0x4, "ANA Persistent Loss state";
        Change = 0xf, "ANA Change state";
    }
}

/// The state of a path about which nothing else was said.
#[allow(clippy::derivable_impls, reason = "the enum is made by a macro that derives no default")]
impl Default for AnaState {
    fn default() -> Self {
        Self::Optimized
    }
}

impl AnaState {
    /// Whether a controller processes I/O in this state.
    #[must_use]
    pub const fn is_accessible(self) -> bool {
        matches!(self, Self::Optimized | Self::NonOptimized)
    }

    /// Status of an I/O command in this state: success when it is to be processed (Base 8.1.3).
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Optimized | Self::NonOptimized => Status::SUCCESS,
            Self::Inaccessible => Status::ANA_INACCESSIBLE,
            Self::PersistentLoss => Status::ANA_PERSISTENT_LOSS,
            Self::Change => Status::ANA_TRANSITION,
        }
    }
}

/// Header of the Asymmetric Namespace Access log page (Base 5.16.1.13), 16 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct AnaHeader {
    /// Change Count of the log page.
    pub change_count: U64,
    /// Number of ANA Group Descriptors.
    pub groups: U16,
    /// Reserved.
    pub reserved10: [u8; 6],
}

assert_layout!(AnaHeader, 16, groups @ 8);

impl AnaHeader {
    /// A header before `groups` descriptors.
    #[must_use]
    pub fn new(change_count: u64, groups: u16) -> Self {
        Self { change_count: U64::new(change_count), groups: U16::new(groups), ..Self::default() }
    }
}

/// ANA Group Descriptor without its namespace identifiers (Base 5.16.1.13), 32 bytes; `namespaces` identifiers of
/// 4 bytes follow, in ascending order.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct AnaGroupDescriptor {
    /// ANA Group ID, not zero.
    pub group: U32,
    /// Number of NSID Values; 0 when the host asked for groups only (LSP bit 0).
    pub namespaces: U32,
    /// Change Count of the group.
    pub change_count: U64,
    /// Asymmetric Namespace Access State in bits 3:0.
    pub state: u8,
    /// Reserved.
    pub reserved17: [u8; 15],
}

assert_layout!(AnaGroupDescriptor, 32, namespaces @ 4, change_count @ 8, state @ 16);

impl AnaGroupDescriptor {
    /// A descriptor before `namespaces` identifiers.
    #[must_use]
    pub fn new(group: u32, state: AnaState, change_count: u64, namespaces: u32) -> Self {
        Self {
            group: U32::new(group),
            namespaces: U32::new(namespaces),
            change_count: U64::new(change_count),
            state: state.value(),
            ..Self::default()
        }
    }

    /// State of the group; `None` when reserved.
    #[must_use]
    pub const fn ana_state(&self) -> Option<AnaState> {
        AnaState::from_value(self.state & 0xf)
    }
}

/// Log Specific Field of Get Log Page for this page: Return Groups Only (RGO).
pub const RETURN_GROUPS_ONLY: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets multipath hosts misread the states of paths.
    #[test]
    fn bytes() {
        assert_eq!(AnaHeader::new(7, 2).as_bytes(), [7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        let group = AnaGroupDescriptor::new(1, AnaState::Inaccessible, 9, 3);
        assert_eq!(group.as_bytes()[..17], [1, 0, 0, 0, 3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(group.ana_state(), Some(AnaState::Inaccessible));
    }

    // Deleting this lets I/O be refused with a status that makes hosts give up instead of using another path.
    #[test]
    fn states_have_their_status() {
        assert!(AnaState::ALL.iter().all(|state| state.status().is_success() == state.is_accessible()));
        assert!(AnaState::Change.status().is(Status::ANA_TRANSITION));
        assert!(!AnaState::Inaccessible.status().is_do_not_retry());
    }
}
