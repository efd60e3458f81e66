//! Running one test over many seeds, and one seed again.
//!
//! Invariant: a failing seed is always named together with the command that replays it. Called by tests.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Names the one seed to run.
const ONE: &str = "SLEDGE_SEED";
/// Says how many seeds to run instead of the number that the test asks for.
const MANY: &str = "SLEDGE_SEEDS";

/// Runs `test` with the seeds 0 to `count - 1`, or as many as the environment variable `SLEDGE_SEEDS` says,
/// or only with the one that `SLEDGE_SEED` says. With `SLEDGE_SIM_TRACE` set, each event of a world is a
/// line on standard error.
///
/// # Panics
/// When `test` does; the seed and how to replay it are printed first. When a variable is not a number.
pub fn for_seeds(count: u64, mut test: impl FnMut(u64)) {
    let (first, end) = match (number(ONE), number(MANY)) {
        (Some(seed), _) => (seed, seed.saturating_add(1)),
        (None, Some(many)) => (0, many),
        (None, None) => (0, count),
    };
    for seed in first..end {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            let thread = std::thread::current();
            let name = thread.name().filter(|name| *name != "main").unwrap_or("NAME_OF_THE_TEST");
            eprintln!("seed {seed} fails; replay it with: {ONE}={seed} cargo test -- --exact {name}");
            resume_unwind(panic);
        }
    }
}

/// Whether worlds print their events.
pub(super) fn verbose() -> bool {
    env::var_os("SLEDGE_SIM_TRACE").is_some()
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(_) => panic!("{variable} is {text:?}, which is not a number"),
    }
}
