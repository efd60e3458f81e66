//! `save_config`, `load_config`, `load_subsystem_config`: the whole configuration at once.

use std::sync::Arc;

use serde_json::{Value, json};

use super::bdev::Nothing;
use crate::config::load::{self, Fault};
use crate::daemon::Daemon;
use crate::model::save;
use crate::rpc::error::RpcError;

pub(super) async fn save(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    Ok(save::config(&daemon.model()))
}

/// The parameters are the configuration itself.
pub(super) async fn load(daemon: Arc<Daemon>, config: Value) -> Result<Value, RpcError> {
    let entries = load::entries(&config).map_err(named)?;
    load::load(&daemon, entries).await.map_err(named)?;
    Ok(json!(true))
}

pub(super) async fn load_subsystem(daemon: Arc<Daemon>, config: Value) -> Result<Value, RpcError> {
    let mut entries = Vec::new();
    load::subsystem_entries(&config, &[], &mut entries).map_err(named)?;
    load::load(&daemon, entries).await.map_err(named)?;
    Ok(json!(true))
}

fn named(fault: Fault) -> RpcError {
    let message = format!("{}: {}", fault.place(), fault.error.message);
    RpcError { message, ..fault.error }
}
