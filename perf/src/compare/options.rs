//! The command line of `compare`.

use clap::{Args, Parser, ValueEnum};
use sledge_reactor::options::CoreList;

use crate::arguments::{parse_seconds, parse_size};
use crate::job::Mode;
use crate::job::Target;
use crate::limit::Core;

/// Options of `compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareOptions {
    /// A target, as nvme-tcp://ADDRESS:PORT/NQN?nsid=N&hdgst&ddgst or as the path of a file, or limit (or limit?own-buffers).
    pub a: Side,
    /// What it is compared with: the same again.
    pub b: Side,
    /// Starts the target A before each of its turns; it is ended after it. One command, run by the shell.
    #[arg(long, value_name = "COMMAND")]
    pub start_a: Option<String>,
    /// Starts the target B before each of its turns.
    #[arg(long, value_name = "COMMAND")]
    pub start_b: Option<String>,
    /// The load, for both.
    #[command(flatten)]
    pub load: Load,
    /// Options of the load that are otherwise for A, such as "--queues 64 --iodepth 4".
    #[arg(long, value_name = "OPTIONS", value_parser = parse_load, allow_hyphen_values = true)]
    pub with_a: Option<Load>,
    /// Options of the load that are otherwise for B.
    #[arg(long, value_name = "OPTIONS", value_parser = parse_load, allow_hyphen_values = true)]
    pub with_b: Option<Load>,
    /// Rounds, one turn of each in every one.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rounds: u16,
    /// Seconds that each turn measures.
    #[arg(long, default_value_t = 0.5, value_parser = parse_seconds)]
    pub round_time: f64,
    /// Seconds of load before each turn measures.
    #[arg(long, default_value_t = 0.1, value_parser = parse_seconds)]
    pub ramp: f64,
    /// Rounds before the first one that counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub warm_up: u16,
    /// Core of the limit's answering thread, or any: that of the target it is compared with.
    #[arg(long, default_value = "0", value_parser = crate::limit::parse_core)]
    pub server_core: Core,
    /// Nice value of hosts, started targets and the limit: -20 is before nearly all other programs; below 0 needs
    /// privileges.
    #[arg(long, allow_negative_numbers = true, value_parser = clap::value_parser!(i8).range(-20..=19))]
    pub nice: Option<i8>,
    /// Least ratio of A to B, as iops=0.8; may be repeated. Metrics: iops, steady, bandwidth, mean, p50, p90, p99, p99.9,
    /// host_cpu_per_io, target_cpu_per_io.
    #[arg(long, value_name = "METRIC=RATIO", value_parser = parse_ratio)]
    pub min_ratio: Vec<(Metric, f64)>,
    /// Most ratio of A to B, as p50=1.15; may be repeated.
    #[arg(long, value_name = "METRIC=RATIO", value_parser = parse_ratio)]
    pub max_ratio: Vec<(Metric, f64)>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A load. What is not given has the usual value, or that of both sides.
#[derive(Clone, Debug, Default, Args)]
pub struct Load {
    /// Which I/O. Writes destroy what is on the targets. [default: randread]
    #[arg(long, value_enum)]
    pub rw: Option<Mode>,
    /// Percentage of reads in rw and randrw. [default: 70]
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub rwmix: Option<u8>,
    /// Bytes of one I/O. [default: 4k]
    #[arg(long, value_parser = parse_size)]
    pub bs: Option<u64>,
    /// I/Os outstanding on each queue. [default: 32]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub iodepth: Option<u16>,
    /// Queue pairs on each core of the host; connections of the limit. [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub queues: Option<u16>,
    /// What the host does without work. [default: busy]
    #[arg(long, value_enum)]
    pub wait: Option<Wait>,
    /// Cores of the host, as 1,3-5 or 0x2; one for the limit's asking thread. Or any, for the limit only. [default: 1]
    #[arg(long, value_parser = parse_cores)]
    pub cores: Option<HostCores>,
    /// More options for `sledge-perf run`, in one word; the limit knows none of them.
    #[arg(long, value_name = "OPTIONS", allow_hyphen_values = true)]
    pub run_options: Option<String>,
}

/// What a host does without work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wait {
    /// Polls on.
    Busy,
    /// Sleeps after a short while.
    Adaptive,
}

/// One of the two that are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the sockets alone can do.
    Limit {
        /// Each I/O sends from memory of its own.
        own_buffers: bool,
    },
    /// A target.
    Target(Target),
}

/// Where hosts run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostCores {
    /// Wherever the system puts them.
    Any,
    /// Pinned to these.
    List(CoreList),
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// I/Os a second.
    Iops,
    /// I/Os a second while nothing held them up.
    Steady,
    /// Bytes a second.
    Bandwidth,
    /// Mean latency.
    Mean,
    /// A percentile of latency.
    P50,
    /// See above.
    P90,
    /// See above.
    P99,
    /// See above.
    P99_9,
    /// Processor time of the host for each I/O.
    HostCpu,
    /// Processor time of the target for each I/O.
    TargetCpu,
}

impl Metric {
    /// All, in the order of reports.
    pub const ALL: [Self; 10] = [
        Self::Iops,
        Self::Steady,
        Self::Bandwidth,
        Self::Mean,
        Self::P50,
        Self::P90,
        Self::P99,
        Self::P99_9,
        Self::HostCpu,
        Self::TargetCpu,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Iops => "iops",
            Self::Steady => "steady",
            Self::Bandwidth => "bandwidth",
            Self::Mean => "mean",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P99_9 => "p99.9",
            Self::HostCpu => "host_cpu_per_io",
            Self::TargetCpu => "target_cpu_per_io",
        }
    }
}

impl Load {
    /// This, with what it lacks from another.
    pub fn or(self, other: &Self) -> Self {
        Self {
            rw: self.rw.or(other.rw),
            rwmix: self.rwmix.or(other.rwmix),
            bs: self.bs.or(other.bs),
            iodepth: self.iodepth.or(other.iodepth),
            queues: self.queues.or(other.queues),
            wait: self.wait.or(other.wait),
            cores: self.cores.or_else(|| other.cores.clone()),
            run_options: self.run_options.or_else(|| other.run_options.clone()),
        }
    }
}

impl std::str::FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "limit" => Ok(Self::Limit { own_buffers: false }),
            "limit?own-buffers" => Ok(Self::Limit { own_buffers: true }),
            name => name.parse().map(Self::Target).map_err(|error| format!("{error}")),
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Limit { own_buffers: false } => f.write_str("limit"),
            Self::Limit { own_buffers: true } => f.write_str("limit?own-buffers"),
            Self::Target(target) => write!(f, "{target}"),
        }
    }
}

/// The options of a load by themselves.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct LoadWords {
    #[command(flatten)]
    load: Load,
}

fn parse_load(text: &str) -> Result<Load, String> {
    match LoadWords::try_parse_from(text.split_whitespace()) {
        Ok(words) => Ok(words.load),
        // The first line says what is wrong; the others are about a command line that isn't this one.
        Err(error) => Err(error.to_string().lines().next().unwrap_or_default().replace("error: ", "")),
    }
}

fn parse_cores(text: &str) -> Result<HostCores, String> {
    match text {
        "any" => Ok(HostCores::Any),
        list => CoreList::parse(list).map(HostCores::List).map_err(|error| error.to_string()),
    }
}

fn parse_ratio(text: &str) -> Result<(Metric, f64), String> {
    let (name, ratio) = text.split_once('=').ok_or("not METRIC=RATIO")?;
    let metric = Metric::ALL.into_iter().find(|metric| metric.name() == name).ok_or_else(|| {
        let names = Metric::ALL.map(Metric::name).join(", ");
        format!("unknown metric {name:?}; there are {names}")
    })?;
    match ratio.parse::<f64>() {
        Ok(ratio) if ratio > 0.0 && ratio.is_finite() => Ok((metric, ratio)),
        _ => Err(format!("{ratio:?} is not a ratio")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it a bound could be held against another metric than its user named.
    #[test]
    fn ratios() {
        assert_eq!(parse_ratio("p99.9=1.5"), Ok((Metric::P99_9, 1.5)));
        for text in ["iops", "ios=1", "iops=x", "iops=-1", "iops=inf", "iops=0"] {
            assert!(parse_ratio(text).is_err(), "{text}");
        }
    }

    // Without it one side could get the load that was meant for the other.
    #[test]
    fn a_side_may_have_a_load_of_its_own() {
        let both = parse_load("--bs 8k --iodepth 256").unwrap();
        let side = parse_load("--queues 64 --iodepth 4").unwrap().or(&both);
        assert_eq!((side.bs, side.iodepth, side.queues), (Some(8192), Some(4), Some(64)));
        let wrong = parse_load("--queue 64").unwrap_err();
        assert!(wrong.contains("--queue") && !wrong.contains('\n'), "{wrong}");
    }
}
