//! The command line.

use crate::compare::CompareOptions;
use crate::limit::LimitOptions;
use crate::run_options::RunArguments;
use clap::{Parser, Subcommand};
use sledge_nvme::fabrics::Nqn;
use sledge_reactor::options::CoreList;

/// Load generator for NVMe/TCP, files and devices.
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
    /// Put load on namespaces, files or devices, and report throughput and latency.
    Run(Box<RunArguments>),
    /// Measure what the sockets alone can do with the bytes of a workload.
    Limit(LimitOptions),
    /// Compare two targets, or a target and the limit, in alternation.
    Compare(Box<CompareOptions>),
}

/// Reads an NQN.
pub fn parse_nqn(text: &str) -> Result<Nqn, String> {
    Nqn::new(text).map_err(|error| error.to_string())
}

/// Reads a list of cores.
pub fn parse_cores(text: &str) -> Result<CoreList, String> {
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
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
