//! The simulation: nodes, the schedule, and what a test does to the world.
//!
//! Each step, the seed picks one of the reactors that could do something and gives it a turn, which costs a
//! little virtual time; when none could, the clock jumps to the next event. Invariant: between steps no
//! program code runs, and a step depends on nothing but the seed, the configuration and the program. Called
//! by tests.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::clockwork::NodeId;
use super::config::{LinkConfig, SimulationConfig};
use super::links;
use super::node::{Node, Reason, Slot};
use super::random::nanos;
use super::seeds;
use super::simulated_disk::SimulatedDisk;
use super::world::World;
use crate::message::Handle;
use crate::time::Instant;

/// The world stopped before what was waited for happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stalled {
    /// Nothing is ready and nothing is scheduled: everybody waits for somebody.
    #[error("seed {seed}: at {at:?} nothing can ever happen again (replay it with SLEDGE_SEED={seed})")]
    Deadlock {
        /// The seed.
        seed: u64,
        /// Virtual time since the world began.
        at: Duration,
    },
    /// [`SimulationConfig::max_steps`] was exceeded.
    #[error("seed {seed}: not done after {steps} steps, at {at:?} (replay it with SLEDGE_SEED={seed})")]
    TooManySteps {
        /// The seed.
        seed: u64,
        /// Turns and events in this call.
        steps: u64,
        /// Virtual time since the world began.
        at: Duration,
    },
    /// [`SimulationConfig::max_time`] was exceeded.
    #[error("seed {seed}: not done after {passed:?} of virtual time (replay it with SLEDGE_SEED={seed})")]
    TooLong {
        /// The seed.
        seed: u64,
        /// Virtual time in this call.
        passed: Duration,
    },
    /// The node on which something should run is down.
    #[error("seed {seed}: node {node} is down")]
    NodeDown {
        /// The seed.
        seed: u64,
        /// The node's name.
        node: String,
    },
}

/// A simulated world with its nodes; see the [module](super).
pub struct Simulation {
    nodes: Vec<Node>,
    world: Rc<World>,
    /// Turns in a row in which reactors only polled and found nothing.
    idle_polls: u32,
}

/// What a step did.
enum Step {
    /// A turn or events.
    Progress,
    /// Nothing can happen before the limit.
    Quiet,
}

impl Simulation {
    /// An empty world with the default properties.
    pub fn new(seed: u64) -> Simulation {
        Simulation::with_config(seed, SimulationConfig::default())
    }

    /// An empty world.
    pub fn with_config(seed: u64, config: SimulationConfig) -> Simulation {
        Simulation { nodes: Vec::new(), world: World::new(seed, config, seeds::verbose()), idle_polls: 0 }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.world.seed()
    }

    /// Adds a node with this many reactors, at least 1, and starts it.
    pub fn add_node(&mut self, name: &str, reactors: usize) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.world.with(|state| state.network.links.add_node());
        let mut node = Node::new(name, id, reactors.max(1) as u32);
        node.start(&self.world);
        self.nodes.push(node);
        id
    }

    /// How to reach a reactor of a node in its present life.
    ///
    /// # Panics
    /// When the node is down or has no such reactor.
    pub fn handle(&self, node: NodeId, reactor: usize) -> Handle {
        self.handles(node).swap_remove(reactor)
    }

    /// How to reach all reactors of a node, in their order; empty while it is down.
    pub fn handles(&self, node: NodeId) -> Vec<Handle> {
        self.node(node).slots.iter().map(Slot::handle).collect()
    }

    /// The IPv4 address of a node, 10.0.0.1 for the first. Loopback addresses reach the node itself.
    pub fn address(&self, node: NodeId) -> IpAddr {
        links::address_v4(node)
    }

    /// The IPv6 address of a node, fd00::1 for the first.
    pub fn address_v6(&self, node: NodeId) -> IpAddr {
        links::address_v6(node)
    }

    /// The virtual time.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.clock())
    }

    /// A hash of every decision of the schedule, every delivery on the network with its bytes, and every
    /// event of a disk so far: equal for equal seeds and programs, different for almost any others.
    pub fn trace_hash(&self) -> u64 {
        self.world.with(|state| state.clockwork.trace.hash())
    }

    /// Starts a task on a node's first reactor, without waiting for it. The closure runs at once.
    ///
    /// # Panics
    /// When the node is down.
    pub fn spawn<T, Fut, F>(&mut self, node: NodeId, make: F)
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
        F: FnOnce() -> Fut,
    {
        self.spawn_on(node, 0, make);
    }

    /// Starts a task on one of a node's reactors, without waiting for it. The closure runs at once.
    ///
    /// # Panics
    /// When the node is down or has no such reactor.
    pub fn spawn_on<T, Fut, F>(&mut self, node: NodeId, reactor: usize, make: F)
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
        F: FnOnce() -> Fut,
    {
        let slot = &mut self.nodes[node.0 as usize].slots[reactor];
        slot.enter(|| drop(crate::task::spawn_local(make())));
    }

    /// Starts a task on a node's first reactor and runs the world until it has ended.
    ///
    /// # Errors
    /// When it can't end, or not within the bounds of the configuration, or the node is down.
    pub fn block_on<T, Fut, F>(&mut self, node: NodeId, make: F) -> Result<T, Stalled>
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
        F: FnOnce() -> Fut,
    {
        self.block_on_reactor(node, 0, make)
    }

    /// Starts a task on one of a node's reactors and runs the world until it has ended.
    ///
    /// # Errors
    /// As [`Simulation::block_on`].
    pub fn block_on_reactor<T, Fut, F>(&mut self, node: NodeId, reactor: usize, make: F) -> Result<T, Stalled>
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
        F: FnOnce() -> Fut,
    {
        if self.node(node).slots.is_empty() {
            return Err(Stalled::NodeDown { seed: self.seed(), node: self.node(node).name().to_owned() });
        }
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        self.spawn_on(node, reactor, || {
            let future = make();
            async move {
                let value = future.await;
                *slot.borrow_mut() = Some(value);
            }
        });
        self.run(u64::MAX, || result.borrow().is_some())?;
        let value = result.borrow_mut().take();
        Ok(value.expect("the run ended because there is a value"))
    }

    /// Runs the world until a condition holds, which is asked after every step.
    ///
    /// # Errors
    /// When it can't come to hold, or not within the bounds of the configuration.
    pub fn run_until(&mut self, condition: impl FnMut() -> bool) -> Result<(), Stalled> {
        self.run(u64::MAX, condition)
    }

    /// Runs the world for a virtual time, whether or not anything happens in it.
    ///
    /// # Panics
    /// When that takes more than [`SimulationConfig::max_steps`].
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.clock().saturating_add(nanos(duration));
        if let Err(stalled) = self.run(end, || false) {
            panic!("{stalled}");
        }
    }

    /// Ends a node at this instant: its reactors with all their tasks, pollers and sockets are dropped; each
    /// of its peers sees a reset, or silence until it sends and the node is back or its patience ends; what
    /// its disks had not made durable survives, is lost or is torn. A node that is down stays down.
    pub fn crash(&mut self, node: NodeId) {
        if !self.node(node).slots.is_empty() {
            self.world.with(|state| state.crash(node));
            self.nodes[node.0 as usize].stop();
        }
    }

    /// Starts a node that is down, with the same disks and fresh reactors.
    pub fn restart(&mut self, node: NodeId) {
        if self.node(node).slots.is_empty() {
            self.world.with(|state| {
                state.clockwork.note("restart", u64::from(node.0), 0);
                state.network.links.set_down(node, false);
            });
            self.nodes[node.0 as usize].start(&self.world);
        }
    }

    /// Whether a node is up.
    pub fn is_up(&self, node: NodeId) -> bool {
        !self.node(node).slots.is_empty()
    }

    /// Cuts the link between two nodes: what is on its way, and what follows, waits until the link is healed
    /// or the sender's patience ([`SimulationConfig::delivery_timeout`]) ends. As with real connections, an
    /// end that sends nothing learns nothing, however long it waits.
    pub fn partition(&mut self, a: NodeId, b: NodeId) {
        self.partition_one_way(a, b);
        self.partition_one_way(b, a);
    }

    /// Cuts one direction only.
    pub fn partition_one_way(&mut self, from: NodeId, to: NodeId) {
        self.world.with(|state| state.network.links.set_cut(from, to, true));
    }

    /// Mends the link between two nodes, both directions.
    pub fn heal(&mut self, a: NodeId, b: NodeId) {
        self.world.with(|state| {
            state.network.links.set_cut(a, b, false);
            state.network.links.set_cut(b, a, false);
        });
    }

    /// Sets the properties of the link between two nodes, for packets from now on.
    pub fn set_link(&mut self, a: NodeId, b: NodeId, link: LinkConfig) {
        self.world.with(|state| state.network.links.set(a, b, link));
    }

    /// Resets every connection between two nodes, at both ends, now.
    pub fn reset_connections(&mut self, a: NodeId, b: NodeId) {
        self.world.with(|state| state.network.reset_connections(&mut state.clockwork, a, b));
    }

    /// How many sockets the programs of a node hold, listeners included: to find leaks.
    pub fn open_sockets(&self, node: NodeId) -> usize {
        self.world.with(|state| state.network.open_sockets(node))
    }

    /// A node's disk of this name. A program opens it with [`Disk::open`](crate::disk::Disk::open).
    pub fn disk(&self, node: NodeId, name: &str) -> SimulatedDisk {
        SimulatedDisk::new(self.world.clone(), node, name)
    }

    fn node(&self, node: NodeId) -> &Node {
        &self.nodes[node.0 as usize]
    }

    fn clock(&self) -> u64 {
        self.world.with(|state| state.clockwork.now)
    }

    /// Steps until the condition holds or the clock has reached `end` (`u64::MAX`: never).
    fn run(&mut self, end: u64, mut condition: impl FnMut() -> bool) -> Result<(), Stalled> {
        let seed = self.seed();
        let began = self.clock();
        let (max_steps, max_time) = self
            .world
            .with(|state| (state.clockwork.config.max_steps, nanos(state.clockwork.config.max_time)));
        let mut steps = 0;
        while !condition() {
            let now = self.clock();
            if now >= end {
                return Ok(());
            }
            if end == u64::MAX && now - began > max_time {
                return Err(Stalled::TooLong { seed, passed: Duration::from_nanos(now - began) });
            }
            if steps >= max_steps {
                return Err(Stalled::TooManySteps { seed, steps, at: Duration::from_nanos(now) });
            }
            steps += 1;
            match self.step(end) {
                Step::Progress => {}
                Step::Quiet if end == u64::MAX => {
                    return Err(Stalled::Deadlock { seed, at: Duration::from_nanos(now) });
                }
                Step::Quiet => self.world.with(|state| state.clockwork.advance_to(end)),
            }
        }
        Ok(())
    }

    /// One turn of one reactor, or a jump of the clock.
    fn step(&mut self, end: u64) -> Step {
        self.world.run_due_events();
        let mut runnable = Vec::new();
        let mut any_work = false;
        for (node_index, node) in self.nodes.iter().enumerate() {
            for (slot_index, slot) in node.slots.iter().enumerate() {
                if let Some(reason) = slot.reason(&self.world) {
                    any_work |= reason == Reason::Work;
                    runnable.push((node_index, slot_index));
                }
            }
        }
        let timers = self.nodes.iter().flat_map(|node| &node.slots).filter_map(Slot::next_timer);
        let next = timers.chain(self.world.with(|state| state.clockwork.next_event())).min();
        if runnable.is_empty() {
            self.idle_polls = 0;
            return match next {
                Some(time) if time <= end => {
                    self.world.with(|state| state.clockwork.advance_to(time));
                    Step::Progress
                }
                _ => Step::Quiet,
            };
        }
        let choice = self.world.with(|state| state.clockwork.schedule_random.below(runnable.len() as u64));
        let (node, slot) = runnable[choice as usize];
        let worked = self.nodes[node].slots[slot].turn(&self.world);
        self.idle_polls = if any_work || worked { 0 } else { self.idle_polls.saturating_add(1) };
        self.pass_time(next);
        Step::Progress
    }

    /// The clock moves by what a turn cost: more and more while reactors only poll, but not past the next
    /// event.
    fn pass_time(&mut self, next: Option<u64>) {
        let idle_polls = self.idle_polls;
        self.world.with(|state| {
            let clockwork = &mut state.clockwork;
            let cost = clockwork.schedule_random.nanos(&clockwork.config.turn_cost).max(1);
            let mut time = clockwork.now + cost;
            if idle_polls > 0 {
                let longest = nanos(clockwork.config.longest_idle_poll);
                let idle = (cost << idle_polls.min(20)).min(longest).max(cost);
                time = clockwork.now + idle;
                if let Some(next) = next.filter(|next| *next > clockwork.now) {
                    time = time.min(next);
                }
            }
            clockwork.advance_to(time);
        });
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Cuts every tie from the world to the programs before these are dropped.
        for node in 0..self.nodes.len() {
            self.crash(NodeId(node as u32));
        }
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Simulation")
            .field("seed", &self.seed())
            .field("now", &self.now())
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}
