//! `sledge namespace`.

use serde_json::{Value, json};

use super::device::bytes;
use super::{given, is_discovery, subsystems};
use crate::arguments::Namespace;
use crate::client::{Client, Failure};
use crate::output::{Report, Rows, items, text};
use crate::size;

pub(super) fn run(client: &mut Client, command: Namespace) -> Result<Report, Failure> {
    match command {
        Namespace::List { nqn } => list(client, nqn),
        Namespace::Add { nqn, device, nsid, uuid } => {
            let namespace =
                given([("bdev_name", json!(device)), ("nsid", json!(nsid)), ("uuid", json!(uuid))]);
            let result = client.call("nvmf_subsystem_add_ns", json!({"nqn": nqn, "namespace": namespace}))?;
            let said = format!("{device} is namespace {} of {nqn}", text(&result));
            Ok(Report::say(result, said))
        }
        Namespace::Remove { nqn, nsid } => {
            let result = client.call("nvmf_subsystem_remove_ns", json!({"nqn": nqn, "nsid": nsid}))?;
            Ok(Report::say(result, format!("removed namespace {nsid} of {nqn}")))
        }
    }
}

fn list(client: &mut Client, nqn: Option<String>) -> Result<Report, Failure> {
    let all = subsystems(client, nqn)?;
    let devices = client.ask("bdev_get_bdevs")?;
    let size_of = |name: &Value| {
        let device = items(&devices).iter().find(|device| device["name"] == *name)?;
        Some(size::show(bytes(device)))
    };
    let mut rows = Rows::new(&["SUBSYSTEM", "#NSID", "DEVICE", "#SIZE", "UUID"]);
    let mut found = Vec::new();
    for subsystem in all.iter().filter(|subsystem| !is_discovery(subsystem)) {
        for namespace in items(&subsystem["namespaces"]) {
            rows.add([
                text(&subsystem["nqn"]),
                text(&namespace["nsid"]),
                text(&namespace["bdev_name"]),
                size_of(&namespace["bdev_name"]).unwrap_or_else(|| "-".into()),
                text(&namespace["uuid"]),
            ]);
            let mut namespace = namespace.clone();
            namespace["nqn"] = subsystem["nqn"].clone();
            found.push(namespace);
        }
    }
    Ok(Report::table(
        json!(found),
        rows,
        "there are no namespaces; add a device with `sledge namespace add NQN DEVICE`",
    ))
}
