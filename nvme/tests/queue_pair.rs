//! The queue pair against the model controller: wrap, full queues, completions that come late, twice, unasked or in
//! any order.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{Bench, moment, prp};
use proptest::prelude::*;
use sledge_nvme::driver::queue_pair::QueuePair;
use sledge_nvme::model::ModelOptions;
use sledge_nvme::{Command, Status};

fn flush() -> Command {
    prp(Command::flush(1), 0, 0)
}

fn reap(queue: &mut QueuePair<u64>) -> Vec<(u64, Status)> {
    let mut found = Vec::new();
    queue.reap(usize::MAX, |token, completion| found.push((token, completion.status())));
    queue.ring();
    found
}

// Deleting this lets a queue stop, or answer twice, once it has come round to its first entry.
#[test]
fn every_depth_wraps() {
    for depth in 2..20 {
        let mut bench = Bench::new(ModelOptions::default());
        let mut queue: QueuePair<u64> = bench.queue(1, depth);
        let mut token = 0;
        for batch in 0..100 {
            let first = token;
            for _ in 0..batch % u64::from(depth) {
                queue.submit(flush(), token, moment(0)).unwrap();
                token += 1;
            }
            queue.ring();
            let expected: Vec<_> = (first..token).map(|token| (token, Status::SUCCESS)).collect();
            assert_eq!(reap(&mut queue), expected);
            assert_eq!(reap(&mut queue), []);
        }
        bench.check();
    }
}

// Deleting this lets one command more be submitted than the queue holds, which overwrites one that was not fetched.
#[test]
fn a_full_queue_takes_no_more() {
    let mut bench = Bench::new(ModelOptions::default());
    let mut queue: QueuePair<u64> = bench.queue(1, 8);
    bench.model.automatic(false);
    for token in 0..7 {
        queue.submit(flush(), token, moment(token)).unwrap();
    }
    assert_eq!(queue.submit(flush(), 7, moment(7)), Err(7));
    assert_eq!((queue.outstanding(), queue.free(), queue.next_slot()), (7, 0, None));
    assert_eq!(queue.oldest().map(|(_, since)| since), Some(moment(0)));
    queue.ring();
    bench.model.step();
    assert_eq!(reap(&mut queue).len(), 7);
    assert!(queue.submit(flush(), 8, moment(8)).is_ok());
    bench.check();
}

// Deleting this lets the doorbell be rung for each command rather than for all of a turn.
#[test]
fn one_doorbell_for_many_commands() {
    let mut bench = Bench::new(ModelOptions::default());
    let mut queue: QueuePair<u64> = bench.queue(1, 256);
    for _ in 0..100 {
        for token in 0..128 {
            queue.submit(flush(), token, moment(0)).unwrap();
        }
        queue.ring();
        assert_eq!(reap(&mut queue).len(), 128);
        queue.ring();
    }
    let statistics = bench.model.statistics();
    assert_eq!(statistics.submission_doorbells, 100);
    assert!(statistics.completion_doorbells <= 200, "{} writes", statistics.completion_doorbells);
    assert_eq!(queue.statistics().submission_doorbells, 100);
    assert_eq!(queue.statistics().completion_doorbells, statistics.completion_doorbells);
    bench.check();
}

// Deleting this lets a completion that comes late, twice or unasked end a command that it is not for.
#[test]
fn late_duplicate_and_unasked_completions_end_nothing() {
    let mut bench = Bench::new(ModelOptions::default());
    let mut queue: QueuePair<u64> = bench.queue(1, 4);
    // Late: nobody waits any more, and the slot is not used again until the completion has come.
    bench.model.hold(|queue, _| queue == 1);
    let late = queue.submit(flush(), 1, moment(0)).unwrap();
    queue.ring();
    assert_eq!((queue.take(late), queue.take(late)), (Some(1), None));
    bench.model.hold_none();
    assert_eq!((queue.free(), queue.outstanding(), queue.oldest()), (2, 1, None));
    for token in 2..20 {
        queue.submit(flush(), token, moment(0)).unwrap();
        queue.ring();
        assert_eq!(reap(&mut queue), [(token, Status::SUCCESS)]);
    }
    bench.model.release(0);
    assert_eq!(reap(&mut queue), []);
    assert_eq!((queue.free(), queue.statistics().late), (3, 1));
    // Twice: the second one comes when the slot is in use again.
    bench.model.duplicate(1);
    queue.submit(flush(), 20, moment(0)).unwrap();
    queue.ring();
    bench.model.hold(|queue, _| queue == 1);
    let mut first = Vec::new();
    queue.reap(1, |token, _| first.push(token));
    assert_eq!(first, [20]);
    queue.submit(flush(), 21, moment(0)).unwrap();
    queue.ring();
    assert_eq!(reap(&mut queue), []);
    assert_eq!(queue.statistics().late, 2);
    // Unasked: of a slot that is free, and of no slot at all.
    for cid in [late, 3, 0xffff] {
        bench.model.inject_completion(1, cid, Status::SUCCESS);
    }
    assert_eq!(reap(&mut queue), []);
    assert_eq!((queue.statistics().late, queue.outstanding()), (5, 1));
    bench.model.release_all();
    assert_eq!(reap(&mut queue), [(21, Status::SUCCESS)]);
    bench.check();
}

/// One thing that the host, or the controller, does.
#[derive(Clone, Debug)]
enum Step {
    Submit(u8),
    Ring,
    Run,
    Reap(u8),
    Hold(bool),
    Release(u8),
    Take(u8),
    Abort(u8),
    Duplicate,
    Stranger(u8),
    Fail,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..6u8).prop_map(Step::Submit),
        3 => Just(Step::Ring),
        4 => Just(Step::Run),
        4 => (1..6u8).prop_map(Step::Reap),
        1 => any::<bool>().prop_map(Step::Hold),
        2 => any::<u8>().prop_map(Step::Release),
        1 => any::<u8>().prop_map(Step::Take),
        1 => any::<u8>().prop_map(Step::Abort),
        1 => Just(Step::Duplicate),
        1 => any::<u8>().prop_map(Step::Stranger),
        1 => Just(Step::Fail),
    ]
}

/// A host that remembers what it waits for.
struct World {
    bench: Bench,
    queue: QueuePair<u64>,
    next: u64,
    /// What is to be answered, with its command identifier.
    waiting: BTreeMap<u64, u16>,
    /// Identifiers of the commands that were answered.
    answered: Vec<u16>,
    /// Completions that are to be counted as late.
    late: u64,
}

impl World {
    fn reap(&mut self, max: usize) -> usize {
        let mut found = Vec::new();
        let count = self.queue.reap(max, |token, completion| found.push((token, completion.cid.get())));
        for (token, cid) in found {
            assert_eq!(self.waiting.remove(&token), Some(cid), "answered once, and to the right one");
            self.answered.push(cid);
        }
        count
    }

    fn nth_waiting(&self, index: u8) -> Option<(u64, u16)> {
        let count = self.waiting.len().max(1);
        self.waiting.iter().nth(usize::from(index) % count).map(|(&token, &cid)| (token, cid))
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Submit(count) => {
                for _ in 0..count {
                    let free = self.queue.free();
                    match self.queue.submit(flush(), self.next, moment(self.next)) {
                        Ok(cid) => assert_eq!(self.waiting.insert(self.next, cid), None),
                        Err(token) => assert_eq!((token, free), (self.next, 0)),
                    }
                    self.next += 1;
                }
            }
            Step::Ring => self.queue.ring(),
            Step::Run => {
                self.bench.model.step();
            }
            Step::Reap(max) => {
                self.reap(max.into());
            }
            Step::Hold(true) => {
                let mut count = 0;
                self.bench.model.hold(move |queue, _| {
                    count += 1;
                    queue == 1 && count % 3 != 0
                });
            }
            Step::Hold(false) => self.bench.model.hold_none(),
            Step::Release(index) => {
                let held = self.bench.model.held().len().max(1);
                self.bench.model.release(usize::from(index) % held);
            }
            Step::Take(index) => {
                if let Some((token, cid)) = self.nth_waiting(index) {
                    // What it was may have been answered already, in the queue.
                    assert_eq!(self.queue.take(cid), Some(token));
                    self.waiting.remove(&token);
                    self.late += 1;
                }
            }
            Step::Abort(index) => {
                if let Some((_, cid)) = self.nth_waiting(index) {
                    self.bench.admin(prp(Command::abort(1, cid), 0, 0));
                }
            }
            Step::Duplicate => self.bench.model.duplicate(1),
            Step::Stranger(index) => {
                // Of a use that is over: an identifier that is still to be used would be taken for that use.
                let index = usize::from(index) % self.answered.len().max(1);
                if let Some(&cid) = self.answered.get(index)
                    && self.bench.model.inject_completion(1, cid, Status::SUCCESS)
                {
                    self.late += 1;
                }
            }
            Step::Fail => self.bench.model.fail_next(Status::INTERNAL_ERROR),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_time: 10_000, ..ProptestConfig::default() })]

    // Deleting this lets an order of events that nobody thought of answer a command twice, never, or for another one.
    #[test]
    fn every_command_is_answered_once_in_any_order(
        depth in 2..18u16,
        seed in any::<u64>(),
        per_step in 1..9usize,
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut bench = Bench::new(ModelOptions::default());
        let queue = bench.queue(1, depth);
        bench.model.automatic(false);
        bench.model.reorder(Some(seed));
        bench.model.most_per_step(per_step);
        let mut world = World {
            bench, queue, next: 0, waiting: BTreeMap::new(), answered: Vec::new(), late: 0,
        };
        steps.into_iter().for_each(|step| world.run(step));
        world.bench.model.duplicate(0);
        world.bench.model.hold_none();
        for _ in 0..4096 {
            world.queue.ring();
            let worked = world.bench.model.step();
            world.bench.model.release_all();
            let reaped = world.reap(usize::MAX);
            if !worked && reaped == 0 && world.queue.outstanding() == 0 {
                break;
            }
        }
        prop_assert!(world.waiting.is_empty(), "never answered: {:?}", world.waiting);
        prop_assert_eq!(world.queue.free(), usize::from(depth) - 1);
        // And a few that the controller posted twice.
        prop_assert!(world.queue.statistics().late >= world.late);
        world.bench.check();
    }
}
