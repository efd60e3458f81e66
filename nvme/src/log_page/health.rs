//! The SMART / Health Information log page (LID 02h).
//!
//! Owns the 512-byte layout and the unit that data is counted in. Invariant: counters only grow.

use zerocopy::little_endian::{U16, U32, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{assert_layout, bit_fields};

bit_fields! {
    /// Critical Warning (Base 5.16.1.3, byte 0).
    pub struct CriticalWarning: u8 {
        flags {
            /// Available spare is below the threshold.
            spare_low, with_spare_low = 0;
            /// A temperature is at or over, or at or under, a threshold.
            temperature, with_temperature = 1;
            /// NVM subsystem reliability is degraded.
            reliability_degraded, with_reliability_degraded = 2;
            /// All media are read only.
            read_only, with_read_only = 3;
            /// The volatile memory backup has failed.
            backup_failed, with_backup_failed = 4;
            /// The Persistent Memory Region is read only or unreliable.
            persistent_memory_unreliable, with_persistent_memory_unreliable = 5;
        }
        fields {}
    }
}

/// SMART / Health Information log page (Base 5.16.1.3), 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct HealthLog {
    /// Critical Warning; see [`CriticalWarning`].
    pub critical_warning: u8,
    /// Composite Temperature in kelvins; 0 when not known.
    pub composite_temperature: U16,
    /// Available Spare in percent.
    pub available_spare: u8,
    /// Available Spare Threshold in percent.
    pub available_spare_threshold: u8,
    /// Percentage Used, 0 to 255.
    pub percentage_used: u8,
    /// Endurance Group Critical Warning Summary.
    pub endurance_group_warning: u8,
    /// Reserved.
    pub reserved7: [u8; 25],
    /// Data Units Read; see [`DataUnits`].
    pub data_units_read: U128,
    /// Data Units Written; see [`DataUnits`].
    pub data_units_written: U128,
    /// Host Read Commands (SMART counts Compare and Verify among them).
    pub host_read_commands: U128,
    /// Host Write Commands.
    pub host_write_commands: U128,
    /// Controller Busy Time in minutes.
    pub controller_busy_minutes: U128,
    /// Power Cycles.
    pub power_cycles: U128,
    /// Power On Hours.
    pub power_on_hours: U128,
    /// Unsafe Shutdowns.
    pub unsafe_shutdowns: U128,
    /// Media and Data Integrity Errors.
    pub media_errors: U128,
    /// Number of Error Information Log Entries over the controller's life.
    pub error_log_entries: U128,
    /// Warning Composite Temperature Time in minutes.
    pub warning_temperature_minutes: U32,
    /// Critical Composite Temperature Time in minutes.
    pub critical_temperature_minutes: U32,
    /// Temperature Sensors 1 to 8 in kelvins; 0 when there is none.
    pub temperature_sensors: [U16; 8],
    /// Thermal Management Temperature 1 and 2 Transition Counts.
    pub thermal_transitions: [U32; 2],
    /// Total Time For Thermal Management Temperature 1 and 2 in seconds.
    pub thermal_seconds: [U32; 2],
    /// Reserved.
    pub reserved232: [u8; 280],
}

assert_layout!(
    HealthLog, 512, composite_temperature @ 1, available_spare @ 3, percentage_used @ 5, data_units_read @ 32,
    data_units_written @ 48, host_read_commands @ 64, host_write_commands @ 80, controller_busy_minutes @ 96,
    power_cycles @ 112, power_on_hours @ 128, unsafe_shutdowns @ 144, media_errors @ 160, error_log_entries @ 176,
    warning_temperature_minutes @ 192, temperature_sensors @ 200, thermal_transitions @ 216, thermal_seconds @ 224,
);

impl HealthLog {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self::new_zeroed()
    }
}

impl Default for HealthLog {
    fn default() -> Self {
        Self::new()
    }
}

/// Data in the unit of the health log: thousands of 512-byte units, rounded up (Base 5.16.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct DataUnits(pub u128);

impl DataUnits {
    /// Bytes in one data unit.
    pub const BYTES: u128 = 512 * 1000;

    /// Data units of a number of bytes, rounded up.
    #[must_use]
    pub const fn from_bytes(bytes: u128) -> Self {
        Self(bytes.div_ceil(Self::BYTES))
    }

    /// The field's value.
    #[must_use]
    pub const fn to_field(self) -> U128 {
        U128::new(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets `nvme smart-log` show counters in each other's place, or in the wrong unit.
    #[test]
    fn bytes_and_units() {
        let mut log = HealthLog::new();
        log.critical_warning = CriticalWarning::default().with_read_only(true).bits();
        log.composite_temperature = U16::new(300);
        log.data_units_written = DataUnits::from_bytes(512_001).to_field();
        log.host_read_commands = U128::new(9);
        let bytes = log.as_bytes();
        assert_eq!(bytes[..3], [8, 0x2c, 1]);
        assert_eq!((bytes[48], bytes[64]), (2, 9));
        assert_eq!(DataUnits::from_bytes(0), DataUnits(0));
        assert_eq!(DataUnits::from_bytes(1), DataUnits(1));
        assert_eq!(DataUnits::from_bytes(512_000), DataUnits(1));
    }
}
