//! Makes what a configuration says: all of it, or nothing.
//!
//! A configuration is a list of calls, grouped by subsystem: `{"subsystems": [{"subsystem": "bdev", "config":
//! [{"method": …, "params": …}]}]}`, as SPDK has it; an array among the calls is a batch of them. The calls are
//! made in order on one draft of the model, which is then served as a whole. What fails is named by its path
//! in the document, from which a file's line is found.

use serde_json::{Map, Value};
use sledge_nvmf::target::TargetError;

use crate::daemon::{ChangeError, Daemon, target_error};
use crate::methods::{self, Action};
use crate::model::Draft;
use crate::rpc::error::{RpcError, Step};

/// One call of a configuration.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where it stands.
    pub path: Vec<Step>,
    /// The method.
    pub method: String,
    /// Its parameters.
    pub params: Value,
}

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The value that is at fault.
    pub path: Vec<Step>,
    /// What is wrong, as a call would answer it.
    pub error: RpcError,
}

impl Fault {
    fn shape(path: &[Step], reason: impl std::fmt::Display) -> Fault {
        Fault { path: path.to_vec(), error: RpcError::invalid_params(reason) }
    }

    /// The place in words, for those who have no file with lines.
    pub fn place(&self) -> String {
        let mut place = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if place.is_empty() => place.push_str(key),
                Step::Key(key) => place.extend([".", key]),
                Step::Index(index) => place.push_str(&format!("[{index}]")),
            }
        }
        place
    }
}

fn below(path: &[Step], step: Step) -> Vec<Step> {
    let mut path = path.to_vec();
    path.push(step);
    path
}

fn key(name: &str) -> Step {
    Step::Key(name.to_owned())
}

/// The object at a path, with no members but those named.
fn object<'a>(value: &'a Value, path: &[Step], names: &[&str]) -> Result<&'a Map<String, Value>, Fault> {
    let Value::Object(members) = value else {
        return Err(Fault::shape(path, "expected an object"));
    };
    match members.keys().find(|name| !names.contains(&name.as_str())) {
        Some(name) => {
            let known = names.join(", ");
            Err(Fault::shape(&below(path, key(name)), format!("unknown member {name:?}, expected {known}")))
        }
        None => Ok(members),
    }
}

fn array<'a>(
    members: &'a Map<String, Value>,
    path: &[Step],
    name: &str,
) -> Result<Vec<(Vec<Step>, &'a Value)>, Fault> {
    match members.get(name) {
        Some(Value::Array(items)) => {
            let path = below(path, key(name));
            Ok(items.iter().enumerate().map(|(at, item)| (below(&path, Step::Index(at)), item)).collect())
        }
        Some(Value::Null) => Ok(Vec::new()),
        Some(_) => Err(Fault::shape(&below(path, key(name)), format!("{name} is not an array"))),
        None => Err(Fault::shape(path, format!("{name} is missing"))),
    }
}

/// The calls of a whole configuration, in order. Checks its shape and that every method exists.
///
/// # Errors
/// The first value that has no place in a configuration.
pub fn entries(config: &Value) -> Result<Vec<Entry>, Fault> {
    let members = object(config, &[], &["subsystems"])?;
    let mut all = Vec::new();
    for (path, subsystem) in array(members, &[], "subsystems")? {
        subsystem_entries(subsystem, &path, &mut all)?;
    }
    Ok(all)
}

/// The calls of one subsystem's part of a configuration.
///
/// # Errors
/// As for [`entries`].
pub fn subsystem_entries(subsystem: &Value, path: &[Step], all: &mut Vec<Entry>) -> Result<(), Fault> {
    let members = object(subsystem, path, &["subsystem", "config"])?;
    if !members.get("subsystem").is_some_and(Value::is_string) {
        return Err(Fault::shape(path, "subsystem, the name, is missing or not a string"));
    }
    for (path, item) in array(members, path, "config")? {
        match item {
            Value::Array(batch) => {
                for (at, item) in batch.iter().enumerate() {
                    all.push(entry(item, below(&path, Step::Index(at)))?);
                }
            }
            item => all.push(entry(item, path)?),
        }
    }
    Ok(())
}

fn entry(value: &Value, path: Vec<Step>) -> Result<Entry, Fault> {
    let members = object(value, &path, &["method", "params"])?;
    let Some(Value::String(method)) = members.get("method") else {
        return Err(Fault::shape(&path, "method is missing or not a string"));
    };
    let at_method = || below(&path, key("method"));
    match methods::find(method).map(|method| method.action) {
        None => {
            // As a parameter that is wrong: the method that the client has called is there.
            let error = RpcError { code: -32602, ..RpcError::method_not_found(method) };
            return Err(Fault { path: at_method(), error });
        }
        Some(Action::Ask(_)) => {
            let reason = format!("{method} configures nothing and can't be in a configuration");
            return Err(Fault::shape(&at_method(), reason));
        }
        Some(Action::Edit(_)) => {}
    }
    let params = match members.get("params") {
        None | Some(Value::Null) => Value::Object(Map::new()),
        Some(params @ Value::Object(_)) => params.clone(),
        Some(_) => return Err(Fault::shape(&below(&path, key("params")), "params is not an object")),
    };
    Ok(Entry { path, method: method.clone(), params })
}

/// Makes the calls on a draft.
///
/// # Errors
/// The first call that fails; the draft is then of no use.
pub fn edit(draft: &mut Draft, entries: &[Entry]) -> Result<(), Fault> {
    draft.reads_configuration = true;
    for entry in entries {
        methods::run_edit(draft, &entry.method, entry.params.clone(), true).map_err(|error| {
            let mut path = entry.path.clone();
            if !error.path.is_empty() {
                path.push(key("params"));
                path.extend(error.path.iter().cloned());
            }
            let message = format!("{}: {}", entry.method, error.message);
            Fault { path, error: RpcError { message, ..error } }
        })?;
    }
    let Some((name, error)) = methods::unreached(draft) else { return Ok(()) };
    let culprit = entries
        .iter()
        .find(|entry| entry.params["name"] == name.as_str() && entry.method == "bdev_nvme_attach_controller");
    Err(Fault { path: culprit.map_or_else(Vec::new, |entry| entry.path.clone()), error })
}

/// Makes the calls and serves the result.
///
/// # Errors
/// The call at fault. Nothing has changed then.
pub async fn load(daemon: &Daemon, entries: Vec<Entry>) -> Result<(), Fault> {
    let all = entries.clone();
    // The fault travels beside the edit's own error, which has no place.
    let outcome = daemon.change(move |draft| match edit(draft, &all) {
        Ok(()) => Ok(()),
        Err(fault) => Err(RpcError { path: fault.path, ..fault.error }),
    });
    outcome.await.map_err(|error| match error {
        ChangeError::Edit(error) => Fault { path: error.path.clone(), error },
        ChangeError::Target(error) => blame(&entries, &error),
    })
}

/// The call that asked for what the NVMe/TCP target could not serve.
pub fn blame(entries: &[Entry], error: &TargetError) -> Fault {
    let culprit = entries.iter().find(|entry| match error {
        TargetError::Listen { address, .. } => {
            let wanted = &entry.params["listen_address"];
            wanted["traddr"].as_str().and_then(|text| text.parse().ok()) == Some(address.ip())
                && text_of(&wanted["trsvcid"]) == address.port().to_string()
        }
        TargetError::Device { device, .. } => entry.params["namespace"]["bdev_name"] == device.as_str(),
        _ => false,
    });
    let error = target_error(error);
    match culprit {
        Some(entry) => {
            let message = format!("{}: {}", entry.method, error.message);
            Fault { path: entry.path.clone(), error: RpcError { message, ..error } }
        }
        None => Fault { path: Vec::new(), error },
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
