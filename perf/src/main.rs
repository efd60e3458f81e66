//! `sledge-perf`: NVMe/TCP load, and what it measured.
//!
//! `main` reads the command line, hands it to [`run`] and prints the report; whatever keeps a run from its result is
//! one line on standard error and exit status 1.

mod arguments;
mod histogram;
// Filled in by the engine that is being built on them.
#[allow(dead_code)]
mod job;
mod pattern;
mod progress;
mod report;
#[allow(dead_code)]
mod results;
mod run;
#[allow(dead_code)]
mod target_name;
mod worker;
mod workload;

use arguments::{Arguments, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Command::Run(options) = arguments.command;
    let json = options.json;
    match run::run(options) {
        Ok(report) => {
            let text = if json { report.to_json() } else { report.to_text() };
            println!("{text}");
            match report.failure() {
                None => ExitCode::SUCCESS,
                Some(failure) => {
                    eprintln!("sledge-perf: {failure}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("sledge-perf: {error}");
            ExitCode::FAILURE
        }
    }
}
