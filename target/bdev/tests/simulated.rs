//! Devices in the simulated world: faults, delays and time limits.

#![allow(clippy::unwrap_used)]

mod common;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::{command, run, segments};
use sledge_bdev::BlockDevice;
use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies, LatencyKind};
use sledge_bdev::error::{ErrorDevice, ErrorOptions, Injection, IoType};
use sledge_nvme::Status;
use sledge_nvme::io::{IoCommand, Operation, Submitted};
use sledge_reactor::memory::Segments;
use sledge_reactor::sim::{DiskFault, Simulation};
use sledge_reactor::{now, sleep, yield_now};

// Deleting this lets a broken or full disk be reported as something else, or take the device with it.
#[test]
fn a_failing_disk_fails_commands_not_the_device() {
    for seed in 0..20 {
        let mut world = Simulation::new(seed);
        let node = world.add_node("node", 1);
        let disk = world.disk(node, "disk").create(1 << 20, 4096);
        world
            .block_on(node, || async move {
                let device = common::uring("disk".as_ref(), 256, 4096).unwrap();
                let mut channel = device.open_channel().unwrap();
                let channel = channel.as_mut();
                assert_eq!(common::write(channel, 0, &[1; 8192], 4096).await, Status::SUCCESS);

                disk.fail_range(0..4096, DiskFault::Media);
                assert_eq!(common::read(channel, 0, 2).await.0, Status::UNRECOVERED_READ_ERROR);
                assert_eq!(common::write(channel, 0, &[2; 4096], 4096).await, Status::WRITE_FAULT);
                let both = command(Operation::CompareAndWrite, 0, 1, segments(&[1; 8192], &[]));
                assert_eq!(run(channel, both).await.status, Status::UNRECOVERED_READ_ERROR);
                let verify = IoCommand::new(3, Operation::Verify, 0, 2);
                assert_eq!(run(channel, verify).await.status, Status::UNRECOVERED_READ_ERROR);
                assert_eq!(common::read(channel, 1, 1).await, (Status::SUCCESS, vec![1; 4096]));

                disk.clear_faults();
                disk.fail_range(0..1 << 20, DiskFault::Full);
                let full = common::write(channel, 9, &[2; 4096], 4096).await;
                assert!(full.is(Status::CAPACITY_EXCEEDED) && full.is_do_not_retry());
                let zeroes = IoCommand::new(3, Operation::WriteZeroes { deallocate: false }, 9, 1);
                assert!(run(channel, zeroes).await.status.is(Status::CAPACITY_EXCEEDED));
                // Block 0 may hold anything since its write failed.
                assert_eq!(common::read(channel, 1, 1).await, (Status::SUCCESS, vec![1; 4096]));

                // Nothing stays locked or lost.
                disk.clear_faults();
                assert_eq!(common::write(channel, 0, &[3; 4096 * 16], 4096).await, Status::SUCCESS);
                assert_eq!((channel.outstanding(), channel.needs_polling()), (0, false));
                let statistics = device.statistics();
                assert_eq!((statistics.reads.failures, statistics.writes.failures), (1, 3));
                assert_eq!(statistics.compares.failures, 1);
            })
            .unwrap();
    }
}

// Deleting this lets a write that the disk still has be torn by, or undo, those of other channels in its range.
#[test]
fn a_channel_that_goes_leaves_its_ranges_locked_until_the_disk_is_done() {
    let mut world = Simulation::new(5);
    let node = world.add_node("node", 1);
    let disk = world.disk(node, "disk").create(1 << 20, 4096);
    world
        .block_on(node, || async move {
            let device = common::uring("disk".as_ref(), 256, 4096).unwrap();
            let mut first = device.open_channel().unwrap();
            let mut second = device.open_channel().unwrap();
            let write = |value| command(Operation::Write, 0, 1, segments(&[value; 4096], &[]));
            disk.hold();
            assert!(matches!(first.submit(write(1)), Submitted::Pending));
            // One that waits for the range goes with the channel, and so does its mark.
            assert!(matches!(first.submit(write(2)), Submitted::Pending) && first.needs_polling());
            drop(first);
            assert!(matches!(second.submit(write(3)), Submitted::Pending));
            let mut done = Vec::new();
            for _ in 0..10 {
                sleep(Duration::from_millis(10)).await;
                second.poll(&mut done);
                assert!(
                    done.is_empty() && second.needs_polling(),
                    "the range is free, but the disk has a write"
                );
            }
            disk.release();
            assert_eq!(common::finish(second.as_mut()).await.status, Status::SUCCESS);
            assert_eq!(disk.counters().writes, 2);
            assert_eq!(disk.read_bytes(0..4096), [3; 4096]);
        })
        .unwrap();
}

// Deleting this lets a command wait for ever for a range that somebody sits on.
#[test]
fn waiting_ends_with_a_retryable_status() {
    let mut world = Simulation::new(1);
    let node = world.add_node("node", 1);
    world
        .block_on(node, || async {
            let device = common::malloc(64, 4096);
            let mut channel = device.open_channel().unwrap();
            let lent = run(channel.as_mut(), IoCommand::new(1, Operation::Read, 0, 1)).await;
            let started = now();
            let write = command(Operation::Write, 0, 1, segments(&[1; 4096], &[]));
            assert!(matches!(channel.submit(write), Submitted::Pending));
            let mut done = Vec::new();
            while done.is_empty() {
                sleep(Duration::from_millis(10)).await;
                channel.poll(&mut done);
            }
            assert_eq!(done[0].status, Status::COMMAND_INTERRUPTED);
            let waited = now() - started;
            assert!(waited > Duration::from_secs(9) && waited < Duration::from_secs(12), "{waited:?}");
            // It took its mark with it: readers enter again.
            assert_eq!(common::read(channel.as_mut(), 0, 1).await.0, Status::SUCCESS);
            drop(lent);
            assert_eq!(common::write(channel.as_mut(), 0, &[1; 4096], 4096).await, Status::SUCCESS);
        })
        .unwrap();
}

// Deleting this lets a delay be forgotten, or hold a range while it lasts.
#[test]
fn delays_are_kept_and_can_be_changed() {
    let mut world = Simulation::new(2);
    let node = world.add_node("node", 1);
    world
        .block_on(node, || async {
            let latencies = Latencies {
                avg_read_latency: 2000,
                p99_read_latency: 50_000,
                avg_write_latency: 10_000,
                p99_write_latency: 10_000,
            };
            let options = DelayOptions { name: "Delay0".to_owned(), uuid: None, latencies };
            let device = DelayDevice::new(common::malloc(64, 4096), options).unwrap();
            let mut channel = device.open_channel().unwrap();
            let took = async |channel: &mut dyn sledge_nvme::io::Channel, operation: Operation| {
                let started = now();
                let data =
                    if operation == Operation::Write { segments(&[1; 4096], &[]) } else { Segments::new() };
                assert_eq!(run(channel, command(operation, 0, 1, data)).await.status, Status::SUCCESS);
                (now() - started).as_micros()
            };
            let write = took(channel.as_mut(), Operation::Write).await;
            assert!((10_000..12_000).contains(&write), "{write}");
            let (mut usual, mut slow) = (0, 0);
            for _ in 0..300 {
                match took(channel.as_mut(), Operation::Read).await {
                    2000..4000 => usual += 1,
                    50_000..52_000 => slow += 1,
                    other => panic!("{other}"),
                }
            }
            assert!(usual > 270 && slow > 0, "{usual} {slow}");
            device.update_latency(LatencyKind::from_name("avg_write").unwrap(), 0);
            device.update_latency(LatencyKind::P99Write, 0);
            assert!(took(channel.as_mut(), Operation::Write).await < 100);
            assert_eq!(device.latencies().avg_read_latency, 2000);

            // A read that waits holds nothing; commands end in the order of their times.
            let read = IoCommand::new(5, Operation::Read, 0, 1);
            assert!(matches!(channel.submit(read), Submitted::Pending) && channel.needs_polling());
            assert_eq!(common::write(channel.as_mut(), 0, &[8; 4096], 4096).await, Status::SUCCESS);
            assert_eq!(common::bytes_of(&common::finish(channel.as_mut()).await.data), [8; 4096]);
            assert_eq!(device.statistics().reads.longest_nanoseconds / 1_000_000, 50);
        })
        .unwrap();
}

// Deleting this lets an injected error hit too many commands, too few, or the wrong ones.
#[test]
fn injected_errors_hit_what_they_should() {
    let mut world = Simulation::new(3);
    let node = world.add_node("node", 1);
    world
        .block_on(node, || async {
            let device =
                Arc::new(ErrorDevice::new(common::malloc(64, 4096), ErrorOptions::default()).unwrap());
            assert_eq!(device.name(), "EE_Malloc0");
            let mut channel = device.open_channel().unwrap();
            let channel = channel.as_mut();
            let inject = |name: &str, injection, num, queue_depth| {
                device.inject(IoType::from_name(name).unwrap(), injection, num, queue_depth).unwrap();
            };

            inject("write", Injection::Failure, 2, 0);
            for expected in [Status::WRITE_FAULT, Status::WRITE_FAULT, Status::SUCCESS] {
                assert_eq!(common::read(channel, 0, 1).await.0, Status::SUCCESS);
                assert_eq!(common::write(channel, 0, &[1; 4096], 4096).await, expected);
            }
            inject("all", Injection::NvmeFailure(Status::NAMESPACE_NOT_READY), u64::MAX, 0);
            assert_eq!(common::read(channel, 0, 1).await.0, Status::NAMESPACE_NOT_READY);
            let flush = IoCommand::new(1, Operation::Flush, 0, 0);
            assert_eq!(run(channel, flush).await.status, Status::NAMESPACE_NOT_READY);
            device.clear();

            inject("read", Injection::CorruptData { offset: 5, value: 0x40 }, 1, 0);
            let mut corrupted = [1; 4096];
            corrupted[5] = 0x41;
            assert_eq!(common::read(channel, 0, 1).await, (Status::SUCCESS, corrupted.to_vec()));
            assert_eq!(common::read(channel, 0, 1).await.1, [1; 4096]);
            inject("write", Injection::CorruptData { offset: 5, value: 0x40 }, 1, 0);
            assert_eq!(common::write(channel, 0, &[1; 4096], 4096).await, Status::SUCCESS);
            assert_eq!(common::read(channel, 0, 1).await.1, corrupted);
            let nothing = Injection::CorruptData { offset: 5, value: 0 };
            assert!(device.inject(&[IoType::Read], nothing, 1, 0).is_err());

            // Pending ones hang until they are resumed; with a depth, only deep queues are hit.
            inject("write", Injection::Pending, 1, 1);
            assert_eq!(common::write(channel, 1, &[2; 4096], 4096).await, Status::SUCCESS);
            inject("read", Injection::Pending, 1, 0);
            assert!(matches!(channel.submit(IoCommand::new(9, Operation::Read, 1, 1)), Submitted::Pending));
            let write = command(Operation::Write, 1, 1, segments(&[3; 4096], &[]));
            assert!(matches!(channel.submit(write), Submitted::Pending));
            let mut done = Vec::new();
            for _ in 0..10 {
                channel.poll(&mut done);
                yield_now().await;
            }
            assert!(done.is_empty() && channel.outstanding() == 2);
            device.resume_pending();
            channel.poll(&mut done);
            assert_eq!(done.iter().map(|completion| completion.token).collect::<Vec<_>>(), [9]);
            assert!(common::bytes_of(&done[0].data) == [2; 4096]);
            done.clear();
            assert_eq!(common::finish(channel).await.token, 1001);
            assert_eq!(device.statistics().writes.failures, 2);
        })
        .unwrap();
}

/// Two reactors count up in one block of a slow disk; returns what the world did.
fn race(seed: u64) -> u64 {
    let mut world = Simulation::new(seed);
    let node = world.add_node("node", 2);
    let disk = world.disk(node, "disk").create(64 << 12, 4096);
    disk.set_latency(Duration::from_micros(1)..=Duration::from_micros(300));
    let opened = Rc::new(RefCell::new(None));
    let ended = Rc::new(Cell::new(0));
    let slot = opened.clone();
    let open = async move || {
        *slot.borrow_mut() = common::uring("disk".as_ref(), 64, 4096);
    };
    world.block_on(node, open).unwrap();
    for reactor in 0..2 {
        let (device, ended) = (opened.borrow().clone().unwrap(), ended.clone());
        world.spawn_on(node, reactor, || async move {
            common::count_up(device, 10).await;
            ended.set(ended.get() + 1);
        });
    }
    world.run_until(|| ended.get() == 2).unwrap();
    let number: [u8; 8] = disk.read_bytes(3 << 12..(3 << 12) + 8).try_into().unwrap();
    assert_eq!(u64::from_le_bytes(number), 20, "seed {seed}");
    world.trace_hash()
}

// Deleting this lets a compare and its write come apart while the disk reorders, or a device do something that
// its seed does not decide.
#[test]
fn compare_and_write_is_atomic_and_replays() {
    for seed in 0..30 {
        assert_eq!(race(seed), race(seed), "seed {seed}");
    }
}

// Deleting this lets an aborted command still touch the device, or never be answered, or lets an Abort hit
// another command.
#[test]
fn waiting_commands_can_be_aborted() {
    let mut world = Simulation::new(4);
    let node = world.add_node("node", 1);
    world
        .block_on(node, || async {
            let base = common::malloc(64, 4096);
            let stuck = Arc::new(ErrorDevice::new(base, ErrorOptions::default()).unwrap());
            stuck.inject(&[IoType::Write], Injection::Pending, 1, 0).unwrap();
            let latencies =
                Latencies { avg_write_latency: 1000, p99_write_latency: 1000, ..Latencies::default() };
            let options = DelayOptions { name: "Delay0".to_owned(), uuid: None, latencies };
            let device = DelayDevice::new(stuck, options).unwrap();
            let mut channel = device.open_channel().unwrap();
            let mut write = |token, byte: u8| {
                let mut io = command(Operation::Write, 0, 1, segments(&[byte; 4096], &[]));
                io.token = token;
                assert!(matches!(channel.submit(io), Submitted::Pending));
            };
            // The first hangs below the delay, the second waits in it, the third is left alone.
            write(70, 7);
            write(80, 8);
            write(90, 9);
            assert!(channel.abort(80) && !channel.abort(80) && !channel.abort(81));
            let aborted = common::finish(channel.as_mut()).await;
            assert_eq!((aborted.token, aborted.status), (80, Status::ABORTED_BY_REQUEST));
            let done = common::finish(channel.as_mut()).await;
            assert_eq!((done.token, done.status), (90, Status::SUCCESS));
            assert!(channel.abort(70));
            let aborted = common::finish(channel.as_mut()).await;
            assert_eq!((aborted.token, aborted.status), (70, Status::ABORTED_BY_REQUEST));
            assert_eq!(channel.outstanding(), 0);
            assert_eq!(common::read(channel.as_mut(), 0, 1).await.1, [9; 4096]);
        })
        .unwrap();
}
