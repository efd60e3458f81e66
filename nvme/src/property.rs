//! Controller properties: the registers that a host reads and writes, over PCIe by address and over Fabrics by
//! Property Get and Property Set.
//!
//! Owns the offsets, widths and bit fields. Invariant: every bit pattern is a value; which ones a controller accepts
//! is its own business. The target's controllers keep these; the host side reads and writes them.

use crate::wire::{bit_fields, wire_enum};

wire_enum! {
    /// Offsets of the properties (Base 3.1.3, "Property Definition").
    pub enum Property: u32 {
        Cap = 0x00, "Controller Capabilities";
        Vs = 0x08, "Version";
        Intms = 0x0c, "Interrupt Mask Set";
        Intmc = 0x10, "Interrupt Mask Clear";
        Cc = 0x14, "Controller Configuration";
        Csts = 0x1c, "Controller Status";
        Nssr = 0x20, "NVM Subsystem Reset";
        Aqa = 0x24, "Admin Queue Attributes";
        Asq = 0x28, "Admin Submission Queue Base Address";
        Acq = 0x30, "Admin Completion Queue Base Address";
        Cmbloc = 0x38, "Controller Memory Buffer Location";
        Cmbsz = 0x3c, "Controller Memory Buffer Size";
        Bpinfo = 0x40, "Boot Partition Information";
        Bprsel = 0x44, "Boot Partition Read Select";
        Bpmbl = 0x48, "Boot Partition Memory Buffer Location";
        Cmbmsc = 0x50, "Controller Memory Buffer Memory Space Control";
        Cmbsts = 0x58, "Controller Memory Buffer Status";
        Cmbebs = 0x5c, "Controller Memory Buffer Elasticity Buffer Size";
        Cmbswtp = 0x60, "Controller Memory Buffer Sustained Write Throughput";
        Nssd = 0x64, "NVM Subsystem Shutdown";
        Crto = 0x68, "Controller Ready Timeouts";
        Pmrcap = 0xe00, "Persistent Memory Region Capabilities";
        Pmrctl = 0xe04, "Persistent Memory Region Control";
        Pmrsts = 0xe08, "Persistent Memory Region Status";
        Pmrebs = 0xe0c, "Persistent Memory Region Elasticity Buffer Size";
        Pmrswtp = 0xe10, "Persistent Memory Region Sustained Write Throughput";
        Pmrmscl = 0xe14, "Persistent Memory Region Controller Memory Space Control Lower";
        Pmrmscu = 0xe18, "Persistent Memory Region Controller Memory Space Control Upper";
    }
}

impl Property {
    /// Size in bytes: 4 or 8.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Cap | Self::Asq | Self::Acq | Self::Bpmbl | Self::Cmbmsc => 8,
            _ => 4,
        }
    }

    /// Whether the property exists over Fabrics (Base 3.1.3: CAP, VS, CC, CSTS, NSSR, NSSD, CRTO).
    #[must_use]
    pub const fn is_fabrics(self) -> bool {
        matches!(self, Self::Cap | Self::Vs | Self::Cc | Self::Csts | Self::Nssr | Self::Nssd | Self::Crto)
    }
}

bit_fields! {
    /// CAP: Controller Capabilities (Base 3.1.3.1), 8 bytes at offset 0h.
    pub struct Capabilities: u64 {
        flags {
            /// Contiguous Queues Required (CQR); 1 over Fabrics.
            contiguous_queues_required, with_contiguous_queues_required = 16;
            /// NVM Subsystem Reset Supported (NSSRS).
            subsystem_reset_supported, with_subsystem_reset_supported = 36;
            /// CSS bit 0: NVM command set, or a discovery controller.
            nvm_command_set, with_nvm_command_set = 37;
            /// CSS bit 6: one or more I/O command sets, selected by the I/O Command Set profile.
            io_command_sets, with_io_command_sets = 43;
            /// CSS bit 7: no I/O command set.
            no_io_command_set, with_no_io_command_set = 44;
            /// Boot Partition Support (BPS).
            boot_partitions, with_boot_partitions = 45;
            /// Persistent Memory Region Supported (PMRS).
            persistent_memory_region, with_persistent_memory_region = 56;
            /// Controller Memory Buffer Supported (CMBS).
            controller_memory_buffer, with_controller_memory_buffer = 57;
            /// NVM Subsystem Shutdown Supported (NSSS).
            subsystem_shutdown_supported, with_subsystem_shutdown_supported = 58;
            /// CRMS: Controller Ready With Media Support (CRWMS).
            ready_with_media, with_ready_with_media = 59;
            /// CRMS: Controller Ready Independent of Media Support (CRIMS).
            ready_independent_of_media, with_ready_independent_of_media = 60;
        }
        fields {
            /// Maximum Queue Entries Supported (MQES), 0's based: one less than the entries.
            max_queue_entries_minus_one, with_max_queue_entries_minus_one: u16 = 0, 16;
            /// Arbitration Mechanism Supported (AMS): bit 0 weighted round robin, bit 1 vendor specific.
            arbitration_mechanisms, with_arbitration_mechanisms: u8 = 17, 2;
            /// Timeout (TO) to become ready, in units of 500 ms.
            timeout_500ms, with_timeout_500ms: u8 = 24, 8;
            /// Doorbell Stride (DSTRD); 0 over Fabrics.
            doorbell_stride, with_doorbell_stride: u8 = 32, 4;
            /// Command Sets Supported (CSS), all eight bits.
            command_sets, with_command_sets: u8 = 37, 8;
            /// Controller Power Scope (CPS).
            power_scope, with_power_scope: u8 = 46, 2;
            /// Memory Page Size Minimum (MPSMIN): 2^(12 + this) bytes.
            memory_page_size_minimum, with_memory_page_size_minimum: u8 = 48, 4;
            /// Memory Page Size Maximum (MPSMAX): 2^(12 + this) bytes.
            memory_page_size_maximum, with_memory_page_size_maximum: u8 = 52, 4;
        }
    }
}

impl Capabilities {
    /// Most entries in a queue, 2 to 65,536.
    #[must_use]
    pub const fn max_queue_entries(self) -> u32 {
        self.max_queue_entries_minus_one() as u32 + 1
    }
}

bit_fields! {
    /// VS: Version (Base 3.1.3.2), 4 bytes at offset 8h; also Identify Controller's VER.
    pub struct Version: u32 {
        flags {}
        fields {
            /// Major version.
            major, with_major: u16 = 16, 16;
            /// Minor version.
            minor, with_minor: u8 = 8, 8;
            /// Tertiary version.
            tertiary, with_tertiary: u8 = 0, 8;
        }
    }
}

impl Version {
    /// NVMe 1.3.0.
    pub const V1_3: Self = Self::from_bits(0x0001_0300);
    /// NVMe 1.4.0.
    pub const V1_4: Self = Self::from_bits(0x0001_0400);
    /// NVMe 2.0.0.
    pub const V2_0: Self = Self::from_bits(0x0002_0000);
    /// NVMe 2.1.0.
    pub const V2_1: Self = Self::from_bits(0x0002_0100);
}

/// `major.minor.tertiary`.
impl core::fmt::Display for Version {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}.{}", self.major(), self.minor(), self.tertiary())
    }
}

bit_fields! {
    /// CC: Controller Configuration (Base 3.1.3.5), 4 bytes at offset 14h.
    pub struct Configuration: u32 {
        flags {
            /// Enable (EN): 0 to 1 enables the controller, 1 to 0 resets it.
            enable, with_enable = 0;
            /// Controller Ready Independent of Media Enable (CRIME).
            ready_independent_of_media, with_ready_independent_of_media = 24;
        }
        fields {
            /// I/O Command Set Selected (CSS): 0 NVM, 6 all supported, 7 Admin only.
            command_set, with_command_set: u8 = 4, 3;
            /// Memory Page Size (MPS): 2^(12 + this) bytes.
            memory_page_size, with_memory_page_size: u8 = 7, 4;
            /// Arbitration Mechanism Selected (AMS): 0 round robin.
            arbitration, with_arbitration: u8 = 11, 3;
            /// Shutdown Notification (SHN) as its number; see [`Configuration::shutdown`].
            shutdown_value, with_shutdown_value: u8 = 14, 2;
            /// I/O Submission Queue Entry Size (IOSQES): 2^this bytes, 6 for NVM.
            io_submission_entry_size, with_io_submission_entry_size: u8 = 16, 4;
            /// I/O Completion Queue Entry Size (IOCQES): 2^this bytes, 4 for NVM.
            io_completion_entry_size, with_io_completion_entry_size: u8 = 20, 4;
        }
    }
}

wire_enum! {
    /// I/O Command Set Selected values (CC.CSS, Base 3.1.3.5).
    pub enum CommandSetSelected: u8 {
        Nvm = 0, "NVM Command Set";
        All = 6, "All Supported I/O Command Sets";
        AdminOnly = 7, "Admin Command Set only";
    }
}

wire_enum! {
    /// Shutdown Notification values (CC.SHN, Base 3.1.3.5).
    pub enum ShutdownNotification: u8 {
        None = 0, "No notification";
        Normal = 1, "Normal shutdown notification";
        Abrupt = 2, "Abrupt shutdown notification";
    }
}

impl Configuration {
    /// What a host over Fabrics writes to enable a controller: NVM command set, 64 and 16-byte entries, 4 KiB pages.
    pub const ENABLE_NVM: Self =
        Self(0).with_enable(true).with_io_submission_entry_size(6).with_io_completion_entry_size(4);

    /// Shutdown Notification; `None` for the reserved value 3.
    #[must_use]
    pub const fn shutdown(self) -> Option<ShutdownNotification> {
        ShutdownNotification::from_value(self.shutdown_value())
    }

    /// The same value with a Shutdown Notification.
    #[must_use]
    pub const fn with_shutdown(self, shutdown: ShutdownNotification) -> Self {
        self.with_shutdown_value(shutdown.value())
    }
}

bit_fields! {
    /// CSTS: Controller Status (Base 3.1.3.6), 4 bytes at offset 1Ch.
    pub struct ControllerStatus: u32 {
        flags {
            /// Ready (RDY).
            ready, with_ready = 0;
            /// Controller Fatal Status (CFS).
            fatal, with_fatal = 1;
            /// NVM Subsystem Reset Occurred (NSSRO).
            subsystem_reset_occurred, with_subsystem_reset_occurred = 4;
            /// Processing Paused (PP).
            processing_paused, with_processing_paused = 5;
            /// Shutdown Type (ST): the shutdown reported in SHST is of the whole NVM subsystem.
            subsystem_shutdown, with_subsystem_shutdown = 6;
        }
        fields {
            /// Shutdown Status (SHST) as its number; see [`ControllerStatus::shutdown`].
            shutdown_value, with_shutdown_value: u8 = 2, 2;
        }
    }
}

wire_enum! {
    /// Shutdown Status values (CSTS.SHST, Base 3.1.3.6).
    pub enum ShutdownStatus: u8 {
        Normal = 0, "Normal operation";
        Occurring = 1, "Shutdown processing occurring";
        Complete = 2, "Shutdown processing complete";
    }
}

impl ControllerStatus {
    /// Shutdown Status; `None` for the reserved value 3.
    #[must_use]
    pub const fn shutdown(self) -> Option<ShutdownStatus> {
        ShutdownStatus::from_value(self.shutdown_value())
    }

    /// The same value with a Shutdown Status.
    #[must_use]
    pub const fn with_shutdown(self, shutdown: ShutdownStatus) -> Self {
        self.with_shutdown_value(shutdown.value())
    }
}

/// NSSR: the value ("NVMe") that resets the NVM subsystem when written (Base 3.1.3.7).
pub const SUBSYSTEM_RESET: u32 = 0x4e56_4d65;

bit_fields! {
    /// AQA: Admin Queue Attributes (Base 3.1.3.8), 4 bytes at offset 24h; not used over Fabrics.
    pub struct AdminQueueAttributes: u32 {
        flags {}
        fields {
            /// Admin Submission Queue Size (ASQS), 0's based.
            submission_entries_minus_one, with_submission_entries_minus_one: u16 = 0, 12;
            /// Admin Completion Queue Size (ACQS), 0's based.
            completion_entries_minus_one, with_completion_entries_minus_one: u16 = 16, 12;
        }
    }
}

bit_fields! {
    /// CMBLOC: Controller Memory Buffer Location (Base 3.1.3.11), 4 bytes at offset 38h; not used over Fabrics.
    pub struct MemoryBufferLocation: u32 {
        flags {
            /// CMB Queue Mixed Memory Support (CQMMS).
            queue_mixed_memory, with_queue_mixed_memory = 3;
            /// CMB Queue Physically Discontiguous Support (CQPDS).
            queue_discontiguous, with_queue_discontiguous = 4;
            /// CMB Data Pointer Mixed Locations Support (CDPMLS).
            data_pointer_mixed_locations, with_data_pointer_mixed_locations = 5;
            /// CMB Data Pointer and Command Independent Locations Support (CDPCILS).
            data_pointer_independent, with_data_pointer_independent = 6;
            /// CMB Data Metadata Mixed Memory Support (CDMMMS).
            metadata_mixed_memory, with_metadata_mixed_memory = 7;
            /// CMB Queue Dword Alignment (CQDA).
            queue_dword_alignment, with_queue_dword_alignment = 8;
        }
        fields {
            /// Base Indicator Register (BIR).
            base_indicator, with_base_indicator: u8 = 0, 3;
            /// Offset (OFST) in units of CMBSZ.SZU.
            offset, with_offset: u32 = 12, 20;
        }
    }
}

bit_fields! {
    /// CRTO: Controller Ready Timeouts (Base 3.1.3.21), 4 bytes at offset 68h.
    pub struct ReadyTimeouts: u32 {
        flags {}
        fields {
            /// Controller Ready With Media Timeout (CRWMT), in units of 500 ms.
            with_media_500ms, with_with_media_500ms: u16 = 0, 16;
            /// Controller Ready Independent of Media Timeout (CRIMT), in units of 500 ms.
            independent_of_media_500ms, with_independent_of_media_500ms: u16 = 16, 16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets capabilities be advertised in the wrong bits, and a host refuse or overrun the queues.
    #[test]
    fn capabilities_bits() {
        let cap = Capabilities::default()
            .with_max_queue_entries_minus_one(127)
            .with_contiguous_queues_required(true)
            .with_timeout_500ms(0x1e)
            .with_nvm_command_set(true);
        assert_eq!(cap.bits(), 0x0000_0020_1e01_007f);
        assert_eq!(cap.max_queue_entries(), 128);
        assert_eq!(cap.command_sets(), 1);
        let all = Capabilities::from_bits(u64::MAX);
        assert_eq!(all.with_memory_page_size_maximum(0).bits(), !(0xf << 52));
        assert!(all.ready_independent_of_media() && !all.with_ready_with_media(false).ready_with_media());
    }

    // Deleting this lets enable, shutdown and ready be taken for one another.
    #[test]
    fn configuration_and_status_bits() {
        assert_eq!(Configuration::ENABLE_NVM.bits(), 0x0046_0001);
        let configuration = Configuration::from_bits(0x0046_4001);
        assert!(configuration.enable());
        assert_eq!(configuration.shutdown(), Some(ShutdownNotification::Normal));
        assert_eq!(
            (configuration.io_submission_entry_size(), configuration.io_completion_entry_size()),
            (6, 4)
        );
        assert_eq!(Configuration::from_bits(0xc000).shutdown(), None);
        let status = ControllerStatus::default().with_ready(true).with_shutdown(ShutdownStatus::Complete);
        assert_eq!(status.bits(), 0x9);
        assert_eq!(status.shutdown(), Some(ShutdownStatus::Complete));
    }

    // Deleting this lets a property be read at a wrong offset or width.
    #[test]
    fn offsets_and_widths() {
        assert_eq!(Property::from_value(0x1c), Some(Property::Csts));
        assert_eq!(Property::from_value(0x18), None);
        assert_eq!((Property::Cap.bytes(), Property::Vs.bytes(), Property::Acq.bytes()), (8, 4, 8));
        assert!(Property::Cc.is_fabrics() && !Property::Aqa.is_fabrics());
        assert_eq!(Version::V2_0.to_string(), "2.0.0");
        assert_eq!(Version::from_bits(0x0001_0401).to_string(), "1.4.1");
    }
}
