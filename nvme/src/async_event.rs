//! Asynchronous events: what a controller tells a host unasked.
//!
//! Owns the result of the Asynchronous Event Request command (Base 5.2). Invariant: each event names the log page
//! that clears it. The target's controllers raise them; the host side reads them.

use crate::log_page::LogPage;
use crate::wire::{bit_fields, wire_enum};

wire_enum! {
    /// Asynchronous Event Type (Base 5.2.1).
    pub enum EventType: u8 {
        Error = 0, "Error status";
        Health = 1, "SMART / Health status";
        Notice = 2, "Notice";
        Immediate = 3, "Immediate";
        CommandSetSpecific = 6, "I/O Command specific status";
        VendorSpecific = 7, "Vendor specific";
    }
}

wire_enum! {
    /// Asynchronous Event Information of type Error (Base 5.2.1).
    pub enum ErrorEvent: u8 {
        InvalidDoorbellRegister = 0, "Write to Invalid Doorbell Register";
        InvalidDoorbellValue = 1, "Invalid Doorbell Write Value";
        DiagnosticFailure = 2, "Diagnostic Failure";
        PersistentInternalError = 3, "Persistent Internal Error";
        TransientInternalError = 4, "Transient Internal Error";
        FirmwareImageLoadError = 5, "Firmware Image Load Error";
    }
}

wire_enum! {
    /// Asynchronous Event Information of type SMART / Health (Base 5.2.1).
    pub enum HealthEvent: u8 {
        Reliability = 0, "NVM subsystem Reliability";
        TemperatureThreshold = 1, "Temperature Threshold";
        SpareBelowThreshold = 2, "Spare Below Threshold";
    }
}

wire_enum! {
    /// Asynchronous Event Information of type Notice (Base 5.2.1).
    pub enum Notice: u8 {
        NamespaceAttributeChanged = 0x00, "Namespace Attribute Changed";
        FirmwareActivationStarting = 0x01, "Firmware Activation Starting";
        TelemetryLogChanged = 0x02, "Telemetry Log Changed";
        AnaChange = 0x03, "Asymmetric Namespace Access Change";
        PredictableLatencyChange = 0x04, "Predictable Latency Event Aggregate Log Change";
        LbaStatusAlert = 0x05, "LBA Status Information Alert";
        EnduranceGroupChange = 0x06, "Endurance Group Event Aggregate Log Page Change";
        DiscoveryChange = 0xf0, "Discovery Log Page Change";
    }
}

bit_fields! {
    /// DW0 of an Asynchronous Event Request's completion (Base 5.2.1).
    pub struct EventResult: u32 {
        flags {}
        fields {
            /// Asynchronous Event Type as its number; see [`EventType`].
            event_type, with_event_type: u8 = 0, 3;
            /// Asynchronous Event Information.
            information, with_information: u8 = 8, 8;
            /// Log Page Identifier: reading it clears the event.
            log_page, with_log_page: u8 = 16, 8;
        }
    }
}

impl EventResult {
    /// An error, to be cleared by the Error Information log.
    #[must_use]
    pub const fn error(event: ErrorEvent) -> Self {
        Self::make(EventType::Error, event.value(), LogPage::Error)
    }

    /// A change of health, to be cleared by the SMART / Health Information log.
    #[must_use]
    pub const fn health(event: HealthEvent) -> Self {
        Self::make(EventType::Health, event.value(), LogPage::Health)
    }

    /// A notice, to be cleared by its log page.
    #[must_use]
    pub const fn notice(notice: Notice) -> Self {
        let page = match notice {
            Notice::NamespaceAttributeChanged => LogPage::ChangedNamespaces,
            Notice::FirmwareActivationStarting => LogPage::FirmwareSlot,
            Notice::TelemetryLogChanged => LogPage::TelemetryController,
            Notice::AnaChange => LogPage::Ana,
            Notice::PredictableLatencyChange => LogPage::PredictableLatencyAggregate,
            Notice::LbaStatusAlert => LogPage::LbaStatus,
            Notice::EnduranceGroupChange => LogPage::EnduranceGroupAggregate,
            Notice::DiscoveryChange => LogPage::Discovery,
        };
        Self::make(EventType::Notice, notice.value(), page)
    }

    const fn make(event_type: EventType, information: u8, log_page: LogPage) -> Self {
        Self::from_bits(0)
            .with_event_type(event_type.value())
            .with_information(information)
            .with_log_page(log_page.value())
    }

    /// The notice, when it is one that is known here.
    #[must_use]
    pub const fn as_notice(self) -> Option<Notice> {
        if self.event_type() == EventType::Notice.value() {
            Notice::from_value(self.information())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a Linux host ignore, or misread, that namespaces came or went.
    #[test]
    fn results_are_the_specifications() {
        assert_eq!(EventResult::notice(Notice::NamespaceAttributeChanged).bits(), 0x0004_0002);
        assert_eq!(EventResult::notice(Notice::AnaChange).bits(), 0x000c_0302);
        assert_eq!(EventResult::notice(Notice::DiscoveryChange).bits(), 0x0070_f002);
        assert_eq!(EventResult::health(HealthEvent::SpareBelowThreshold).bits(), 0x0002_0201);
        assert_eq!(EventResult::error(ErrorEvent::TransientInternalError).bits(), 0x0001_0400);
        assert_eq!(EventResult::from_bits(0x000c_0302).as_notice(), Some(Notice::AnaChange));
        assert_eq!(EventResult::from_bits(0x0002_0301).as_notice(), None);
    }
}
