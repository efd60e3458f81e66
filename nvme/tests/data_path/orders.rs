//! Whatever the order: each I/O is answered once, with the data that belongs to it.

use std::collections::BTreeMap;

use sledge_nvme::Status;
use sledge_nvme::driver::NamespaceChannel;
use sledge_nvme::driver::io_queue::{IoQueueOptions, Reclaim};
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvme::model::ModelOptions;
use sledge_reactor::memory;
use sledge_reactor::random_u64;
use sledge_reactor::sim::Simulation;
use sledge_reactor::yield_now;

use crate::rig::{Rig, bytes_of, data, pattern, read, write};

const REGION: u64 = 64;

fn below(bound: u64) -> u64 {
    random_u64() % bound
}

/// What a test knows of an I/O under way.
struct Known {
    region: u64,
    /// What a read has to find.
    seed: Option<u64>,
}

/// Random I/O on regions of which each has one I/O at a time.
struct World {
    rig: Rig,
    channels: Vec<NamespaceChannel>,
    under_way: BTreeMap<u64, Known>,
    /// What was written to each region last; `None` after a failure.
    content: Vec<Option<u64>>,
    answered: u64,
    next: u64,
}

impl World {
    fn start_one(&mut self) {
        let region = below(self.content.len() as u64);
        if self.under_way.values().any(|known| known.region == region) {
            return;
        }
        self.next += 1;
        let (token, slba, blocks) = (self.next, region * REGION, 1 + below(REGION) as u32);
        let bytes = pattern(token, REGION as usize * 512);
        let io = match below(4) {
            0 | 1 => write(token, slba, REGION as u32, data(&bytes, 8192 << below(3))),
            2 => read(token, slba, blocks),
            _ => IoCommand::new(token, Operation::Verify, slba, blocks),
        };
        let seed = if io.operation == Operation::Read { self.content[region as usize] } else { None };
        if io.operation == Operation::Write {
            self.content[region as usize] = Some(token);
        }
        let channel = below(self.channels.len() as u64) as usize;
        self.under_way.insert(token, Known { region, seed });
        if let Submitted::Done(done) = self.channels[channel].submit(io) {
            self.answer(done);
        }
    }

    fn answer(&mut self, done: IoCompletion) {
        let known = self.under_way.remove(&done.token).expect("an I/O is answered once");
        self.answered += 1;
        if !done.status.is_success() {
            assert!(
                done.status.is(Status::COMMAND_INTERRUPTED) || done.status.is(Status::ABORTED_SQ_DELETION)
            );
            self.content[known.region as usize] = None;
        } else if let Some(seed) = known.seed {
            let bytes = bytes_of(&done.data);
            assert!(bytes == pattern(seed, bytes.len()), "another region's data, or old data");
        }
    }

    fn poll(&mut self) {
        let mut done = Vec::new();
        for channel in &mut self.channels {
            channel.poll(&mut done);
        }
        for done in done {
            self.answer(done);
        }
    }

    fn meddle(&mut self) {
        let model = &self.rig.model;
        match below(40) {
            0 => model.fail_next(Status::COMMAND_INTERRUPTED),
            1 => model.duplicate(1),
            2 => {
                model.inject_completion(1, below(1 << 16) as u16 & 0x7ff8 | 7, Status::SUCCESS);
            }
            3 => model.hold(|queue, _| queue == 1),
            4 | 5 => {
                model.hold_none();
                while model.release(below(8) as usize) {}
                model.release_all();
            }
            6 if below(8) == 0 => {
                model.hold_none();
                self.rig.disable();
                self.rig.restart(Reclaim::Retry);
            }
            _ => {
                model.step();
            }
        }
    }
}

// Deleting this lets some order of submissions, completions, failures and resets lose an I/O, answer it twice or give
// it another's data.
#[test]
fn every_order_answers_each_io_once_with_its_data() {
    for seed in 0..12 {
        let mut simulation = Simulation::new(seed);
        let node = simulation.add_node("host", 1);
        simulation.block_on(node, || random_orders(seed)).unwrap();
    }
}

async fn random_orders(seed: u64) {
    let options = ModelOptions {
        mdts: 1 + (seed % 4) as u8,
        sgl: seed.is_multiple_of(2),
        scattered: seed.is_multiple_of(3),
        verify: !seed.is_multiple_of(5),
        ..ModelOptions::default()
    };
    let queue = IoQueueOptions { depth: 8, retry_count: 200, ..IoQueueOptions::default() };
    let rig = Rig::new(options, queue);
    rig.model.automatic(false);
    rig.model.reorder(Some(seed));
    let channels = vec![rig.channel(1), rig.channel(1)];
    let content = vec![None; 24];
    let mut world = World { rig, channels, under_way: BTreeMap::new(), content, answered: 0, next: 0 };
    for _ in 0..1500 {
        world.start_one();
        world.poll();
        world.meddle();
        yield_now().await;
    }
    world.rig.model.hold_none();
    while !world.under_way.is_empty() {
        world.rig.model.release_all();
        world.rig.model.step();
        world.poll();
        yield_now().await;
    }
    assert_eq!(world.answered, world.next);
    assert_eq!((world.rig.queue.outstanding(), memory::statistics().used_buffers), (0, 0));
    world.rig.assert_faultless();
}
