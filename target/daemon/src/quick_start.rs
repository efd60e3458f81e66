//! What a target without a configuration serves: one disk in a file, for a newcomer to attach.
//!
//! The disk keeps its content and its identity over restarts. It is the one subsystem that lets any host in
//! without being told to, which is why it listens on the loopback address unless told otherwise, and says so.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

use crate::config::load::{self, Entry};
use crate::model::address;
use crate::rpc::socket::create_private_folder;

/// The disk's subsystem.
pub const NQN: &str = "nqn.2026-01.io.sledge:default";

/// Size of the disk when it is made.
const DISK_BYTES: u64 = 1 << 30;

/// Name of the block device.
const DEVICE: &str = "disk";

/// Why there is no disk to serve.
#[derive(Debug, Error)]
#[error("can't use {path}: {error}; start in another folder, or give a configuration with --config")]
pub struct QuickStartError {
    path: PathBuf,
    error: io::Error,
}

/// The disk's file in a folder.
pub fn disk_file(folder: &Path) -> PathBuf {
    folder.join("disk.img")
}

/// The calls that serve the disk.
///
/// # Errors
/// When the folder can't be written, or what is there is not ours.
pub fn entries(folder: &Path, address: SocketAddr) -> Result<Vec<Entry>, QuickStartError> {
    let uuid = identity(folder)?;
    let serial: String = uuid.simple().to_string().to_uppercase().chars().take(20).collect();
    let config = json!({"subsystems": [
        {"subsystem": "bdev", "config": [
            {"method": "bdev_uring_create", "params": {
                "name": DEVICE,
                "filename": disk_file(folder),
                "block_size": 4096,
                "uuid": uuid,
                "create_bytes": DISK_BYTES,
            }},
        ]},
        {"subsystem": "nvmf", "config": [
            {"method": "nvmf_create_transport", "params": {"trtype": "TCP"}},
            {"method": "nvmf_create_subsystem", "params": {
                "nqn": NQN,
                "serial_number": serial,
                "allow_any_host": true,
            }},
            {"method": "nvmf_subsystem_add_ns", "params": {
                "nqn": NQN,
                "namespace": {"bdev_name": DEVICE, "nsid": 1},
            }},
            {"method": "nvmf_subsystem_add_listener", "params": {
                "nqn": NQN,
                "listen_address": address::to_json(address),
            }},
        ]},
    ]});
    load::entries(&config).map_err(|fault| QuickStartError {
        path: folder.to_owned(),
        error: io::Error::other(fault.error.to_string()),
    })
}

/// The disk's identity, made up once and kept beside it.
fn identity(folder: &Path) -> Result<Uuid, QuickStartError> {
    let path = folder.join("disk.uuid");
    let wrong = |error: io::Error| QuickStartError { path: path.clone(), error };
    create_private_folder(folder).map_err(wrong)?;
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| wrong(io::Error::other("it is not a UUID"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let uuid = Uuid::new_v4();
            let new = folder.join("disk.uuid.new");
            let mut file = fs::File::create(&new).map_err(wrong)?;
            writeln!(file, "{uuid}").and_then(|()| file.sync_all()).map_err(wrong)?;
            fs::rename(&new, &path).map_err(wrong)?;
            Ok(uuid)
        }
        Err(error) => Err(wrong(error)),
    }
}

/// What a person is told: the disk, who may attach it, and the two lines to type next.
pub fn instructions(folder: &Path, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "Serving the disk {file} on {address}. Any host that reaches this address may attach it:\n\
         \n  \
         nvme discover -t tcp -a {ip} -s {port}\n  \
         nvme connect -t tcp -a {ip} -s {port} -n {NQN}\n",
        file = disk_file(folder).display(),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it: after a restart hosts would take the disk for another one.
    #[test]
    fn the_disk_keeps_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("data");
        let first = identity(&folder).unwrap();
        assert_eq!(identity(&folder).unwrap(), first);
        fs::write(folder.join("disk.uuid"), "nonsense").unwrap();
        assert!(identity(&folder).unwrap_err().to_string().contains("disk.uuid"));
    }
}
