//! Fields and constructors of Admin commands.
//!
//! Owns the meaning of dwords 10 to 15 of Identify, Get Log Page, Get and Set Features, Abort, Asynchronous Event
//! Request and Keep Alive. Invariant: sizes and offsets are in bytes here; dwords and "0's based" stay inside.

use zerocopy::little_endian::U32;

use super::Command;
use crate::opcode::Admin;

const RETAIN_ASYNC_EVENT: u32 = 1 << 15;
const OFFSET_TYPE_INDEX: u32 = 1 << 23;
const SAVE: u32 = 1 << 31;

/// Identify (Base 5.17).
impl Command {
    /// Identify with a Controller or Namespace Structure (CNS) value.
    #[must_use]
    pub fn identify(cns: u8, nsid: u32) -> Self {
        let mut command = Self::new(Admin::Identify.value(), nsid);
        command.cdw10 = U32::new(cns.into());
        command
    }

    /// The same Identify or Get Log Page for a Command Set Identifier (CSI).
    #[must_use]
    pub fn with_command_set(mut self, csi: u8) -> Self {
        let field = if self.opcode == Admin::GetLogPage.value() { &mut self.cdw14 } else { &mut self.cdw11 };
        *field = U32::new((field.get() & 0x00ff_ffff) | u32::from(csi) << 24);
        self
    }

    /// Controller or Namespace Structure (CNS) of Identify.
    #[must_use]
    pub const fn cns(&self) -> u8 {
        (self.cdw10.get() & 0xff) as u8
    }

    /// Controller Identifier (CNTID) of Identify.
    #[must_use]
    pub const fn identify_controller_id(&self) -> u16 {
        (self.cdw10.get() >> 16) as u16
    }

    /// Command Set Identifier (CSI) of Identify.
    #[must_use]
    pub const fn identify_command_set(&self) -> u8 {
        (self.cdw11.get() >> 24) as u8
    }

    /// CNS Specific Identifier of Identify.
    #[must_use]
    pub const fn cns_specific(&self) -> u16 {
        (self.cdw11.get() & 0xffff) as u16
    }

    /// UUID Index of Identify, Get Log Page, Get Features and Set Features.
    #[must_use]
    pub const fn uuid_index(&self) -> u8 {
        (self.cdw14.get() & 0x7f) as u8
    }
}

/// Get Log Page (Base 5.16).
impl Command {
    /// Get `bytes` (a multiple of 4, at least 4) of a log page from byte `offset` (a multiple of 4).
    #[must_use]
    pub fn get_log_page(lid: u8, nsid: u32, offset: u64, bytes: u32) -> Self {
        debug_assert!(
            bytes >= 4 && bytes.is_multiple_of(4) && offset.is_multiple_of(4),
            "log pages are read in dwords"
        );
        let dwords = (bytes / 4).wrapping_sub(1);
        let mut command = Self::new(Admin::GetLogPage.value(), nsid);
        command.cdw10 = U32::new(u32::from(lid) | (dwords & 0xffff) << 16);
        command.cdw11 = U32::new(dwords >> 16);
        command.cdw12 = U32::new(offset as u32);
        command.cdw13 = U32::new((offset >> 32) as u32);
        command
    }

    /// The same Get Log Page with Retain Asynchronous Event: reading does not clear the event.
    #[must_use]
    pub const fn with_retain_async_event(mut self) -> Self {
        self.cdw10 = U32::new(self.cdw10.get() | RETAIN_ASYNC_EVENT);
        self
    }

    /// The same Get Log Page with a Log Specific Field (LSP, 7 bits).
    #[must_use]
    pub fn with_log_specific_field(mut self, lsp: u8) -> Self {
        self.cdw10 = U32::new((self.cdw10.get() & !0x7f00) | u32::from(lsp & 0x7f) << 8);
        self
    }

    /// Log Page Identifier (LID).
    #[must_use]
    pub const fn log_page_identifier(&self) -> u8 {
        (self.cdw10.get() & 0xff) as u8
    }

    /// Log Specific Field (LSP), 7 bits.
    #[must_use]
    pub const fn log_specific_field(&self) -> u8 {
        ((self.cdw10.get() >> 8) & 0x7f) as u8
    }

    /// Retain Asynchronous Event (RAE).
    #[must_use]
    pub const fn retain_async_event(&self) -> bool {
        self.cdw10.get() & RETAIN_ASYNC_EVENT != 0
    }

    /// Number of Dwords (NUMDU and NUMDL) as a count of bytes, 4 to 16 GiB.
    #[must_use]
    pub const fn log_page_bytes(&self) -> u64 {
        let dwords = (self.cdw10.get() >> 16) | (self.cdw11.get() & 0xffff) << 16;
        (dwords as u64 + 1) * 4
    }

    /// Log Page Offset (LPOU and LPOL): bytes, or an index when [`Command::log_offset_is_index`].
    #[must_use]
    pub const fn log_page_offset(&self) -> u64 {
        (self.cdw13.get() as u64) << 32 | self.cdw12.get() as u64
    }

    /// Offset Type (OT): the offset counts entries rather than bytes.
    #[must_use]
    pub const fn log_offset_is_index(&self) -> bool {
        self.cdw14.get() & OFFSET_TYPE_INDEX != 0
    }

    /// Log Specific Identifier (LSI).
    #[must_use]
    pub const fn log_specific_identifier(&self) -> u16 {
        (self.cdw11.get() >> 16) as u16
    }

    /// Command Set Identifier (CSI) of Get Log Page.
    #[must_use]
    pub const fn log_command_set(&self) -> u8 {
        (self.cdw14.get() >> 24) as u8
    }
}

/// Get Features and Set Features (Base 5.15 and 5.27).
impl Command {
    /// Get a feature's current value.
    #[must_use]
    pub fn get_features(fid: u8, nsid: u32) -> Self {
        let mut command = Self::new(Admin::GetFeatures.value(), nsid);
        command.cdw10 = U32::new(fid.into());
        command
    }

    /// Set a feature to the value of dword 11.
    #[must_use]
    pub fn set_features(fid: u8, nsid: u32, value: u32) -> Self {
        let mut command = Self::new(Admin::SetFeatures.value(), nsid);
        command.cdw10 = U32::new(fid.into());
        command.cdw11 = U32::new(value);
        command
    }

    /// The same Get Features with a Select (SEL) value: 0 current, 1 default, 2 saved, 3 supported capabilities.
    #[must_use]
    pub fn with_select(mut self, select: u8) -> Self {
        self.cdw10 = U32::new((self.cdw10.get() & !0x700) | u32::from(select & 0x7) << 8);
        self
    }

    /// Feature Identifier (FID).
    #[must_use]
    pub const fn feature_identifier(&self) -> u8 {
        (self.cdw10.get() & 0xff) as u8
    }

    /// Select (SEL) of Get Features.
    #[must_use]
    pub const fn feature_select(&self) -> u8 {
        ((self.cdw10.get() >> 8) & 0x7) as u8
    }

    /// Save (SV) of Set Features.
    #[must_use]
    pub const fn feature_save(&self) -> bool {
        self.cdw10.get() & SAVE != 0
    }

    /// The feature's value, dword 11.
    #[must_use]
    pub const fn feature_value(&self) -> u32 {
        self.cdw11.get()
    }
}

/// Abort (Base 5.1), Asynchronous Event Request (Base 5.2), Keep Alive (Base 5.18).
impl Command {
    /// Abort command `cid` of submission queue `sqid`.
    #[must_use]
    pub fn abort(sqid: u16, cid: u16) -> Self {
        let mut command = Self::new(Admin::Abort.value(), 0);
        command.cdw10 = U32::new(u32::from(sqid) | u32::from(cid) << 16);
        command
    }

    /// Submission Queue Identifier (SQID) of Abort.
    #[must_use]
    pub const fn abort_sqid(&self) -> u16 {
        (self.cdw10.get() & 0xffff) as u16
    }

    /// Command Identifier (CID) that Abort names.
    #[must_use]
    pub const fn abort_cid(&self) -> u16 {
        (self.cdw10.get() >> 16) as u16
    }

    /// Asynchronous Event Request.
    #[must_use]
    pub fn async_event_request() -> Self {
        Self::new(Admin::AsynchronousEventRequest.value(), 0)
    }

    /// Keep Alive.
    #[must_use]
    pub fn keep_alive() -> Self {
        Self::new(Admin::KeepAlive.value(), 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets Identify ask for, or answer with, another structure.
    #[test]
    fn identify_fields() {
        let command = Command::identify(0x06, 0).with_command_set(2);
        assert_eq!((command.cdw10.get(), command.cdw11.get()), (6, 0x0200_0000));
        assert_eq!((command.cns(), command.identify_command_set()), (6, 2));
        let command =
            Command { cdw10: U32::new(0x0007_0013), cdw11: U32::new(0x0300_0005), ..Command::default() };
        assert_eq!((command.cns(), command.identify_controller_id(), command.cns_specific()), (0x13, 7, 5));
    }

    // Deleting this lets a log be read at another offset or length.
    #[test]
    fn log_page_fields() {
        let command = Command::get_log_page(0x70, 0, 0x1_0000_0400, 0x8_0000)
            .with_retain_async_event()
            .with_log_specific_field(1)
            .with_command_set(0);
        assert_eq!(command.cdw10.get(), 0xffff_8170);
        assert_eq!(command.cdw11.get(), 0x1);
        assert_eq!(command.log_page_bytes(), 0x8_0000);
        assert_eq!(command.log_page_offset(), 0x1_0000_0400);
        assert_eq!((command.log_page_identifier(), command.log_specific_field()), (0x70, 1));
        assert!(command.retain_async_event() && !command.log_offset_is_index());
        let all = Command { cdw10: U32::new(0xffff_0000), cdw11: U32::new(0xffff), ..Command::default() };
        assert_eq!(all.log_page_bytes(), 1 << 34);
    }

    // Deleting this lets a feature be set, selected or a command aborted that was not meant.
    #[test]
    fn feature_and_abort_fields() {
        let command = Command::set_features(7, 0, 0x0003_0003);
        assert_eq!((command.feature_identifier(), command.feature_value()), (7, 0x0003_0003));
        assert!(!command.feature_save());
        assert_eq!(Command::get_features(0x0b, 0).with_select(3).cdw10.get(), 0x30b);
        let command = Command::abort(2, 0x1234);
        assert_eq!((command.abort_sqid(), command.abort_cid()), (2, 0x1234));
        assert_eq!(command.cdw10.get(), 0x1234_0002);
    }
}
