//! A job against its target: whether it is possible, and which blocks each lane uses.

use super::RunError;
use crate::job::{Distribution, Job};
use crate::target::{Attached, Parts};
use crate::trace::Trace;
use crate::verify::{Author, Earlier, LaneState, MAX_PLACES, State, Verifier};
use crate::workload::Range;
use std::sync::Arc;
use std::time::Duration;

/// Largest I/O that moves data.
const MAX_BYTES: u32 = 64 << 20;
/// Largest part of one: a buffer of the pool.
const PART_BYTES: u32 = 1 << 20;
/// Most blocks of a command that moves no data and has a limit: their number has 16 bits.
const MOST_BLOCKS: u32 = 1 << 16;
/// Most memory of a reactor for the I/Os of all of its jobs.
const MOST_MEMORY: usize = 4 << 30;
/// Most I/Os outstanding on a lane: what a queue of a disk takes.
const MAX_DEPTH: u16 = 1024;
/// A rate of one second has nothing to be compared with.
const MIN_WINDOW: Duration = Duration::from_secs(2);
/// Memory of a reactor that is not for I/O of the jobs.
const SPARE_BYTES: usize = 8 << 20;

/// A job that is possible on its target.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The job, with what was settled.
    pub job: Job,
    /// Its target.
    pub attached: Attached,
    /// Bytes of each I/O's memory; 0 when none is needed.
    pub buffer_bytes: usize,
    /// How I/Os go in parts, when some are too large to go at once.
    pub parts: Option<Parts>,
    /// Whether I/Os differ in size.
    pub resizes: bool,
    /// Blocks of which all sizes are multiples.
    pub grain: u32,
    /// What an earlier run left, for a job that checks it.
    earlier: Option<Arc<State>>,
    /// What lanes use, all of them together.
    whole: Range,
    /// What each lane uses: the whole, or so many blocks of its own.
    own_blocks: Option<u64>,
}

fn problem(job: &Job, text: String) -> RunError {
    RunError::Options(format!("{}: {text}", job.name))
}

fn buffer_bytes(job: &Job) -> usize {
    job.largest() as usize
}

/// Memory of an I/O whose parts are of any size: each buffer takes a size class, a power of two.
fn io_memory(bytes: usize) -> usize {
    let part = PART_BYTES as usize;
    if bytes > part { bytes.next_multiple_of(part) } else { bytes.next_power_of_two().max(4096) }
}

/// How the I/Os of a job go in parts on this target, if that is needed.
fn parts(job: &Job, attached: &Attached) -> Option<Parts> {
    let block_bytes = attached.geometry.block_bytes;
    let (largest, most_blocks) = match job.largest() {
        0 if job.zeroes_percent > 0 => (job.sizes().max().unwrap_or(0) / block_bytes, MOST_BLOCKS),
        bytes => {
            let most = attached.max_transfer.unwrap_or(u64::MAX).min(u64::from(PART_BYTES)) as u32;
            (bytes / block_bytes, (most / block_bytes).max(1))
        }
    };
    let most = largest.div_ceil(most_blocks);
    (most > 1).then_some(Parts { blocks: most_blocks, most })
}

/// Checks what can be known of a job without its target.
pub fn check(job: &Job) -> Result<(), RunError> {
    let lanes = job.cores.len() * usize::from(job.lanes);
    let says =
        if let Some(bytes) = job.sizes().find(|bytes| !bytes.is_multiple_of(512) || *bytes == 0) {
            format!("an I/O of {bytes} bytes is not a multiple of 512")
        } else if job.largest() > MAX_BYTES {
            format!("an I/O of {} bytes is over the limit of {MAX_BYTES} (64 MiB)", job.largest())
        } else if [&job.read_sizes, &job.write_sizes]
            .iter()
            .any(|split| split.0.iter().map(|(_, share)| u32::from(*share)).sum::<u32>() != 100)
        {
            "the shares of the block sizes don't add up to 100".to_owned()
        } else if job.read_percent > 100 {
            format!("{} percent of reads", job.read_percent)
        } else if !(1..=MAX_DEPTH).contains(&job.depth) {
            format!("a depth of {} is not in 1 to {MAX_DEPTH}", job.depth)
        } else if lanes == 0 {
            "no core, or no lane".to_owned()
        } else if (1..job.cores.len()).any(|index| job.cores[..index].contains(&job.cores[index])) {
            "a core is named twice".to_owned()
        } else if job.rate_iops.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            "a rate has to be above zero".to_owned()
        } else if job.rate_iops.is_some() && !job.think_time.is_zero() {
            "a rate leaves no time for thinking: use one of both".to_owned()
        } else if let Some(says) = contradiction(job, lanes) {
            says
        } else if job.flush_every == Some(0) {
            "a flush after zero writes".to_owned()
        } else if job.io_count == Some(0) {
            "an end after zero I/Os".to_owned()
        } else if job.random_percent > 100 {
            format!("{} percent of random places", job.random_percent)
        } else if job.align.is_some_and(|bytes| bytes == 0 || !bytes.is_multiple_of(512)) {
            "an alignment has to be a multiple of 512".to_owned()
        } else if job.trim_percent.saturating_add(job.zeroes_percent) > 100 {
            "deallocations and writes of zeroes together are over 100 percent".to_owned()
        } else if job.trim_percent.saturating_add(job.zeroes_percent) > 0
            && (job.mode.trims_first() || !job.mode.writes(job.read_percent))
        {
            format!("{} writes nothing that could be deallocated or zeroed instead", job.mode.name())
        } else if job.verify && !job.moves_data() {
            "verification needs I/Os that move data: use a --rw that writes or reads".to_owned()
        } else if job.steady.as_ref().is_some_and(|steady| {
            steady.window < MIN_WINDOW || !(steady.limit > 0.0 && steady.limit.is_finite())
        }) {
            "a steady state needs a window of at least 2 seconds and a limit above zero".to_owned()
        } else {
            match job.distribution {
                Distribution::Zipf(theta) if !(theta > 0.0 && theta <= 100.0) => {
                    format!("Zipf's theta has to be above 0 and at most 100, not {theta}")
                }
                Distribution::Pareto(h) if !(h > 0.0 && h < 1.0) => {
                    format!("Pareto's h has to be between 0 and 1, not {h}")
                }
                _ => return Ok(()),
            }
        };
    Err(problem(job, says))
}

/// Memory that the reactor of `core` needs for all jobs.
///
/// # Errors
/// When that is more than a reactor is given.
pub fn memory(jobs: &[Job], core: usize) -> Result<usize, RunError> {
    let here = jobs.iter().filter(|job| job.cores.contains(&core));
    let of = |job: &Job| match buffer_bytes(job) {
        0 => 0,
        // Less than 2^47.
        bytes => usize::from(job.lanes) * usize::from(job.depth) * io_memory(bytes),
    };
    let ios = here.map(of).fold(0, usize::saturating_add);
    if ios > MOST_MEMORY {
        return Err(RunError::Options(format!(
            "the I/Os outstanding on core {core} would take {:.1} GiB of memory, over the limit of {} GiB: use a smaller \
             --iodepth, --queues or --bs, or more cores",
            ios as f64 / f64::from(1 << 30),
            MOST_MEMORY >> 30,
        )));
    }
    let need = ios + SPARE_BYTES;
    // An eighth of a pool is headroom that ordinary allocations leave alone.
    Ok(need + need / 7)
}

impl Plan {
    /// Fits a job that passed [`check`] to its target.
    ///
    /// # Errors
    /// Why it does not fit.
    pub fn new(job: &Job, attached: Attached) -> Result<Self, RunError> {
        let block_bytes = attached.geometry.block_bytes;
        let lanes = job.cores.len() as u64 * u64::from(job.lanes);
        if let Some(bytes) = job.sizes().find(|bytes| !bytes.is_multiple_of(block_bytes)) {
            let text = format!("an I/O of {bytes} bytes is not a multiple of the block size {block_bytes}");
            return Err(problem(job, text));
        }
        if let Some(granted) = attached.max_lanes.filter(|granted| *granted < lanes) {
            return Err(problem(job, format!("{lanes} queues are wanted, the controller grants {granted}")));
        }
        let job = &settle(job, attached.geometry.bytes());
        if let Some(align) = job.align.filter(|align| !align.is_multiple_of(block_bytes)) {
            let text = format!("an alignment of {align} is not a multiple of the block size {block_bytes}");
            return Err(problem(job, text));
        }
        if !job.offset.is_multiple_of(u64::from(block_bytes)) {
            let text = format!("the offset {} is not a multiple of the block size {block_bytes}", job.offset);
            return Err(problem(job, text));
        }
        if let Some(says) = job.trace.as_ref().and_then(|trace| misplaced(trace, &attached)) {
            return Err(problem(job, says));
        }
        let there = attached.geometry.bytes().saturating_sub(job.offset);
        let bytes = job.size.map_or(there, |size| size.min(there));
        let first = job.offset / u64::from(block_bytes);
        let whole = Range { first, blocks: bytes / u64::from(block_bytes) };
        let in_blocks = || job.sizes().map(|bytes| bytes / block_bytes);
        let (smallest, largest) = (in_blocks().min().unwrap_or(1), in_blocks().max().unwrap_or(1));
        let align = job.align.map(|bytes| bytes / block_bytes);
        let grain = in_blocks().chain(align).fold(0, common_divisor).max(1);
        // What is verified by those who write it, who keep track of each place.
        let is_tracked = job.verify && job.writes();
        // Random lanes may meet; streams, and what is tracked, have blocks of their own.
        let own_blocks = (!job.mode.is_random() || is_tracked).then(|| {
            let most = if is_tracked { MAX_PLACES * u64::from(grain) } else { u64::MAX };
            let own = (whole.blocks / lanes).min(most);
            own - own % u64::from(smallest)
        });
        let of_lane = own_blocks.unwrap_or(whole.blocks);
        let least = u64::from(largest) * if is_tracked { u64::from(job.depth) } else { 1 };
        if of_lane < least {
            return Err(problem(job, format!("{bytes} bytes are too few for {lanes} queues of this load")));
        }
        if let Some(says) = misfit(job, block_bytes, of_lane, largest) {
            return Err(problem(job, says));
        }
        let mut job = job.clone();
        let used = own_blocks.map_or(whole.blocks, |own| own * lanes);
        job.size = Some(used * u64::from(block_bytes));
        if let (Some(passes), Some(size)) = (job.passes, job.size) {
            let bytes = size.saturating_mul(passes);
            job.io_bytes = Some(job.io_bytes.map_or(bytes, |most| most.min(bytes)));
        }
        let earlier = match &job.verify_state {
            Some(path) if !job.writes() => {
                let state = State::load(path);
                let state = state.map_err(|error| problem(&job, format!("{}: {error}", path.display())))?;
                if state.block_bytes != block_bytes {
                    let text = format!("{} is of blocks of {} bytes", path.display(), state.block_bytes);
                    return Err(problem(&job, text));
                }
                Some(Arc::new(state))
            }
            _ => None,
        };
        let buffer_bytes = buffer_bytes(&job);
        // Reading back joins what was written apart.
        let resizes = buffer_bytes > 0 && (smallest != largest || is_tracked || job.trace.is_some());
        let parts = parts(&job, &attached);
        Ok(Self { job, attached, buffer_bytes, parts, resizes, grain, earlier, whole, own_blocks })
    }

    /// What checks the reads of a lane on `range`, in run number `run`.
    pub fn verifier(&self, run: u64, range: Range) -> Option<Verifier> {
        let author = Author { run, seed: self.job.seed };
        let block_bytes = self.attached.geometry.block_bytes;
        match (self.job.verify, self.job.writes()) {
            (false, _) => None,
            (true, true) => Some(Verifier::new(author, range, block_bytes, self.grain)),
            (true, false) => {
                let earlier = Earlier::new(self.earlier.clone(), block_bytes);
                Some(Verifier::of_earlier(author, range, block_bytes, earlier))
            }
        }
    }

    /// Whether what verification knows in the end is kept.
    pub fn keeps_state(&self) -> bool {
        self.job.verify && self.job.writes() && self.job.verify_state.is_some()
    }

    /// Keeps what verification knew at the end of run number `run`, if that was asked for.
    ///
    /// # Errors
    /// Why it can't be kept, in words.
    pub fn save_state(&self, run: u64, mut lanes: Vec<LaneState>) -> Result<(), String> {
        let Some(path) = self.job.verify_state.as_ref().filter(|_| self.keeps_state()) else { return Ok(()) };
        lanes.sort_by_key(|lane| lane.first);
        let author = Author { run, seed: self.job.seed };
        let block_bytes = self.attached.geometry.block_bytes;
        let state = State { author, block_bytes, grain: self.grain, lanes };
        state.save(path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// What the lane of this index, counted over all cores, uses.
    pub fn range(&self, lane: usize) -> Range {
        match self.own_blocks {
            None => self.whole,
            Some(blocks) => Range { first: self.whole.first + lane as u64 * blocks, blocks },
        }
    }
}

/// The job with percentages of the target's `bytes` turned into bytes: multiples of the smallest size.
fn settle(job: &Job, bytes: u64) -> Job {
    let mut job = job.clone();
    let smallest = u64::from(job.sizes().min().unwrap_or(512).max(512));
    // Percentages of a u64 need more room on the way.
    let part = |percent: u64| (u128::from(bytes) * u128::from(percent) / 100) as u64 / smallest * smallest;
    let (offset, size) = std::mem::take(&mut job.percentages);
    if offset > 0 {
        job.offset = job.offset.saturating_add(part(u64::from(offset)));
    }
    job.size = size.map(|percent| part(u64::from(percent))).or(job.size);
    job
}

/// What of a trace does not fit its target.
fn misplaced(trace: &Trace, attached: &Attached) -> Option<String> {
    let path = trace.rules.path.display();
    let (block_bytes, bytes) = (attached.geometry.block_bytes, attached.geometry.bytes());
    let unaligned = trace.summary.unaligned[usize::from(block_bytes > 512)];
    if let Some(line) = unaligned {
        return Some(format!(
            "{path}:{line}: offset or length is not a multiple of the block size {block_bytes}; replay_align moves \
             offsets, lengths stay"
        ));
    }
    let (end, line) = trace.summary.end;
    (end > bytes).then(|| {
        format!("{path}:{line}: this I/O ends at byte {end}, behind the end of the target at {bytes}")
    })
}

/// What a trace does not go together with.
fn contradiction(job: &Job, lanes: usize) -> Option<String> {
    if job.record.is_some() && job.zeroes_percent > 0 {
        return Some("an iolog can't tell writes of zeroes from writes".to_owned());
    }
    job.trace.as_ref()?;
    let all = [
        (lanes != 1, "more than one queue: give each queue a job"),
        (job.verify, "verification: what its writes hold is not known"),
        (job.rate_iops.is_some() || !job.think_time.is_zero(), "a rate or pauses: it has times of its own"),
        (job.offset > 0 || job.size.is_some() || job.percentages != (0, None), "an offset or a size"),
        (!job.ramp.is_zero(), "a ramp"),
        (job.trim_percent > 0 || job.zeroes_percent > 0 || job.flush_every.is_some(), "a mix of its own"),
        (!job.walk.is_plain(), "holes, runs or zones"),
    ];
    let found = all.iter().find(|(is_so, _)| *is_so)?;
    Some(format!("a trace does not go together with {}", found.1))
}

/// What is wrong with the holes and zones of a job whose lanes have `blocks` blocks each.
fn misfit(job: &Job, block_bytes: u32, blocks: u64, largest: u32) -> Option<String> {
    let block = u64::from(block_bytes);
    let stride = job.walk.stride.unsigned_abs();
    if !stride.is_multiple_of(block) {
        return Some(format!("a stride of {stride} is not a multiple of the block size {block}"));
    }
    if stride / block >= blocks {
        return Some(format!(
            "a stride of {stride} leads over all of the {} bytes of a queue",
            blocks * block
        ));
    }
    let zones = job.walk.zones?;
    let all = [("size", zones.size), ("range", zones.range), ("skip", zones.skip)];
    if let Some((name, bytes)) = all.iter().find(|(_, bytes)| !bytes.is_multiple_of(block)) {
        return Some(format!("a zone{name} of {bytes} is not a multiple of the block size {block}"));
    }
    (zones.range < u64::from(largest) * block)
        .then(|| format!("a zonerange of {} is less than an I/O", zones.range))
}

fn common_divisor(mut one: u32, mut other: u32) -> u32 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}
