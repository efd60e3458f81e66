//! Loads of every sort, by the command itself: on a target in this process, on files, on several at once.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::TcpListener;
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
    // One after the other: the first has ended when the second is written.
    while !std::fs::read(&file).is_ok_and(|bytes| bytes.iter().skip(4096).any(|byte| *byte != 0)) {
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "sledge-perf: interrupted\n");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["write"]["ios"].as_u64().unwrap() > 0, "{report}");
}

// Without it Ctrl-C would do nothing for as long as a target does not answer.
#[test]
fn an_interrupted_start_ends_at_once() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = format!("--target nvme-tcp://{}/{NQN} --time 1", silent.local_addr().unwrap());
    let child = command(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It waits for an answer from now on, for ten seconds if nothing ends it.
    let _connection = silent.accept().unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "sledge-perf: interrupted\n");
    assert!(output.stdout.is_empty());
}

// Without it a job that shall end the others would leave them running, here for an hour.
#[test]
fn a_job_ends_those_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[global]\nsize=1m\nrw=write\nbs=16k\n[short]\nexitall\nfilename=a\n[long]\nfilename=b\ntime_based\nruntime=1h\n\
                [next]\nstonewall\nfilename=a\nrw=randread\npercentile_list=25:99.9\nnumber_ios=7\n";
    std::fs::write(folder.path().join("job.fio"), text).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sledge-perf"));
        command.args(["run", "job.fio"]).args(more).current_dir(folder.path()).output().unwrap()
    };
    let plan = run(&["--parse-only"]);
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.contains("stage 2\nnext: randread 16k, depth 1, core 0\n  on a"), "{plan}");
    assert!(!folder.path().join("a").exists(), "it only says what would run");
    let output = run(&["--json", "--status-interval", "0.05"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["jobs"][0]["write"]["bytes"], 1 << 20);
    assert!(report["jobs"][1]["elapsed_s"].as_f64().unwrap() < 600.0);
    let last = &report["jobs"][2]["read"];
    assert_eq!(last["ios"], 7);
    let percentiles = last["latency_ns"]["percentiles"].as_array().unwrap();
    assert_eq!((&percentiles[0][0], &percentiles[1][0], percentiles.len()), (&25.0.into(), &99.9.into(), 2));
}
