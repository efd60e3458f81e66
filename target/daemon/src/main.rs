//! `sledge-target`: reads the command line, runs the process, tells the person at the terminal.

use std::io::Write;

use clap::Parser;
use sledge_target::options::Options;
use sledge_target::{process, quick_start};

fn main() {
    let options = Options::parse();
    let ended = process::run(&options, |_| {
        if options.quick_start() {
            say(&quick_start::instructions(options.data_folder(), options.listen));
        }
    });
    std::process::exit(process::report(ended));
}

/// Tells the person at the terminal; who has closed it does not want to know.
fn say(text: &str) {
    let mut output = std::io::stdout();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}
