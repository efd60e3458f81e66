//! Opcodes of the Admin, NVM and Fabrics command sets.
//!
//! Owns the numbers. Invariant: a number that is not listed is unknown here, and a controller answers it with
//! `INVALID_OPCODE`. The command constructors and the target's dispatch use them.

use crate::wire::wire_enum;

wire_enum! {
    /// Admin command opcodes (Base 5, "Opcodes for Admin Commands").
    pub enum Admin: u8 {
        DeleteIoSubmissionQueue = 0x00, "Delete I/O Submission Queue";
        CreateIoSubmissionQueue = 0x01, "Create I/O Submission Queue";
        GetLogPage = 0x02, "Get Log Page";
        DeleteIoCompletionQueue = 0x04, "Delete I/O Completion Queue";
        CreateIoCompletionQueue = 0x05, "Create I/O Completion Queue";
        Identify = 0x06, "Identify";
        Abort = 0x08, "Abort";
        SetFeatures = 0x09, "Set Features";
        GetFeatures = 0x0a, "Get Features";
        AsynchronousEventRequest = 0x0c, "Asynchronous Event Request";
        NamespaceManagement = 0x0d, "Namespace Management";
        FirmwareCommit = 0x10, "Firmware Commit";
        FirmwareImageDownload = 0x11, "Firmware Image Download";
        DeviceSelfTest = 0x14, "Device Self-test";
        NamespaceAttachment = 0x15, "Namespace Attachment";
        KeepAlive = 0x18, "Keep Alive";
        DirectiveSend = 0x19, "Directive Send";
        DirectiveReceive = 0x1a, "Directive Receive";
        VirtualizationManagement = 0x1c, "Virtualization Management";
        NvmeMiSend = 0x1d, "NVMe-MI Send";
        NvmeMiReceive = 0x1e, "NVMe-MI Receive";
        CapacityManagement = 0x20, "Capacity Management";
        Lockdown = 0x24, "Lockdown";
        DoorbellBufferConfig = 0x7c, "Doorbell Buffer Config";
        Fabrics = 0x7f, "Fabrics Commands";
        FormatNvm = 0x80, "Format NVM";
        SecuritySend = 0x81, "Security Send";
        SecurityReceive = 0x82, "Security Receive";
        Sanitize = 0x84, "Sanitize";
        GetLbaStatus = 0x86, "Get LBA Status";
    }
}

wire_enum! {
    /// I/O command opcodes of the NVM command set (NVM 3.2, "Opcodes for NVM Commands").
    pub enum Nvm: u8 {
        Flush = 0x00, "Flush";
        Write = 0x01, "Write";
        Read = 0x02, "Read";
        WriteUncorrectable = 0x04, "Write Uncorrectable";
        Compare = 0x05, "Compare";
        WriteZeroes = 0x08, "Write Zeroes";
        DatasetManagement = 0x09, "Dataset Management";
        Verify = 0x0c, "Verify";
        ReservationRegister = 0x0d, "Reservation Register";
        ReservationReport = 0x0e, "Reservation Report";
        ReservationAcquire = 0x11, "Reservation Acquire";
        IoManagementReceive = 0x12, "I/O Management Receive";
        ReservationRelease = 0x15, "Reservation Release";
        Cancel = 0x18, "Cancel";
        Copy = 0x19, "Copy";
        IoManagementSend = 0x1d, "I/O Management Send";
        Fabrics = 0x7f, "Fabrics Commands";
    }
}

/// Opcode of every Fabrics command (Base 6); the Fabrics Command Type tells them apart.
pub const FABRICS: u8 = 0x7f;

wire_enum! {
    /// Fabrics Command Type (FCTYPE, Base 6, "Fabrics Command Type").
    pub enum FabricsType: u8 {
        PropertySet = 0x00, "Property Set";
        Connect = 0x01, "Connect";
        PropertyGet = 0x04, "Property Get";
        AuthenticationSend = 0x05, "Authentication Send";
        AuthenticationReceive = 0x06, "Authentication Receive";
        Disconnect = 0x08, "Disconnect";
    }
}

wire_enum! {
    /// Direction of a command's data: the low two bits of its opcode, or of its FCTYPE for Fabrics commands
    /// (Base 5 and 6, "Data Transfer").
    pub enum DataTransfer: u8 {
        None = 0, "no data transfer";
        HostToController = 1, "host to controller";
        ControllerToHost = 2, "controller to host";
        Bidirectional = 3, "bidirectional";
    }
}

impl DataTransfer {
    /// The direction that an opcode (or a Fabrics Command Type) declares.
    #[must_use]
    pub const fn of(opcode: u8) -> Self {
        match opcode & 0x3 {
            0 => Self::None,
            1 => Self::HostToController,
            2 => Self::ControllerToHost,
            _ => Self::Bidirectional,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets an opcode's number change unnoticed.
    #[test]
    fn numbers_round_trip() {
        for &opcode in Admin::ALL {
            assert_eq!(Admin::from_value(opcode.value()), Some(opcode));
        }
        for &opcode in Nvm::ALL {
            assert_eq!(Nvm::from_value(opcode.value()), Some(opcode));
        }
        assert_eq!(Admin::Identify.value(), 6);
        assert_eq!(Nvm::Read.value(), 2);
        assert_eq!(Admin::from_value(0x03), None);
    }

    // Deleting this lets data flow in the wrong direction for a command.
    #[test]
    fn direction_follows_the_low_bits() {
        assert_eq!(DataTransfer::of(Nvm::Write.value()), DataTransfer::HostToController);
        assert_eq!(DataTransfer::of(Nvm::Read.value()), DataTransfer::ControllerToHost);
        assert_eq!(DataTransfer::of(Nvm::WriteZeroes.value()), DataTransfer::None);
        assert_eq!(DataTransfer::of(FabricsType::Connect.value()), DataTransfer::HostToController);
        assert_eq!(DataTransfer::of(FabricsType::PropertyGet.value()), DataTransfer::None);
    }
}
