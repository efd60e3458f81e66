//! Log pages: what a controller reports about itself and its past.
//!
//! Owns the layouts of the mandatory log pages and of ANA, and their identifiers (Base 5.16.1). The discovery log is
//! in [`crate::fabrics`]; the Changed Namespace List is an [`crate::identify::NamespaceList`].
//! Invariant: all-zero bytes are valid and mean "nothing to report". The target fills them, the host reads them.

mod ana;
mod effects;
mod error;
mod firmware;
mod health;

pub use ana::{AnaGroupDescriptor, AnaHeader, AnaState, RETURN_GROUPS_ONLY};
pub use effects::{
    CommandEffects, CommandEffectsLog, FeatureEffects, FeatureEffectsLog, LogPageSupport, SupportedLogPages,
};
pub use error::{ErrorEntry, ParameterLocation};
pub use firmware::FirmwareSlotLog;
pub use health::{CriticalWarning, DataUnits, HealthLog};

use crate::wire::wire_enum;

wire_enum! {
    /// Log Page Identifier (LID, Base 5.16.1).
    pub enum LogPage: u8 {
        SupportedLogPages = 0x00, "Supported Log Pages";
        Error = 0x01, "Error Information";
        Health = 0x02, "SMART / Health Information";
        FirmwareSlot = 0x03, "Firmware Slot Information";
        ChangedNamespaces = 0x04, "Changed Namespace List";
        CommandEffects = 0x05, "Commands Supported and Effects";
        DeviceSelfTest = 0x06, "Device Self-test";
        TelemetryHost = 0x07, "Telemetry Host-Initiated";
        TelemetryController = 0x08, "Telemetry Controller-Initiated";
        EnduranceGroup = 0x09, "Endurance Group Information";
        PredictableLatency = 0x0a, "Predictable Latency Per NVM Set";
        PredictableLatencyAggregate = 0x0b, "Predictable Latency Event Aggregate";
        Ana = 0x0c, "Asymmetric Namespace Access";
        PersistentEvent = 0x0d, "Persistent Event Log";
        LbaStatus = 0x0e, "LBA Status Information";
        EnduranceGroupAggregate = 0x0f, "Endurance Group Event Aggregate";
        MediaUnitStatus = 0x10, "Media Unit Status";
        SupportedCapacityConfigurations = 0x11, "Supported Capacity Configuration List";
        FeatureEffects = 0x12, "Feature Identifiers Supported and Effects";
        ManagementEffects = 0x13, "NVMe-MI Commands Supported and Effects";
        Lockdown = 0x14, "Command and Feature Lockdown";
        BootPartition = 0x15, "Boot Partition";
        RotationalMedia = 0x16, "Rotational Media Information";
        Discovery = 0x70, "Discovery";
        HostDiscovery = 0x71, "Host Discovery";
        ReservationNotification = 0x80, "Reservation Notification";
        SanitizeStatus = 0x81, "Sanitize Status";
    }
}
