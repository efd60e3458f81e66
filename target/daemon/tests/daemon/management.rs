//! Management beside I/O: counters, events, changes that meet devices at work, and each other.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::io::{IoCommand, Operation};
use sledge_nvmf::host::{ConnectOptions, Controller, HostIdentity, QueuePair};
use sledge_reactor::memory::{Segments, allocate};

use crate::host::{NQN, beside, connect, run, serving};
use crate::support::{Target, eventually, free_port};

const BLOCK: u32 = 4096;

fn null(name: &str) -> (&'static str, Value) {
    ("bdev_null_create", json!({"name": name, "num_blocks": 256, "block_size": BLOCK}))
}

fn io(token: u64, operation: Operation) -> IoCommand {
    let mut io = IoCommand::new(token, operation, 0, 2);
    if operation == Operation::Write {
        io.data = Segments::from(allocate(2 * BLOCK as usize).unwrap());
    }
    io
}

// Without it: a person who counts anew would lose what came before without seeing it, or see it again.
#[test]
fn devices_are_counted_and_counted_anew() {
    let (mut target, address) = serving(|_| vec![null("N"), null("other")], "N");
    beside(
        move || async move {
            let controller = connect(address).await;
            let mut queue = QueuePair::open(&controller, 1).await.unwrap();
            for operation in [Operation::Write, Operation::Read, Operation::Read] {
                assert!(run(&mut queue, io(1, operation)).await.is_success());
            }
        },
        || (),
    );
    let mut stats = |params: Value| target.call("bdev_get_iostat", params);
    let all = stats(json!({"per_channel": false})).unwrap();
    assert_eq!(all["bdevs"].as_array().unwrap().len(), 2);
    let channels = stats(json!({"name": "N", "per_channel": true})).unwrap();
    assert_eq!((&channels["name"], &channels["bdevs"]), (&json!("N"), &Value::Null));
    let channel = &channels["channels"][0];
    assert_eq!((&channel["thread_id"], &channel["num_read_ops"]), (&json!(1), &json!(2)));
    assert_eq!(channel["bytes_written"], json!(2 * BLOCK));
    for (params, code) in [
        (json!({"per_channel": true}), -32602),
        (json!({"per_channel": true, "names": ["N", "other"]}), -32602),
        (json!({"name": "N", "names": ["N"]}), -32602),
        (json!({"reset_mode": "some"}), -32602),
        (json!({"names": ["N", "none"], "reset_mode": "all"}), -19),
    ] {
        assert_eq!(stats(params.clone()).unwrap_err().0, code, "{params}");
    }
    let taken = stats(json!({"names": ["N"], "reset_mode": "all"})).unwrap();
    assert_eq!(taken["bdevs"][0]["num_read_ops"], 2);
    assert_eq!(stats(json!({"names": ["N"]})).unwrap()["bdevs"][0]["num_read_ops"], 0);
    for params in [json!({}), json!({"name": "N"}), json!({"name": "N", "mode": "maxmin"})] {
        assert_eq!(target.call("bdev_reset_iostat", params), Ok(json!(true)));
    }
    assert_eq!(target.call("bdev_reset_iostat", json!({"name": "none"})).unwrap_err().0, -19);

    // What was is counted on when its subsystem goes.
    let mut groups = || target.call("nvmf_get_stats", json!({})).unwrap()["poll_groups"].take();
    let before = groups();
    assert_eq!((&before[0]["completed_nvme_io"], &before[0]["pending_bdev_io"]), (&json!(3), &json!(0)));
    assert_eq!(before[0]["transports"][0]["pending_data_buffer"], 0);
    target.call("nvmf_delete_subsystem", json!({"nqn": NQN})).unwrap();
    target.call("nvmf_create_subsystem", json!({"nqn": NQN})).unwrap();
    let mut groups = || target.call("nvmf_get_stats", json!({})).unwrap()["poll_groups"].take();
    assert_eq!(groups()[0]["completed_nvme_io"], 3);
}

// Without it: hosts would leave out one of two namespaces, which a person takes for lost.
#[test]
fn identifiers_are_given_once() {
    let mut target = Target::start(&["--empty"]);
    target.call("nvmf_create_subsystem", json!({"nqn": NQN})).unwrap();
    for name in ["A", "B"] {
        target.call(null(name).0, null(name).1).unwrap();
    }
    let mut add = |device: &str, name: &str, value: &str| {
        let mut namespace = json!({"bdev_name": device});
        namespace[name] = json!(value);
        target.call("nvmf_subsystem_add_ns", json!({"nqn": NQN, "namespace": namespace}))
    };
    let (nguid, eui64) = ("00112233445566778899AABBCCDDEEFF", "0011223344556677");
    add("A", "nguid", nguid).unwrap();
    let (code, reason) = add("B", "nguid", nguid).unwrap_err();
    assert!(code == -32602 && reason.contains("namespace 1 has it already"), "{reason}");
    target.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1})).unwrap();
    let mut add = |device: &str, name: &str, value: &str| {
        let mut namespace = json!({"bdev_name": device});
        namespace[name] = json!(value);
        target.call("nvmf_subsystem_add_ns", json!({"nqn": NQN, "namespace": namespace}))
    };
    add("A", "eui64", eui64).unwrap();
    assert!(add("B", "eui64", eui64).unwrap_err().1.contains("namespace.eui64"));
}

// Without it: a program that follows the target would not learn of devices, or learn of some that never were.
#[test]
fn devices_that_come_and_go_are_told() {
    let mut target = Target::start(&["--empty"]);
    let types = target.call("notify_get_types", json!({})).unwrap();
    assert_eq!(types, json!(["bdev_register", "bdev_unregister"]));
    let (method, params) = null("never");
    let failing = json!({"subsystem": "bdev", "config": [
        {"method": method, "params": params},
        {"method": "bdev_null_delete", "params": {"name": "none"}},
    ]});
    target.call("load_subsystem_config", failing).unwrap_err();
    for (method, params) in [null("N"), ("bdev_error_create", json!({"base_name": "N"}))] {
        target.call(method, params).unwrap();
    }
    target.call("bdev_error_delete", json!({"name": "EE_N"})).unwrap();
    let told = |id: u64, kind: &str, name: &str| json!({"id": id, "type": kind, "ctx": name});
    let expected =
        [told(0, "bdev_register", "N"), told(1, "bdev_register", "EE_N"), told(2, "bdev_unregister", "EE_N")];
    assert_eq!(target.call("notify_get_notifications", json!({})), Ok(json!(expected)));
    let some = target.call("notify_get_notifications", json!({"id": 1, "max": 1}));
    assert_eq!(some, Ok(json!([expected[1]])));
    assert_eq!(target.call("notify_get_notifications", json!({"id": 3})), Ok(json!([])));
}

// Without it: what these report could be missing, or not be true of this target.
#[test]
fn memory_and_scheduler_are_reported() {
    let mut target = Target::start(&["--empty", "--memory", "16"]);
    let memory = target.call("iobuf_get_stats", json!({})).unwrap();
    assert_eq!(memory[0]["module"], "reactor_0");
    assert_eq!((&memory[0]["total_bytes"], &memory[0]["refused"]), (&json!(16 << 20), &json!(0)));
    let reactors = target.call("framework_get_reactors", json!({})).unwrap();
    assert_eq!(reactors["reactors"][0]["memory"]["backing"], memory[0]["backing"]);
    let scheduler = target.call("framework_get_scheduler", json!({})).unwrap();
    assert_eq!(scheduler, json!({"scheduler_name": "static", "scheduler_period": 0}));
    for params in [json!({"name": "static"}), json!({"name": "static", "period": 1000, "mappings": ""})] {
        assert_eq!(target.call("framework_set_scheduler", params), Ok(json!(true)));
    }
    for (params, words) in [
        (json!({"name": "dynamic", "load_limit": 20}), "name: \"dynamic\" is not supported"),
        (json!({"name": "static", "core_busy": 95}), "core_busy: "),
        (json!({"name": "static", "mappings": "a:1"}), "mappings: "),
        (json!({}), "missing field `name`"),
    ] {
        let (code, message) = target.call("framework_set_scheduler", params.clone()).unwrap_err();
        assert!(code == -32602 && message.contains(words), "{params}: {message}");
    }
}

// Without it: a device that hangs would have every later change wait and fail though it was made, and could never be
// deleted or resized again.
#[test]
fn a_hanging_device_holds_up_nobody_else() {
    let hang = json!({"name": "EE_N", "io_type": "write", "error_type": "pending", "num": 1});
    let calls = vec![
        null("N"),
        null("other"),
        ("bdev_error_create", json!({"base_name": "N"})),
        ("bdev_error_inject_error", hang),
    ];
    let (mut target, address) = serving(|_| calls, "EE_N");
    let host = move || async move {
        let controller = connect(address).await;
        let mut queue = QueuePair::open(&controller, 1).await.unwrap();
        run(&mut queue, io(1, Operation::Write)).await
    };
    let manage = || {
        eventually("a write is under way", || {
            let queues = target.call("nvmf_subsystem_get_qpairs", json!({"nqn": NQN})).unwrap();
            queues.as_array().unwrap().iter().any(|queue| queue["qid"] == 1 && queue["outstanding"] == 1)
        });
        // It is removed; that its device is at work still is said where it matters.
        assert_eq!(target.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1})), Ok(json!(true)));
        let subsystems = target.call("nvmf_get_subsystems", json!({"nqn": NQN})).unwrap();
        assert_eq!(subsystems[0]["namespaces"], json!([]));
        let (code, reason) = target.call("bdev_error_delete", json!({"name": "EE_N"})).unwrap_err();
        assert!(code == -16 && reason.contains("which is removed already"), "{reason}");
        // Others go on at once, and so does a namespace in its place. What waits for a device waits for 5 s, each time,
        // while a machine that is slow is not so each time.
        let mut at_once = |change: &dyn Fn(&mut Target, u64)| {
            let soon = (2..8).any(|round| {
                let began = Instant::now();
                change(&mut target, round);
                began.elapsed() < Duration::from_secs(4)
            });
            assert!(soon, "it waited for the device that hangs");
        };
        at_once(&|target, round| {
            let other = json!({"nqn": NQN, "namespace": {"bdev_name": "other", "nsid": 1}});
            if round > 2 {
                target.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1})).unwrap();
            }
            assert_eq!(target.call("nvmf_subsystem_add_ns", other), Ok(json!(1)));
        });
        for name in ["N", "other"] {
            at_once(&|target, round| {
                let grown = json!({"name": name, "new_size": round});
                assert_eq!(target.call("bdev_null_resize", grown), Ok(json!(true)));
            });
        }
        assert_eq!(target.call("bdev_error_delete", json!({"name": "EE_N"})).unwrap_err().0, -16);

        target.call("bdev_error_resume_pending", json!({"name": "EE_N"})).unwrap();
        eventually("the device can be deleted", || {
            target.call("bdev_error_delete", json!({"name": "EE_N"})).is_ok()
        });
        target.call("bdev_null_delete", json!({"name": "N"})).unwrap();
        target
    };
    let (_, mut target) = beside(host, manage);
    assert_eq!(target.call("bdev_null_delete", json!({"name": "other"})).unwrap_err().0, -16);
}

// Without it: a mistake elsewhere in a configuration would leave a file behind, which is then taken as it is, with
// whatever size it has, when the configuration is right.
#[test]
fn a_file_is_not_left_by_a_change_that_fails() {
    let mut target = Target::start(&["--empty"]);
    let file = target.folder.path().join("disk.img");
    let create = |bytes: u64| {
        json!({"method": "bdev_uring_create", "params": {"name": "F", "filename": file, "block_size": 4096,
            "create_bytes": bytes}})
    };
    let wrong = json!({"method": "bdev_null_delete", "params": {"name": "none"}});
    let mut load =
        |calls: Value| target.call("load_subsystem_config", json!({"subsystem": "bdev", "config": calls}));
    load(json!([create(1 << 20), wrong])).unwrap_err();
    assert!(!file.exists());
    load(json!([create(2 << 20)])).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().len(), 2 << 20);
    // One that was there before is somebody's.
    target.call("bdev_uring_delete", json!({"name": "F"})).unwrap();
    let mut load =
        |calls: Value| target.call("load_subsystem_config", json!({"subsystem": "bdev", "config": calls}));
    load(json!([create(2 << 20), wrong])).unwrap_err();
    assert!(file.exists());
}

// Without it: two targets, or two devices of one, could serve the same file as two disks, and hosts destroy each other's
// data; or a file could not be served again at once after its device was deleted, or its target killed.
#[test]
fn a_file_is_served_once() {
    let create = |target: &Target, name: &str, file: &str| json!({"name": name, "filename": target.folder.path().join(file), "block_size": BLOCK, "create_bytes": 1 << 20});
    let (mut target, address) =
        serving(|target| vec![("bdev_uring_create", create(target, "F", "disk.img"))], "F");
    std::os::unix::fs::symlink("disk.img", target.folder.path().join("link.img")).unwrap();
    let path = target.folder.path().join("disk.img");
    let refused = |outcome: Result<Value, (i64, String)>| {
        let (code, reason) = outcome.unwrap_err();
        assert!(code == -16 && reason.contains("is in use: another target"), "{code} {reason}");
    };
    let again = create(&target, "again", "link.img");
    refused(target.call("bdev_uring_create", again));
    let mut other = Target::start(&["--empty"]);
    let mine = json!({"name": "F", "filename": path, "block_size": BLOCK});
    refused(other.call("bdev_uring_create", mine.clone()));
    assert!(path.exists());

    // With a host connected all the time.
    let host = move || async move {
        let controller = connect(address).await;
        controller.next_event().await;
    };
    beside(host, || {
        eventually("the host is there", || {
            target.call("nvmf_subsystem_get_controllers", json!({"nqn": NQN})).unwrap() != json!([])
        });
        for _ in 0..5 {
            target.call("nvmf_subsystem_remove_ns", json!({"nqn": NQN, "nsid": 1})).unwrap();
            target.call("bdev_uring_delete", json!({"name": "F"})).unwrap();
            let create = create(&target, "F", "disk.img");
            target.call("bdev_uring_create", create).unwrap();
            let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": "F", "nsid": 1}});
            target.call("nvmf_subsystem_add_ns", namespace).unwrap();
        }
    });
    target.signal("KILL");
    target.wait();
    other.call("bdev_uring_create", mine).unwrap();
}

/// Calls a method on a connection of its own; an error as its code.
fn call(stream: &mut UnixStream, method: &str, params: &Value) -> Result<Value, i64> {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    std::io::Write::write_all(stream, request.to_string().as_bytes()).unwrap();
    let mut response = Value::deserialize(&mut serde_json::Deserializer::from_reader(&*stream)).unwrap();
    match response["error"]["code"].as_i64() {
        Some(code) => Err(code),
        None => Ok(response["result"].take()),
    }
}

// Without it: two who change the same thing at once, while hosts come and use it, could leave it half there, lose a
// device, or take the target down.
#[test]
fn clients_and_hosts_race() {
    let (mut target, address) = serving(|_| vec![null("base")], "base");
    let empty = target.call("save_config", json!({})).unwrap();
    let nqn = "nqn.2026-01.io.sledge:race";
    let port = free_port();
    let listen =
        json!({"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port.to_string()});
    let steps = [
        null("R"),
        ("nvmf_create_subsystem", json!({"nqn": nqn, "allow_any_host": true})),
        ("nvmf_subsystem_add_ns", json!({"nqn": nqn, "namespace": {"bdev_name": "R", "nsid": 1}})),
        ("nvmf_subsystem_add_listener", json!({"nqn": nqn, "listen_address": listen})),
        ("nvmf_subsystem_remove_listener", json!({"nqn": nqn, "listen_address": listen})),
        ("nvmf_subsystem_remove_ns", json!({"nqn": nqn, "nsid": 1})),
        ("nvmf_delete_subsystem", json!({"nqn": nqn})),
        ("bdev_null_delete", json!({"name": "R"})),
    ];
    let socket = target.socket();
    let over = std::sync::Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let host = move || async move {
        let (mut met, mut failed) = (0u32, 0u32);
        let steady = connect(address).await;
        let mut queue = QueuePair::open(&steady, 1).await.unwrap();
        while !ended.load(Ordering::SeqCst) {
            // Nobody changes this one.
            assert!(run(&mut queue, io(1, Operation::Write)).await.is_success());
            let there = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
            let host = HostIdentity::random().unwrap();
            let Ok(other) =
                Controller::connect(ConnectOptions::new(there, Nqn::new(nqn).unwrap(), host)).await
            else {
                failed += 1;
                sledge_reactor::sleep(Duration::from_millis(1)).await;
                continue;
            };
            met += 1;
            if let Ok(mut queue) = QueuePair::open(&other, 1).await {
                let _ = run(&mut queue, io(2, Operation::Write)).await;
            }
        }
        (met, failed)
    };
    let clients = || {
        std::thread::scope(|scope| {
            for client in 0..4usize {
                let (steps, socket) = (&steps, &socket);
                scope.spawn(move || {
                    let mut stream = UnixStream::connect(socket).unwrap();
                    for turn in 0..120 {
                        let (method, params) = &steps[(turn * (2 * client + 1) + client) % steps.len()];
                        if let Err(code) = call(&mut stream, method, params) {
                            // Somebody else was there first, or has not been there yet.
                            assert!([-16, -17, -19, -32602].contains(&code), "{method}: {code}");
                        }
                    }
                });
            }
        });
        over.store(true, Ordering::SeqCst);
    };
    let ((_met, _failed), ()) = beside(host, clients);
    for (method, params) in &steps[4..] {
        let _ = target.call(method, params.clone());
    }
    assert_eq!(target.call("save_config", json!({})).unwrap(), empty);
    assert_eq!(target.call("bdev_get_bdevs", json!({})).unwrap().as_array().unwrap().len(), 1);
    eventually("all hosts are gone", || {
        target.call("nvmf_subsystem_get_controllers", json!({"nqn": NQN})).unwrap() == json!([])
    });
    target.end();
}
