//! Bits of the capability fields of Identify data structures.
//!
//! Owns the numbers, one module a field, named as the field. Invariant: each constant is a value of its field's
//! width, to be combined with `|`.

/// Controller Multi-Path I/O and Namespace Sharing Capabilities (CMIC, Base 5.17.2.1).
pub mod cmic {
    /// The NVM subsystem may have more than one port.
    pub const MULTIPLE_PORTS: u8 = 1 << 0;
    /// The NVM subsystem may have more than one controller.
    pub const MULTIPLE_CONTROLLERS: u8 = 1 << 1;
    /// The controller is of an SR-IOV Virtual Function.
    pub const SRIOV: u8 = 1 << 2;
    /// Asymmetric Namespace Access Reporting is supported.
    pub const ANA_REPORTING: u8 = 1 << 3;
}

/// Optional Asynchronous Events Supported (OAES, Base 5.17.2.1); the same bits enable them in the Asynchronous Event
/// Configuration feature.
pub mod oaes {
    /// Namespace Attribute Notices.
    pub const NAMESPACE_ATTRIBUTE: u32 = 1 << 8;
    /// Firmware Activation Notices.
    pub const FIRMWARE_ACTIVATION: u32 = 1 << 9;
    /// Asymmetric Namespace Access Change Notices.
    pub const ANA_CHANGE: u32 = 1 << 11;
    /// Predictable Latency Event Aggregate Log Change Notices.
    pub const PREDICTABLE_LATENCY: u32 = 1 << 12;
    /// LBA Status Information Notices.
    pub const LBA_STATUS: u32 = 1 << 13;
    /// Endurance Group Event Aggregate Log Page Change Notices.
    pub const ENDURANCE_GROUP: u32 = 1 << 14;
    /// Normal NVM Subsystem Shutdown.
    pub const SUBSYSTEM_SHUTDOWN: u32 = 1 << 15;
    /// Discovery Log Page Change Notifications.
    pub const DISCOVERY_CHANGE: u32 = 1 << 31;
}

/// Controller Attributes (CTRATT, Base 5.17.2.1).
pub mod ctratt {
    /// 128-bit Host Identifiers; mandatory over Fabrics.
    pub const HOST_IDENTIFIER_128: u32 = 1 << 0;
    /// Endurance Groups.
    pub const ENDURANCE_GROUPS: u32 = 1 << 4;
    /// Traffic Based Keep Alive.
    pub const TRAFFIC_BASED_KEEP_ALIVE: u32 = 1 << 6;
    /// Namespace Granularity.
    pub const NAMESPACE_GRANULARITY: u32 = 1 << 7;
    /// UUID List.
    pub const UUID_LIST: u32 = 1 << 9;
    /// Multi-Domain Subsystem.
    pub const MULTI_DOMAIN: u32 = 1 << 10;
    /// Extended LBA Formats.
    pub const EXTENDED_LBA_FORMATS: u32 = 1 << 15;
}

/// Optional Admin Command Support (OACS, Base 5.17.2.1).
pub mod oacs {
    /// Security Send and Security Receive.
    pub const SECURITY: u16 = 1 << 0;
    /// Format NVM.
    pub const FORMAT: u16 = 1 << 1;
    /// Firmware Commit and Firmware Image Download.
    pub const FIRMWARE: u16 = 1 << 2;
    /// Namespace Management and Attachment.
    pub const NAMESPACE_MANAGEMENT: u16 = 1 << 3;
    /// Device Self-test.
    pub const SELF_TEST: u16 = 1 << 4;
    /// Directives.
    pub const DIRECTIVES: u16 = 1 << 5;
    /// NVMe-MI Send and Receive.
    pub const NVME_MI: u16 = 1 << 6;
    /// Virtualization Management.
    pub const VIRTUALIZATION: u16 = 1 << 7;
    /// Doorbell Buffer Config.
    pub const DOORBELL_BUFFER: u16 = 1 << 8;
    /// Get LBA Status.
    pub const LBA_STATUS: u16 = 1 << 9;
    /// Command and Feature Lockdown.
    pub const LOCKDOWN: u16 = 1 << 10;
}

/// Firmware Updates (FRMW, Base 5.17.2.1).
pub mod frmw {
    /// Slot 1 is read only.
    pub const SLOT_1_READ_ONLY: u8 = 1 << 0;
    /// Shift of the number of slots, 1 to 7.
    pub const SLOTS_SHIFT: u32 = 1;
    /// Activation without reset.
    pub const ACTIVATION_WITHOUT_RESET: u8 = 1 << 4;
}

/// Log Page Attributes (LPA, Base 5.17.2.1).
pub mod lpa {
    /// SMART / Health Information per namespace.
    pub const SMART_PER_NAMESPACE: u8 = 1 << 0;
    /// Commands Supported and Effects.
    pub const COMMAND_EFFECTS: u8 = 1 << 1;
    /// Extended data for Get Log Page: 32-bit NUMD and offsets.
    pub const EXTENDED_DATA: u8 = 1 << 2;
    /// Telemetry.
    pub const TELEMETRY: u8 = 1 << 3;
    /// Persistent Event log.
    pub const PERSISTENT_EVENT: u8 = 1 << 4;
    /// Supported Log Pages, the scopes in the effects log, and the feature and NVMe-MI effects logs.
    pub const SUPPORTED_LOG_PAGES: u8 = 1 << 5;
}

/// Optional NVM Command Support (ONCS, Base 5.17.2.1).
pub mod oncs {
    /// Compare.
    pub const COMPARE: u16 = 1 << 0;
    /// Write Uncorrectable.
    pub const WRITE_UNCORRECTABLE: u16 = 1 << 1;
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: u16 = 1 << 2;
    /// Write Zeroes.
    pub const WRITE_ZEROES: u16 = 1 << 3;
    /// Save and Select in Set and Get Features.
    pub const SAVE_AND_SELECT: u16 = 1 << 4;
    /// Reservations.
    pub const RESERVATIONS: u16 = 1 << 5;
    /// Timestamp.
    pub const TIMESTAMP: u16 = 1 << 6;
    /// Verify.
    pub const VERIFY: u16 = 1 << 7;
    /// Copy.
    pub const COPY: u16 = 1 << 8;
}

/// Fused Operation Support (FUSES, Base 5.17.2.1).
pub mod fuses {
    /// Compare and Write.
    pub const COMPARE_AND_WRITE: u16 = 1 << 0;
}

/// Volatile Write Cache (VWC, Base 5.17.2.1).
pub mod vwc {
    /// There is one.
    pub const PRESENT: u8 = 1 << 0;
    /// Flush does not support NSID FFFFFFFFh.
    pub const FLUSH_ALL_NOT_SUPPORTED: u8 = 0b10 << 1;
    /// Flush supports NSID FFFFFFFFh.
    pub const FLUSH_ALL_SUPPORTED: u8 = 0b11 << 1;
}

/// Asymmetric Namespace Access Capabilities (ANACAP, Base 5.17.2.1).
pub mod anacap {
    /// Can report ANA Optimized.
    pub const OPTIMIZED: u8 = 1 << 0;
    /// Can report ANA Non-Optimized.
    pub const NON_OPTIMIZED: u8 = 1 << 1;
    /// Can report ANA Inaccessible.
    pub const INACCESSIBLE: u8 = 1 << 2;
    /// Can report ANA Persistent Loss.
    pub const PERSISTENT_LOSS: u8 = 1 << 3;
    /// Can report ANA Change.
    pub const CHANGE: u8 = 1 << 4;
    /// A namespace's ANAGRPID does not change while it is attached.
    pub const FIXED_GROUP: u8 = 1 << 6;
    /// Namespace Management accepts a non-zero ANAGRPID.
    pub const GROUP_IN_MANAGEMENT: u8 = 1 << 7;
}

/// SGL Support (SGLS, Base 5.17.2.1).
pub mod sgls {
    /// SGLs are supported, without alignment or granularity requirements.
    pub const SUPPORTED: u32 = 0b01;
    /// SGLs are supported, data blocks aligned to dwords.
    pub const SUPPORTED_DWORD: u32 = 0b10;
    /// Keyed SGL Data Block descriptor.
    pub const KEYED_DATA_BLOCK: u32 = 1 << 2;
    /// Bit Bucket descriptor.
    pub const BIT_BUCKET: u32 = 1 << 16;
    /// Byte-aligned contiguous metadata buffer.
    pub const METADATA_BYTE_ALIGNED: u32 = 1 << 17;
    /// SGLs longer than the data to transfer.
    pub const LONGER_THAN_DATA: u32 = 1 << 18;
    /// Metadata pointer that addresses an SGL.
    pub const METADATA_SGL: u32 = 1 << 19;
    /// Offsets into the capsule in the address field: needed for in-capsule data.
    pub const ADDRESS_AS_OFFSET: u32 = 1 << 20;
    /// Transport SGL Data Block descriptor: needed for NVMe/TCP.
    pub const TRANSPORT_DATA_BLOCK: u32 = 1 << 21;
}

/// Fabrics Controller Attributes (FCATT, Base 5.17.2.1).
pub mod fcatt {
    /// The NVM subsystem uses the static controller model.
    pub const STATIC_CONTROLLERS: u8 = 1 << 0;
}

/// Optional Fabrics Commands Support (OFCS, Base 5.17.2.1).
pub mod ofcs {
    /// Disconnect, and deleting single I/O queues.
    pub const DISCONNECT: u16 = 1 << 0;
}

/// Namespace Features (NSFEAT, NVM 4.1.5.1; bit 3 also in the independent structure).
pub mod nsfeat {
    /// Thin provisioning: NUSE may be less than NCAP, and capacity may run out.
    pub const THIN_PROVISIONING: u8 = 1 << 0;
    /// NAWUN, NAWUPF and NACWU are this namespace's.
    pub const ATOMIC_WRITE_UNITS: u8 = 1 << 1;
    /// Deallocated or Unwritten Logical Block error can be enabled.
    pub const DEALLOCATED_ERROR: u8 = 1 << 2;
    /// NGUID and EUI64 are never reused.
    pub const IDENTIFIERS_NOT_REUSED: u8 = 1 << 3;
    /// NPWG, NPWA, NPDG, NPDA and NOWS are given.
    pub const OPTIMAL_PERFORMANCE: u8 = 1 << 4;
    /// Only in the independent structure: a volatile write cache is not present for this namespace.
    pub const INDEPENDENT_NO_WRITE_CACHE: u8 = 1 << 5;
}

/// Namespace Multi-path I/O and Namespace Sharing Capabilities (NMIC, NVM 4.1.5.1).
pub mod nmic {
    /// More than one controller may attach the namespace at a time.
    pub const SHARED: u8 = 1 << 0;
}

/// Deallocate Logical Block Features (DLFEAT, NVM 4.1.5.1).
pub mod dlfeat {
    /// Deallocated blocks: what they read as is not reported.
    pub const READS_NOT_REPORTED: u8 = 0;
    /// Deallocated blocks read as 00h.
    pub const READS_ZEROES: u8 = 1;
    /// Deallocated blocks read as FFh.
    pub const READS_ONES: u8 = 2;
    /// Write Zeroes supports the Deallocate bit.
    pub const WRITE_ZEROES_DEALLOCATE: u8 = 1 << 3;
}

/// Namespace Attributes (NSATTR, NVM 4.1.5.1).
pub mod nsattr {
    /// The namespace is write protected now.
    pub const WRITE_PROTECTED: u8 = 1 << 0;
}

/// Namespace Status (NSTAT, Base 5.17.2.8).
pub mod nstat {
    /// Namespace Ready (NRDY).
    pub const READY: u8 = 1 << 0;
}
