//! The command line.

use crate::compare::CompareOptions;
use crate::job_file::CommandLine;
use crate::limit::LimitOptions;
use crate::run_options::RunArguments;
use clap::{Parser, Subcommand};
use sledge_nvme::fabrics::Nqn;
use sledge_reactor::options::CoreList;
use std::net::{IpAddr, Ipv4Addr};

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
    /// The same by a command line of fio's: sledge-perf fio --name=a --filename=/dev/nvme0n1 --rw=randread --bs=4k ...
    Fio(FioArguments),
    /// Measure what the sockets alone can do with the bytes of a workload.
    Limit(LimitOptions),
    /// Compare two targets, or a target and the limit, in alternation.
    Compare(Box<CompareOptions>),
}

/// A command line of fio's.
#[derive(Debug, clap::Args)]
pub struct FioArguments {
    /// Options of jobs as fio has them, of which --name begins one, and job files; and of this program --output,
    /// --output-format, --parse-only, --status-interval, --html, --cores, --busy, --target-pid, --target-socket.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    pub words: Vec<String>,
}

impl FioArguments {
    /// Whether it only wants to know which fio this stands for, as programs around fio do first.
    pub fn asks_for_version(&self) -> bool {
        matches!(self.words.as_slice(), [word] if word == "--version" || word == "-v")
    }

    /// What `run` does by these.
    ///
    /// # Errors
    /// What can't be done, in words.
    pub fn run(&self) -> Result<RunArguments, String> {
        let line = CommandLine::read(&self.words).map_err(|error| error.to_string())?;
        let words =
            ["run", "command-line"].map(str::to_owned).into_iter().chain(line.program.iter().map(|word| {
                // fio's names for what its report is printed as.
                match word.as_str() {
                    "--output-format=normal" => "--output-format=text".to_owned(),
                    "--output-format=json" | "--output-format=json+" => "--output-format=fio".to_owned(),
                    other => other.to_owned(),
                }
            }));
        let words = std::iter::once("sledge-perf".to_owned()).chain(words);
        match Arguments::try_parse_from(words).map_err(|error| error.to_string())?.command {
            Command::Run(mut run) => {
                run.fio = Some(line);
                Ok(*run)
            }
            _ => Err("no load".into()),
        }
    }
}

/// Reads the address of a host.
pub fn parse_host(text: &str) -> Result<IpAddr, String> {
    match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        text => text.parse().map_err(|_| format!("{text:?} is no address; names are not looked up")),
    }
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
    let end = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" | "s" | "sec" => 1.0,
        "ms" | "msec" => 1e-3,
        "us" | "usec" => 1e-6,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("{unit:?} is no unit of time; there are us, ms, s, m, h, d")),
    };
    match number.parse::<f64>().map(|number| number * unit) {
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

    // Without it a time could be another one than its user thinks, as 5m would be five seconds.
    #[test]
    fn times() {
        for (text, seconds) in
            [("0", 0.0), ("1.5", 1.5), ("30s", 30.0), ("5m", 300.0), ("250ms", 0.25), ("1h", 3600.0)]
        {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for text in ["", "s", "-1", "5x", "2d", "NaN", "1e3"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    // Without it a command line of fio's could lose what is about the program, or its jobs.
    #[test]
    fn a_command_line_of_fio() {
        let words = "--output-format=json+ --name=a --filename=x --rw=read --size=4k --parse-only --cores=1";
        let words = words.split(' ').map(str::to_owned).collect();
        let run = FioArguments { words }.run().unwrap();
        assert!(run.parse_only && run.format() == crate::report::Format::Fio);
        let (stages, warnings) = run.stages().unwrap();
        assert_eq!(
            (stages[0].jobs[0].name.as_str(), &stages[0].jobs[0].cores, warnings.len()),
            ("a", &vec![1], 0)
        );
        let wrong = FioArguments { words: vec!["--name=a".into(), "--blocksise=4k".into()] }.run().unwrap();
        assert!(wrong.stages().unwrap_err().starts_with("command line: blocksise: this option is unknown"));
    }

    // Without it the documented command line could stop parsing.
    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
