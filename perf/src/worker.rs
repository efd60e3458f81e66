//! The load on one reactor: queue pairs kept at their depth, latencies counted.
//!
//! Invariant: a queue has as many I/Os outstanding as it has places, until the end; every I/O's memory is allocated
//! once. A poller of the reactor drives it.

use crate::histogram::Latencies;
use crate::pattern::{Checker, fill};
use crate::workload::{ReadBack, Step, Workload};
use sledge_nvme::Status;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvmf::host::{HostError, QueueConnector, QueuePair};
use sledge_reactor::memory::{Segments, allocate};
use sledge_reactor::poller::{Poller, Turn, register_poller};
use sledge_reactor::time::{Instant, now, precise_now, sleep};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often the end is looked for.
const TICK: Duration = Duration::from_millis(10);

/// What one reactor shall do.
#[derive(Clone, Debug)]
pub struct Task {
    pub connector: QueueConnector,
    pub nsid: u32,
    pub geometry: sledge_nvme::io::Geometry,
    pub queues: u16,
    pub depth: u16,
    pub bytes: u32,
    pub random: bool,
    pub read_percent: u8,
    /// Units of one queue, and the first of this reactor's first queue.
    pub units: u64,
    pub first_unit: u64,
    pub seed: u64,
    pub verify: bool,
    pub ramp: Duration,
    pub time: Duration,
}

/// What all workers and the main thread share.
#[derive(Debug, Default)]
pub struct Shared {
    /// I/Os done, for the progress line.
    pub done: AtomicU64,
    /// Workers whose queues are open.
    pub ready: AtomicU64,
    /// Start, once all are ready.
    pub go: AtomicBool,
    /// End early.
    pub stop: AtomicBool,
}

/// What one reactor measured.
#[derive(Debug)]
pub struct Outcome {
    pub reads: Latencies,
    pub writes: Latencies,
    /// Time measured.
    pub elapsed: Duration,
    pub errors: u64,
    pub first_error: Option<String>,
    /// Units whose content was checked.
    pub verified: u64,
    /// Share of its time in which the reactor found work.
    pub depth: usize,
}

/// Why the load could not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A queue pair did not open.
    #[error("{0}")]
    Host(#[from] HostError),
    /// The pool is too small.
    #[error("no memory for {0} I/Os of {1} bytes")]
    Memory(usize, u32),
}

/// One I/O's place in a queue.
#[derive(Clone, Copy, Debug)]
struct Place {
    step: Step,
    since: Instant,
}

struct Lane {
    pair: QueuePair,
    workload: Workload,
    places: Vec<Place>,
    /// Places without an I/O, with their memory.
    idle: Vec<(u64, Segments)>,
    read_back: Option<ReadBack>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ramp,
    Measure,
    ReadBack,
    Drain,
}

struct Load {
    lanes: Vec<Lane>,
    phase: Phase,
    blocks: u32,
    verify: bool,
    completions: Vec<IoCompletion>,
    reads: Latencies,
    writes: Latencies,
    errors: u64,
    first_error: Option<String>,
    verified: u64,
    finished: Cell<bool>,
    shared: Arc<Shared>,
}

struct LoadPoller(Rc<RefCell<Load>>);

impl Poller for LoadPoller {
    fn name(&self) -> &'static str {
        "perf-load"
    }

    fn poll(&mut self) -> Turn {
        self.0.borrow_mut().turn()
    }
}

/// Runs the load of one reactor, on that reactor.
///
/// # Errors
/// When it can't start. What fails later is counted.
pub async fn work(task: Task, shared: Arc<Shared>) -> Result<Outcome, WorkerError> {
    let mut lanes = Vec::new();
    let mut depth = usize::from(task.depth);
    for queue in 0..u64::from(task.queues) {
        let pair = task.connector.open(task.nsid, task.geometry).await?;
        depth = depth.min(pair.depth());
        let first = task.first_unit + queue * task.units;
        let seed = task.seed.wrapping_add(first).wrapping_add(queue << 32);
        let workload = Workload::new(task.random, task.read_percent, first, task.units, seed, task.verify);
        let mut idle = Vec::new();
        for token in 0..depth as u64 {
            let mut memory = allocate(task.bytes as usize).ok_or(WorkerError::Memory(depth, task.bytes))?;
            fill(&mut memory, token, 0);
            idle.push((token, Segments::from(memory)));
        }
        let step = Step { write: false, unit: 0, version: 0 };
        let places = vec![Place { step, since: now() }; depth];
        lanes.push(Lane { pair, workload, places, idle, read_back: None });
    }
    let load = Rc::new(RefCell::new(Load {
        lanes,
        phase: Phase::Ramp,
        blocks: task.bytes / task.geometry.block_bytes,
        verify: task.verify,
        completions: Vec::with_capacity(4096),
        reads: Latencies::new(),
        writes: Latencies::new(),
        errors: 0,
        first_error: None,
        verified: 0,
        finished: Cell::new(false),
        shared: shared.clone(),
    }));
    shared.ready.fetch_add(1, Ordering::AcqRel);
    while !shared.go.load(Ordering::Acquire) {
        if shared.stop.load(Ordering::Acquire) {
            break;
        }
        sleep(Duration::from_millis(1)).await;
    }
    let poller = register_poller(LoadPoller(load.clone()));
    wait(&shared, &load, task.ramp).await;
    {
        let mut load = load.borrow_mut();
        load.reads.clear();
        load.writes.clear();
        load.phase = Phase::Measure;
    }
    let from = precise_now();
    wait(&shared, &load, task.time).await;
    let elapsed = precise_now() - from;
    // What ends from here on does not count: it would be measured with fewer and fewer I/Os outstanding.
    let (reads, writes) = {
        let mut load = load.borrow_mut();
        load.phase = Phase::Drain;
        (load.reads.clone(), load.writes.clone())
    };
    drain(&load).await;
    if task.verify && load.borrow().errors == 0 {
        {
            let mut load = load.borrow_mut();
            load.phase = Phase::ReadBack;
            for lane in &mut load.lanes {
                lane.read_back = Some(lane.workload.read_back());
            }
            load.finished.set(false);
        }
        drain(&load).await;
    }
    drop(poller);
    let load = load.borrow();
    Ok(Outcome {
        reads,
        writes,
        elapsed,
        errors: load.errors,
        first_error: load.first_error.clone(),
        verified: load.verified,
        depth,
    })
}

/// Waits for some time, or until the load fails or is stopped.
async fn wait(shared: &Shared, load: &Rc<RefCell<Load>>, time: Duration) {
    let end = now() + time;
    while now() < end {
        if shared.stop.load(Ordering::Relaxed) || load.borrow().errors > 0 {
            shared.stop.store(true, Ordering::Relaxed);
            return;
        }
        sleep((end - now()).min(TICK)).await;
    }
}

/// Waits until nothing is outstanding.
async fn drain(load: &Rc<RefCell<Load>>) {
    while !load.borrow().finished.get() {
        sleep(Duration::from_millis(1)).await;
    }
}

impl Load {
    fn turn(&mut self) -> Turn {
        let mut work = 0;
        let mut keep_polling = false;
        let mut outstanding = 0;
        for index in 0..self.lanes.len() {
            self.lanes[index].pair.poll(&mut self.completions);
            if !self.completions.is_empty() {
                work += self.completions.len() as u32;
                let at = precise_now();
                let mut completions = std::mem::take(&mut self.completions);
                for completion in completions.drain(..) {
                    self.end(index, completion, at);
                }
                self.completions = completions;
            }
            outstanding += self.submit(index);
            keep_polling |= self.lanes[index].pair.needs_polling();
        }
        if work > 0 {
            self.shared.done.fetch_add(u64::from(work), Ordering::Relaxed);
        }
        if outstanding == 0 && matches!(self.phase, Phase::Drain | Phase::ReadBack) {
            self.finished.set(true);
        }
        match (work, keep_polling) {
            (0, false) => Turn::Idle,
            (0, true) => Turn::KeepPolling,
            (work, _) => Turn::Worked(work),
        }
    }

    fn end(&mut self, lane: usize, completion: IoCompletion, at: Instant) {
        let lane = &mut self.lanes[lane];
        let place = lane.places[completion.token as usize];
        let latency = (at - place.since).as_nanos() as u64;
        if self.phase == Phase::Measure {
            let latencies = if place.step.write { &mut self.writes } else { &mut self.reads };
            latencies.record(latency);
        }
        lane.workload.end(place.step, completion.status.is_success());
        if !completion.status.is_success() {
            self.errors += 1;
            if self.first_error.is_none() {
                self.first_error = Some(describe(place.step, completion.status));
            }
        } else if self.verify && !place.step.write && place.step.version != 0 {
            self.verified += 1;
            if let Err(at) = check(&completion.data, place.step) {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| {
                    format!("wrong data: unit {} differs from what was written at byte {at}", place.step.unit)
                });
            }
        }
        lane.idle.push((completion.token, completion.data));
    }

    /// Fills a queue up again; returns what is outstanding then.
    fn submit(&mut self, index: usize) -> usize {
        let lane = &mut self.lanes[index];
        let going = !lane.idle.is_empty() && self.errors == 0 && self.phase != Phase::Drain;
        if going {
            let since = precise_now();
            while let Some((token, mut data)) = lane.idle.pop() {
                let step = match lane.read_back.as_mut() {
                    Some(position) => lane.workload.read_back_step(position),
                    None => lane.workload.step(),
                };
                let Some(step) = step else {
                    lane.idle.push((token, data));
                    break;
                };
                if self.verify && step.write {
                    write_pattern(&mut data, step);
                }
                lane.places[token as usize] = Place { step, since };
                let operation = if step.write { Operation::Write } else { Operation::Read };
                let slba = step.unit * u64::from(self.blocks);
                let mut command = IoCommand::new(token, operation, slba, self.blocks);
                command.data = data;
                if let Submitted::Done(completion) = lane.pair.submit(command) {
                    self.completions.push(completion);
                    break;
                }
            }
            lane.pair.flush();
        }
        if !self.completions.is_empty() {
            // Refused at once: an error, since the queue is never overfilled.
            let mut completions = std::mem::take(&mut self.completions);
            for completion in completions.drain(..) {
                self.end(index, completion, now());
            }
            self.completions = completions;
        }
        let lane = &self.lanes[index];
        lane.places.len() - lane.idle.len()
    }
}

fn describe(step: Step, status: Status) -> String {
    let kind = if step.write { "write" } else { "read" };
    format!("{kind} of unit {} failed: {status}", step.unit)
}

fn write_pattern(data: &mut Segments, step: Step) {
    // Memory was allocated in one piece.
    if let Some(bytes) = data.iter_mut().next().and_then(|segment| segment.as_mut_slice()) {
        fill(bytes, step.unit, step.version);
    }
}

fn check(data: &Segments, step: Step) -> Result<(), usize> {
    let mut checker = Checker::new(step.unit, step.version);
    data.iter().try_for_each(|segment| checker.check(segment.as_slice()))
}
