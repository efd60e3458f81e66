//! The command itself against a target in this process: what it prints, and how it fails.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::process::{Command, Output};

use support::{NQN, start};

fn perf(address: SocketAddr, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sledge-perf"));
    command.args(["run", "--traddr", &address.ip().to_string(), "--trsvcid", &address.port().to_string()]);
    command.args(arguments.split_whitespace()).output().unwrap()
}

// Without it the report could lack what scripts read, or verification could check nothing.
#[test]
fn a_verified_run_reports_as_json() {
    let (reactors, address) = start();
    for more in ["", "--bs 64k --header-digest --data-digest --rwmix 0", "--rw rw --bs 512 --queues 3 --busy"]
    {
        let arguments =
            format!("--nqn {NQN} --rw randrw --iodepth 8 --time 0.2 --ramp 0.05 --verify --json {more}");
        // The last of two equal options would be an error: the general ones come first only where they differ.
        let arguments = match more.contains("--rw ") {
            true => arguments.replace("--rw randrw ", ""),
            false => arguments,
        };
        let output = perf(address, &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["total"]["iops"].as_f64().unwrap() > 0.0);
        assert!(report["verified"].as_u64().unwrap() > 0, "{report}");
        let latency = &report["write"]["latency_ns"];
        assert!(latency["p50"].as_u64().unwrap() <= latency["p99_99"].as_u64().unwrap());
        assert_eq!(report["errors"], 0);
        assert!(output.stderr.is_empty(), "no progress line where nobody looks");
    }
    reactors.stop();
}

// Without it people would get a backtrace, or an exit status that says all is well.
#[test]
fn failures_are_one_line_and_status_one() {
    let (reactors, address) = start();
    let nobody = SocketAddr::new(address.ip(), 1);
    for (address, arguments, words) in [
        (nobody, format!("--nqn {NQN}"), "cannot connect to"),
        (address, "--nqn nqn.2016-06.io.spdk:nobody".to_owned(), "refused the connection"),
        (address, format!("--nqn {NQN} --nsid 5"), "Identify Namespace failed"),
        (address, format!("--nqn {NQN} --bs 1000"), "not a multiple of 512"),
        (address, format!("--nqn {NQN} --bs 1m"), "over the controller's limit"),
        (address, format!("--nqn {NQN} --rw read --verify"), "use a --rw that writes"),
        (address, format!("--nqn {NQN} --rw read --size 4k --queues 2"), "too few"),
        (address, format!("--nqn {NQN} --cores 900"), "core 900 is not available"),
    ] {
        let output = perf(address, &arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments}: {message}");
        assert!(message.contains(words), "{arguments}: {message}");
        assert_eq!(message.lines().count(), 1, "{arguments}: {message}");
        assert!(output.stdout.is_empty());
    }
    reactors.stop();
}
