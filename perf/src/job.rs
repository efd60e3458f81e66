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
    /// An open loop: so many I/Os are due each second, whether the target keeps up or not, and latency counts from
    /// when an I/O was due. None is a closed loop.
    pub rate_iops: Option<f64>,
    /// Pause of each lane after each I/O, without load.
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

/// What load can go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Target {
    /// A namespace over NVMe/TCP.
    NvmeTcp(NvmeTcp),
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

/// Bytes of an I/O, and out of a hundred I/Os how many have that size. Shares add up to 100.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeSplit(pub Vec<(u32, u8)>);

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
