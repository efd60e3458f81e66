//! `bdev_delay_*`: a device that is slower than the one below, for tests.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies, LatencyKind};
use uuid::Uuid;

use super::bdev::{Named, device_error};
use crate::model::Draft;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    name: String,
    base_bdev_name: String,
    uuid: Option<Uuid>,
    avg_read_latency: u64,
    p99_read_latency: u64,
    avg_write_latency: u64,
    p99_write_latency: u64,
}

pub(super) fn create(draft: &mut Draft, params: Create) -> Result<Value, RpcError> {
    let base = draft.model.devices.get(&params.base_bdev_name).map_err(device_error)?;
    let latencies = Latencies {
        avg_read_latency: params.avg_read_latency,
        p99_read_latency: params.p99_read_latency,
        avg_write_latency: params.avg_write_latency,
        p99_write_latency: params.p99_write_latency,
    };
    let options = DelayOptions { name: params.name, uuid: params.uuid, latencies };
    let device = DelayDevice::new(base, options).map_err(device_error)?;
    Ok(json!(draft.add_device(Arc::new(device)).map_err(device_error)?))
}

pub(super) fn delete(draft: &mut Draft, params: Named) -> Result<Value, RpcError> {
    params.delete::<DelayDevice>(draft)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateLatency {
    delay_bdev_name: String,
    latency_type: String,
    latency_us: u64,
}

pub(super) fn update_latency(draft: &mut Draft, params: UpdateLatency) -> Result<Value, RpcError> {
    let device = draft.model.devices.get_as::<DelayDevice>(&params.delay_bdev_name).map_err(device_error)?;
    let kind = LatencyKind::from_name(&params.latency_type).ok_or_else(|| {
        let reason = format!("{:?} is not avg_read, p99_read, avg_write or p99_write", params.latency_type);
        RpcError::invalid_param("latency_type", reason)
    })?;
    draft.afterwards(move || device.update_latency(kind, params.latency_us));
    Ok(json!(true))
}
