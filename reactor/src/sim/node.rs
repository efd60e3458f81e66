//! A simulated node: the reactors of its present life, and when each may take a turn.
//!
//! Invariant: all reactors of a node live and die together; a reactor takes a turn only when it could have
//! something to do. Owned by the simulation, which decides whose turn it is.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::backend::{SimulatedBackend, WakeFlag};
use super::clockwork::{NodeId, ReactorId};
use super::world::{Running, World};
use crate::backend::Backend;
use crate::core::{CoreParts, ReactorCore};
use crate::memory::{PoolOptions, ReactorMemory};
use crate::message::Handle;
use crate::options::Wait;
use crate::time::Instant;

/// One reactor of a node.
pub(super) struct Slot {
    id: ReactorId,
    core: ReactorCore,
    wake: Arc<WakeFlag>,
    /// The last turn did work, or something was put on the reactor since.
    busy: bool,
    /// The last turn asked for another although it did nothing.
    polling: bool,
    next_timer: Option<Instant>,
}

/// Why a reactor may take a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// It has something to do.
    Work,
    /// It only keeps polling.
    Polling,
}

impl Slot {
    /// Why this reactor may take a turn now, if it may.
    pub(super) fn reason(&self, world: &World) -> Option<Reason> {
        let (now, mail) = world.with(|state| (state.clockwork.now, state.clockwork.has_mail(self.id)));
        let due = self.next_timer.is_some_and(|timer| timer.as_nanos() <= now);
        if self.busy || mail || due || self.wake.is_set() {
            Some(Reason::Work)
        } else if self.polling {
            Some(Reason::Polling)
        } else {
            None
        }
    }

    /// When this reactor wants a turn although nothing happens, nanoseconds.
    pub(super) fn next_timer(&self) -> Option<u64> {
        self.next_timer.map(Instant::as_nanos)
    }

    /// Takes a turn. Returns whether it did anything.
    pub(super) fn turn(&mut self, world: &World) -> bool {
        self.wake.take();
        let running = Running::note(self.id);
        let outcome = self.core.turn();
        drop(running);
        self.busy = outcome.work > 0;
        self.polling = outcome.keep_polling;
        self.next_timer = outcome.next_timer;
        world.with(|state| state.clockwork.note("turn", self.id.number(), u64::from(outcome.work)));
        self.busy
    }

    /// Runs something on this reactor between its turns.
    pub(super) fn enter<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let _running = Running::note(self.id);
        let _entered = self.core.enter();
        self.busy = true;
        run()
    }

    /// How others reach this reactor.
    pub(super) fn handle(&self) -> Handle {
        self.core.handle().clone()
    }
}

/// See the module.
pub(super) struct Node {
    name: String,
    id: NodeId,
    reactors: u32,
    lives: u32,
    /// The reactors; none while the node is down.
    pub slots: Vec<Slot>,
}

impl Node {
    /// A node that is down.
    pub(super) fn new(name: &str, id: NodeId, reactors: u32) -> Node {
        Node { name: name.to_owned(), id, reactors, lives: 0, slots: Vec::new() }
    }

    /// Its name, for messages to people.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Gives it fresh reactors.
    pub(super) fn start(&mut self, world: &Rc<World>) {
        let ids = (0..self.reactors).map(|index| ReactorId { node: self.id, life: self.lives, index });
        let prepared: Vec<(ReactorId, Arc<WakeFlag>)> =
            ids.map(|id| (id, Arc::new(WakeFlag::default()))).collect();
        self.lives += 1;
        let peers: Arc<[Handle]> =
            prepared.iter().map(|(id, wake)| Handle::new(id.index, wake.clone())).collect();
        let total_bytes = world.with(|state| state.clockwork.config.pool_bytes);
        for ((id, wake), handle) in prepared.into_iter().zip(peers.iter()) {
            let memory = ReactorMemory::ordinary(&PoolOptions { total_bytes })
                .unwrap_or_else(|error| panic!("no memory for the pool of a simulated reactor: {error}"));
            let backend: Rc<dyn Backend> = Rc::new(SimulatedBackend::new(world.clone(), id));
            let core = ReactorCore::new(CoreParts {
                handle: handle.clone(),
                peers: peers.clone(),
                backend,
                memory,
                pinned_core: None,
                wait: Wait::Busy,
            });
            self.slots.push(Slot { id, core, wake, busy: true, polling: false, next_timer: None });
        }
    }

    /// Ends its reactors; the world has already forgotten them.
    pub(super) fn stop(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            let _running = Running::note(slot.id);
            drop(slot);
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({} of {} reactors up)", self.name, self.slots.len(), self.reactors)
    }
}
