//! `sledge reactor`.

use crate::client::{Client, Failure};
use crate::output::{Report, Rows, items, percent, text};
use crate::size;

pub(super) fn list(client: &mut Client) -> Result<Report, Failure> {
    let mut all = client.ask("framework_get_reactors")?;
    let mut rows =
        Rows::new(&["#REACTOR", "#CORE", "WAIT", "#BUSY", "#TURNS", "#TASKS", "MEMORY IN USE", "#REFUSED"]);
    for reactor in items(&all["reactors"]) {
        if reactor["responding"] == false {
            let mut cells = vec![text(&reactor["id"]), "does not respond".into()];
            cells.resize(8, "-".into());
            rows.add(cells);
            continue;
        }
        let memory = &reactor["memory"];
        let bytes = |name: &str| size::show(memory[name].as_u64().unwrap_or(0));
        rows.add([
            text(&reactor["id"]),
            text(&reactor["lcore"]),
            text(&reactor["wait"]),
            percent(reactor["busy"].as_u64().unwrap_or(0), reactor["idle"].as_u64().unwrap_or(0)),
            text(&reactor["turns"]),
            text(&reactor["tasks"]),
            format!("{} of {}", bytes("used_bytes"), bytes("total_bytes")),
            text(&memory["refused"]),
        ]);
    }
    Ok(Report::table(all["reactors"].take(), rows, "there are no reactors"))
}
