//! `nvmf_create_subsystem`, `nvmf_delete_subsystem`, `nvmf_get_subsystems`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_nvmf::target::definition::{DISCOVERY_NQN, NamespaceDefinition, SubsystemDefinition};
use sledge_nvmf::target::statistics::SubsystemStatistics;
use uuid::Uuid;

use super::params::neutral;
use crate::daemon::Daemon;
use crate::model::{Draft, Model, address};
use crate::rpc::error::RpcError;

/// The longest NQN in bytes (NVMe Base 2.0, 4.5).
const MAX_NQN_BYTES: usize = 223;

/// The most namespaces of one subsystem.
const MAX_NAMESPACES: u32 = 8192;

/// Namespaces of a subsystem that was created without saying how many.
pub(crate) const DEFAULT_NAMESPACES: u32 = 32;

/// Controller identifiers that may be given out (0xfff0 and above are reserved; NVMe-oF 1.1, 4.2).
pub(crate) const CONTROLLER_IDS: (u16, u16) = (1, 0xffef);

/// Model number of a subsystem that was created without one.
const DEFAULT_MODEL: &str = "Sledge Controller";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    nqn: String,
    serial_number: Option<String>,
    model_number: Option<String>,
    allow_any_host: Option<bool>,
    max_namespaces: Option<u32>,
    ana_reporting: Option<bool>,
    min_cntlid: Option<u16>,
    max_cntlid: Option<u16>,
    passthrough: Option<bool>,
    enable_nssr: Option<bool>,
    max_discard_size_kib: Option<u64>,
    max_write_zeroes_size_kib: Option<u64>,
    dmrsl: Option<u64>,
    wzsl: Option<u8>,
    admin_label: Option<String>,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) fn create(draft: &mut Draft, params: Create) -> Result<Value, RpcError> {
    neutral("passthrough", params.passthrough, false)?;
    neutral("enable_nssr", params.enable_nssr, false)?;
    neutral("max_discard_size_kib", params.max_discard_size_kib, 0)?;
    neutral("max_write_zeroes_size_kib", params.max_write_zeroes_size_kib, 0)?;
    neutral("dmrsl", params.dmrsl, 0)?;
    neutral("wzsl", params.wzsl, 0)?;
    neutral("admin_label", params.admin_label.as_deref(), "")?;
    check_nqn("nqn", &params.nqn)?;
    if params.nqn == DISCOVERY_NQN {
        return Err(RpcError::invalid_param("nqn", "the discovery subsystem is always there"));
    }
    let subsystems = &draft.model.definition.subsystems;
    if subsystems.contains_key(&params.nqn) {
        return Err(RpcError::errno(
            17,
            "File exists",
            format!("there is a subsystem {} already", params.nqn),
        ));
    }
    // The discovery subsystem counts, as in SPDK.
    if let Some(most) = draft.model.max_subsystems.filter(|most| subsystems.len() + 1 >= *most as usize) {
        let reason = format!("{most} subsystems is the most, as set by nvmf_set_max_subsystems");
        return Err(RpcError::errno(28, "No space left on device", reason));
    }
    let serial_number = match params.serial_number {
        Some(serial) => checked_ascii("serial_number", serial, 20)?,
        // Saved with the configuration, so that hosts see the same after a restart.
        None => Uuid::new_v4().simple().to_string()[..20].to_uppercase(),
    };
    let model_number = match params.model_number {
        Some(model) => checked_ascii("model_number", model, 40)?,
        None => DEFAULT_MODEL.to_owned(),
    };
    let max_namespaces = match params.max_namespaces {
        None | Some(0) => DEFAULT_NAMESPACES,
        Some(count) if count <= MAX_NAMESPACES => count,
        Some(count) => {
            let reason = format!("{count} is more than {MAX_NAMESPACES}");
            return Err(RpcError::invalid_param("max_namespaces", reason));
        }
    };
    let least = params.min_cntlid.unwrap_or(CONTROLLER_IDS.0);
    let most = params.max_cntlid.unwrap_or(CONTROLLER_IDS.1);
    if least < CONTROLLER_IDS.0 || most > CONTROLLER_IDS.1 || least > most {
        let reason = format!("{least} to {most} is not a range within 1 to {}", CONTROLLER_IDS.1);
        return Err(RpcError::invalid_param("min_cntlid", reason));
    }
    let statistics = Arc::new(SubsystemStatistics::new(draft.model.environment.reactors));
    let subsystem = SubsystemDefinition {
        nqn: params.nqn.clone(),
        serial_number,
        model_number,
        allow_any_host: params.allow_any_host.unwrap_or(false),
        hosts: BTreeSet::new(),
        namespaces: BTreeMap::new(),
        max_namespaces,
        listeners: Vec::new(),
        ana_reporting: params.ana_reporting.unwrap_or(false),
        controller_ids: (least, most),
        statistics,
    };
    draft.definition().subsystems.insert(params.nqn, Arc::new(subsystem));
    Ok(json!(true))
}

/// Whether a text is an NQN (NVMe Base 2.0, 4.5).
pub(super) fn check_nqn(name: &str, nqn: &str) -> Result<(), RpcError> {
    let wrong = |reason: &str| Err(RpcError::invalid_param(name, format!("{nqn:?} {reason}")));
    if nqn.len() > MAX_NQN_BYTES {
        return wrong("is longer than 223 bytes");
    }
    if !nqn.starts_with("nqn.") || nqn.len() < "nqn.2000-01.a".len() {
        return wrong("is not an NQN, as nqn.2026-01.com.example:disk1");
    }
    if nqn.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return wrong("has a space or a control character");
    }
    Ok(())
}

fn checked_ascii(name: &str, text: String, most: usize) -> Result<String, RpcError> {
    if text.is_empty() || text.len() > most || !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        let reason = format!("{text:?} is not 1 to {most} printable ASCII characters");
        return Err(RpcError::invalid_param(name, reason));
    }
    Ok(text)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delete {
    nqn: String,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) fn delete(draft: &mut Draft, params: Delete) -> Result<Value, RpcError> {
    draft.model.subsystem(&params.nqn)?;
    draft.definition().subsystems.remove(&params.nqn);
    draft.claims.retain(|(nqn, _), _| *nqn != params.nqn);
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Get {
    nqn: Option<String>,
    #[serde(rename = "tgt_name")]
    _tgt_name: Option<String>,
}

pub(super) async fn get(daemon: Arc<Daemon>, params: Get) -> Result<Value, RpcError> {
    let model = daemon.model();
    let mut all = vec![discovery(&model)];
    all.extend(model.definition.subsystems.values().map(|subsystem| report(subsystem)));
    if let Some(nqn) = params.nqn {
        all.retain(|subsystem| subsystem["nqn"] == nqn);
        if all.is_empty() {
            return Err(RpcError::errno(19, "No such device", format!("there is no subsystem {nqn}")));
        }
    }
    Ok(json!(all))
}

fn discovery(model: &Model) -> Value {
    json!({
        "nqn": DISCOVERY_NQN,
        "subtype": "Discovery",
        "listen_addresses": addresses(model.definition.discovery_listeners.iter().copied()),
        "allow_any_host": true,
        "hosts": [],
    })
}

fn addresses(addresses: impl Iterator<Item = SocketAddr>) -> Vec<Value> {
    addresses.map(address::to_json).collect()
}

fn report(subsystem: &SubsystemDefinition) -> Value {
    json!({
        "nqn": subsystem.nqn,
        "subtype": "NVMe",
        "listen_addresses": addresses(subsystem.listeners.iter().map(|listener| listener.address)),
        "allow_any_host": subsystem.allow_any_host,
        "hosts": subsystem.hosts.iter().map(|nqn| json!({"nqn": nqn})).collect::<Vec<_>>(),
        "serial_number": subsystem.serial_number,
        "model_number": subsystem.model_number,
        "max_namespaces": subsystem.max_namespaces,
        "min_cntlid": subsystem.controller_ids.0,
        "max_cntlid": subsystem.controller_ids.1,
        "namespaces": subsystem.namespaces.values().map(namespace).collect::<Vec<_>>(),
    })
}

fn namespace(namespace: &NamespaceDefinition) -> Value {
    let mut report = json!({
        "nsid": namespace.nsid,
        "bdev_name": namespace.device_name,
        "name": namespace.device_name,
        "nguid": hex(&namespace.nguid),
        "uuid": Uuid::from_bytes(namespace.uuid),
        "anagrpid": namespace.ana_group,
    });
    if namespace.eui64 != [0; 8] {
        report["eui64"] = json!(hex(&namespace.eui64));
    }
    report
}

/// Upper-case hexadecimal digits, as identifiers are written in requests and reports.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
