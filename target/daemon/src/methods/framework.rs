//! `framework_*`: the state of the process as a whole.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_reactor::memory::PoolStatistics;
use sledge_reactor::message::Handle;
use sledge_reactor::options::Wait;
use sledge_reactor::statistics::{PollerStatistics, ReactorStatistics};

use super::bdev::Nothing;
use super::params::neutral;
use crate::daemon::{Daemon, TICK_RATE};
use crate::model::{Draft, save};
use crate::rpc::error::RpcError;

/// How long a reactor may take to report: a busy one does not hold up the answer about the others.
const REPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long all reactors may take to answer a question about connections.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Waits for what reactors answer, but not for ever: one that hangs must not take the places of all clients, who want to
/// find out that it does.
pub(super) async fn in_time<T>(answer: impl Future<Output = T>) -> Result<T, RpcError> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| {
        let seconds = ANSWER_TIMEOUT.as_secs();
        RpcError::internal(format!(
            "a reactor does not answer within {seconds} s: framework_get_reactors says which"
        ))
    })
}

/// What every reactor has counted, in the order of their numbers; `None` for one that does not answer in time.
async fn counts(daemon: &Daemon) -> Result<Vec<(u32, Option<ReactorStatistics>)>, RpcError> {
    // All are asked at once, then awaited in turn.
    let ask = |handle: Handle| async move {
        let counted = tokio::time::timeout(REPORT_TIMEOUT, handle.statistics()).await;
        (handle.id(), counted.ok().and_then(Result::ok))
    };
    let asked: Vec<_> = daemon.reactors().iter().map(|handle| tokio::spawn(ask(handle.clone()))).collect();
    let mut all = Vec::new();
    for counts in asked {
        all.push(counts.await.map_err(RpcError::internal)?);
    }
    Ok(all)
}

pub(super) async fn get_reactors(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    let all = counts(&daemon).await?;
    let report = |(id, counts): &(u32, Option<ReactorStatistics>)| match counts {
        Some(counts) => reactor(counts),
        None => json!({"id": id, "responding": false}),
    };
    Ok(json!({
        "tick_rate": TICK_RATE,
        "ticks": daemon.ticks(),
        "pid": std::process::id(),
        "reactors": all.iter().map(report).collect::<Vec<_>>(),
    }))
}

fn reactor(counts: &ReactorStatistics) -> Value {
    let mut thread = thread(counts);
    thread["elapsed"] = json!(counts.busy_ns + counts.idle_ns);
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
        "lw_threads": [thread],
        "wait": if counts.wait == Wait::Busy { "busy" } else { "adaptive" },
        "turns": counts.turns,
        "tasks": counts.tasks,
        "messages": counts.messages,
        "events": counts.events,
        "pollers": pollers(counts),
        "memory": memory(&counts.pool),
    })
}

fn pollers(counts: &ReactorStatistics) -> Vec<Value> {
    let report =
        |poller: &PollerStatistics| json!({"name": poller.name, "runs": poller.runs, "work": poller.work});
    counts.pollers.iter().map(report).collect()
}

/// What SPDK calls a thread: here there is one to a reactor.
fn thread(counts: &ReactorStatistics) -> Value {
    let mask = counts.core.and_then(|core| 1u128.checked_shl(core as u32)).unwrap_or(0);
    json!({"name": format!("reactor_{}", counts.id), "id": thread_id(counts.id), "cpumask": format!("{mask:x}")})
}

/// The number of a reactor's thread: theirs begin with 1.
pub(super) fn thread_id(reactor: u32) -> u32 {
    reactor + 1
}

/// What buffers for I/O there are: a pool on each reactor, which is what SPDK's modules would be.
pub(super) async fn get_memory(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    let all = counts(&daemon).await?;
    let answered = all.iter().filter_map(|(_, counts)| counts.as_ref());
    Ok(answered
        .map(|counts| {
            let mut row = memory(&counts.pool);
            row["module"] = json!(format!("reactor_{}", counts.id));
            row
        })
        .collect())
}

fn memory(pool: &PoolStatistics) -> Value {
    json!({
        "total_bytes": pool.total_bytes,
        "used_bytes": pool.used_bytes,
        "used_buffers": pool.used_buffers,
        "refused": pool.refused,
        "backing": pool.backing.to_string(),
    })
}

/// The one way of spreading work over cores: it stays on the core where it is put.
const SCHEDULER: &str = "static";

pub(super) async fn get_scheduler(_: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    Ok(json!({"scheduler_name": SCHEDULER, "scheduler_period": 0}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetScheduler {
    name: String,
    /// A scheduler that moves nothing has nothing to do periodically.
    #[serde(rename = "period")]
    _period: Option<u64>,
    load_limit: Option<u8>,
    core_limit: Option<u8>,
    core_busy: Option<u8>,
    mappings: Option<String>,
}

/// SPDK's configurations name theirs, mostly this one. Others would move work between cores, which whoever asks for it
/// would wait for in vain.
pub(super) fn set_scheduler(_: &mut Draft, params: SetScheduler) -> Result<Value, RpcError> {
    if params.name != SCHEDULER {
        let reason = format!(
            "{:?} is not supported, only {SCHEDULER:?}: connections stay on the reactor that they are dealt to; take the \
             call out of the configuration, and choose cores when the target is started (--cores)",
            params.name
        );
        return Err(RpcError::invalid_param("name", reason));
    }
    for (name, limit) in [
        ("load_limit", params.load_limit),
        ("core_limit", params.core_limit),
        ("core_busy", params.core_busy),
    ] {
        if limit.is_some() {
            return Err(RpcError::invalid_param(name, format!("the {SCHEDULER} scheduler has no limits")));
        }
    }
    neutral("mappings", params.mappings.as_deref(), "")?;
    Ok(json!(true))
}

/// A report about the threads that answered.
async fn threads(
    daemon: &Daemon,
    report: impl Fn(&ReactorStatistics, &mut Value),
) -> Result<Value, RpcError> {
    let all = counts(daemon).await?;
    let threads = all.iter().filter_map(|(_, counts)| counts.as_ref()).map(|counts| {
        let mut thread = thread(counts);
        report(counts, &mut thread);
        thread
    });
    Ok(json!({"tick_rate": TICK_RATE, "threads": threads.collect::<Vec<_>>()}))
}

pub(super) async fn get_threads(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    threads(&daemon, |counts, thread| {
        thread["busy"] = json!(counts.busy_ns);
        thread["idle"] = json!(counts.idle_ns);
        thread["active_pollers_count"] = json!(counts.pollers.len());
        thread["timed_pollers_count"] = json!(0);
        thread["paused_pollers_count"] = json!(0);
    })
    .await
}

pub(super) async fn get_pollers(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    threads(&daemon, |counts, thread| {
        let poller = |(poller, id): (&PollerStatistics, u32)| {
            json!({
                "name": poller.name,
                "id": id,
                "state": "waiting",
                "run_count": poller.runs,
                "busy_count": poller.work,
            })
        };
        let active: Vec<Value> = counts.pollers.iter().zip(1..).map(poller).collect();
        thread["active_pollers"] = json!(active);
        thread["timed_pollers"] = json!([]);
        thread["paused_pollers"] = json!([]);
    })
    .await
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it: each question about a reactor that hangs would keep its client's place for ever, until there is none for
    // those who want to know what is wrong.
    #[tokio::test(start_paused = true)]
    async fn a_reactor_that_hangs_is_told_of() {
        let error = in_time(std::future::pending::<()>()).await.unwrap_err();
        assert!(error.code == -32603 && error.message.contains("framework_get_reactors"), "{error}");
        assert_eq!(in_time(async { 7 }).await, Ok(7));
    }
}
