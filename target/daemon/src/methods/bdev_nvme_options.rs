//! `bdev_nvme_set_options` and `bdev_nvme_set_hotplug`: what holds for all controllers.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sledge_bdev::nvme::options::{
    NvmeOptions, PathMode, PathPolicy, PathSelector, ReconnectPolicy, TimeoutAction,
};

use super::params::decode;
use crate::model::Draft;
use crate::rpc::error::RpcError;

/// How several paths are used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MultipathOptions {
    pub(super) policy: Option<String>,
    pub(super) selector: Option<String>,
    pub(super) min_io: Option<u32>,
}

/// The parameters; those that begin with an underscore tune what this target has not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    action_on_timeout: Option<String>,
    timeout_us: Option<u64>,
    timeout_admin_us: Option<u64>,
    keep_alive_timeout_ms: Option<u64>,
    #[serde(rename = "retry_count")]
    _retry_count: Option<i64>,
    #[serde(rename = "arbitration_burst")]
    _arbitration_burst: Option<u64>,
    #[serde(rename = "low_priority_weight")]
    _low_priority_weight: Option<u64>,
    #[serde(rename = "medium_priority_weight")]
    _medium_priority_weight: Option<u64>,
    #[serde(rename = "high_priority_weight")]
    _high_priority_weight: Option<u64>,
    nvme_adminq_poll_period_us: Option<u64>,
    #[serde(rename = "nvme_ioq_poll_period_us")]
    _nvme_ioq_poll_period_us: Option<u64>,
    io_queue_requests: Option<u64>,
    #[serde(rename = "delay_cmd_submit")]
    _delay_cmd_submit: Option<bool>,
    #[serde(rename = "transport_retry_count")]
    _transport_retry_count: Option<i64>,
    bdev_retry_count: Option<i64>,
    #[serde(rename = "transport_ack_timeout")]
    _transport_ack_timeout: Option<u64>,
    ctrlr_loss_timeout_sec: Option<i64>,
    reconnect_delay_sec: Option<u64>,
    fast_io_fail_timeout_sec: Option<u64>,
    disable_auto_failback: Option<bool>,
    #[serde(rename = "generate_uuids")]
    _generate_uuids: Option<bool>,
    #[serde(rename = "transport_tos")]
    _transport_tos: Option<u64>,
    #[serde(rename = "nvme_error_stat")]
    _nvme_error_stat: Option<bool>,
    #[serde(rename = "rdma_srq_size")]
    _rdma_srq_size: Option<u64>,
    #[serde(rename = "io_path_stat")]
    _io_path_stat: Option<bool>,
    #[serde(rename = "allow_accel_sequence")]
    _allow_accel_sequence: Option<bool>,
    #[serde(rename = "rdma_max_cq_size")]
    _rdma_max_cq_size: Option<u64>,
    #[serde(rename = "rdma_cm_event_timeout_ms")]
    _rdma_cm_event_timeout_ms: Option<u64>,
    #[serde(rename = "dhchap_digests")]
    _dhchap_digests: Option<Value>,
    #[serde(rename = "dhchap_dhgroups")]
    _dhchap_dhgroups: Option<Value>,
    #[serde(rename = "rdma_umr_per_io")]
    _rdma_umr_per_io: Option<bool>,
    tcp_connect_timeout_ms: Option<u64>,
    #[serde(rename = "enable_flush")]
    _enable_flush: Option<bool>,
    multipath_opts: Option<MultipathOptions>,
    /// Not in SPDK: how drives are reached when an attach does not say.
    environment: Option<String>,
}

/// Takes what SPDK takes; calls add up. Zero is this target's own value, where SPDK means "no limit": no command and no
/// connection is waited for without one.
pub(super) fn set_options(draft: &mut Draft, params: Map<String, Value>) -> Result<Value, RpcError> {
    let mut given = draft.model.nvme.given.clone();
    given.extend(params);
    given.retain(|_, value| !value.is_null());
    draft.model.nvme.options = read(decode(Value::Object(given.clone()))?)?;
    draft.model.nvme.given = given;
    Ok(json!(true))
}

fn read(given: Options) -> Result<NvmeOptions, RpcError> {
    let usual = NvmeOptions::default();
    let micros = |given: Option<u64>, usual: Duration| {
        given.filter(|time| *time != 0).map_or(usual, Duration::from_micros)
    };
    let timeout = micros(given.timeout_us, usual.timeout);
    let action_on_timeout = match given.action_on_timeout.as_deref() {
        None => usual.action_on_timeout,
        Some("none") => TimeoutAction::None,
        Some("reset") => TimeoutAction::Reset,
        Some("abort") => TimeoutAction::Abort,
        Some(other) => {
            let reason = format!("{other:?} is not none, reset or abort");
            return Err(RpcError::invalid_param("action_on_timeout", reason));
        }
    };
    let retry_count = match given.bdev_retry_count {
        None => usual.retry_count,
        Some(-1) => None,
        Some(count) => Some(
            u32::try_from(count)
                .map_err(|_| RpcError::invalid_param("bdev_retry_count", "is -1 or a count"))?,
        ),
    };
    let keep_alive = match given.keep_alive_timeout_ms {
        None => usual.keep_alive,
        Some(time) if time <= u64::from(u32::MAX) => Duration::from_millis(time),
        Some(_) => return Err(RpcError::invalid_param("keep_alive_timeout_ms", "is too long")),
    };
    let queue_depth = match given.io_queue_requests.filter(|depth| *depth != 0) {
        None => usual.queue_depth,
        // More wait in front of the queue.
        Some(depth) => depth.clamp(2, 1023) as u16,
    };
    let environment = given.environment.unwrap_or(usual.environment);
    check_environment(&environment)?;
    Ok(NvmeOptions {
        timeout,
        admin_timeout: micros(given.timeout_admin_us, usual.admin_timeout.max(timeout)),
        action_on_timeout,
        keep_alive,
        retry_count,
        queue_depth,
        admin_poll_period: micros(given.nvme_adminq_poll_period_us, usual.admin_poll_period),
        connect_timeout: given
            .tcp_connect_timeout_ms
            .filter(|time| *time != 0)
            .map_or(usual.connect_timeout, Duration::from_millis),
        reconnect: reconnect(
            &usual.reconnect,
            given.ctrlr_loss_timeout_sec,
            given.reconnect_delay_sec,
            given.fast_io_fail_timeout_sec,
        )?,
        policy: policy(usual.policy, given.multipath_opts.as_ref())?,
        failback: !given.disable_auto_failback.unwrap_or(false),
        environment,
    })
}

/// Whether a way to reach drives has that name.
pub(super) fn check_environment(name: &str) -> Result<(), RpcError> {
    let known = ["vfio", "uio_pci_generic", "vfio-noiommu", "dpdk"];
    if known.contains(&name) {
        return Ok(());
    }
    Err(RpcError::invalid_param("environment", format!("{name:?} is not {}", known.join(", "))))
}

/// What becomes of a controller that is lost. Zero and nothing are `usual`.
pub(super) fn reconnect(
    usual: &ReconnectPolicy,
    loss: Option<i64>,
    delay: Option<u64>,
    fast_fail: Option<u64>,
) -> Result<ReconnectPolicy, RpcError> {
    let seconds = |given: Option<u64>| given.filter(|time| *time != 0).map(Duration::from_secs);
    let loss_timeout = match loss {
        None | Some(0) => usual.loss_timeout,
        Some(-1) => None,
        Some(time) => {
            let time = u64::try_from(time)
                .map_err(|_| RpcError::invalid_param("ctrlr_loss_timeout_sec", "is -1 or a time"))?;
            Some(Duration::from_secs(time))
        }
    };
    let delay = seconds(delay).unwrap_or(usual.delay);
    if loss_timeout.is_some_and(|limit| limit < delay) {
        return Err(RpcError::invalid_param(
            "reconnect_delay_sec",
            format!("{} s is more than ctrlr_loss_timeout_sec", delay.as_secs()),
        ));
    }
    let given = seconds(fast_fail);
    if given.is_some_and(|limit| limit < delay || loss_timeout.is_some_and(|loss| limit > loss)) {
        let reason = "must be between reconnect_delay_sec and ctrlr_loss_timeout_sec";
        return Err(RpcError::invalid_param("fast_io_fail_timeout_sec", reason));
    }
    let own = usual.fast_fail.map(|limit| loss_timeout.map_or(limit, |loss| loss.min(limit)));
    Ok(ReconnectPolicy { loss_timeout, delay, fast_fail: given.or(own) })
}

/// How several paths are used; what is not given stays.
pub(super) fn policy(before: PathPolicy, given: Option<&MultipathOptions>) -> Result<PathPolicy, RpcError> {
    let mut policy = before;
    let Some(given) = given else { return Ok(policy) };
    if let Some(word) = &given.policy {
        policy.mode = [PathMode::ActivePassive, PathMode::ActiveActive]
            .into_iter()
            .find(|mode| mode.word() == word)
            .ok_or_else(|| {
                RpcError::invalid_param("policy", format!("{word:?} is not active_passive or active_active"))
            })?;
    }
    if let Some(word) = &given.selector {
        policy.selector = [PathSelector::RoundRobin, PathSelector::QueueDepth]
            .into_iter()
            .find(|selector| selector.word() == word)
            .ok_or_else(|| {
                RpcError::invalid_param("selector", format!("{word:?} is not round_robin or queue_depth"))
            })?;
    }
    policy.min_io = given.min_io.unwrap_or(policy.min_io);
    Ok(policy)
}

/// A policy as a parameter.
pub(super) fn policy_json(policy: PathPolicy) -> Value {
    json!({"policy": policy.mode.word(), "selector": policy.selector.word(), "min_io": policy.min_io})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hotplug {
    enable: bool,
    period_us: Option<u64>,
}

/// Whether drives that were removed are looked for, so that they are attached again when they are back.
pub(super) fn set_hotplug(draft: &mut Draft, params: Hotplug) -> Result<Value, RpcError> {
    draft.model.nvme.hotplug = Some((params.enable, params.period_us.unwrap_or(0)));
    Ok(json!(true))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it: a configuration of SPDK, where zero is "none", would have I/O wait for ever, or fail at the first
    // loss; or times that exclude each other would be accepted.
    #[test]
    fn times_are_read_and_checked() {
        let usual = ReconnectPolicy::default();
        assert_eq!(reconnect(&usual, Some(0), Some(0), Some(0)).unwrap(), usual);
        assert_eq!(reconnect(&usual, None, None, None).unwrap(), usual);
        let short = reconnect(&usual, Some(10), Some(1), None).unwrap();
        let ten = Some(Duration::from_secs(10));
        assert_eq!((short.loss_timeout, short.fast_fail), (ten, ten));
        assert_eq!(
            reconnect(&usual, Some(-1), Some(1), Some(5)).unwrap().fast_fail,
            Some(Duration::from_secs(5))
        );
        for (loss, delay, fast) in [(Some(1), 2, 0), (Some(-2), 1, 0), (Some(10), 5, 3), (Some(10), 1, 11)] {
            assert!(reconnect(&usual, loss, Some(delay), Some(fast)).is_err(), "{loss:?} {delay} {fast}");
        }
    }
}
