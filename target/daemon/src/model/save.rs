//! Writes the model as the calls that make it, in SPDK's configuration format. Loading them gives the same
//! model, and saving that gives the same text.

use serde_json::{Map, Value, json};
use sledge_bdev::BlockDevice;
use sledge_bdev::device::Description;
use sledge_nvmf::target::definition::{
    AnaState, DISCOVERY_NQN, ListenerDefinition, NamespaceDefinition, SubsystemDefinition,
};
use uuid::Uuid;

use super::{Model, address};
use crate::methods::{ana_word, attach_call, hex};

/// The parts of a configuration in the order in which they are made, each with those it needs.
pub const SUBSYSTEMS: &[(&str, &[&str])] = &[("bdev", &[]), ("nvmf", &["bdev"])];

/// The calls that make one part; `None` when there is no such part.
pub fn subsystem_config(model: &Model, subsystem: &str) -> Option<Vec<Value>> {
    match subsystem {
        "bdev" => Some(bdev(model)),
        "nvmf" => Some(nvmf(model)),
        _ => None,
    }
}

/// The whole configuration.
pub fn config(model: &Model) -> Value {
    let subsystems: Vec<Value> = SUBSYSTEMS
        .iter()
        .map(|(name, _)| json!({"subsystem": name, "config": subsystem_config(model, name)}))
        .collect();
    json!({"subsystems": subsystems})
}

fn call(method: &str, params: Value) -> Value {
    json!({"method": method, "params": params})
}

fn bdev(model: &Model) -> Vec<Value> {
    let mut calls = Vec::new();
    if !model.nvme.given.is_empty() {
        calls.push(call("bdev_nvme_set_options", json!(model.nvme.given)));
    }
    if let Some((enable, period_us)) = model.nvme.hotplug {
        calls.push(call("bdev_nvme_set_hotplug", json!({"enable": enable, "period_us": period_us})));
    }
    calls.extend(model.nvme.controllers.attaches().iter().map(attach_call));
    calls.extend(model.devices.list().iter().filter_map(|device| create_device(device.as_ref())));
    calls
}

/// None for a device that comes with its controller.
fn create_device(device: &dyn BlockDevice) -> Option<Value> {
    let geometry = device.geometry();
    let mut params = Map::new();
    let mut put = |name: &str, value: Value| {
        params.insert(name.to_owned(), value);
    };
    let method = match device.description() {
        Description::Null {} => {
            put("name", json!(device.name()));
            put("num_blocks", json!(geometry.blocks));
            put("block_size", json!(geometry.block_bytes));
            "bdev_null_create"
        }
        Description::Malloc { hugepages } => {
            put("name", json!(device.name()));
            put("num_blocks", json!(geometry.blocks));
            put("block_size", json!(geometry.block_bytes));
            put("optimal_io_boundary", json!(geometry.optimal_io_blocks));
            if hugepages {
                put("hugepages", json!(true));
            }
            "bdev_malloc_create"
        }
        Description::Uring { filename, .. } => {
            put("name", json!(device.name()));
            put("filename", json!(filename));
            put("block_size", json!(geometry.block_bytes));
            "bdev_uring_create"
        }
        Description::Delay { name, base_bdev_name, latencies } => {
            put("name", json!(name));
            put("base_bdev_name", json!(base_bdev_name));
            if let Ok(Value::Object(latencies)) = serde_json::to_value(latencies) {
                latencies.into_iter().for_each(|(name, latency)| put(&name, latency));
            }
            "bdev_delay_create"
        }
        Description::Error { base_bdev, .. } => {
            put("base_name", json!(base_bdev));
            "bdev_error_create"
        }
        Description::Nvme(_) => return None,
    };
    put("uuid", json!(device.uuid()));
    Some(call(method, Value::Object(params)))
}

fn nvmf(model: &Model) -> Vec<Value> {
    let mut calls = Vec::new();
    if let Some(max_subsystems) = model.max_subsystems {
        calls.push(call("nvmf_set_max_subsystems", json!({"max_subsystems": max_subsystems})));
    }
    if let Some(transport) = &model.transport {
        calls.push(call("nvmf_create_transport", transport.to_json()));
    }
    let definition = &model.definition;
    for subsystem in definition.subsystems.values() {
        calls.push(create_subsystem(subsystem));
        for host in &subsystem.hosts {
            calls.push(call("nvmf_subsystem_add_host", json!({"nqn": subsystem.nqn, "host": host})));
        }
        calls.extend(subsystem.namespaces.values().map(|namespace| add_namespace(subsystem, namespace)));
    }
    for address in &definition.discovery_listeners {
        let params = json!({
            "nqn": DISCOVERY_NQN,
            "listen_address": address::to_json(*address),
            "secure_channel": false,
        });
        calls.push(call("nvmf_subsystem_add_listener", params));
    }
    for subsystem in definition.subsystems.values() {
        for listener in &subsystem.listeners {
            add_listener(&mut calls, subsystem, listener);
        }
    }
    for referral in &definition.referrals {
        let params = json!({
            "address": address::to_json(referral.address),
            "subnqn": referral.nqn,
            "secure_channel": false,
        });
        calls.push(call("nvmf_discovery_add_referral", params));
    }
    calls
}

fn create_subsystem(subsystem: &SubsystemDefinition) -> Value {
    let params = json!({
        "nqn": subsystem.nqn,
        "allow_any_host": subsystem.allow_any_host,
        "serial_number": subsystem.serial_number,
        "model_number": subsystem.model_number,
        "max_namespaces": subsystem.max_namespaces,
        "min_cntlid": subsystem.controller_ids.0,
        "max_cntlid": subsystem.controller_ids.1,
        "ana_reporting": subsystem.ana_reporting,
    });
    call("nvmf_create_subsystem", params)
}

fn add_namespace(subsystem: &SubsystemDefinition, namespace: &NamespaceDefinition) -> Value {
    let mut params = json!({
        "nsid": namespace.nsid,
        "bdev_name": namespace.device_name,
        "nguid": hex(&namespace.nguid),
        "uuid": Uuid::from_bytes(namespace.uuid),
        "anagrpid": namespace.ana_group,
        "no_auto_visible": false,
    });
    if namespace.eui64 != [0; 8] {
        params["eui64"] = json!(hex(&namespace.eui64));
    }
    call("nvmf_subsystem_add_ns", json!({"nqn": subsystem.nqn, "namespace": params}))
}

/// A state that all groups share goes into the call that adds the listener; others get calls of their own.
fn add_listener(calls: &mut Vec<Value>, subsystem: &SubsystemDefinition, listener: &ListenerDefinition) {
    let states = &listener.ana_states;
    let shared = states.values().next().copied().filter(|first| {
        states.len() == subsystem.max_namespaces as usize && states.values().all(|state| state == first)
    });
    let address = address::to_json(listener.address);
    let mut params = json!({"nqn": subsystem.nqn, "listen_address": address, "secure_channel": false});
    if let Some(state) = shared {
        params["ana_state"] = json!(ana_word(state));
    }
    calls.push(call("nvmf_subsystem_add_listener", params));
    if shared.is_some() {
        return;
    }
    for (group, state) in states.iter().filter(|(_, state)| **state != AnaState::Optimized) {
        let params = json!({
            "nqn": subsystem.nqn,
            "listen_address": address,
            "ana_state": ana_word(*state),
            "anagrpid": group,
        });
        calls.push(call("nvmf_subsystem_listener_set_ana_state", params));
    }
}
