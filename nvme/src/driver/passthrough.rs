//! Which admin commands of users are passed on, and with how much memory.
//!
//! Owns the guard. Invariant: a command that passes can't take the driver's queues, events or doorbells from it, and the
//! memory that is named to the controller is at least as much as the command itself says that it transfers. Whether it
//! harms the data on the drive is its user's to know.

use std::time::Duration;

use super::admin::AdminBuffer;
use super::admin_memory::MAX_BYTES;
use super::error::DriverError;
use crate::command::Command;
use crate::feature::Feature;
use crate::identify::{ControllerData, IDENTIFY_BYTES};
use crate::opcode::{Admin, DataTransfer};

/// Bit 0 of AVSCC: vendor specific admin commands say in dword 10 how many dwords they transfer.
const VENDOR_LENGTHS: u8 = 1;
/// Time for commands that take long.
const LONG: Duration = Duration::from_secs(600);
/// First opcode that is a vendor's.
const VENDOR: u8 = 0xc0;

/// Makes a user's command fit to be sent.
///
/// # Errors
/// [`DriverError::Option`], saying why it is not passed on.
pub(super) fn check(
    controller: &ControllerData,
    command: Command,
    buffer: AdminBuffer,
) -> Result<(Command, AdminBuffer), DriverError> {
    let refuse = |reason: String| Err(DriverError::Option(reason));
    let opcode = Admin::from_value(command.opcode);
    if let Some(opcode) = opcode
        && is_the_drivers(opcode, &command)
    {
        return refuse(format!("{} is the driver's own to send", opcode.name()));
    }
    let direction = DataTransfer::of(command.opcode);
    let fits = match &buffer {
        AdminBuffer::None => true,
        AdminBuffer::Out(_) => direction == DataTransfer::HostToController,
        AdminBuffer::In(_) => direction == DataTransfer::ControllerToHost,
    };
    if !fits {
        return refuse(format!(
            "the data of opcode {:#04x} goes the other way, or there is none",
            command.opcode
        ));
    }
    let given = match &buffer {
        AdminBuffer::None => 0,
        AdminBuffer::Out(data) => data.len(),
        AdminBuffer::In(bytes) => *bytes,
    };
    let needed = transferred(controller, opcode, &command);
    if given > MAX_BYTES {
        return refuse(format!("{given} bytes of data: at most {MAX_BYTES} are passed on in one command"));
    }
    if (given as u64) < needed {
        return refuse(format!("the command transfers {needed} bytes, and there is room for {given}"));
    }
    // What may transfer always gets a page, which commands with optional data may use.
    let buffer = match (buffer, direction) {
        (AdminBuffer::None, DataTransfer::HostToController) => AdminBuffer::Out(Vec::new()),
        (AdminBuffer::None, DataTransfer::ControllerToHost | DataTransfer::Bidirectional) => {
            AdminBuffer::In(0)
        }
        (buffer, _) => buffer,
    };
    let mut command = Command { flags: 0, ..command }.with_prps(0, 0);
    command.mptr = 0.into();
    Ok((command, buffer))
}

/// How long a command may take when its user does not say: some have the drive erase or program all of itself.
pub(super) fn usual_limit(command: &Command, admin_timeout: Duration) -> Duration {
    match Admin::from_value(command.opcode) {
        Some(
            Admin::FormatNvm
            | Admin::NamespaceManagement
            | Admin::FirmwareCommit
            | Admin::SecuritySend
            | Admin::CapacityManagement,
        ) => admin_timeout.max(LONG),
        _ => admin_timeout,
    }
}

/// Whether namespaces may be others after this command.
pub(super) fn changes_namespaces(command: &Command) -> bool {
    matches!(
        Admin::from_value(command.opcode),
        Some(
            Admin::FormatNvm
                | Admin::NamespaceManagement
                | Admin::NamespaceAttachment
                | Admin::CapacityManagement
        )
    )
}

fn is_the_drivers(opcode: Admin, command: &Command) -> bool {
    match opcode {
        Admin::DeleteIoSubmissionQueue
        | Admin::CreateIoSubmissionQueue
        | Admin::DeleteIoCompletionQueue
        | Admin::CreateIoCompletionQueue
        | Admin::Abort
        | Admin::AsynchronousEventRequest
        | Admin::KeepAlive
        | Admin::DoorbellBufferConfig
        | Admin::Fabrics => true,
        Admin::SetFeatures => matches!(
            Feature::from_value(command.feature_identifier()),
            Some(
                Feature::NumberOfQueues
                    | Feature::InterruptCoalescing
                    | Feature::InterruptVectorConfiguration
                    | Feature::AsyncEventConfiguration
                    // It names memory that the controller keeps for itself.
                    | Feature::HostMemoryBuffer
                    | Feature::KeepAliveTimer
                    | Feature::CommandSetProfile
            )
        ),
        _ => false,
    }
}

/// Bytes that a command says it transfers; 0 where it does not say.
fn transferred(controller: &ControllerData, opcode: Option<Admin>, command: &Command) -> u64 {
    let dwords_minus_one = |field: u32| (u64::from(field) + 1) * 4;
    match opcode {
        Some(Admin::Identify | Admin::NamespaceManagement | Admin::NamespaceAttachment) => {
            IDENTIFY_BYTES as u64
        }
        Some(Admin::GetLogPage) => command.log_page_bytes(),
        Some(Admin::FirmwareImageDownload | Admin::DirectiveSend | Admin::DirectiveReceive) => {
            dwords_minus_one(command.cdw10.get())
        }
        Some(Admin::SecuritySend | Admin::SecurityReceive) => command.cdw11.get().into(),
        Some(Admin::GetLbaStatus) => dwords_minus_one(command.cdw12.get()),
        None if command.opcode >= VENDOR && controller.avscc & VENDOR_LENGTHS != 0 => {
            match DataTransfer::of(command.opcode) {
                DataTransfer::None => 0,
                _ => u64::from(command.cdw10.get()) * 4,
            }
        }
        _ => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sent(command: Command, buffer: AdminBuffer) -> Result<(Command, AdminBuffer), DriverError> {
        check(&ControllerData::new(), command, buffer)
    }

    // Deleting this lets a user's command delete the driver's queues, or have the controller write to memory that is
    // nobody's.
    #[test]
    fn commands_of_the_driver_are_refused() {
        let feature = |feature: Feature| Command::set_features(feature.value(), 0, 0);
        for command in [
            Command::delete_io_submission_queue(1),
            Command::create_io_completion_queue(1, 2, 0x1000),
            Command::async_event_request(),
            Command::abort(1, 1),
            Command::doorbell_buffer_config(0x1000, 0x2000),
            feature(Feature::NumberOfQueues),
            feature(Feature::HostMemoryBuffer),
            feature(Feature::AsyncEventConfiguration),
        ] {
            assert!(sent(command, AdminBuffer::None).is_err(), "{command:?}");
        }
        assert!(sent(feature(Feature::VolatileWriteCache), AdminBuffer::None).is_ok());
        let mut format = Command::new(Admin::FormatNvm.value(), 1);
        format.mptr = 0x1234.into();
        let (command, buffer) = sent(format, AdminBuffer::None).unwrap();
        assert_eq!((command.flags, command.mptr.get(), buffer), (0, 0, AdminBuffer::None));
    }

    // Deleting this lets the controller write past the memory that a command was given.
    #[test]
    fn memory_is_as_much_as_the_command_transfers() {
        let log = Command::get_log_page(2, u32::MAX, 0, 512);
        assert!(sent(log, AdminBuffer::In(508)).is_err());
        assert!(sent(log, AdminBuffer::None).is_err());
        assert!(sent(log, AdminBuffer::Out(vec![0; 512])).is_err());
        assert!(sent(log, AdminBuffer::In(512)).is_ok());
        assert!(sent(Command::get_log_page(2, 0, 0, 2 << 20), AdminBuffer::In(2 << 20)).is_err());
        assert!(sent(Command::identify(1, 0), AdminBuffer::In(1024)).is_err());
        let feature = Command::get_features(Feature::Timestamp.value(), 0);
        assert_eq!(sent(feature, AdminBuffer::None).unwrap().1, AdminBuffer::In(0));
        let mut vendor = Command::new(0xc2, 0);
        vendor.cdw10 = 1024.into();
        assert!(sent(vendor, AdminBuffer::In(1024)).is_ok(), "it does not say how much");
        let mut controller = ControllerData::new();
        controller.avscc = 1;
        assert!(check(&controller, vendor, AdminBuffer::In(1024)).is_err());
        assert!(check(&controller, vendor, AdminBuffer::In(4096)).is_ok());
    }
}
