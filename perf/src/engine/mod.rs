//! The engine: runs jobs at the same time and measures them.
//!
//! Owns the reactors of a run. Invariants: jobs that name the same core share its reactor; all jobs begin together,
//! when every queue of every job is open; the hot loop allocates nothing and reads the clock once or twice a batch.
//! The commands `run` and `compare` call [`run`]; a thread of theirs may watch the run through its [`Live`].
//!
//! | file | what |
//! |---|---|
//! | `plan` | a job against its target: what is possible, and who uses which blocks |
//! | `worker` | a job on one reactor: ramp, measuring, reading back |
//! | `load`, `lane` | the hot loop |
//! | `waker` | wakes the reactor when an I/O is due |
//! | `meter`, `series` | what is counted, and each second of it |
//! | `steady` | whether its rate is steady |
//! | `live` | what others may see of it meanwhile |
//! | `cpu` | processor time |

mod cpu;
mod lane;
mod live;
mod load;
mod meter;
mod plan;
mod series;
mod steady;
mod waker;
mod worker;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod allocation_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod large_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use cpu::{ThreadClock, process_behind};
pub use live::{Live, Phase};

use crate::histogram::Latencies;
use crate::interrupt;
use crate::job::{Job, SteadyState};
use crate::results::{Direction, JobResults, Results};
use crate::target::{self, Attached, Session, TargetError};
use crate::workload::Kind;
use crate::workload::random::mix;
use plan::Plan;
use series::Series;
use sledge_reactor::memory::PoolOptions;
use sledge_reactor::options::{CoreList, CoreListError, ReactorOptions, Wait};
use sledge_reactor::{ReactorGone, Reactors, Remote, StartError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use worker::{Outcome, Task, work};

/// How to run jobs.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// What others see of the run.
    pub live: Arc<Live>,
    /// The target's process, for its processor time.
    pub target_pid: Option<u32>,
}

impl RunOptions {
    /// Nothing but what is needed to run `jobs`.
    pub fn new(jobs: &[Job]) -> Self {
        Self { live: Arc::new(Live::new(jobs)), target_pid: None }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The reactors did not start.
    #[error("{0}")]
    Start(#[from] StartError),
    /// No cores, or impossible ones.
    #[error("{0}")]
    Cores(#[from] CoreListError),
    /// A target can't be used.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// One of several targets can't be used.
    #[error("{0}: {1}")]
    OneTarget(String, TargetError),
    /// Jobs that contradict themselves or their targets.
    #[error("{0}")]
    Options(String),
    /// The pool is too small.
    #[error("no memory for {0} I/Os of {1} bytes")]
    Memory(usize, usize),
    /// A reactor's thread died.
    #[error("a reactor died: {0}")]
    Gone(#[from] ReactorGone),
}

/// What all workers of a run share.
#[derive(Debug, Default)]
struct Barrier {
    /// Workers whose queues are open.
    ready: AtomicUsize,
    /// Start, once all are ready.
    go: AtomicBool,
    /// Don't start: another one can't.
    abandoned: AtomicBool,
    /// Workers that have begun to measure.
    measuring: AtomicUsize,
    /// Workers that have ended measuring.
    measured: AtomicUsize,
}

/// What the workers of one job share.
#[derive(Debug)]
struct JobShared {
    index: usize,
    live: Arc<Live>,
    series: Series,
    /// One of them failed, or the job is steady.
    over: AtomicBool,
    /// When the job ends, where it ends by that.
    steady: Option<SteadyState>,
    is_steady: AtomicBool,
    /// Another job has ended all jobs.
    all_over: Arc<AtomicBool>,
}

impl JobShared {
    fn new(index: usize, job: &Job, live: Arc<Live>, all_over: Arc<AtomicBool>) -> Self {
        Self {
            index,
            live,
            series: Series::new(job.cores.len()),
            over: AtomicBool::new(false),
            steady: job.steady,
            is_steady: AtomicBool::new(false),
            all_over,
        }
    }

    /// Whether the job shall end early.
    fn is_over(&self) -> bool {
        let over = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        over(&self.over) || over(&self.all_over) || interrupt::is_set()
    }

    /// A second has been measured on all reactors.
    fn second_ended(&self) {
        let steady = |asked: &SteadyState| self.series.ended(|seconds| steady::is_steady(seconds, asked));
        if self.steady.as_ref().is_some_and(steady) {
            self.is_steady.store(true, Ordering::Relaxed);
            self.over.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs jobs at the same time. Blocks until all are over.
///
/// # Errors
/// Whatever keeps a job from starting. Failures of I/O are in the results.
pub fn run(jobs: &[Job], options: &RunOptions) -> Result<Results, RunError> {
    for job in jobs {
        plan::check(job)?;
    }
    let mut cores: Vec<usize> = jobs.iter().flat_map(|job| job.cores.iter().copied()).collect();
    cores.sort_unstable();
    cores.dedup();
    let mut need = 0;
    for core in &cores {
        need = need.max(plan::memory(jobs, *core)?);
    }
    let busy = jobs.iter().any(|job| job.busy);
    target::prepare(jobs)?;
    let reactors = Reactors::start(ReactorOptions {
        cores: CoreList::pinned(cores.iter().copied())?,
        wait: if busy { Wait::Busy } else { Wait::default() },
        pool: PoolOptions { total_bytes: need },
    })?;
    let session = Session::default();
    let result = run_on(jobs, options, &reactors, &cores, &session);
    session.end();
    reactors.stop();
    result
}

fn run_on(
    jobs: &[Job],
    options: &RunOptions,
    reactors: &Reactors,
    cores: &[usize],
    session: &Session,
) -> Result<Results, RunError> {
    let handle = |core: &usize| {
        let index = cores.binary_search(core).ok()?;
        reactors.handles().get(index)
    };
    let mut plans = Vec::new();
    for job in jobs {
        let first = job.cores.first().and_then(handle).ok_or(ReactorGone)?;
        let lanes = job.cores.len() * usize::from(job.lanes);
        let attached = Attached::new(job, lanes, first, reactors.handles(), session);
        let attached = attached.map_err(|error| match jobs {
            [_] => RunError::Target(error),
            _ => RunError::OneTarget(job.target.to_string(), error),
        })?;
        plans.push(Plan::new(job, attached)?);
    }
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = mix(began.as_nanos() as u64 ^ u64::from(std::process::id()) << 32);
    let barrier = Arc::new(Barrier::default());
    let all_over = Arc::new(AtomicBool::new(false));
    let mut running: Vec<(usize, Remote<Result<Outcome, RunError>>)> = Vec::new();
    for (index, plan) in plans.iter().enumerate() {
        let shared = Arc::new(JobShared::new(index, &plan.job, options.live.clone(), all_over.clone()));
        for (seat, core) in plan.job.cores.iter().enumerate() {
            let reactor = handle(core).ok_or(ReactorGone)?;
            let task = Task { plan: plan.clone(), seat, core: *core, run };
            let (shared, barrier) = (shared.clone(), barrier.clone());
            let outcome = reactor.spawn(move || async move {
                let outcome = work(task, shared, &barrier).await;
                if outcome.is_err() {
                    // The others must not wait for this one.
                    barrier.abandoned.store(true, Ordering::Release);
                }
                outcome
            });
            running.push((index, outcome));
        }
    }
    let count = running.len();
    let pause = || std::thread::sleep(Duration::from_millis(1));
    let abandoned = || barrier.abandoned.load(Ordering::Acquire);
    while barrier.ready.load(Ordering::Acquire) < count && !abandoned() {
        pause();
    }
    // From here on there is something to report.
    interrupt::defer();
    barrier.go.store(true, Ordering::Release);
    let target_cpu = options.target_pid.and_then(|pid| {
        while barrier.measuring.load(Ordering::Acquire) == 0 && !abandoned() {
            pause();
        }
        let before = cpu::of_process(pid)?;
        while barrier.measured.load(Ordering::Acquire) < count && !abandoned() {
            pause();
        }
        Some(cpu::of_process(pid)?.saturating_sub(before))
    });
    let mut outcomes: Vec<Vec<Outcome>> = plans.iter().map(|_| Vec::new()).collect();
    let mut failed = None;
    for (index, outcome) in running {
        match outcome.wait_blocking()? {
            Ok(outcome) => outcomes[index].push(outcome),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let all: Vec<&Outcome> = outcomes.iter().flatten().collect();
    let host_cpu = Some(cores.iter().map(|core| cpu::on_core(&all, *core)).sum());
    let jobs = plans.iter().zip(outcomes).map(|(plan, outcomes)| gather(plan, outcomes)).collect();
    Ok(Results { began_unix_s: began.as_secs(), jobs, host_cpu, target_cpu })
}

/// One job's results from those of its cores.
fn gather(plan: &Plan, mut outcomes: Vec<Outcome>) -> JobResults {
    let mut job = plan.job.clone();
    let states = outcomes.iter_mut().flat_map(|outcome| std::mem::take(&mut outcome.states)).collect();
    let unsaved = plan.save_state(outcomes.first().map_or(0, |outcome| outcome.run), states).err();
    if let Some(depth) = outcomes.iter().map(|outcome| outcome.depth).min() {
        job.depth = depth as u16;
    }
    let direction = |kind: Kind| {
        let mut direction = Direction { latencies: Latencies::new(), bytes: 0 };
        for outcome in &outcomes {
            direction.latencies.merge(&outcome.totals.latencies[kind as usize]);
            direction.bytes += outcome.totals.bytes[kind as usize];
        }
        direction
    };
    let job_is_steady =
        job.steady.map(|_| outcomes.iter().any(|outcome| outcome.shared.is_steady.load(Ordering::Relaxed)));
    JobResults {
        job,
        reads: direction(Kind::Read),
        writes: direction(Kind::Write),
        trims: direction(Kind::Trim),
        zeroes: direction(Kind::Zeroes),
        flushes: direction(Kind::Flush),
        elapsed: outcomes.iter().map(|outcome| outcome.elapsed).max().unwrap_or_default(),
        seconds: outcomes.first().map(|outcome| outcome.shared.series.seconds()).unwrap_or_default(),
        errors: outcomes.iter().map(|outcome| outcome.errors).sum::<u64>() + u64::from(unsaved.is_some()),
        first_error: outcomes.iter().find_map(|outcome| outcome.first_error.clone()).or(unsaved),
        steady: job_is_steady,
        verified: outcomes.iter().map(|outcome| outcome.verified).sum(),
        backlog: outcomes.iter().map(|outcome| outcome.backlog).sum(),
    }
}
