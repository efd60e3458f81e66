//! `sledge`: a person's and an operator's hand on a running system.
//!
//! Subcommands by noun ([`arguments`]), each a few calls of the management interface ([`client`]) and a table or
//! JSON ([`output`]). Errors are one line that says what to do, and exit status 1.

mod arguments;
mod client;
mod commands;
mod output;
mod size;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use arguments::{Arguments, Command};
use client::{Client, Failure};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("sledge: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Command::Completion { shell } = arguments.command {
        clap_complete::generate(shell, &mut Arguments::command(), "sledge", &mut std::io::stdout());
        return Ok(());
    }
    let mut client = Client::connect(arguments.socket)?;
    let report = commands::run(&mut client, arguments.command)?;
    report.print(arguments.json).map_err(|error| Failure::Usage(format!("can't print: {error}")))
}
