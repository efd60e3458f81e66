//! Devices on real reactors: what holds between commands, channels and cores.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{command, run, segments};
use sledge_bdev::null::{NullDevice, NullOptions};
use sledge_bdev::{BlockDevice, DeviceError};
use sledge_nvme::Status;
use sledge_nvme::io::{Channel, IoCommand, Operation, Submitted};
use sledge_reactor::memory::{self, Segment};
use sledge_reactor::yield_now;

fn race(device: Arc<dyn BlockDevice>, times: u64) {
    let reactors = common::reactors(2);
    let racers: Vec<_> = reactors
        .handles()
        .iter()
        .map(|handle| {
            let device = device.clone();
            handle.spawn(move || common::count_up(device, times))
        })
        .collect();
    for racer in racers {
        racer.wait_blocking().unwrap();
    }
    let counted = device.clone();
    let number = reactors.handles()[0]
        .spawn(move || async move {
            let mut channel = counted.open_channel().unwrap();
            common::read(channel.as_mut(), 3, 1).await.1
        })
        .wait_blocking()
        .unwrap();
    assert_eq!(u64::from_le_bytes(number[..8].try_into().unwrap()), 2 * times);
    assert_eq!(device.statistics().writes.operations, 2 * times);
    reactors.stop();
}

// Deleting this lets two hosts on two cores both win the same compare-and-write: lost updates.
#[test]
fn compare_and_write_is_atomic_across_reactors() {
    for block in [512, 4096] {
        race(common::malloc(64, block), 2000);
    }
    let folder = common::folder();
    race(common::uring(&folder.path().join("disk"), 64, 4096).unwrap(), 200);
}

fn submit_pending(channel: &mut dyn Channel, io: IoCommand) {
    assert!(matches!(channel.submit(io), Submitted::Pending));
}

// Deleting this lets a write change bytes that a socket is sending, or get stuck after that.
#[test]
fn a_write_waits_for_a_lent_read() {
    common::on_reactor(|| async {
        let device = common::malloc(64, 4096);
        let mut channel = device.open_channel().unwrap();
        assert_eq!(common::write(channel.as_mut(), 4, &[1; 8192], 4096).await, Status::SUCCESS);

        let lent = run(channel.as_mut(), IoCommand::new(1, Operation::Read, 4, 2)).await;
        assert!(matches!(lent.data.get(0), Some(Segment::Lent(loan)) if loan.len() == 8192));
        let mut other = device.open_channel().unwrap();
        submit_pending(other.as_mut(), command(Operation::Write, 5, 1, segments(&[2; 4096], &[])));
        assert!(other.needs_polling() && other.outstanding() == 1);
        // Elsewhere the device goes on; a later read of the range waits behind the write.
        assert_eq!(common::write(other.as_mut(), 6, &[3; 4096], 4096).await, Status::SUCCESS);
        submit_pending(channel.as_mut(), IoCommand::new(2, Operation::Read, 5, 1));
        let mut done = Vec::new();
        other.poll(&mut done);
        channel.poll(&mut done);
        assert!(done.is_empty());
        assert_eq!(common::bytes_of(&lent.data), [1; 8192]);

        // The channel may be closed before its loan ends.
        drop(lent);
        channel.poll(&mut done);
        assert!(done.is_empty(), "the read passed the write that waited before it");
        assert_eq!(common::finish(other.as_mut()).await.status, Status::SUCCESS);
        let read = common::finish(channel.as_mut()).await;
        assert_eq!(common::bytes_of(&read.data), [2; 4096]);
        drop((channel, other));
        drop(read);
        let mut channel = device.open_channel().unwrap();
        assert_eq!(common::write(channel.as_mut(), 0, &[9; 4096 * 64], 4096).await, Status::SUCCESS);
    });
}

// Deleting this lets a channel that closes with commands waiting lock their ranges for ever.
#[test]
fn a_closed_channel_leaves_no_range_locked() {
    common::on_reactor(|| async {
        let device = common::malloc(64, 4096);
        let mut first = device.open_channel().unwrap();
        let lent = run(first.as_mut(), IoCommand::new(1, Operation::Read, 8, 1)).await;
        let mut second = device.open_channel().unwrap();
        submit_pending(second.as_mut(), command(Operation::Write, 0, 16, segments(&[2; 65536], &[])));
        drop(second);
        assert_eq!(common::write(first.as_mut(), 0, &[3; 4096], 4096).await, Status::SUCCESS);
        drop(lent);
        assert_eq!(common::write(first.as_mut(), 0, &[4; 65536], 4096).await, Status::SUCCESS);
    });
}

// Deleting this lets a long deallocation stop a reactor for as long as it takes.
#[test]
fn long_clearing_goes_in_steps() {
    common::on_reactor(|| async {
        let device = common::malloc((64 << 20) / 512, 512);
        let mut channel = device.open_channel().unwrap();
        let last = (64 << 20) / 512 - 8;
        assert_eq!(common::write(channel.as_mut(), last, &[7; 4096], 512).await, Status::SUCCESS);
        let whole = (64 << 20) / 512 - 1;
        for operation in [Operation::WriteZeroes { deallocate: false }, Operation::Deallocate] {
            submit_pending(channel.as_mut(), IoCommand::new(0, operation, 1, whole));
            assert!(channel.needs_polling());
            assert_eq!(common::finish(channel.as_mut()).await.status, Status::SUCCESS);
            assert_eq!(common::read(channel.as_mut(), last, 8).await.1, [0; 4096]);
        }
    });
}

// Deleting this lets a dry pool fail commands, or hang them after buffers have come back.
#[test]
fn a_dry_pool_makes_commands_wait() {
    let folder = common::folder();
    let device = common::uring(&folder.path().join("disk"), 256, 4096).unwrap();
    common::on_reactor(move || async move {
        let mut channel = device.open_channel().unwrap();
        assert_eq!(common::write(channel.as_mut(), 0, &[5; 4096], 4096).await, Status::SUCCESS);
        let small = memory::allocate(4096).unwrap();
        let mut hoard = Vec::new();
        while let Some(buffer) = memory::allocate(1 << 20).or_else(|| memory::allocate(4096)) {
            hoard.push(buffer);
        }
        submit_pending(channel.as_mut(), IoCommand::new(1, Operation::Read, 0, 256));
        submit_pending(channel.as_mut(), IoCommand::new(2, Operation::Read, 0, 1));
        let mut done = Vec::new();
        // Room for the small read only: it waits behind the large one, which was first.
        drop(small);
        for _ in 0..100 {
            channel.poll(&mut done);
            yield_now().await;
        }
        assert!(done.is_empty() && channel.needs_polling());
        drop(hoard);
        while done.len() < 2 {
            channel.poll(&mut done);
            yield_now().await;
        }
        assert!(done.iter().all(|completion| completion.status.is_success()));
        assert!(done.iter().all(|completion| completion.data.get(0).unwrap().as_slice()[0] == 5));
        assert!(!channel.needs_polling());
    });
}

// Deleting this lets the null device copy, or give other than zeroes.
#[test]
fn null_lends_zeroes() {
    common::on_reactor(|| async {
        let options =
            NullOptions { name: "Null0".to_owned(), uuid: None, num_blocks: 1 << 20, block_size: 4096 };
        let device = NullDevice::new(options).unwrap();
        let mut channel = device.open_channel().unwrap();
        assert_eq!(common::write(channel.as_mut(), 0, &[1; 4096], 4096).await, Status::SUCCESS);
        let read = run(channel.as_mut(), IoCommand::new(1, Operation::Read, 0, 700)).await;
        assert!(read.data.iter().all(|segment| matches!(segment, Segment::Lent(_))));
        assert!(common::bytes_of(&read.data) == vec![0; 700 * 4096]);
        let own = command(Operation::Read, 9, 1, segments(&[1; 4096], &[5]));
        assert_eq!(common::bytes_of(&run(channel.as_mut(), own).await.data), [0; 4096]);
        let statistics = device.statistics();
        assert_eq!((statistics.reads.operations, statistics.reads.bytes), (2, 701 * 4096));
        assert_eq!((statistics.writes.operations, statistics.writes.failures), (1, 0));
    });
}

// Deleting this lets a wrong parameter make a device, or an error that does not say which.
#[test]
fn wrong_parameters_are_named() {
    let folder = common::folder();
    let path = folder.path().join("disk");
    let mut options = common::uring_options(&path, 8, 4096);
    options.create_bytes = None;
    let open = |options| sledge_bdev::uring::UringDevice::open(options).err().unwrap();
    let error = open(options.clone());
    assert!(matches!(error, DeviceError::Open { .. }) && error.errno() == libc::ENOENT, "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    options.block_size = Some(1000);
    assert_eq!(
        open(options.clone()).to_string(),
        "device Uring0: block_size is 1000: it must be 512 or 4096"
    );
    options.block_size = None;
    std::fs::write(&path, b"short").unwrap();
    assert!(open(options).to_string().contains("less than one block"));
    let options = sledge_bdev::malloc::MallocOptions {
        name: "huge".to_owned(),
        uuid: None,
        num_blocks: 1 << 50,
        block_size: 4096,
        optimal_io_boundary: 0,
        hugepages: false,
    };
    let error = sledge_bdev::malloc::MallocDevice::new(options).err().unwrap();
    assert_eq!(error.errno(), libc::ENOMEM, "{error}");
}
