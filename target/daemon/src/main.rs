//! `sledge-target`: reads the command line, starts, serves, and ends in order.
//!
//! A configuration is read and checked as a whole before anything is started, and served only as a whole. What
//! prevents a start is one line on standard error and exit status 1.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sledge_nvmf::target::{Target, TargetError};
use sledge_reactor::Reactors;
use sledge_target::config::document::Document;
use sledge_target::config::load::{self, Entry, Fault};
use sledge_target::daemon::{ClientCalls, Daemon};
use sledge_target::logging::LogControl;
use sledge_target::model::{Draft, Environment, Model};
use sledge_target::notify::{self, notify};
use sledge_target::options::{DRAIN_LIMIT, Options};
use sledge_target::quick_start;
use sledge_target::rpc::{server, socket};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// Why the process could not start: one line.
type Failure = String;

/// Exit status of a process that was told to end at once.
const ENDED_AT_ONCE: i32 = 130;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let log = LogControl::install(options.log_level, options.log_json);
    let source = Source::read(options)?;
    let empty = Model::new(Environment::new(options.cores.count()));
    let mut draft = empty.draft(Default::default());
    load::edit(&mut draft, &source.entries).map_err(|fault| source.locate(&fault))?;

    let (listener, socket_file) = socket::listen(&options.rpc_socket).map_err(named)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("management")
        .enable_all()
        .build()
        .map_err(|error| named(format!("can't start the management threads: {error}")))?;
    // Before the reactors, so that an early signal ends the process in order too.
    let signals = runtime.block_on(async { Signals::new() }).map_err(named)?;
    let reactors = Reactors::start(options.reactors()).map_err(named)?;

    let handles = reactors.handles().to_vec();
    let target = runtime.block_on(Target::start(handles.clone())).map_err(named)?;
    let daemon = Daemon::new(target, handles, empty, log, !options.wait_for_rpc);
    let served = serve(&runtime, &daemon, draft, listener, signals, options);
    let outcome = served.map_err(|error| source.locate(&load::blame(&source.entries, &error)));
    // A reactor that hangs must not keep the process from ending.
    std::thread::spawn(|| {
        std::thread::sleep(DRAIN_LIMIT);
        eprintln!("{}", named("reactors do not end; ending without them"));
        std::process::exit(1);
    });
    drop(socket_file);
    drop(daemon);
    runtime.shutdown_timeout(Duration::from_secs(1));
    reactors.stop();
    outcome
}

/// A line of this program.
fn named(error: impl std::fmt::Display) -> Failure {
    format!("sledge-target: {error}")
}

/// Serves until a signal or a client ends it, then drains.
fn serve(
    runtime: &Runtime,
    daemon: &std::sync::Arc<Daemon>,
    draft: Draft,
    listener: UnixListener,
    mut signals: Signals,
    options: &Options,
) -> Result<(), TargetError> {
    runtime.block_on(async {
        daemon.adopt(draft).await?;
        match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(server::serve(listener, ClientCalls(daemon.clone())))),
            Err(error) => warn!(%error, "there is no management socket"),
        }
        if options.quick_start() {
            say(&quick_start::instructions(options.data_folder(), options.listen));
        }
        info!(
            socket = %options.rpc_socket.display(),
            cores = %options.cores,
            subsystems = daemon.model().definition.subsystems.len(),
            "ready"
        );
        notify(notify::READY);

        tokio::select! {
            name = signals.next() => info!(signal = name, "ending: finishing I/O and flushing devices"),
            () = daemon.wait_stop() => info!("ending, as a client asked: finishing I/O and flushing devices"),
        }
        notify(notify::STOPPING);
        tokio::select! {
            () = daemon.drain(DRAIN_LIMIT) => info!("ended"),
            name = signals.next() => {
                warn!(signal = name, "ending at once");
                std::process::exit(ENDED_AT_ONCE);
            }
        }
        Ok(())
    })
}

/// Tells the person at the terminal; who has closed it does not want to know.
fn say(text: &str) {
    let mut output = std::io::stdout();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Where the configuration comes from.
struct Source {
    document: Option<Document>,
    entries: Vec<Entry>,
}

impl Source {
    fn read(options: &Options) -> Result<Source, Failure> {
        let Some(path) = &options.config else {
            let entries = if options.quick_start() {
                quick_start::entries(options.data_folder(), options.listen).map_err(named)?
            } else {
                Vec::new()
            };
            return Ok(Source { document: None, entries });
        };
        let document = read_document(path)?;
        let entries = load::entries(document.value());
        let mut source = Source { document: Some(document), entries: Vec::new() };
        source.entries = entries.map_err(|fault| source.locate(&fault))?;
        Ok(source)
    }

    /// The one line about a fault, with its place in the file, if there is a file.
    fn locate(&self, fault: &Fault) -> Failure {
        match &self.document {
            Some(document) => document.error(&fault.path, fault.error.to_string()).to_string(),
            None => named(&fault.error),
        }
    }
}

fn read_document(path: &Path) -> Result<Document, Failure> {
    let bytes = fs::read(path)
        .map_err(|error| named(format!("can't read the configuration {}: {error}", path.display())))?;
    Document::parse(path, bytes).map_err(|error| error.to_string())
}
