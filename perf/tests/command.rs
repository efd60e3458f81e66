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
    for more in [
        "",
        "--bs 64k --header-digest --data-digest --rwmix 0",
        "--rw rw --bs 512 --queues 3 --busy",
        // Over what a command may transfer, and over what a buffer holds.
        "--bs 1m,256k --size 15m --data-digest",
        "--rw rw --bs 1m,1536k --rwmix 40 --size 15m",
    ] {
        let arguments =
            format!("--nqn {NQN} --rw randrw --iodepth 8 --time 1 --ramp 0.05 --verify --json {more}");
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

// Without it programs that start fio could not start this instead.
#[test]
fn a_command_line_of_fio_runs() {
    let folder = tempfile::tempdir().unwrap();
    let run = |words: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sledge-perf"));
        command.current_dir(folder.path()).arg("fio").args(words.split(' ')).output().unwrap()
    };
    let version = String::from_utf8(run("--version").stdout).unwrap();
    assert!(version.starts_with("fio-3.33-sledge-perf-"), "{version}");
    let output =
        run("--bs=4k --name=a --filename=disk --rw=write --size=1m --name=b --filename=disk --size=64k \
                      --output=report --output-format=json");
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report = std::fs::read_to_string(folder.path().join("report")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (&report["jobs"][0]["jobname"], &report["jobs"][1]["read"]["total_ios"]),
        (&"a".into(), &16.into())
    );
    let wrong = run("--name=a --rwx=read");
    let message = String::from_utf8(wrong.stderr).unwrap();
    assert!(message.contains("command line: rwx: this option is unknown"), "{message}");
    assert_eq!((wrong.status.code(), message.lines().count()), (Some(1), 1));
}

// Without it an I/O of several commands could count as several, or as less than it moved.
#[test]
fn a_large_io_is_one_io() {
    let (reactors, address) = start();
    for (bytes, more) in [(4 << 20, "--bs 4m"), (16 << 20, "--bs 16m --iodepth 1 --header-digest")] {
        let arguments = format!("--nqn {NQN} --rw write --iodepth 2 --number-ios 20 --time 60 --json {more}");
        let arguments = match more.contains("--iodepth") {
            true => arguments.replace("--iodepth 2 ", ""),
            false => arguments,
        };
        let output = perf(address, &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["write"]["ios"], &report["write"]["bytes"]), (&20.into(), &(20 * bytes).into()));
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
        (address, format!("--nqn {NQN} --bs 65m"), "over the limit of 67108864 (64 MiB)"),
        (address, format!("--nqn {NQN} --bs 16m --iodepth 512"), "would take 8.0 GiB of memory"),
        (address, format!("--nqn {NQN} --rw trim --verify"), "use a --rw that writes or reads"),
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

// Without it a job file could be read and not run, stages run at once, or a report lack what its readers need.
#[test]
fn a_job_file_runs_stage_by_stage() {
    let (reactors, address) = start();
    let folder = tempfile::tempdir().unwrap();
    let (file, page) = (folder.path().join("job.fio"), folder.path().join("page.html"));
    let text = format!(
        "[global]\nfilename=nvme-tcp://{address}/{NQN}?nsid=1&hdgst\nsize=1m\nthread\nbs=4k\niodepth=4\n\
         [fill]\nrw=write\nverify=crc32c\n\
         [many]\nstonewall\nrw=randrw\nbssplit=4k/50:8k/50\nnumjobs=2\ngroup_reporting\nfdatasync=8\n\
         [one]\nrw=trim\nbs=64k\n"
    );
    std::fs::write(&file, text).unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sledge-perf"));
        let output = command.arg("run").arg(&file).args(more).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{message}");
        assert!(message.ends_with("options without a meaning here: thread\n"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        String::from_utf8(output.stdout).unwrap()
    };
    let report: serde_json::Value = serde_json::from_str(&run(&["--output-format", "json"])).unwrap();
    let jobs = report["jobs"].as_array().unwrap();
    let of =
        |job: &serde_json::Value| (job["name"].as_str().unwrap().to_owned(), job["group"].as_u64().unwrap());
    assert_eq!(
        jobs.iter().map(of).collect::<Vec<_>>(),
        [("fill".into(), 0), ("many".into(), 1), ("one".into(), 1)]
    );
    assert_eq!(jobs[0]["write"]["bytes"], 1 << 20);
    assert!(jobs[0]["verified"].as_u64().unwrap() >= 256, "{report}");
    assert!(jobs[1]["total"]["bytes"].as_u64().unwrap() >= 2 << 20);
    assert!(jobs[1]["flush"]["ios"].as_u64().unwrap() > 0);
    assert_eq!(jobs[2]["trim"]["ios"], 16);
    assert_eq!(report["errors"], 0);
    let fio: serde_json::Value = serde_json::from_str(&run(&["--output-format", "fio"])).unwrap();
    assert_eq!(fio["jobs"][1]["groupid"], 1);
    assert_eq!(fio["jobs"][1]["job options"]["numjobs"], "2");
    assert!(fio["jobs"][1]["read"]["clat_ns"]["percentile"]["99.000000"].as_u64().unwrap() > 0);
    assert_eq!(fio["jobs"][2]["trim"]["io_bytes"], 1 << 20);
    let text = run(&["--html", page.to_str().unwrap()]);
    assert!(text.contains("fill: write 4k, depth 4, core 0, verified"), "{text}");
    assert!(std::fs::read_to_string(&page).unwrap().contains("Latency by percentile"));
    reactors.stop();
}

// Without it a mistake in a job file, or one beside it, could be passed over.
#[test]
fn a_wrong_job_file_is_one_line_and_status_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("job.fio");
    std::fs::write(&file, "[a]\nrw=read\nblocksise=4k\n").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sledge-perf"));
        let output = command.arg("run").arg(&file).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, message) = run(&[]);
    assert_eq!((status, message.lines().count()), (Some(1), 1), "{message}");
    assert!(message.contains("job.fio:3: blocksise: this option is unknown"), "{message}");
    let (status, message) = run(&["--bs", "8k"]);
    assert!(status == Some(2) && message.contains("cannot be used with"), "{message}");
    std::fs::write(&file, "[a]\nsize=4k\n").unwrap();
    let (status, message) = run(&["--html", "/nobody/page.html"]);
    assert!(status == Some(1) && message.contains("/nobody/page.html"), "{message}");
}
