//! `nvmf_subsystem_*_listener*`: the addresses at which subsystems are reachable, and their ANA states there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sledge_nvmf::target::definition::{AnaState, DISCOVERY_NQN, ListenerDefinition, SubsystemDefinition};

use super::params::neutral;
use crate::daemon::Daemon;
use crate::model::Draft;
use crate::model::address::{self, TransportAddress};
use crate::rpc::error::RpcError;

/// The ANA states that can be set.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AnaName {
    Optimized,
    NonOptimized,
    Inaccessible,
}

impl From<AnaName> for AnaState {
    fn from(name: AnaName) -> AnaState {
        match name {
            AnaName::Optimized => AnaState::Optimized,
            AnaName::NonOptimized => AnaState::NonOptimized,
            AnaName::Inaccessible => AnaState::Inaccessible,
        }
    }
}

/// The word for a state.
pub(crate) fn ana_word(state: AnaState) -> &'static str {
    match state {
        AnaState::Optimized => "optimized",
        AnaState::NonOptimized => "non_optimized",
        AnaState::Inaccessible => "inaccessible",
        AnaState::PersistentLoss => "persistent_loss",
        AnaState::Change => "change",
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    nqn: String,
    listen_address: TransportAddress,
    ana_state: Option<AnaName>,
    secure_channel: Option<bool>,
    sock_impl: Option<String>,
    #[serde(rename = "numa_id")]
    _numa_id: Option<i32>,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) fn add(draft: &mut Draft, params: Add) -> Result<Value, RpcError> {
    neutral("secure_channel", params.secure_channel, false)?;
    // The kinds of plain TCP sockets that SPDK has: here there is one.
    if let Some(kind) = params.sock_impl.filter(|kind| !matches!(kind.as_str(), "" | "posix" | "uring")) {
        return Err(RpcError::invalid_param("sock_impl", format!("{kind:?} is not supported")));
    }
    let address = params.listen_address.socket_address("listen_address")?;
    if draft.model.transport.is_none() {
        let reason = "there is no TCP transport yet; call nvmf_create_transport first";
        return Err(RpcError::invalid_param("listen_address.trtype", reason));
    }
    let exists = || {
        let reason = format!("{} listens on {address} already", params.nqn);
        Err(RpcError::errno(17, "File exists", reason))
    };
    if params.nqn == DISCOVERY_NQN {
        if draft.model.definition.discovery_listeners.contains(&address) {
            return exists();
        }
        draft.definition().discovery_listeners.push(address);
        return Ok(json!(true));
    }
    let subsystem = draft.model.subsystem(&params.nqn)?;
    if subsystem.listeners.iter().any(|listener| listener.address == address) {
        return exists();
    }
    let ana_states = match params.ana_state {
        Some(state) if state != AnaName::Optimized => states_of_all(subsystem, state.into())?,
        _ => BTreeMap::new(),
    };
    draft.subsystem(&params.nqn)?.listeners.push(ListenerDefinition { address, ana_states });
    Ok(json!(true))
}

/// One state for every group that the subsystem can have.
fn states_of_all(
    subsystem: &SubsystemDefinition,
    state: AnaState,
) -> Result<BTreeMap<u32, AnaState>, RpcError> {
    if !subsystem.ana_reporting {
        let reason = format!("{} does not report ANA; create it with ana_reporting", subsystem.nqn);
        return Err(RpcError::invalid_param("ana_state", reason));
    }
    Ok((1..=subsystem.max_namespaces).map(|group| (group, state)).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remove {
    nqn: String,
    listen_address: TransportAddress,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) fn remove(draft: &mut Draft, params: Remove) -> Result<Value, RpcError> {
    let address = params.listen_address.socket_address("listen_address")?;
    let missing = || {
        let reason = format!("{} does not listen on {address}", params.nqn);
        Err(RpcError::invalid_param("listen_address", reason))
    };
    if params.nqn == DISCOVERY_NQN {
        if !draft.model.definition.discovery_listeners.contains(&address) {
            return missing();
        }
        draft.definition().discovery_listeners.retain(|listener| *listener != address);
        return Ok(json!(true));
    }
    if !draft.model.subsystem(&params.nqn)?.listeners.iter().any(|listener| listener.address == address) {
        return missing();
    }
    draft.subsystem(&params.nqn)?.listeners.retain(|listener| listener.address != address);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetAnaState {
    nqn: String,
    listen_address: TransportAddress,
    ana_state: AnaName,
    anagrpid: Option<u32>,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) fn set_ana_state(draft: &mut Draft, params: SetAnaState) -> Result<Value, RpcError> {
    let address = params.listen_address.socket_address("listen_address")?;
    let subsystem = draft.model.subsystem(&params.nqn)?;
    let state = AnaState::from(params.ana_state);
    let all = states_of_all(subsystem, state)?;
    let most = subsystem.max_namespaces;
    let listeners = &mut draft.subsystem(&params.nqn)?.listeners;
    let Some(listener) = listeners.iter_mut().find(|listener| listener.address == address) else {
        let reason = format!("{} does not listen on {address}", params.nqn);
        return Err(RpcError::invalid_param("listen_address", reason));
    };
    match params.anagrpid.filter(|group| *group != 0) {
        None => listener.ana_states = all,
        Some(group) if group <= most => {
            listener.ana_states.insert(group, state);
        }
        Some(group) => {
            let reason = format!("{group} is more than {most} (max_namespaces)");
            return Err(RpcError::invalid_param("anagrpid", reason));
        }
    }
    // Groups that are not listed are optimized: one state has one form.
    listener.ana_states.retain(|_, state| *state != AnaState::Optimized);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Get {
    nqn: String,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) async fn get(daemon: Arc<Daemon>, params: Get) -> Result<Value, RpcError> {
    let model = daemon.model();
    if params.nqn == DISCOVERY_NQN {
        let all = model.definition.discovery_listeners.iter();
        return Ok(all.map(|address| json!({"address": address::to_json(*address)})).collect());
    }
    let subsystem = model.subsystem(&params.nqn)?;
    Ok(subsystem.listeners.iter().map(|listener| report(subsystem, listener.address)).collect())
}

fn report(subsystem: &SubsystemDefinition, address: SocketAddr) -> Value {
    let state = |group| ana_word(subsystem.ana_state(address, group));
    if !subsystem.ana_reporting {
        return json!({"address": address::to_json(address), "ana_state": "optimized"});
    }
    let states: Vec<Value> = (1..=subsystem.max_namespaces)
        .map(|group| json!({"ana_group": group, "ana_state": state(group)}))
        .collect();
    json!({"address": address::to_json(address), "ana_states": states})
}
