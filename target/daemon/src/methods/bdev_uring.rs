//! `bdev_uring_*`: files and kernel block devices, through io_uring. `bdev_aio_*`, which SPDK configurations
//! use for the same, gives the same device.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_bdev::BlockDevice;
use sledge_bdev::uring::{UringDevice, UringOptions};
use uuid::Uuid;

use super::bdev::{Named, device_error};
use super::params::neutral;
use crate::model::Draft;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    filename: PathBuf,
    name: String,
    block_size: Option<u32>,
    uuid: Option<Uuid>,
    /// Not in SPDK: makes the file, sparse and with so many bytes, if there is none.
    create_bytes: Option<u64>,
}

pub(super) fn create(draft: &mut Draft, params: Create) -> Result<Value, RpcError> {
    let made = params.create_bytes.filter(|_| !params.filename.exists());
    let made = made.map(|bytes| (params.filename.clone(), bytes));
    let options = UringOptions {
        name: params.name,
        uuid: params.uuid,
        filename: params.filename,
        // SPDK's configurations have 0 where the file's own block size is meant.
        block_size: params.block_size.filter(|size| *size != 0),
        create_bytes: params.create_bytes,
    };
    let opened = UringDevice::open(options);
    if let Some((file, bytes)) = made {
        draft.undo_by(move || unmake(&file, bytes));
    }
    let device = opened.map_err(device_error)?;
    Ok(json!(draft.add_device(Arc::new(device)).map_err(device_error)?))
}

/// Removes a file that was made for a device which is not made after all: found there the next time, it would be taken
/// as it is, whatever size is wanted then. Only if it still is as it was made, without content.
fn unmake(file: &Path, bytes: u64) {
    if std::fs::symlink_metadata(file).is_ok_and(|it| it.is_file() && it.len() == bytes && it.blocks() == 0) {
        let _ = std::fs::remove_file(file);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateAio {
    filename: PathBuf,
    name: String,
    block_size: Option<u32>,
    uuid: Option<Uuid>,
    readonly: Option<bool>,
    #[serde(rename = "fallocate")]
    _fallocate: Option<bool>,
    nowait: Option<bool>,
}

pub(super) fn create_aio(draft: &mut Draft, params: CreateAio) -> Result<Value, RpcError> {
    neutral("readonly", params.readonly, false)?;
    neutral("nowait", params.nowait, false)?;
    let CreateAio { filename, name, block_size, uuid, .. } = params;
    create(draft, Create { filename, name, block_size, uuid, create_bytes: None })
}

pub(super) fn rescan(draft: &mut Draft, params: Named) -> Result<Value, RpcError> {
    let device = draft.model.devices.get_as::<UringDevice>(&params.name).map_err(device_error)?;
    let before = device.geometry();
    let undo = device.rescan().map_err(device_error)?;
    if device.geometry() != before {
        draft.resized(device, undo)?;
    }
    Ok(json!(true))
}

pub(super) fn delete(draft: &mut Draft, params: Named) -> Result<Value, RpcError> {
    params.delete::<UringDevice>(draft)
}
