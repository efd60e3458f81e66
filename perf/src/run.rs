//! One run: reactors, the controller, a worker on each reactor, the report.

use crate::arguments::RunOptions;
use crate::progress::Progress;
use crate::report::old::Report;
use crate::worker::{Shared, Task, WorkerError, work};
use crate::workload::MAX_VERIFIED_UNITS;
use sledge_nvme::io::Geometry;
use sledge_nvmf::host::{ConnectOptions, Controller, HostError, HostIdentity, OnLoss, QueueConnector};
use sledge_reactor::memory::PoolOptions;
use sledge_reactor::options::{ReactorOptions, Wait};
use sledge_reactor::time::sleep;
use sledge_reactor::{ReactorGone, Reactors, StartError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Largest I/O: one buffer of the pool.
const MAX_BYTES: u64 = 1 << 20;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The reactors did not start.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The target can't be used.
    #[error("{0}")]
    Host(#[from] HostError),
    /// A worker did not start.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// Options that contradict each other or the target.
    #[error("{0}")]
    Options(String),
    /// A reactor's thread died.
    #[error("a reactor died: {0}")]
    Gone(#[from] ReactorGone),
}

/// What a controller said that the run needs.
struct Remote {
    connector: QueueConnector,
    geometry: Geometry,
    max_transfer: Option<u64>,
    io_queues: u16,
}

/// Runs the load.
///
/// # Errors
/// Whatever keeps it from starting. Failures of I/O are in the report.
pub fn run(options: RunOptions) -> Result<Report, RunError> {
    if !options.bs.is_multiple_of(512) || options.bs > MAX_BYTES {
        return Err(RunError::Options(format!("--bs {} is not a multiple of 512 up to 1m", options.bs)));
    }
    let read_percent = options.rw.read_percent(options.rwmix);
    if options.verify && read_percent == 100 {
        return Err(RunError::Options(
            "--verify checks what the run itself wrote: use a --rw that writes".into(),
        ));
    }
    let cores = options.cores.count();
    let ios = u64::from(options.queues) * u64::from(options.iodepth);
    // Each buffer takes a size class, a power of two; room for some more besides.
    let pool = ios * options.bs.next_power_of_two().max(4096) + (8 << 20);
    let reactors = Reactors::start(ReactorOptions {
        cores: options.cores.clone(),
        wait: if options.busy { Wait::Busy } else { Wait::default() },
        pool: PoolOptions { total_bytes: pool as usize },
    })?;
    let ended = Arc::new(AtomicBool::new(false));
    // Until there is a controller, there is none to close.
    let closed = Arc::new(AtomicBool::new(true));
    let result = load(&options, &reactors, cores, read_percent, &ended, &closed);
    // The controller is shut down in order, if it is there to be.
    ended.store(true, Ordering::Release);
    for _ in 0..200 {
        if closed.load(Ordering::Acquire) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    reactors.stop();
    result
}

fn load(
    options: &RunOptions,
    reactors: &Reactors,
    cores: usize,
    read_percent: u8,
    ended: &Arc<AtomicBool>,
    closed: &Arc<AtomicBool>,
) -> Result<Report, RunError> {
    let remote = attach(options, reactors, cores, ended.clone(), closed.clone())?;
    let geometry = remote.geometry;
    if !options.bs.is_multiple_of(u64::from(geometry.block_bytes)) {
        let block = geometry.block_bytes;
        return Err(RunError::Options(format!(
            "--bs {} is not a multiple of the block size {block}",
            options.bs
        )));
    }
    if let Some(most) = remote.max_transfer.filter(|most| options.bs > *most) {
        return Err(RunError::Options(format!(
            "--bs {} is over the controller's limit of {most}",
            options.bs
        )));
    }
    let queues = cores as u64 * u64::from(options.queues);
    if u64::from(remote.io_queues) < queues {
        let granted = remote.io_queues;
        return Err(RunError::Options(format!(
            "{queues} queues are wanted, the controller grants {granted}"
        )));
    }
    let bytes = options.size.map_or(geometry.bytes(), |size| size.min(geometry.bytes()));
    let mut units = bytes / options.bs / queues;
    if options.verify {
        units = units.min(MAX_VERIFIED_UNITS);
    }
    if units == 0 || (options.verify && units < u64::from(options.iodepth)) {
        return Err(RunError::Options(format!("{bytes} bytes are too few for {queues} queues of this load")));
    }

    let shared = Arc::new(Shared::default());
    let mut remotes = Vec::new();
    for (index, handle) in reactors.handles().iter().enumerate() {
        let task = Task {
            connector: remote.connector.clone(),
            nsid: options.nsid,
            geometry,
            queues: options.queues,
            depth: options.iodepth,
            bytes: options.bs as u32,
            random: options.rw.is_random(),
            read_percent,
            units,
            first_unit: index as u64 * u64::from(options.queues) * units,
            seed: options.seed,
            verify: options.verify,
            ramp: Duration::from_secs_f64(options.ramp),
            time: Duration::from_secs_f64(options.time),
        };
        let shared = shared.clone();
        let failing = shared.clone();
        remotes.push(handle.spawn(move || async move {
            let outcome = work(task, shared).await;
            if outcome.is_err() {
                // The others must not wait for this one.
                failing.stop.store(true, Ordering::Release);
            }
            outcome
        }));
    }
    while shared.ready.load(Ordering::Acquire) < cores as u64 && !shared.stop.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
    shared.go.store(true, Ordering::Release);
    let progress = Progress::start(shared.clone(), options);
    let mut outcomes = Vec::new();
    let mut failed = None;
    for remote in remotes {
        match remote.wait_blocking()? {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    progress.stop();
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Report::new(options, &outcomes)),
    }
}

/// Connects on the first reactor, which keeps the controller until `ended`.
fn attach(
    options: &RunOptions,
    reactors: &Reactors,
    cores: usize,
    ended: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
) -> Result<Remote, RunError> {
    let address = SocketAddr::new(options.traddr, options.trsvcid);
    let wanted = options.clone();
    let first = reactors.handles().first().ok_or(ReactorGone)?;
    let attached = first.spawn(move || async move {
        let mut host = HostIdentity::random()?;
        if let Some(nqn) = wanted.hostnqn {
            host.nqn = nqn;
        }
        let mut connect = ConnectOptions::new(address, wanted.nqn, host);
        connect.header_digest = wanted.header_digest;
        connect.data_digest = wanted.data_digest;
        connect.queue_depth = wanted.iodepth;
        connect.io_queues = u16::try_from(cores).unwrap_or(u16::MAX).saturating_mul(wanted.queues);
        connect.on_loss = if wanted.reconnect { OnLoss::Resubmit } else { OnLoss::Fail };
        let controller = Controller::connect(connect).await?;
        let geometry = controller.geometry(wanted.nsid).await?;
        let info = controller.info();
        let remote = Remote {
            connector: controller.connector(),
            geometry,
            max_transfer: info.identify.max_transfer_bytes(),
            io_queues: info.io_queues,
        };
        closed.store(false, Ordering::Release);
        drop(sledge_reactor::spawn_local(async move {
            while !ended.load(Ordering::Acquire) {
                sleep(Duration::from_millis(20)).await;
            }
            // The report is made by now: how the connection ends changes nothing.
            let _ = controller.shutdown().await;
            closed.store(true, Ordering::Release);
        }));
        Ok::<Remote, HostError>(remote)
    });
    Ok(attached.wait_blocking()??)
}
