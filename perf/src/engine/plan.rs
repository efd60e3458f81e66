//! A job against its target: whether it is possible, and which blocks each lane uses.

use super::RunError;
use crate::job::{Distribution, Job};
use crate::target::Attached;
use crate::verify::MAX_PLACES;
use crate::workload::Range;

/// Largest I/O: one buffer of the pool.
const MAX_BYTES: u32 = 1 << 20;
/// Most I/Os outstanding on a lane: what a queue of a disk takes.
const MAX_DEPTH: u16 = 1024;
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
    /// Whether I/Os differ in size.
    pub resizes: bool,
    /// Blocks of which all sizes are multiples.
    pub grain: u32,
    /// What lanes use, all of them together.
    whole: Range,
    /// What each lane uses: the whole, or so many blocks of its own.
    own_blocks: Option<u64>,
}

fn problem(job: &Job, text: String) -> RunError {
    RunError::Options(format!("{}: {text}", job.name))
}

/// The sizes that a job uses.
fn sizes(job: &Job) -> Vec<u32> {
    let reads = job.mode.reads(job.read_percent).then_some(&job.read_sizes);
    let writes = (job.mode.writes(job.read_percent) || job.mode.trims()).then_some(&job.write_sizes);
    reads.into_iter().chain(writes).flat_map(|split| split.0.iter()).map(|(bytes, _)| *bytes).collect()
}

fn buffer_bytes(job: &Job) -> usize {
    if job.mode.trims() { 0 } else { sizes(job).into_iter().max().unwrap_or(0) as usize }
}

/// Checks what can be known of a job without its target.
pub fn check(job: &Job) -> Result<(), RunError> {
    let lanes = job.cores.len() * usize::from(job.lanes);
    let says = if let Some(bytes) =
        sizes(job).into_iter().find(|bytes| !bytes.is_multiple_of(512) || *bytes == 0)
    {
        format!("an I/O of {bytes} bytes is not a multiple of 512")
    } else if let Some(bytes) = sizes(job).into_iter().find(|bytes| *bytes > MAX_BYTES && !job.mode.trims()) {
        format!("an I/O of {bytes} bytes is over the limit of {MAX_BYTES}")
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
    } else if job.flush_every == Some(0) {
        "a flush after zero writes".to_owned()
    } else if job.verify && !job.mode.writes(job.read_percent) {
        "verification checks what the run itself wrote: use a --rw that writes".to_owned()
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
pub fn memory(jobs: &[Job], core: usize) -> usize {
    let here = jobs.iter().filter(|job| job.cores.contains(&core));
    // Each buffer takes a size class, a power of two.
    let of = |job: &Job| match buffer_bytes(job) {
        0 => 0,
        bytes => usize::from(job.lanes) * usize::from(job.depth) * bytes.next_power_of_two().max(4096),
    };
    let need = here.map(of).sum::<usize>() + SPARE_BYTES;
    // An eighth of a pool is headroom that ordinary allocations leave alone.
    need + need / 7
}

impl Plan {
    /// Fits a job that passed [`check`] to its target.
    ///
    /// # Errors
    /// Why it does not fit.
    pub fn new(job: &Job, attached: Attached) -> Result<Self, RunError> {
        let block_bytes = attached.geometry.block_bytes;
        let lanes = job.cores.len() as u64 * u64::from(job.lanes);
        if let Some(bytes) = sizes(job).into_iter().find(|bytes| !bytes.is_multiple_of(block_bytes)) {
            let text = format!("an I/O of {bytes} bytes is not a multiple of the block size {block_bytes}");
            return Err(problem(job, text));
        }
        if let Some(most) = attached.max_transfer
            && let Some(bytes) =
                sizes(job).into_iter().find(|bytes| !job.mode.trims() && u64::from(*bytes) > most)
        {
            return Err(problem(
                job,
                format!("an I/O of {bytes} bytes is over the controller's limit of {most}"),
            ));
        }
        if let Some(granted) = attached.max_lanes.filter(|granted| *granted < lanes) {
            return Err(problem(job, format!("{lanes} queues are wanted, the controller grants {granted}")));
        }
        if !job.offset.is_multiple_of(u64::from(block_bytes)) {
            let text = format!("the offset {} is not a multiple of the block size {block_bytes}", job.offset);
            return Err(problem(job, text));
        }
        let there = attached.geometry.bytes().saturating_sub(job.offset);
        let bytes = job.size.map_or(there, |size| size.min(there));
        let first = job.offset / u64::from(block_bytes);
        let whole = Range { first, blocks: bytes / u64::from(block_bytes) };
        let in_blocks = || sizes(job).into_iter().map(|bytes| bytes / block_bytes);
        let (smallest, largest) = (in_blocks().min().unwrap_or(1), in_blocks().max().unwrap_or(1));
        let grain = in_blocks().fold(0, common_divisor).max(1);
        // Random lanes may meet; streams, and what is verified, have blocks of their own.
        let own_blocks = (!job.mode.is_random() || job.verify).then(|| {
            let most = if job.verify { MAX_PLACES * u64::from(grain) } else { u64::MAX };
            let own = (whole.blocks / lanes).min(most);
            own - own % u64::from(smallest)
        });
        let of_lane = own_blocks.unwrap_or(whole.blocks);
        let least = u64::from(largest) * if job.verify { u64::from(job.depth) } else { 1 };
        if of_lane < least {
            return Err(problem(job, format!("{bytes} bytes are too few for {lanes} queues of this load")));
        }
        let mut job = job.clone();
        let used = own_blocks.map_or(whole.blocks, |own| own * lanes);
        job.size = Some(used * u64::from(block_bytes));
        if let (Some(passes), Some(size)) = (job.passes, job.size) {
            let bytes = size.saturating_mul(passes);
            job.io_bytes = Some(job.io_bytes.map_or(bytes, |most| most.min(bytes)));
        }
        let buffer_bytes = buffer_bytes(&job);
        // Reading back joins what was written apart.
        let resizes = buffer_bytes > 0 && (smallest != largest || job.verify);
        Ok(Self { job, attached, buffer_bytes, resizes, grain, whole, own_blocks })
    }

    /// What the lane of this index, counted over all cores, uses.
    pub fn range(&self, lane: usize) -> Range {
        match self.own_blocks {
            None => self.whole,
            Some(blocks) => Range { first: self.whole.first + lane as u64 * blocks, blocks },
        }
    }
}

fn common_divisor(mut one: u32, mut other: u32) -> u32 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}
