//! A target that loses power, on a disk with a volatile cache: what was flushed is there afterwards.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::uring::{UringDevice, UringOptions};
use sledge_nvme::io::Operation;
use sledge_nvmf::host::{Controller, QueuePair};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{sleep, spawn_local};
use uuid::Uuid;

use crate::losses::{eager, path_lost};
use crate::support::model::{Draw, Stamps, fill, stamp_of};
use crate::support::queue::Queue;
use crate::support::{World, start_target};

const BLOCKS_EACH: u64 = 60;
const WORKERS: u64 = 4;
const DISK: &str = "disk.img";

/// What a block may hold after a crash.
#[derive(Clone, Debug)]
struct History {
    durable: u64,
    /// Written later, the newest last.
    since: Vec<u64>,
}

impl History {
    fn newest(&self) -> u64 {
        self.since.last().copied().unwrap_or(self.durable)
    }

    fn settle(&mut self, stamp: u64) {
        *self = History { durable: stamp, since: Vec::new() };
    }
}

/// One sequence of commands on blocks that nobody else touches; ends when the target does.
struct Writer {
    first: u64,
    block_bytes: usize,
    blocks: Vec<History>,
    stamps: Stamps,
    draw: Draw,
}

impl Writer {
    fn range(&self) -> Range<u64> {
        self.first..self.first + BLOCKS_EACH
    }

    async fn run(&mut self, queue: &Queue) {
        while self.step(queue).await {}
    }

    /// One command; false when the target is gone.
    async fn step(&mut self, queue: &Queue) -> bool {
        let count = 1 + self.draw.below(12) as usize;
        let at = self.draw.below(BLOCKS_EACH - count as u64 + 1) as usize;
        let slba = self.first + at as u64;
        match self.draw.below(12) {
            0..=5 => {
                let (stamp, fua) = (self.stamps.next(), self.draw.one_in(4));
                let mut data = vec![0; count * self.block_bytes];
                fill(&mut data, slba, self.block_bytes, stamp);
                let (status, _) = queue.io(Operation::Write, slba, count as u32, fua, &data).await;
                assert!(status.is_success() || path_lost(status), "write: {status}");
                for block in &mut self.blocks[at..at + count] {
                    match fua && status.is_success() {
                        true => block.settle(stamp),
                        false => block.since.push(stamp),
                    }
                }
                status.is_success()
            }
            6 => {
                let operation = Operation::WriteZeroes { deallocate: self.draw.one_in(2) };
                let (status, _) = queue.io(operation, slba, count as u32, false, &[]).await;
                assert!(status.is_success() || path_lost(status), "write zeroes: {status}");
                self.blocks[at..at + count].iter_mut().for_each(|block| block.since.push(0));
                status.is_success()
            }
            7..=8 => {
                let (status, _) = queue.io(Operation::Flush, 0, 0, false, &[]).await;
                assert!(status.is_success() || path_lost(status), "flush: {status}");
                if status.is_success() {
                    self.blocks.iter_mut().for_each(|block| block.settle(block.newest()));
                }
                status.is_success()
            }
            _ => {
                let (status, data) = queue.io(Operation::Read, slba, count as u32, false, &[]).await;
                if !status.is_success() {
                    assert!(path_lost(status), "read: {status}");
                    return false;
                }
                let blocks = data.chunks(self.block_bytes).zip(slba..).zip(&self.blocks[at..]);
                for ((block, lba), history) in blocks {
                    assert_eq!(stamp_of(block, lba), history.newest(), "block {lba}: {history:?}");
                }
                true
            }
        }
    }

    /// What is there after a crash must be something that may be there, and is durable.
    async fn check(&mut self, queue: &Queue) {
        let data = queue.read(self.first, BLOCKS_EACH as u32).await;
        for ((block, lba), history) in data.chunks(self.block_bytes).zip(self.range()).zip(&mut self.blocks) {
            let stamp = stamp_of(block, lba);
            let allowed = stamp == history.durable || history.since.contains(&stamp);
            assert!(allowed, "block {lba} holds {stamp} after the crash: {history:?}");
            history.settle(stamp);
        }
    }
}

/// Opens the device on the target's node and serves it.
fn serve(world: &mut World, block_bytes: u32) {
    let open = async move || {
        UringDevice::open(UringOptions {
            name: "disk".to_owned(),
            filename: DISK.into(),
            block_size: Some(block_bytes),
            uuid: Some(Uuid::from_u128(9)),
            create_bytes: None,
        })
    };
    let device = world.simulation.block_on(world.target_node, open).unwrap().unwrap();
    world.serve(vec![Arc::new(device) as Arc<dyn BlockDevice>]);
}

// Without this a write that was flushed, or had FUA set, could be lost in a power cut, anywhere between capsule and
// disk.
#[test]
fn what_was_flushed_survives_a_crash() {
    for_seeds(60, |seed| {
        let mut draw = Draw::new(seed, 1);
        let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
        // Larger blocks may be torn between sectors.
        let block_bytes = 512;
        let mut world = World::new(seed, config, 1 + draw.below(2) as usize, 1);
        let disk = world.simulation.disk(world.target_node, DISK);
        let disk = disk.create(BLOCKS_EACH * WORKERS * u64::from(block_bytes), block_bytes);
        disk.set_sector_tearing(false);
        serve(&mut world, block_bytes);
        let stamps = Stamps::new();
        let writers = (0..WORKERS).map(|number| Writer {
            first: number * BLOCKS_EACH,
            block_bytes: block_bytes as usize,
            blocks: vec![History { durable: 0, since: Vec::new() }; BLOCKS_EACH as usize],
            stamps: stamps.clone(),
            draw: Draw::new(seed, 100 + number),
        });
        let mut writers: Vec<Writer> = writers.collect();
        for _ in 0..3 {
            let options = eager(world.options());
            let (parked, ended) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
            let (park, end) = (parked.clone(), ended.clone());
            world.simulation.spawn(world.host_node, || async move {
                let controller = Controller::connect(options).await.unwrap();
                let mut tasks = Vec::new();
                let mut queues = Vec::new();
                for _ in 0..2 {
                    queues.push(Queue::new(QueuePair::open(&controller, 1).await.unwrap()));
                }
                for (mut writer, queue) in writers.into_iter().zip(queues.iter().cycle()) {
                    let queue = queue.clone();
                    tasks.push(spawn_local(async move {
                        writer.check(&queue).await;
                        writer.run(&queue).await;
                        writer
                    }));
                }
                for task in tasks {
                    let writer = task.await;
                    park.borrow_mut().push(writer);
                }
                end.set(true);
            });
            world.simulation.run_for(Duration::from_micros(5_000 + draw.below(20_000)));
            world.simulation.crash(world.target_node);
            world.simulation.run_until(|| ended.get()).unwrap();
            writers = parked.take();
            world.simulation.restart(world.target_node);
            world.target = start_target(&mut world.simulation, world.target_node);
            serve(&mut world, block_bytes);
        }
        let options = world.options();
        let check = async move || {
            let controller = Controller::connect(options).await.unwrap();
            let queue = Queue::new(QueuePair::open(&controller, 1).await.unwrap());
            for mut writer in writers {
                writer.check(&queue).await;
            }
            sleep(Duration::from_millis(1)).await;
        };
        world.simulation.block_on(world.host_node, check).unwrap();
    });
}

// Without this a target that is told to end leaves acknowledged writes in a volatile cache.
#[test]
fn a_drained_target_leaves_nothing_in_the_cache() {
    for_seeds(20, |seed| {
        let mut world = World::new(seed, SimulationConfig::default(), 2, 1);
        let disk = world.simulation.disk(world.target_node, DISK).create(1 << 20, 512);
        serve(&mut world, 512);
        let options = world.options();
        let write = async move || {
            let controller = Controller::connect(options).await.unwrap();
            let queue = Queue::new(QueuePair::open(&controller, 1).await.unwrap());
            queue.write(5, &[7; 4096]).await;
        };
        world.simulation.block_on(world.host_node, write).unwrap();
        assert!(disk.unsynced_blocks() > 0, "the test has nothing to lose");
        let target = world.target.clone();
        let drain = async move || target.drain(Duration::from_secs(5)).await;
        world.simulation.block_on(world.target_node, drain).unwrap();
        assert_eq!(disk.unsynced_blocks(), 0, "acknowledged writes are left in the disk's cache");
    });
}

// Without this a host that waits for CSTS.SHST before it lets the power go loses what it has written.
#[test]
fn a_shutdown_leaves_nothing_in_the_cache() {
    for_seeds(20, |seed| {
        let mut world = World::new(seed, SimulationConfig::default(), 2, 1);
        let disk = world.simulation.disk(world.target_node, DISK).create(1 << 20, 512);
        serve(&mut world, 512);
        for queues in [1, 0] {
            let options = world.options();
            let write = async move || {
                let controller = Controller::connect(options).await.unwrap();
                let queue = Queue::new(QueuePair::open(&controller, 1).await.unwrap());
                queue.write(5, &[7; 4096]).await;
                if queues == 0 {
                    drop(queue);
                    sleep(Duration::from_millis(50)).await;
                    controller.shutdown().await.unwrap();
                } else {
                    controller.shutdown().await.unwrap();
                    drop(queue);
                }
            };
            world.simulation.block_on(world.host_node, write).unwrap();
            assert_eq!(disk.unsynced_blocks(), 0, "acknowledged writes are left in the disk's cache");
        }
        world.expect_target_is_empty(1);
    });
}
