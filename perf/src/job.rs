//! What one job shall do: plain data, whoever asked for it (command line, fio job file, comparison).
//!
//! Words are fio's where it has one; sizes are in bytes, times are `Duration`s.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::trace::Trace;

mod steady_state;
mod walk;
mod zones;

pub use steady_state::{SteadyRate, SteadyState};
pub use walk::{Walk, ZoneWalk};
pub use zones::Zones;

/// Time of a job that ends with what it does alone.
pub const NO_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// One job: a load of one shape on one target.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Its name in reports.
    pub name: String,
    /// What the load goes to.
    pub target: Target,
    /// Which I/O.
    pub mode: Mode,
    /// Percentage of reads in mixed modes.
    pub read_percent: u8,
    /// Out of a hundred I/Os that don't read, so many deallocate instead of writing.
    pub trim_percent: u8,
    /// Likewise, so many write zeroes, which moves no data.
    pub zeroes_percent: u8,
    /// Bytes of reads.
    pub read_sizes: SizeSplit,
    /// Bytes of writes.
    pub write_sizes: SizeSplit,
    /// Holes, runs and zones.
    pub walk: Walk,
    /// A trace whose I/Os are replayed, in place of a load of its own.
    pub trace: Option<Trace>,
    /// Where the I/Os that are sent are written to: one file for the first lane, others beside it.
    pub record: Option<PathBuf>,
    /// Where random I/O goes.
    pub distribution: Distribution,
    /// Out of a hundred I/Os of a random mode, so many go to random places; the others go on behind one another.
    pub random_percent: u8,
    /// Random places are multiples of so many bytes; of the smallest size when there is none.
    pub align: Option<u32>,
    /// Outstanding I/Os of each lane.
    pub depth: u16,
    /// Lanes (queue pairs, or queues of a file) on each core.
    pub lanes: u16,
    /// Cores, one reactor each, as the system numbers them.
    pub cores: Vec<usize>,
    /// First byte that is used.
    pub offset: u64,
    /// Bytes that are used from there on; all when there is none.
    pub size: Option<u64>,
    /// The same as percentages of the target, which are settled once its size is known: what is added to the offset,
    /// and what stands in place of the size.
    pub percentages: (u16, Option<u8>),
    /// Pause before its load begins, counted from when all jobs could begin.
    pub start_delay: Duration,
    /// Load before measuring.
    pub ramp: Duration,
    /// Time that is measured.
    pub time: Duration,
    /// Ends when this many bytes have been moved, should that be before the time is over.
    pub io_bytes: Option<u64>,
    /// Ends, likewise, after this many I/Os.
    pub io_count: Option<u64>,
    /// Ends, likewise, when it has moved so many times the bytes that it uses, which are known once the target is.
    pub passes: Option<u64>,
    /// An open loop: so many I/Os are due each second, whether the target keeps up or not, and latency counts from
    /// when an I/O was due. None is a closed loop.
    pub rate_iops: Option<f64>,
    /// When I/Os of an open loop are due.
    pub arrivals: Arrivals,
    /// Each place of a lane pauses so long after each of its I/Os: as many users as the depth, all of them thinking.
    pub think_time: Duration,
    /// Writes carry FUA.
    pub fua: bool,
    /// A flush after this many writes of a lane.
    pub flush_every: Option<u32>,
    /// Writes carry a header that tells block, place and version; reads are checked against it. A job that only reads
    /// checks what an earlier run wrote.
    pub verify: bool,
    /// With verification: in the end everything that was written is read back.
    pub read_back: bool,
    /// Where verification keeps which version each block holds: written by a job that writes, for a later one that
    /// only reads.
    pub verify_state: Option<PathBuf>,
    /// Ends as soon as its rate is steady.
    pub steady: Option<SteadyState>,
    /// When it ends, so do all jobs that run at the same time.
    pub ends_all: bool,
    /// Percentiles that reports name, in rising order; the usual ones when there are none.
    pub percentiles: Vec<f64>,
    /// Seed of all that is random.
    pub seed: u64,
    /// Reactors never sleep.
    pub busy: bool,
}

impl Job {
    /// A job with usual values: 4 KiB random reads on core 0, depth 32, for 10 seconds.
    pub fn new(target: Target) -> Self {
        Self {
            name: "job".to_owned(),
            target,
            mode: Mode::Randread,
            read_percent: 70,
            trim_percent: 0,
            zeroes_percent: 0,
            read_sizes: SizeSplit::one(4096),
            write_sizes: SizeSplit::one(4096),
            walk: Walk::default(),
            trace: None,
            record: None,
            distribution: Distribution::Uniform,
            random_percent: 100,
            align: None,
            depth: 32,
            lanes: 1,
            cores: vec![0],
            offset: 0,
            size: None,
            percentages: (0, None),
            start_delay: Duration::ZERO,
            ramp: Duration::ZERO,
            time: Duration::from_secs(10),
            io_bytes: None,
            io_count: None,
            passes: None,
            rate_iops: None,
            arrivals: Arrivals::Even,
            think_time: Duration::ZERO,
            fua: false,
            flush_every: None,
            verify: false,
            read_back: true,
            verify_state: None,
            steady: None,
            ends_all: false,
            percentiles: Vec::new(),
            seed: 1,
            busy: false,
        }
    }
}

impl Job {
    /// Whether it writes data that could be verified.
    pub fn writes(&self) -> bool {
        self.mode.writes(self.read_percent) && self.trim_percent.saturating_add(self.zeroes_percent) < 100
    }

    /// Whether it changes anything on its target.
    pub fn modifies(&self) -> bool {
        self.mode.trims() || self.mode.read_percent(self.read_percent) < 100
    }

    /// The sizes of its I/Os.
    pub fn sizes(&self) -> impl Iterator<Item = u32> {
        let reads = self.mode.reads(self.read_percent).then_some(&self.read_sizes);
        let writes = self.modifies().then_some(&self.write_sizes);
        reads.into_iter().chain(writes).flat_map(|split| split.0.iter()).map(|(bytes, _)| *bytes)
    }

    /// Bytes of the largest of its I/Os that may move data; 0 when none does.
    pub fn largest(&self) -> u32 {
        if self.moves_data() { self.sizes().max().unwrap_or(0) } else { 0 }
    }

    /// Whether some of its I/Os move data, and need memory.
    pub fn moves_data(&self) -> bool {
        self.writes() || self.mode.reads(self.read_percent)
    }
}

/// What load can go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Target {
    /// A namespace over NVMe/TCP.
    NvmeTcp(NvmeTcp),
    /// A namespace of a controller in this machine.
    Pcie(Pcie),
    /// A file, or a kernel block device.
    File {
        /// Its path.
        path: PathBuf,
        /// Whether the page cache is bypassed.
        direct: bool,
    },
}

/// A namespace over NVMe/TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NvmeTcp {
    /// Transport address.
    pub traddr: IpAddr,
    /// Port.
    pub trsvcid: u16,
    /// NQN of the subsystem.
    pub nqn: String,
    /// NQN of the host; made up when there is none.
    pub hostnqn: Option<String>,
    /// Namespace identifier.
    pub nsid: u32,
    /// Whether header digests are asked for.
    pub header_digest: bool,
    /// Whether data digests are asked for.
    pub data_digest: bool,
    /// Whether lost connections are made again.
    pub reconnect: bool,
}

/// A namespace of a controller in this machine, driven without the kernel's driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pcie {
    /// PCI address.
    pub address: String,
    /// Namespace identifier.
    pub nsid: u32,
    /// The way to the controller, by its name.
    pub environment: String,
}

/// Which I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
    /// Random reads.
    Randread,
    /// Random writes.
    Randwrite,
    /// Sequential reads and writes.
    #[value(alias = "readwrite")]
    Rw,
    /// Random reads and writes.
    Randrw,
    /// Sequential deallocation.
    Trim,
    /// Random deallocation.
    Randtrim,
    /// Sequentially, each place deallocated and then written.
    Trimwrite,
    /// The same at random.
    Randtrimwrite,
}

impl Mode {
    /// True for random offsets.
    pub fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw | Self::Randtrim | Self::Randtrimwrite)
    }

    /// Percentage of reads, given that of mixed modes.
    pub fn read_percent(self, mix: u8) -> u8 {
        match self {
            Self::Read | Self::Randread => 100,
            Self::Rw | Self::Randrw => mix,
            Self::Write
            | Self::Randwrite
            | Self::Trim
            | Self::Randtrim
            | Self::Trimwrite
            | Self::Randtrimwrite => 0,
        }
    }

    /// Whether there are reads, given their percentage in mixed modes.
    pub fn reads(self, percent: u8) -> bool {
        self.read_percent(percent) > 0
    }

    /// Whether there are writes, given the percentage of reads in mixed modes.
    pub fn writes(self, percent: u8) -> bool {
        !self.trims() && self.read_percent(percent) < 100
    }

    /// Whether it only deallocates.
    pub fn trims(self) -> bool {
        matches!(self, Self::Trim | Self::Randtrim)
    }

    /// Whether each place is deallocated before it is written.
    pub fn trims_first(self) -> bool {
        matches!(self, Self::Trimwrite | Self::Randtrimwrite)
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Randread => "randread",
            Self::Randwrite => "randwrite",
            Self::Rw => "rw",
            Self::Randrw => "randrw",
            Self::Trim => "trim",
            Self::Randtrim => "randtrim",
            Self::Trimwrite => "trimwrite",
            Self::Randtrimwrite => "randtrimwrite",
        }
    }
}

/// Bytes of an I/O, and out of a hundred I/Os how many have that size. Shares add up to 100.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeSplit(pub Vec<(u32, u8)>);

impl SizeSplit {
    /// All of one size.
    pub fn one(bytes: u32) -> Self {
        Self(vec![(bytes, 100)])
    }
}

/// When the I/Os of an open loop are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Arrivals {
    /// At equal intervals.
    Even,
    /// By chance, independently of each other: intervals are exponential.
    Poisson,
}

/// Reads percentiles such as `50:99:99.9`, with colons or commas between.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_percentiles(text: &str) -> Result<Vec<f64>, String> {
    let one = |part: &str| {
        let percent = part.trim().parse::<f64>().ok().filter(|percent| *percent > 0.0 && *percent <= 100.0);
        percent.ok_or_else(|| format!("{part:?} is not a percentile"))
    };
    let mut percentiles = text.split([':', ',']).map(one).collect::<Result<Vec<f64>, String>>()?;
    percentiles.sort_by(f64::total_cmp);
    percentiles.dedup();
    if percentiles.len() > 20 { Err("more than 20 percentiles".into()) } else { Ok(percentiles) }
}

/// Where random I/O goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "type", content = "parameter", rename_all = "lowercase")]
pub enum Distribution {
    /// Everywhere alike.
    Uniform,
    /// By Zipf's law, with this theta.
    Zipf(f64),
    /// By Pareto's, with this h between 0 and 1.
    Pareto(f64),
    /// By zones, each of which has a share of the I/Os.
    Zoned(Zones),
}
