//! `bdev_null_*`: devices that read zeroes and forget what is written.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_bdev::BlockDevice;
use sledge_bdev::null::{NullDevice, NullOptions};
use uuid::Uuid;

use super::bdev::{Named, device_error};
use super::params::neutral;
use crate::model::Draft;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    num_blocks: u64,
    block_size: u32,
    uuid: Option<Uuid>,
    physical_block_size: Option<u32>,
    md_size: Option<u32>,
    dif_type: Option<u32>,
    dif_is_head_of_md: Option<bool>,
    dif_pi_format: Option<u32>,
    preferred_write_alignment: Option<u32>,
    preferred_write_granularity: Option<u32>,
    optimal_write_size: Option<u32>,
    preferred_unmap_alignment: Option<u32>,
    preferred_unmap_granularity: Option<u32>,
}

pub(super) fn create(draft: &mut Draft, params: Create) -> Result<Value, RpcError> {
    neutral("physical_block_size", params.physical_block_size.filter(|size| *size != 0), params.block_size)?;
    neutral("md_size", params.md_size, 0)?;
    neutral("dif_type", params.dif_type, 0)?;
    neutral("dif_is_head_of_md", params.dif_is_head_of_md, false)?;
    neutral("dif_pi_format", params.dif_pi_format, 0)?;
    neutral("preferred_write_alignment", params.preferred_write_alignment, 0)?;
    neutral("preferred_write_granularity", params.preferred_write_granularity, 0)?;
    neutral("optimal_write_size", params.optimal_write_size, 0)?;
    neutral("preferred_unmap_alignment", params.preferred_unmap_alignment, 0)?;
    neutral("preferred_unmap_granularity", params.preferred_unmap_granularity, 0)?;
    let options = NullOptions {
        name: params.name,
        uuid: params.uuid,
        num_blocks: params.num_blocks,
        block_size: params.block_size,
    };
    let device = NullDevice::new(options).map_err(device_error)?;
    Ok(json!(draft.add_device(Arc::new(device)).map_err(device_error)?))
}

/// SPDK's unit of the new size.
const MIB: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resize {
    name: String,
    /// In MiB.
    new_size: u64,
}

pub(super) fn resize(draft: &mut Draft, params: Resize) -> Result<Value, RpcError> {
    let device = draft.model.devices.get_as::<NullDevice>(&params.name).map_err(device_error)?;
    let too_large = || RpcError::invalid_param("new_size", format!("{} MiB is too large", params.new_size));
    let bytes = params.new_size.checked_mul(MIB).ok_or_else(too_large)?;
    let undo = device.resize(bytes / u64::from(device.geometry().block_bytes)).map_err(device_error)?;
    draft.resized(device, undo)?;
    Ok(json!(true))
}

pub(super) fn delete(draft: &mut Draft, params: Named) -> Result<Value, RpcError> {
    params.delete::<NullDevice>(draft)
}
