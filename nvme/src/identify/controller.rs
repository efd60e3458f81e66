//! Identify Controller (CNS 01h): what a controller can do.
//!
//! Owns the 4,096-byte layout with the fields of Base 2.0 and 2.1, named as the specification abbreviates them.
//! Invariant: text fields are ASCII padded with spaces except SUBNQN, which is NUL terminated.

use zerocopy::little_endian::{U16, U32, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::fabrics::{NQN_FIELD_BYTES, Nqn};
use crate::wire::{assert_layout, get_ascii, put_ascii};

/// Power State Descriptor (Base 5.17.2.1), 32 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct PowerState {
    /// Maximum Power (MP), in units of 0.01 W, or 0.0001 W when MXPS is set.
    pub mp: U16,
    /// Reserved.
    pub reserved2: u8,
    /// Bit 0 Max Power Scale (MXPS), bit 1 Non-Operational State (NOPS).
    pub flags: u8,
    /// Entry Latency (ENLAT) in microseconds.
    pub enlat: U32,
    /// Exit Latency (EXLAT) in microseconds.
    pub exlat: U32,
    /// Relative Read Throughput (RRT), 0 best.
    pub rrt: u8,
    /// Relative Read Latency (RRL), 0 best.
    pub rrl: u8,
    /// Relative Write Throughput (RWT), 0 best.
    pub rwt: u8,
    /// Relative Write Latency (RWL), 0 best.
    pub rwl: u8,
    /// Idle Power (IDLP), in units of IPS.
    pub idlp: U16,
    /// Idle Power Scale (IPS) in bits 7:6.
    pub ips: u8,
    /// Reserved.
    pub reserved19: u8,
    /// Active Power (ACTP), in units of APS.
    pub actp: U16,
    /// Active Power Workload in bits 2:0, Active Power Scale (APS) in bits 7:6.
    pub apws: u8,
    /// Reserved.
    pub reserved23: [u8; 9],
}

assert_layout!(PowerState, 32, flags @ 3, enlat @ 4, rrt @ 12, idlp @ 16, actp @ 20);

/// Identify Controller data structure (Base 5.17.2.1, CNS 01h), 4,096 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ControllerData {
    /// PCI Vendor ID (VID).
    pub vid: U16,
    /// PCI Subsystem Vendor ID (SSVID).
    pub ssvid: U16,
    /// Serial Number (SN), ASCII.
    pub sn: [u8; 20],
    /// Model Number (MN), ASCII.
    pub mn: [u8; 40],
    /// Firmware Revision (FR), ASCII.
    pub fr: [u8; 8],
    /// Recommended Arbitration Burst (RAB), 2^this commands.
    pub rab: u8,
    /// IEEE OUI Identifier.
    pub ieee: [u8; 3],
    /// Multi-Path I/O and Namespace Sharing Capabilities; see [`super::capability::cmic`].
    pub cmic: u8,
    /// Maximum Data Transfer Size (MDTS): 2^this times CAP.MPSMIN's page; 0 no limit.
    pub mdts: u8,
    /// Controller ID (CNTLID).
    pub cntlid: U16,
    /// Version (VER); see [`crate::property::Version`].
    pub ver: U32,
    /// RTD3 Resume Latency in microseconds.
    pub rtd3r: U32,
    /// RTD3 Entry Latency in microseconds.
    pub rtd3e: U32,
    /// Optional Asynchronous Events Supported; see [`super::capability::oaes`].
    pub oaes: U32,
    /// Controller Attributes; see [`super::capability::ctratt`].
    pub ctratt: U32,
    /// Read Recovery Levels Supported.
    pub rrls: U16,
    /// Boot Partition Capabilities.
    pub bpcap: u8,
    /// Reserved.
    pub reserved103: u8,
    /// NVM Subsystem Shutdown Latency in microseconds.
    pub nssl: U32,
    /// Reserved.
    pub reserved108: [u8; 2],
    /// Power Loss Signaling Information.
    pub plsi: u8,
    /// Controller Type; see [`super::ControllerType`].
    pub cntrltype: u8,
    /// FRU Globally Unique Identifier.
    pub fguid: [u8; 16],
    /// Command Retry Delay Times 1 to 3, in units of 100 ms.
    pub crdt: [U16; 3],
    /// Controller Reachability Capabilities.
    pub crcap: u8,
    /// Reserved.
    pub reserved135: [u8; 118],
    /// NVM Subsystem Report (NVMe-MI).
    pub nvmsr: u8,
    /// VPD Write Cycle Information (NVMe-MI).
    pub vwci: u8,
    /// Management Endpoint Capabilities (NVMe-MI).
    pub mec: u8,
    /// Optional Admin Command Support; see [`super::capability::oacs`].
    pub oacs: U16,
    /// Abort Command Limit, 0's based.
    pub acl: u8,
    /// Asynchronous Event Request Limit, 0's based.
    pub aerl: u8,
    /// Firmware Updates; see [`super::capability::frmw`].
    pub frmw: u8,
    /// Log Page Attributes; see [`super::capability::lpa`].
    pub lpa: u8,
    /// Error Log Page Entries, 0's based.
    pub elpe: u8,
    /// Number of Power States Support, 0's based.
    pub npss: u8,
    /// Admin Vendor Specific Command Configuration.
    pub avscc: u8,
    /// Autonomous Power State Transition Attributes.
    pub apsta: u8,
    /// Warning Composite Temperature Threshold in kelvins.
    pub wctemp: U16,
    /// Critical Composite Temperature Threshold in kelvins.
    pub cctemp: U16,
    /// Maximum Time for Firmware Activation, in units of 100 ms.
    pub mtfa: U16,
    /// Host Memory Buffer Preferred Size, in units of 4 KiB.
    pub hmpre: U32,
    /// Host Memory Buffer Minimum Size, in units of 4 KiB.
    pub hmmin: U32,
    /// Total NVM Capacity in bytes.
    pub tnvmcap: U128,
    /// Unallocated NVM Capacity in bytes.
    pub unvmcap: U128,
    /// Replay Protected Memory Block Support.
    pub rpmbs: U32,
    /// Extended Device Self-test Time in minutes.
    pub edstt: U16,
    /// Device Self-test Options.
    pub dsto: u8,
    /// Firmware Update Granularity, in units of 4 KiB; FFh no restriction.
    pub fwug: u8,
    /// Keep Alive Support: granularity in units of 100 ms; 0 not supported.
    pub kas: U16,
    /// Host Controlled Thermal Management Attributes.
    pub hctma: U16,
    /// Minimum Thermal Management Temperature in kelvins.
    pub mntmt: U16,
    /// Maximum Thermal Management Temperature in kelvins.
    pub mxtmt: U16,
    /// Sanitize Capabilities.
    pub sanicap: U32,
    /// Host Memory Buffer Minimum Descriptor Entry Size, in units of 4 KiB.
    pub hmminds: U32,
    /// Host Memory Maximum Descriptors Entries.
    pub hmmaxd: U16,
    /// NVM Set Identifier Maximum.
    pub nsetidmax: U16,
    /// Endurance Group Identifier Maximum.
    pub endgidmax: U16,
    /// ANA Transition Time in seconds.
    pub anatt: u8,
    /// ANA Capabilities; see [`super::capability::anacap`].
    pub anacap: u8,
    /// ANA Group Identifier Maximum.
    pub anagrpmax: U32,
    /// Number of ANA Group Identifiers.
    pub nanagrpid: U32,
    /// Persistent Event Log Size, in units of 64 KiB.
    pub pels: U32,
    /// Domain Identifier.
    pub domainid: U16,
    /// Key Per I/O Capabilities.
    pub kpioc: u8,
    /// Reserved.
    pub reserved359: u8,
    /// Maximum Processing Time for Firmware Activation Without Reset, in units of 100 ms.
    pub mptfawr: U16,
    /// Reserved.
    pub reserved362: [u8; 6],
    /// Max Endurance Group Capacity in bytes.
    pub megcap: U128,
    /// Temperature Threshold Hysteresis Attributes.
    pub tmpthha: u8,
    /// Reserved.
    pub reserved385: u8,
    /// Command Quiesce Time in milliseconds.
    pub cqt: U16,
    /// Reserved.
    pub reserved388: [u8; 124],
    /// Submission Queue Entry Size: required 2^(bits 3:0), maximum 2^(bits 7:4).
    pub sqes: u8,
    /// Completion Queue Entry Size: required 2^(bits 3:0), maximum 2^(bits 7:4).
    pub cqes: u8,
    /// Maximum Outstanding Commands.
    pub maxcmd: U16,
    /// Number of Namespaces: the maximum value of a valid NSID.
    pub nn: U32,
    /// Optional NVM Command Support; see [`super::capability::oncs`].
    pub oncs: U16,
    /// Fused Operation Support; see [`super::capability::fuses`].
    pub fuses: U16,
    /// Format NVM Attributes.
    pub fna: u8,
    /// Volatile Write Cache; see [`super::capability::vwc`].
    pub vwc: u8,
    /// Atomic Write Unit Normal in logical blocks, 0's based.
    pub awun: U16,
    /// Atomic Write Unit Power Fail in logical blocks, 0's based.
    pub awupf: U16,
    /// I/O Command Set Vendor Specific Command Configuration.
    pub icsvscc: u8,
    /// Namespace Write Protection Capabilities.
    pub nwpc: u8,
    /// Atomic Compare & Write Unit in logical blocks, 0's based.
    pub acwu: U16,
    /// Copy Descriptor Formats Supported.
    pub cdfs: U16,
    /// SGL Support; see [`super::capability::sgls`].
    pub sgls: U32,
    /// Maximum Number of Allowed Namespaces.
    pub mnan: U32,
    /// Maximum Domain Namespace Attachments.
    pub maxdna: U128,
    /// Maximum I/O Controller Namespace Attachments.
    pub maxcna: U32,
    /// Optimal Aggregated Queue Depth.
    pub oaqd: U32,
    /// Recommended Host-Initiated Refresh Interval in days.
    pub rhiri: u8,
    /// Host-Initiated Refresh Time in minutes.
    pub hirt: u8,
    /// Fields of live migration and reserved bytes that Sledge does not use.
    pub reserved570: [u8; 198],
    /// NVM Subsystem NVMe Qualified Name, UTF-8, NUL terminated.
    pub subnqn: [u8; NQN_FIELD_BYTES],
    /// Reserved.
    pub reserved1024: [u8; 768],
    /// I/O Queue Command Capsule Supported Size, in units of 16 bytes.
    pub ioccsz: U32,
    /// I/O Queue Response Capsule Supported Size, in units of 16 bytes.
    pub iorcsz: U32,
    /// In Capsule Data Offset after the command, in units of 16 bytes.
    pub icdoff: U16,
    /// Fabrics Controller Attributes; see [`super::capability::fcatt`].
    pub fcatt: u8,
    /// Maximum SGL Data Block Descriptors in a capsule; 0 no limit.
    pub msdbd: u8,
    /// Optional Fabrics Commands Support; see [`super::capability::ofcs`].
    pub ofcs: U16,
    /// Discovery Controller Type.
    pub dctype: u8,
    /// Reserved.
    pub reserved1807: [u8; 241],
    /// Power State Descriptors.
    pub psd: [PowerState; 32],
    /// Vendor Specific.
    pub vendor: [u8; 1024],
}

assert_layout!(
    ControllerData, 4096, sn @ 4, mn @ 24, fr @ 64, rab @ 72, cmic @ 76, mdts @ 77, cntlid @ 78, ver @ 80, oaes @ 92,
    ctratt @ 96, nssl @ 104, cntrltype @ 111, fguid @ 112, crdt @ 128, nvmsr @ 253, oacs @ 256, acl @ 258,
    aerl @ 259, frmw @ 260, lpa @ 261, elpe @ 262, npss @ 263, wctemp @ 266, tnvmcap @ 280, edstt @ 316, kas @ 320,
    sanicap @ 328, hmmaxd @ 336, endgidmax @ 340, anatt @ 342, anacap @ 343, anagrpmax @ 344, nanagrpid @ 348,
    domainid @ 356, mptfawr @ 360, megcap @ 368, cqt @ 386, sqes @ 512, cqes @ 513, maxcmd @ 514, nn @ 516,
    oncs @ 520, fuses @ 522, fna @ 524, vwc @ 525, awun @ 526, awupf @ 528, nwpc @ 531, acwu @ 532, sgls @ 536,
    mnan @ 540, maxdna @ 544, maxcna @ 560, oaqd @ 564, subnqn @ 768, ioccsz @ 1792, iorcsz @ 1796, icdoff @ 1800,
    fcatt @ 1802, msdbd @ 1803, ofcs @ 1804, dctype @ 1806, psd @ 2048, vendor @ 3072,
);

impl ControllerData {
    /// All zero: nothing supported.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }

    /// Sets the serial number (20 ASCII characters), cut and padded.
    pub fn set_serial_number(&mut self, text: &str) {
        put_ascii(&mut self.sn, text);
    }

    /// Sets the model number (40 ASCII characters), cut and padded.
    pub fn set_model_number(&mut self, text: &str) {
        put_ascii(&mut self.mn, text);
    }

    /// Sets the firmware revision (8 ASCII characters), cut and padded.
    pub fn set_firmware_revision(&mut self, text: &str) {
        put_ascii(&mut self.fr, text);
    }

    /// Sets the subsystem's name.
    pub fn set_subnqn(&mut self, nqn: &Nqn) {
        self.subnqn = nqn.to_field();
    }

    /// Serial number without padding.
    #[must_use]
    pub fn serial_number(&self) -> &str {
        get_ascii(&self.sn)
    }

    /// Model number without padding.
    #[must_use]
    pub fn model_number(&self) -> &str {
        get_ascii(&self.mn)
    }

    /// Firmware revision without padding.
    #[must_use]
    pub fn firmware_revision(&self) -> &str {
        get_ascii(&self.fr)
    }

    /// Sets IOCCSZ for `in_capsule_bytes` (a multiple of 16) of data in each I/O command capsule, and IORCSZ.
    pub fn set_capsule_sizes(&mut self, in_capsule_bytes: u32) {
        self.ioccsz = U32::new((64 + in_capsule_bytes) / 16);
        self.iorcsz = U32::new(1);
    }

    /// Bytes of data that an I/O command capsule may carry (IOCCSZ less command and ICDOFF).
    #[must_use]
    pub fn in_capsule_bytes(&self) -> u32 {
        self.ioccsz.get().saturating_mul(16).saturating_sub(64 + u32::from(self.icdoff.get()) * 16)
    }

    /// Most bytes in one data transfer, for 4 KiB pages (CAP.MPSMIN 0); `None` when there is no limit.
    #[must_use]
    pub fn max_transfer_bytes(&self) -> Option<u64> {
        if self.mdts == 0 { None } else { 4096_u64.checked_shl(self.mdts.into()).filter(|&bytes| bytes != 0) }
    }
}

impl Default for ControllerData {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets text go out without padding, which hosts print with garbage.
    #[test]
    fn text_is_padded_ascii() {
        let mut data = ControllerData::new();
        data.set_serial_number("S1");
        data.set_model_number(&"m".repeat(50));
        data.set_firmware_revision("1.\u{e9}");
        assert_eq!(data.as_bytes()[4..24], *b"S1                  ");
        assert_eq!(data.mn, [b'm'; 40]);
        assert_eq!(data.fr, *b"1.?     ");
        assert_eq!((data.serial_number(), data.firmware_revision()), ("S1", "1.?"));
    }

    // Deleting this lets hosts send capsules that are larger than the target takes, or commands over MDTS.
    #[test]
    fn sizes() {
        let mut data = ControllerData::default();
        assert_eq!(data.in_capsule_bytes(), 0);
        data.set_capsule_sizes(8192);
        assert_eq!(data.as_bytes()[1792..1800], [0x04, 0x02, 0, 0, 1, 0, 0, 0]);
        assert_eq!(data.in_capsule_bytes(), 8192);
        assert_eq!(data.max_transfer_bytes(), None);
        data.mdts = 8;
        assert_eq!(data.max_transfer_bytes(), Some(1 << 20));
        data.mdts = 60;
        assert_eq!(data.max_transfer_bytes(), None);
    }
}
