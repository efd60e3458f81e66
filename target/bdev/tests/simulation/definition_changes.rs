//! Namespaces, subsystems and hosts that come and go under load, and the end of a target.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies};
use sledge_bdev::error::{ErrorDevice, ErrorOptions, Injection, IoType};
use sledge_nvme::command::{DatasetRange, Fuse};
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Status};
use sledge_nvmf::host::{ConnectOptions, Controller, HostIdentity, QueuePair, discover};
use sledge_nvmf::pdu::{DataHeader, DataKind};
use sledge_nvmf::target::{ListenerDefinition, SubsystemDefinition, Target, TargetDefinition};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{TcpStream, sleep, spawn_local};
use uuid::Uuid;
use zerocopy::IntoBytes;

use crate::losses::{eager, path_lost};
use crate::support::model::{Draw, Tolerates, Worker};
use crate::support::queue::Queue;
use crate::support::raw::{Arrived, PLAIN, RawQueue, queues, write_all};
use crate::support::{NQN, World, malloc, namespace, start_target, subsystem};

pub const BLOCKS: u64 = 200;
/// Pauses of workers in tests of milliseconds and of seconds.
const SHORT: Duration = Duration::from_micros(50);
const LONG: Duration = Duration::from_millis(3);

/// A device on which commands stay long enough to be caught there.
pub fn slow(name: &str) -> Arc<dyn BlockDevice> {
    let latencies = Latencies {
        avg_read_latency: 150,
        p99_read_latency: 2_000,
        avg_write_latency: 150,
        p99_write_latency: 2_000,
    };
    let options = DelayOptions { name: name.to_owned(), uuid: Some(Uuid::from_u128(8)), latencies };
    Arc::new(DelayDevice::new(malloc("below", BLOCKS, 512), options).unwrap())
}

pub fn namespace_gone(status: Status) -> bool {
    status.is(Status::INVALID_NAMESPACE_OR_FORMAT)
}

pub fn none(_: Status) -> bool {
    false
}

/// The definition in force with its subsystem edited.
pub fn edited(target: &Target, edit: impl FnOnce(&mut SubsystemDefinition)) -> TargetDefinition {
    let mut definition = (*target.definition()).clone();
    let subsystem = definition.subsystems.get_mut(NQN).unwrap();
    edit(Arc::make_mut(subsystem));
    definition
}

/// Starts a worker on a namespace; it works until `stop` is set and then checks everything.
async fn worker(
    controller: &Controller,
    nsid: u32,
    draw: Draw,
    tolerates: Tolerates,
    pause: Duration,
    stop: Rc<Cell<bool>>,
) -> sledge_reactor::JoinHandle<()> {
    let queue = Queue::new(QueuePair::open(controller, nsid).await.unwrap());
    let mut worker = Worker::new(queue, 0..BLOCKS, draw, tolerates);
    spawn_local(async move {
        while !stop.get() {
            worker.run(3, Duration::ZERO).await;
            sleep(pause).await;
        }
        worker.settle().await;
        assert!(worker.successes > 0, "no command succeeded");
    })
}

// Without this a namespace could be taken away below its commands, come back as another one's, leave its device in
// use for ever, or disturb its neighbours.
#[test]
fn namespaces_come_and_go_under_load() {
    for_seeds(60, |seed| {
        let mut draw = Draw::new(seed, 1);
        let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1 + draw.below(2) as usize, 1);
        let (fixed, moving) = (malloc("fixed", BLOCKS, 512), slow("moving"));
        world.serve(vec![fixed, moving.clone()]);
        let options = world.options();
        let (stop, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (stopping, finished) = (stop.clone(), done.clone());
        world.simulation.spawn(world.host_node, || async move {
            let controller = Controller::connect(options).await.unwrap();
            let tasks = [
                worker(&controller, 1, Draw::new(seed, 10), none, SHORT, stopping.clone()).await,
                worker(&controller, 2, Draw::new(seed, 11), namespace_gone, SHORT, stopping.clone()).await,
            ];
            for task in tasks {
                task.await;
            }
            controller.shutdown().await.unwrap();
            finished.set(true);
        });
        world.simulation.run_for(Duration::from_millis(20));
        let target = world.target.clone();
        let management = async move || {
            for _ in 0..6 {
                sleep(Duration::from_micros(draw.below(3_000))).await;
                let without = edited(&target, |subsystem| drop(subsystem.namespaces.remove(&2)));
                target.apply(without).await.unwrap();
                let users = Arc::strong_count(&moving) - 1;
                assert_eq!(users, 0, "the device of a removed namespace is still in use");
                sleep(Duration::from_micros(draw.below(1_000))).await;
                let again = namespace(&target, 2, moving.clone());
                let with = edited(&target, |subsystem| drop(subsystem.namespaces.insert(2, again)));
                target.apply(with).await.unwrap();
            }
        };
        world.simulation.block_on(world.target_node, management).unwrap();
        stop.set(true);
        world.simulation.run_until(|| done.get()).unwrap();
        world.expect_target_is_empty(1);
    });
}

/// Runs a host made by hand until it has set the stage to 1, gives the target another definition, sets it to 2, and
/// waits for 3.
fn around_a_change<F: Future<Output = ()> + 'static>(
    devices: Vec<Arc<dyn BlockDevice>>,
    host: impl FnOnce(SocketAddr, Rc<Cell<u32>>) -> F,
    change: impl FnOnce(&Target, &mut SubsystemDefinition),
) {
    let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
    let mut world = World::new(1, config, 2, 1);
    world.serve(devices);
    let (address, stage) = (world.address(), Rc::new(Cell::new(0)));
    let shared = stage.clone();
    world.simulation.spawn(world.host_node, || host(address, shared));
    world.simulation.run_until(|| stage.get() == 1).unwrap();
    let target = world.target.clone();
    let definition = edited(&target, |subsystem| change(&target, subsystem));
    world.apply(definition);
    stage.set(2);
    world.simulation.run_until(|| stage.get() == 3).unwrap();
    world.expect_target_is_empty(1);
}

/// Sets the stage to 1 and waits for 2.
async fn change_now(stage: &Cell<u32>) {
    stage.set(1);
    while stage.get() != 2 {
        sleep(Duration::from_millis(1)).await;
    }
}

// Without this data that was on its way to a namespace would be written to another one that has taken its place.
#[test]
fn a_command_reaches_the_namespace_that_it_was_sent_to_or_none() {
    let (old, new) = (malloc("old", BLOCKS, 512), malloc("new", BLOCKS, 512));
    let replacement = new.clone();
    let host = |address, stage: Rc<Cell<u32>>| async move {
        let (_admin, mut io) = queues(address).await;
        let mut large = Command::write(1, 0, 64);
        large.dptr = Descriptor::transport(32_768);
        let large = io.send(large, &[]).await;
        let Ok(Arrived::ReadyToTransfer { tag, .. }) = io.next().await else { panic!("no R2T") };
        let small = Descriptor::in_capsule(0, 512);
        let mut compare = Command::compare(1, 100, 1).with_fuse(Fuse::First);
        compare.dptr = small;
        let compare = io.send(compare, &[0; 512]).await;
        // Alone it is not answered, so that nothing tells when it has arrived but the clock of the simulation.
        sleep(Duration::from_millis(10)).await;
        change_now(&stage).await;
        let mut write = Command::write(1, 100, 1).with_fuse(Fuse::Second);
        write.dptr = small;
        let write = io.send(write, &[5; 512]).await;
        let status = io.completion(write).await.status();
        assert!(status.is(Status::ABORTED_FAILED_FUSED), "write: {status}");
        let status = io.completion(compare).await.status();
        assert!(namespace_gone(status) && status.is_do_not_retry(), "compare: {status}");
        let header = DataHeader {
            kind: DataKind::HostToController,
            command_id: large,
            transfer_tag: tag,
            offset: 0,
            length: 32_768,
            last: true,
            success: false,
        };
        write_all(&io.stream, &io.host_data(header, &[5; 32_768])).await.unwrap();
        let status = io.completion(large).await.status();
        assert!(namespace_gone(status) && status.is_do_not_retry(), "large write: {status}");
        // What is sent to it now reaches the new one, in which nothing has been written.
        let mut read = Command::read(1, 0, 128);
        read.dptr = Descriptor::transport(65_536);
        assert!(io.read(read).await.iter().all(|byte| *byte == 0), "written to the wrong namespace");
        stage.set(3);
    };
    around_a_change(vec![old], host, move |target, subsystem| {
        subsystem.namespaces.insert(1, namespace(target, 1, replacement));
    });
    drop(new);
}

// Without this the rest of a command's ranges would be deallocated in a namespace that it was never meant for.
#[test]
fn no_range_is_deallocated_in_another_namespace() {
    let other = malloc("other", BLOCKS, 512);
    let replacement = other.clone();
    let host = |address, stage: Rc<Cell<u32>>| async move {
        let (_admin, mut io) = queues(address).await;
        let mut write = Command::write(2, 0, 16);
        write.dptr = Descriptor::in_capsule(0, 8192);
        assert!(io.execute(write, &[7; 8192]).await.status().is_success());
        let mut free = Command::deallocate_ranges(1, 16);
        free.dptr = Descriptor::in_capsule(0, 256);
        let ranges: Vec<u8> =
            (0..16).flat_map(|slba| DatasetRange::new(slba, 1).as_bytes().to_vec()).collect();
        let free = io.send(free, &ranges).await;
        // Each range takes its time.
        sleep(Duration::from_micros(300)).await;
        change_now(&stage).await;
        let status = io.completion(free).await.status();
        assert!(namespace_gone(status), "{status}");
        let mut read = Command::read(2, 0, 16);
        read.dptr = Descriptor::transport(8192);
        assert!(io.read(read).await == [7; 8192], "deallocated in the wrong namespace");
        stage.set(3);
    };
    around_a_change(vec![slow("slow"), other], host, move |target, subsystem| {
        subsystem.namespaces.insert(1, namespace(target, 1, replacement));
    });
}

// Without this a log that becomes shorter while it is read would be an error, not read again.
#[test]
fn discovery_succeeds_while_subsystems_come_and_go() {
    for_seeds(30, |seed| {
        let mut draw = Draw::new(seed, 1);
        let mut world = World::new(seed, SimulationConfig::default(), 1, 1);
        world.serve(vec![malloc("disk", BLOCKS, 512)]);
        let (address, target) = (world.address(), world.target.clone());
        let stop = Rc::new(Cell::new(false));
        let stopped = stop.clone();
        world.simulation.spawn(world.target_node, move || async move {
            while !stopped.get() {
                let mut definition = (*target.definition()).clone();
                let more = if draw.one_in(2) { 0 } else { 5 + draw.below(10) };
                definition.subsystems.retain(|nqn, _| nqn == NQN);
                for number in 0..more {
                    let nqn = format!("{NQN}:{number}");
                    let another = subsystem(&nqn, address, 1, Vec::new());
                    definition.subsystems.insert(nqn, Arc::new(another));
                }
                target.apply(definition).await.unwrap();
                sleep(Duration::from_micros(draw.below(3_000))).await;
            }
        });
        let host = HostIdentity::from_uuid(Uuid::from_u128(2)).unwrap();
        let read = || async move {
            for _ in 0..20 {
                let entries = discover(address, host.clone()).await;
                assert!(entries.is_ok_and(|entries| entries.len() >= 2));
            }
        };
        world.simulation.block_on(world.host_node, read).unwrap();
        stop.set(true);
        world.simulation.run_for(Duration::from_secs(1));
        world.expect_target_is_empty(1);
    });
}

// Without this a flush of all namespaces could leave one out because another was removed meanwhile.
#[test]
fn a_flush_of_all_leaves_none_out_when_another_goes() {
    let failing = ErrorDevice::new(malloc("below", BLOCKS, 512), ErrorOptions::default()).unwrap();
    let flush = IoType::from_name("flush").unwrap();
    failing.inject(flush, Injection::NvmeFailure(Status::WRITE_FAULT), u64::MAX, 0).unwrap();
    let host = |address, stage: Rc<Cell<u32>>| async move {
        let (_admin, mut io) = queues(address).await;
        let all = io.send(Command::flush(u32::MAX), &[]).await;
        // It has arrived, and the first namespace is being flushed.
        sleep(Duration::from_millis(10)).await;
        change_now(&stage).await;
        let status = io.completion(all).await.status();
        assert!(status.is(Status::WRITE_FAULT), "{status}");
        stage.set(3);
    };
    let latencies =
        Latencies { avg_write_latency: 50_000, p99_write_latency: 50_000, ..Latencies::default() };
    let slow = DelayOptions { name: "slow".to_owned(), uuid: Some(Uuid::from_u128(8)), latencies };
    let slow = DelayDevice::new(malloc("below", BLOCKS, 512), slow).unwrap();
    let devices: Vec<Arc<dyn BlockDevice>> =
        vec![Arc::new(slow), Arc::new(failing), malloc("last", BLOCKS, 512)];
    around_a_change(devices, host, |_, subsystem| drop(subsystem.namespaces.remove(&1)));
}

// Without this a subsystem that is deleted, or a host that is taken off its list, could go on with its I/O, take
// others along, or lose what was acknowledged before.
#[test]
fn subsystems_and_hosts_come_and_go_under_load() {
    for_seeds(60, |seed| {
        let mut draw = Draw::new(seed, 1);
        let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1 + draw.below(2) as usize, 1);
        let (kept, shunned) = (malloc("kept", BLOCKS, 512), slow("shunned"));
        world.serve(vec![kept, shunned]);
        let deletes = draw.one_in(2);
        let first = eager(world.options());
        let host = HostIdentity::from_uuid(Uuid::from_u128(2)).unwrap();
        let names = [first.host.nqn.as_str().to_owned(), host.nqn.as_str().to_owned()];
        let second = ConnectOptions { host, ..eager(world.options()) };
        let (stop, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (stopping, finished) = (stop.clone(), done.clone());
        world.simulation.spawn(world.host_node, || async move {
            let controllers =
                [Controller::connect(first).await.unwrap(), Controller::connect(second).await.unwrap()];
            let tolerates: Tolerates = if deletes { path_lost } else { none };
            let tasks = [
                worker(&controllers[0], 1, Draw::new(seed, 10), tolerates, LONG, stopping.clone()).await,
                worker(&controllers[1], 2, Draw::new(seed, 11), path_lost, LONG, stopping.clone()).await,
            ];
            for task in tasks {
                task.await;
            }
            for controller in controllers {
                controller.shutdown().await.unwrap();
            }
            finished.set(true);
        });
        world.simulation.run_for(Duration::from_millis(20));
        let target = world.target.clone();
        let management = async move || {
            for _ in 0..3 {
                sleep(Duration::from_micros(draw.below(3_000))).await;
                let before = (*target.definition()).clone();
                let after = match deletes {
                    true => TargetDefinition { subsystems: Default::default(), ..before.clone() },
                    false => edited(&target, |subsystem| {
                        subsystem.allow_any_host = false;
                        subsystem.hosts.insert(names[0].clone());
                    }),
                };
                target.apply(after).await.unwrap();
                sleep(Duration::from_millis(20)).await;
                let unwanted = |host: &str| deletes || host == names[1];
                for left in target.connections().await {
                    assert!(!unwanted(&left.host_nqn), "still connected: {left:?}");
                }
                sleep(Duration::from_millis(draw.below(100))).await;
                target.apply(before).await.unwrap();
                sleep(Duration::from_millis(300)).await;
            }
        };
        world.simulation.block_on(world.target_node, management).unwrap();
        stop.set(true);
        world.simulation.run_until(|| done.get()).unwrap();
        world.expect_target_is_empty(1);
    });
}

// Without this a target that is told to end could drop commands at their devices, or keep connections.
#[test]
fn a_target_drains_under_load() {
    for_seeds(40, |seed| {
        let mut draw = Draw::new(seed, 1);
        let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1 + draw.below(2) as usize, 1);
        let device = slow("disk");
        world.serve(vec![device.clone()]);
        let options = eager(world.options());
        let (stop, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (stopping, finished) = (stop.clone(), done.clone());
        world.simulation.spawn(world.host_node, || async move {
            let controller = Controller::connect(options).await.unwrap();
            worker(&controller, 1, Draw::new(seed, 10), path_lost, LONG, stopping).await.await;
            controller.shutdown().await.unwrap();
            finished.set(true);
        });
        world.simulation.run_for(Duration::from_micros(20_000 + draw.below(2_000)));
        let old = world.target.clone();
        let drain = async move || {
            old.drain(Duration::from_secs(5)).await;
            sleep(Duration::from_millis(1)).await;
            old.connections().await
        };
        let left = world.simulation.block_on(world.target_node, drain).unwrap();
        assert!(left.is_empty(), "connections outlive their target: {left:?}");
        // Another target on the same device finds what the host was promised.
        world.target = start_target(&mut world.simulation, world.target_node);
        world.serve(vec![device]);
        world.simulation.run_for(Duration::from_millis(300));
        stop.set(true);
        world.simulation.run_until(|| done.get()).unwrap();
        world.expect_target_is_empty(1);
    });
}

// Without this hosts could go on by a way that their subsystem has been taken off, as long as another is there.
#[test]
fn a_listener_that_others_keep_is_gone_for_its_subsystem() {
    for_seeds(20, |seed| {
        const OTHER: &str = "nqn.2026-01.io.sledge:other";
        let mut world = World::new(seed, SimulationConfig::default(), 2, 1);
        let address = world.address();
        let mut definition = world.definition(vec![malloc("disk", BLOCKS, 512)]);
        definition.subsystems.insert(OTHER.to_owned(), Arc::new(subsystem(OTHER, address, 2, Vec::new())));
        world.apply(definition);
        let (taken, kept) = (world.options(), world.options());
        let kept = ConnectOptions { subsystem: Nqn::new(OTHER).unwrap(), ..kept };
        let target = world.target.clone();
        let host = async move || {
            let first = Controller::connect(eager(taken.clone())).await.unwrap();
            let queue = QueuePair::open(&first, 1).await.unwrap();
            let second = Controller::connect(kept).await.unwrap();
            let node = target.clone();
            let after = edited(&target, |subsystem| subsystem.listeners.clear());
            node.apply(after).await.unwrap();
            sleep(Duration::from_millis(20)).await;
            let left: Vec<String> =
                target.connections().await.into_iter().map(|one| one.subsystem_nqn).collect();
            assert_eq!(left, [OTHER]);
            assert!(Controller::connect(taken).await.is_err(), "connected where nobody listens");
            drop(queue);
            drop(first);
            second.shutdown().await.unwrap();
        };
        world.simulation.block_on(world.host_node, host).unwrap();
        world.expect_target_is_empty(1);
    });
}

// Without this a queue could outlive the way that its controller came by, and see other ANA states than the controller
// reports.
#[test]
fn a_queue_comes_the_way_of_its_controller() {
    let mut world = World::new(1, SimulationConfig::default(), 2, 1);
    let address = world.address();
    let elsewhere = std::net::SocketAddr::new(address.ip(), address.port() + 1);
    let mut definition = world.definition(vec![malloc("disk", BLOCKS, 512)]);
    let one = Arc::make_mut(definition.subsystems.get_mut(NQN).unwrap());
    one.listeners.push(ListenerDefinition { address: elsewhere, ana_states: Default::default() });
    world.apply(definition);
    let host = async move || {
        let (_admin, cntlid) = RawQueue::admin(address, 77, 0).await;
        let mut other = RawQueue::initialize(elsewhere, false, false).await;
        let refused = other.connect(1, cntlid, 77, 0).await.unwrap_err();
        assert!(refused.is(Status::CONNECT_INVALID_PARAMETERS), "{refused}");
        let mut same = RawQueue::initialize(address, false, false).await;
        assert_eq!(same.connect(1, cntlid, 77, 0).await.unwrap(), cntlid);
    };
    world.simulation.block_on(world.host_node, host).unwrap();
    world.expect_target_is_empty(2);
}

// Without this a host that reconnects while a target starts could be told for good that there is no such subsystem.
#[test]
fn who_can_connect_finds_the_subsystem() {
    for_seeds(60, |seed| {
        let mut world = World::new(seed, SimulationConfig::default(), 1 + seed as usize % 3, 1);
        let address = world.address();
        let mut definition = world.definition(vec![malloc("disk", BLOCKS, 512)]);
        // Binding all of them takes a while.
        let addresses: Vec<_> =
            (0..100).map(|at| std::net::SocketAddr::new(address.ip(), address.port() + at)).collect();
        let one = Arc::make_mut(definition.subsystems.get_mut(NQN).unwrap());
        let listener = |address| ListenerDefinition { address, ana_states: Default::default() };
        one.listeners = addresses.iter().copied().map(listener).collect();
        let connected = Rc::new(Cell::new(0));
        for address in addresses.into_iter().take(8) {
            let connected = connected.clone();
            world.simulation.spawn(world.host_node, || async move {
                let mut draw = Draw::new(sledge_reactor::random_u64(), 1);
                let stream = loop {
                    match TcpStream::connect(address).await {
                        Ok(stream) => break stream,
                        Err(_) => sleep(Duration::from_micros(draw.below(20))).await,
                    }
                };
                let mut admin = RawQueue::over(stream, PLAIN).await;
                if let Err(status) = admin.connect(0, 0xffff, 77, 0).await {
                    panic!("the first Connect is refused: {status}");
                }
                connected.set(connected.get() + 1);
            });
        }
        world.simulation.run_for(Duration::from_millis(1));
        world.apply(definition);
        world.simulation.run_until(|| connected.get() == 8).unwrap();
        world.expect_target_is_empty(100);
    });
}
