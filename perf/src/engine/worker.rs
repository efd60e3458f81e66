//! A job on one of its reactors, from opening its queues to what it measured.

use super::lane::{Due, Lane};
use super::live::{LiveJob, Phase};
use super::load::{Budget, Load, LoadPoller, Stage};
use super::meter::Counts;
use super::plan::Plan;
use super::{Barrier, JobShared, RunError, cpu};
use crate::trace::{Recorder, Replay};
use crate::verify::{LaneState, Verifier};
use crate::workload::pace::Pace;
use crate::workload::{Kind, Step, Workload};
use sledge_nvme::Status;
use sledge_nvme::io::{Geometry, IoCompletion};
use sledge_reactor::memory::{Buffer, Segments, allocate};
use sledge_reactor::poller::register_poller;
use sledge_reactor::task::spawn_local;
use sledge_reactor::time::{Instant, now, precise_now, sleep, sleep_until};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the end is looked for, and counts are shown.
const TICK: Duration = Duration::from_millis(10);
/// An I/O that has not come back so long after the last one that did is lost. Longer than any layer below waits.
const PATIENCE: Duration = Duration::from_secs(120);
/// One entry of the series.
const SECOND: Duration = Duration::from_secs(1);

/// What one reactor shall do.
#[derive(Clone, Debug)]
pub struct Task {
    pub plan: Plan,
    /// Which of the job's cores this is.
    pub seat: usize,
    pub core: usize,
    /// A number that no other run has.
    pub run: u64,
}

/// What one reactor measured.
#[derive(Debug)]
pub struct Outcome {
    pub core: usize,
    /// Number of the run.
    pub run: u64,
    /// What verification knew of the lanes, where that is kept.
    pub states: Vec<LaneState>,
    pub totals: Counts,
    /// Time measured.
    pub elapsed: Duration,
    /// Processor time of the reactor when measuring began and when it ended.
    pub cpu: (Duration, Duration),
    pub errors: u64,
    pub first_error: Option<String>,
    pub verified: u64,
    pub backlog: u64,
    /// Depth of its lanes.
    pub depth: usize,
    pub shared: Arc<JobShared>,
}

/// Runs a job on one reactor, on that reactor.
///
/// # Errors
/// When it can't start. What fails later is counted.
pub async fn work(task: Task, shared: Arc<JobShared>, barrier: &Barrier) -> Result<Outcome, RunError> {
    let job = &task.plan.job;
    let mut lanes = Vec::new();
    for number in 0..usize::from(job.lanes) {
        lanes.push(open(&task, task.seat * usize::from(job.lanes) + number).await?);
    }
    let depth = lanes.iter().map(|lane| lane.places.len()).min().unwrap_or(0);
    let most_blocks =
        (task.plan.buffer_bytes as u64 / u64::from(task.plan.attached.geometry.block_bytes)) as u32;
    let load = Rc::new(RefCell::new(Load::new(lanes, job.fua, most_blocks)));
    barrier.ready.fetch_add(1, Ordering::AcqRel);
    while !barrier.go.load(Ordering::Acquire) && !barrier.abandoned.load(Ordering::Acquire) {
        sleep(Duration::from_millis(1)).await;
    }
    let run = Run { load, shared: &shared, seat: task.seat };
    run.until(now() + job.start_delay).await;
    run.live().set_phase(task.seat, Phase::Ramp);
    let start = now();
    run.load.borrow_mut().lanes.iter_mut().for_each(|lane| lane.pace.start(start));
    let poller = register_poller(LoadPoller(run.load.clone()));
    let alarm = run.load.borrow().wake.alarm();
    let alarm = spawn_local(alarm);
    run.until(start + job.ramp).await;

    run.live().set_phase(task.seat, Phase::Measuring);
    {
        let mut load = run.load.borrow_mut();
        load.meter.clear();
        let share = |whole: u64| share(whole, task.seat, job.cores.len());
        load.budget = Budget::new(job.io_bytes.map(share), job.io_count.map(share));
        load.enter(Stage::Measure);
    }
    let cpu_before = cpu::of_thread();
    barrier.measuring.fetch_add(1, Ordering::AcqRel);
    let from = precise_now();
    let elapsed = run.measure(from, from + job.time).await;
    let cpu = (cpu_before, cpu::of_thread());
    barrier.measured.fetch_add(1, Ordering::AcqRel);
    if job.ends_all {
        shared.all_over.store(true, Ordering::Relaxed);
    }
    let backlog = run.drain(from + elapsed).await;
    run.load.borrow_mut().end_records();
    if job.verify && job.read_back && run.load.borrow().errors == 0 {
        run.live().set_phase(task.seat, Phase::ReadingBack);
        run.load.borrow_mut().enter(Stage::ReadBack);
        run.finished().await;
    }
    drop(poller);
    alarm.abort();
    run.show();
    run.live().set_phase(task.seat, Phase::Ended);
    let mut load = run.load.borrow_mut();
    let verifiers = load.lanes.iter_mut().filter_map(|lane| lane.verifier.take());
    let states = verifiers.filter(|_| task.plan.keeps_state()).map(Verifier::into_state).collect();
    Ok(Outcome {
        core: task.core,
        run: task.run,
        states,
        totals: load.meter.total().clone(),
        elapsed,
        cpu,
        errors: load.errors,
        first_error: load.first_error.clone(),
        verified: load.verified,
        backlog,
        depth,
        shared: shared.clone(),
    })
}

/// Opens a lane; `index` counts over all cores of the job.
async fn open(task: &Task, index: usize) -> Result<Lane, RunError> {
    let Plan { job, attached, buffer_bytes, .. } = &task.plan;
    let Geometry { block_bytes, .. } = attached.geometry;
    let shift = attached.geometry.block_shift();
    let range = task.plan.range(index);
    let mut link = attached.open().await?;
    // The parts of I/Os that go in parts wait for each other, and their I/Os don't.
    let most = if task.plan.parts.is_some() { usize::MAX } else { link.depth() };
    let depth = usize::from(job.depth).min(most);
    let memory = |token: u64, bytes: usize| match bytes {
        0 => Ok(Segments::new()),
        bytes => {
            let mut memory = allocate(bytes).ok_or(RunError::Memory(depth, *buffer_bytes))?;
            fill(&mut memory, job.seed ^ token);
            Ok(Segments::from(memory))
        }
    };
    let of_lane = if task.plan.parts.is_some() { 0 } else { *buffer_bytes };
    let mut idle = Vec::with_capacity(depth);
    for token in 0..depth as u64 {
        let data = memory(token, of_lane)?;
        idle.push(IoCompletion { token, status: Status::SUCCESS, data });
    }
    if let Some(parts) = task.plan.parts {
        let places = if *buffer_bytes > 0 { depth as u64 * u64::from(parts.most) } else { 0 };
        let part_bytes = (parts.blocks as usize) << shift;
        let memory = (0..places).map(|place| memory(place, part_bytes)).collect::<Result<_, RunError>>()?;
        link = link.split(parts, shift, depth, memory);
    }
    if let Some(path) = &job.record {
        let path = beside(path, index);
        let recorder = Recorder::begin(&path, &job.target.to_string(), shift).map_err(RunError::Options)?;
        link = link.recorded(recorder);
    }
    let replay = job.trace.as_ref().map(|trace| Replay::open(&trace.rules)).transpose();
    let replay = replay.map_err(|error| RunError::Options(error.to_string()))?;
    let verifier = task.plan.verifier(task.run, range);
    let seed = job.seed.wrapping_add((index as u64) << 32);
    let step = Step { kind: Kind::Read, block: 0, blocks: 0, version: 0 };
    let is_partly_without_data = job.trim_percent > 0 || job.zeroes_percent > 0 || job.mode.trims_first();
    let is_partly_without_data = is_partly_without_data || replay.is_some();
    let aside = if job.flush_every.is_some() || is_partly_without_data { depth } else { 0 };
    let workload = match &replay {
        Some(replay) => Workload::of_trace(replay, shift),
        None => Workload::new(job, range, block_bytes, seed, job.seed),
    };
    let pace = match replay {
        Some(replay) => Pace::Trace(replay),
        None => Pace::new(job, index, job.cores.len() * usize::from(job.lanes)),
    };
    Ok(Lane {
        link,
        workload,
        pace,
        verifier,
        places: vec![Due { step, since: now() }; depth],
        idle,
        resizes: task.plan.resizes,
        aside: (0..aside).map(|_| Segments::new()).collect(),
        until_flush: job.flush_every,
        flush_every: job.flush_every.unwrap_or(0),
        shift,
        held: None,
    })
}

/// The file for what a lane sends: the one that was asked for, or one beside it.
fn beside(path: &Path, index: usize) -> PathBuf {
    if index == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{index}"));
    name.into()
}

/// Content that doesn't compress, and touches every page before it counts.
fn fill(memory: &mut Buffer, seed: u64) {
    let mut random = crate::workload::random::Random::new(seed);
    for word in memory.chunks_exact_mut(8) {
        word.copy_from_slice(&random.draw().to_le_bytes());
    }
}

/// One reactor's share of some bytes.
fn share(bytes: u64, seat: usize, seats: usize) -> u64 {
    let (seat, seats) = (seat as u64, seats.max(1) as u64);
    (bytes / seats + u64::from(seat < bytes % seats)).max(1)
}

struct Run<'a> {
    load: Rc<RefCell<Load>>,
    shared: &'a JobShared,
    seat: usize,
}

impl Run<'_> {
    fn live(&self) -> &LiveJob {
        &self.shared.live.jobs()[self.shared.index]
    }

    /// Shows others how far the load is.
    fn show(&self) {
        let load = self.load.borrow();
        let (ios, bytes) = load.meter.so_far();
        self.live().set_counts(self.seat, ios, bytes, load.errors);
    }

    /// Waits until `end`, or until the job fails or is stopped, or has done all it should. True when it was `end`.
    async fn until(&self, end: Instant) -> bool {
        loop {
            let at = now();
            if at >= end {
                return true;
            }
            {
                let load = self.load.borrow();
                if load.errors > 0 {
                    self.shared.over.store(true, Ordering::Relaxed);
                }
                if load.finished.is_some() || self.shared.is_over() {
                    return false;
                }
            }
            self.show();
            sleep_until(end.min(at + TICK)).await;
        }
    }

    /// Measures until `end`. Returns how long it took.
    async fn measure(&self, from: Instant, end: Instant) -> Duration {
        let mut second = 0;
        let mut begun = from;
        loop {
            let boundary = (from + SECOND * (second as u32 + 1)).min(end);
            let on_time = self.until(boundary).await;
            // Of a load that has done all it should, the time that its last I/O took.
            let at = self.load.borrow().finished.unwrap_or_else(precise_now);
            let mut load = self.load.borrow_mut();
            load.meter.end_second(|counts| {
                let whole = self.shared.series.add(second, at - begun, counts);
                if let Some(whole) = whole {
                    self.live().set_latest(whole);
                    self.shared.second_ended();
                }
            });
            if !on_time || boundary == end {
                return at - from;
            }
            (second, begun) = (second + 1, at);
        }
    }

    /// Waits for what is outstanding; it does not count: it would be measured with fewer and fewer I/Os outstanding.
    /// Returns how many I/Os of an open loop were due before `end` and had not ended then.
    async fn drain(&self, end: Instant) -> u64 {
        let backlog = {
            let mut load = self.load.borrow_mut();
            load.enter(Stage::Drain);
            let overdue = |lane: &Lane| match lane.pace {
                Pace::Open(_) => lane.outstanding() as u64 + lane.pace.overdue(end),
                _ => 0,
            };
            load.lanes.iter().map(overdue).sum()
        };
        self.finished().await;
        backlog
    }

    /// Waits until nothing is outstanding, or nothing has come back for so long that it never will.
    async fn finished(&self) {
        let (mut since, mut before) = (now(), None);
        while self.load.borrow().finished.is_none() {
            let so_far = self.load.borrow().progress();
            if before != Some(so_far) {
                (since, before) = (now(), Some(so_far));
            } else if now() - since >= PATIENCE {
                return self.load.borrow_mut().give_up(PATIENCE);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}
