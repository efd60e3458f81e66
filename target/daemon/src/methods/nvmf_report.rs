//! `nvmf_subsystem_get_controllers`, `nvmf_subsystem_get_qpairs`, `nvmf_get_stats`: who is connected.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_nvmf::target::definition::DISCOVERY_NQN;
use sledge_nvmf::target::{ConnectionReport, ControllerReport, SubsystemStatistics};
use uuid::Uuid;

use super::framework::in_time;
use crate::daemon::{Daemon, TICK_RATE};
use crate::model::address;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfSubsystem {
    nqn: String,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

impl OfSubsystem {
    fn check(&self, daemon: &Daemon) -> Result<(), RpcError> {
        if self.nqn == DISCOVERY_NQN { Ok(()) } else { daemon.model().subsystem(&self.nqn).map(|_| ()) }
    }
}

pub(super) async fn get_controllers(daemon: Arc<Daemon>, params: OfSubsystem) -> Result<Value, RpcError> {
    params.check(&daemon)?;
    let mut all = in_time(daemon.target().controllers()).await?;
    all.retain(|controller| controller.subsystem_nqn == params.nqn);
    all.sort_by_key(|controller| controller.controller_id);
    Ok(all.iter().map(controller).collect())
}

fn controller(report: &ControllerReport) -> Value {
    json!({
        "cntlid": report.controller_id,
        "hostnqn": report.host_nqn,
        "hostid": Uuid::from_bytes(report.host_id),
        "num_io_qpairs": report.io_queues,
        "listen_address": address::to_json(report.listener),
        "keep_alive_ms": report.keep_alive_ms,
        "reactor": report.reactor,
    })
}

pub(super) async fn get_qpairs(daemon: Arc<Daemon>, params: OfSubsystem) -> Result<Value, RpcError> {
    params.check(&daemon)?;
    let mut all = in_time(daemon.target().connections()).await?;
    all.retain(|connection| connection.subsystem_nqn == params.nqn);
    all.sort_by_key(|connection| (connection.controller_id, connection.queue_id));
    Ok(all.iter().map(queue_pair).collect())
}

/// The state in SPDK's words.
fn state(state: &str) -> &str {
    match state {
        "live" => "enabled",
        "terminating" | "draining" | "closed" => "deactivating",
        other => other,
    }
}

fn queue_pair(report: &ConnectionReport) -> Value {
    json!({
        "cntlid": report.controller_id,
        "qid": report.queue_id,
        "state": state(&report.state),
        "thread": format!("reactor_{}", report.reactor),
        "hostnqn": report.host_nqn,
        "listen_address": address::to_json(report.listener),
        "peer_address": address::to_json(report.peer),
        "queue_depth": report.entries,
        "outstanding": report.outstanding,
        "header_digest": report.header_digest,
        "data_digest": report.data_digest,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GetStats {
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

/// Commands that a subsystem has completed on one reactor.
pub(crate) fn commands(statistics: &SubsystemStatistics, reactor: u32) -> u64 {
    let counters = statistics.of_reactor(reactor);
    counters.read_commands.load(Relaxed) + counters.write_commands.load(Relaxed)
}

pub(super) async fn get_stats(daemon: Arc<Daemon>, _: GetStats) -> Result<Value, RpcError> {
    let connections = in_time(daemon.target().connections()).await?;
    let totals = in_time(daemon.target().queue_totals()).await?;
    let (model, past) = daemon.model_and_past_commands();
    let groups: Vec<Value> = daemon
        .reactors()
        .iter()
        .zip(0u32..)
        .map(|(_, place)| {
            let here = || connections.iter().filter(move |connection| connection.reactor == place);
            let queues = || here().filter(|connection| connection.entries != 0);
            let io_queues = || queues().filter(|queue| queue.queue_id != 0);
            let subsystems = model.definition.subsystems.values();
            let now: u64 = subsystems.map(|subsystem| commands(&subsystem.statistics, place)).sum();
            let completed = now + past.get(place as usize).copied().unwrap_or(0);
            let total = totals.iter().find(|total| total.reactor == place).copied().unwrap_or_default();
            json!({
                "name": format!("reactor_{place}"),
                "admin_qpairs": total.admin_queues,
                "io_qpairs": total.io_queues,
                "current_admin_qpairs": queues().filter(|queue| queue.queue_id == 0).count(),
                "current_io_qpairs": io_queues().count(),
                // Admin queues always have some: what the host wants to be told of.
                "pending_bdev_io": io_queues().map(|queue| u64::from(queue.outstanding)).sum::<u64>(),
                "completed_nvme_io": completed,
                "transports": [{
                    "trtype": "TCP",
                    "connections": here().count(),
                    "pending_data_buffer": total.waiting_for_buffers,
                }],
            })
        })
        .collect();
    Ok(json!({"tick_rate": TICK_RATE, "poll_groups": groups}))
}
