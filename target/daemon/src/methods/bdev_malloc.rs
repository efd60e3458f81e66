//! `bdev_malloc_*`: devices in memory.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_bdev::malloc::{MallocDevice, MallocOptions};
use uuid::Uuid;

use super::bdev::{Named, device_error};
use super::params::neutral;
use crate::model::Draft;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: Option<String>,
    num_blocks: u64,
    block_size: u32,
    uuid: Option<Uuid>,
    physical_block_size: Option<u32>,
    optimal_io_boundary: Option<u32>,
    md_size: Option<u32>,
    md_interleave: Option<bool>,
    dif_type: Option<u32>,
    dif_is_head_of_md: Option<bool>,
    dif_pi_format: Option<u32>,
    numa_id: Option<i32>,
    /// Not in SPDK, whose memory always is in huge pages.
    hugepages: Option<bool>,
}

pub(super) fn create(draft: &mut Draft, params: Create) -> Result<Value, RpcError> {
    neutral("physical_block_size", params.physical_block_size.filter(|size| *size != 0), params.block_size)?;
    neutral("md_size", params.md_size, 0)?;
    neutral("md_interleave", params.md_interleave, false)?;
    neutral("dif_type", params.dif_type, 0)?;
    neutral("dif_is_head_of_md", params.dif_is_head_of_md, false)?;
    neutral("dif_pi_format", params.dif_pi_format, 0)?;
    neutral("numa_id", params.numa_id, -1)?;
    let options = MallocOptions {
        name: params.name.unwrap_or_else(|| draft.model.devices.free_name("Malloc")),
        uuid: params.uuid,
        num_blocks: params.num_blocks,
        block_size: params.block_size,
        optimal_io_boundary: params.optimal_io_boundary.unwrap_or(0),
        hugepages: params.hugepages.unwrap_or(false),
    };
    let device = MallocDevice::new(options).map_err(device_error)?;
    Ok(json!(draft.add_device(Arc::new(device)).map_err(device_error)?))
}

pub(super) fn delete(draft: &mut Draft, params: Named) -> Result<Value, RpcError> {
    params.delete::<MallocDevice>(draft)
}
