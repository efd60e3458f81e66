//! `bdev_*` methods that are about all kinds of devices, and what the modules of each kind share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_bdev::{BlockDevice, DeviceError};
use sledge_nvme::io::Operation;

use crate::daemon::Daemon;
use crate::model::Draft;
use crate::rpc::error::{RpcError, Step};

/// The parameters of a method that takes a device's name and no more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    pub(super) name: String,
}

impl Named {
    /// Removes the device, which must be of kind `T`.
    pub(super) fn delete<T: BlockDevice>(self, draft: &mut Draft) -> Result<Value, RpcError> {
        let device = draft.model.devices.get_as::<T>(&self.name).map_err(device_error)?;
        draft.remove_device(device.name()).map_err(device_error)?;
        Ok(json!(true))
    }
}

/// What a client is told of a device's error.
pub(super) fn device_error(error: DeviceError) -> RpcError {
    match &error {
        DeviceError::Parameter { parameter, .. } => {
            RpcError { path: vec![Step::Key((*parameter).to_owned())], ..RpcError::invalid_params(&error) }
        }
        DeviceError::NotFound { .. } => RpcError::errno(error.errno(), "No such device", &error),
        DeviceError::Exists { .. } | DeviceError::UuidExists { .. } => {
            RpcError::errno(error.errno(), "File exists", &error)
        }
        _ => RpcError { code: -i64::from(error.errno()), message: error.to_string(), path: Vec::new() },
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetBdevs {
    name: Option<String>,
    /// Milliseconds to wait for the device to appear.
    #[serde(alias = "timeout_ms")]
    timeout: Option<u64>,
}

/// The longest that `bdev_get_bdevs` waits, so that no call waits for ever.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

pub(super) async fn get_bdevs(daemon: Arc<Daemon>, params: GetBdevs) -> Result<Value, RpcError> {
    let devices = daemon.devices();
    let Some(name) = params.name else {
        let all: Vec<Value> = devices.list().iter().map(|device| report(&daemon, device.as_ref())).collect();
        return Ok(json!(all));
    };
    let deadline = Instant::now() + Duration::from_millis(params.timeout.unwrap_or(0)).min(LONGEST_WAIT);
    loop {
        match devices.get(&name) {
            Ok(device) => return Ok(json!([report(&daemon, device.as_ref())])),
            Err(error) if Instant::now() >= deadline => return Err(device_error(error)),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn report(daemon: &Daemon, device: &dyn BlockDevice) -> Value {
    let geometry = device.geometry();
    let claimed_by = daemon.devices().claimed_by(device.name());
    let mut report = json!({
        "name": device.name(),
        "aliases": [device.uuid()],
        "product_name": device.product(),
        "block_size": geometry.block_bytes,
        "num_blocks": geometry.blocks,
        "uuid": device.uuid(),
        "optimal_io_boundary": geometry.optimal_io_blocks,
        "assigned_rate_limits": {
            "rw_ios_per_sec": 0,
            "rw_mbytes_per_sec": 0,
            "r_mbytes_per_sec": 0,
            "w_mbytes_per_sec": 0,
        },
        "claimed": claimed_by.is_some(),
        "zoned": false,
        "supported_io_types": supported(device, device.namespace_identity().is_some()),
        "driver_specific": device.description(),
    });
    if let Some(user) = claimed_by {
        report["claim_type"] = json!("exclusive_write");
        report["claimed_by"] = json!(user);
    }
    report
}

/// `passthrough`: admin commands can be sent to the controller behind it.
fn supported(device: &dyn BlockDevice, passthrough: bool) -> Value {
    let does = |operation| Value::Bool(device.supports(operation));
    json!({
        "read": does(Operation::Read),
        "write": does(Operation::Write),
        "unmap": does(Operation::Deallocate),
        "flush": does(Operation::Flush),
        "reset": false,
        "nvme_admin": passthrough,
        "nvme_io": false,
        "nvme_io_md": false,
        "write_zeroes": does(Operation::WriteZeroes { deallocate: false }),
        "zcopy": false,
        "get_zone_info": false,
        "zone_management": false,
        "zone_append": false,
        "compare": does(Operation::Compare),
        "compare_and_write": does(Operation::CompareAndWrite),
        "abort": false,
        "seek_hole": false,
        "seek_data": false,
        "copy": false,
        "nvme_iov_md": false,
    })
}

/// Sizes of SPDK's pools, which this target has otherwise; accepted because configurations begin with them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetOptions {
    #[serde(rename = "bdev_io_pool_size")]
    _bdev_io_pool_size: Option<u32>,
    #[serde(rename = "bdev_io_cache_size")]
    _bdev_io_cache_size: Option<u32>,
    #[serde(rename = "bdev_auto_examine")]
    _bdev_auto_examine: Option<bool>,
    #[serde(rename = "iobuf_small_cache_size")]
    _iobuf_small_cache_size: Option<u32>,
    #[serde(rename = "iobuf_large_cache_size")]
    _iobuf_large_cache_size: Option<u32>,
}

pub(super) fn set_options(_: &mut Draft, _: SetOptions) -> Result<Value, RpcError> {
    Ok(json!(true))
}

/// Nothing here is found by looking at devices: they are all there when their creation returns.
pub(super) fn examine(_: &mut Draft, _: Named) -> Result<Value, RpcError> {
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) fn wait_for_examine(_: &mut Draft, _: Nothing) -> Result<Value, RpcError> {
    Ok(json!(true))
}
