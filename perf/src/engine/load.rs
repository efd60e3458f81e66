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
use std::time::Duration;

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
    /// What may still go while measuring.
    pub budget: Option<Budget>,
    pub errors: u64,
    pub first_error: Option<String>,
    /// I/Os whose data was checked.
    pub verified: u64,
    /// Nothing is outstanding and nothing more will go, and since when.
    pub finished: Option<Instant>,
    /// Wakes the reactor when an I/O is due.
    pub wake: Wake,
}

/// What ends a job before its time.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    bytes: u64,
    ios: u64,
}

impl Budget {
    /// So many bytes and I/Os, where there is an end to them.
    pub fn new(bytes: Option<u64>, ios: Option<u64>) -> Option<Self> {
        let budget = Self { bytes: bytes.unwrap_or(u64::MAX), ios: ios.unwrap_or(u64::MAX) };
        (bytes.is_some() || ios.is_some()).then_some(budget)
    }

    fn take(&mut self, step: &Step, shift: u32) {
        self.bytes = self.bytes.saturating_sub(u64::from(step.blocks) << shift);
        self.ios = self.ios.saturating_sub(u64::from(step.kind != Kind::Flush));
    }
}

/// Whether there is an end, and it has come.
#[inline]
fn is_over(budget: &Option<Budget>) -> bool {
    matches!(budget, Some(budget) if budget.bytes == 0 || budget.ios == 0)
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
        }
    }

    /// Stops sending, for good or until another stage.
    pub fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.finished = None;
    }

    /// What changes while I/Os come back: how many are outstanding, and how many were checked.
    pub fn progress(&self) -> (usize, u64) {
        (self.lanes.iter().map(Lane::outstanding).sum(), self.verified)
    }

    /// What is outstanding has not come back for `time`, and is taken for lost.
    pub fn give_up(&mut self, time: Duration) {
        let lost = self.progress().0;
        self.errors += lost as u64;
        let words = || format!("{lost} I/Os had not come back after {} s", time.as_secs());
        self.first_error.get_or_insert_with(words);
    }

    fn turn(&mut self) -> Turn {
        let mut work = 0;
        let mut keep_polling = false;
        let mut outstanding = 0;
        let mut wake_at: Option<Instant> = None;
        for index in 0..self.lanes.len() {
            let lane = &mut self.lanes[index];
            let before = lane.idle.len();
            lane.link.poll(&mut lane.idle);
            let ended = lane.idle.len() - before;
            let mut at = None;
            if ended > 0 {
                work += ended as u32;
                let clock = precise_now();
                self.end_all(index, before, clock);
                let quick = ended <= SMALL_BATCH && self.verified == 0;
                at = Some(if quick { clock } else { precise_now() });
            }
            self.submit(index, at);
            let lane = &self.lanes[index];
            outstanding += lane.outstanding();
            keep_polling |= lane.link.needs_polling();
            if !lane.idle.is_empty() {
                match lane.pace.wake_at() {
                    Some(next) => wake_at = Some(wake_at.map_or(next, |earliest| earliest.min(next))),
                    None => self.look_for_end(index),
                }
            }
        }
        let over = matches!(self.stage, Stage::Drain | Stage::ReadBack) || is_over(&self.budget);
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

    /// Ends the load when the trace of a lane has ended.
    #[cold]
    #[inline(never)]
    fn look_for_end(&mut self, index: usize) {
        let Some(failure) = self.lanes[index].pace.end() else { return };
        self.budget = Some(Budget { bytes: 0, ios: 0 });
        if let Some(failure) = failure
            && self.first_error.is_none()
        {
            self.errors += 1;
            self.first_error = Some(failure);
        }
    }

    /// What a lane sent is written, as far as it is asked for.
    pub fn end_records(&mut self) {
        for lane in &mut self.lanes {
            if let Err(error) = lane.link.end_record() {
                self.errors += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    /// Ends the I/Os that have come back to a lane: those from `before` on.
    fn end_all(&mut self, index: usize, before: usize, at: Instant) {
        for place in before..self.lanes[index].idle.len() {
            self.end(index, place, at);
        }
    }

    /// Ends an I/O where it lies: its memory is not moved.
    #[inline]
    fn end(&mut self, index: usize, place: usize, at: Instant) {
        let lane = &mut self.lanes[index];
        let completion = &mut lane.idle[place];
        let token = completion.token as usize;
        let Due { step, since } = lane.places[token];
        let success = completion.status.is_success();
        if self.stage == Stage::Measure && success {
            let bytes = u64::from(step.blocks) << lane.shift;
            self.meter.record(step.kind, (at - since).as_nanos() as u64, bytes);
        }
        if step.kind.moves_data() {
            lane.pace.ended(at);
        } else {
            completion.data = lane.aside.get_mut(token).map(std::mem::take).unwrap_or_default();
            if step.kind != Kind::Flush {
                lane.pace.ended(at);
            }
        }
        if let Some(verifier) = lane.verifier.as_mut() {
            if success && step.kind == Kind::Read {
                let own = std::slice::from_ref(&completion.data);
                match verifier.check(&step, lane.link.memory(completion.token).unwrap_or(own)) {
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
        if !success {
            self.errors += 1;
            if self.first_error.is_none() {
                let reason = lane.link.explain(completion.status);
                self.first_error = Some(describe(&step, &reason));
            }
        }
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
        let mut refused = None;
        while !lane.idle.is_empty() {
            let next = match self.stage {
                Stage::ReadBack => lane.next_read_back(at, self.most_blocks),
                // The last writes are flushed too.
                Stage::Measure if is_over(&self.budget) && lane.until_flush != Some(0) => None,
                _ => lane.next(at),
            };
            let Some(due) = next else { break };
            let Some(IoCompletion { token, mut data, .. }) = lane.idle.pop() else { break };
            if let Some(budget) = self.budget.as_mut().filter(|_| self.stage == Stage::Measure) {
                budget.take(&due.step, lane.shift);
            }
            lane.prepare(token, &due.step, &mut data);
            lane.places[token as usize] = due;
            any = true;
            refused = lane.link.submit(token, &due.step, self.fua, data);
            if refused.is_some() {
                break;
            }
        }
        if any {
            lane.link.flush();
        }
        if let Some(refused) = refused {
            // Refused at once: an error, since a queue is never overfilled.
            let before = lane.idle.len();
            lane.idle.push(refused);
            self.end_all(index, before, at);
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
