//! The set of real reactors of a process: one pinned thread each.
//!
//! Owns the threads. Invariant: `start` either has all reactors running or none; after `stop` no task, poller
//! or buffer of theirs is left. A reactor that panics ends alone; its handles then say that it is gone.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use crate::backend::{Backend, Wake};
use crate::core::{CoreParts, ReactorCore};
use crate::memory::{Backing, ReactorMemory};
use crate::message::Handle;
use crate::options::{ReactorOptions, Wait};
use crate::real::{RealBackend, RealWaker};
use crate::time::Instant;

/// Why reactors could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A core of the list is not there, or not this process's to use.
    #[error("core {core} is not available; this process may use the cores {available:?}")]
    CoreNotAvailable {
        /// The core asked for.
        core: usize,
        /// Those which the process may use.
        available: Vec<usize>,
    },
    /// The thread could not be pinned to its core.
    #[error("reactor {reactor} could not be pinned to core {core}")]
    NotPinned {
        /// The reactor's number.
        reactor: u32,
        /// Its core.
        core: usize,
    },
    /// The kernel refused something that every reactor needs.
    #[error("reactor {reactor}: {what}: {source}")]
    System {
        /// The reactor's number.
        reactor: u32,
        /// What was attempted.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Running reactors. Dropping it stops them, as `stop` does.
#[derive(Debug)]
pub struct Reactors {
    handles: Vec<Handle>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    id: u32,
    stop: Arc<AtomicBool>,
    waker: Arc<RealWaker>,
    join: JoinHandle<()>,
}

/// What backs how many bytes of a reactor's memory.
type Backings = [(Backing, usize); 2];

/// What a reactor's thread starts with.
struct Seat {
    handle: Handle,
    peers: Arc<[Handle]>,
    waker: Arc<RealWaker>,
    stop: Arc<AtomicBool>,
    core: Option<usize>,
    options: ReactorOptions,
}

impl Reactors {
    /// Starts one reactor for each core of the list. Returns when all run.
    ///
    /// # Errors
    /// When a core is not there, or the kernel refuses something; then none is left running.
    pub fn start(options: ReactorOptions) -> Result<Reactors, StartError> {
        check_cores(&options)?;
        let mut wakers = Vec::new();
        let mut handles = Vec::new();
        for id in 0..options.cores.count() as u32 {
            let waker = RealWaker::new().map_err(system(id, "making its eventfd"))?;
            let waker = Arc::new(waker);
            handles.push(Handle::new(id, waker.clone()));
            wakers.push(waker);
        }
        let peers: Arc<[Handle]> = handles.clone().into();
        // From here on an early return drops `reactors`, which stops those that run.
        let mut reactors = Reactors { handles, threads: Vec::new() };
        let (ready, started) = mpsc::channel();
        for ((handle, waker), core) in peers.iter().zip(wakers).zip(options.cores.iter()) {
            let id = handle.id();
            let stop = Arc::new(AtomicBool::new(false));
            let seat = Seat {
                handle: handle.clone(),
                peers: peers.clone(),
                waker: waker.clone(),
                stop: stop.clone(),
                core,
                options: options.clone(),
            };
            let ready = ready.clone();
            let join = std::thread::Builder::new()
                .name(format!("reactor-{id}"))
                .spawn(move || seat.run(&ready))
                .map_err(system(id, "starting its thread"))?;
            reactors.threads.push(Thread { id, stop, waker, join });
        }
        drop(ready);
        let mut memory = Vec::new();
        for _ in 0..reactors.threads.len() {
            let Ok(report) = started.recv() else {
                // Every thread reports or panics; the panic has been printed.
                let source = io::Error::other("a reactor's thread panicked");
                return Err(StartError::System { reactor: 0, what: "starting", source });
            };
            memory.extend(report?);
        }
        tracing::info!(
            reactors = %options.cores,
            "I/O buffers: {} MiB a reactor on {}",
            options.pool.total_bytes.div_ceil(1 << 20),
            backings(&memory)
        );
        Ok(reactors)
    }

    /// The reactors' handles, in the order of the core list.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Ends all reactors and waits for their threads. Tasks and pollers that are left are dropped.
    ///
    /// # Panics
    /// On a reactor, which can't wait for itself.
    pub fn stop(self) {
        // All is in `drop`.
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        assert!(crate::core::try_backend().is_none(), "a reactor can't stop the reactors");
        for thread in &self.threads {
            thread.stop.store(true, Ordering::Release);
            thread.waker.wake();
        }
        for thread in self.threads.drain(..) {
            if thread.join.join().is_err() {
                tracing::error!(reactor = thread.id, "the reactor's thread had panicked");
            }
        }
    }
}

/// Makes a system call's error a `StartError`.
fn system(reactor: u32, what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::System { reactor, what, source }
}

fn check_cores(options: &ReactorOptions) -> Result<(), StartError> {
    if options.cores.iter().flatten().next().is_none() {
        return Ok(());
    }
    // Asked once and before any thread is pinned: it lists only the cores of the calling thread's mask.
    let available: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    match options.cores.iter().flatten().find(|core| !available.contains(core)) {
        Some(core) => Err(StartError::CoreNotAvailable { core, available }),
        None => Ok(()),
    }
}

/// In words, what backs this memory, and how much of each kind when there are several.
fn backings(memory: &[(Backing, usize)]) -> String {
    let kinds = [Backing::HugePages, Backing::LockedPages, Backing::OrdinaryPages].map(|kind| {
        let bytes: usize =
            memory.iter().filter(|(backing, _)| *backing == kind).map(|(_, bytes)| bytes).sum();
        (kind, bytes)
    });
    let kinds: Vec<_> = kinds.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    let mut text = match &kinds[..] {
        [(kind, _)] => kind.to_string(),
        several => {
            let parts = several.iter().map(|(kind, bytes)| format!("{kind} ({} MiB)", bytes >> 20));
            parts.collect::<Vec<_>>().join(", ")
        }
    };
    if kinds.iter().any(|(kind, _)| *kind == Backing::OrdinaryPages) {
        text.push_str(
            "; reserve huge pages (sledge setup hugepages) or raise the limit of locked memory (ulimit -l) for more",
        );
    }
    text
}

impl Seat {
    /// The reactor's thread: makes the reactor, reports, drives it to its end.
    fn run(self, ready: &mpsc::Sender<Result<Backings, StartError>>) {
        let id = self.handle.id();
        let (backend, core) = match self.make(id) {
            Ok((backend, core, backings)) => {
                // Nobody listens only when another reactor failed to start; then we are told to stop.
                let _ = ready.send(Ok(backings));
                (backend, core)
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        let _entered = core.enter();
        drive(&core, &backend, self.options.wait, &self.stop);
    }

    fn make(&self, id: u32) -> Result<(Rc<RealBackend>, ReactorCore, Backings), StartError> {
        if let Some(core) = self.core
            && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
        {
            return Err(StartError::NotPinned { reactor: id, core });
        }
        // SAFETY: a plain system call on this thread. Sleeps then end at their time and not up to 50 µs later;
        // should it fail they merely end later.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
        let backend = Rc::new(RealBackend::new(self.waker.clone()).map_err(system(id, "making its epoll"))?);
        let memory = ReactorMemory::new(&self.options.pool).map_err(system(id, "mapping its memory"))?;
        let backings = memory.backings();
        let core = ReactorCore::new(CoreParts {
            handle: self.handle.clone(),
            peers: self.peers.clone(),
            backend: backend.clone(),
            memory,
            pinned_core: self.core,
            wait: self.options.wait,
        });
        Ok((backend, core, backings))
    }
}

/// Takes turns until told to stop, and sleeps in between as `wait` says.
fn drive(core: &ReactorCore, backend: &RealBackend, wait: Wait, stop: &AtomicBool) {
    let mut idle_since: Option<Instant> = None;
    loop {
        let outcome = core.turn();
        // A stop that is set after this look comes with a wake, so the sleep below does not happen.
        if stop.load(Ordering::Acquire) {
            return;
        }
        if outcome.work > 0 {
            idle_since = None;
            continue;
        }
        let give_way = backend.should_give_way();
        let spin = match wait {
            Wait::Adaptive { spin } if !outcome.keep_polling => spin,
            _ => {
                if give_way {
                    std::thread::yield_now();
                }
                idle_since = None;
                continue;
            }
        };
        let since = *idle_since.get_or_insert(core.now());
        if core.now() - since < spin && !give_way {
            std::hint::spin_loop();
            continue;
        }
        let timeout = outcome.next_timer.map(|next| next - backend.clock());
        if timeout.is_none_or(|timeout| !timeout.is_zero()) {
            backend.sleep(timeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it the log could praise memory of which a part is worse.
    #[test]
    fn the_log_says_what_backs_the_memory() {
        use Backing::*;
        assert_eq!(backings(&[(HugePages, 14 << 20), (HugePages, 2 << 20)]), "huge pages");
        let mixed = [(HugePages, 14 << 20), (LockedPages, 2 << 20), (LockedPages, 14 << 20)];
        assert_eq!(backings(&mixed), "huge pages (14 MiB), locked pages (16 MiB)");
        assert!(backings(&[(OrdinaryPages, 1 << 20)]).starts_with("ordinary pages; reserve"));
    }
}
