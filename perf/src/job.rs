//! What one job shall do: plain data, whoever asked for it (command line, fio job file, comparison).
//!
//! Words are fio's where it has one; sizes are in bytes, times are `Duration`s.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

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
    /// Bytes of reads.
    pub read_sizes: SizeSplit,
    /// Bytes of writes.
    pub write_sizes: SizeSplit,
    /// Where random I/O goes.
    pub distribution: Distribution,
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
    /// Pause before its load begins, counted from when all jobs could begin.
    pub start_delay: Duration,
    /// Load before measuring.
    pub ramp: Duration,
    /// Time that is measured.
    pub time: Duration,
    /// Ends when this many bytes have been moved, should that be before the time is over.
    pub io_bytes: Option<u64>,
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
    /// Writes carry a header that tells block, place and version; reads are checked against it.
    pub verify: bool,
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
            read_sizes: SizeSplit::one(4096),
            write_sizes: SizeSplit::one(4096),
            distribution: Distribution::Uniform,
            depth: 32,
            lanes: 1,
            cores: vec![0],
            offset: 0,
            size: None,
            start_delay: Duration::ZERO,
            ramp: Duration::ZERO,
            time: Duration::from_secs(10),
            io_bytes: None,
            passes: None,
            rate_iops: None,
            arrivals: Arrivals::Even,
            think_time: Duration::ZERO,
            fua: false,
            flush_every: None,
            verify: false,
            seed: 1,
            busy: false,
        }
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
    Rw,
    /// Random reads and writes.
    Randrw,
    /// Sequential deallocation.
    Trim,
    /// Random deallocation.
    Randtrim,
}

impl Mode {
    /// True for random offsets.
    pub fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw | Self::Randtrim)
    }

    /// Percentage of reads, given that of mixed modes.
    pub fn read_percent(self, mix: u8) -> u8 {
        match self {
            Self::Read | Self::Randread => 100,
            Self::Rw | Self::Randrw => mix,
            Self::Write | Self::Randwrite | Self::Trim | Self::Randtrim => 0,
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

    /// Whether it deallocates.
    pub fn trims(self) -> bool {
        matches!(self, Self::Trim | Self::Randtrim)
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
}
