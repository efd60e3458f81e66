//! `sledge connection` and `sledge controller`: which hosts are there.

use serde_json::{Value, json};

use super::subsystems;
use crate::client::{Client, Failure};
use crate::output::{Report, Rows, address, items, text};

/// What one method lists of each subsystem, with the subsystem's NQN in each item.
fn of_subsystems(client: &mut Client, nqn: Option<String>, method: &str) -> Result<Vec<Value>, Failure> {
    let mut found = Vec::new();
    for subsystem in subsystems(client, nqn)? {
        for item in items(&client.call(method, json!({"nqn": subsystem["nqn"]}))?) {
            let mut item = item.clone();
            item["nqn"] = subsystem["nqn"].clone();
            found.push(item);
        }
    }
    Ok(found)
}

pub(super) fn connections(client: &mut Client, nqn: Option<String>) -> Result<Report, Failure> {
    let found = of_subsystems(client, nqn, "nvmf_subsystem_get_qpairs")?;
    let mut rows =
        Rows::new(&["SUBSYSTEM", "#CNTLID", "#QID", "HOST", "FROM", "TO", "#DEPTH", "DIGESTS", "STATE"]);
    for queue in &found {
        let digests = match (queue["header_digest"] == true, queue["data_digest"] == true) {
            (false, false) => "-",
            (true, false) => "header",
            (false, true) => "data",
            (true, true) => "both",
        };
        rows.add([
            text(&queue["nqn"]),
            text(&queue["cntlid"]),
            text(&queue["qid"]),
            text(&queue["hostnqn"]),
            address(&queue["peer_address"]),
            address(&queue["listen_address"]),
            text(&queue["queue_depth"]),
            digests.into(),
            text(&queue["state"]),
        ]);
    }
    Ok(Report::table(json!(found), rows, "no host is connected"))
}

pub(super) fn controllers(client: &mut Client, nqn: Option<String>) -> Result<Report, Failure> {
    let found = of_subsystems(client, nqn, "nvmf_subsystem_get_controllers")?;
    let mut rows = Rows::new(&["SUBSYSTEM", "#CNTLID", "HOST", "#I/O QUEUES", "#KEEP ALIVE"]);
    for controller in &found {
        rows.add([
            text(&controller["nqn"]),
            text(&controller["cntlid"]),
            text(&controller["hostnqn"]),
            text(&controller["num_io_qpairs"]),
            match controller["keep_alive_ms"].as_u64() {
                None | Some(0) => "-".into(),
                Some(milliseconds) => format!("{milliseconds} ms"),
            },
        ]);
    }
    Ok(Report::table(json!(found), rows, "no host is connected"))
}
