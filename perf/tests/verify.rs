//! Verification across runs, by the command itself: damage is planted with raw writes, and has to be found and named.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::{NQN, start};

/// Bytes of the file, of a write, and of a block of a file.
const SIZE: usize = 1 << 20;
const WRITE: usize = 16 << 10;
const BLOCK: usize = 512;

fn run(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sledge-perf"));
    command.arg("run").args(line.split_whitespace()).arg("--json").output().unwrap()
}

fn report(line: &str) -> Value {
    let output = run(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a run that fails says is wrong with its data.
fn fault(line: &str) -> String {
    let output = run(line);
    assert_eq!(output.status.code(), Some(1), "{line}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = report["first_error"].as_str().unwrap().to_owned();
    assert!(report["errors"].as_u64().unwrap() > 0, "{first}");
    first.strip_prefix("wrong data: ").unwrap_or(&first).to_owned()
}

/// Writes the whole file `passes` times, without reading it back.
fn write(file: &Path, passes: usize, more: &str) {
    let line = format!(
        "--target {} --rw write --bs 16k --iodepth 4 --size 1m --time 600 --io-bytes {} --verify --no-read-back {more}",
        file.display(),
        SIZE * passes
    );
    let report = report(&line);
    assert_eq!((&report["verified"], &report["write"]["ios"]), (&0.into(), &(SIZE / WRITE * passes).into()));
}

// Without it damage that appears between two runs could pass, or be called by another's name.
#[test]
fn planted_damage_is_found_by_a_later_run() {
    let folder = tempfile::tempdir().unwrap();
    let (file, state) = (folder.path().join("disk"), folder.path().join("state"));
    write(&file, 1, "");
    let old = std::fs::read(&file).unwrap();
    write(&file, 2, &format!("--verify-state {}", state.display()));
    let right = std::fs::read(&file).unwrap();
    let check = format!("--target {} --bs 64k --iodepth 2 --verify-only", file.display());
    let with_state = format!("{check} --verify-state {}", state.display());
    for line in
        [&check, &with_state, &format!("--target {} --rw randread --verify --time 0.2", file.display())]
    {
        let report = report(line);
        // What was outstanding when the time was over is checked, and not counted.
        assert!(report["verified"].as_u64() >= report["read"]["ios"].as_u64(), "{line}");
        assert!(report["write"].is_null());
    }
    let (at, mut flipped) = (40 * BLOCK, right.clone());
    flipped[at + 100] ^= 1;
    let with = |at: usize, bytes: &[u8]| {
        let mut damaged = right.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        damaged
    };
    for (damaged, alone, stated) in [
        (flipped, "corrupt: block 40 (byte 20480) says version", "corrupt: block 40 "),
        (with(at, &[0x5a; BLOCK]), "corrupt: block 40 (byte 20480) has no header", "corrupt: block 40 "),
        (with(at, &[0; BLOCK]), "torn: block 40 (byte 20480) holds zeroes", "torn: block 40 "),
        (with(at, &right[..BLOCK]), "misplaced: block 40 (byte 20480) holds block 0", "misplaced: block 40 "),
        (with(at, &old[at..at + BLOCK / 2]), "torn: block 40 (byte 20480) begins with", "torn: block 40 "),
        // What only the state tells: blocks of another run that are sound by themselves.
        (with(at, &old[at..at + BLOCK]), "", "stale: block 40 (byte 20480) holds version"),
        (old.clone(), "", "stale: block 0 (byte 0) holds version"),
    ] {
        std::fs::write(&file, &damaged).unwrap();
        if alone.is_empty() {
            report(&check);
        } else {
            let found = fault(&check);
            assert!(found.starts_with(alone), "{found}\n{alone}");
        }
        let found = fault(&with_state);
        assert!(found.starts_with(stated), "{found}\n{stated}");
    }
}

// Without it what others write over a namespace meanwhile could pass, and mixes with zeroes and deallocations could be
// held against data that is no longer there.
#[test]
fn a_namespace_is_checked_by_a_later_run() {
    let (reactors, address) = start();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let target = format!("--target nvme-tcp://{address}/{NQN} --iodepth 8");
    let general = format!("{target} --size 4m");
    let kept = format!("--verify-state {}", state.display());
    let mixed = report(&format!(
        "{general} --rw randrw --rwmix 30 --bssplit 4k/50:16k/50 --trims 10 --zeroes 20 --queues 2 --time 600 \
         --number-ios 3000 --verify {kept}"
    ));
    let ios = |kind: &str| mixed[kind]["ios"].as_u64().unwrap();
    assert_eq!(ios("read") + ios("write") + ios("trim") + ios("zeroes"), 3000, "{mixed}");
    assert!(ios("zeroes").abs_diff(420) < 90 && ios("trim").abs_diff(210) < 60, "{mixed}");
    let check = format!("{general} --bs 64k --queues 3 --verify-only {kept}");
    assert!(report(&check)["verified"].as_u64().unwrap() > 0);
    // All of a range that something was written to.
    report(&format!("{target} --offset 1m --size 512k --rw write --time 600 --io-bytes 512k"));
    let found = fault(&check);
    assert!(found.starts_with("corrupt: block "), "{found}");
    report(&format!("{target} --offset 1m --size 512k --rw trim --bs 64k --time 600 --io-bytes 512k"));
    let found = fault(&check);
    assert!(found.contains(" holds zeroes"), "{found}");
    reactors.stop();
}

// Without it a job file that verifies in a second stage what its first has written would check nothing, or fail.
#[test]
fn a_job_file_verifies_what_its_first_stage_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let (file, job) = (folder.path().join("disk"), folder.path().join("job.fio"));
    let text = format!(
        "[global]\nfilename={}\nsize=1m\nbs=16k\niodepth=4\nioengine=libaio\nverify=crc32c\n[write]\nrw=write\n\
         do_verify=0\n[check]\nstonewall\nrw=randread\nverify=crc32c\n[again]\nstonewall\nrw=write\nverify_only\n",
        file.display()
    );
    std::fs::write(&job, text).unwrap();
    let report = report(job.to_str().unwrap());
    let verified: Vec<&Value> =
        report["jobs"].as_array().unwrap().iter().map(|job| &job["verified"]).collect();
    assert_eq!(verified, [0, 64, 64]);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[77_777] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    std::fs::write(&job, format!("[check]\nfilename={}\nrw=read\nverify=md5\nbs=64k\n", file.display()))
        .unwrap();
    let found = fault(job.to_str().unwrap());
    assert!(found.starts_with("corrupt: block 151 (byte 77312)"), "{found}");
}
