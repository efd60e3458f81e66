//! Loads of every sort, by the command itself: on a target in this process, on files, on several at once.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Command, Stdio};

use serde_json::Value;
use support::{NQN, start};

fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sledge-perf"));
    command.arg("run").args(line.split_whitespace()).arg("--json");
    command
}

fn report(line: &str) -> Value {
    let output = command(line).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

// Without it a kind of load could work on the simulated disk and on nothing else, or its I/Os be left out of a report.
#[test]
fn loads_move_their_bytes_on_namespaces_and_files() {
    let (reactors, address) = start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    let remote = format!("nvme-tcp://{address}/{NQN}");
    for target in [remote.as_str(), file.to_str().unwrap()] {
        let general = format!("--target {target} --size 4m --iodepth 4 --time 60 --io-bytes 2m");
        let write = report(&format!("{general} --rw write --bs 64k --fua --flush-every 8"));
        assert_eq!((&write["write"]["ios"], &write["flush"]["ios"]), (&32.into(), &4.into()), "{write}");
        let mixed = report(&format!("{general} --rw randrw --bssplit 4k/50:16k/50 --distribution zipf:1.1"));
        let bytes = |kind: &str| mixed[kind]["bytes"].as_u64().unwrap();
        // The last I/O may be a large one.
        assert!(((2 << 20)..(2 << 20) + 16_384).contains(&(bytes("read") + bytes("write"))), "{mixed}");
        let verified = report(&format!(
            "{general} --rw randrw --bssplit 4k/50:16k/50 --distribution pareto:0.2 --verify"
        ));
        assert!(verified["verified"].as_u64().unwrap() > 0, "{verified}");
        let trim = report(&format!("{general} --rw randtrim --bs 32k"));
        assert_eq!(trim["trim"]["ios"], 64, "{trim}");
        let open = report(&format!("{general} --rate 20000 --arrivals poisson"));
        assert_eq!(open["read"]["ios"], 512, "{open}");
    }
    reactors.stop();
}

// Without it targets of one run could share their counts, or run one after the other.
#[test]
fn several_targets_run_at_once() {
    let (reactors, address) = start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    let file = file.to_str().unwrap();
    let line = format!(
        "--target nvme-tcp://{address}/{NQN}?hdgst&ddgst --target {file} --size 4m --rw randwrite --queues 2 --time 60 \
         --io-bytes 1m --target-pid {}",
        std::process::id()
    );
    let report = report(&line);
    let groups = report["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "{report}");
    let jobs = report["jobs"].as_array().unwrap();
    assert_eq!(jobs.len(), 2, "{report}");
    assert!(jobs.iter().all(|job| job["write"]["ios"] == 256), "{report}");
    reactors.stop();
}

// Without it Ctrl-C would throw away what was measured.
#[test]
fn an_interrupted_run_reports() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    let line = format!("--target {} --size 1m --rw write --iodepth 1 --time 3600", file.display());
    let child = command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It has begun when something is written.
    while !std::fs::read(&file).is_ok_and(|bytes| bytes.iter().any(|byte| *byte != 0)) {
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "sledge-perf: interrupted\n");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["write"]["ios"].as_u64().unwrap() > 0, "{report}");
}
