//! `sledge-perf`: NVMe/TCP load, and what it measured.
//!
//! `main` reads the command line, hands it to [`run`] and prints the report; whatever keeps a run from its result is
//! one line on standard error and exit status 1.

mod arguments;
mod compare;
mod engine;
mod histogram;
mod job;
#[allow(dead_code)]
mod job_file;
mod limit;
mod progress;
// Takes the engine's results.
#[allow(dead_code, unused_imports)]
mod report;
// The reports don't use all of it yet.
#[allow(dead_code)]
mod results;
mod run_options;
mod target;
mod target_name;
mod verify;
mod workload;

use arguments::{Arguments, Command};
use clap::Parser;
use compare::CompareOptions;
use engine::RunOptions;
use limit::LimitOptions;
use progress::Progress;
use report::old::Report;
use run_options::RunArguments;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Limit(options) => limit(&options),
        Command::Compare(options) => compare(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("sledge-perf: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &RunArguments) -> Result<(), String> {
    let jobs = arguments.jobs();
    let mut options = RunOptions::new(&jobs);
    options.target_pid = arguments.target_pid;
    if let Some(socket) = &arguments.target_socket {
        options.target_pid = Some(engine::process_behind(socket)?);
    }
    let progress = Progress::start(options.live.clone(), &jobs);
    let results = engine::run(&jobs, &options);
    progress.stop();
    let report = Report::new(&results.map_err(|error| error.to_string())?);
    print_line(&if arguments.json { report.to_json() } else { report.to_text() });
    report.failure().map_or(Ok(()), Err)
}

fn limit(options: &LimitOptions) -> Result<(), String> {
    let report = limit::run(options).map_err(|error| error.to_string())?;
    print_line(&if options.json { report.to_json() } else { report.to_text() });
    Ok(())
}

fn compare(options: &CompareOptions) -> Result<(), String> {
    let report = compare::run(options).map_err(|error| error.to_string())?;
    print_line(&if options.json { report.to_json() } else { report.to_text() });
    if report.met() { Ok(()) } else { Err("a bound is not met".into()) }
}

/// Prints a report. A reader that has seen enough is no reason to fail.
fn print_line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
