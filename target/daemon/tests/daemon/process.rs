//! The process from outside: start, management socket, signals, end.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Stdio;

use crate::support::{PATIENCE, Target, free_port, kill, program, wait_for_end};
use serde_json::{Value, json};

// Without it: the first command of a newcomer might not serve a disk, or lose it at the next start.
#[test]
fn without_arguments_it_serves_a_disk() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut target = Target::start(&["--listen", &listen]);
    let printed = target.printed(4);
    assert!(printed[0].contains("Any host"), "{printed:?}");
    assert_eq!(printed[2], format!("  nvme discover -t tcp -a 127.0.0.1 -s {port}"));
    assert_eq!(
        printed[3],
        format!("  nvme connect -t tcp -a 127.0.0.1 -s {port} -n nqn.2026-01.io.sledge:default")
    );
    TcpStream::connect(&listen).unwrap();
    assert_eq!(fs::metadata(target.folder.path().join("sledge-data/disk.img")).unwrap().len(), 1 << 30);
    let mode =
        |path: &str| fs::metadata(target.folder.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("sledge-data"), mode("sledge-data/sledge.sock")), (0o700, 0o600));
    let before = target.call("nvmf_get_subsystems", json!({})).unwrap();
    assert_eq!(before[1]["namespaces"][0]["nsid"], 1);

    let folder = target.end();
    assert!(!folder.path().join("sledge-data/sledge.sock").exists());
    let mut target = Target::start_in(folder, &["--listen", &listen]);
    assert_eq!(target.call("nvmf_get_subsystems", json!({})).unwrap(), before);
}

// Without it: a management client could half-configure the target, or see what is not there.
#[test]
fn calls_change_the_target() {
    let mut target = Target::start(&["--empty"]);
    let (nqn, port) = ("nqn.2026-01.io.sledge:test", free_port());
    let address =
        json!({"trtype": "tcp", "adrfam": "ipv4", "traddr": "127.0.0.1", "trsvcid": port.to_string()});
    let listener = json!({"nqn": nqn, "listen_address": address});
    let namespace = json!({"nqn": nqn, "namespace": {"bdev_name": "Malloc0"}});
    let mut call = |method: &str, params: &Value| target.call(method, params.clone());

    assert_eq!(
        call("bdev_malloc_create", &json!({"num_blocks": 64, "block_size": 512})),
        Ok(json!("Malloc0"))
    );
    call("nvmf_create_subsystem", &json!({"nqn": nqn})).unwrap();
    let (code, reason) = call("nvmf_subsystem_add_listener", &listener).unwrap_err();
    assert!(code == -32602 && reason.contains("nvmf_create_transport"), "{reason}");
    call("nvmf_create_transport", &json!({"trtype": "TCP"})).unwrap();
    call("nvmf_subsystem_add_listener", &listener).unwrap();
    assert_eq!(call("nvmf_subsystem_add_ns", &namespace), Ok(json!(1)));
    assert_eq!(call("nvmf_subsystem_add_ns", &namespace).unwrap_err().0, -16);
    TcpStream::connect(("127.0.0.1", port)).unwrap();

    // A port that somebody else has: refused, and nothing of it stays.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut elsewhere = listener.clone();
    elsewhere["listen_address"]["trsvcid"] = json!(taken.local_addr().unwrap().port().to_string());
    assert_eq!(call("nvmf_subsystem_add_listener", &elsewhere).unwrap_err().0, -98);
    let listeners = call("nvmf_subsystem_get_listeners", &json!({"nqn": nqn})).unwrap();
    assert_eq!(listeners.as_array().unwrap().len(), 1);

    assert_eq!(call("bdev_malloc_delete", &json!({"name": "Malloc0"})).unwrap_err().0, -16);
    call("nvmf_subsystem_remove_ns", &json!({"nqn": nqn, "nsid": 1})).unwrap();
    call("bdev_malloc_delete", &json!({"name": "Malloc0"})).unwrap();
    assert_eq!(call("bdev_get_bdevs", &json!({"name": "Malloc0"})).unwrap_err().0, -19);
    call("nvmf_subsystem_remove_listener", &listener).unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let reactors = call("framework_get_reactors", &json!({})).unwrap();
    assert_eq!(reactors["reactors"][0]["lcore"], 0);
    assert_eq!(call("spdk_kill_instance", &json!({"sig_name": "SIGTERM"})), Ok(json!(true)));
    assert_eq!(target.wait().code(), Some(0));
}

// Without it: one client's nonsense could take the target, or the next client, down with it.
#[test]
fn nonsense_on_the_socket_hurts_only_its_sender() {
    let mut target = Target::start(&["--empty"]);
    for nonsense in
        [&b"\x00\xff\x16\x03"[..], b"GET / HTTP/1.1\r\n\r\n", b"{\"jsonrpc\": \"2.0\", \"id\": 1,}"]
    {
        let mut stream = UnixStream::connect(target.socket()).unwrap();
        stream.write_all(nonsense).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("-32700"), "{answer}");
    }
    let silent: Vec<_> = (0..200).map(|_| UnixStream::connect(target.socket())).collect();
    drop(silent);
    target.call("spdk_get_version", json!({})).unwrap();
    assert_eq!(target.call("bdev_get_bdevs", json!({"nmae": "x"})).unwrap_err().0, -32602);
    assert_eq!(target.call("nosuch", json!({})).unwrap_err().0, -32601);
}

// Without it: a start that fails would leave a person with a stack of words, or a half-started target.
#[test]
fn a_failed_start_is_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let failed = |arguments: &[&str]| {
        let output = program(folder.path()).args(arguments).args(["--log-level", "ERROR"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("sledge-target: "), "{said}");
        said
    };
    assert!(failed(&["--listen", &address]).contains("choose another address"));
    assert!(failed(&["-c", "missing.json"]).contains("missing.json"));
    assert!(failed(&["--empty", "--cores", "900"]).contains("900"));

    let running = Target::start(&["--empty"]);
    let socket = running.socket();
    assert!(failed(&["--empty", "-r", socket.to_str().unwrap()]).contains("another target"));
}

/// What the service manager is told next.
fn told(manager: &UnixDatagram) -> String {
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 64];
    loop {
        match manager.recv(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => return String::from_utf8_lossy(&bytes[..received.unwrap()]).into_owned(),
        }
    }
}

// Without it: a target whose log is read by nobody any more (`sledge-target | head`), or whose terminal is closed,
// would die with I/O in flight.
#[test]
fn a_closed_terminal_ends_it_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut process = program(folder.path())
        .args(["--listen", &format!("127.0.0.1:{}", free_port()), "--log-level", "DEBUG"])
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    assert_eq!(told(&manager), "READY=1");
    kill("HUP", &process);
    assert_eq!(told(&manager), "STOPPING=1");
    assert_eq!(wait_for_end(&mut process).code(), Some(0));
}

// Without it: a service manager would not learn that the target is up, or kill it while it drains.
#[test]
fn the_service_manager_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let mut process = program(folder.path())
        .arg("--empty")
        .env("NOTIFY_SOCKET", folder.path().join("notify"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(told(&manager), "READY=1");
    kill("INT", &process);
    assert_eq!(told(&manager), "STOPPING=1");
    assert_eq!(wait_for_end(&mut process).code(), Some(0));
}

// Without it: a script that configures a target step by step, as SPDK's do, could be served before it is done,
// or wait for ever.
#[test]
fn a_target_can_wait_to_be_configured() {
    let mut target = Target::start_unasked(&["--wait-for-rpc"]);
    let mut other = UnixStream::connect(target.socket()).unwrap();
    other.write_all(br#"{"jsonrpc": "2.0", "id": 7, "method": "framework_wait_init"}"#).unwrap();
    other.set_nonblocking(true).unwrap();
    let current = |target: &mut Target| {
        let listed = target.call("rpc_get_methods", json!({"current": true})).unwrap();
        let has = |name: &str| listed.as_array().unwrap().contains(&json!(name));
        (has("framework_start_init"), has("bdev_null_create"))
    };
    assert_eq!(current(&mut target), (true, false));
    let null = json!({"name": "N", "num_blocks": 8, "block_size": 512});
    let (code, reason) = target.call("bdev_null_create", null.clone()).unwrap_err();
    assert!(code == -1 && reason.contains("framework_start_init"), "{code} {reason}");
    target.call("log_set_level", json!({"level": "ERROR"})).unwrap();
    target.call("bdev_set_options", json!({"bdev_auto_examine": true})).unwrap();
    assert_eq!(other.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);

    assert_eq!(target.call("framework_start_init", json!({})), Ok(json!(true)));
    other.set_nonblocking(false).unwrap();
    let mut answer = [0; 64];
    let length = other.read(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).contains(r#""result":true"#));
    assert_eq!(current(&mut target), (false, true));
    assert_eq!(target.call("bdev_null_create", null), Ok(json!("N")));
    assert_eq!(target.call("framework_start_init", json!({})).unwrap_err().0, -1);
    assert_eq!(target.call("framework_get_subsystems", json!({})).unwrap()[0]["subsystem"], "bdev");
}
