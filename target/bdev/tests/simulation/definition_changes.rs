//! Namespaces, subsystems and hosts that come and go under load, and the end of a target.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies};
use sledge_nvme::Status;
use sledge_nvme::fabrics::Nqn;
use sledge_nvmf::host::{ConnectOptions, Controller, HostIdentity, QueuePair};
use sledge_nvmf::target::{ListenerDefinition, SubsystemDefinition, Target, TargetDefinition};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{TcpStream, sleep, spawn_local};
use uuid::Uuid;

use crate::losses::{eager, path_lost};
use crate::support::model::{Draw, Tolerates, Worker};
use crate::support::queue::Queue;
use crate::support::raw::{PLAIN, RawQueue};
use crate::support::{NQN, World, malloc, namespace, start_target, subsystem};

const BLOCKS: u64 = 200;
/// Pauses of workers in tests of milliseconds and of seconds.
const SHORT: Duration = Duration::from_micros(50);
const LONG: Duration = Duration::from_millis(3);

/// A device on which commands stay long enough to be caught there.
fn slow(name: &str) -> Arc<dyn BlockDevice> {
    let latencies = Latencies {
        avg_read_latency: 150,
        p99_read_latency: 2_000,
        avg_write_latency: 150,
        p99_write_latency: 2_000,
    };
    let options = DelayOptions { name: name.to_owned(), uuid: Some(Uuid::from_u128(8)), latencies };
    Arc::new(DelayDevice::new(malloc("below", BLOCKS, 512), options).unwrap())
}

fn namespace_gone(status: Status) -> bool {
    status.is(Status::INVALID_NAMESPACE_OR_FORMAT)
}

fn none(_: Status) -> bool {
    false
}

/// The definition in force with its subsystem edited.
fn edited(target: &Target, edit: impl FnOnce(&mut SubsystemDefinition)) -> TargetDefinition {
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
