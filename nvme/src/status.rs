//! Status codes: what became of a command.
//!
//! Owns the `Status` type and every status code that the specifications define. Invariant: the value is the 15-bit
//! Status field of a completion queue entry (Base 3.3.3.2.1, DW3 bits 31:17), so it needs no translation on the wire.
//! Everyone who completes a command makes one; everyone who sent one reads it.

use core::fmt;

/// The Status field of a completion queue entry (Base 3.3.3.2.1).
///
/// | bits | field |
/// |---|---|
/// | 7:0 | Status Code (SC) |
/// | 10:8 | Status Code Type (SCT) |
/// | 12:11 | Command Retry Delay (CRD): 0 none, or index of CRDT1..3 in Identify Controller |
/// | 13 | More (M): the error log has more about this |
/// | 14 | Do Not Retry (DNR) |
///
/// Equality compares all of it; use [`Status::is`] to compare the code alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Status(u16);

/// Bits of the Status field: retry delay, more, do not retry.
const CODE_MASK: u16 = 0x07ff;
const CRD_SHIFT: u32 = 11;
const CRD_MASK: u16 = 0x1800;
const MORE: u16 = 0x2000;
const DO_NOT_RETRY: u16 = 0x4000;

/// Status Code Type (Base 3.3.3.2.1, "Status Code Type Values").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StatusCodeType {
    /// 0h: Generic Command Status.
    Generic,
    /// 1h: Command Specific Status.
    CommandSpecific,
    /// 2h: Media and Data Integrity Errors.
    MediaAndDataIntegrity,
    /// 3h: Path Related Status.
    PathRelated,
    /// 4h to 6h: reserved; the value is kept.
    Reserved(u8),
    /// 7h: Vendor Specific.
    VendorSpecific,
}

impl Status {
    /// Makes a status of a Status Code Type (0 to 7) and a Status Code, without delay, More or Do Not Retry.
    #[must_use]
    pub const fn new(status_code_type: u8, status_code: u8) -> Self {
        Self(((status_code_type as u16 & 0x7) << 8) | status_code as u16)
    }

    /// Takes a Status field of 15 bits; bit 15 is dropped.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & 0x7fff)
    }

    /// The 15-bit Status field.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Reads the upper half of a completion queue entry's DW3, where bit 0 is the Phase Tag.
    #[must_use]
    pub const fn from_completion_field(field: u16) -> Self {
        Self(field >> 1)
    }

    /// The upper half of a completion queue entry's DW3, Phase Tag clear (as Fabrics has it).
    #[must_use]
    pub const fn to_completion_field(self) -> u16 {
        self.0 << 1
    }

    /// Status Code (SC).
    #[must_use]
    pub const fn code(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// Status Code Type (SCT) as its number, 0 to 7.
    #[must_use]
    pub const fn type_value(self) -> u8 {
        ((self.0 >> 8) & 0x7) as u8
    }

    /// Status Code Type (SCT).
    #[must_use]
    pub const fn code_type(self) -> StatusCodeType {
        match self.type_value() {
            0 => StatusCodeType::Generic,
            1 => StatusCodeType::CommandSpecific,
            2 => StatusCodeType::MediaAndDataIntegrity,
            3 => StatusCodeType::PathRelated,
            7 => StatusCodeType::VendorSpecific,
            other => StatusCodeType::Reserved(other),
        }
    }

    /// The same type and code without Command Retry Delay, More and Do Not Retry.
    #[must_use]
    pub const fn without_flags(self) -> Self {
        Self(self.0 & CODE_MASK)
    }

    /// Whether both have the same type and code, whatever their flags.
    #[must_use]
    pub const fn is(self, other: Self) -> bool {
        self.0 & CODE_MASK == other.0 & CODE_MASK
    }

    /// Whether the command completed successfully.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 & CODE_MASK == 0
    }

    /// The same status with Do Not Retry set: the same command would fail again.
    #[must_use]
    pub const fn do_not_retry(self) -> Self {
        Self(self.0 | DO_NOT_RETRY)
    }

    /// Whether Do Not Retry is set.
    #[must_use]
    pub const fn is_do_not_retry(self) -> bool {
        self.0 & DO_NOT_RETRY != 0
    }

    /// The same status with More set: the Error Information log has an entry about it.
    #[must_use]
    pub const fn more(self) -> Self {
        Self(self.0 | MORE)
    }

    /// Whether More is set.
    #[must_use]
    pub const fn is_more(self) -> bool {
        self.0 & MORE != 0
    }

    /// The same status with a Command Retry Delay: 0 for none, 1 to 3 for CRDT1 to CRDT3 of Identify Controller.
    #[must_use]
    pub const fn with_retry_delay(self, index: u8) -> Self {
        Self((self.0 & !CRD_MASK) | ((index as u16 & 0x3) << CRD_SHIFT))
    }

    /// Command Retry Delay (CRD), 0 to 3.
    #[must_use]
    pub const fn retry_delay(self) -> u8 {
        ((self.0 & CRD_MASK) >> CRD_SHIFT) as u8
    }

    /// Whether the failure is of the path rather than of the namespace, so that a host with several paths should
    /// try another one.
    #[must_use]
    pub const fn is_path_related(self) -> bool {
        self.type_value() == 3
    }
}

/// Turns a status into success or error, for `?`.
impl From<Status> for Result<(), Status> {
    fn from(status: Status) -> Self {
        if status.is_success() { Ok(()) } else { Err(status) }
    }
}

impl std::error::Error for Status {}

/// The specification's words, or type and code in hexadecimal when the code is not known here.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => f.write_str(words)?,
            None => write!(f, "Status Code Type {:x}h, Status Code {:02x}h", self.type_value(), self.code())?,
        }
        if self.is_do_not_retry() { f.write_str(" (do not retry)") } else { Ok(()) }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#06x}: {self})", self.0)
    }
}

macro_rules! statuses {
    ($($name:ident = $sct:literal, $sc:literal, $text:literal;)+) => {
        impl Status {
            $(
                #[doc = concat!($text, " (type ", stringify!($sct), ", code ", stringify!($sc), ").")]
                pub const $name: Status = Status::new($sct, $sc);
            )+

            /// The specification's words for the code, without flags; `None` when it is not known here.
            ///
            /// Codes 80h to 91h of type 1 may mean one thing in the NVM command set and another in Fabrics; these give
            /// the NVM words. [`Status::fabrics_words`] gives the other.
            #[must_use]
            pub const fn words(self) -> Option<&'static str> {
                match (self.type_value(), self.code()) {
                    $(($sct, $sc) => Some($text),)+
                    _ => None,
                }
            }
        }
    };
}

macro_rules! fabrics_statuses {
    ($($name:ident = $sc:literal, $text:literal;)+) => {
        impl Status {
            $(
                #[doc = concat!($text, " (type 1, code ", stringify!($sc), ", Fabrics commands only).")]
                pub const $name: Status = Status::new(1, $sc);
            )+

            /// The specification's words when this is the status of a Fabrics command.
            #[must_use]
            pub const fn fabrics_words(self) -> Option<&'static str> {
                match (self.type_value(), self.code()) {
                    $((1, $sc) => Some($text),)+
                    _ => self.words(),
                }
            }
        }
    };
}

// Base 3.3.3.2.1.2 and NVM 1.1 section 3.1.4: Generic Command Status; command specific; media; path related.
statuses! {
    SUCCESS = 0, 0x00, "Successful Completion";
    INVALID_OPCODE = 0, 0x01, "Invalid Command Opcode";
    INVALID_FIELD = 0, 0x02, "Invalid Field in Command";
    COMMAND_ID_CONFLICT = 0, 0x03, "Command ID Conflict";
    DATA_TRANSFER_ERROR = 0, 0x04, "Data Transfer Error";
    ABORTED_POWER_LOSS = 0, 0x05, "Commands Aborted due to Power Loss Notification";
    INTERNAL_ERROR = 0, 0x06, "Internal Error";
    ABORTED_BY_REQUEST = 0, 0x07, "Command Abort Requested";
    ABORTED_SQ_DELETION = 0, 0x08, "Command Aborted due to SQ Deletion";
    ABORTED_FAILED_FUSED = 0, 0x09, "Command Aborted due to Failed Fused Command";
    ABORTED_MISSING_FUSED = 0, 0x0a, "Command Aborted due to Missing Fused Command";
    INVALID_NAMESPACE_OR_FORMAT = 0, 0x0b, "Invalid Namespace or Format";
    COMMAND_SEQUENCE_ERROR = 0, 0x0c, "Command Sequence Error";
    SGL_INVALID_SEGMENT_DESCRIPTOR = 0, 0x0d, "Invalid SGL Segment Descriptor";
    SGL_INVALID_DESCRIPTOR_COUNT = 0, 0x0e, "Invalid Number of SGL Descriptors";
    SGL_DATA_LENGTH_INVALID = 0, 0x0f, "Data SGL Length Invalid";
    SGL_METADATA_LENGTH_INVALID = 0, 0x10, "Metadata SGL Length Invalid";
    SGL_DESCRIPTOR_TYPE_INVALID = 0, 0x11, "SGL Descriptor Type Invalid";
    INVALID_USE_OF_CONTROLLER_MEMORY_BUFFER = 0, 0x12, "Invalid Use of Controller Memory Buffer";
    PRP_OFFSET_INVALID = 0, 0x13, "PRP Offset Invalid";
    ATOMIC_WRITE_UNIT_EXCEEDED = 0, 0x14, "Atomic Write Unit Exceeded";
    OPERATION_DENIED = 0, 0x15, "Operation Denied";
    SGL_OFFSET_INVALID = 0, 0x16, "SGL Offset Invalid";
    HOST_IDENTIFIER_INCONSISTENT_FORMAT = 0, 0x18, "Host Identifier Inconsistent Format";
    KEEP_ALIVE_TIMER_EXPIRED = 0, 0x19, "Keep Alive Timer Expired";
    KEEP_ALIVE_TIMEOUT_INVALID = 0, 0x1a, "Keep Alive Timeout Invalid";
    ABORTED_PREEMPT_AND_ABORT = 0, 0x1b, "Command Aborted due to Preempt and Abort";
    SANITIZE_FAILED = 0, 0x1c, "Sanitize Failed";
    SANITIZE_IN_PROGRESS = 0, 0x1d, "Sanitize In Progress";
    SGL_DATA_BLOCK_GRANULARITY_INVALID = 0, 0x1e, "SGL Data Block Granularity Invalid";
    COMMAND_NOT_SUPPORTED_FOR_QUEUE_IN_CMB = 0, 0x1f, "Command Not Supported for Queue in CMB";
    NAMESPACE_IS_WRITE_PROTECTED = 0, 0x20, "Namespace is Write Protected";
    COMMAND_INTERRUPTED = 0, 0x21, "Command Interrupted";
    TRANSIENT_TRANSPORT_ERROR = 0, 0x22, "Transient Transport Error";
    COMMAND_PROHIBITED_BY_LOCKDOWN = 0, 0x23, "Command Prohibited by Command and Feature Lockdown";
    ADMIN_COMMAND_MEDIA_NOT_READY = 0, 0x24, "Admin Command Media Not Ready";
    INVALID_KEY_TAG = 0, 0x25, "Invalid Key Tag";
    HOST_DISPERSED_NAMESPACE_SUPPORT_NOT_ENABLED = 0, 0x26, "Host Dispersed Namespace Support Not Enabled";
    HOST_IDENTIFIER_NOT_INITIALIZED = 0, 0x27, "Host Identifier Not Initialized";
    INCORRECT_KEY = 0, 0x28, "Incorrect Key";
    FDP_DISABLED = 0, 0x29, "FDP Disabled";
    INVALID_PLACEMENT_HANDLE_LIST = 0, 0x2a, "Invalid Placement Handle List";
    LBA_OUT_OF_RANGE = 0, 0x80, "LBA Out of Range";
    CAPACITY_EXCEEDED = 0, 0x81, "Capacity Exceeded";
    NAMESPACE_NOT_READY = 0, 0x82, "Namespace Not Ready";
    RESERVATION_CONFLICT = 0, 0x83, "Reservation Conflict";
    FORMAT_IN_PROGRESS = 0, 0x84, "Format In Progress";
    INVALID_VALUE_SIZE = 0, 0x85, "Invalid Value Size";
    INVALID_KEY_SIZE = 0, 0x86, "Invalid Key Size";
    KV_KEY_DOES_NOT_EXIST = 0, 0x87, "KV Key Does Not Exist";
    UNRECOVERED_ERROR = 0, 0x88, "Unrecovered Error";
    KEY_EXISTS = 0, 0x89, "Key Exists";

    COMPLETION_QUEUE_INVALID = 1, 0x00, "Completion Queue Invalid";
    INVALID_QUEUE_IDENTIFIER = 1, 0x01, "Invalid Queue Identifier";
    INVALID_QUEUE_SIZE = 1, 0x02, "Invalid Queue Size";
    ABORT_COMMAND_LIMIT_EXCEEDED = 1, 0x03, "Abort Command Limit Exceeded";
    ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED = 1, 0x05, "Asynchronous Event Request Limit Exceeded";
    INVALID_FIRMWARE_SLOT = 1, 0x06, "Invalid Firmware Slot";
    INVALID_FIRMWARE_IMAGE = 1, 0x07, "Invalid Firmware Image";
    INVALID_INTERRUPT_VECTOR = 1, 0x08, "Invalid Interrupt Vector";
    INVALID_LOG_PAGE = 1, 0x09, "Invalid Log Page";
    INVALID_FORMAT = 1, 0x0a, "Invalid Format";
    FIRMWARE_NEEDS_CONVENTIONAL_RESET = 1, 0x0b, "Firmware Activation Requires Conventional Reset";
    INVALID_QUEUE_DELETION = 1, 0x0c, "Invalid Queue Deletion";
    FEATURE_NOT_SAVEABLE = 1, 0x0d, "Feature Identifier Not Saveable";
    FEATURE_NOT_CHANGEABLE = 1, 0x0e, "Feature Not Changeable";
    FEATURE_NOT_NAMESPACE_SPECIFIC = 1, 0x0f, "Feature Not Namespace Specific";
    FIRMWARE_NEEDS_SUBSYSTEM_RESET = 1, 0x10, "Firmware Activation Requires NVM Subsystem Reset";
    FIRMWARE_NEEDS_CONTROLLER_LEVEL_RESET = 1, 0x11, "Firmware Activation Requires Controller Level Reset";
    FIRMWARE_MAXIMUM_TIME_VIOLATION = 1, 0x12, "Firmware Activation Requires Maximum Time Violation";
    FIRMWARE_ACTIVATION_PROHIBITED = 1, 0x13, "Firmware Activation Prohibited";
    OVERLAPPING_RANGE = 1, 0x14, "Overlapping Range";
    NAMESPACE_INSUFFICIENT_CAPACITY = 1, 0x15, "Namespace Insufficient Capacity";
    NAMESPACE_IDENTIFIER_UNAVAILABLE = 1, 0x16, "Namespace Identifier Unavailable";
    NAMESPACE_ALREADY_ATTACHED = 1, 0x18, "Namespace Already Attached";
    NAMESPACE_IS_PRIVATE = 1, 0x19, "Namespace Is Private";
    NAMESPACE_NOT_ATTACHED = 1, 0x1a, "Namespace Not Attached";
    THIN_PROVISIONING_NOT_SUPPORTED = 1, 0x1b, "Thin Provisioning Not Supported";
    CONTROLLER_LIST_INVALID = 1, 0x1c, "Controller List Invalid";
    DEVICE_SELF_TEST_IN_PROGRESS = 1, 0x1d, "Device Self-test In Progress";
    BOOT_PARTITION_WRITE_PROHIBITED = 1, 0x1e, "Boot Partition Write Prohibited";
    INVALID_CONTROLLER_IDENTIFIER = 1, 0x1f, "Invalid Controller Identifier";
    INVALID_SECONDARY_CONTROLLER_STATE = 1, 0x20, "Invalid Secondary Controller State";
    INVALID_NUMBER_OF_CONTROLLER_RESOURCES = 1, 0x21, "Invalid Number of Controller Resources";
    INVALID_RESOURCE_IDENTIFIER = 1, 0x22, "Invalid Resource Identifier";
    SANITIZE_PROHIBITED_WHILE_PMR_ENABLED = 1, 0x23,
        "Sanitize Prohibited While Persistent Memory Region is Enabled";
    ANA_GROUP_IDENTIFIER_INVALID = 1, 0x24, "ANA Group Identifier Invalid";
    ANA_ATTACH_FAILED = 1, 0x25, "ANA Attach Failed";
    INSUFFICIENT_CAPACITY = 1, 0x26, "Insufficient Capacity";
    NAMESPACE_ATTACHMENT_LIMIT_EXCEEDED = 1, 0x27, "Namespace Attachment Limit Exceeded";
    PROHIBITION_OF_EXECUTION_NOT_SUPPORTED = 1, 0x28, "Prohibition of Command Execution Not Supported";
    IO_COMMAND_SET_NOT_SUPPORTED = 1, 0x29, "I/O Command Set Not Supported";
    IO_COMMAND_SET_NOT_ENABLED = 1, 0x2a, "I/O Command Set Not Enabled";
    IO_COMMAND_SET_COMBINATION_REJECTED = 1, 0x2b, "I/O Command Set Combination Rejected";
    INVALID_IO_COMMAND_SET = 1, 0x2c, "Invalid I/O Command Set";
    IDENTIFIER_UNAVAILABLE = 1, 0x2d, "Identifier Unavailable";
    NAMESPACE_IS_DISPERSED = 1, 0x2e, "Namespace Is Dispersed";
    INVALID_DISCOVERY_INFORMATION = 1, 0x2f, "Invalid Discovery Information";
    ZONING_DATA_STRUCTURE_LOCKED = 1, 0x30, "Zoning Data Structure Locked";
    ZONING_DATA_STRUCTURE_NOT_FOUND = 1, 0x31, "Zoning Data Structure Not Found";
    INSUFFICIENT_DISCOVERY_RESOURCES = 1, 0x32, "Insufficient Discovery Resources";
    REQUESTED_FUNCTION_DISABLED = 1, 0x33, "Requested Function Disabled";
    ZONEGROUP_ORIGINATOR_INVALID = 1, 0x34, "ZoneGroup Originator Invalid";
    INVALID_HOST = 1, 0x35, "Invalid Host";
    INVALID_NVM_SUBSYSTEM = 1, 0x36, "Invalid NVM Subsystem";
    INVALID_CONTROLLER_DATA_QUEUE = 1, 0x37, "Invalid Controller Data Queue";
    NOT_ENOUGH_RESOURCES = 1, 0x38, "Not Enough Resources";
    CONTROLLER_SUSPENDED = 1, 0x39, "Controller Suspended";
    CONTROLLER_NOT_SUSPENDED = 1, 0x3a, "Controller Not Suspended";
    CONTROLLER_DATA_QUEUE_FULL = 1, 0x3b, "Controller Data Queue Full";
    CONFLICTING_ATTRIBUTES = 1, 0x80, "Conflicting Attributes";
    INVALID_PROTECTION_INFORMATION = 1, 0x81, "Invalid Protection Information";
    WRITE_TO_READ_ONLY_RANGE = 1, 0x82, "Attempted Write to Read Only Range";
    COMMAND_SIZE_LIMIT_EXCEEDED = 1, 0x83, "Command Size Limit Exceeded";
    INCOMPATIBLE_NAMESPACE_OR_FORMAT = 1, 0x85, "Incompatible Namespace or Format";
    FAST_COPY_NOT_POSSIBLE = 1, 0x86, "Fast Copy Not Possible";
    OVERLAPPING_IO_RANGE = 1, 0x87, "Overlapping I/O Range";
    NAMESPACE_NOT_REACHABLE = 1, 0x88, "Namespace Not Reachable";
    INVALID_ZONE_OPERATION_REQUEST = 1, 0xb6, "Invalid Zone Operation Request";
    ZRWA_RESOURCES_UNAVAILABLE = 1, 0xb7, "ZRWA Resources Unavailable";
    ZONED_BOUNDARY_ERROR = 1, 0xb8, "Zoned Boundary Error";
    ZONE_IS_FULL = 1, 0xb9, "Zone Is Full";
    ZONE_IS_READ_ONLY = 1, 0xba, "Zone Is Read Only";
    ZONE_IS_OFFLINE = 1, 0xbb, "Zone Is Offline";
    ZONE_INVALID_WRITE = 1, 0xbc, "Zone Invalid Write";
    TOO_MANY_ACTIVE_ZONES = 1, 0xbd, "Too Many Active Zones";
    TOO_MANY_OPEN_ZONES = 1, 0xbe, "Too Many Open Zones";
    INVALID_ZONE_STATE_TRANSITION = 1, 0xbf, "Invalid Zone State Transition";

    WRITE_FAULT = 2, 0x80, "Write Fault";
    UNRECOVERED_READ_ERROR = 2, 0x81, "Unrecovered Read Error";
    GUARD_CHECK_ERROR = 2, 0x82, "End-to-end Guard Check Error";
    APPLICATION_TAG_CHECK_ERROR = 2, 0x83, "End-to-end Application Tag Check Error";
    REFERENCE_TAG_CHECK_ERROR = 2, 0x84, "End-to-end Reference Tag Check Error";
    COMPARE_FAILURE = 2, 0x85, "Compare Failure";
    ACCESS_DENIED = 2, 0x86, "Access Denied";
    DEALLOCATED_OR_UNWRITTEN = 2, 0x87, "Deallocated or Unwritten Logical Block";
    STORAGE_TAG_CHECK_ERROR = 2, 0x88, "End-to-End Storage Tag Check Error";

    INTERNAL_PATH_ERROR = 3, 0x00, "Internal Path Error";
    ANA_PERSISTENT_LOSS = 3, 0x01, "Asymmetric Access Persistent Loss";
    ANA_INACCESSIBLE = 3, 0x02, "Asymmetric Access Inaccessible";
    ANA_TRANSITION = 3, 0x03, "Asymmetric Access Transition";
    CONTROLLER_PATHING_ERROR = 3, 0x60, "Controller Pathing Error";
    HOST_PATHING_ERROR = 3, 0x70, "Host Pathing Error";
    COMMAND_ABORTED_BY_HOST = 3, 0x71, "Command Aborted By Host";
}

// Base 3.3.3.2.1.3, "Command Specific Status Values, Fabrics Commands".
fabrics_statuses! {
    CONNECT_INCOMPATIBLE_FORMAT = 0x80, "Connect Incompatible Format";
    CONNECT_CONTROLLER_BUSY = 0x81, "Connect Controller Busy";
    CONNECT_INVALID_PARAMETERS = 0x82, "Connect Invalid Parameters";
    CONNECT_RESTART_DISCOVERY = 0x83, "Connect Restart Discovery";
    CONNECT_INVALID_HOST = 0x84, "Connect Invalid Host";
    INVALID_QUEUE_TYPE = 0x85, "Invalid Queue Type";
    DISCOVER_RESTART = 0x90, "Discover Restart";
    AUTHENTICATION_REQUIRED = 0x91, "Authentication Required";
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a field move inside the Status word, which every host would then misread.
    #[test]
    fn fields_lie_where_the_completion_entry_has_them() {
        let status = Status::LBA_OUT_OF_RANGE.do_not_retry();
        assert_eq!(status.bits(), 0x4080);
        assert_eq!(status.to_completion_field(), 0x8100);
        assert_eq!(Status::from_completion_field(0x8101), status);
        assert_eq!(Status::UNRECOVERED_READ_ERROR.bits(), 0x281);
        assert_eq!(Status::ANA_INACCESSIBLE.bits(), 0x302);
        assert_eq!(Status::CONNECT_INVALID_PARAMETERS.do_not_retry().bits(), 0x4182);
        assert_eq!(Status::INTERNAL_ERROR.with_retry_delay(3).more().bits(), 0x3806);
        assert_eq!(Status::INTERNAL_ERROR.with_retry_delay(2).retry_delay(), 2);
    }

    // Deleting this lets a retryable failure be taken for success because of its flags, or two codes for different.
    #[test]
    fn flags_do_not_change_what_a_status_is() {
        assert!(Status::SUCCESS.more().is_success());
        assert!(!Status::WRITE_FAULT.do_not_retry().is_success());
        assert!(Status::WRITE_FAULT.do_not_retry().is(Status::WRITE_FAULT));
        assert_ne!(Status::WRITE_FAULT.do_not_retry(), Status::WRITE_FAULT);
        assert_eq!(Status::WRITE_FAULT.more().do_not_retry().without_flags(), Status::WRITE_FAULT);
        assert!(Status::HOST_PATHING_ERROR.is_path_related());
        assert_eq!(Status::COMPARE_FAILURE.code_type(), StatusCodeType::MediaAndDataIntegrity);
    }

    // Deleting this lets logs and tools show a wrong or empty reason.
    #[test]
    fn words_are_the_specifications() {
        assert_eq!(Status::CAPACITY_EXCEEDED.to_string(), "Capacity Exceeded");
        assert_eq!(
            Status::INVALID_FIELD.do_not_retry().to_string(),
            "Invalid Field in Command (do not retry)"
        );
        assert_eq!(Status::new(7, 0xc3).to_string(), "Status Code Type 7h, Status Code c3h");
        assert_eq!(Status::CONNECT_INVALID_HOST.fabrics_words(), Some("Connect Invalid Host"));
        assert_eq!(Status::CONFLICTING_ATTRIBUTES.fabrics_words(), Some("Connect Incompatible Format"));
        assert_eq!(Status::CONFLICTING_ATTRIBUTES.words(), Some("Conflicting Attributes"));
    }
}
