//! fio job files.
//!
//! [`read`] takes a file as fio does (sections, `[global]`, `include`, inline comments, `${VARIABLE}`) and gives the
//! [`Job`]s that it asks for, stage by stage: `stonewall` begins a stage, the jobs of a stage run at once. An option
//! that would change which I/O is made, and that is not known here, is an error with file, line and name; one that
//! only concerns how fio itself goes about it is accepted, and named in one warning. `docs/sledge-perf.md` lists both.
//!
//! `run` calls it with what the command line says besides.

mod command_line;
mod ignored;
mod layout;
mod options;
mod plan;
mod refused;
mod syntax;
#[cfg(test)]
mod tests;
mod values;

use std::path::{Path, PathBuf};

use crate::job::{Job, Target};

pub use command_line::CommandLine;
pub use layout::lay_out;

/// What the command line says for all jobs of a file.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Takes the place of every `filename`.
    pub target: Option<Target>,
    /// For jobs without `cpus_allowed`, in turn.
    pub cores: Vec<usize>,
    /// Reactors never sleep.
    pub busy: bool,
    /// Seed of jobs that have no `randseed`.
    pub seed: u64,
}

/// A file that was read.
#[derive(Clone, Debug)]
pub struct JobFile {
    /// What follows one another.
    pub stages: Vec<Stage>,
    /// One line each.
    pub warnings: Vec<String>,
}

/// Jobs that run at the same time.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// The jobs.
    pub jobs: Vec<Job>,
    /// The entry of the report that each job goes into; jobs with one number are reported as one.
    pub report_as: Vec<usize>,
    /// The entry that jobs with `group_reporting` go into from here on.
    open_group: Option<usize>,
}

impl Stage {
    /// Of jobs that are reported one by one.
    pub fn new(jobs: Vec<Job>) -> Self {
        let report_as = (0..jobs.len()).collect();
        Self { jobs, report_as, open_group: None }
    }
}

/// Where a file says something that can't be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobFileError {
    /// A file can't be read.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// A line is neither a section nor an option.
    #[error("{place}: {error}")]
    Line {
        /// File and line.
        place: String,
        /// Why.
        error: String,
    },
    /// An option that is unknown, or whose value is.
    #[error("{place}: {option}: {error}")]
    Option {
        /// File and line.
        place: String,
        /// Which option.
        option: String,
        /// Why.
        error: String,
    },
    /// The options of a job don't go together.
    #[error("{place}: job {job:?}: {error}")]
    Job {
        /// File and line of its section.
        place: String,
        /// Its name.
        job: String,
        /// Why.
        error: String,
    },
}

/// Makes jobs of a command line of fio's.
///
/// # Errors
/// When it asks for what can't be done here. The first such thing is named.
pub fn take(line: &CommandLine, defaults: &Defaults) -> Result<JobFile, JobFileError> {
    plan::plan(Path::new("command line"), &line.sections, defaults)
}

/// Reads a job file.
///
/// # Errors
/// When a file can't be read, or asks for what can't be done here. The first such thing is named.
pub fn read(path: &Path, defaults: &Defaults) -> Result<JobFile, JobFileError> {
    let sections = syntax::read(path)?;
    plan::plan(path, &sections, defaults)
}
