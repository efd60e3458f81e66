//! `sledge-perf`: NVMe/TCP load, and what it measured.
//!
//! `main` reads the command line, hands it to [`run`] and prints the report; whatever keeps a run from its result is
//! one line on standard error and exit status 1.

mod arguments;
mod compare;
mod histogram;
// Filled in by the engine that is being built on them.
#[allow(dead_code)]
mod job;
mod limit;
mod pattern;
mod progress;
// Takes the engine's results.
#[allow(dead_code, unused_imports)]
mod report;
#[allow(dead_code)]
mod results;
mod run;
#[allow(dead_code)]
mod target_name;
mod worker;
mod workload;

use arguments::{Arguments, Command, RunOptions};
use clap::Parser;
use compare::CompareOptions;
use limit::LimitOptions;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(options) => run(options),
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

fn run(options: RunOptions) -> Result<(), String> {
    let json = options.json;
    let report = run::run(options).map_err(|error| error.to_string())?;
    println!("{}", if json { report.to_json() } else { report.to_text() });
    report.failure().map_or(Ok(()), Err)
}

fn limit(options: &LimitOptions) -> Result<(), String> {
    let report = limit::run(options).map_err(|error| error.to_string())?;
    println!("{}", if options.json { report.to_json() } else { report.to_text() });
    Ok(())
}

fn compare(options: &CompareOptions) -> Result<(), String> {
    let report = compare::run(options).map_err(|error| error.to_string())?;
    println!("{}", if options.json { report.to_json() } else { report.to_text() });
    if report.met() { Ok(()) } else { Err("a bound is not met".into()) }
}
