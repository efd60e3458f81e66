//! The load of one job on one reactor: its lanes kept full, as their pace allows, and what comes back counted.
//!
//! The hot loop. Invariants: until the end each lane has as many I/Os outstanding as it has places and its pace
//! allows; a turn polls each queue once and sends once for it; nothing is allocated for an I/O; the clock is read once
//! for a batch of completions, and once more before new I/Os go when the batch took time to handle.

use super::lane::{Due, Lane};
use super::meter::Meter;
use super::waker::Wake;
use crate::workload::{Kind, Step};
use sledge_nvme::io::IoCompletion;
use sledge_reactor::poller::{Poller, Turn};
use sledge_reactor::time::{Instant, now, precise_now};
use std::cell::RefCell;
use std::rc::Rc;

/// A larger batch of completions takes long enough to handle for the clock to be read again.
const SMALL_BATCH: usize = 4;

/// What the load is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Load.
    Load,
    /// Load that counts.
    Measure,
    /// Everything that was written is read back.
    ReadBack,
    /// Nothing new goes.
    Drain,
}

/// The load of one job on one reactor.
pub struct Load {
    pub lanes: Vec<Lane>,
    pub stage: Stage,
    pub meter: Meter,
    pub fua: bool,
    /// Blocks of the largest I/O.
    pub most_blocks: u32,
    /// Bytes that may still go while measuring.
    pub budget: Option<u64>,
    pub errors: u64,
    pub first_error: Option<String>,
    /// I/Os whose data was checked.
    pub verified: u64,
    /// Nothing is outstanding and nothing more will go, and since when.
    pub finished: Option<Instant>,
    /// Wakes the reactor when an I/O is due.
    pub wake: Wake,
    completions: Vec<IoCompletion>,
}

/// Calls the load each turn.
pub struct LoadPoller(pub Rc<RefCell<Load>>);

impl Poller for LoadPoller {
    fn name(&self) -> &'static str {
        "perf-load"
    }

    fn poll(&mut self) -> Turn {
        self.0.borrow_mut().turn()
    }
}

impl Load {
    /// Lanes that have not begun.
    pub fn new(lanes: Vec<Lane>, fua: bool, most_blocks: u32) -> Self {
        let places = lanes.iter().map(|lane| lane.places.len()).max().unwrap_or(0);
        Self {
            lanes,
            stage: Stage::Load,
            meter: Meter::new(),
            fua,
            most_blocks,
            budget: None,
            errors: 0,
            first_error: None,
            verified: 0,
            finished: None,
            wake: Wake::default(),
            completions: Vec::with_capacity(2 * places),
        }
    }

    /// Stops sending, for good or until another stage.
    pub fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.finished = None;
    }

    fn turn(&mut self) -> Turn {
        let mut work = 0;
        let mut keep_polling = false;
        let mut outstanding = 0;
        let mut wake_at: Option<Instant> = None;
        for index in 0..self.lanes.len() {
            self.lanes[index].link.poll(&mut self.completions);
            let ended = self.completions.len();
            let mut at = None;
            if ended > 0 {
                work += ended as u32;
                let clock = precise_now();
                self.end_all(index, clock);
                let quick = ended <= SMALL_BATCH && self.verified == 0;
                at = Some(if quick { clock } else { precise_now() });
            }
            self.submit(index, at);
            let lane = &self.lanes[index];
            outstanding += lane.outstanding();
            keep_polling |= lane.link.needs_polling();
            if !lane.idle.is_empty()
                && let Some(next) = lane.pace.wake_at()
            {
                wake_at = Some(wake_at.map_or(next, |earliest| earliest.min(next)));
            }
        }
        let over = matches!(self.stage, Stage::Drain | Stage::ReadBack) || self.budget == Some(0);
        if over {
            if outstanding == 0 && self.finished.is_none() {
                self.finished = Some(precise_now());
            }
        } else if let Some(next) = wake_at {
            keep_polling |= self.wake.set(next, now());
        }
        match (work, keep_polling) {
            (0, false) => Turn::Idle,
            (0, true) => Turn::KeepPolling,
            (work, _) => Turn::Worked(work),
        }
    }

    /// Ends all I/Os that have completed on a lane.
    fn end_all(&mut self, index: usize, at: Instant) {
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.end(index, completion, at);
        }
        self.completions = completions;
    }

    fn end(&mut self, index: usize, completion: IoCompletion, at: Instant) {
        let lane = &mut self.lanes[index];
        let token = completion.token as usize;
        let Due { step, since } = lane.places[token];
        let mut data = completion.data;
        let success = completion.status.is_success();
        if self.stage == Stage::Measure && success {
            let bytes = u64::from(step.blocks) << lane.shift;
            self.meter.record(step.kind, (at - since).as_nanos() as u64, bytes);
        }
        if step.kind == Kind::Flush {
            data = lane.aside.get_mut(token).map(std::mem::take).unwrap_or_default();
        } else {
            lane.pace.ended(at);
        }
        if !success {
            self.errors += 1;
            if self.first_error.is_none() {
                let reason = lane.link.explain(completion.status);
                self.first_error = Some(describe(&step, &reason));
            }
        }
        if let Some(verifier) = lane.verifier.as_mut() {
            if success && step.kind == Kind::Read {
                match verifier.check(&step, &data) {
                    Ok(checked) => self.verified += u64::from(checked),
                    Err(fault) => {
                        self.verified += 1;
                        self.errors += 1;
                        self.first_error.get_or_insert_with(|| format!("wrong data: {fault}"));
                    }
                }
            }
            verifier.release(&step, success);
        }
        lane.idle.push((completion.token, data));
    }

    /// Fills a lane up again; `at` is the time if it is known.
    fn submit(&mut self, index: usize, at: Option<Instant>) {
        let lane = &mut self.lanes[index];
        if lane.idle.is_empty() || self.errors > 0 || self.stage == Stage::Drain {
            return;
        }
        // Nothing came back: the turn has just begun, or nothing is waited for.
        let at = at.unwrap_or_else(now);
        let mut any = false;
        while let Some((token, mut data)) = lane.idle.pop() {
            let next = match (self.stage, self.budget) {
                (Stage::ReadBack, _) => lane.next_read_back(at, self.most_blocks),
                // The last writes are flushed too.
                (Stage::Measure, Some(0)) if lane.until_flush != Some(0) => None,
                _ => lane.next(at),
            };
            let Some(due) = next else {
                lane.idle.push((token, data));
                break;
            };
            if let Some(left) = self.budget.as_mut().filter(|_| self.stage == Stage::Measure) {
                *left = left.saturating_sub(u64::from(due.step.blocks) << lane.shift);
            }
            lane.prepare(token, &due.step, &mut data);
            lane.places[token as usize] = due;
            any = true;
            if let Some(refused) = lane.link.submit(token, &due.step, self.fua, data) {
                self.completions.push(refused);
                break;
            }
        }
        if any {
            lane.link.flush();
        }
        if !self.completions.is_empty() {
            // Refused at once: an error, since a queue is never overfilled.
            self.end_all(index, at);
        }
    }
}

fn describe(step: &Step, reason: &str) -> String {
    let kind = step.kind.name();
    match step.kind {
        Kind::Flush => format!("{kind} failed: {reason}"),
        _ => format!("{kind} of {} blocks from block {} failed: {reason}", step.blocks, step.block),
    }
}
