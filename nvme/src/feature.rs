//! Features: what a host can set on a controller with Set Features and read with Get Features.
//!
//! Owns the identifiers and the values of the features that Sledge keeps (Base 5.27.1 and NVM 4.1.3). Invariant: a
//! value is the dword (or data structure) of the wire; whether it is acceptable is the controller's business.

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{assert_layout, bit_fields, wire_enum};

wire_enum! {
    /// Feature Identifier (FID, Base 5.27.1).
    pub enum Feature: u8 {
        Arbitration = 0x01, "Arbitration";
        PowerManagement = 0x02, "Power Management";
        LbaRangeType = 0x03, "LBA Range Type";
        TemperatureThreshold = 0x04, "Temperature Threshold";
        ErrorRecovery = 0x05, "Error Recovery";
        VolatileWriteCache = 0x06, "Volatile Write Cache";
        NumberOfQueues = 0x07, "Number of Queues";
        InterruptCoalescing = 0x08, "Interrupt Coalescing";
        InterruptVectorConfiguration = 0x09, "Interrupt Vector Configuration";
        WriteAtomicityNormal = 0x0a, "Write Atomicity Normal";
        AsyncEventConfiguration = 0x0b, "Asynchronous Event Configuration";
        AutonomousPowerStateTransition = 0x0c, "Autonomous Power State Transition";
        HostMemoryBuffer = 0x0d, "Host Memory Buffer";
        Timestamp = 0x0e, "Timestamp";
        KeepAliveTimer = 0x0f, "Keep Alive Timer";
        HostControlledThermalManagement = 0x10, "Host Controlled Thermal Management";
        NonOperationalPowerState = 0x11, "Non-Operational Power State Config";
        ReadRecoveryLevel = 0x12, "Read Recovery Level Config";
        PredictableLatencyConfig = 0x13, "Predictable Latency Mode Config";
        PredictableLatencyWindow = 0x14, "Predictable Latency Mode Window";
        LbaStatusReportInterval = 0x15, "LBA Status Information Report Interval";
        HostBehaviorSupport = 0x16, "Host Behavior Support";
        SanitizeConfig = 0x17, "Sanitize Config";
        EnduranceGroupEvents = 0x18, "Endurance Group Event Configuration";
        CommandSetProfile = 0x19, "I/O Command Set Profile";
        SpinupControl = 0x1a, "Spinup Control";
        PowerLossSignaling = 0x1b, "Power Loss Signaling Config";
        PerformanceCharacteristics = 0x1c, "Performance Characteristics";
        FlexibleDataPlacement = 0x1d, "Flexible Data Placement";
        FlexibleDataPlacementEvents = 0x1e, "Flexible Data Placement Events";
        NamespaceAdminLabel = 0x1f, "Namespace Admin Label";
        EnhancedControllerMetadata = 0x7d, "Enhanced Controller Metadata";
        ControllerMetadata = 0x7e, "Controller Metadata";
        NamespaceMetadata = 0x7f, "Namespace Metadata";
        SoftwareProgressMarker = 0x80, "Software Progress Marker";
        HostIdentifier = 0x81, "Host Identifier";
        ReservationNotificationMask = 0x82, "Reservation Notification Mask";
        ReservationPersistence = 0x83, "Reservation Persistence";
        NamespaceWriteProtection = 0x84, "Namespace Write Protection Config";
        BootPartitionWriteProtection = 0x85, "Boot Partition Write Protection Config";
    }
}

wire_enum! {
    /// Select (SEL) of Get Features (Base 5.15).
    pub enum Select: u8 {
        Current = 0, "Current";
        Default = 1, "Default";
        Saved = 2, "Saved";
        SupportedCapabilities = 3, "Supported Capabilities";
    }
}

bit_fields! {
    /// Result of Get Features with Select 3, Supported Capabilities (Base 5.15).
    pub struct FeatureCapabilities: u32 {
        flags {
            /// The feature can be saved.
            saveable, with_saveable = 0;
            /// The feature is of a namespace rather than of the controller.
            namespace_specific, with_namespace_specific = 1;
            /// The feature can be changed.
            changeable, with_changeable = 2;
        }
        fields {}
    }
}

bit_fields! {
    /// Arbitration (Base 5.27.1.1).
    pub struct Arbitration: u32 {
        flags {}
        fields {
            /// Arbitration Burst: 2^this commands; 7 no limit.
            burst, with_burst: u8 = 0, 3;
            /// Low Priority Weight, 0's based.
            low_weight, with_low_weight: u8 = 8, 8;
            /// Medium Priority Weight, 0's based.
            medium_weight, with_medium_weight: u8 = 16, 8;
            /// High Priority Weight, 0's based.
            high_weight, with_high_weight: u8 = 24, 8;
        }
    }
}

bit_fields! {
    /// Power Management (Base 5.27.1.2).
    pub struct PowerManagement: u32 {
        flags {}
        fields {
            /// Power State.
            power_state, with_power_state: u8 = 0, 5;
            /// Workload Hint.
            workload_hint, with_workload_hint: u8 = 5, 3;
        }
    }
}

bit_fields! {
    /// Temperature Threshold (Base 5.27.1.3).
    pub struct TemperatureThreshold: u32 {
        flags {}
        fields {
            /// Temperature Threshold in kelvins.
            kelvins, with_kelvins: u16 = 0, 16;
            /// Threshold Temperature Select: 0 composite, 1 to 8 a sensor, 15 all (Set only).
            sensor, with_sensor: u8 = 16, 4;
            /// Threshold Type Select: 0 over, 1 under.
            kind, with_kind: u8 = 20, 2;
        }
    }
}

bit_fields! {
    /// Error Recovery (NVM 4.1.3.2).
    pub struct ErrorRecovery: u32 {
        flags {
            /// Deallocated or Unwritten Logical Block Error Enable (DULBE).
            deallocated_error, with_deallocated_error = 16;
        }
        fields {
            /// Time Limited Error Recovery in units of 100 ms; 0 no limit.
            time_limit_100ms, with_time_limit_100ms: u16 = 0, 16;
        }
    }
}

bit_fields! {
    /// Volatile Write Cache (Base 5.27.1.4).
    pub struct VolatileWriteCache: u32 {
        flags {
            /// Volatile Write Cache Enable (WCE).
            enable, with_enable = 0;
        }
        fields {}
    }
}

bit_fields! {
    /// Number of Queues (Base 5.27.1.5): as requested in dword 11, as allocated in the result.
    pub struct NumberOfQueues: u32 {
        flags {}
        fields {
            /// I/O submission queues, 0's based; FFFFh is invalid.
            submission_minus_one, with_submission_minus_one: u16 = 0, 16;
            /// I/O completion queues, 0's based; FFFFh is invalid.
            completion_minus_one, with_completion_minus_one: u16 = 16, 16;
        }
    }
}

impl NumberOfQueues {
    /// The same number (1 to 65,535) of submission and completion queues.
    #[must_use]
    pub const fn pairs(count: u16) -> Self {
        let minus_one = count.saturating_sub(1);
        Self::from_bits(0).with_submission_minus_one(minus_one).with_completion_minus_one(minus_one)
    }
}

bit_fields! {
    /// Interrupt Coalescing (PCIe, Base 5.27.1.6).
    pub struct InterruptCoalescing: u32 {
        flags {}
        fields {
            /// Aggregation Threshold in completions, 0's based.
            threshold, with_threshold: u8 = 0, 8;
            /// Aggregation Time in units of 100 microseconds.
            time_100us, with_time_100us: u8 = 8, 8;
        }
    }
}

bit_fields! {
    /// Interrupt Vector Configuration (PCIe, Base 5.27.1.7).
    pub struct InterruptVectorConfiguration: u32 {
        flags {
            /// Coalescing Disable.
            coalescing_disable, with_coalescing_disable = 16;
        }
        fields {
            /// Interrupt Vector.
            vector, with_vector: u16 = 0, 16;
        }
    }
}

bit_fields! {
    /// Write Atomicity Normal (NVM 4.1.3.3).
    pub struct WriteAtomicity: u32 {
        flags {
            /// Disable Normal (DN): the host only needs AWUPF and NAWUPF.
            disable_normal, with_disable_normal = 0;
        }
        fields {}
    }
}

bit_fields! {
    /// Asynchronous Event Configuration (Base 5.27.1.8); the bits are those of Identify Controller's OAES.
    pub struct AsyncEventConfiguration: u32 {
        flags {
            /// Namespace Attribute Notices.
            namespace_attribute, with_namespace_attribute = 8;
            /// Firmware Activation Notices.
            firmware_activation, with_firmware_activation = 9;
            /// Telemetry Log Notices.
            telemetry, with_telemetry = 10;
            /// ANA Change Notices.
            ana_change, with_ana_change = 11;
            /// Predictable Latency Event Aggregate Log Change Notices.
            predictable_latency, with_predictable_latency = 12;
            /// LBA Status Information Notices.
            lba_status, with_lba_status = 13;
            /// Endurance Group Event Aggregate Log Change Notices.
            endurance_group, with_endurance_group = 14;
            /// Normal NVM Subsystem Shutdown.
            subsystem_shutdown, with_subsystem_shutdown = 15;
            /// Discovery Log Page Change Notification.
            discovery_change, with_discovery_change = 31;
        }
        fields {
            /// SMART / Health Critical Warnings; see [`crate::log_page::CriticalWarning`].
            critical_warnings, with_critical_warnings: u8 = 0, 8;
        }
    }
}

bit_fields! {
    /// Dword 11 of Host Identifier (Base 5.27.1, "Host Identifier").
    pub struct HostIdentifierFormat: u32 {
        flags {
            /// Enable Extended Host Identifier (EXHID): 16 bytes rather than 8; always over Fabrics.
            extended, with_extended = 0;
        }
        fields {}
    }
}

/// Data of the Timestamp feature (Base 5.27.1, "Timestamp"), 8 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Timestamp {
    /// Milliseconds since 1970-01-01 00:00 UTC, 48 bits, little-endian.
    pub milliseconds: [u8; 6],
    /// Bit 0 Synch: the timer may have stopped. Bits 3:1 Timestamp Origin: 0 reset, 1 Set Features.
    pub attributes: u8,
    /// Reserved.
    pub reserved7: u8,
}

assert_layout!(Timestamp, 8, attributes @ 6);

impl Timestamp {
    /// A timestamp of a number of milliseconds (48 bits), set by a host or counted since the last reset.
    #[must_use]
    pub const fn new(milliseconds: u64, set_by_host: bool) -> Self {
        let [a, b, c, d, e, f, ..] = milliseconds.to_le_bytes();
        Self { milliseconds: [a, b, c, d, e, f], attributes: (set_by_host as u8) << 1, reserved7: 0 }
    }

    /// Milliseconds.
    #[must_use]
    pub const fn get(&self) -> u64 {
        let [a, b, c, d, e, f] = self.milliseconds;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }
}

/// Data of the Host Behavior Support feature (Base 5.27.1, "Host Behavior Support"), 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct HostBehavior {
    /// Advanced Command Retry Enable (ACRE): 1 when the host honours Command Retry Delay.
    pub acre: u8,
    /// Extended Telemetry Data Area 4 Supported (ETDAS).
    pub etdas: u8,
    /// LBA Format Extension Enable (LBAFEE).
    pub lbafee: u8,
    /// Host Dispersed Namespace Support (HDISNS).
    pub hdisns: u8,
    /// Copy Descriptor Formats Enable (CDFE).
    pub cdfe: U16,
    /// Reserved.
    pub reserved6: [u8; 506],
}

assert_layout!(HostBehavior, 512, lbafee @ 2, hdisns @ 3, cdfe @ 4);

impl HostBehavior {
    /// All zero: nothing enabled.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }
}

impl Default for HostBehavior {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets features be set in other bits than the host meant.
    #[test]
    fn values_are_the_specifications() {
        assert_eq!(NumberOfQueues::pairs(4).bits(), 0x0003_0003);
        assert_eq!(AsyncEventConfiguration::from_bits(0x8000_0900).critical_warnings(), 0);
        let events = AsyncEventConfiguration::from_bits(0x0000_0900);
        assert!(events.namespace_attribute() && events.ana_change() && !events.firmware_activation());
        assert_eq!(TemperatureThreshold::default().with_kelvins(0x0157).with_kind(1).bits(), 0x0010_0157);
        assert_eq!(ErrorRecovery::default().with_deallocated_error(true).bits(), 0x0001_0000);
        assert_eq!(Arbitration::default().with_burst(7).with_high_weight(2).bits(), 0x0200_0007);
        assert_eq!(FeatureCapabilities::default().with_changeable(true).bits(), 4);
        assert_eq!(Feature::from_value(0x0f), Some(Feature::KeepAliveTimer));
    }

    // Deleting this lets the clock that a host sets come back as another time.
    #[test]
    fn timestamps_have_48_bits() {
        let timestamp = Timestamp::new(0x0000_0195_1234_5678, true);
        assert_eq!(timestamp.as_bytes(), [0x78, 0x56, 0x34, 0x12, 0x95, 0x01, 2, 0]);
        assert_eq!(timestamp.get(), 0x0195_1234_5678);
        assert_eq!(Timestamp::new(u64::MAX, false).get(), (1 << 48) - 1);
    }
}
