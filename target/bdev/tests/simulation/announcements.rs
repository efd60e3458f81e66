//! What hosts are told of a change is so on every reactor of the target, whichever their next command comes to.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sledge_nvme::command::BROADCAST_NSID;
use sledge_nvme::log_page::LogPage;
use sledge_nvme::property::{Configuration, Property};
use sledge_nvmf::host::Controller;
use sledge_reactor::sim::{LinkConfig, SimulationConfig, for_seeds};
use sledge_reactor::sleep;

use crate::definition_changes::{BLOCKS, edited};
use crate::support::queue::Queue;
use crate::support::raw::RawQueue;
use crate::support::{NQN, World, malloc, namespace, subsystem};

const REACTORS: usize = 3;

/// A world whose hosts are nearer to each reactor of the target than its reactors are to each other.
fn world(seed: u64) -> World {
    let link = LinkConfig {
        latency: Duration::from_nanos(500)..=Duration::from_nanos(1_500),
        ..LinkConfig::default()
    };
    let config = SimulationConfig {
        turn_cost: Duration::from_nanos(500)..=Duration::from_micros(60),
        short_io_per_million: 0,
        pool_bytes: 8 << 20,
        link,
        ..SimulationConfig::default()
    };
    World::new(seed, config, REACTORS, 1)
}

// Without this a host that looks at a new namespace as soon as it is told of it would find none, for good: Linux gives
// up on its partitions.
#[test]
fn a_namespace_that_is_announced_is_there() {
    for_seeds(60, |seed| {
        let mut world = world(seed);
        world.serve(vec![malloc("first", BLOCKS, 512)]);
        let device = malloc("second", BLOCKS, 512);
        let geometry = device.geometry();
        let (options, target) = (world.options(), world.target.clone());
        let done = Rc::new(Cell::new(false));
        let finished = done.clone();
        world.simulation.spawn(world.host_node, || async move {
            let controller = Controller::connect(options).await.unwrap();
            let mut queues = Vec::new();
            for _ in 0..REACTORS {
                queues.push(Queue::new(controller.connector().open(2, geometry).await.unwrap()));
            }
            for _ in 0..4 {
                // That it has come, and then that it has gone.
                for there in [true, false] {
                    controller.next_event().await;
                    for queue in queues.iter().filter(|_| there) {
                        queue.read(0, 1).await;
                    }
                    let page = LogPage::ChangedNamespaces.value();
                    controller.get_log_page(page, BROADCAST_NSID, 0, 4096).await.unwrap();
                }
            }
            drop(queues);
            controller.shutdown().await.unwrap();
            finished.set(true);
        });
        world.simulation.run_for(Duration::from_millis(20));
        let management = async move || {
            for _ in 0..4 {
                let another = namespace(&target, 2, device.clone());
                let with = edited(&target, |subsystem| drop(subsystem.namespaces.insert(2, another)));
                target.apply(with).await.unwrap();
                sleep(Duration::from_millis(20)).await;
                let without = edited(&target, |subsystem| drop(subsystem.namespaces.remove(&2)));
                target.apply(without).await.unwrap();
                sleep(Duration::from_millis(20)).await;
            }
        };
        world.simulation.block_on(world.target_node, management).unwrap();
        world.simulation.run_until(|| done.get()).unwrap();
        world.expect_target_is_empty(1);
    });
}

// Without this a host that connects to a subsystem in the moment of its making would be told for good, for one of its
// queues, that there is none.
#[test]
fn a_subsystem_that_takes_a_host_takes_all_of_its_queues() {
    for_seeds(60, |seed| {
        const OTHER: &str = "nqn.2026-01.io.sledge:other";
        let mut world = world(seed);
        let address = world.address();
        // They listen there already, for another one.
        let mut definition = world.definition(Vec::new());
        let wanted = definition.subsystems.remove(NQN).unwrap();
        let other = subsystem(OTHER, address, REACTORS, Vec::new());
        definition.subsystems.insert(OTHER.to_owned(), Arc::new(other));
        world.apply(definition.clone());
        let left = Rc::new(Cell::new(REACTORS as u128));
        for host in 0..left.get() {
            let left = left.clone();
            world.simulation.spawn(world.host_node, move || async move {
                let mut admin = RawQueue::initialize(address, false, false).await;
                // The target's reactors get them in turn.
                let mut others = Vec::new();
                for _ in 0..REACTORS {
                    others.push(RawQueue::initialize(address, false, false).await);
                }
                let cntlid = loop {
                    if let Ok(cntlid) = admin.connect(0, 0xffff, 70 + host, 0).await {
                        break cntlid;
                    }
                };
                admin.set(Property::Cc, Configuration::ENABLE_NVM).await;
                for (queue, qid) in others.iter_mut().zip(1..) {
                    let connected = queue.connect(qid, cntlid, 70 + host, 0).await;
                    assert!(connected.is_ok(), "queue {qid}: {connected:?}");
                }
                left.set(left.get() - 1);
            });
        }
        world.simulation.run_for(Duration::from_micros(2_000 + 50 * seed));
        definition.subsystems.insert(NQN.to_owned(), wanted);
        world.apply(definition);
        world.simulation.run_until(|| left.get() == 0).unwrap();
        world.expect_target_is_empty(1);
    });
}
