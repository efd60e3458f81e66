//! What each subcommand does, one noun a module.

mod configuration;
mod device;
mod host;
mod listener;
mod namespace;
mod nvme;
mod reactor;
mod status;
mod subsystem;

use serde_json::{Map, Value, json};

use crate::arguments::{Command, Config, OfSubsystem, Reactor};
use crate::client::{Client, Failure};
use crate::output::{Report, items, text};

/// Runs a subcommand.
pub fn run(client: &mut Client, command: Command) -> Result<Report, Failure> {
    match command {
        Command::Status => status::status(client),
        Command::Subsystem(command) => subsystem::run(client, command),
        Command::Namespace(command) => namespace::run(client, command),
        Command::Listener(command) => listener::run(client, command),
        Command::Device(command) => device::run(client, command),
        Command::Connection(OfSubsystem::List { nqn }) => host::connections(client, nqn),
        Command::Controller(OfSubsystem::List { nqn }) => host::controllers(client, nqn),
        Command::Nvme(command) => nvme::run(client, command),
        Command::Reactor(Reactor::List) => reactor::list(client),
        Command::Config(Config::Save { file }) => configuration::save(client, file),
        Command::Config(Config::Load { file }) => configuration::load(client, &file),
        Command::Rpc { method, params } => rpc(client, &method, params),
        // Need no target and are done before one is looked for.
        Command::Completion { .. } | Command::Setup { .. } => Ok(Report::say(Value::Null, "")),
    }
}

fn rpc(client: &mut Client, method: &str, params: Option<String>) -> Result<Report, Failure> {
    let params = match params {
        None => json!({}),
        Some(text) => match serde_json::from_str(&text) {
            Ok(params @ Value::Object(_)) => params,
            Ok(_) => {
                return Err(Failure::Usage(
                    "the parameters must be a JSON object, as '{\"name\": 1}'".into(),
                ));
            }
            Err(error) => return Err(Failure::Usage(format!("the parameters are not JSON: {error}"))),
        },
    };
    let result = client.call(method, params).map_err(|failure| match failure {
        Failure::Unknown { method, .. } => {
            Failure::Usage(format!("there is no method {method}: `sledge rpc rpc_get_methods` lists them"))
        }
        failure => failure,
    })?;
    Ok(Report::say(result.clone(), format!("{result:#}")))
}

/// The subsystems that a command is about: one, or all.
fn subsystems(client: &mut Client, nqn: Option<String>) -> Result<Vec<Value>, Failure> {
    let params = nqn.map_or_else(|| json!({}), |nqn| json!({"nqn": nqn}));
    Ok(items(&client.call("nvmf_get_subsystems", params)?).to_vec())
}

/// Whether a subsystem is the discovery subsystem, which has no namespaces.
fn is_discovery(subsystem: &Value) -> bool {
    text(&subsystem["subtype"]).eq_ignore_ascii_case("discovery")
}

/// Parameters, without those that were not given.
fn given<const N: usize>(params: [(&str, Value); N]) -> Value {
    let given = params.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(given.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}
