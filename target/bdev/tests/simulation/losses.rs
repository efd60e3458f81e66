//! Connections that are reset, cut and forgotten under load: what was acknowledged stays, and nothing is left over.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvmf::host::{ConnectOptions, Controller, QueuePair};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{sleep, spawn_local};

use crate::support::model::{Draw, Worker};
use crate::support::queue::Queue;
use crate::support::{World, malloc};

/// What a host gets whose connection is gone.
pub fn path_lost(status: Status) -> bool {
    status.is_path_related()
}

/// How a host comes back soon enough for tests.
pub fn eager(mut options: ConnectOptions) -> ConnectOptions {
    options.keep_alive = Duration::from_secs(5);
    options.reconnect_delay = Duration::from_millis(10);
    options.reconnect_delay_max = Duration::from_millis(50);
    options
}

const BLOCKS_EACH: u64 = 200;
const QUEUES: u64 = 2;
const WORKERS: u64 = 2;

/// A world whose host does random I/O until its workers are through; the cell says whether they are.
fn loaded_world(seed: u64, steps: u64) -> (World, Rc<Cell<bool>>) {
    let mut draw = Draw::new(seed, 1);
    let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
    let mut world = World::new(seed, config, 1 + draw.below(2) as usize, 1);
    world.serve(vec![malloc("disk", BLOCKS_EACH * QUEUES * WORKERS, 512)]);
    let mut options = eager(world.options());
    options.header_digest = draw.one_in(2);
    options.data_digest = draw.one_in(2);
    let done = Rc::new(Cell::new(false));
    let finished = done.clone();
    world.simulation.spawn(world.host_node, || async move {
        let controller = loop {
            // Only a connection that was there is brought back by itself.
            match Controller::connect(options.clone()).await {
                Ok(controller) => break controller,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        let mut tasks = Vec::new();
        let mut number = 0;
        for _ in 0..QUEUES {
            let queue = loop {
                match QueuePair::open(&controller, 1).await {
                    Ok(pair) => break Queue::new(pair),
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            };
            for _ in 0..WORKERS {
                let range = number * BLOCKS_EACH..(number + 1) * BLOCKS_EACH;
                let mut worker = Worker::new(queue.clone(), range, Draw::new(seed, 100 + number), path_lost);
                number += 1;
                tasks.push(spawn_local(async move {
                    worker.run(steps, Duration::from_micros(300)).await;
                    worker.settle().await;
                    worker.successes
                }));
            }
        }
        let mut successes = 0;
        for task in tasks {
            successes += task.await;
        }
        assert!(successes > steps, "hardly any command succeeded: {successes}");
        // Lost or not at this moment, it is gone afterwards.
        let _ = controller.shutdown().await;
        finished.set(true);
    });
    (world, done)
}

// Without this an acknowledged write could be lost with its connection, a command answered twice, and sockets,
// controllers or buffers stay behind on the target.
#[test]
fn connections_are_reset_under_load() {
    for_seeds(80, |seed| {
        let (mut world, done) = loaded_world(seed, 40);
        let mut draw = Draw::new(seed, 2);
        for _ in 0..6 {
            world.simulation.run_for(Duration::from_micros(50 + draw.below(20_000)));
            world.simulation.reset_connections(world.target_node, world.host_node);
        }
        world.simulation.run_until(|| done.get()).unwrap();
        world.expect_target_is_empty(1);
    });
}

// Without this a link that comes and goes could lose acknowledged writes, or leave half-dead connections.
#[test]
fn links_are_cut_under_load() {
    for_seeds(40, |seed| {
        let (mut world, done) = loaded_world(seed, 40);
        let mut draw = Draw::new(seed, 2);
        for _ in 0..4 {
            world.simulation.run_for(Duration::from_micros(50 + draw.below(20_000)));
            match draw.below(3) {
                0 => world.simulation.partition(world.target_node, world.host_node),
                1 => world.simulation.partition_one_way(world.target_node, world.host_node),
                _ => world.simulation.partition_one_way(world.host_node, world.target_node),
            }
            let cut = if draw.one_in(2) { 1_000 } else { 40_000 };
            world.simulation.run_for(Duration::from_millis(draw.below(cut)));
            world.simulation.heal(world.target_node, world.host_node);
        }
        world.simulation.run_until(|| done.get()).unwrap();
        world.expect_target_is_empty(1);
    });
}

// Without this a write that a host has given up could leave its socket once the link is back, after newer ones: the old
// data is there again.
#[test]
fn what_was_given_up_does_not_come_after_newer_writes() {
    for_seeds(40, |seed| {
        let mut world = World::new(seed, SimulationConfig::default(), 1 + seed as usize % 2, 1);
        world.serve(vec![malloc("disk", 64, 512)]);
        let mut options = eager(world.options());
        // The host is back before the target has given its old connections up.
        (options.command_timeout, options.keep_alive) = (Duration::from_millis(300), Duration::from_secs(60));
        options.connect_timeout = Duration::from_millis(100);
        let done = Rc::new(Cell::new(false));
        let finished = done.clone();
        world.simulation.spawn(world.host_node, || async move {
            let controller = Controller::connect(options).await.unwrap();
            let queue = Queue::new(QueuePair::open(&controller, 1).await.unwrap());
            let mut tasks = Vec::new();
            for number in 0..8 {
                let range = number * 8..(number + 1) * 8;
                let mut worker = Worker::new(queue.clone(), range, Draw::new(seed, 100 + number), path_lost);
                tasks.push(spawn_local(async move {
                    worker.run(300, Duration::from_millis(10)).await;
                    worker.settle().await;
                }));
            }
            for task in tasks {
                task.await;
            }
            finished.set(true);
        });
        let mut draw = Draw::new(seed, 2);
        while !done.get() {
            world.simulation.run_for(Duration::from_micros(10_000 + draw.below(1_000_000)));
            world.simulation.partition_one_way(world.host_node, world.target_node);
            world.simulation.run_for(Duration::from_millis(draw.below(3_000)));
            world.simulation.heal(world.target_node, world.host_node);
        }
    });
}

// Without this a host that loses power keeps its controllers, sockets and buffers on the target for ever.
#[test]
fn a_host_that_vanishes_is_forgotten() {
    for_seeds(40, |seed| {
        let (mut world, done) = loaded_world(seed, 1000);
        let mut draw = Draw::new(seed, 2);
        // From before the connections are made to under load.
        world.simulation.run_for(Duration::from_micros(draw.below(10_000)));
        world.simulation.crash(world.host_node);
        assert!(!done.get());
        world.expect_target_is_empty(1);
    });
}
