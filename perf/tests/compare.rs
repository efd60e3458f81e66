//! `limit` and `compare` as commands: what they print, and how they end.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{NQN, start};

fn perf(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sledge-perf")).args(words).output().unwrap()
}

/// Words that are separated by spaces.
fn perf_line(line: &str) -> Output {
    perf(&line.split_whitespace().collect::<Vec<_>>())
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

const LIMIT: &str = "limit --json --server-core any --client-core any --time 0.1 --ramp 0.02";

// Without it a shape of load could come to a standstill, or count what it does not move.
#[test]
fn the_limit_of_every_shape_is_measured() {
    for more in [
        "--rw randread --bs 4k --iodepth 32",
        "--rw randwrite --bs 4k --iodepth 4 --connections 5",
        "--rw write --bs 64k --iodepth 8 --header-digest --data-digest",
        "--rw write --bs 300k --iodepth 3 --max-h2c-data 64k",
        "--rw randrw --rwmix 50 --bs 16k --iodepth 16 --connections 2",
        "--rw read --bs 512 --iodepth 1024",
        "--rw read --bs 1m --iodepth 2 --receive-buffer 1000 --send-most 1",
    ] {
        let output = perf_line(&format!("{LIMIT} {more}"));
        assert!(output.status.success(), "{more}: {}", String::from_utf8_lossy(&output.stderr));
        let report = json(&output);
        for direction in ["read", "write"] {
            let wanted = more.contains("randrw") || more.contains(direction);
            assert_eq!(
                report[direction]["ios"].as_u64().is_some_and(|ios| ios > 0),
                wanted,
                "{more}: {report}"
            );
        }
        let total = &report["total"];
        assert!(total["latency_ns"]["p50"].as_u64().unwrap() <= total["latency_ns"]["p99"].as_u64().unwrap());
        let bytes = report["workload"]["block_bytes"].as_f64().unwrap() * total["iops"].as_f64().unwrap();
        assert!((bytes - total["bytes_per_second"].as_f64().unwrap()).abs() < 1.0);
    }
}

// Without it a bound that is not met could pass for one that is, and the interval be left out of sight.
#[test]
fn bounds_decide_the_exit_status() {
    let line = "compare limit limit --server-core any --cores any --rounds 6 --round-time 0.02 --ramp 0 --warm-up 0 \
                --json --with-a";
    let compare = |bounds: &[&str]| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        // A moves 64 times as many bytes in each I/O as B.
        words.extend(["--bs 256k --iodepth 8", "--with-b", "--bs 4k --iodepth 8"]);
        words.extend(bounds);
        perf(&words)
    };
    let met = compare(&[
        "--max-ratio",
        "iops=1000000",
        "--min-ratio",
        "p50=0.000001",
        "--max-ratio",
        "host_cpu_per_io=1000000",
        "--min-ratio",
        "target_cpu_per_io=0.000001",
    ]);
    assert_eq!(met.status.code(), Some(0), "{}", String::from_utf8_lossy(&met.stderr));
    let report = json(&met);
    assert_eq!((&report["schema"], &report["met"]), (&Value::from(1), &Value::from(true)));
    assert_eq!(report["rounds"].as_array().unwrap().len(), 6);
    assert_eq!(report["rounds"][0]["a_first"], true);
    assert_eq!(report["rounds"][1]["a_first"], false);
    for row in report["metrics"].as_array().unwrap() {
        let ratio = |name: &str| row["ratio"][name].as_f64().unwrap();
        assert!(ratio("low") <= ratio("median") && ratio("median") <= ratio("high"), "{row}");
    }
    let missed = compare(&["--min-ratio", "iops=1000000", "--max-ratio", "iops=1000000"]);
    assert_eq!(missed.status.code(), Some(1));
    let report = json(&missed);
    assert_eq!(report["met"], false);
    assert_eq!(report["bounds"][0]["met"], false);
    assert_eq!(report["bounds"][1]["met"], true);
    assert_eq!(String::from_utf8_lossy(&missed.stderr), "sledge-perf: a bound is not met\n");
}

// Without it a turn could fail to understand what `run` prints, or leave out what its side was given.
#[test]
fn targets_and_files_are_compared() {
    let (reactors, address) = start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("disk");
    std::fs::write(&file, vec![0; 1 << 20]).unwrap();
    let file = file.to_str().unwrap();
    let target = format!("nvme-tcp://{address}/{NQN}?nsid=1&hdgst&ddgst");
    let quick = "--cores 0 --rounds 2 --round-time 0.5 --ramp 0 --warm-up 0 --json --wait adaptive";
    let quick: Vec<&str> = quick.split(' ').chain(["--run-options", "--seed 5 --size 512k"]).collect();
    let cases: [(&str, &str, &[&str]); 3] = [
        (&target, "limit", &["--rw", "randrw", "--queues", "2"]),
        (&target, file, &["--bs", "8k"]),
        // The file is there, so what is started counts as ready at once.
        (file, file, &["--iodepth", "4", "--start-a", "sleep 60"]),
    ];
    for (a, b, more) in cases {
        let output = perf(&[&["compare", a, b], quick.as_slice(), more].concat());
        assert!(output.status.success(), "{a} {b}: {}", String::from_utf8_lossy(&output.stderr));
        let report = json(&output);
        assert_eq!(report["rounds"].as_array().unwrap().len(), 2);
        // The target's processor time is known of neither a target that others started nor a process that sleeps.
        assert_eq!(report["metrics"].as_array().unwrap().len(), 9);
        assert_eq!(report["metrics"][8]["metric"], "host_cpu_per_io");
        for metric in report["metrics"].as_array().unwrap() {
            assert!(metric["a"].as_f64().unwrap() > 0.0 && metric["b"].as_f64().unwrap() > 0.0, "{metric}");
        }
    }
    let think = ["--run-options", "--think-time 0.001", "--min-ratio", "steady=0.1", "--cores", "0"];
    let output =
        perf(&[&["compare", file, file, "--rounds", "1", "--round-time", "0.01"], &think[..]].concat());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("a bound is asked for steady"), "{message}");
    let cpu =
        ["--min-ratio", "target_cpu_per_io=0.1", "--cores", "0", "--rounds", "1", "--round-time", "0.01"];
    let output = perf(&[&["compare", file, file], &cpu[..]].concat());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && message.contains("--start-a"), "{message}");
    reactors.stop();
}

// Without it a comparison could go on with one side missing, or leave people without the reason.
#[test]
fn a_side_that_fails_is_named() {
    let target = "nvme-tcp://127.0.0.1:1/nqn.2016-06.io.spdk:cnode1";
    let quick = ["--rounds", "1", "--round-time", "0.01"];
    let fails = |words: &[&str], expected: &str| {
        let words = [&["compare"], words, &quick].concat();
        let output = perf(&words);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {message}");
        assert!(message.contains(expected) && message.lines().count() == 1, "{words:?}: {message}");
        assert!(output.stdout.is_empty());
    };
    fails(&["limit", target, "--server-core", "any", "--cores", "any"], "for the limit only");
    fails(&["limit", "limit", "--rw", "trim"], "deallocation moves no data");
    fails(&["limit", "limit", "--start-a", "true"], "needs no command");
    fails(&["limit", "limit", "--cores", "0,1"], "asks on one core");
    fails(&["limit", "limit", "--cores", "900"], "A in round 1: core 900 is not available");
    fails(&[target, target, "--cores", "0"], "A in round 1: cannot connect to");
    fails(&[target, target, "--cores", "0", "--start-a", "sh -c 'echo no disk >&2; exit 3'"], "3: no disk");
}
