//! A reactor that panics takes the process with it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use clap::Parser;
use sledge_reactor::options::CoreList;
use sledge_target::daemon::Daemon;
use sledge_target::options::Options;
use sledge_target::process;

use crate::support::{wait_for_end, without_environment};

/// In the environment of this program when it is to be the target: the folder of its socket.
const FOLDER: &str = "SLEDGE_TEST_DYING_TARGET";

/// A target with two reactors, of which the second panics as soon as everything is served.
fn die(folder: &OsStr) -> ! {
    let socket = Path::new(folder).join("rpc.sock");
    let words =
        ["sledge-target", "--empty", "--log-level", "ERROR", "--rpc-socket", socket.to_str().unwrap()];
    let options = Options { cores: CoreList::floating(2), ..Options::parse_from(words) };
    let ended = process::run(&options, |daemon: &Arc<Daemon>| {
        drop(daemon.reactors()[1].spawn(|| async { panic!("on purpose: a test of panics") }));
    });
    // As `main` does.
    std::process::exit(process::report(ended));
}

// Without it: a target of which a part is dead would stay, its hosts waiting, and nobody would start it again.
#[test]
fn a_panic_on_a_reactor_ends_the_process() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        die(&folder);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut process = without_environment(Command::new(std::env::current_exe().unwrap()))
        .args(["--exact", "death::a_panic_on_a_reactor_ends_the_process", "--nocapture"])
        .env(FOLDER, folder.path())
        .env_remove("RUST_BACKTRACE")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = wait_for_end(&mut process);
    let said = std::io::read_to_string(process.stderr.take().unwrap()).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    let words = |line: usize, words: &str| assert!(lines[line].contains(words), "{said}");
    words(0, "panicked: on purpose");
    words(0, "death.rs");
    words(0, "reactor-1");
    assert_eq!(
        lines.last().unwrap(),
        &"sledge-target: reactor 1 has ended, its last words are in the log; ending, start it again"
    );
    assert!(lines.len() <= 3, "{said}");
    assert!(!folder.path().join("rpc.sock").exists());
}
