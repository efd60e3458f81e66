//! What a controller supports, told by log pages: commands (LID 05h), log pages (LID 00h) and features (LID 12h).
//!
//! Owns the three layouts and their entries. Invariant: an entry of zero means "not supported".

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{assert_layout, bit_fields};

bit_fields! {
    /// Commands Supported and Effects data structure (Base 5.16.1.6).
    pub struct CommandEffects: u32 {
        flags {
            /// Command Supported (CSUPP).
            supported, with_supported = 0;
            /// Logical Block Content Change (LBCC).
            content_change, with_content_change = 1;
            /// Namespace Capability Change (NCC).
            namespace_capability_change, with_namespace_capability_change = 2;
            /// Namespace Inventory Change (NIC).
            namespace_inventory_change, with_namespace_inventory_change = 3;
            /// Controller Capability Change (CCC).
            controller_capability_change, with_controller_capability_change = 4;
            /// UUID Selection Supported.
            uuid_selection, with_uuid_selection = 19;
        }
        fields {
            /// Command Submission and Execution Relaxations (CSER).
            relaxations, with_relaxations: u8 = 14, 2;
            /// Command Submission and Execution (CSE): 0 none, 1 one command a namespace, 2 one command in all.
            execution, with_execution: u8 = 16, 3;
            /// Command Scope (CSP): bit 0 namespace, 1 controller, 2 NVM set, 3 endurance group, 4 domain,
            /// 5 NVM subsystem.
            scope, with_scope: u16 = 20, 12;
        }
    }
}

impl CommandEffects {
    /// Supported, without effects.
    pub const SUPPORTED: Self = Self::from_bits(1);
    /// Supported, and changes logical block content.
    pub const SUPPORTED_CONTENT_CHANGE: Self = Self::from_bits(0b11);
}

/// Commands Supported and Effects log page (Base 5.16.1.6), 4,096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CommandEffectsLog {
    /// Admin commands by opcode (ACS).
    pub admin: [U32; 256],
    /// I/O commands by opcode (IOCS).
    pub io: [U32; 256],
    /// Reserved.
    pub reserved2048: [u8; 2048],
}

assert_layout!(CommandEffectsLog, 4096, io @ 1024, reserved2048 @ 2048);

impl CommandEffectsLog {
    /// Nothing supported.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }

    /// Sets the effects of an Admin command.
    pub const fn set_admin(&mut self, opcode: u8, effects: CommandEffects) {
        self.admin[opcode as usize] = U32::new(effects.bits());
    }

    /// Sets the effects of an I/O command.
    pub const fn set_io(&mut self, opcode: u8, effects: CommandEffects) {
        self.io[opcode as usize] = U32::new(effects.bits());
    }
}

impl Default for CommandEffectsLog {
    fn default() -> Self {
        Self::new()
    }
}

bit_fields! {
    /// LID Supported and Effects data structure (Base 5.16.1.1).
    pub struct LogPageSupport: u32 {
        flags {
            /// LID Supported (LSUPP).
            supported, with_supported = 0;
            /// Index Offset Supported (IOS): Get Log Page's offset may count entries.
            index_offset, with_index_offset = 1;
        }
        fields {
            /// LID Specific Parameter.
            specific, with_specific: u16 = 16, 16;
        }
    }
}

/// Supported Log Pages log page (Base 5.16.1.1), 1,024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SupportedLogPages {
    /// Log pages by LID.
    pub pages: [U32; 256],
}

assert_layout!(SupportedLogPages, 1024);

impl SupportedLogPages {
    /// The log pages that are supported.
    #[must_use]
    pub fn new(pages: &[super::LogPage]) -> Self {
        let mut log = Self::new_zeroed();
        for page in pages {
            log.pages[usize::from(page.value())] = U32::new(LogPageSupport::from_bits(1).bits());
        }
        log
    }

    /// Support of a log page.
    #[must_use]
    pub const fn support(&self, lid: u8) -> LogPageSupport {
        LogPageSupport::from_bits(self.pages[lid as usize].get())
    }
}

bit_fields! {
    /// FID Supported and Effects data structure (Base 5.16.1.18).
    pub struct FeatureEffects: u32 {
        flags {
            /// FID Supported (FSUPP).
            supported, with_supported = 0;
            /// User Data Content Change (UDCC).
            content_change, with_content_change = 1;
            /// Namespace Capability Change (NCC).
            namespace_capability_change, with_namespace_capability_change = 2;
            /// Namespace Inventory Change (NIC).
            namespace_inventory_change, with_namespace_inventory_change = 3;
            /// Controller Capability Change (CCC).
            controller_capability_change, with_controller_capability_change = 4;
            /// UUID Selection Supported.
            uuid_selection, with_uuid_selection = 19;
        }
        fields {
            /// FID Scope (FSP): bit 0 namespace, 1 controller, 2 NVM set, 3 endurance group, 4 domain,
            /// 5 NVM subsystem.
            scope, with_scope: u16 = 20, 12;
        }
    }
}

/// Feature Identifiers Supported and Effects log page (Base 5.16.1.18), 1,024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FeatureEffectsLog {
    /// Features by FID.
    pub features: [U32; 256],
}

assert_layout!(FeatureEffectsLog, 1024);

impl FeatureEffectsLog {
    /// Nothing supported.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }

    /// Sets the effects of a feature.
    pub const fn set(&mut self, fid: u8, effects: FeatureEffects) {
        self.features[fid as usize] = U32::new(effects.bits());
    }
}

impl Default for FeatureEffectsLog {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_page::LogPage;
    use crate::opcode::{Admin, Nvm};

    // Deleting this lets a host believe that a command does not exist, or is harmless when it changes data.
    #[test]
    fn bytes() {
        let mut log = CommandEffectsLog::new();
        log.set_admin(Admin::Identify.value(), CommandEffects::SUPPORTED);
        log.set_io(Nvm::Write.value(), CommandEffects::SUPPORTED_CONTENT_CHANGE.with_scope(1));
        let bytes = log.as_bytes();
        assert_eq!(bytes[24..28], [1, 0, 0, 0]);
        assert_eq!(bytes[1028..1032], [3, 0, 0x10, 0]);
        let pages = SupportedLogPages::new(&[LogPage::Error, LogPage::Discovery]);
        assert_eq!(pages.as_bytes()[4], 1);
        assert!(pages.support(0x70).supported() && !pages.support(0x02).supported());
        let mut features = FeatureEffectsLog::default();
        features.set(0x0f, FeatureEffects::default().with_supported(true).with_scope(2));
        assert_eq!(features.as_bytes()[60..64], [1, 0, 0x20, 0]);
    }
}
