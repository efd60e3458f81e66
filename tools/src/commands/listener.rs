//! `sledge listener`.

use serde_json::{Value, json};

use super::subsystems;
use crate::arguments::{Listener, ListenerAddress};
use crate::client::{Client, Failure};
use crate::output::{Report, Rows, address, items, text};

pub(super) fn run(client: &mut Client, command: Listener) -> Result<Report, Failure> {
    match command {
        Listener::List { nqn } => list(client, nqn),
        Listener::Add(place) => {
            // The one transport is made with the first listener: a person need not know of it.
            if items(&client.ask("nvmf_get_transports")?).is_empty() {
                client.call("nvmf_create_transport", json!({"trtype": "TCP"}))?;
            }
            let result = client.call("nvmf_subsystem_add_listener", params(&place))?;
            Ok(Report::say(result, format!("{} listens on {}", place.nqn, place.address)))
        }
        Listener::Remove(place) => {
            let result = client.call("nvmf_subsystem_remove_listener", params(&place))?;
            Ok(Report::say(result, format!("{} no longer listens on {}", place.nqn, place.address)))
        }
    }
}

fn params(place: &ListenerAddress) -> Value {
    json!({
        "nqn": place.nqn,
        "listen_address": {
            "trtype": "TCP",
            "adrfam": if place.address.is_ipv4() { "IPv4" } else { "IPv6" },
            "traddr": place.address.ip().to_string(),
            "trsvcid": place.address.port().to_string(),
        },
    })
}

fn list(client: &mut Client, nqn: Option<String>) -> Result<Report, Failure> {
    let mut rows = Rows::new(&["SUBSYSTEM", "ADDRESS", "ANA"]);
    let mut found = Vec::new();
    for subsystem in subsystems(client, nqn)? {
        let listeners = client.call("nvmf_subsystem_get_listeners", json!({"nqn": subsystem["nqn"]}))?;
        for listener in items(&listeners) {
            rows.add([text(&subsystem["nqn"]), address(&listener["address"]), ana(listener)]);
            let mut listener = listener.clone();
            listener["nqn"] = subsystem["nqn"].clone();
            found.push(listener);
        }
    }
    Ok(Report::table(
        json!(found),
        rows,
        "there are no listeners; add one with `sledge listener add NQN ADDRESS`",
    ))
}

/// One state, or how many groups are in which.
fn ana(listener: &Value) -> String {
    let states = items(&listener["ana_states"]);
    let Some(first) = states.first() else { return text(&listener["ana_state"]) };
    let differs = |state: &&Value| state["ana_state"] != first["ana_state"];
    match states.iter().filter(differs).count() {
        0 => text(&first["ana_state"]),
        count => format!("{} ({count} groups differ)", text(&first["ana_state"])),
    }
}
