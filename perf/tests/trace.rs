//! Traces: written by the command, replayed by it, and by fio where that is installed.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::{NQN, start};

fn perf(arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sledge-perf"));
    command.arg("run").args(arguments.split_whitespace()).output().unwrap()
}

fn report(arguments: &str) -> Value {
    let output = perf(&format!("{arguments} --json"));
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What an iolog of version 3 does, without its times.
fn actions(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let of = |line: &str| line.splitn(3, ' ').nth(2).map(str::to_owned);
    text.lines().skip(1).filter_map(of).collect()
}

// Without it what is written could not be replayed, or another load than that which was written.
#[test]
fn a_load_is_written_and_replayed() {
    let (reactors, address) = start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let target = format!("--target nvme-tcp://{address}/{NQN} --iodepth 4");
    let (first, second) = (path("first"), path("second"));
    let load = report(&format!(
        "{target} --rw randrw --bs 4k,2m --trims 20 --number-ios 300 --flush-every 9 --time 60 --queues 2 --write-iolog {}",
        first.display()
    ));
    assert_eq!(load["total"]["ios"], 300);
    let lines = [actions(&first), actions(&path("first.1"))];
    assert!(lines.iter().map(Vec::len).sum::<usize>() > 300 + 6);
    let again = report(&format!(
        "{target} --read-iolog {} --replay-no-stall --write-iolog {}",
        first.display(),
        second.display()
    ));
    assert_eq!(actions(&second), lines[0]);
    let count = |word: &str| lines[0].iter().filter(|line| line.starts_with(word)).count();
    for (direction, word) in
        [("read", "read "), ("write", "write "), ("trim", "trim "), ("flush", "datasync ")]
    {
        assert_eq!(again[direction]["ios"], count(word), "{direction}");
    }
    assert_eq!(again["jobs"][0]["options"]["read_iolog"], first.to_str().unwrap());
    // At half its speed it takes twice as long as the trace says, but for the moment before the first I/O.
    let text = std::fs::read_to_string(&first).unwrap();
    let last = text.lines().last().and_then(|line| line.split(' ').next()).unwrap().parse::<f64>().unwrap();
    let timed = report(&format!("{target} --read-iolog {} --replay-time-scale 50", first.display()));
    assert!(timed["elapsed_s"].as_f64().unwrap() > last * 1e-6);
    reactors.stop();
}

// Without it a trace that does not fit could be replayed in part, and write over what it should not.
#[test]
fn a_trace_that_does_not_fit_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, trace) = (folder.path().join("disk"), folder.path().join("trace"));
    std::fs::write(&disk, vec![7; 1 << 20]).unwrap();
    for (lines, more, words) in [
        (
            "0 f write 0 4096\n0 f write 1044480 8192\n",
            "",
            "trace:4: this I/O ends at byte 1052672, behind the end",
        ),
        (
            "0 f write 0 4096\n0 f write 4096 100\n",
            "",
            "trace:4: offset or length is not a multiple of the block size",
        ),
        ("0 f write 0 4096\n0 f wipe 0 4096\n", "", "trace:4: \"wipe\" is none of"),
        ("0 f write 0 4096\n", "--queues 2", "a trace does not go together with more than one queue"),
        ("0 f write 0 134217728\n", "", "over the limit of 67108864"),
        ("", "", "there is no I/O in it"),
    ] {
        std::fs::write(&trace, format!("fio version 3 iolog\n0 f add\n{lines}")).unwrap();
        let output = perf(&format!("--target {} --read-iolog {} {more}", disk.display(), trace.display()));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && message.contains(words), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    assert!(std::fs::read(&disk).unwrap().iter().all(|byte| *byte == 7));
}

// Without it a job file could replay onto another file than it says, or its copies write one iolog together.
#[test]
fn job_files_replay_and_record() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (disk, trace, job, log) = (path("disk"), path("trace"), path("job.fio"), path("log"));
    std::fs::write(&disk, vec![0; 1 << 20]).unwrap();
    std::fs::write(
        &trace,
        format!("fio version 2 iolog\n{disk} add\n{disk} open\n{disk} read 4096 8192\n{disk} close\n"),
    )
    .unwrap();
    for (options, expected) in [
        (format!("read_iolog={trace}\niodepth=2"), "read"),
        (format!("read_iolog={trace}\nreplay_redirect={disk}\nnumjobs=2"), "read"),
        (format!("filename={disk}\nrw=write:4k\nsize=64k\nnumjobs=2\nwrite_iolog={log}"), "write"),
    ] {
        std::fs::write(&job, format!("[a]\nbs=4k\n{options}\n")).unwrap();
        let report = report(&job);
        assert!(report[expected]["ios"].as_u64().unwrap() > 0 && report["errors"] == 0, "{report}");
    }
    assert_eq!(actions(Path::new(&log)), actions(Path::new(&format!("{log}.1"))));
    assert_eq!(actions(Path::new(&log))[2..4], ["write 0 4096", "write 8192 4096"]);
}

/// fio, where it is installed.
fn fio(arguments: &str) -> Option<Output> {
    Command::new("fio").args(arguments.split_whitespace()).output().ok()
}

// Without it places with holes, runs and zones could be others than fio's, and a comparison of both one of different loads.
#[test]
fn places_are_those_of_fio() {
    if fio("--version").is_none() {
        eprintln!("fio is not installed: places are not compared with its own");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (disk, ours, theirs, job) = (path("disk"), path("ours"), path("theirs"), path("job.fio"));
    std::fs::write(&disk, vec![0; 256 << 10]).unwrap();
    for options in [
        "rw=read",
        "rw=read:8k",
        "rw=write:-8k",
        "rw=read:-4k",
        "rw=read:4k\nbs=8k",
        "rw=read\nzonemode=strided\nzonesize=8k\nzonerange=16k\nzoneskip=4k",
        "rw=write\nzonemode=strided\nzonesize=20k\nzonerange=12k\nzoneskip=4k",
        "rw=read\nzonemode=strided\nzonesize=8k\nzoneskip=8k",
        "rw=read:4k\nzonemode=strided\nzonesize=16k\nzonerange=32k\nzoneskip=8k",
    ] {
        let common = format!("[a]\nfilename={disk}\nsize=256k\nioengine=psync\nbs=4k\n{options}\n");
        std::fs::write(&job, format!("{common}write_iolog={theirs}\n")).unwrap();
        // It appends to one that is there.
        let _ = std::fs::remove_file(&theirs);
        fio(&job).unwrap();
        std::fs::write(&job, format!("{common}write_iolog={ours}\n")).unwrap();
        report(&job);
        let reaching = |line: &String| line.starts_with("read ") || line.starts_with("write ");
        let of = |log: &str| actions(Path::new(log)).into_iter().filter(reaching).collect::<Vec<_>>();
        // Where fio ends at the end of its file, what follows here is another way through it.
        let (ours, theirs) = (of(&ours), of(&theirs));
        assert!(theirs.len() >= 20 && ours.starts_with(&theirs), "{options}:\n{theirs:?}\n{ours:?}");
    }
}
