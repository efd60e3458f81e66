//! The backend-independent reactor: what a turn is, and what the current thread's reactor is.
//!
//! Owns one reactor's tasks, pollers, timers, pool and inbox. Driven from outside, by a pinned thread (`real`)
//! or by the simulator (`sim`), which both do exactly this:
//!
//! ```text
//! let handle = Handle::new(id, waker);                     // the waker ends the world's sleep
//! let core = ReactorCore::new(CoreParts { handle, peers, backend, memory, .. });
//! loop {
//!     let outcome = core.turn();                           // enters by itself; `enter` is for use outside turns
//!     if outcome.work == 0 && !outcome.keep_polling { /* sleep until outcome.next_timer, an event or a wake */ }
//! }
//! drop(core);                                              // drops tasks, then pollers, with the core entered
//! ```
//!
//! Invariants: everything in a core stays on one thread; a wake that arrives after a turn began makes either
//! that turn or the next one see it, and `keep_polling` is true while anything local is ready. A turn never
//! blocks and never reads any clock but the backend's.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use crate::backend::Backend;
use crate::memory::ReactorMemory;
use crate::message::{Handle, Inbox};
use crate::options::Wait;
use crate::poller::Pollers;
use crate::statistics::ReactorStatistics;
use crate::task::Executor;
use crate::time::Instant;
use crate::timer::Timers;

/// Tasks polled in one turn at most, so that pollers and sockets get their share.
const TASKS_A_TURN: usize = 256;
/// Messages taken from the inbox in one turn at most.
const MESSAGES_A_TURN: usize = 256;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// Runs `use_core` with the current reactor, or returns `None` outside one.
pub(crate) fn try_with_current<T>(use_core: impl FnOnce(&Core) -> T) -> Option<T> {
    // The reference is cloned out, so that `use_core` may enter another reactor.
    let core = CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()?;
    Some(use_core(&core))
}

/// Runs `use_core` with the current reactor.
///
/// # Panics
/// Outside a reactor: a programming error, which would otherwise reach the real clock from a simulation.
#[track_caller]
pub(crate) fn with_current<T>(use_core: impl FnOnce(&Core) -> T) -> T {
    match try_with_current(use_core) {
        Some(result) => result,
        None => panic!("called outside a reactor: use Handle::spawn to run this on one"),
    }
}

/// As [`with_current`], without taking a reference: for the calls that every I/O makes. `use_core` must not enter
/// another reactor, nor drop anything that might.
///
/// # Panics
/// Outside a reactor, as [`with_current`].
#[track_caller]
pub(crate) fn peek_current<T>(use_core: impl FnOnce(&Core) -> T) -> T {
    CURRENT.with(|current| match &*current.borrow() {
        Some(core) => use_core(core),
        None => panic!("called outside a reactor: use Handle::spawn to run this on one"),
    })
}

/// The current reactor's backend, or `None` outside a reactor.
pub(crate) fn try_backend() -> Option<Rc<dyn Backend>> {
    try_with_current(|core| core.backend.clone())
}

/// What a reactor is made of.
pub(crate) struct CoreParts {
    /// Its handle, made with [`Handle::new`] from its number and its backend's waker.
    pub handle: Handle,
    /// The handles of all reactors of its set, its own included, in the order of their numbers.
    pub peers: Arc<[Handle]>,
    /// Its world.
    pub backend: Rc<dyn Backend>,
    /// Its memory.
    pub memory: ReactorMemory,
    /// The processor core it is pinned to, for the statistics.
    pub pinned_core: Option<usize>,
    /// How it waits, for the statistics.
    pub wait: Wait,
}

/// What a turn did, and what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TurnOutcome {
    /// Events, messages, tasks, timers and pollers' work in sum. More than 0: take another turn at once.
    pub work: u32,
    /// The reactor must not sleep although nothing was done: a task is ready, or a poller said so.
    pub keep_polling: bool,
    /// A moment at or before the next timer, in the future; when to take a turn at the latest.
    pub next_timer: Option<Instant>,
}

/// The owner's handle of a reactor. Dropping it ends the reactor.
pub(crate) struct ReactorCore {
    core: Rc<Core>,
}

/// A reactor's inside, as the rest of this crate sees it through [`with_current`].
pub(crate) struct Core {
    handle: Handle,
    peers: Arc<[Handle]>,
    backend: Rc<dyn Backend>,
    memory: ReactorMemory,
    timers: Timers,
    executor: Executor,
    pollers: Rc<Pollers>,
    pinned_core: Option<usize>,
    wait: Wait,
    now: Cell<Instant>,
    counters: Counters,
    locals: RefCell<BTreeMap<u64, Rc<dyn Any>>>,
}

#[derive(Default)]
struct Counters {
    turns: Cell<u64>,
    busy_ns: Cell<u64>,
    idle_ns: Cell<u64>,
    tasks_run: Cell<u64>,
    messages: Cell<u64>,
    events: Cell<u64>,
    /// Whether the latest turn did work: the time until the next one's start is booked accordingly.
    was_busy: Cell<bool>,
}

/// Keeps a reactor current; restores the one before when dropped.
pub(crate) struct Entered {
    before: Option<Rc<Core>>,
    // Belongs to this thread's CURRENT.
    _not_send: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

impl ReactorCore {
    /// Makes a reactor. It does nothing until its first turn.
    pub(crate) fn new(parts: CoreParts) -> ReactorCore {
        let now = parts.backend.clock();
        let executor = Executor::new(parts.handle.inbox().clone());
        let core = Core {
            handle: parts.handle,
            peers: parts.peers,
            backend: parts.backend,
            memory: parts.memory,
            timers: Timers::new(now),
            executor,
            pollers: Rc::new(Pollers::default()),
            pinned_core: parts.pinned_core,
            wait: parts.wait,
            now: Cell::new(now),
            counters: Counters::default(),
            locals: RefCell::default(),
        };
        ReactorCore { core: Rc::new(core) }
    }

    /// Makes this reactor the current one of this thread until the guard is dropped, and refreshes `now()`.
    pub(crate) fn enter(&self) -> Entered {
        self.core.now.set(self.core.backend.clock());
        enter(&self.core)
    }

    /// One turn: events, messages, ready tasks, timers, pollers, submission.
    pub(crate) fn turn(&self) -> TurnOutcome {
        let entered = CURRENT
            .with(|current| current.borrow().as_ref().is_some_and(|current| Rc::ptr_eq(current, &self.core)));
        let _guard = (!entered).then(|| enter(&self.core));
        self.core.turn()
    }

    /// This reactor's handle.
    pub(crate) fn handle(&self) -> &Handle {
        &self.core.handle
    }

    /// When the latest turn began.
    pub(crate) fn now(&self) -> Instant {
        self.core.now.get()
    }
}

impl Drop for ReactorCore {
    fn drop(&mut self) {
        let _guard = self.enter();
        // Senders from here on are told that the reactor is gone; what waits in the inbox is dropped.
        self.core.handle.inbox().close();
        self.core.executor.close();
        self.core.pollers.clear();
        let locals = std::mem::take(&mut *self.core.locals.borrow_mut());
        drop(locals);
        // Requests of dropped queues still go out or are called back by the backend's own end.
        self.core.backend.flush();
    }
}

fn enter(core: &Rc<Core>) -> Entered {
    let before = CURRENT.with(|current| current.replace(Some(core.clone())));
    Entered { before, _not_send: PhantomData }
}

impl Core {
    fn turn(&self) -> TurnOutcome {
        let started = self.backend.clock();
        self.book_time(started);

        let events = self.backend.collect() as u32;
        let messages = self.run_messages();
        // Before the tasks, so that those which expired run in this turn.
        let timers = self.timers.advance(started);
        let tasks = self.executor.run(TASKS_A_TURN);
        let polled = self.pollers.run();
        self.backend.flush();

        add(&self.counters.events, u64::from(events));
        add(&self.counters.messages, u64::from(messages));
        add(&self.counters.tasks_run, u64::from(tasks));
        let work = [messages, timers, tasks, polled.work].iter().fold(events, |a, b| a.saturating_add(*b));
        self.counters.was_busy.set(work > 0);
        TurnOutcome {
            work,
            keep_polling: polled.keep_polling || self.executor.has_ready(),
            next_timer: self.timers.next(),
        }
    }

    /// Books the time since the previous turn's start and moves `now`.
    fn book_time(&self, started: Instant) {
        let passed = started.as_nanos().saturating_sub(self.now.get().as_nanos());
        let counters = &self.counters;
        add(if counters.was_busy.get() { &counters.busy_ns } else { &counters.idle_ns }, passed);
        add(&counters.turns, 1);
        self.now.set(started);
    }

    fn run_messages(&self) -> u32 {
        let inbox: &Inbox = self.handle.inbox();
        let mut count = 0;
        while (count as usize) < MESSAGES_A_TURN {
            let Some(message) = inbox.take() else { break };
            message();
            count += 1;
        }
        count
    }

    /// Counts since the start.
    pub(crate) fn statistics(&self) -> ReactorStatistics {
        ReactorStatistics {
            id: self.handle.id(),
            core: self.pinned_core,
            wait: self.wait,
            turns: self.counters.turns.get(),
            busy_ns: self.counters.busy_ns.get(),
            idle_ns: self.counters.idle_ns.get(),
            tasks: self.executor.len(),
            tasks_run: self.counters.tasks_run.get(),
            messages: self.counters.messages.get(),
            events: self.counters.events.get(),
            pollers: self.pollers.statistics(),
            pool: self.memory.statistics(),
        }
    }

    /// When this turn began.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    /// The timer wheel.
    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The world.
    pub(crate) fn backend(&self) -> &Rc<dyn Backend> {
        &self.backend
    }

    /// The buffers.
    pub(crate) fn memory(&self) -> &ReactorMemory {
        &self.memory
    }

    /// Values stored under local keys.
    pub(crate) fn locals(&self) -> &RefCell<BTreeMap<u64, Rc<dyn Any>>> {
        &self.locals
    }

    /// The tasks.
    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    /// The pollers.
    pub(crate) fn pollers(&self) -> &Rc<Pollers> {
        &self.pollers
    }

    /// This reactor's handle.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// All reactors of this set.
    pub(crate) fn peers(&self) -> Arc<[Handle]> {
        self.peers.clone()
    }
}

fn add(counter: &Cell<u64>, amount: u64) {
    counter.set(counter.get().wrapping_add(amount));
}
