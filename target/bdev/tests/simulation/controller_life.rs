//! Controllers that are reset, shut down, aborted and forgotten with I/O in flight, by a host made by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies};
use sledge_bdev::uring::{UringDevice, UringOptions};
use sledge_nvme::property::{Configuration, Property, ShutdownNotification, ShutdownStatus};
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Status};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{now, sleep};
use uuid::Uuid;

use crate::support::model::Draw;
use crate::support::raw::{RawQueue, read_to_end};
use crate::support::{World, malloc};

/// Runs one host against a device that takes 2 ms; then nothing may be left.
fn with_a_slow_device<F: Future<Output = ()> + 'static>(seed: u64, host: impl FnOnce(SocketAddr, Draw) -> F) {
    let mut draw = Draw::new(seed, 1);
    let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
    let mut world = World::new(seed, config, 1 + draw.below(3) as usize, 1);
    let latencies = Latencies {
        avg_read_latency: 2_000,
        p99_read_latency: 2_000,
        avg_write_latency: 2_000,
        p99_write_latency: 2_000,
    };
    let options = DelayOptions { name: "slow".to_owned(), uuid: Some(Uuid::from_u128(8)), latencies };
    let device = DelayDevice::new(malloc("below", 1024, 512), options).unwrap();
    world.serve(vec![Arc::new(device) as Arc<dyn BlockDevice>]);
    let address = world.address();
    world.simulation.block_on(world.host_node, || host(address, draw)).unwrap();
    world.expect_target_is_empty(1);
}

/// An I/O queue with commands in flight, of all sizes and both directions.
async fn busy_queue(address: SocketAddr, qid: u16, cntlid: u16, draw: &mut Draw) -> (RawQueue, Vec<u16>) {
    let mut io = RawQueue::initialize(address, false, false).await;
    io.connect(qid, cntlid, 77, 0).await.unwrap();
    let mut sent = Vec::new();
    for number in 0..1 + draw.below(10) {
        let mut read = Command::read(1, number * 64, 64);
        read.dptr = Descriptor::transport(32_768);
        let mut small = Command::write(1, number * 64, 8);
        small.dptr = Descriptor::in_capsule(0, 4096);
        let mut large = Command::write(1, number * 64, 64);
        large.dptr = Descriptor::transport(32_768);
        sent.push(match draw.below(4) {
            0 => io.send(read, &[]).await,
            1 => io.send(small, &[3; 4096]).await,
            // Its data is never sent.
            2 => io.send(large, &[]).await,
            _ => io.send(Command::flush(1), &[]).await,
        });
    }
    (io, sent)
}

async fn until_ready(admin: &mut RawQueue, ready: bool) {
    let began = now();
    while admin.csts().await.ready() != ready {
        assert!(now() - began < Duration::from_secs(5), "CSTS.RDY does not become {ready}");
        sleep(Duration::from_micros(100)).await;
    }
}

// Without this a reset with I/O in flight could hang, leave queues behind, or let them go on.
#[test]
fn a_reset_ends_the_queues_and_the_controller_works_again() {
    for_seeds(60, |seed| {
        with_a_slow_device(seed, |address, mut draw| async move {
            let (mut admin, cntlid) = RawQueue::admin(address, 77, 0).await;
            for _ in 0..3 {
                let (first, _) = busy_queue(address, 1, cntlid, &mut draw).await;
                let (second, _) = busy_queue(address, 2, cntlid, &mut draw).await;
                sleep(Duration::from_micros(draw.below(4_000))).await;
                admin.set(Property::Cc, Configuration::from_bits(0)).await;
                until_ready(&mut admin, false).await;
                read_to_end(&first.stream).await;
                read_to_end(&second.stream).await;
                admin.set(Property::Cc, Configuration::ENABLE_NVM).await;
                until_ready(&mut admin, true).await;
                let mut again = RawQueue::initialize(address, false, false).await;
                again.connect(1, cntlid, 77, 0).await.unwrap();
                let flushed = again.execute(Command::flush(1), &[]).await.status();
                assert!(flushed.is_success(), "flush after the reset: {flushed}");
                admin.set(Property::Cc, Configuration::from_bits(0)).await;
                until_ready(&mut admin, false).await;
                admin.set(Property::Cc, Configuration::ENABLE_NVM).await;
                until_ready(&mut admin, true).await;
            }
        });
    });
}

// Without this a shutdown with I/O in flight might never be complete.
#[test]
fn a_shutdown_completes_with_commands_in_flight() {
    for_seeds(40, |seed| {
        with_a_slow_device(seed, |address, mut draw| async move {
            let (mut admin, cntlid) = RawQueue::admin(address, 77, 0).await;
            let (_io, _) = busy_queue(address, 1, cntlid, &mut draw).await;
            sleep(Duration::from_micros(draw.below(4_000))).await;
            let shutdown = Configuration::ENABLE_NVM.with_shutdown(ShutdownNotification::Normal);
            admin.set(Property::Cc, shutdown).await;
            let began = now();
            while admin.csts().await.shutdown() != Some(ShutdownStatus::Complete) {
                assert!(now() - began < Duration::from_secs(5), "the shutdown is not complete");
                sleep(Duration::from_micros(100)).await;
            }
        });
    });
}

// Without this a controller's shutdown could be complete before its writes are durable: the flushes of the one that had its
// identifier before would end it.
#[test]
fn a_shutdown_waits_for_its_own_flushes() {
    for_seeds(20, |seed| {
        let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1, 1);
        let node = world.target_node;
        let disk = world.simulation.disk(node, "disk").create(1 << 20, 512);
        let open = || async {
            let options = UringOptions {
                name: "disk".to_owned(),
                filename: "disk".into(),
                block_size: None,
                uuid: None,
                create_bytes: None,
            };
            UringDevice::open(options).unwrap()
        };
        let device = world.simulation.block_on(node, open).unwrap();
        let mut definition = world.definition(vec![Arc::new(device)]);
        let subsystem = definition.subsystems.values_mut().next().unwrap();
        Arc::make_mut(subsystem).controller_ids = (1, 1);
        world.apply(definition);
        let address = world.address();
        let host = move || async move {
            let quick = Duration::from_micros(10)..=Duration::from_micros(50);
            let slow = |ms| Duration::from_millis(ms)..=Duration::from_millis(ms);
            for flush_ms in [100, 400] {
                disk.set_latency(quick.clone());
                let (mut admin, cntlid) = RawQueue::admin(address, 77, 0).await;
                assert_eq!(cntlid, 1);
                let mut io = RawQueue::initialize(address, false, false).await;
                io.connect(1, cntlid, 77, 0).await.unwrap();
                let mut write = Command::write(1, 0, 8);
                write.dptr = Descriptor::in_capsule(0, 4096);
                assert!(io.execute(write, &[7; 4096]).await.status().is_success());
                assert!(disk.unsynced_blocks() > 0);
                disk.set_latency(slow(flush_ms));
                let shutdown = Configuration::ENABLE_NVM.with_shutdown(ShutdownNotification::Normal);
                admin.set(Property::Cc, shutdown).await;
                read_to_end(&io.stream).await;
                if flush_ms == 100 {
                    // It does not wait for the end; the next controller gets its identifier.
                    assert_eq!(admin.csts().await.shutdown(), Some(ShutdownStatus::Occurring));
                    drop(admin);
                    sleep(Duration::from_millis(20)).await;
                    continue;
                }
                let began = now();
                while admin.csts().await.shutdown() != Some(ShutdownStatus::Complete) {
                    assert!(now() - began < Duration::from_secs(5), "the shutdown is not complete");
                    sleep(Duration::from_micros(100)).await;
                }
                assert_eq!(disk.unsynced_blocks(), 0, "complete, but not durable");
            }
        };
        world.simulation.block_on(world.host_node, host).unwrap();
    });
}

// Without this a host that fell silent keeps its controller, or one that is busy with I/O loses it.
#[test]
fn a_silent_controller_expires_and_a_busy_one_does_not() {
    for_seeds(20, |seed| {
        with_a_slow_device(seed, |address, mut draw| async move {
            let (admin, cntlid) = RawQueue::admin(address, 77, 1_000).await;
            let mut io = RawQueue::initialize(address, false, false).await;
            io.connect(1, cntlid, 77, 0).await.unwrap();
            for _ in 0..10 {
                sleep(Duration::from_millis(300 + draw.below(200))).await;
                let flushed = io.execute(Command::flush(1), &[]).await.status();
                assert!(flushed.is_success(), "flush: {flushed}");
            }
            io.send(Command::flush(1), &[]).await;
            let began = now();
            read_to_end(&admin.stream).await;
            read_to_end(&io.stream).await;
            let took = (now() - began).as_secs_f64();
            assert!((0.9..3.0).contains(&took), "closed after {took} s of silence");
        });
    });
}

// Without this Abort could answer a command twice or never, or say that it aborted what was done.
#[test]
fn abort_ends_held_and_waiting_commands_once() {
    for_seeds(60, |seed| {
        with_a_slow_device(seed, |address, mut draw| async move {
            let (mut admin, cntlid) = RawQueue::admin(address, 77, 0).await;
            let event = admin.send(Command::async_event_request(), &[]).await;
            let abort = admin.send(Command::abort(0, event), &[]).await;
            // An Abort is answered behind what it has aborted (Base 5.1.1).
            let aborted = admin.completion(event).await.status();
            assert!(aborted.is(Status::ABORTED_BY_REQUEST), "{aborted}");
            let done = admin.completion(abort).await;
            assert!(done.status().is_success() && done.result.get() & 1 == 0);

            let mut io = RawQueue::initialize(address, false, false).await;
            io.connect(1, cntlid, 77, 0).await.unwrap();
            for _ in 0..5 {
                let mut write = Command::write(1, 0, 8);
                write.dptr = Descriptor::in_capsule(0, 4096);
                let cid = io.send(write, &[9; 4096]).await;
                sleep(Duration::from_micros(draw.below(3_000))).await;
                let aborted = admin.execute(Command::abort(1, cid), &[]).await;
                let status = io.completion(cid).await.status();
                match aborted.result.get() & 1 {
                    0 => assert!(status.is(Status::ABORTED_BY_REQUEST), "said to be aborted: {status}"),
                    _ => assert!(status.is_success(), "said to be done: {status}"),
                }
            }
            let nobody = admin.execute(Command::abort(1, 0x7777), &[]).await;
            assert!(
                nobody.status().is_success() && nobody.result.get() & 1 == 1,
                "aborted what is not there"
            );
        });
    });
}
