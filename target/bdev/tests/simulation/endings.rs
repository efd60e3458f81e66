//! The end of a target whose hosts don't pause.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::uring::{UringDevice, UringOptions};
use sledge_nvme::io::Operation;
use sledge_nvmf::host::{Controller, QueuePair};
use sledge_reactor::now;
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{sleep, spawn_local};
use uuid::Uuid;

use crate::losses::path_lost;
use crate::support::World;
use crate::support::queue::Queue;

const DISK: &str = "disk.img";
const TASKS: u64 = 16;

// Without this a target under load would take all the time it is given to end, and then leave acknowledged writes in
// the disk's cache.
#[test]
fn a_busy_target_ends_soon_and_leaves_nothing_in_the_cache() {
    for_seeds(30, |seed| {
        let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1 + seed as usize % 2, 1);
        let disk = world.simulation.disk(world.target_node, DISK).create(1 << 20, 512);
        let open = async move || {
            UringDevice::open(UringOptions {
                name: "disk".to_owned(),
                filename: DISK.into(),
                block_size: Some(512),
                uuid: Some(Uuid::from_u128(9)),
                create_bytes: None,
            })
        };
        let device = world.simulation.block_on(world.target_node, open).unwrap().unwrap();
        world.serve(vec![Arc::new(device) as Arc<dyn BlockDevice>]);
        let options = world.options();
        world.simulation.spawn(world.host_node, || async move {
            let controller = Controller::connect(options).await.unwrap();
            let mut queues = Vec::new();
            for _ in 0..2 {
                queues.push(Queue::new(QueuePair::open(&controller, 1).await.unwrap()));
            }
            let write = async |queue: Rc<Queue>, at: u64| {
                loop {
                    let (status, _) = queue.io(Operation::Write, at * 8, 8, false, &[7; 4096]).await;
                    if !status.is_success() {
                        assert!(path_lost(status), "{status}");
                        return;
                    }
                }
            };
            let tasks: Vec<_> = (0..TASKS)
                .map(|at| {
                    let queue = queues[at as usize % 2].clone();
                    spawn_local(async move { write(queue, at).await })
                })
                .collect();
            for task in tasks {
                task.await;
            }
        });
        world.simulation.run_for(Duration::from_millis(30));
        assert!(disk.unsynced_blocks() > 0, "the test has nothing to lose");
        let target = world.target.clone();
        let drain = async move || {
            let began = now();
            target.drain(Duration::from_secs(5)).await;
            let took = now() - began;
            sleep(Duration::from_millis(1)).await;
            (took, target.connections().await.len())
        };
        let (took, left) = world.simulation.block_on(world.target_node, drain).unwrap();
        assert_eq!(disk.unsynced_blocks(), 0, "acknowledged writes are left in the disk's cache");
        assert!(took < Duration::from_secs(1), "it took {took:?} to end");
        assert_eq!(left, 0, "connections outlive their target");
    });
}
