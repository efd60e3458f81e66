//! Configuration files: errors with their place, nothing half made, and saving what was loaded.

use std::fs;

use crate::support::{Target, free_port, program};
use serde_json::{Value, json};

/// A configuration with the given calls, one a line, the first on line 2.
fn lines(calls: &[&str]) -> String {
    format!("{{\"subsystems\": [{{\"subsystem\": \"any\", \"config\": [\n{}\n]}}]}}\n", calls.join(",\n"))
}

// Without it: a person would have to search a long file for the entry at fault.
#[test]
fn errors_have_file_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let malloc =
        r#"{"method": "bdev_malloc_create", "params": {"name": "M", "num_blocks": 8, "block_size": 512}}"#;
    let subsystem = r#"{"method": "nvmf_create_subsystem", "params": {"nqn": "nqn.2026-01.io.sledge:a"}}"#;
    for (text, expected) in [
        ("{\"subsystems\": [\n  {]}".to_owned(), "a.json:2:4: "),
        ("[]".to_owned(), "a.json:1:1: "),
        ("{\"subsystem\": []}".to_owned(), "a.json:1:15: "),
        ("{\"subsystems\": [{\"subsystem\": \"bdev\"}]}".to_owned(), "a.json:1:17: "),
        (
            lines(&[malloc, "{\"method\": \"bdev_malloc_crate\"}"]),
            "a.json:3:12: Method not found: bdev_malloc_crate",
        ),
        (lines(&[malloc, "{\"method\": \"bdev_get_bdevs\"}"]), "a.json:3:12: "),
        (
            lines(&[r#"{"method": "bdev_null_create", "params": {"name": "N", "num_blocks": "8"}}"#]),
            "a.json:2:70: bdev_null_create: Invalid parameters: num_blocks: invalid type: string \"8\"",
        ),
        (
            lines(&[r#"{"method": "bdev_null_create", "params": {"name": "N", "blocks": 8}}"#]),
            "a.json:2:66: bdev_null_create: Invalid parameters: blocks: unknown field `blocks`",
        ),
        (
            lines(&[r#"{"method": "bdev_null_create", "params": {"name": "N", "block_size": 512}}"#]),
            "a.json:2:1: bdev_null_create: Invalid parameters: missing field `num_blocks`",
        ),
        (lines(&[malloc, malloc]), "a.json:3:1: bdev_malloc_create: File exists"),
        (
            lines(&[
                malloc,
                subsystem,
                r#"{"method": "nvmf_subsystem_add_ns", "params": {"nqn": "nqn.2026-01.io.sledge:a", "namespace": {"bdev_name": "X"}}}"#,
            ]),
            "a.json:4:109: nvmf_subsystem_add_ns: No such device",
        ),
    ] {
        fs::write(folder.path().join("a.json"), &text).unwrap();
        let output = program(folder.path()).args(["-c", "a.json"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(
            said.starts_with(expected) && said.lines().count() == 1,
            "{text}\nsaid {said}\nnot {expected}"
        );
    }
    assert!(!folder.path().join("sledge-data").exists(), "a target was begun");
}

// Without it: a port in use would be reported at no place.
#[test]
fn a_port_in_use_is_found_in_the_file() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listener = json!({"method": "nvmf_subsystem_add_listener", "params": {
        "nqn": "nqn.2026-01.io.sledge:a",
        "listen_address": {"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": port.to_string()},
    }});
    let text = lines(&[
        r#"{"method": "nvmf_create_transport", "params": {"trtype": "TCP"}}"#,
        r#"{"method": "nvmf_create_subsystem", "params": {"nqn": "nqn.2026-01.io.sledge:a"}}"#,
        &listener.to_string(),
    ]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.json"), text).unwrap();
    let output = program(folder.path()).args(["-c", "a.json", "--log-level", "ERROR"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("a.json:4:1: nvmf_subsystem_add_listener: cannot listen on"), "{said}");
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1));
}

/// Everything that can be configured, once.
fn everything(folder: &std::path::Path, port: u16) -> Vec<(&'static str, Value)> {
    let nqn = "nqn.2026-01.io.sledge:a";
    let listen = |port: u16, more: Value| {
        let address =
            json!({"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1", "trsvcid": port.to_string()});
        let mut params = json!({"nqn": nqn, "listen_address": address});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        params
    };
    let file = folder.join("file.img");
    let (other, third) = (free_port(), free_port());
    vec![
        (
            "bdev_malloc_create",
            json!({"name": "M", "num_blocks": 64, "block_size": 512, "optimal_io_boundary": 8}),
        ),
        ("bdev_malloc_create", json!({"num_blocks": 64, "block_size": 4096})),
        ("bdev_null_create", json!({"name": "N", "num_blocks": 1000, "block_size": 4096})),
        (
            "bdev_uring_create",
            json!({"name": "F", "filename": file, "block_size": 4096, "create_bytes": 1 << 20}),
        ),
        (
            "bdev_delay_create",
            json!({"name": "D", "base_bdev_name": "M", "avg_read_latency": 1,
            "p99_read_latency": 2, "avg_write_latency": 3, "p99_write_latency": 4}),
        ),
        (
            "bdev_delay_update_latency",
            json!({"delay_bdev_name": "D", "latency_type": "p99_write", "latency_us": 9}),
        ),
        ("bdev_error_create", json!({"base_name": "N"})),
        ("nvmf_set_max_subsystems", json!({"max_subsystems": 9})),
        ("nvmf_create_transport", json!({"trtype": "TCP", "max_queue_depth": 64, "c2h_success": false})),
        (
            "nvmf_create_subsystem",
            json!({"nqn": nqn, "ana_reporting": true, "max_namespaces": 4, "min_cntlid": 5}),
        ),
        (
            "nvmf_create_subsystem",
            json!({"nqn": "nqn.2026-01.io.sledge:b", "allow_any_host": true,
            "serial_number": "S", "model_number": "M"}),
        ),
        ("nvmf_subsystem_add_host", json!({"nqn": nqn, "host": "nqn.2026-01.io.sledge:host"})),
        (
            "nvmf_subsystem_add_ns",
            json!({"nqn": nqn, "namespace": {"bdev_name": "D", "nsid": 3, "anagrpid": 2,
            "nguid": "000102030405060708090A0B0C0D0E0F", "eui64": "0001020304050607"}}),
        ),
        ("nvmf_subsystem_add_ns", json!({"nqn": nqn, "namespace": {"bdev_name": "EE_N"}})),
        ("nvmf_subsystem_add_ns", json!({"nqn": "nqn.2026-01.io.sledge:b", "namespace": {"bdev_name": "F"}})),
        ("nvmf_subsystem_add_listener", listen(port, json!({}))),
        ("nvmf_subsystem_add_listener", listen(other, json!({"ana_state": "non_optimized"}))),
        ("nvmf_subsystem_add_listener", listen(third, json!({}))),
        (
            "nvmf_subsystem_listener_set_ana_state",
            listen(third, json!({"ana_state": "inaccessible", "anagrpid": 2})),
        ),
        ("nvmf_subsystem_add_listener", listen(port, json!({"nqn": "nqn.2026-01.io.sledge:b"}))),
        ("nvmf_subsystem_add_listener", listen(port, json!({"nqn": "nqn.2014-08.org.nvmexpress.discovery"}))),
        (
            "nvmf_discovery_add_referral",
            json!({"address":
            {"trtype": "TCP", "adrfam": "IPv4", "traddr": "192.0.2.1", "trsvcid": "8009"}}),
        ),
    ]
}

// Without it: a restart with a saved configuration could serve something else than before.
#[test]
fn what_is_saved_loads_to_the_same() {
    let mut target = Target::start(&["--empty"]);
    for (method, params) in everything(target.folder.path(), free_port()) {
        target.call(method, params).unwrap_or_else(|error| panic!("{method}: {error:?}"));
    }
    let saved = target.call("save_config", json!({})).unwrap();
    let subsystems = target.call("nvmf_get_subsystems", json!({})).unwrap();
    let devices = target.call("bdev_get_bdevs", json!({})).unwrap();
    for part in saved["subsystems"].as_array().unwrap() {
        let name = &part["subsystem"];
        assert_eq!(target.call("framework_get_config", json!({"name": name})).unwrap(), part["config"]);
    }
    let folder = target.end();

    // As a file at the start.
    fs::write(folder.path().join("saved.json"), saved.to_string()).unwrap();
    let mut target = Target::start_in(folder, &["-c", "saved.json"]);
    assert_eq!(target.call("save_config", json!({})).unwrap(), saved);
    assert_eq!(target.call("nvmf_get_subsystems", json!({})).unwrap(), subsystems);
    assert_eq!(target.call("bdev_get_bdevs", json!({})).unwrap(), devices);
    let folder = target.end();

    // Through the socket of a running target.
    let mut target = Target::start_in(folder, &["--empty"]);
    target.call("load_config", saved.clone()).unwrap();
    assert_eq!(target.call("save_config", json!({})).unwrap(), saved);
}

// Without it: a configuration that fails in its middle would leave its first half in force.
#[test]
fn a_configuration_that_fails_leaves_nothing() {
    let mut target = Target::start(&["--empty"]);
    let before = target.call("save_config", json!({})).unwrap();
    let mut calls: Vec<Value> = everything(target.folder.path(), free_port())
        .into_iter()
        .map(|(method, params)| json!({"method": method, "params": params}))
        .collect();
    calls.push(json!({"method": "nvmf_delete_subsystem", "params": {"nqn": "nqn.2026-01.io.sledge:none"}}));
    let at = calls.len() - 1;
    let (code, reason) =
        target.call("load_subsystem_config", json!({"subsystem": "any", "config": calls})).unwrap_err();
    assert_eq!(code, -32602);
    assert!(reason.starts_with(&format!("config[{at}].params.nqn: ")), "{reason}");
    assert_eq!(target.call("save_config", json!({})).unwrap(), before);

    // The same when it is the sockets that fail.
    calls.pop();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    calls.push(json!({"method": "nvmf_subsystem_add_listener", "params": {"nqn": "nqn.2026-01.io.sledge:a",
        "listen_address": {"traddr": "127.0.0.1", "trsvcid": port}}}));
    let (code, reason) =
        target.call("load_subsystem_config", json!({"subsystem": "any", "config": calls})).unwrap_err();
    assert_eq!(code, -98);
    assert!(reason.starts_with(&format!("config[{at}]: ")), "{reason}");
    assert_eq!(target.call("save_config", json!({})).unwrap(), before);
    calls.pop();
    target.call("load_subsystem_config", json!({"subsystem": "any", "config": calls})).unwrap();
}

// Without it: the configuration that a person copies from the documentation might not start.
#[test]
fn the_documented_configuration_starts() {
    let page = include_str!("../../../../docs/operation.md");
    let begin = page.find("    {\"subsystems\": [").unwrap();
    let end = begin + page[begin..].find("\n    ]}\n").unwrap() + "\n    ]}".len();
    let folder = tempfile::tempdir().unwrap();
    let port = free_port().to_string();
    let text = page[begin..end]
        .replace("/var/lib/sledge", folder.path().to_str().unwrap())
        .replace("192.0.2.1", "127.0.0.1")
        .replace("4420", &port);
    fs::write(folder.path().join("target.json"), text).unwrap();
    let mut target = Target::start_in(folder, &["-c", "target.json"]);
    let subsystems = target.call("nvmf_get_subsystems", json!({})).unwrap();
    assert_eq!(subsystems[1]["namespaces"][0]["bdev_name"], "disk");
    assert_eq!(subsystems[1]["listen_addresses"][0]["trsvcid"], json!(port));
}

// Without it: a configuration that SPDK's target saved, with all that tunes SPDK only, might not load here.
#[test]
fn a_configuration_of_spdk_loads() {
    let port = free_port();
    let spdk = json!({"subsystems": [
        {"subsystem": "keyring", "config": []},
        {"subsystem": "iobuf", "config": [{"method": "iobuf_set_options", "params": {
            "small_pool_count": 8192, "large_pool_count": 1024, "small_bufsize": 8192, "large_bufsize": 135168,
            "enable_numa": false}}]},
        {"subsystem": "sock", "config": [
            {"method": "sock_set_default_impl", "params": {"impl_name": "posix"}},
            {"method": "sock_impl_set_options", "params": {"impl_name": "posix", "recv_buf_size": 2097152,
                "send_buf_size": 2097152, "enable_recv_pipe": true, "enable_quickack": false}}]},
        {"subsystem": "vmd", "config": []},
        {"subsystem": "accel", "config": [{"method": "accel_set_options", "params": {"small_cache_size": 128}}]},
        {"subsystem": "bdev", "config": [
            {"method": "bdev_set_options", "params": {"bdev_io_pool_size": 65535, "bdev_io_cache_size": 256,
                "bdev_auto_examine": true, "iobuf_small_cache_size": 128, "iobuf_large_cache_size": 16}},
            {"method": "bdev_raid_set_options", "params": {"process_window_size_kb": 1024}},
            {"method": "bdev_iscsi_set_options", "params": {"timeout_sec": 30}},
            {"method": "bdev_nvme_set_options", "params": {"action_on_timeout": "none", "timeout_us": 0}},
            {"method": "bdev_nvme_set_hotplug", "params": {"period_us": 100000, "enable": false}},
            {"method": "bdev_malloc_create", "params": {"name": "Malloc0", "num_blocks": 64, "block_size": 512,
                "physical_block_size": 512, "uuid": "6f1d2a34-58c1-4a8b-9d11-3c2f00000001",
                "optimal_io_boundary": 0, "md_size": 0, "dif_type": 0, "dif_is_head_of_md": false,
                "dif_pi_format": 0}},
            {"method": "bdev_wait_for_examine"}]},
        {"subsystem": "nbd", "config": []},
        {"subsystem": "scheduler", "config": [{"method": "framework_set_scheduler", "params": {"name": "static"}}]},
        {"subsystem": "nvmf", "config": [
            {"method": "nvmf_set_config", "params": {"discovery_filter": "match_any",
                "admin_cmd_passthru": {"identify_ctrlr": false}, "dhchap_digests": ["sha256", "sha384"],
                "dhchap_dhgroups": ["null", "ffdhe2048"]}},
            {"method": "nvmf_set_max_subsystems", "params": {"max_subsystems": 1024}},
            {"method": "nvmf_set_crdt", "params": {"crdt1": 0, "crdt2": 0, "crdt3": 0}},
            {"method": "nvmf_create_transport", "params": {"trtype": "TCP", "max_queue_depth": 128,
                "max_io_qpairs_per_ctrlr": 127, "in_capsule_data_size": 4096, "max_io_size": 131072,
                "io_unit_size": 131072, "max_aq_depth": 128, "num_shared_buffers": 511, "buf_cache_size": 4294967295u32,
                "dif_insert_or_strip": false, "zcopy": false, "c2h_success": true, "sock_priority": 0,
                "abort_timeout_sec": 1, "ack_timeout": 0, "data_wr_pool_size": 0}},
            {"method": "nvmf_create_subsystem", "params": {"nqn": "nqn.2016-06.io.spdk:cnode1",
                "allow_any_host": true, "serial_number": "SPDK00000000000001",
                "model_number": "SPDK bdev Controller", "max_namespaces": 32, "min_cntlid": 1, "max_cntlid": 65519,
                "ana_reporting": false}},
            {"method": "nvmf_subsystem_add_ns", "params": {"nqn": "nqn.2016-06.io.spdk:cnode1", "namespace": {
                "nsid": 1, "bdev_name": "Malloc0", "nguid": "6F1D2A3458C14A8B9D113C2F00000001",
                "uuid": "6f1d2a34-58c1-4a8b-9d11-3c2f00000001", "no_auto_visible": false}}},
            {"method": "nvmf_subsystem_add_listener", "params": {"nqn": "nqn.2016-06.io.spdk:cnode1",
                "listen_address": {"trtype": "TCP", "adrfam": "IPv4", "traddr": "127.0.0.1",
                    "trsvcid": port.to_string()}, "secure_channel": false}}]},
        {"subsystem": "iscsi", "config": [{"method": "iscsi_set_options", "params": {"max_sessions": 128}}]},
    ]});
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("spdk.json"), spdk.to_string()).unwrap();
    let mut target = Target::start_in(folder, &["-c", "spdk.json"]);
    let subsystems = target.call("nvmf_get_subsystems", json!({})).unwrap();
    assert_eq!(subsystems[1]["namespaces"][0]["nguid"], "6F1D2A3458C14A8B9D113C2F00000001");
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
}
