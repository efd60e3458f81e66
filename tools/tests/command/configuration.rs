//! `sledge config` and `sledge rpc`: the whole at once, and what has no noun.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use serde_json::json;

use crate::support::{Target, failure, free_port};

const NQN: &str = "nqn.2026-01.io.sledge:saved";

// Without it: what a person saved could be lost, or start as something else.
#[test]
fn a_saved_configuration_starts_and_loads() {
    let target = Target::start();
    target.says(&["device", "create", "null", "N", "--size", "1M"]);
    target.says(&["subsystem", "create", NQN]);
    target.says(&["namespace", "add", NQN, "N"]);
    target.says(&["listener", "add", NQN, &format!("127.0.0.1:{}", free_port())]);
    let said = target.says(&["config", "save", "saved.json"]);
    assert_eq!(said, "saved to saved.json; `sledge-target -c saved.json` starts with it\n");
    let saved = fs::read_to_string(target.folder.path().join("saved.json")).unwrap();
    assert_eq!(target.says(&["config", "save"]), saved);
    assert_eq!(target.json(&["config", "save"]), serde_json::from_str::<serde_json::Value>(&saved).unwrap());

    let target = Target::start_with(target.kill(), &["-c", "saved.json"]);
    assert_eq!(target.says(&["config", "save"]), saved);
    let target = Target::start_with(target.kill(), &["--empty"]);
    assert_eq!(target.says(&["config", "load", "saved.json"]), "loaded saved.json\n");
    assert_eq!(target.says(&["config", "save"]), saved);
    // Again: everything is there already, and nothing of it may change.
    let said = target.refuses(&["config", "load", "saved.json"]);
    let line = 1 + saved.lines().position(|line| line.trim() == "{" && line.len() == 9).unwrap();
    assert!(said.starts_with(&format!("saved.json:{line}:9: bdev_null_create: File exists: ")), "{said}");
    assert_eq!(target.says(&["config", "save"]), saved);
}

// Without it: saving could open a secret to others, replace a link by a file, or, on a full disk, lose what was there.
#[test]
fn saving_replaces_the_content_only() {
    let target = Target::start();
    let file = |name: &str| target.folder.path().join(name);
    let mode = |name: &str| fs::metadata(file(name)).unwrap().permissions().mode() & 0o777;
    target.says(&["config", "save", "new.json"]);
    assert_eq!(mode("new.json"), 0o600);
    fs::set_permissions(file("new.json"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("new.json", file("link.json")).unwrap();
    target.says(&["device", "create", "null", "N", "--size", "1M"]);
    target.says(&["config", "save", "link.json"]);
    assert!(fs::symlink_metadata(file("link.json")).unwrap().is_symlink());
    assert_eq!(mode("new.json"), 0o640);
    let saved = fs::read_to_string(file("new.json")).unwrap();
    assert!(saved.contains("bdev_null_create"));

    // No file may grow: as on a disk that is full.
    target.says(&["device", "create", "null", "M", "--size", "1M"]);
    let names = || fs::read_dir(target.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let before: BTreeSet<_> = names().collect();
    let full = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" config save new.json"])
        .arg(env!("CARGO_BIN_EXE_sledge"))
        .current_dir(target.folder.path())
        .env_remove("SLEDGE_SOCKET")
        .output()
        .unwrap();
    assert!(failure(full).starts_with("can't write new.json: "));
    assert_eq!(fs::read_to_string(file("new.json")).unwrap(), saved);
    assert_eq!(names().collect::<BTreeSet<_>>(), before);
}

// Without it: a file that can't be read or written would leave a person guessing, or half of it in force.
#[test]
fn files_that_do_not_work_are_explained() {
    let target = Target::start();
    fs::write(target.folder.path().join("broken.json"), "{\n  oops").unwrap();
    let half = json!({"subsystems": [{"subsystem": "bdev", "config": [
        {"method": "bdev_null_create", "params": {"name": "N", "num_blocks": 8, "block_size": 512}},
        {"method": "bdev_null_create", "params": {"name": "X", "num_blocks": 8}},
    ]}]});
    fs::write(target.folder.path().join("half.json"), format!("{half:#}")).unwrap();
    let strange =
        "{\"subsystems\": [\n  {\"subsystem\": \"bdev\", \"config\": [\n    {\"method\": \"fly\"}\n  ]}\n]}";
    fs::write(target.folder.path().join("strange.json"), strange).unwrap();
    for (arguments, reasons) in [
        (["load", "missing.json"], &["can't read missing.json"][..]),
        (["load", "broken.json"], &["broken.json:2:3: "]),
        (["load", "half.json"], &["half.json:13:", ": bdev_null_create: ", "missing field `block_size`"]),
        (["load", "strange.json"], &["strange.json:3:16: Method not found: fly"]),
        (["save", "no-such-folder/a.json"], &["can't write no-such-folder/a.json"]),
    ] {
        let said = target.refuses(&[&["config"][..], &arguments].concat());
        assert!(reasons.iter().all(|reason| said.contains(reason)), "{arguments:?}: {said}");
    }
    assert_eq!(target.json(&["device", "list"]), json!([]));
    assert!(!target.folder.path().join("no-such-folder").exists());
}

// Without it: a person could not reach the methods that have no noun of their own.
#[test]
fn any_method_can_be_called() {
    let target = Target::start();
    let methods = target.json(&["rpc", "rpc_get_methods"]);
    assert!(methods.as_array().unwrap().contains(&json!("bdev_error_inject_error")));
    assert_eq!(target.says(&["rpc", "log_set_level", "{\"level\": \"WARNING\"}"]), "true\n");
    assert_eq!(target.json(&["rpc", "log_get_level"]), json!("WARNING"));
    let threads = target.json(&["rpc", "thread_get_stats"]);
    assert_eq!(threads["threads"][0]["name"], "reactor_0");
    let pollers = target.json(&["rpc", "thread_get_pollers"]);
    assert_eq!(
        pollers["threads"][0]["active_pollers"].as_array().unwrap().len(),
        threads["threads"][0]["active_pollers_count"]
    );
}
