//! Everything at once: links that fail, controllers that are reset, commands that are aborted, namespaces that come, grow
//! and go.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sledge_nvme::{Command, Status};
use sledge_nvmf::host::{AdminData, Controller, QueuePair};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{JoinHandle, sleep, spawn_local};

use crate::definition_changes::{BLOCKS, edited, namespace_gone, slow};
use crate::losses::{eager, path_lost};
use crate::support::model::{Draw, Worker};
use crate::support::queue::Queue;
use crate::support::{World, malloc, namespace, options};

const HOSTS: u64 = 2;
const BLOCKS_EACH: u64 = BLOCKS / HOSTS;

fn interrupted(status: Status) -> bool {
    // The first half of a fused pair whose second was aborted says so.
    let aborted = [Status::ABORTED_BY_REQUEST, Status::ABORTED_FAILED_FUSED];
    path_lost(status) || aborted.iter().any(|aborted| status.is(*aborted))
}

fn interrupted_or_gone(status: Status) -> bool {
    interrupted(status) || namespace_gone(status)
}

/// What a host's tasks and the test tell each other.
#[derive(Clone, Default)]
struct Signs {
    connected: Rc<Cell<u64>>,
    stop: Rc<Cell<bool>>,
    done: Rc<Cell<u64>>,
}

/// Works on a range of a namespace until it is told to stop, and then checks everything.
fn work(mut worker: Worker, stop: Rc<Cell<bool>>) -> JoinHandle<()> {
    spawn_local(async move {
        while !stop.get() {
            worker.run(3, Duration::from_micros(200)).await;
        }
        worker.settle().await;
    })
}

/// One host: work on both namespaces, and aborts and resets at any moment.
async fn host(address: SocketAddr, number: u64, mut draw: Draw, signs: Signs) {
    let mut wanted = eager(options(address, 70 + u128::from(number)));
    (wanted.header_digest, wanted.data_digest) = (draw.one_in(2), draw.one_in(2));
    wanted.command_timeout = Duration::from_millis(300);
    wanted.connect_timeout = Duration::from_millis(500);
    let controller = Controller::connect(wanted).await.unwrap();
    let range = number * BLOCKS_EACH..(number + 1) * BLOCKS_EACH;
    let mut tasks = Vec::new();
    for (nsid, tolerates) in [(1, interrupted as fn(Status) -> bool), (2, interrupted_or_gone)] {
        let queue = Queue::new(QueuePair::open(&controller, nsid).await.unwrap());
        let worker = Worker::new(queue, range.clone(), Draw::new(draw.next(), 1), tolerates);
        tasks.push(work(worker, signs.stop.clone()));
    }
    signs.connected.set(signs.connected.get() + 1);
    while !signs.stop.get() {
        sleep(Duration::from_micros(draw.below(2_000))).await;
        if draw.one_in(100) {
            let _ = controller.reset().await;
        } else {
            // Slots are few, and generations sixteen: some of these are in flight.
            let cid = draw.below(4) as u16 | (draw.below(16) as u16) << 12;
            let abort = Command::abort(1 + draw.below(2) as u16, cid);
            let _ = controller.admin("Abort", abort, AdminData::None).await;
        }
    }
    for task in tasks {
        task.await;
    }
    let _ = controller.shutdown().await;
    signs.done.set(signs.done.get() + 1);
}

// Without this some meeting of a loss, a reset, an abort and a change of namespaces could lose what was acknowledged,
// answer a command twice, let a host hang, or leave something behind on the target.
#[test]
fn nothing_is_lost_whatever_happens_at_once() {
    for_seeds(15, |seed| {
        let mut draw = Draw::new(seed, 1);
        let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1 + draw.below(3) as usize, 1);
        let moving = slow("moving");
        world.serve(vec![malloc("fixed", BLOCKS, 512), moving.clone()]);
        let (address, target, signs) = (world.address(), world.target.clone(), Signs::default());
        for number in 0..HOSTS {
            let (draw, signs) = (Draw::new(seed, 10 + number), signs.clone());
            world.simulation.spawn(world.host_node, move || host(address, number, draw, signs));
        }
        world.simulation.run_until(|| signs.connected.get() == HOSTS).unwrap();
        let changing = Rc::new(Cell::new(true));
        let (stop, changed, mut changes) = (signs.stop.clone(), changing.clone(), Draw::new(seed, 2));
        world.simulation.spawn(world.target_node, move || async move {
            while !stop.get() {
                let without = edited(&target, |subsystem| drop(subsystem.namespaces.remove(&2)));
                target.apply(without).await.unwrap();
                sleep(Duration::from_micros(changes.below(5_000))).await;
                let again = namespace(&target, 2, moving.clone());
                let with = edited(&target, |subsystem| drop(subsystem.namespaces.insert(2, again)));
                target.apply(with).await.unwrap();
                for _ in 0..changes.below(4) {
                    sleep(Duration::from_micros(changes.below(20_000))).await;
                    let anew = edited(&target, |subsystem| {
                        subsystem.namespaces.values_mut().for_each(|namespace| namespace.opening += 1);
                    });
                    target.apply(anew).await.unwrap();
                }
            }
            changed.set(false);
        });
        for _ in 0..5 {
            world.simulation.run_for(Duration::from_micros(draw.below(50_000)));
            match draw.below(4) {
                0 | 1 => world.simulation.reset_connections(world.target_node, world.host_node),
                2 => world.simulation.partition_one_way(world.host_node, world.target_node),
                _ => world.simulation.partition_one_way(world.target_node, world.host_node),
            }
            world.simulation.run_for(Duration::from_millis(draw.below(500)));
            world.simulation.heal(world.target_node, world.host_node);
        }
        signs.stop.set(true);
        world.simulation.run_until(|| signs.done.get() == HOSTS && !changing.get()).unwrap();
        world.expect_target_is_empty(1);
    });
}
