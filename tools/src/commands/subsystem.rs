//! `sledge subsystem`.

use serde_json::{Value, json};

use super::{given, is_discovery, subsystems};
use crate::arguments::{CreateSubsystem, Subsystem};
use crate::client::{Client, Failure};
use crate::output::{Report, Rows, address, facts, items, text};

pub(super) fn run(client: &mut Client, command: Subsystem) -> Result<Report, Failure> {
    match command {
        Subsystem::List => list(client),
        Subsystem::Show { nqn } => show(client, nqn),
        Subsystem::Create(wanted) => create(client, wanted),
        Subsystem::Delete { nqn } => {
            let result = client.call("nvmf_delete_subsystem", json!({"nqn": nqn}))?;
            Ok(Report::say(result, format!("deleted {nqn}")))
        }
        Subsystem::AllowHost { nqn, host } => {
            let result = client.call("nvmf_subsystem_add_host", json!({"nqn": nqn, "host": host}))?;
            Ok(Report::say(result, format!("{host} may connect to {nqn}")))
        }
        Subsystem::DenyHost { nqn, host } => {
            let result = client.call("nvmf_subsystem_remove_host", json!({"nqn": nqn, "host": host}))?;
            Ok(Report::say(result, format!("{host} is no longer listed for {nqn}")))
        }
        Subsystem::AllowAny { nqn, off } => {
            let params = json!({"nqn": nqn, "allow_any_host": !off});
            let result = client.call("nvmf_subsystem_allow_any_host", params)?;
            let who = if off { "only listed hosts" } else { "any host" };
            Ok(Report::say(result, format!("{who} may connect to {nqn}")))
        }
    }
}

fn hosts(subsystem: &Value) -> String {
    if subsystem["allow_any_host"] == true {
        return "any".into();
    }
    match items(&subsystem["hosts"]).len() {
        0 => "none".into(),
        count => count.to_string(),
    }
}

fn listen_addresses(subsystem: &Value) -> String {
    let all: Vec<String> = items(&subsystem["listen_addresses"]).iter().map(address).collect();
    if all.is_empty() { "-".into() } else { all.join(" ") }
}

fn list(client: &mut Client) -> Result<Report, Failure> {
    let all = subsystems(client, None)?;
    let mut rows = Rows::new(&["NQN", "#NAMESPACES", "HOSTS", "LISTENERS"]);
    for subsystem in all.iter().filter(|subsystem| !is_discovery(subsystem)) {
        rows.add([
            text(&subsystem["nqn"]),
            items(&subsystem["namespaces"]).len().to_string(),
            hosts(subsystem),
            listen_addresses(subsystem),
        ]);
    }
    Ok(Report::table(
        json!(all),
        rows,
        "there are no subsystems; create one with `sledge subsystem create NQN`",
    ))
}

fn show(client: &mut Client, nqn: String) -> Result<Report, Failure> {
    let subsystem = subsystems(client, Some(nqn))?.into_iter().next().unwrap_or(Value::Null);
    let allowed = if subsystem["allow_any_host"] == true {
        "any".to_owned()
    } else {
        let listed: Vec<String> = items(&subsystem["hosts"]).iter().map(|host| text(&host["nqn"])).collect();
        if listed.is_empty() { "none".into() } else { listed.join(" ") }
    };
    let mut lines = vec![
        ("nqn", text(&subsystem["nqn"])),
        ("hosts", allowed),
        ("listeners", listen_addresses(&subsystem)),
    ];
    if !is_discovery(&subsystem) {
        let namespaces: Vec<String> = items(&subsystem["namespaces"])
            .iter()
            .map(|namespace| format!("{} ({})", text(&namespace["nsid"]), text(&namespace["bdev_name"])))
            .collect();
        lines.extend([
            ("serial", text(&subsystem["serial_number"])),
            ("model", text(&subsystem["model_number"])),
            (
                "namespaces",
                format!("{} of at most {}", namespaces.join(" "), text(&subsystem["max_namespaces"])),
            ),
            (
                "controllers",
                format!("{} to {}", text(&subsystem["min_cntlid"]), text(&subsystem["max_cntlid"])),
            ),
        ]);
    }
    let text = facts(&lines);
    Ok(Report { json: subsystem, text })
}

fn create(client: &mut Client, wanted: CreateSubsystem) -> Result<Report, Failure> {
    let params = given([
        ("nqn", json!(wanted.nqn)),
        ("serial_number", json!(wanted.serial)),
        ("model_number", json!(wanted.model)),
        ("max_namespaces", json!(wanted.max_namespaces)),
        ("ana_reporting", json!(wanted.ana)),
        ("allow_any_host", json!(wanted.allow_any)),
    ]);
    let result = client.call("nvmf_create_subsystem", params)?;
    let next = if wanted.allow_any { "" } else { "; let hosts in with `sledge subsystem allow-host`" };
    Ok(Report::say(result, format!("created {}{next}", wanted.nqn)))
}
