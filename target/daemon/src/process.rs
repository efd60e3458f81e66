//! The life of the process: start, serve, end in order.
//!
//! A configuration is read and checked as a whole before anything is started, and served only as a whole. What
//! prevents a start is one line and exit status 1; so is the end of a reactor, without which the process would
//! be there and not serve. Called by `main`.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sledge_nvmf::target::{Target, TargetError};
use sledge_reactor::Reactors;
use sledge_reactor::message::Handle;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::document::Document;
use crate::config::load::{self, Entry, Fault};
use crate::daemon::{ClientCalls, Daemon};
use crate::logging::{self, LogControl};
use crate::model::{Draft, Environment, Model};
use crate::notify::{self, notify};
use crate::nvme_changes;
use crate::options::{DRAIN_LIMIT, Options};
use crate::quick_start;
use crate::rpc::{server, socket};

/// Why the process could not start, or ended by itself: one line.
pub type Failure = String;

/// How long the end waits for answers to management clients to leave.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The call of a configuration that waits for reactors.
const NEEDS_REACTORS: &str = "bdev_nvme_attach_controller";

/// Exit status of a process that was told to end at once.
const ENDED_AT_ONCE: i32 = 130;

/// Why a process that had started could not go on.
enum Trouble {
    /// The NVMe/TCP target can't serve the configuration.
    Target(TargetError),
    /// A reactor has ended, and with it whatever it served.
    ReactorGone(u32),
}

/// Says on standard error why the process ended, if it failed, and gives its exit status.
pub fn report(ended: Result<(), Failure>) -> i32 {
    match ended {
        Ok(()) => 0,
        Err(failure) => {
            // Nobody may read it any more.
            let _ = writeln!(std::io::stderr(), "{failure}");
            1
        }
    }
}

/// Runs the process to its end. `ready` is called once everything is served, before a service manager is told.
///
/// # Errors
/// One line, for standard error: what prevented the start, or which reactor ended.
pub fn run(options: &Options, ready: impl FnOnce(&Arc<Daemon>)) -> Result<(), Failure> {
    let log = LogControl::install(options.log_level, options.log_json);
    logging::log_panics();
    let source = Source::read(options)?;
    let empty = Model::new(Environment::new(options.cores.count()));
    // Controllers elsewhere are connected while the configuration is read, by reactors; else these start last.
    let early = source.entries.iter().any(|entry| entry.method == NEEDS_REACTORS);
    let mut reactors = if early { Some(start_reactors(options, &empty)?) } else { None };
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
    let reactors = match reactors.take() {
        Some(reactors) => reactors,
        None => start_reactors(options, &empty)?,
    };

    let handles = reactors.handles().to_vec();
    let target = runtime.block_on(Target::start(handles.clone())).map_err(named)?;
    let daemon = Daemon::new(target, handles, empty, log, !options.wait_for_rpc);
    let served = serve(&runtime, &daemon, draft, listener, signals, || {
        info!(
            socket = %options.rpc_socket.display(),
            cores = %options.cores,
            subsystems = daemon.model().definition.subsystems.len(),
            "ready"
        );
        ready(&daemon);
        notify(notify::READY);
    });
    let outcome = served.map_err(|trouble| match trouble {
        Trouble::Target(error) => source.locate(&load::blame(&source.entries, &error)),
        Trouble::ReactorGone(id) => {
            named(format!("reactor {id} has ended, its last words are in the log; ending, start it again"))
        }
    });
    // A reactor that hangs must not keep the process from ending.
    std::thread::spawn(|| {
        std::thread::sleep(DRAIN_LIMIT);
        std::process::exit(report(Err(named("reactors do not end; ending without them"))));
    });
    drop(socket_file);
    drop(daemon);
    runtime.shutdown_timeout(Duration::from_secs(1));
    reactors.stop();
    outcome
}

fn start_reactors(options: &Options, model: &Model) -> Result<Reactors, Failure> {
    #[cfg(feature = "dpdk")]
    if options.dpdk {
        sledge_nvme::dpdk::start_with_pools(None).map_err(named)?;
    }
    let reactors = Reactors::start(options.reactors()).map_err(named)?;
    model.nvme.controllers.start(reactors.handles().to_vec());
    Ok(reactors)
}

/// A line of this program.
fn named(error: impl std::fmt::Display) -> Failure {
    format!("sledge-target: {error}")
}

/// Serves until a signal or a client ends it, then drains.
fn serve(
    runtime: &Runtime,
    daemon: &Arc<Daemon>,
    draft: Draft,
    listener: UnixListener,
    mut signals: Signals,
    ready: impl FnOnce(),
) -> Result<(), Trouble> {
    runtime.block_on(async {
        daemon.adopt(draft).await.map_err(Trouble::Target)?;
        let answering = server::Answering::default();
        let serving = (ClientCalls(daemon.clone()), answering.clone());
        match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(server::serve(listener, serving.0, serving.1))),
            Err(error) => warn!(%error, "there is no management socket"),
        }
        drop(tokio::spawn(nvme_changes::follow(daemon.clone())));
        drop(tokio::spawn(nvme_changes::look_for_drives(daemon.clone())));
        drop(tokio::spawn(nvme_changes::retry_deferred(daemon.clone())));
        ready();

        let ended = tokio::select! {
            name = signals.next() => {
                info!(signal = name, "ending: finishing I/O and flushing devices");
                Ok(())
            }
            () = daemon.wait_stop() => {
                info!("ending, as a client asked: finishing I/O and flushing devices");
                Ok(())
            }
            id = end_of_a_reactor(daemon.reactors()) => Err(Trouble::ReactorGone(id)),
        };
        notify(notify::STOPPING);
        // Hosts of the other reactors connect again to the process that follows; waiting would keep them all out.
        ended?;
        let drain = async {
            daemon.drain(DRAIN_LIMIT).await;
            let model = daemon.model();
            let _ = tokio::time::timeout(DRAIN_LIMIT, model.nvme.controllers.shut_down()).await;
            let _ = tokio::time::timeout(LAST_ANSWERS, answering.write()).await;
        };
        tokio::select! {
            () = drain => {}
            name = signals.next() => {
                warn!(signal = name, "ending at once");
                std::process::exit(ENDED_AT_ONCE);
            }
        }
        if let Some(gone) = daemon.reactors().iter().find(|reactor| reactor.is_gone()) {
            return Err(Trouble::ReactorGone(gone.id()));
        }
        info!("ended");
        Ok(())
    })
}

/// Waits until one of the reactors has ended, which none does by itself but by a panic; gives its number.
async fn end_of_a_reactor(reactors: &[Handle]) -> u32 {
    let mut watches = JoinSet::new();
    for reactor in reactors {
        // A task that never ends is given up only with its reactor.
        let (id, ended) = (reactor.id(), reactor.spawn(std::future::pending::<()>));
        watches.spawn(async move {
            let _ = ended.await;
            id
        });
    }
    match watches.join_next().await {
        Some(Ok(id)) => id,
        // There are always reactors, and nothing in the watches panics or cancels them.
        Some(Err(_)) | None => std::future::pending().await,
    }
}

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            // The terminal is closed under a target that was started from it.
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
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
