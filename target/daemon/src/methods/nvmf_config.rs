//! `nvmf_set_*`: options of the whole NVMe/TCP target, most of which ask for what this target does anyway or
//! does not have.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::params::neutral;
use crate::model::Draft;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetConfig {
    admin_cmd_passthru: Option<BTreeMap<String, bool>>,
    #[serde(rename = "poll_groups_mask")]
    _poll_groups_mask: Option<String>,
    discovery_filter: Option<String>,
    discovery_filters: Option<Vec<String>>,
    #[serde(rename = "dhchap_digests")]
    _dhchap_digests: Option<Vec<String>>,
    #[serde(rename = "dhchap_dhgroups")]
    _dhchap_dhgroups: Option<Vec<String>>,
    dup_host_policy: Option<String>,
}

pub(super) fn set_config(_: &mut Draft, params: SetConfig) -> Result<Value, RpcError> {
    for (name, on) in params.admin_cmd_passthru.into_iter().flatten() {
        neutral(&format!("admin_cmd_passthru.{name}"), Some(on), false)?;
    }
    neutral("discovery_filter", params.discovery_filter.as_deref(), "match_any")?;
    for filter in params.discovery_filters.into_iter().flatten() {
        neutral("discovery_filters", Some(filter.as_str()), "match_any")?;
    }
    neutral("dup_host_policy", params.dup_host_policy.as_deref(), "allow")?;
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetCrdt {
    crdt1: Option<u16>,
    crdt2: Option<u16>,
    crdt3: Option<u16>,
}

pub(super) fn set_crdt(_: &mut Draft, params: SetCrdt) -> Result<Value, RpcError> {
    neutral("crdt1", params.crdt1, 0)?;
    neutral("crdt2", params.crdt2, 0)?;
    neutral("crdt3", params.crdt3, 0)?;
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetMaxSubsystems {
    max_subsystems: u32,
}

pub(super) fn set_max_subsystems(draft: &mut Draft, params: SetMaxSubsystems) -> Result<Value, RpcError> {
    let there = draft.model.definition.subsystems.len() + 1;
    if (params.max_subsystems as usize) < there {
        let reason = format!("there are {there} already, the discovery subsystem included");
        return Err(RpcError::invalid_param("max_subsystems", reason));
    }
    draft.model.max_subsystems = Some(params.max_subsystems);
    Ok(json!(true))
}
