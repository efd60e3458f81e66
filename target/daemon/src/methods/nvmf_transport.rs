//! `nvmf_create_transport` and `nvmf_get_transports`. The one transport is TCP.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::params::neutral;
use crate::daemon::Daemon;
use crate::model::Draft;
use crate::model::address::check_trtype;
use crate::model::transport::Transport;
use crate::rpc::error::RpcError;

/// Parameters that mean something here come first; then those of other transports or of SPDK's insides, which
/// its clients always send or its configurations have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    trtype: String,
    max_queue_depth: Option<u16>,
    max_io_qpairs_per_ctrlr: Option<u16>,
    in_capsule_data_size: Option<u32>,
    max_io_size: Option<u32>,
    c2h_success: Option<bool>,
    max_aq_depth: Option<u32>,
    io_unit_size: Option<u32>,
    num_shared_buffers: Option<u32>,
    buf_cache_size: Option<u32>,
    abort_timeout_sec: Option<u32>,
    sock_priority: Option<u32>,

    zcopy: Option<bool>,
    dif_insert_or_strip: Option<bool>,
    masked_oncs: Option<Vec<String>>,
    masked_fuses: Option<Vec<String>>,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
    #[serde(rename = "iobuf_small_cache_size")]
    _iobuf_small_cache_size: Option<u32>,
    #[serde(rename = "iobuf_large_cache_size")]
    _iobuf_large_cache_size: Option<u32>,
    #[serde(rename = "num_cqe")]
    _num_cqe: Option<u32>,
    #[serde(rename = "max_srq_depth")]
    _max_srq_depth: Option<u32>,
    #[serde(rename = "no_srq")]
    _no_srq: Option<bool>,
    #[serde(rename = "acceptor_backlog")]
    _acceptor_backlog: Option<u32>,
    #[serde(rename = "no_wr_batching")]
    _no_wr_batching: Option<bool>,
    #[serde(rename = "control_msg_num")]
    _control_msg_num: Option<u32>,
    #[serde(rename = "disable_mappable_bar0")]
    _disable_mappable_bar0: Option<bool>,
    #[serde(rename = "disable_adaptive_irq")]
    _disable_adaptive_irq: Option<bool>,
    #[serde(rename = "disable_shadow_doorbells")]
    _disable_shadow_doorbells: Option<bool>,
    #[serde(rename = "disable_command_passthru")]
    _disable_command_passthru: Option<bool>,
    #[serde(rename = "acceptor_poll_rate")]
    _acceptor_poll_rate: Option<u32>,
    #[serde(rename = "ack_timeout")]
    _ack_timeout: Option<u32>,
    #[serde(rename = "data_wr_pool_size")]
    _data_wr_pool_size: Option<u32>,
    #[serde(rename = "kas")]
    _kas: Option<u32>,
    #[serde(rename = "min_kato")]
    _min_kato: Option<u32>,
}

pub(super) fn create(draft: &mut Draft, params: Create) -> Result<Value, RpcError> {
    check_trtype(&params.trtype).map_err(|reason| RpcError::invalid_param("trtype", reason))?;
    if draft.model.transport.is_some() {
        return Err(RpcError::errno(17, "File exists", "the TCP transport has been created already"));
    }
    neutral("dif_insert_or_strip", params.dif_insert_or_strip, false)?;
    // What SPDK needs to be asked for is how this target always works where it can.
    let _ = params.zcopy;
    neutral("masked_oncs", params.masked_oncs, Vec::new())?;
    neutral("masked_fuses", params.masked_fuses, Vec::new())?;

    let mut transport = Transport::default();
    let options = &mut transport.options;
    set(&mut options.max_queue_depth, params.max_queue_depth);
    set(&mut options.max_io_queues_per_controller, params.max_io_qpairs_per_ctrlr);
    set(&mut options.in_capsule_data_bytes, params.in_capsule_data_size);
    set(&mut options.max_io_bytes, params.max_io_size);
    set(&mut options.c2h_success, params.c2h_success);
    set(&mut transport.max_aq_depth, params.max_aq_depth);
    set(&mut transport.io_unit_size, params.io_unit_size);
    set(&mut transport.num_shared_buffers, params.num_shared_buffers);
    set(&mut transport.buf_cache_size, params.buf_cache_size);
    set(&mut transport.abort_timeout_sec, params.abort_timeout_sec);
    set(&mut transport.sock_priority, params.sock_priority);
    transport.check()?;
    draft.definition().transport = transport.options;
    draft.model.transport = Some(transport);
    Ok(json!(true))
}

fn set<T>(option: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *option = value;
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Get {
    trtype: Option<String>,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) async fn get(daemon: Arc<Daemon>, params: Get) -> Result<Value, RpcError> {
    let transport = daemon.model().transport.clone();
    if let Some(trtype) = params.trtype
        && (check_trtype(&trtype).is_err() || transport.is_none())
    {
        return Err(RpcError::errno(19, "No such device", format!("transport {trtype}")));
    }
    let all: Vec<Value> = transport.iter().map(Transport::to_json).collect();
    Ok(json!(all))
}
