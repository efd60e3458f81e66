//! `nvmf_subsystem_add_host`, `nvmf_subsystem_remove_host`, `nvmf_subsystem_allow_any_host`: who may connect.

use serde::Deserialize;
use serde_json::{Value, json};

use super::nvmf_subsystem::check_nqn;
use super::params::no_secret;
use crate::model::Draft;
use crate::rpc::error::RpcError;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Add {
    nqn: String,
    host: String,
    psk: Option<String>,
    dhchap_key: Option<String>,
    dhchap_ctrlr_key: Option<String>,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) fn add(draft: &mut Draft, params: Add) -> Result<Value, RpcError> {
    no_secret("psk", params.psk.as_deref())?;
    no_secret("dhchap_key", params.dhchap_key.as_deref())?;
    no_secret("dhchap_ctrlr_key", params.dhchap_ctrlr_key.as_deref())?;
    check_nqn("host", &params.host)?;
    if draft.model.subsystem(&params.nqn)?.hosts.contains(&params.host) {
        let reason = format!("{} may connect to {} already", params.host, params.nqn);
        return Err(RpcError::errno(17, "File exists", reason));
    }
    draft.subsystem(&params.nqn)?.hosts.insert(params.host);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remove {
    nqn: String,
    host: String,
    #[serde(rename = "timeout_ms")]
    _timeout_ms: Option<u64>,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) fn remove(draft: &mut Draft, params: Remove) -> Result<Value, RpcError> {
    if !draft.model.subsystem(&params.nqn)?.hosts.contains(&params.host) {
        let reason = format!("{} is not among the hosts of {}", params.host, params.nqn);
        return Err(RpcError::invalid_param("host", reason));
    }
    draft.subsystem(&params.nqn)?.hosts.remove(&params.host);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AllowAny {
    nqn: String,
    allow_any_host: bool,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) fn allow_any(draft: &mut Draft, params: AllowAny) -> Result<Value, RpcError> {
    draft.subsystem(&params.nqn)?.allow_any_host = params.allow_any_host;
    Ok(json!(true))
}
