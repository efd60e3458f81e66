//! A load of our own host's queue pairs, in rounds: all I/Os of a round end before the next starts.
//!
//! Invariant: a round is the same I/Os in the same order every time, so a section counts whole rounds of equal work.

use super::Failure;
use super::served::BLOCK;
use crate::measure::{SECTIONS, Section, WARM_UP};
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvmf::host::QueuePair;
use sledge_reactor::memory::{Segments, allocate};
use sledge_reactor::poller::{Poller, Turn, register_poller};
use sledge_reactor::yield_now;
use std::cell::Cell;
use std::rc::Rc;

/// Turns without any progress after which a load has failed.
const STUCK: u32 = 1_000_000;

/// What is done.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    pub operation: Operation,
    /// Bytes of an I/O.
    pub bytes: u32,
    /// I/Os outstanding on each queue pair.
    pub depth: u16,
    /// I/Os of a section, over all queue pairs; a multiple of those outstanding.
    pub operations: u64,
}

/// How a load stands, for the task that waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Running,
    Done,
    /// An I/O failed, or nothing moves any more.
    Failed,
}

struct Lane {
    pair: QueuePair,
    idle: Vec<(u64, Segments)>,
}

struct Load {
    lanes: Vec<Lane>,
    work: Work,
    done: Vec<IoCompletion>,
    round: usize,
    /// I/Os of this round that were submitted, and that ended.
    submitted: u64,
    ended: u64,
    section: Option<Section>,
    quiet: u32,
    standing: Rc<Cell<Standing>>,
}

/// Does the work on the queue pairs until all sections are counted.
pub async fn run(pairs: Vec<QueuePair>, work: Work) -> Result<(), Failure> {
    let mut lanes = Vec::new();
    for pair in pairs {
        let mut idle = Vec::new();
        for token in 0..u64::from(work.depth) {
            let mut memory = allocate(work.bytes as usize).ok_or("the pool is dry")?;
            memory.fill(token as u8);
            idle.push((token, Segments::from(memory)));
        }
        lanes.push(Lane { pair, idle });
    }
    let standing = Rc::new(Cell::new(Standing::Running));
    let load = Load {
        lanes,
        work,
        done: Vec::with_capacity(256),
        round: 0,
        submitted: 0,
        ended: 0,
        section: None,
        quiet: 0,
        standing: standing.clone(),
    };
    finish(load, &standing).await
}

/// Polls until the standing changes.
pub async fn finish(poller: impl Poller + 'static, standing: &Cell<Standing>) -> Result<(), Failure> {
    let poller = register_poller(poller);
    while standing.get() == Standing::Running {
        // A timer rather than a task that is always ready, which each turn would have to run.
        sledge_reactor::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(poller);
    // What the poller owned is closed in its turn.
    yield_now().await;
    if standing.get() == Standing::Done { Ok(()) } else { Err("the load failed".into()) }
}

impl Poller for Load {
    fn name(&self) -> &'static str {
        "load"
    }

    fn poll(&mut self) -> Turn {
        if self.standing.get() != Standing::Running {
            return Turn::Idle;
        }
        if self.submitted == 0 && self.round >= WARM_UP {
            self.section = Some(Section::begin());
        }
        let mut moved = 0;
        for index in 0..self.lanes.len() {
            self.lanes[index].pair.poll(&mut self.done);
            moved += self.done.len();
            for completion in self.done.drain(..) {
                if !completion.status.is_success() {
                    self.standing.set(Standing::Failed);
                }
                self.ended += 1;
                self.lanes[index].idle.push((completion.token, completion.data));
            }
            self.submit(index);
        }
        self.quiet = if moved > 0 { 0 } else { self.quiet + 1 };
        if self.quiet > STUCK {
            self.standing.set(Standing::Failed);
        }
        if self.ended == self.work.operations {
            self.section = None;
            (self.round, self.submitted, self.ended) = (self.round + 1, 0, 0);
            if self.round == WARM_UP + SECTIONS {
                self.standing.set(Standing::Done);
            }
        }
        if moved > 0 { Turn::Worked(moved as u32) } else { Turn::Idle }
    }
}

impl Load {
    fn submit(&mut self, index: usize) {
        let Work { operation, bytes, operations, .. } = self.work;
        let lane = &mut self.lanes[index];
        let blocks = bytes / BLOCK;
        while self.submitted < operations
            && let Some((token, data)) = lane.idle.pop()
        {
            let slba = self.submitted % 256 * u64::from(blocks);
            self.submitted += 1;
            let mut command = IoCommand::new(token, operation, slba, blocks);
            command.data = data;
            if let Submitted::Done(_) = lane.pair.submit(command) {
                self.standing.set(Standing::Failed);
            }
        }
        lane.pair.flush();
    }
}
