//! The command line.

use crate::compare::CompareOptions;
use crate::limit::LimitOptions;
use clap::{Args, Parser, Subcommand, ValueEnum};
use sledge_nvme::fabrics::Nqn;
use sledge_reactor::options::CoreList;
use std::net::IpAddr;

/// NVMe/TCP load generator.
#[derive(Debug, Parser)]
#[command(name = "sledge-perf", version, about)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put load on a namespace and report throughput and latency.
    Run(RunOptions),
    /// Measure what the sockets alone can do with the bytes of a workload.
    Limit(LimitOptions),
    /// Compare two targets, or a target and the limit, in alternation.
    Compare(Box<CompareOptions>),
}

/// Which I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
    /// Random reads.
    Randread,
    /// Random writes.
    Randwrite,
    /// Sequential reads and writes, see --rwmix.
    Rw,
    /// Random reads and writes, see --rwmix.
    Randrw,
}

impl Mode {
    /// True for random offsets.
    pub fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw)
    }

    /// Percentage of reads.
    pub fn read_percent(self, mix: u8) -> u8 {
        match self {
            Self::Read | Self::Randread => 100,
            Self::Write | Self::Randwrite => 0,
            Self::Rw | Self::Randrw => mix,
        }
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
        }
    }
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Address of the target.
    #[arg(long, default_value = "127.0.0.1")]
    pub traddr: IpAddr,
    /// Port of the target.
    #[arg(long, default_value_t = 4420)]
    pub trsvcid: u16,
    /// Subsystem to connect to.
    #[arg(long, value_parser = parse_nqn)]
    pub nqn: Nqn,
    /// Host NQN; one is made up when it is not given.
    #[arg(long, value_parser = parse_nqn)]
    pub hostnqn: Option<Nqn>,
    /// Namespace.
    #[arg(long, default_value_t = 1)]
    pub nsid: u32,
    /// Which I/O. Writes destroy what is on the namespace.
    #[arg(long, value_enum, default_value = "randread")]
    pub rw: Mode,
    /// Percentage of reads in rw and randrw.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub rwmix: u8,
    /// Bytes of one I/O; k and m are 1024 and 1024 * 1024.
    #[arg(long, default_value = "4k", value_parser = parse_size)]
    pub bs: u64,
    /// I/Os outstanding on each queue.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub iodepth: u16,
    /// Cores to use, one reactor each: a list such as 1,3-5 or a mask such as 0x2.
    #[arg(long, default_value = "0", value_parser = parse_cores)]
    pub cores: CoreList,
    /// Queue pairs on each core.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub queues: u16,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds)]
    pub time: f64,
    /// Seconds of load before measuring.
    #[arg(long, default_value_t = 0.0, value_parser = parse_seconds)]
    pub ramp: f64,
    /// Use only so many bytes from the start of the namespace.
    #[arg(long, value_parser = parse_size)]
    pub size: Option<u64>,
    /// Never sleep: the reactors poll all the time.
    #[arg(long)]
    pub busy: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Ask for header digests.
    #[arg(long)]
    pub header_digest: bool,
    /// Ask for data digests.
    #[arg(long)]
    pub data_digest: bool,
    /// Check what is read against what was written, and read everything back at the end.
    #[arg(long)]
    pub verify: bool,
    /// Carry on over lost connections: reconnect and send again what was outstanding.
    #[arg(long)]
    pub reconnect: bool,
    /// Seed of the random offsets.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

fn parse_nqn(text: &str) -> Result<Nqn, String> {
    Nqn::new(text).map_err(|error| error.to_string())
}

fn parse_cores(text: &str) -> Result<CoreList, String> {
    CoreList::parse(text).map_err(|error| error.to_string())
}

/// Reads a number of seconds.
pub fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("not a number of seconds between 0 and 86400".into()),
    }
}

/// Reads a size such as 512, 4k, 1M, 2GiB.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(lower.len());
    let shift = match &lower[digits..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        unit => return Err(format!("unknown unit {unit:?}; use k, m, g or t")),
    };
    let number: u64 = lower[..digits].parse().map_err(|_| "not a number".to_owned())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0).ok_or_else(|| "zero, or too large".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it a size on the command line could mean something else than its user thinks.
    #[test]
    fn sizes() {
        for (text, bytes) in [("512", 512), ("4k", 4096), ("4K", 4096), ("128KiB", 131_072), ("1m", 1 << 20)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "4x", "-1", "0", "99999999999999999999", "99999999999t"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    // Without it the documented command line could stop parsing.
    #[test]
    fn the_command_line_parses() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        let line = "sledge-perf run --nqn nqn.2016-06.io.spdk:cnode1 --rw randrw --rwmix 30 --bs 8k --cores 0-1 --json";
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let Command::Run(options) = arguments.command else { panic!("not run") };
        assert_eq!((options.bs, options.rw.read_percent(options.rwmix)), (8192, 30));
    }
}
