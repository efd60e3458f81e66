//! `sledge`: a person's and an operator's hand on a running system.
//!
//! Subcommands by noun ([`arguments`]), each a few calls of the management interface ([`client`]) and a table or
//! JSON ([`output`]). Errors are one line that says what to do, and exit status 1.

mod arguments;
mod client;
mod commands;
mod nvme_arguments;
mod output;
mod setup;
mod size;

use std::io::{ErrorKind, Write};
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

/// Prints a whole result. A reader who has gone away is no error.
fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Usage(format!("can't print: {error}")))
        }
        _ => Ok(()),
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Command::Completion { shell } = arguments.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "sledge", &mut script);
        return print(&script);
    }
    if let Command::Setup { root, command } = arguments.command {
        return print(setup::run(root, command)?.form(arguments.json).as_bytes());
    }
    let mut client = Client::connect(arguments.socket)?;
    let report = commands::run(&mut client, arguments.command)?;
    print(report.form(arguments.json).as_bytes())
}
