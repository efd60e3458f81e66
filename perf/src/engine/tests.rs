//! The engine on a simulated disk, whose latencies, stalls and faults are known.

use super::worker::{Task, work};
use super::*;
use crate::job::{Distribution, Mode, SizeSplit, Target};
use sledge_reactor::sim::{DiskFault, NodeId, SimulatedDisk, Simulation};
use sledge_reactor::{current, spawn_local};
use std::cell::RefCell;
use std::rc::Rc;

const DISK: &str = "disk";
const MILLI: Duration = Duration::from_millis(1);

/// A node with a disk of 1 MiB whose requests take a millisecond each.
fn world() -> (Simulation, NodeId, SimulatedDisk) {
    world_with(1 << 20)
}

fn world_with(disk_bytes: u64) -> (Simulation, NodeId, SimulatedDisk) {
    let mut simulation = Simulation::new(1);
    let node = simulation.add_node("host", 1);
    let disk = simulation.disk(node, DISK).create(disk_bytes, 512);
    disk.set_latency(MILLI..=MILLI);
    (simulation, node, disk)
}

/// One I/O at a time, for a second.
pub fn job(mode: Mode) -> Job {
    let mut job = Job::new(Target::File { path: DISK.into(), direct: true });
    (job.mode, job.depth, job.time) = (mode, 1, Duration::from_secs(1));
    job
}

/// Runs a job on a disk of so many bytes, which `meddle` has prepared.
pub fn on_disk(disk_bytes: u64, job: Job, meddle: impl FnOnce(&SimulatedDisk)) -> JobResults {
    let (mut simulation, node, disk) = world_with(disk_bytes);
    meddle(&disk);
    simulation.block_on(node, || run_here(job)).unwrap()
}

/// Starts a job on the current reactor, as the only one of its run.
pub async fn run_here(job: Job) -> JobResults {
    plan::check(&job).unwrap();
    let live = Arc::new(Live::new(std::slice::from_ref(&job)));
    let attached = Attached::new(&job, 1, &current(), &[], &Session::default()).unwrap();
    let plan = Plan::new(&job, attached).unwrap();
    let shared = Arc::new(JobShared::new(0, &plan.job, live, Arc::default()));
    let barrier = Barrier { go: AtomicBool::new(true), ..Barrier::default() };
    let task = Task { plan: plan.clone(), seat: 0, core: 0, run: 5 };
    let outcome = work(task, shared, &barrier).await.unwrap();
    gather(&plan, vec![outcome])
}

/// Runs a job, with `meddle` after half of its time.
fn run_with(job: Job, meddle: impl FnOnce(&mut Simulation, &SimulatedDisk)) -> JobResults {
    let (mut simulation, node, disk) = world();
    let half = (job.ramp + job.time) / 2;
    let results = Rc::new(RefCell::new(None));
    let place = results.clone();
    simulation.spawn(node, || async move {
        let results = spawn_local(run_here(job)).await;
        place.borrow_mut().replace(results);
    });
    simulation.run_for(half);
    meddle(&mut simulation, &disk);
    simulation.run_until(|| results.borrow().is_some()).unwrap();
    results.take().unwrap()
}

fn run_alone(job: Job) -> JobResults {
    run_with(job, |_, _| ())
}

// Without it a report's totals, its series and its latencies could each tell of another run.
#[test]
fn counts_agree_with_each_other_and_with_the_disk() {
    let mut job = job(Mode::Randrw);
    (job.depth, job.ramp, job.time) = (4, 300 * MILLI, 2500 * MILLI);
    job.write_sizes = SizeSplit(vec![(512, 50), (8192, 50)]);
    let results = run_alone(job);
    assert_eq!((results.errors, results.first_error), (0, None));
    let lengths: Vec<Duration> = results.seconds.iter().map(|second| second.length).collect();
    assert_eq!(lengths.len(), 3);
    assert_eq!(lengths.iter().sum::<Duration>(), results.elapsed);
    let (reads, writes) = (&results.reads, &results.writes);
    let of_series = |kind: usize| results.seconds.iter().map(|second| second.ios[kind]).sum::<u64>();
    assert_eq!((of_series(0), of_series(1)), (reads.latencies.count(), writes.latencies.count()));
    let bytes: u64 = results.seconds.iter().map(|second| second.bytes[1]).sum();
    assert_eq!((bytes, reads.bytes), (writes.bytes, reads.latencies.count() * 4096));
    // Four at a time, a millisecond each and a little more between.
    let total = reads.latencies.count() + writes.latencies.count();
    assert!((9_500..=10_000).contains(&total), "{total}");
    assert!((990_000..1_100_000).contains(&reads.latencies.quantile(0.5)));
    let mean = writes.bytes as f64 / writes.latencies.count() as f64;
    assert!((mean - 4352.0).abs() < 300.0, "half of 512 and half of 8192 bytes: {mean}");
}

/// I/Os of a load that took at least half of a stall of 100 ms.
fn that_felt_a_stall(job: Job) -> u64 {
    let results = run_with(job, |simulation, disk| {
        disk.hold();
        simulation.run_for(100 * MILLI);
        disk.release();
    });
    assert!(results.backlog <= 1, "at most the one that was due when it ended");
    let latencies = &results.reads.latencies;
    let slow =
        (0..=1000).rev().find(|share| latencies.quantile(f64::from(1000 - share) / 1000.0) > 45_000_000);
    latencies.count() * u64::from(slow.unwrap_or(0) as u32) / 1000
}

// Without it a stall of the target would cost an open loop a single slow I/O, as it does a closed loop: coordinated
// omission.
#[test]
fn an_open_loop_feels_a_stall_with_all_that_was_due() {
    let mut open = job(Mode::Randread);
    (open.rate_iops, open.depth) = (Some(1000.0), 16);
    let slow = that_felt_a_stall(open);
    // Of 100 that were due. Those behind the stall go 16 by 16, so that a few more wait as long.
    assert!((55..=65).contains(&slow), "{slow}");
    assert!(that_felt_a_stall(job(Mode::Randread)) <= 10);
}

// Without it an open loop could send at another rate, or hide that its target does not keep up.
#[test]
fn an_open_loop_keeps_its_rate_or_says_so() {
    let mut open = job(Mode::Randread);
    open.rate_iops = Some(100.0);
    let results = run_alone(open.clone());
    assert!((99..=100).contains(&results.reads.latencies.count()));
    // The simulator lets up to 100 microseconds pass between polls that find nothing.
    assert!(results.reads.latencies.extent().2 < 1_250_000, "nothing waits when little is due");
    open.rate_iops = Some(2000.0);
    let results = run_alone(open);
    let done = results.reads.latencies.count();
    assert!((950..=1000).contains(&done), "{done}");
    assert!((2000 - done).abs_diff(results.backlog) <= 1, "{done} {}", results.backlog);
    assert!(results.reads.latencies.quantile(0.99) > 400_000_000, "the last ones waited for half a second");
}

// Without it thinking could be left out, or count as latency.
#[test]
fn places_think_between_their_ios() {
    let mut job = job(Mode::Randread);
    (job.depth, job.think_time) = (2, 10 * MILLI);
    let results = run_alone(job);
    let latencies = &results.reads.latencies;
    assert!((175..=182).contains(&latencies.count()), "{}", latencies.count());
    assert!(latencies.extent().2 < 1_250_000);
}

// Without it a job could move more or fewer bytes than it was told to, or wait for its time.
#[test]
fn a_job_ends_with_its_bytes() {
    let mut job = job(Mode::Write);
    (job.io_bytes, job.depth, job.flush_every) = (Some(400 << 10), 4, Some(10));
    let results = run_alone(job);
    assert_eq!((results.writes.bytes, results.writes.latencies.count()), (400 << 10, 100));
    assert_eq!(results.flushes.latencies.count(), 10);
    assert!(results.elapsed < 50 * MILLI, "{:?}", results.elapsed);
    assert_eq!(results.seconds.len(), 1);
}

// Without it trimming could do nothing, and its report look well.
#[test]
fn trims_free_the_disk() {
    let (mut simulation, node, disk) = world();
    disk.write_bytes(0, &[1; 1 << 20]);
    let mut job = job(Mode::Trim);
    (job.write_sizes, job.io_bytes) = (SizeSplit::one(64 << 10), Some(1 << 20));
    let results = simulation.block_on(node, || run_here(job)).unwrap();
    assert_eq!((results.trims.latencies.count(), results.errors), (16, 0));
    assert_eq!(disk.allocated_bytes(), 0);
}

// Without it failures could go unseen, or be counted for ever.
#[test]
fn a_failure_ends_the_job_and_is_named() {
    let results = run_with(job(Mode::Randwrite), |_, disk| disk.fail_range(0..1 << 20, DiskFault::Media));
    let first = results.first_error.unwrap();
    assert!(first.starts_with("write of 8 blocks from block ") && first.contains("error"), "{first}");
    assert_eq!(results.errors, 1);
    assert!(results.elapsed < 600 * MILLI);
}

fn verified(meddle: impl FnOnce(&mut Simulation, &SimulatedDisk)) -> JobResults {
    let mut job = job(Mode::Randrw);
    (job.verify, job.depth, job.size) = (true, 4, Some(256 << 10));
    run_with(job, meddle)
}

// Without it verification could check nothing, or find fault with a disk that has none.
#[test]
fn a_sound_disk_verifies() {
    let results = verified(|_, _| ());
    assert_eq!((results.errors, results.first_error), (0, None));
    // All reads of what was written before, and all of 64 places in the end.
    assert!(results.verified > results.reads.latencies.count() / 2 + 30, "{}", results.verified);
}

// Without it a disk that loses, mixes up or corrupts blocks could pass.
#[test]
fn decay_is_found_and_named() {
    let results = verified(|_, disk| disk.write_bytes(0, &[0xa5; 256 << 10]));
    let first = results.first_error.unwrap();
    assert!(first.starts_with("wrong data: corrupt: block ") && first.contains("no header"), "{first}");
    let results = verified(|simulation, disk| {
        let old = disk.read_bytes(0..256 << 10);
        simulation.run_for(100 * MILLI);
        disk.write_bytes(0, &old);
    });
    let first = results.first_error.unwrap();
    assert!(first.starts_with("wrong data: stale: block "), "{first}");
    let results = verified(|_, disk| {
        let half = disk.read_bytes(0..128 << 10);
        disk.write_bytes(128 << 10, &half);
    });
    let first = results.first_error.unwrap();
    assert!(first.starts_with("wrong data: misplaced: block "), "{first}");
    assert!(results.verified > 0);
}

/// How a job fits the disk, or why it does not.
fn planned(job: Job) -> Result<Plan, String> {
    planned_on(1 << 20, job)
}

/// The same on a disk of so many bytes.
pub fn planned_on(disk_bytes: u64, job: Job) -> Result<Plan, String> {
    let (mut simulation, node, _disk) = world_with(disk_bytes);
    let planned = simulation.block_on(node, || async move {
        plan::check(&job).map_err(|error| error.to_string())?;
        let attached = Attached::new(&job, 1, &current(), &[], &Session::default()).unwrap();
        Plan::new(&job, attached).map_err(|error| error.to_string())
    });
    planned.unwrap()
}

// Without it a job could map more memory than the machine has, and be killed for it rather than refused.
#[test]
fn memory_has_a_bound() {
    let mut large = job(Mode::Randread);
    (large.read_sizes, large.depth, large.lanes) = (SizeSplit::one(64 << 20), 32, 2);
    let need = plan::memory(&[large.clone()], 0).unwrap();
    assert!((4 << 30..5 << 30).contains(&need), "{need}");
    assert_eq!(plan::memory(&[large.clone()], 1).unwrap(), plan::memory(&[], 0).unwrap());
    let error = plan::memory(&[large, job(Mode::Read)], 0).unwrap_err().to_string();
    assert!(error.starts_with("the I/Os outstanding on core 0 would take 4.0 GiB of memory"), "{error}");
}

// Without it lanes could write over what others verify, or hot blocks differ from queue to queue.
#[test]
fn lanes_share_or_divide_their_range() {
    let mut divided = job(Mode::Randrw);
    (divided.verify, divided.lanes, divided.cores) = (true, 2, vec![0, 1]);
    (divided.offset, divided.size) = (4096, Some(200 << 10));
    divided.write_sizes = SizeSplit(vec![(4096, 50), (6144, 50)]);
    let plan = planned(divided.clone()).unwrap();
    assert_eq!((plan.grain, plan.buffer_bytes, plan.resizes), (4, 6144, true));
    let ranges: Vec<_> = (0..4).map(|lane| (plan.range(lane).first, plan.range(lane).blocks)).collect();
    // 50 KiB each, down to whole places of the smallest size.
    assert_eq!(ranges, [(8, 96), (104, 96), (200, 96), (296, 96)]);
    assert_eq!(plan.job.size, Some(192 << 10));
    divided.verify = false;
    let plan = planned(divided).unwrap();
    assert_eq!(plan.range(0), plan.range(3));
    assert_eq!((plan.range(0).first, plan.range(0).blocks), (8, 400));
}

// Without it a job that makes no sense could start, or its user have to guess what is wrong with it.
#[test]
fn impossible_jobs_are_refused_by_name() {
    type Spoil = fn(&mut Job);
    let refused: [(Spoil, &str); 10] = [
        (|job| job.write_sizes = SizeSplit::one(1000), "not a multiple of 512"),
        (|job| job.write_sizes = SizeSplit::one((64 << 20) + 512), "over the limit of 67108864 (64 MiB)"),
        (|job| job.write_sizes = SizeSplit(vec![(4096, 60), (8192, 30)]), "don't add up to 100"),
        (|job| job.distribution = Distribution::Zipf(0.0), "theta has to be above 0"),
        (|job| job.distribution = Distribution::Pareto(1.0), "between 0 and 1"),
        (|job| job.rate_iops = Some(f64::NAN), "above zero"),
        (|job| (job.rate_iops, job.think_time) = (Some(1.0), MILLI), "one of both"),
        (|job| job.cores = vec![1, 1], "named twice"),
        (|job| job.offset = 100, "the offset 100"),
        (|job| job.offset = 1 << 20, "0 bytes are too few"),
    ];
    for (spoil, words) in refused {
        let mut job = job(Mode::Randwrite);
        job.name = "spoilt".into();
        spoil(&mut job);
        let error = planned(job).unwrap_err();
        assert!(error.starts_with("spoilt: ") && error.contains(words), "{error}");
    }
}

// Without it a target that loses an I/O would keep its user waiting for ever, and for no report.
#[test]
fn an_io_that_never_comes_back_is_an_error() {
    let results = run_with(job(Mode::Randread), |_, disk| disk.hold());
    assert_eq!(results.first_error.unwrap(), "1 I/Os had not come back after 120 s");
    assert_eq!((results.errors, results.elapsed.as_millis()), (1, 1000));
    assert!(results.reads.latencies.count() > 400);
}

// Without it a job could end too late, or never, though its rate is steady, or with a report that does not say so.
#[test]
fn a_steady_job_ends_before_its_time() {
    let mut job = job(Mode::Randread);
    job.time = Duration::from_secs(60);
    let mut steady = SteadyState::parse("iops:5%").unwrap();
    (steady.window, steady.after) = (Duration::from_secs(3), Duration::from_secs(2));
    job.steady = Some(steady);
    let results = run_alone(job.clone());
    assert_eq!(results.steady, Some(true));
    assert!((5.0..5.1).contains(&results.elapsed.as_secs_f64()), "{:?}", results.elapsed);
    job.time = Duration::from_secs(4);
    let results = run_alone(job);
    assert_eq!((results.steady, results.seconds.len()), (Some(false), 4));
}

// Without it a number of I/Os could be one of bytes, and a mix lose memory that goes with its writes.
#[test]
fn a_mix_ends_after_its_ios() {
    let mut job = job(Mode::Randrw);
    (job.trim_percent, job.zeroes_percent, job.depth) = (30, 30, 8);
    (job.io_count, job.flush_every, job.time) = (Some(1000), Some(50), Duration::from_secs(60));
    job.write_sizes = SizeSplit(vec![(512, 50), (8192, 50)]);
    let results = run_alone(job);
    assert_eq!((results.errors, results.first_error), (0, None));
    let count = |direction: &Direction| direction.latencies.count();
    let all = [&results.reads, &results.writes, &results.trims, &results.zeroes].map(count);
    assert_eq!(all.iter().sum::<u64>(), 1000, "{all:?}");
    assert!(all.iter().all(|count| *count > 40), "{all:?}");
    assert_eq!(count(&results.flushes), all[1] / 50);
}
