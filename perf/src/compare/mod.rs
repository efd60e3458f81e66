//! `compare`: two targets, or a target and the limit, in alternation.
//!
//! A machine that other programs use too is slower in one second than in the next. So nothing is compared that was
//! not measured side by side: many short rounds of one turn of each, ratios within a round, and the median of these.
//! `main` calls [`run`]; turns are processes of this same program.

mod options;
mod process;
mod report;
mod sample;
mod side;
mod statistics;

use std::io::{IsTerminal, Write};

pub use options::CompareOptions;
pub use report::CompareReport;

use report::{NotMeasured, Round};
use side::{Player, SideError};

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Options that don't go together, before anything ran.
    #[error("{0}")]
    Options(SideError),
    /// A bound that can't be decided.
    #[error("{0}")]
    Bound(#[from] NotMeasured),
    /// A turn failed.
    #[error("{side} in round {round}: {error}")]
    Turn {
        /// A or B.
        side: char,
        /// Which round, with those of the warm-up.
        round: u32,
        /// Why.
        error: SideError,
    },
}

/// Compares.
///
/// # Errors
/// When the options don't go together, or a turn fails.
pub fn run(options: &CompareOptions) -> Result<CompareReport, CompareError> {
    let load = |own: &Option<options::Load>| own.clone().unwrap_or_default().or(&options.load);
    let (load_a, load_b) = (load(&options.with_a), load(&options.with_b));
    let a = Player::new(&options.a, &options.b, &load_a, options.start_a.as_deref(), options);
    let b = Player::new(&options.b, &options.a, &load_b, options.start_b.as_deref(), options);
    let (a, b) = (a.map_err(CompareError::Options)?, b.map_err(CompareError::Options)?);
    let total = u32::from(options.warm_up) + u32::from(options.rounds);
    let mut rounds = Vec::new();
    for number in 0..total {
        progress(number + 1, total);
        let turn = |side: char, player: &Player| {
            player.turn().map_err(|error| CompareError::Turn { side, round: number + 1, error })
        };
        let a_first = number % 2 == 0;
        let round = if a_first {
            let a = turn('A', &a)?;
            Round { a_first, a, b: turn('B', &b)? }
        } else {
            let b = turn('B', &b)?;
            Round { a_first, a: turn('A', &a)?, b }
        };
        if number >= u32::from(options.warm_up) {
            rounds.push(round);
        }
    }
    progress(0, 0);
    Ok(CompareReport::new(options, rounds)?)
}

/// One line on a terminal; removed at the end.
fn progress(round: u32, total: u32) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let line = if total == 0 { String::new() } else { format!("round {round} of {total}") };
        // A terminal that is gone is no reason to end the comparison.
        let _ = write!(stderr, "\r{line:30}\r");
    }
}
