//! `bdev_error_*`: a device that fails when told to, for tests.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_bdev::error::{ErrorDevice, ErrorOptions, Injection, IoType};
use sledge_nvme::Status;
use uuid::Uuid;

use super::bdev::{Named, device_error};
use crate::model::Draft;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    base_name: String,
    uuid: Option<Uuid>,
}

pub(super) fn create(draft: &mut Draft, params: Create) -> Result<Value, RpcError> {
    let base = draft.model.devices.get(&params.base_name).map_err(device_error)?;
    let options = ErrorOptions { name: None, uuid: params.uuid };
    let device = ErrorDevice::new(base, options).map_err(device_error)?;
    Ok(json!(draft.add_device(Arc::new(device)).map_err(device_error)?))
}

pub(super) fn delete(draft: &mut Draft, params: Named) -> Result<Value, RpcError> {
    params.delete::<ErrorDevice>(draft)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inject {
    name: String,
    io_type: String,
    error_type: String,
    num: Option<u64>,
    queue_depth: Option<u32>,
    corrupt_offset: Option<u64>,
    corrupt_value: Option<u8>,
    nvme_sct: Option<u8>,
    nvme_sc: Option<u8>,
}

pub(super) fn inject(draft: &mut Draft, params: Inject) -> Result<Value, RpcError> {
    let device = draft.model.devices.get_as::<ErrorDevice>(&params.name).map_err(device_error)?;
    if params.io_type == "clear" {
        draft.afterwards(move || device.clear());
        return Ok(json!(true));
    }
    let types = IoType::from_name(&params.io_type).ok_or_else(|| {
        let known = "clear, read, write, unmap, flush, write_zeroes, compare or all";
        RpcError::invalid_param("io_type", format!("{:?} is not {known}", params.io_type))
    })?;
    let injection = match params.error_type.as_str() {
        "failure" => Injection::Failure,
        "nvme_failure" => {
            Injection::NvmeFailure(Status::new(params.nvme_sct.unwrap_or(0), params.nvme_sc.unwrap_or(0)))
        }
        "pending" => Injection::Pending,
        "nomem" => Injection::NoMemory,
        "corrupt_data" => match params.corrupt_value {
            Some(value @ 1..) => Injection::CorruptData { offset: params.corrupt_offset.unwrap_or(0), value },
            _ => return Err(RpcError::invalid_param("corrupt_value", "1 to 255 is needed")),
        },
        other => {
            let known = "failure, nvme_failure, pending, corrupt_data or nomem";
            return Err(RpcError::invalid_param("error_type", format!("{other:?} is not {known}")));
        }
    };
    let (num, queue_depth) = (params.num.unwrap_or(1), params.queue_depth.unwrap_or(0));
    draft.afterwards(move || {
        // Refuses only a corruption by 0, which can't come here.
        if let Err(error) = device.inject(types, injection, num, queue_depth) {
            tracing::error!(%error, "an injection was refused");
        }
    });
    Ok(json!(true))
}

pub(super) fn resume_pending(draft: &mut Draft, params: Named) -> Result<Value, RpcError> {
    let device = draft.model.devices.get_as::<ErrorDevice>(&params.name).map_err(device_error)?;
    draft.afterwards(move || device.resume_pending());
    Ok(json!(true))
}
