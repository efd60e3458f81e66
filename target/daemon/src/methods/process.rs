//! Methods about the process and its interface: versions, the list of methods, the end.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::bdev::Nothing;
use crate::daemon::Daemon;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetMethods {
    current: Option<bool>,
    #[serde(rename = "include_aliases")]
    _include_aliases: Option<bool>,
}

pub(super) async fn get_methods(daemon: Arc<Daemon>, params: GetMethods) -> Result<Value, RpcError> {
    let only_current = params.current.unwrap_or(false);
    let started = daemon.started();
    // A method that can't be called any more is not listed at all: clients call start-up methods they see.
    let listed = super::all().filter(|method| {
        method.phase.allows(started) || (!only_current && method.phase == super::Phase::Running)
    });
    let mut names: Vec<_> = listed.map(|method| method.name).collect();
    names.sort_unstable();
    Ok(json!(names))
}

pub(super) async fn get_version(_: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    Ok(json!({
        "version": concat!("Sledge v", env!("CARGO_PKG_VERSION")),
        "fields": {
            "major": part(env!("CARGO_PKG_VERSION_MAJOR")),
            "minor": part(env!("CARGO_PKG_VERSION_MINOR")),
            "patch": part(env!("CARGO_PKG_VERSION_PATCH")),
            "suffix": "",
        },
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kill {
    sig_name: String,
}

/// Time for the answer to leave before a process that is to die does.
const LAST_WORDS: Duration = Duration::from_millis(50);

pub(super) async fn kill_instance(daemon: Arc<Daemon>, params: Kill) -> Result<Value, RpcError> {
    match params.sig_name.trim_start_matches("SIG") {
        "INT" | "TERM" | "QUIT" | "HUP" => daemon.stop(),
        "KILL" => {
            tokio::spawn(async {
                tokio::time::sleep(LAST_WORDS).await;
                std::process::abort();
            });
        }
        "USR1" => {} // makes SPDK print its traces, of which there are none here
        _ => {
            let reason =
                format!("{:?} is not SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGKILL or SIGUSR1", params.sig_name);
            return Err(RpcError::invalid_param("sig_name", reason));
        }
    }
    Ok(json!(true))
}
