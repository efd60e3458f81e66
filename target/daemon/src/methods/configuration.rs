//! `save_config`, `load_config`, `load_subsystem_config`: the whole configuration at once.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::bdev::Nothing;
use super::params::decode;
use crate::config::document::Document;
use crate::config::load::{self, Fault};
use crate::daemon::Daemon;
use crate::model::save;
use crate::rpc::error::RpcError;

pub(super) async fn save(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    Ok(save::config(&daemon.model()))
}

/// The parameters are the configuration itself, or a file's name and text: what is wrong is then said with its line.
pub(super) async fn load(daemon: Arc<Daemon>, params: Value) -> Result<Value, RpcError> {
    if params.get("text").is_some() {
        return load_text(&daemon, decode(params)?).await;
    }
    let entries = load::entries(&params).map_err(named)?;
    load::load(&daemon, entries).await.map_err(named)?;
    Ok(json!(true))
}

/// Not in SPDK, whose clients read the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// As the user named it; it is not opened.
    file: PathBuf,
    text: String,
}

async fn load_text(daemon: &Daemon, File { file, text }: File) -> Result<Value, RpcError> {
    let document = Document::parse(&file, text.into_bytes())
        .map_err(|error| RpcError { message: error.to_string(), ..RpcError::parse("") })?;
    let located = |fault: Fault| {
        let message = document.error(&fault.path, fault.error.message.as_str()).to_string();
        RpcError { message, ..fault.error }
    };
    let entries = load::entries(document.value()).map_err(located)?;
    load::load(daemon, entries).await.map_err(located)?;
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
