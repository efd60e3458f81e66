//! `sledge nvme`.

use serde_json::{Value, json};

use super::given;
use crate::client::{Client, Failure};
use crate::nvme_arguments::{AttachTcp, Nvme};
use crate::output::{Report, Rows, address, items, text};

pub(super) fn run(client: &mut Client, command: Nvme) -> Result<Report, Failure> {
    match command {
        Nvme::List => list(client),
        Nvme::Attach(wanted) => attach(client, wanted),
        Nvme::AttachDrive { name, address, environment } => {
            let params = given([
                ("name", json!(name)),
                ("trtype", json!("PCIe")),
                ("traddr", json!(address)),
                ("environment", json!(environment)),
            ]);
            attached(client, &name, params)
        }
        Nvme::Detach { name, address } => {
            let params = given([
                ("name", json!(name)),
                ("traddr", json!(address.map(|address| address.ip().to_string()))),
                ("trsvcid", json!(address.map(|address| address.port().to_string()))),
            ]);
            let result = client.call("bdev_nvme_detach_controller", params)?;
            let said = match address {
                Some(address) => format!("detached {name} at {address}"),
                None => format!("detached {name}"),
            };
            Ok(Report::say(result, said))
        }
        Nvme::Reset { name } => {
            let result = client.call("bdev_nvme_reset_controller", json!({"name": name}))?;
            Ok(Report::say(result, format!("reset {name}")))
        }
        Nvme::Health { name } => {
            let health = client.call("bdev_nvme_get_controller_health_info", json!({"name": name}))?;
            let mut rows = Rows::new(&["WHAT", "VALUE"]);
            for (what, value) in health.as_object().into_iter().flatten() {
                rows.add([what.replace('_', " "), text(value)]);
            }
            Ok(Report::table(health.clone(), rows, "the controller says nothing"))
        }
    }
}

fn attach(client: &mut Client, wanted: AttachTcp) -> Result<Report, Failure> {
    let AttachTcp { name, address, nqn, host, digests } = wanted;
    let params = given([
        ("name", json!(name)),
        ("trtype", json!("TCP")),
        ("adrfam", json!(if address.is_ipv4() { "IPv4" } else { "IPv6" })),
        ("traddr", json!(address.ip().to_string())),
        ("trsvcid", json!(address.port().to_string())),
        ("subnqn", json!(nqn)),
        ("hostnqn", json!(host)),
        ("hdgst", json!(digests)),
        ("ddgst", json!(digests)),
    ]);
    attached(client, &name, params)
}

fn attached(client: &mut Client, name: &str, params: Value) -> Result<Report, Failure> {
    let devices = client.call("bdev_nvme_attach_controller", params)?;
    let names: Vec<String> = items(&devices).iter().map(text).collect();
    let said = match names.is_empty() {
        true => format!("attached {name}, which has no namespace that can be used"),
        false => format!("attached {name}: {}", names.join(", ")),
    };
    Ok(Report::say(devices, said))
}

fn list(client: &mut Client) -> Result<Report, Failure> {
    let all = client.ask("bdev_nvme_get_controllers")?;
    let mut rows = Rows::new(&["NAME", "STATE", "ADDRESS", "SUBSYSTEM", "MODEL", "SERIAL"]);
    for controller in items(&all) {
        for path in items(&controller["ctrlrs"]) {
            let tcp = path["trid"]["trtype"] == "TCP";
            rows.add([
                text(&controller["name"]),
                text(&path["state"]),
                if tcp { address(&path["trid"]) } else { text(&path["trid"]["traddr"]) },
                text(&path["trid"]["subnqn"]),
                text(&path["model_number"]),
                text(&path["serial_number"]),
            ]);
        }
    }
    let none = "no NVMe controllers are attached; attach one with `sledge nvme attach` or `sledge nvme attach-drive`";
    Ok(Report::table(all, rows, none))
}
