//! `framework_*`: the state of the process as a whole.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_reactor::message::Handle;
use sledge_reactor::options::Wait;

use super::bdev::Nothing;
use crate::daemon::{Daemon, TICK_RATE};
use crate::model::save;
use crate::rpc::error::RpcError;

/// How long a reactor may take to report: a busy one does not hold up the answer about the others.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) async fn get_reactors(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    // All are asked at once, then awaited in turn.
    let asked: Vec<_> = daemon.reactors().iter().map(|handle| tokio::spawn(report(handle.clone()))).collect();
    let mut reports = Vec::new();
    for report in asked {
        reports.push(report.await.map_err(RpcError::internal)?);
    }
    Ok(json!({
        "tick_rate": TICK_RATE,
        "ticks": daemon.ticks(),
        "pid": std::process::id(),
        "reactors": reports,
    }))
}

async fn report(handle: Handle) -> Value {
    let Ok(Ok(counts)) = tokio::time::timeout(REPORT_TIMEOUT, handle.statistics()).await else {
        return json!({"id": handle.id(), "responding": false});
    };
    let pollers: Vec<Value> = counts
        .pollers
        .iter()
        .map(|poller| json!({"name": poller.name, "runs": poller.runs, "work": poller.work}))
        .collect();
    json!({
        "id": counts.id,
        "responding": true,
        "lcore": counts.core.map_or(Value::Null, Value::from),
        "tid": Value::Null,
        "busy": counts.busy_ns,
        "idle": counts.idle_ns,
        "in_interrupt": false,
        "irq": 0,
        "sys": 0,
        "lw_threads": [],
        "wait": if counts.wait == Wait::Busy { "busy" } else { "adaptive" },
        "turns": counts.turns,
        "tasks": counts.tasks,
        "messages": counts.messages,
        "events": counts.events,
        "pollers": pollers,
        "memory": {
            "total_bytes": counts.pool.total_bytes,
            "used_bytes": counts.pool.used_bytes,
            "used_buffers": counts.pool.used_buffers,
            "refused": counts.pool.refused,
            "backing": counts.pool.backing.to_string(),
        },
    })
}

pub(super) async fn get_subsystems(_: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    let list = save::SUBSYSTEMS.iter();
    Ok(list.map(|(name, needs)| json!({"subsystem": name, "depends_on": needs})).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetConfig {
    name: String,
    /// Batches are not saved, so there is nothing to flatten.
    #[serde(rename = "with_batches")]
    _with_batches: Option<bool>,
}

pub(super) async fn get_config(daemon: Arc<Daemon>, params: GetConfig) -> Result<Value, RpcError> {
    save::subsystem_config(&daemon.model(), &params.name)
        .map(Value::from)
        .ok_or_else(|| RpcError::invalid_param("name", format!("{:?} is not bdev or nvmf", params.name)))
}

pub(super) async fn start_init(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    daemon.mark_started();
    Ok(json!(true))
}

pub(super) async fn wait_init(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    daemon.wait_started().await;
    Ok(json!(true))
}
