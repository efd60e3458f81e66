//! The options of `run` that are about traces.

use crate::arguments::parse_size;
use crate::trace::Rules;
use clap::Args;
use std::path::PathBuf;

/// A trace to replay, and one to write.
#[derive(Clone, Debug, Args)]
pub struct TraceArguments {
    /// Replay this trace, a fio iolog of version 2 or 3, instead of a load. All of its I/Os go to the target, whichever file
    /// they were for.
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "rw", "rwmix", "trims", "zeroes", "bs", "bssplit", "distribution", "percentage_random", "blockalign", "ramp",
        "offset", "size", "rate", "think_time", "flush_every", "verify", "verify_only", "zonesize", "identical",
    ])]
    pub read_iolog: Option<PathBuf>,
    /// I/Os of the trace go as soon as there is a place, rather than at their times.
    #[arg(long, requires = "read_iolog")]
    pub replay_no_stall: bool,
    /// Speed of the replay in percent: 200 is twice as fast as it was.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, requires = "read_iolog",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub replay_time_scale: u32,
    /// Divide offsets of the trace by this.
    #[arg(long, value_name = "DIVISOR", default_value_t = 1, requires = "read_iolog",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub replay_scale: u64,
    /// Move offsets of the trace down to multiples of this, a power of two.
    #[arg(long, value_name = "BYTES", requires = "read_iolog", value_parser = parse_power)]
    pub replay_align: Option<u64>,
    /// Leave out some I/Os of the trace: a list of read, write, trim, sync.
    #[arg(long, value_name = "LIST", requires = "read_iolog", value_parser = parse_skip)]
    pub replay_skip: Option<Skip>,
    /// Write what is sent to this file, as a fio iolog of version 3; of further queues to FILE.1 and so on.
    #[arg(long, value_name = "FILE")]
    pub write_iolog: Option<PathBuf>,
}

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip([bool; 4]);

impl TraceArguments {
    /// What is replayed, and how.
    pub fn rules(&self, is_redirected: bool) -> Option<Rules> {
        let path = self.read_iolog.clone()?;
        Some(Rules {
            is_redirected,
            no_stall: self.replay_no_stall,
            time_scale: self.replay_time_scale,
            scale: self.replay_scale,
            align: self.replay_align.unwrap_or(0),
            skip: self.replay_skip.map_or([false; 4], |Skip(skip)| skip),
            ..Rules::new(path)
        })
    }
}

fn parse_skip(text: &str) -> Result<Skip, String> {
    Rules::parse_skip(text).map(Skip)
}

/// Reads a power of two.
fn parse_power(text: &str) -> Result<u64, String> {
    parse_size(text).and_then(|bytes| power(bytes, text))
}

/// A number that is a power of two.
///
/// # Errors
/// When it is none.
pub fn power(bytes: u64, text: &str) -> Result<u64, String> {
    if bytes.is_power_of_two() { Ok(bytes) } else { Err(format!("{text:?} is not a power of two")) }
}
