//! Namespaces whose devices grow under load.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sledge_nvmf::host::{Controller, QueuePair};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{sleep, spawn_local};

use crate::definition_changes::{BLOCKS, edited, none, slow};
use crate::support::World;
use crate::support::model::{Draw, Worker};
use crate::support::queue::Queue;

// Without this writes that are on their way while a disk grows would fail for good, as if it were gone: a file system
// on it stops.
#[test]
fn no_command_fails_because_its_namespace_grows() {
    for_seeds(60, |seed| {
        let mut draw = Draw::new(seed, 1);
        let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1 + draw.below(2) as usize, 1);
        let device = slow("grows");
        let small = BLOCKS / 2;
        let mut definition = world.definition(vec![device]);
        edited_size(&mut definition, small);
        world.apply(definition);
        let options = world.options();
        let (stop, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (stopping, finished) = (stop.clone(), done.clone());
        world.simulation.spawn(world.host_node, || async move {
            let controller = Controller::connect(options).await.unwrap();
            let queue = Queue::new(QueuePair::open(&controller, 1).await.unwrap());
            let half = small / 2;
            let workers = [0..half, half..small].into_iter().zip(10..);
            let tasks: Vec<_> = workers
                .map(|(range, purpose)| {
                    let mut worker = Worker::new(queue.clone(), range, Draw::new(seed, purpose), none);
                    let stop = stopping.clone();
                    spawn_local(async move {
                        while !stop.get() {
                            worker.step().await;
                        }
                        worker.settle().await;
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            drop(queue);
            controller.shutdown().await.unwrap();
            finished.set(true);
        });
        world.simulation.run_for(Duration::from_millis(20));
        let target = world.target.clone();
        let management = async move || {
            for grown in 1..=6 {
                sleep(Duration::from_micros(draw.below(3_000))).await;
                let after = edited(&target, |subsystem| {
                    let namespace = subsystem.namespaces.get_mut(&1).unwrap();
                    namespace.opening += 1;
                    namespace.geometry.blocks = small + grown;
                });
                target.apply(after).await.unwrap();
            }
        };
        world.simulation.block_on(world.target_node, management).unwrap();
        stop.set(true);
        world.simulation.run_until(|| done.get()).unwrap();
        world.expect_target_is_empty(1);
    });
}

fn edited_size(definition: &mut sledge_nvmf::target::TargetDefinition, blocks: u64) {
    for subsystem in definition.subsystems.values_mut() {
        for namespace in std::sync::Arc::make_mut(subsystem).namespaces.values_mut() {
            namespace.geometry.blocks = blocks;
        }
    }
}
