//! Admin commands of the user's to NVMe controllers: `bdev_nvme_send_cmd`, health, firmware.
//!
//! Invariant: a command that can change or destroy what a device holds, or take the controller away, is sent only when
//! none of the controller's devices is in use, or with `force`; one that would take the queues, events or the
//! connection from the target is never sent.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_bdev::nvme::{AdminData, Controllers, NvmeDevice};
use sledge_bdev::{BlockDevice, Claim};
use sledge_nvme::command::BROADCAST_NSID;
use sledge_nvme::log_page::{HealthLog, LogPage};
use sledge_nvme::opcode::{Admin, DataTransfer};
use sledge_nvme::{Command, Status};
use zerocopy::{FromBytes, IntoBytes};

use super::base64;
use super::bdev::device_error;
use super::bdev_nvme::nvme_error;
use crate::daemon::Daemon;
use crate::rpc::error::RpcError;

/// Most bytes of data in one command.
const MAX_DATA_BYTES: usize = 1 << 20;

/// The longest that a command may take: formats take hours.
const LONGEST_COMMAND: Duration = Duration::from_secs(24 * 3600);

/// What may come of an admin command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Danger {
    /// It reads.
    None,
    /// It changes something that others may rely on.
    Changes,
    /// The target would lose the controller.
    Never,
}

/// Commands that only read are listed, and so are those that are never sent: all others may change something.
fn danger(opcode: u8) -> Danger {
    match Admin::from_value(opcode) {
        Some(Admin::Identify | Admin::GetLogPage | Admin::GetFeatures | Admin::GetLbaStatus) => Danger::None,
        Some(Admin::DeviceSelfTest | Admin::DirectiveReceive | Admin::NvmeMiReceive) => Danger::None,
        Some(
            Admin::DeleteIoSubmissionQueue
            | Admin::CreateIoSubmissionQueue
            | Admin::DeleteIoCompletionQueue
            | Admin::CreateIoCompletionQueue
            | Admin::Abort
            | Admin::AsynchronousEventRequest
            | Admin::KeepAlive
            | Admin::DoorbellBufferConfig
            | Admin::Fabrics,
        ) => Danger::Never,
        _ => Danger::Changes,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SendCommand {
    name: String,
    cmd_type: String,
    data_direction: String,
    cmdbuf: String,
    data: Option<String>,
    metadata: Option<String>,
    data_len: Option<usize>,
    metadata_len: Option<usize>,
    timeout_ms: Option<u64>,
    /// Not in SPDK: send it although a device of the controller is in use.
    force: Option<bool>,
}

pub(super) async fn send_cmd(daemon: Arc<Daemon>, params: SendCommand) -> Result<Value, RpcError> {
    if params.cmd_type != "admin" {
        let reason = format!("{:?} is not supported, only admin", params.cmd_type);
        return Err(RpcError::invalid_param("cmd_type", reason));
    }
    if params.metadata.is_some() || params.metadata_len.is_some_and(|length| length != 0) {
        return Err(RpcError::invalid_param("metadata", "admin commands have none"));
    }
    let wrong = |name: &str| RpcError::invalid_param(name, "is not base64");
    let bytes = base64::decode(&params.cmdbuf).ok_or_else(|| wrong("cmdbuf"))?;
    let command = Command::read_from_bytes(&bytes).map_err(|_| {
        RpcError::invalid_param("cmdbuf", format!("has {} bytes, where a command has 64", bytes.len()))
    })?;
    let length = params.data_len.unwrap_or(0);
    let data = match params.data_direction.as_str() {
        "c2h" if length == 0 => AdminData::None,
        "c2h" if length <= MAX_DATA_BYTES => AdminData::In(length.next_multiple_of(4)),
        "h2c" => match &params.data {
            None => AdminData::None,
            Some(text) => match base64::decode(text).ok_or_else(|| wrong("data"))? {
                data if data.is_empty() => AdminData::None,
                data if data.len() <= MAX_DATA_BYTES => AdminData::Out(data),
                _ => return Err(RpcError::invalid_param("data", "has more than 1 MiB")),
            },
        },
        "c2h" => return Err(RpcError::invalid_param("data_len", "is more than 1 MiB")),
        other => {
            return Err(RpcError::invalid_param("data_direction", format!("{other:?} is not c2h or h2c")));
        }
    };
    let moves = match data {
        AdminData::None => DataTransfer::None,
        AdminData::In(_) => DataTransfer::ControllerToHost,
        AdminData::Out(_) => DataTransfer::HostToController,
    };
    let declared = DataTransfer::of(command.opcode);
    if moves != DataTransfer::None && moves != declared {
        let reason = format!("opcode {:#04x} moves its data the other way", command.opcode);
        return Err(RpcError::invalid_param("data_direction", reason));
    }
    let _claims = guard(&daemon, &params.name, command.opcode, params.force.unwrap_or(false))?;
    let limit = params.timeout_ms.filter(|limit| *limit != 0);
    let limit = limit.map(|limit| Duration::from_millis(limit).min(LONGEST_COMMAND));
    let inward = matches!(data, AdminData::In(_));
    let controllers = daemon.model().nvme.controllers.clone();
    let answer = controllers.admin(&params.name, command, data, limit).await.map_err(nvme_error)?;
    let mut result = json!({"cpl": base64::encode(answer.completion.as_bytes())});
    if inward {
        result["data"] = json!(base64::encode(&answer.data[..length.min(answer.data.len())]));
    }
    Ok(result)
}

/// Checks that a command may be sent to a controller, and keeps its devices from being used until it has ended.
fn guard(daemon: &Daemon, name: &str, opcode: u8, force: bool) -> Result<Vec<Claim>, RpcError> {
    match danger(opcode) {
        Danger::None => return Ok(Vec::new()),
        Danger::Changes if force => return Ok(Vec::new()),
        Danger::Never => {
            let reason = format!("opcode {opcode:#04x} would take the controller from the target");
            return Err(RpcError::invalid_param("cmdbuf", reason));
        }
        Danger::Changes => {}
    }
    let devices = daemon.devices();
    let own = daemon.model().nvme.controllers.devices(name).map_err(nvme_error)?;
    // One that could not be registered is used by nobody.
    let registered = own.iter().filter(|device| devices.get(device.name()).is_ok());
    let claims = registered.map(|device| devices.claim(device.name(), "an admin command"));
    claims.collect::<Result<Vec<_>, _>>().map_err(|error| {
        let reason =
            format!("{error}, as opcode {opcode:#04x} may change what the controller holds; or give force");
        RpcError::errno(error.errno(), "Device or resource busy", reason)
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Health {
    name: String,
}

/// Kelvins at 0 degrees Celsius, rounded as SPDK rounds.
const FREEZING: i64 = 273;

pub(super) async fn get_health(daemon: Arc<Daemon>, params: Health) -> Result<Value, RpcError> {
    let controllers = daemon.model().nvme.controllers.clone();
    let report = controllers.list(Some(&params.name)).map_err(nvme_error)?;
    let log = health(&controllers, &params.name).await?;
    let about = report.first().and_then(|controller| controller.ctrlrs.first());
    Ok(json!({
        "model_number": about.map(|about| &about.model_number),
        "serial_number": about.map(|about| &about.serial_number),
        "firmware_revision": about.map(|about| &about.firmware_revision),
        "traddr": about.map(|about| &about.trid.traddr),
        "critical_warning": log.critical_warning,
        "temperature_celsius": i64::from(log.composite_temperature.get()) - FREEZING,
        "available_spare_percentage": log.available_spare,
        "available_spare_threshold_percentage": log.available_spare_threshold,
        "percentage_used": log.percentage_used,
        "data_units_read": number(log.data_units_read.get()),
        "data_units_written": number(log.data_units_written.get()),
        "host_read_commands": number(log.host_read_commands.get()),
        "host_write_commands": number(log.host_write_commands.get()),
        "controller_busy_time": number(log.controller_busy_minutes.get()),
        "power_cycles": number(log.power_cycles.get()),
        "power_on_hours": number(log.power_on_hours.get()),
        "unsafe_shutdowns": number(log.unsafe_shutdowns.get()),
        "media_errors": number(log.media_errors.get()),
        "num_err_log_entries": number(log.error_log_entries.get()),
        "warning_temperature_time_minutes": log.warning_temperature_minutes.get(),
        "critical_composite_temperature_time_minutes": log.critical_temperature_minutes.get(),
    }))
}

/// A count as a JSON number, at most the largest that one holds.
fn number(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

async fn health(controllers: &Controllers, name: &str) -> Result<HealthLog, RpcError> {
    let bytes = size_of::<HealthLog>();
    let command = Command::get_log_page(LogPage::Health.value(), BROADCAST_NSID, 0, bytes as u32);
    let answer = controllers.admin(name, command, AdminData::In(bytes), None).await.map_err(nvme_error)?;
    check("Get Log Page", answer.completion.status())?;
    HealthLog::read_from_bytes(&answer.data).map_err(|_| RpcError::internal("a health log that is too short"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyFirmware {
    filename: PathBuf,
    bdev_name: String,
}

/// Bytes of a firmware image in one command: what any drive takes.
const FIRMWARE_CHUNK: usize = 4096;
/// Largest firmware image.
const MAX_FIRMWARE_BYTES: u64 = 256 << 20;
/// How long a drive may take to store an image.
const COMMIT_LIMIT: Duration = Duration::from_secs(120);

/// Downloads a firmware image to the controller of a device that is not in use, and has it run from the next reset on.
pub(super) async fn apply_firmware(daemon: Arc<Daemon>, params: ApplyFirmware) -> Result<Value, RpcError> {
    let device = daemon.devices().get_as::<NvmeDevice>(&params.bdev_name).map_err(device_error)?;
    let name = device.controller().to_owned();
    let _claims = guard(&daemon, &name, Admin::FirmwareCommit.value(), false)?;
    let file = params.filename;
    let image =
        tokio::task::spawn_blocking(move || read_image(&file)).await.map_err(RpcError::internal)??;
    let controllers = daemon.model().nvme.controllers.clone();
    for (at, part) in image.chunks(FIRMWARE_CHUNK).enumerate() {
        let mut command = Command::new(Admin::FirmwareImageDownload.value(), 0);
        command.cdw10 = ((part.len() / 4 - 1) as u32).into();
        command.cdw11 = ((at * FIRMWARE_CHUNK / 4) as u32).into();
        let answer =
            controllers.admin(&name, command, AdminData::Out(part.to_vec()), Some(COMMIT_LIMIT)).await;
        check("Firmware Image Download", answer.map_err(nvme_error)?.completion.status())?;
    }
    // Commit Action 1: replace the image of a slot that the controller chooses, and activate it at the next reset.
    let mut command = Command::new(Admin::FirmwareCommit.value(), 0);
    command.cdw10 = (1 << 3).into();
    let answer =
        controllers.admin(&name, command, AdminData::None, Some(COMMIT_LIMIT)).await.map_err(nvme_error)?;
    let status = answer.completion.status();
    // These say that it is stored, and which reset it waits for.
    let stored = [
        Status::FIRMWARE_NEEDS_CONVENTIONAL_RESET,
        Status::FIRMWARE_NEEDS_SUBSYSTEM_RESET,
        Status::FIRMWARE_NEEDS_CONTROLLER_LEVEL_RESET,
    ];
    if !stored.iter().any(|stored| status.is(*stored)) {
        check("Firmware Commit", status)?;
    }
    Ok(json!(status.to_string()))
}

/// Reads a firmware image: a file, whose size bounds what is read.
fn read_image(path: &Path) -> Result<Vec<u8>, RpcError> {
    let unreadable = |error: std::io::Error| RpcError::system(&error, format!("{}: {error}", path.display()));
    let wrong = |reason: String| {
        RpcError::invalid_param("filename", format!("{} is no firmware image: {reason}", path.display()))
    };
    // A device or a pipe could go on for ever, or never begin.
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return Err(wrong("it is not a file".to_owned()));
    }
    let bytes = about.len();
    if bytes == 0 || bytes > MAX_FIRMWARE_BYTES || !bytes.is_multiple_of(4) {
        return Err(wrong(format!("it has {bytes} bytes")));
    }
    // As long as it has just been, whatever becomes of it meanwhile.
    let mut image = vec![0; bytes as usize];
    File::open(path).and_then(|mut file| file.read_exact(&mut image)).map_err(unreadable)?;
    Ok(image)
}

fn check(what: &str, status: Status) -> Result<(), RpcError> {
    match status.is_success() {
        true => Ok(()),
        false => Err(RpcError::errno(5, "Input/output error", format!("{what}: {status}"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    // Without it: Format, Sanitize or a firmware commit could be sent to a drive that hosts use.
    #[test]
    fn what_is_not_known_to_be_harmless_is_guarded() {
        for opcode in [0x80, 0x84, 0x10, 0x11, 0x0d, 0x15, 0x81, 0x09, 0x20, 0xc0, 0xff] {
            assert_eq!(danger(opcode), Danger::Changes, "{opcode:#x}");
        }
        for opcode in [0x00, 0x01, 0x04, 0x05, 0x08, 0x0c, 0x18, 0x7c, 0x7f] {
            assert_eq!(danger(opcode), Danger::Never, "{opcode:#x}");
        }
        for opcode in [0x02, 0x06, 0x0a] {
            assert_eq!(danger(opcode), Danger::None, "{opcode:#x}");
        }
    }

    // Without it: a device given for an image would be read until the target has no memory left.
    #[test]
    fn a_firmware_image_is_a_file_of_some_size() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let refused = |path: &Path| read_image(path).unwrap_err();
        assert_eq!(refused(file.path()).code, -32602);
        file.write_all(b"imag").unwrap();
        assert_eq!(read_image(file.path()).unwrap(), b"imag");
        file.write_all(b"e").unwrap();
        assert!(refused(file.path()).message.contains("5 bytes"));
        file.as_file().set_len(MAX_FIRMWARE_BYTES + 4).unwrap();
        assert_eq!(refused(file.path()).code, -32602);
        for path in ["/dev/zero", "/"] {
            assert!(refused(Path::new(path)).message.contains("not a file"));
        }
        assert_eq!(refused(Path::new("/no-such-file")).code, -2);
    }
}
