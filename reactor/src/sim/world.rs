//! A simulated world: clock, network and disks behind one cell, shared by the backends of its reactors.
//!
//! Invariant: while the world is borrowed, no code of the program runs: nothing is called back, and nothing
//! that the program owns is dropped, before the borrow has ended. Made by the simulation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use super::clockwork::{Clockwork, Event, NodeId, ReactorId};
use super::config::SimulationConfig;
use super::disks::Disks;
use super::network::Network;

thread_local! {
    /// The worlds of this thread, for handles that move between reactors and so can't hold one.
    static WORLDS: RefCell<BTreeMap<u64, Weak<World>>> = const { RefCell::new(BTreeMap::new()) };
    static NEXT_WORLD: Cell<u64> = const { Cell::new(1) };
    static CURRENT: Cell<Option<ReactorId>> = const { Cell::new(None) };
}

/// Everything of a world that is not a reactor.
#[derive(Debug)]
pub(super) struct State {
    /// Time, randomness, coming events.
    pub clockwork: Clockwork,
    /// Sockets.
    pub network: Network,
    /// Disks.
    pub disks: Disks,
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    id: u64,
    seed: u64,
    state: RefCell<State>,
}

impl World {
    /// An empty world.
    pub(super) fn new(seed: u64, config: SimulationConfig, verbose: bool) -> Rc<World> {
        let id = NEXT_WORLD.get();
        NEXT_WORLD.set(id + 1);
        let state = State {
            clockwork: Clockwork::new(seed, config, verbose),
            network: Network::default(),
            disks: Disks::default(),
        };
        let world = Rc::new(World { id, seed, state: RefCell::new(state) });
        WORLDS.with_borrow_mut(|worlds| worlds.insert(id, Rc::downgrade(&world)));
        world
    }

    /// The world with a number, if it still exists and belongs to this thread.
    pub(super) fn find(id: u64) -> Option<Rc<World>> {
        WORLDS.try_with(|worlds| worlds.borrow().get(&id).and_then(Weak::upgrade)).ok().flatten()
    }

    /// Its number on this thread; no part of any trace.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// The seed of everything.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Looks at or changes the world. What the change made superfluous is dropped after the borrow.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, sinks, segments) = {
            let mut state = self.state.borrow_mut();
            let result = change(&mut state);
            let sinks = std::mem::take(&mut state.network.garbage);
            (result, sinks, std::mem::take(&mut state.disks.garbage))
        };
        drop(sinks);
        drop(segments);
        result
    }

    /// Lets every event happen whose time has come. Returns how many there were.
    pub(super) fn run_due_events(&self) -> u64 {
        let mut count = 0;
        while self.with(State::run_due_event) {
            count += 1;
        }
        count
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = WORLDS.try_with(|worlds| worlds.borrow_mut().remove(&self.id));
    }
}

impl State {
    fn run_due_event(&mut self) -> bool {
        let State { clockwork, network, disks } = self;
        let Some(event) = clockwork.take_due() else { return false };
        match event {
            Event::Deliver(socket) => network.deliver(clockwork, socket),
            Event::Window { to, tries } => network.window(clockwork, to, tries),
            Event::Refusal { to, tries } => network.refused(clockwork, to, tries),
            Event::Edge { socket, readiness } => network.edge(clockwork, socket, readiness),
            Event::Disk(request) => disks.serve(clockwork, request),
        }
        true
    }

    /// Everything on a node ends at this instant.
    pub(super) fn crash(&mut self, node: NodeId) {
        let State { clockwork, network, disks } = self;
        clockwork.note("crash", u64::from(node.0), 0);
        clockwork.close_inboxes(node);
        network.links.set_down(node, true);
        network.crash(clockwork, node);
        disks.crash(clockwork, node);
    }
}

/// Keeps a reactor noted as the one that runs; restores the one before when dropped.
pub(super) struct Running {
    before: Option<ReactorId>,
}

impl Running {
    /// Notes a reactor as the one that runs.
    pub(super) fn note(reactor: ReactorId) -> Running {
        Running { before: CURRENT.replace(Some(reactor)) }
    }

    /// The simulated reactor that runs.
    pub(super) fn current() -> Option<ReactorId> {
        CURRENT.get()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}
