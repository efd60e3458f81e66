//! Traces: fio's iologs of versions 2 and 3, replayed and written.
//!
//! Owns the format, and the threads that read and write such files for lanes. Invariants: a trace is never held in memory
//! as a whole; lanes neither read nor write files, and allocate nothing for an I/O. A trace is gone through once before
//! it is replayed, so that what is wrong with it is known before anything is written.
//!
//! | file | what |
//! |---|---|
//! | `line` | one line |
//! | `entries` | the I/Os of a file, one by one |
//! | `summary` | what there is in a file |
//! | `replay` | the I/Os of a file for a lane, when they are due |
//! | `record` | what a lane sends, into a file |

mod entries;
mod line;
mod record;
mod replay;
mod summary;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use entries::{Entries, Entry, TraceError};
pub use record::Recorder;
pub use replay::Replay;
pub use summary::Summary;

use crate::job::{Job, Mode, SizeSplit};
use crate::workload::Kind;
use serde::Serialize;
use std::path::PathBuf;

/// A trace that has been gone through once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trace {
    /// How it is replayed.
    pub rules: Rules,
    /// What there is in it.
    pub summary: Summary,
}

impl Trace {
    /// Goes through a trace.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn of(rules: Rules) -> Result<Self, TraceError> {
        let summary = Summary::of(&rules)?;
        Ok(Self { rules, summary })
    }

    /// `job` with this trace in place of a load of its own: it ends with the trace, unless it has an end before.
    pub fn instead_of_load(self, job: Job) -> Job {
        let [reads, writes, trims, _] = self.summary.ios;
        let mode = match (reads, writes, trims) {
            (_, 0, 0) => Mode::Read,
            (0, 0, _) => Mode::Trim,
            (0, ..) => Mode::Write,
            _ => Mode::Rw,
        };
        // Not over 100.
        let percent = (reads as f64 / (reads + writes + trims) as f64 * 100.0) as u8;
        let sizes = SizeSplit::one(self.summary.largest.max(1).next_multiple_of(4096));
        Job {
            mode,
            read_percent: percent.clamp(1, 99),
            read_sizes: sizes.clone(),
            write_sizes: sizes,
            passes: None,
            trace: Some(self),
            ..job
        }
    }
}

/// How a trace is replayed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rules {
    /// Where it is.
    pub path: PathBuf,
    /// All I/Os go to the target, whichever file they were for.
    pub is_redirected: bool,
    /// I/Os go as soon as there is a place, rather than when they are due.
    pub no_stall: bool,
    /// Speed in percent: 200 is twice as fast.
    pub time_scale: u32,
    /// Offsets are divided by this.
    pub scale: u64,
    /// Offsets go down to multiples of this power of two; 0 leaves them.
    pub align: u64,
    /// Left out: reads, writes, deallocations, flushes.
    pub skip: [bool; 4],
}

impl Rules {
    /// A trace as it is.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            is_redirected: false,
            no_stall: false,
            time_scale: 100,
            scale: 1,
            align: 0,
            skip: [false; 4],
        }
    }

    /// Whether such I/Os are left out.
    fn skips(&self, kind: Kind) -> bool {
        match kind {
            Kind::Read => self.skip[0],
            Kind::Write | Kind::Zeroes => self.skip[1],
            Kind::Trim => self.skip[2],
            Kind::Flush => self.skip[3],
        }
    }

    /// Reads what is left out: `read,write,trim,sync`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse_skip(text: &str) -> Result<[bool; 4], String> {
        let mut skip = [false; 4];
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let place = ["read", "write", "trim", "sync"].iter().position(|known| *known == word);
            skip[place.ok_or_else(|| format!("{word:?} is none of read, write, trim, sync"))?] = true;
        }
        Ok(skip)
    }
}
