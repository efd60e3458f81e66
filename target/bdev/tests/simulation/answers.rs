//! What single commands are answered with, and what the target then says about them in its logs, to a host made by
//! hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies};
use sledge_nvme::command::{DatasetRange, Fuse};
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Status};
use sledge_reactor::sim::SimulationConfig;
use sledge_reactor::sleep;
use uuid::Uuid;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use crate::support::raw::{Arrived, RawQueue};
use crate::support::{World, malloc};

/// Runs one host against a disk of 1,024 blocks of 512 bytes, as namespace 1; then nothing may be left.
fn with_a_disk<F: Future<Output = ()> + 'static>(host: impl FnOnce(SocketAddr) -> F) {
    let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
    let mut world = World::new(1, config, 2, 1);
    world.serve(vec![malloc("disk", 1024, 512)]);
    let address = world.address();
    world.simulation.block_on(world.host_node, || host(address)).unwrap();
    world.expect_target_is_empty(1);
}

/// As [`with_a_disk`], with a disk that takes a second for each command.
fn with_a_slow_disk<F: Future<Output = ()> + 'static>(host: impl FnOnce(SocketAddr) -> F) {
    let mut world = World::new(1, SimulationConfig::default(), 2, 1);
    let latencies = Latencies {
        avg_read_latency: 1_000_000,
        p99_read_latency: 1_000_000,
        avg_write_latency: 1_000_000,
        p99_write_latency: 1_000_000,
    };
    let options = DelayOptions { name: "slow".to_owned(), uuid: Some(Uuid::from_u128(8)), latencies };
    world.serve(vec![Arc::new(DelayDevice::new(malloc("below", 1024, 512), options).unwrap())]);
    let address = world.address();
    world.simulation.block_on(world.host_node, || host(address)).unwrap();
    world.expect_target_is_empty(1);
}

/// An admin queue and an I/O queue of one controller.
async fn queues(address: SocketAddr) -> (RawQueue, RawQueue) {
    let (admin, cntlid) = RawQueue::admin(address, 77, 0).await;
    let mut io = RawQueue::initialize(address, false, false).await;
    io.connect(1, cntlid, 77, 0).await.unwrap();
    (admin, io)
}

/// Reads `bytes` of a log page.
async fn log_page(admin: &mut RawQueue, page: u8, bytes: u32) -> Vec<u8> {
    let mut command = Command::get_log_page(page, 0, 0, bytes);
    command.dptr = Descriptor::transport(bytes);
    admin.read(command).await
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn ranges(slba: u64, blocks: u32) -> Vec<u8> {
    let range = DatasetRange { slba: U64::new(slba), blocks: U32::new(blocks), ..Default::default() };
    range.as_bytes().to_vec()
}

// Without this hints could be taken for namespaces and blocks that are not there.
#[test]
fn dataset_management_is_checked_whatever_it_asks_for() {
    with_a_disk(|address| async move {
        let (_admin, mut io) = queues(address).await;
        for deallocate in [false, true] {
            for (nsid, slba, expected) in [
                (1, 0, Status::SUCCESS),
                (7, 0, Status::INVALID_NAMESPACE_OR_FORMAT),
                (1, 1020, Status::LBA_OUT_OF_RANGE),
            ] {
                let mut command = Command::deallocate_ranges(nsid, 1);
                if !deallocate {
                    command.cdw11 = U32::new(0);
                }
                command.dptr = Descriptor::in_capsule(0, 16);
                let status = io.execute(command, &ranges(slba, 8)).await.status();
                assert!(
                    status.is(expected),
                    "deallocate {deallocate}, namespace {nsid}, block {slba}: {status}"
                );
            }
        }
    });
}

// Without this `nvme error-log` would name blocks that no command was about, or miss those that one was.
#[test]
fn error_log_entries_name_the_blocks_of_commands_that_have_some() {
    with_a_disk(|address| async move {
        let (mut admin, mut io) = queues(address).await;
        let mut read = Command::read(1, 5000, 8);
        read.dptr = Descriptor::transport(4096);
        assert!(io.execute(read, &[]).await.status().is(Status::LBA_OUT_OF_RANGE));
        let mut hint = Command::deallocate_ranges(9, 1);
        hint.dptr = Descriptor::in_capsule(0, 16);
        let hinted = io.execute(hint, &ranges(3, 1)).await;
        assert!(hinted.status().is(Status::INVALID_NAMESPACE_OR_FORMAT) && hinted.status().is_more());
        // Both queues are on reactors of their own: the entries are messages.
        sleep(Duration::from_millis(10)).await;
        let log = log_page(&mut admin, 0x01, 128).await;
        let (newest, older) = log.split_at(64);
        assert_eq!(
            (word(newest, 0), newest[8], newest[31], word(newest, 16), newest[24]),
            (2, 1, 0x09, 0, 9)
        );
        assert_eq!((word(older, 0), older[8], older[31], word(older, 16), older[24]), (1, 1, 0x02, 5000, 1));
        assert_eq!(&newest[10..12], hinted.cid.as_bytes());
    });
}

// Without this SMART would leave out what fused writes and verifies have moved.
#[test]
fn health_counts_every_kind_of_command() {
    with_a_disk(|address| async move {
        let (mut admin, mut io) = queues(address).await;
        let small = Descriptor::in_capsule(0, 512);
        for _ in 0..2000 {
            let (mut compare, mut write) = (Command::compare(1, 0, 1), Command::write(1, 0, 1));
            (compare.dptr, write.dptr) = (small, small);
            io.send(compare.with_fuse(Fuse::First), &[0; 512]).await;
            io.send(write.with_fuse(Fuse::Second), &[0; 512]).await;
            for _ in 0..2 {
                match io.next().await.unwrap() {
                    Arrived::Completion(completion) => {
                        assert!(completion.status().is_success(), "{}", completion.status())
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        // A verify of 3,000 blocks' worth; the disk has 1,024.
        for _ in 0..3 {
            assert!(io.execute(Command::verify(1, 0, 1000), &[]).await.status().is_success());
        }
        let health = log_page(&mut admin, 0x02, 512).await;
        let counters: Vec<u64> = (32..96).step_by(16).map(|at| word(&health, at)).collect();
        // Units of 1,000 blocks read and written, commands read and written.
        assert_eq!(counters, [5, 2, 2000, 2000]);
    });
}

// Without this the controller would seem to have been idle for all its life.
#[test]
fn busy_time_is_that_with_commands_outstanding() {
    with_a_slow_disk(|address| async move {
        let (mut admin, mut io) = queues(address).await;
        let busy_minutes = async |admin: &mut RawQueue| word(&log_page(admin, 0x02, 512).await, 96);
        // Two at a time: the time counts once.
        for _ in 0..61 {
            let cids = [io.send(Command::flush(1), &[]).await, io.send(Command::flush(1), &[]).await];
            for cid in cids {
                assert!(io.completion(cid).await.status().is_success());
            }
        }
        assert_eq!(busy_minutes(&mut admin).await, 1);
        sleep(Duration::from_secs(70)).await;
        io.execute(Command::flush(1), &[]).await;
        assert_eq!(busy_minutes(&mut admin).await, 1);
    });
}
