//! `sledge-perf`: NVMe/TCP load, and what it measured.
//!
//! `main` reads the command line, hands it to [`run`] and prints the report; whatever keeps a run from its result is
//! one line on standard error and exit status 1.

mod arguments;
mod compare;
mod engine;
mod histogram;
mod interrupt;
mod job;
mod job_file;
mod limit;
mod progress;
mod report;
mod results;
mod run_options;
mod target;
mod target_name;
mod trace;
mod trace_options;
mod verify;
mod workload;

use arguments::{Arguments, Command};
use clap::Parser;
use compare::CompareOptions;
use engine::RunOptions;
use job_file::Stage;
use limit::LimitOptions;
use progress::Progress;
use report::{Report, merge_jobs};
use results::Results;
use run_options::RunArguments;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run(&arguments),
        Command::Fio(arguments) if arguments.asks_for_version() => {
            print_line(report::FIO_VERSION);
            Ok(())
        }
        Command::Fio(arguments) => arguments.run().and_then(|arguments| run(&arguments)),
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
    let (stages, warnings) = arguments.stages()?;
    for warning in warnings {
        eprintln!("sledge-perf: {warning}");
    }
    // A page that can't be written is better known before the run than after it.
    let mut page = match &arguments.html {
        Some(path) => {
            let failed = |error| format!("{}: {error}", path.display());
            Some((path, std::fs::File::create(path).map_err(failed)?))
        }
        None => None,
    };
    let mut output = match arguments.output.as_ref().filter(|_| !arguments.parse_only) {
        Some(path) => {
            let failed = |error| format!("{}: {error}", path.display());
            Some((path, std::fs::File::create(path).map_err(failed)?))
        }
        None => None,
    };
    if arguments.parse_only {
        print_line(&plan(&stages));
        return Ok(());
    }
    interrupt::watch();
    let (mut runs, mut failed) = (Vec::new(), None);
    for (index, stage) in stages.iter().enumerate() {
        match run_stage(arguments, stage, (index + 1, stages.len())) {
            Ok(results) => runs.push(results),
            Err(error) => failed = Some(error),
        }
        if failed.is_none() && interrupt::is_set() {
            failed = Some("interrupted".into());
        }
        if failed.is_some() {
            break;
        }
    }
    if let (Some(error), true) = (&failed, runs.is_empty()) {
        return Err(error.clone());
    }
    // What was measured before a failure is worth telling.
    let report = Report::new(runs);
    let text = report.render(arguments.format());
    let written = match &mut output {
        Some((_, file)) => writeln!(file, "{text}"),
        None => writeln!(std::io::stdout(), "{text}"),
    };
    written.map_err(|error| format!("the report: {error}"))?;
    if let Some((path, file)) = &mut page {
        let written = file.write_all(report.render_html().as_bytes());
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    failed.or_else(|| report.failure()).map_or(Ok(()), Err)
}

/// What would run, in words.
fn plan(stages: &[Stage]) -> String {
    let mut lines = Vec::new();
    for (index, stage) in stages.iter().enumerate() {
        if stages.len() > 1 {
            lines.push(format!("stage {}", index + 1));
        }
        for job in &stage.jobs {
            lines.push(format!("{}: {}", job.name, report::describe(job)));
            lines.push(format!("  on {}", job.target));
        }
    }
    lines.join("\n")
}

/// Runs jobs at the same time.
fn run_stage(arguments: &RunArguments, stage: &Stage, number: (usize, usize)) -> Result<Results, String> {
    for job in stage.jobs.iter().filter(|_| arguments.job_file.is_some()) {
        if let Some(done) = job_file::lay_out(job).map_err(|error| error.to_string())? {
            eprintln!("sledge-perf: {done}");
        }
    }
    let mut options = RunOptions::new(&stage.jobs);
    options.target_pid = arguments.target_pid;
    if let Some(socket) = &arguments.target_socket {
        options.target_pid = Some(engine::process_behind(socket)?);
    }
    let progress = Progress::start(options.live.clone(), &stage.jobs, number, arguments.status_interval());
    let results = engine::run(&stage.jobs, &options);
    progress.stop();
    let mut results = results.map_err(|error| error.to_string())?;
    merge_jobs(&mut results, &stage.report_as);
    Ok(results)
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
