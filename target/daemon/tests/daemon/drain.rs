//! The end of the process with I/O in flight, seen by a host.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;

use serde_json::{Value, json};
use sledge_nvme::Status;
use sledge_nvme::io::{IoCommand, Operation};
use sledge_nvmf::host::QueuePair;
use sledge_reactor::memory::{Segments, allocate};

use crate::host::{NQN, beside, connect, run, serving};
use crate::support::{Target, eventually};

const BLOCK: usize = 4096;

/// A target that serves `device`, made by the given calls on the file device F.
fn serving_file(calls: &[(&'static str, Value)], device: &str) -> (Target, SocketAddr) {
    let all = |target: &Target| {
        let file = target.folder.path().join("disk.img");
        let base = json!({"name": "F", "filename": file, "block_size": BLOCK, "create_bytes": 1 << 20});
        let mut all = vec![("bdev_uring_create", base)];
        all.extend_from_slice(calls);
        all
    };
    serving(all, device)
}

/// Writes one block of 0x5a from a host and gives the status.
async fn write_one(address: SocketAddr) -> Status {
    let controller = connect(address).await;
    let mut queue = QueuePair::open(&controller, 1).await.unwrap();
    let mut buffer = allocate(BLOCK).unwrap();
    buffer.fill(0x5a);
    let mut io = IoCommand::new(1, Operation::Write, 3, 1);
    io.data = Segments::from(buffer);
    run(&mut queue, io).await
}

/// Runs the host against the target and ends the target with `end` while the write is under way.
fn end_under_io(mut target: Target, address: SocketAddr, end: impl FnOnce(&mut Target)) -> (Target, Status) {
    let (status, target) = beside(
        move || write_one(address),
        || {
            eventually("a write is under way", || {
                let queues = target.call("nvmf_subsystem_get_qpairs", json!({"nqn": NQN})).unwrap();
                let queues = queues.as_array().unwrap();
                queues.iter().any(|queue| queue["qid"] == 1 && queue["outstanding"] == 1)
            });
            end(&mut target);
            target
        },
    );
    (target, status)
}

// Without it: stopping the target would fail, or lose, writes that it had taken.
#[test]
fn writes_in_flight_end_before_the_process() {
    // Long enough to be seen under way on a machine that stands still for a second or two.
    let delay = json!({"name": "D", "base_bdev_name": "F", "avg_read_latency": 0, "p99_read_latency": 0,
        "avg_write_latency": 4_000_000, "p99_write_latency": 4_000_000});
    let (target, address) = serving_file(&[("bdev_delay_create", delay)], "D");
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
    let (target, address) = serving_file(&calls, "EE_F");
    let (_target, status) = end_under_io(target, address, |target| {
        target.signal("TERM");
        // The first has arrived once nobody is let in any more: two at once would be one.
        eventually("it drains", || TcpStream::connect(address).is_err());
        assert!(target.process.try_wait().unwrap().is_none(), "it did not wait for the write");
        target.signal("TERM");
        // A process that has drained to its end gives another status.
        assert_eq!(target.wait().code(), Some(130));
    });
    assert!(!status.is_success());
}
