//! The end of the process with I/O in flight, seen by a host.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::json;
use sledge_nvme::Status;
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::io::{Channel, IoCommand, Operation, Submitted};
use sledge_nvmf::host::{ConnectOptions, Controller, HostIdentity, QueuePair};
use sledge_reactor::memory::{Segments, allocate};
use sledge_reactor::options::{CoreList, ReactorOptions};
use sledge_reactor::{Reactors, sleep};

use crate::support::{Target, free_port};

const NQN: &str = "nqn.2026-01.io.sledge:drain";
const BLOCK: usize = 4096;

/// A target that serves `device`, made by the given calls.
fn serving(calls: &[(&str, serde_json::Value)], device: &str) -> (Target, SocketAddr) {
    let mut target = Target::start(&["--empty"]);
    let port = free_port();
    let file = target.folder.path().join("disk.img");
    let base = json!({"name": "F", "filename": file, "block_size": BLOCK, "create_bytes": 1 << 20});
    target.call("bdev_uring_create", base).unwrap();
    for (method, params) in calls {
        target.call(method, params.clone()).unwrap();
    }
    target.call("nvmf_create_transport", json!({"trtype": "TCP"})).unwrap();
    target.call("nvmf_create_subsystem", json!({"nqn": NQN, "allow_any_host": true})).unwrap();
    let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": device}});
    target.call("nvmf_subsystem_add_ns", namespace).unwrap();
    let address = json!({"trtype": "TCP", "traddr": "127.0.0.1", "trsvcid": port.to_string()});
    target.call("nvmf_subsystem_add_listener", json!({"nqn": NQN, "listen_address": address})).unwrap();
    (target, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Writes one block of 0x5a from a host and gives the status; says when the write is under way.
async fn write_one(address: SocketAddr, under_way: mpsc::Sender<()>) -> Status {
    let host = HostIdentity::random().unwrap();
    let controller =
        Controller::connect(ConnectOptions::new(address, Nqn::new(NQN).unwrap(), host)).await.unwrap();
    let mut queue = QueuePair::open(&controller, 1).await.unwrap();
    let mut buffer = allocate(BLOCK).unwrap();
    buffer.fill(0x5a);
    let mut io = IoCommand::new(1, Operation::Write, 3, 1);
    io.data = Segments::from(buffer);
    let submitted = queue.submit(io);
    queue.flush();
    sleep(Duration::from_millis(100)).await;
    under_way.send(()).unwrap();
    if let Submitted::Done(done) = submitted {
        return done.status;
    }
    let mut done = Vec::new();
    while done.is_empty() {
        queue.poll(&mut done);
        sleep(Duration::from_millis(1)).await;
    }
    done[0].status
}

/// Runs the host against the target and ends the target with `end` while the write is under way.
fn end_under_io(mut target: Target, address: SocketAddr, end: impl FnOnce(&mut Target)) -> (Target, Status) {
    let options = ReactorOptions { cores: CoreList::floating(1), ..ReactorOptions::default() };
    let reactors = Reactors::start(options).unwrap();
    let (under_way, waiting) = mpsc::channel();
    let written = reactors.handles()[0].spawn(move || write_one(address, under_way));
    waiting.recv_timeout(Duration::from_secs(30)).unwrap();
    end(&mut target);
    let status = written.wait_blocking().unwrap();
    reactors.stop();
    (target, status)
}

// Without it: stopping the target would fail, or lose, writes that it had taken.
#[test]
fn writes_in_flight_end_before_the_process() {
    let delay = json!({"name": "D", "base_bdev_name": "F", "avg_read_latency": 0, "p99_read_latency": 0,
        "avg_write_latency": 400_000, "p99_write_latency": 400_000});
    let (target, address) = serving(&[("bdev_delay_create", delay)], "D");
    let (target, status) = end_under_io(target, address, |target| {
        target.signal("TERM");
        assert_eq!(target.wait().code(), Some(0));
    });
    assert!(status.is_success(), "{status}");
    let mut block = [0; BLOCK];
    let disk = File::open(target.folder.path().join("disk.img")).unwrap();
    disk.read_exact_at(&mut block, 3 * BLOCK as u64).unwrap();
    assert_eq!(block, [0x5a; BLOCK]);
}

// Without it: a target whose device hangs could not be stopped by a person who has no more time.
#[test]
fn a_second_signal_ends_the_process_at_once() {
    let hang = json!({"name": "EE_F", "io_type": "write", "error_type": "pending", "num": 1});
    let calls = [("bdev_error_create", json!({"base_name": "F"})), ("bdev_error_inject_error", hang)];
    let (target, address) = serving(&calls, "EE_F");
    let (_target, status) = end_under_io(target, address, |target| {
        target.signal("TERM");
        std::thread::sleep(Duration::from_millis(300));
        assert!(target.process.try_wait().unwrap().is_none(), "it did not wait for the write");
        let asked = Instant::now();
        target.signal("TERM");
        assert_eq!(target.wait().code(), Some(130));
        assert!(asked.elapsed() < Duration::from_secs(2));
    });
    assert!(!status.is_success());
}
