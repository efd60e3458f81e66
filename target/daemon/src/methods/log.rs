//! `log_*`: what goes to the log.

use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::bdev::Nothing;
use crate::daemon::Daemon;
use crate::logging::Level;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetLevel {
    level: String,
}

/// There is one log, so SPDK's two levels are one.
pub(super) async fn set_level(daemon: Arc<Daemon>, params: SetLevel) -> Result<Value, RpcError> {
    let level = Level::from_str(&params.level).map_err(|reason| RpcError::invalid_param("level", reason))?;
    daemon.log().set_level(level);
    Ok(json!(true))
}

pub(super) async fn get_level(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    Ok(json!(daemon.log().level().name()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Flag {
    flag: String,
}

pub(super) async fn set_flag(daemon: Arc<Daemon>, params: Flag) -> Result<Value, RpcError> {
    change(&daemon, &params.flag, true)
}

pub(super) async fn clear_flag(daemon: Arc<Daemon>, params: Flag) -> Result<Value, RpcError> {
    change(&daemon, &params.flag, false)
}

fn change(daemon: &Daemon, flag: &str, on: bool) -> Result<Value, RpcError> {
    daemon.log().set_flag(flag, on).map_err(|reason| RpcError::invalid_param("flag", reason))?;
    Ok(json!(true))
}

pub(super) async fn get_flags(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    Ok(json!(daemon.log().flags()))
}
