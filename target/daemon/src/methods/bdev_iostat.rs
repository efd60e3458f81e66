//! `bdev_get_iostat`, `bdev_reset_iostat`: what devices have done, and counting it anew.
//!
//! Counters belong to no configuration: resetting them is not a change, and they end with the process.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sledge_bdev::statistics::{Reset, sum};
use sledge_bdev::{BlockDevice, DeviceStatistics};

use super::bdev::device_error;
use super::framework::thread_id;
use crate::daemon::{Daemon, TICK_RATE};
use crate::rpc::error::RpcError;

/// What to count anew, in SPDK's words.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    None,
    Maxmin,
    Error,
    All,
}

impl From<Mode> for Reset {
    fn from(mode: Mode) -> Reset {
        match mode {
            Mode::None => Reset::Nothing,
            Mode::Maxmin => Reset::Longest,
            Mode::Error => Reset::Failures,
            Mode::All => Reset::All,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Get {
    name: Option<String>,
    names: Option<Vec<String>>,
    per_channel: Option<bool>,
    reset_mode: Option<Mode>,
}

pub(super) async fn get(daemon: Arc<Daemon>, params: Get) -> Result<Value, RpcError> {
    if params.name.is_some() && params.names.is_some() {
        return Err(RpcError::invalid_param("names", "give either name or names"));
    }
    let names = params.names.or_else(|| Some(vec![params.name?]));
    let reset = Reset::from(params.reset_mode.unwrap_or(Mode::None));
    let chosen = chosen(&daemon, names.as_deref())?;
    let mut report = json!({"tick_rate": TICK_RATE, "ticks": daemon.ticks()});
    if !params.per_channel.unwrap_or(false) {
        let rows = chosen.iter().map(|device| {
            let mut row = counted(&sum(&device.counters().take(reset)));
            row.insert("name".into(), json!(device.name()));
            Value::Object(row)
        });
        report["bdevs"] = rows.collect();
        return Ok(report);
    }
    let (Some(_), [device]) = (names, &chosen[..]) else {
        return Err(RpcError::invalid_param("per_channel", "is for one device: name it"));
    };
    // A reactor's channels to a device are one here: they share its thread, and come and go with its hosts.
    let channels = device.counters().take(reset).into_iter().map(|(reactor, done)| {
        let mut row = counted(&done);
        row.insert("thread_id".into(), json!(thread_id(reactor)));
        Value::Object(row)
    });
    report["name"] = json!(device.name());
    report["channels"] = channels.collect();
    Ok(report)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Zero {
    name: Option<String>,
    mode: Option<Mode>,
}

pub(super) async fn reset(daemon: Arc<Daemon>, params: Zero) -> Result<Value, RpcError> {
    let names = params.name.map(|name| vec![name]);
    for device in chosen(&daemon, names.as_deref())? {
        device.counters().take(params.mode.unwrap_or(Mode::All).into());
    }
    Ok(json!(true))
}

/// The devices of those names, or all.
fn chosen(daemon: &Daemon, names: Option<&[String]>) -> Result<Vec<Arc<dyn BlockDevice>>, RpcError> {
    let devices = daemon.devices();
    match names {
        None => Ok(devices.list()),
        Some(names) => {
            names.iter().map(|name| devices.get(name)).collect::<Result<_, _>>().map_err(device_error)
        }
    }
}

/// Counters in SPDK's names. Times are in ticks, which here are nanoseconds.
fn counted(done: &DeviceStatistics) -> Map<String, Value> {
    let mut row = Map::new();
    for (what, counted, bytes) in [
        ("read", done.reads, "bytes_read"),
        ("write", done.writes, "bytes_written"),
        ("unmap", done.deallocates, "bytes_unmapped"),
        ("flush", done.flushes, ""),
        ("write_zeroes", done.write_zeroes, ""),
        ("compare", done.compares, ""),
    ] {
        row.insert(format!("num_{what}_ops"), json!(counted.operations));
        if !bytes.is_empty() {
            row.insert(bytes.into(), json!(counted.bytes));
        }
        row.insert(format!("{what}_latency_ticks"), json!(counted.nanoseconds));
        row.insert(format!("max_{what}_latency_ticks"), json!(counted.longest_nanoseconds));
        row.insert(format!("num_{what}_errors"), json!(counted.failures));
    }
    row
}
