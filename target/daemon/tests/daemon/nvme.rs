//! NVMe controllers over NVMe/TCP: one target serves the disk of another.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use sledge_nvme::io::{IoCommand, Operation};
use sledge_nvmf::host::QueuePair;
use sledge_reactor::memory::{Segments, allocate};

use crate::host::{NQN, beside, connect, run, serving};
use crate::support::{Target, eventually, free_port};

const BLOCK: usize = 512;

fn malloc(_: &Target) -> Vec<(&'static str, Value)> {
    vec![("bdev_malloc_create", json!({"name": "M", "num_blocks": 4096, "block_size": BLOCK}))]
}

fn path(address: SocketAddr) -> Value {
    json!({
        "name": "Nvme0", "trtype": "TCP", "adrfam": "IPv4", "traddr": address.ip().to_string(),
        "trsvcid": address.port().to_string(), "subnqn": NQN, "ctrlr_loss_timeout_sec": -1,
        "reconnect_delay_sec": 1, "fast_io_fail_timeout_sec": 10,
    })
}

/// Serves `device` to hosts, under the name that [`connect`] asks for.
fn serve(target: &mut Target, device: &str) -> SocketAddr {
    let port = free_port();
    let address = json!({"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": port.to_string()});
    for (method, params) in [
        ("nvmf_create_transport", json!({"trtype": "TCP"})),
        ("nvmf_create_subsystem", json!({"nqn": NQN, "allow_any_host": true, "serial_number": "FRONT"})),
        ("nvmf_subsystem_add_ns", json!({"nqn": NQN, "namespace": {"bdev_name": device}})),
        ("nvmf_subsystem_add_listener", json!({"nqn": NQN, "listen_address": address})),
    ] {
        target.call(method, params).unwrap_or_else(|error| panic!("{method}: {error:?}"));
    }
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn filled(slba: u64, byte: u8) -> IoCommand {
    let mut buffer = allocate(8 * BLOCK).unwrap();
    buffer.fill(byte);
    let mut io = IoCommand::new(1, Operation::Write, slba, 8);
    io.data = Segments::from(buffer);
    io
}

// Without it: the disk of another target could not be served on, would lose its identity on the way, or its
// configuration would not be what was saved.
#[test]
fn a_disk_is_served_on() {
    let (mut back, address) = serving(malloc, "M");
    let uuid = back.call("bdev_get_bdevs", json!({"name": "M"})).unwrap()[0]["uuid"].clone();
    let mut front = Target::start(&["--empty"]);
    front.call("bdev_nvme_set_options", json!({"bdev_retry_count": 2, "transport_tos": 0})).unwrap();
    assert_eq!(front.call("bdev_nvme_attach_controller", path(address)), Ok(json!(["Nvme0n1"])));
    let again = front.call("bdev_nvme_attach_controller", path(address)).unwrap_err();
    assert!(again.0 == -114 && again.1.contains("specified network path"), "{again:?}");

    let device = front.call("bdev_get_bdevs", json!({"name": "Nvme0n1"})).unwrap()[0].clone();
    assert_eq!((&device["uuid"], &device["num_blocks"]), (&uuid, &json!(4096)));
    let shown = &device["driver_specific"]["nvme"][0];
    assert_eq!(shown["trid"]["subnqn"], NQN);
    assert_eq!(shown["ns_data"]["id"], 1);
    assert_eq!(device["driver_specific"]["mp_policy"], "active_passive");
    let controllers = front.call("bdev_nvme_get_controllers", json!({})).unwrap();
    assert_eq!(controllers[0]["ctrlrs"][0]["state"], "enabled");
    let health = front.call("bdev_nvme_get_controller_health_info", json!({"name": "Nvme0"})).unwrap();
    assert!(health["power_on_hours"].is_u64(), "{health}");

    let served = serve(&mut front, "Nvme0n1");
    let host = move || async move {
        let controller = connect(served).await;
        let mut queue = QueuePair::open(&controller, 1).await.unwrap();
        assert!(run(&mut queue, filled(0, 7)).await.is_success());
        assert!(
            run(&mut queue, IoCommand::new(2, Operation::Compare, 0, 8).with(filled(0, 7)))
                .await
                .is_success()
        );
        assert!(
            !run(&mut queue, IoCommand::new(3, Operation::Compare, 0, 8).with(filled(0, 8)))
                .await
                .is_success()
        );
    };
    beside(host, || ());
    let busy = front.call("bdev_nvme_detach_controller", json!({"name": "Nvme0"})).unwrap_err();
    assert_eq!(busy.0, -16, "{busy:?}");

    // Saved, loaded in its place, saved again: the same text.
    let saved = front.call("save_config", json!({})).unwrap();
    let folder = front.end();
    std::fs::write(folder.path().join("a.json"), saved.to_string()).unwrap();
    let mut front = Target::start_in(folder, &["-c", "a.json"]);
    assert_eq!(front.call("save_config", json!({})).unwrap(), saved);
    beside(
        move || async move {
            let controller = connect(served).await;
            let mut queue = QueuePair::open(&controller, 1).await.unwrap();
            let compare = IoCommand::new(1, Operation::Compare, 0, 8).with(filled(0, 7));
            assert!(run(&mut queue, compare).await.is_success());
        },
        || (),
    );
    front.call("nvmf_delete_subsystem", json!({"nqn": NQN})).unwrap();
    front.call("bdev_nvme_detach_controller", json!({"name": "Nvme0"})).unwrap();
    assert_eq!(front.call("bdev_get_bdevs", json!({})).unwrap(), json!([]));
}

/// Gives a command another's data.
trait With {
    fn with(self, other: IoCommand) -> Self;
}

impl With for IoCommand {
    fn with(mut self, other: IoCommand) -> Self {
        self.data = other.data;
        self
    }
}

// Without it: a namespace that is added, grows or goes at the other target would be seen only after a restart.
#[test]
fn what_the_other_target_announces_is_followed() {
    let null = |_: &Target| {
        vec![("bdev_null_create", json!({"name": "N", "num_blocks": 2048, "block_size": BLOCK}))]
    };
    let (mut back, address) = serving(null, "N");
    let mut front = Target::start(&["--empty"]);
    front.call("bdev_nvme_attach_controller", path(address)).unwrap();
    back.call("bdev_null_create", json!({"name": "N2", "num_blocks": 2048, "block_size": BLOCK})).unwrap();
    back.call("nvmf_subsystem_add_ns", json!({"nqn": NQN, "namespace": {"bdev_name": "N2"}})).unwrap();
    eventually("the second namespace appears", || {
        front.call("bdev_get_bdevs", json!({"name": "Nvme0n2"})).is_ok()
    });
    back.call("bdev_null_resize", json!({"name": "N", "new_size": 2})).unwrap();
    eventually("the first grows", || {
        front.call("bdev_get_bdevs", json!({"name": "Nvme0n1"})).unwrap()[0]["num_blocks"] == 4096
    });
    back.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 2})).unwrap();
    eventually("the second vanishes", || front.call("bdev_get_bdevs", json!({"name": "Nvme0n2"})).is_err());
}

// Without it: an attach that fails could leave half a controller behind, or a command that destroys data be sent to a
// disk in use.
#[test]
fn refusals_leave_nothing_behind() {
    let (back, address) = serving(malloc, "M");
    let mut front = Target::start(&["--empty"]);
    let mut wrong = path(address);
    wrong["subnqn"] = json!("nqn.2026-01.io.sledge:nobody");
    assert!(front.call("bdev_nvme_attach_controller", wrong).is_err());
    let nowhere = path(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
    assert_eq!(front.call("bdev_nvme_attach_controller", nowhere).unwrap_err().0, -111);
    for (name, value) in
        [("trtype", "RDMA"), ("traddr", "example.org"), ("multipath", "maybe"), ("psk", "key")]
    {
        let mut wrong = path(address);
        wrong[name] = json!(value);
        let (code, reason) = front.call("bdev_nvme_attach_controller", wrong).unwrap_err();
        assert!(code == -32602 && reason.contains(name), "{name}: {code} {reason}");
    }
    assert_eq!(front.call("bdev_nvme_get_controllers", json!({})).unwrap(), json!([]));
    // A device of the controller can't be registered: its name is taken.
    front.call("bdev_null_create", json!({"name": "Nvme0n1", "num_blocks": 8, "block_size": BLOCK})).unwrap();
    assert_eq!(front.call("bdev_nvme_attach_controller", path(address)).unwrap_err().0, -17);
    assert_eq!(front.call("bdev_nvme_get_controllers", json!({})).unwrap(), json!([]));
    front.call("bdev_null_delete", json!({"name": "Nvme0n1"})).unwrap();

    front.call("bdev_nvme_attach_controller", path(address)).unwrap();
    serve(&mut front, "Nvme0n1");
    let command = |opcode: u8, cdw10: u8| {
        let mut bytes = [0u8; 64];
        (bytes[0], bytes[40]) = (opcode, cdw10);
        bytes.iter().map(|byte| format!("{byte:08b}")).collect::<String>()
    };
    let text = |bits: String| {
        let alphabet: Vec<char> =
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars().collect();
        let padded = format!("{bits:0<516}");
        let digit =
            |six: &[u8]| alphabet[usize::from_str_radix(std::str::from_utf8(six).unwrap(), 2).unwrap()];
        padded.as_bytes().chunks(6).map(digit).collect::<String>()
    };
    let mut send = |opcode, cdw10, direction: &str, length: usize| {
        let cmdbuf = text(command(opcode, cdw10));
        let params = json!({
            "name": "Nvme0", "cmd_type": "admin", "data_direction": direction, "cmdbuf": cmdbuf, "data_len": length,
        });
        front.call("bdev_nvme_send_cmd", params)
    };
    let identify = send(0x06, 1, "c2h", 4096).unwrap();
    assert_eq!(identify["data"].as_str().unwrap().len(), 4096_usize.div_ceil(3) * 4);
    let format = send(0x80, 0, "h2c", 0).unwrap_err();
    assert!(format.0 == -16 && format.1.contains("in use"), "{format:?}");
    assert_eq!(send(0x01, 0, "h2c", 0).unwrap_err().0, -32602);
    drop(back);
}

// Without it: hosts would get errors when the target behind the one that they use is started anew, or hang for ever when
// it stays away.
#[test]
fn a_target_that_is_killed_and_returns_is_waited_for() {
    let file = |target: &Target| {
        let path = target.folder.path().join("disk.img");
        let uuid = "6f1d2a34-58c1-4a8b-9d11-3c2f00000001";
        let params = json!({"name": "F", "filename": path, "block_size": BLOCK, "create_bytes": 1 << 20, "uuid": uuid});
        vec![("bdev_uring_create", params)]
    };
    let (mut back, address) = serving(file, "F");
    let saved = back.call("save_config", json!({})).unwrap();
    let mut front = Target::start(&["--empty"]);
    let mut short = path(address);
    short["fast_io_fail_timeout_sec"] = json!(2);
    front.call("bdev_nvme_attach_controller", short).unwrap();
    let served = serve(&mut front, "Nvme0n1");
    let (written, wait) = std::sync::mpsc::channel();
    let (killed, go_on) = std::sync::mpsc::channel();
    let host = move || async move {
        let controller = connect(served).await;
        let mut queue = QueuePair::open(&controller, 1).await.unwrap();
        assert!(run(&mut queue, filled(8, 1)).await.is_success());
        written.send(()).unwrap();
        while go_on.try_recv().is_err() {
            sledge_reactor::sleep(std::time::Duration::from_millis(1)).await;
        }
        // It is away: what comes waits, and is then to be tried again.
        let mut refused = 0;
        loop {
            let status = run(&mut queue, filled(8, 2)).await;
            if status.is_success() {
                break;
            }
            assert!(
                status.is(sledge_nvme::Status::INTERNAL_PATH_ERROR) && !status.is_do_not_retry(),
                "{status}"
            );
            if refused == 0 {
                written.send(()).unwrap();
            }
            refused += 1;
            sledge_reactor::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(refused > 0);
        let compare = IoCommand::new(3, Operation::Compare, 8, 8).with(filled(8, 2));
        assert!(run(&mut queue, compare).await.is_success());
    };
    let ((), back) = beside(host, || {
        wait.recv_timeout(crate::support::PATIENCE).unwrap();
        back.process.kill().unwrap();
        back.wait();
        killed.send(()).unwrap();
        wait.recv_timeout(crate::support::PATIENCE).unwrap();
        assert_eq!(
            front.call("bdev_nvme_get_controllers", json!({})).unwrap()[0]["ctrlrs"][0]["state"],
            "reconnecting"
        );
        let folder = std::mem::replace(&mut back.folder, tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("a.json"), saved.to_string()).unwrap();
        Target::start_in(folder, &["-c", "a.json"])
    });
    drop(back);
}

// Without it: a target whose disk has two paths would not start while one of them is down; or would start without any.
#[test]
fn one_path_is_enough_to_start() {
    let (mut back, address) = serving(malloc, "M");
    let other = free_port();
    let second = json!({"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": other.to_string()});
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, other));
    let call = |params: Value| json!({"method": "bdev_nvme_attach_controller", "params": params});
    let text = |calls: Value| json!({"subsystems": [{"subsystem": "bdev", "config": calls}]}).to_string();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("none.json"), text(json!([call(path(at))]))).unwrap();
    let output = crate::support::program(folder.path()).args(["-c", "none.json"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("none.json:1:"), "{said}");

    std::fs::write(folder.path().join("a.json"), text(json!([call(path(at)), call(path(address))]))).unwrap();
    let mut front = Target::start_in(folder, &["-c", "a.json"]);
    let states = |front: &mut Target| -> Vec<String> {
        let all = front.call("bdev_nvme_get_controllers", json!({})).unwrap();
        let paths = all[0]["ctrlrs"].as_array().unwrap();
        paths.iter().map(|path| path["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(&mut front), ["enabled", "connecting"]);
    assert_eq!(
        front.call("save_config", json!({})).unwrap()["subsystems"][0]["config"].as_array().unwrap().len(),
        2
    );
    back.call("nvmf_subsystem_add_listener", json!({"nqn": NQN, "listen_address": second})).unwrap();
    eventually("the second path is attached", || states(&mut front) == ["enabled", "enabled"]);
    let paths = front.call("bdev_nvme_get_io_paths", json!({"name": "Nvme0n1"})).unwrap();
    assert_eq!(paths["poll_groups"][0]["io_paths"].as_array().unwrap().len(), 2);
    // One of two goes; the device stays.
    let one = json!({"name": "Nvme0", "trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": other.to_string()});
    front.call("bdev_nvme_detach_controller", one).unwrap();
    assert_eq!(states(&mut front), ["enabled"]);
    assert!(front.call("bdev_get_bdevs", json!({"name": "Nvme0n1"})).is_ok());
}
