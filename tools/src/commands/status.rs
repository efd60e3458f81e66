//! `sledge status`.

use serde_json::{Value, json};

use super::is_discovery;
use crate::client::{Client, Failure};
use crate::output::{Report, facts, items, percent, text};

pub(super) fn status(client: &mut Client) -> Result<Report, Failure> {
    let version = client.ask("spdk_get_version")?;
    let reactors = client.ask("framework_get_reactors")?;
    let subsystems = client.ask("nvmf_get_subsystems")?;
    let devices = client.ask("bdev_get_bdevs")?;
    let stats = client.ask("nvmf_get_stats")?;

    let own: Vec<&Value> = items(&subsystems).iter().filter(|subsystem| !is_discovery(subsystem)).collect();
    let all_of = |subsystem: &Value, name: &str| items(&subsystem[name]).len() as u64;
    let namespaces: u64 = own.iter().map(|subsystem| all_of(subsystem, "namespaces")).sum();
    let listeners: u64 =
        items(&subsystems).iter().map(|subsystem| all_of(subsystem, "listen_addresses")).sum();
    let groups = items(&stats["poll_groups"]);
    let sum = |name: &str| groups.iter().filter_map(|group| group[name].as_u64()).sum::<u64>();
    let cores: Vec<String> = items(&reactors["reactors"])
        .iter()
        .map(|reactor| match (reactor["busy"].as_u64(), reactor["idle"].as_u64()) {
            (Some(busy), Some(idle)) => format!("{} ({} busy)", text(&reactor["lcore"]), percent(busy, idle)),
            _ => format!("reactor {} does not respond", text(&reactor["id"])),
        })
        .collect();
    let seconds = reactors["ticks"].as_u64().unwrap_or(0) / 1_000_000_000;

    let json = json!({
        "version": version["version"],
        "socket": client.socket(),
        "pid": reactors["pid"],
        "uptime_s": seconds,
        "reactors": reactors["reactors"],
        "devices": items(&devices).len(),
        "subsystems": own.len(),
        "namespaces": namespaces,
        "listeners": listeners,
        "controllers": sum("current_admin_qpairs"),
        "io_queue_pairs": sum("current_io_qpairs"),
        "completed_commands": sum("completed_nvme_io"),
    });
    let lines = facts(&[
        ("target", format!("{}, process {}", text(&version["version"]), text(&reactors["pid"]))),
        ("up", duration(seconds)),
        ("socket", client.socket().display().to_string()),
        ("cores", cores.join(", ")),
        ("devices", items(&devices).len().to_string()),
        (
            "subsystems",
            format!(
                "{}, with {} and {}",
                own.len(),
                some(namespaces, "namespace"),
                some(listeners, "listener")
            ),
        ),
        (
            "hosts",
            format!(
                "{} with {}",
                some(sum("current_admin_qpairs"), "controller"),
                some(sum("current_io_qpairs"), "I/O queue pair")
            ),
        ),
        ("commands", format!("{} reads and writes completed", sum("completed_nvme_io"))),
    ]);
    Ok(Report { json, text: lines })
}

/// How many of something there are.
fn some(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}
