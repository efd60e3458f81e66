//! The shared machinery of a simulated world: virtual clock, queue of coming events, random draws, trace,
//! and an inbox per reactor for what it has yet to collect.
//!
//! Invariant: time never goes back, and events at equal times happen in the order in which they were
//! scheduled. Network and disks schedule here; the simulation takes events from here.

use std::collections::BTreeMap;

use super::config::SimulationConfig;
use super::random::{Random, Trace};
use crate::backend::Readiness;

/// A node of the world, in order of addition from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u32);

/// One life of one reactor: a node that restarts has new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReactorId {
    /// The node it runs on.
    pub node: NodeId,
    /// How often the node has started before.
    pub life: u32,
    /// Which of the node's reactors it is.
    pub index: u32,
}

impl ReactorId {
    /// One number that tells reactors apart, for the trace.
    pub(super) fn number(self) -> u64 {
        u64::from(self.node.0) << 40 | u64::from(self.life) << 16 | u64::from(self.index)
    }
}

/// One end of a connection, or a listener; never used again in the same world.
pub(super) type SocketId = u64;

/// A request that a disk works on; never used again in the same world.
pub(super) type RequestId = u64;

/// Something that will happen at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The first packet that this end has sent may arrive.
    Deliver(SocketId),
    /// This end learns that its peer has made room.
    Window {
        /// Who learns.
        to: SocketId,
        /// How often the news was held up.
        tries: u32,
    },
    /// This end learns that its peer does not know the connection.
    Refusal {
        /// Who learns.
        to: SocketId,
        /// How often the news was held up.
        tries: u32,
    },
    /// Readiness that a short read or write held back.
    Edge {
        /// Whose readiness.
        socket: SocketId,
        /// Which.
        readiness: Readiness,
    },
    /// A disk finishes a request.
    Disk(RequestId),
}

/// What a reactor has yet to collect.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Sockets with new readiness.
    pub ready: BTreeMap<SocketId, Readiness>,
    /// Disk requests that have finished since the last collection.
    pub completions: usize,
}

impl Inbox {
    /// True when there is nothing to collect.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.completions == 0
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Clockwork {
    /// Virtual nanoseconds since the world began.
    pub now: u64,
    /// The properties of this world.
    pub config: SimulationConfig,
    /// Decides latencies, splits and losses.
    pub network_random: Random,
    /// Decides service times, errors, and what survives a crash.
    pub disk_random: Random,
    /// Decides which reactor takes its turn, and what it costs.
    pub schedule_random: Random,
    /// Everything that happened.
    pub trace: Trace,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    inboxes: BTreeMap<ReactorId, Inbox>,
}

impl Clockwork {
    /// A world at time zero in which nothing is scheduled.
    pub(super) fn new(seed: u64, config: SimulationConfig, verbose: bool) -> Clockwork {
        Clockwork {
            now: 0,
            config,
            network_random: Random::new(seed, 1),
            disk_random: Random::new(seed, 2),
            schedule_random: Random::new(seed, 3),
            trace: Trace::new(verbose),
            events: BTreeMap::new(),
            scheduled: 0,
            inboxes: BTreeMap::new(),
        }
    }

    /// Lets something happen at a time, now at the earliest.
    pub(super) fn schedule(&mut self, at: u64, event: Event) {
        let number = self.scheduled;
        self.scheduled += 1;
        self.events.insert((at.max(self.now), number), event);
    }

    /// When the next event happens.
    pub(super) fn next_event(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes an event whose time has come.
    pub(super) fn take_due(&mut self) -> Option<Event> {
        let entry = self.events.first_entry()?;
        (entry.key().0 <= self.now).then(|| entry.remove())
    }

    /// Moves the clock forward to a time; a time that has passed changes nothing.
    pub(super) fn advance_to(&mut self, time: u64) {
        self.now = self.now.max(time);
    }

    /// Notes an event of the trace at the present time.
    pub(super) fn note(&mut self, what: &'static str, first: u64, second: u64) {
        self.trace.event(self.now, what, first, second);
    }

    /// Gives a reactor an inbox, from now until [`Clockwork::close_inboxes`].
    pub(super) fn open_inbox(&mut self, reactor: ReactorId) {
        self.inboxes.insert(reactor, Inbox::default());
    }

    /// Forgets what the reactors of a node had yet to collect.
    pub(super) fn close_inboxes(&mut self, node: NodeId) {
        self.inboxes.retain(|reactor, _| reactor.node != node);
    }

    /// The inbox of a living reactor.
    pub(super) fn inbox(&mut self, reactor: ReactorId) -> Option<&mut Inbox> {
        self.inboxes.get_mut(&reactor)
    }

    /// True when a reactor has something to collect.
    pub(super) fn has_mail(&self, reactor: ReactorId) -> bool {
        self.inboxes.get(&reactor).is_some_and(|inbox| !inbox.is_empty())
    }

    /// Puts readiness in a reactor's inbox.
    pub(super) fn make_ready(&mut self, reactor: ReactorId, socket: SocketId, readiness: Readiness) {
        if let Some(inbox) = self.inboxes.get_mut(&reactor) {
            let entry = inbox.ready.entry(socket).or_default();
            entry.readable |= readiness.readable;
            entry.writable |= readiness.writable;
        }
    }
}
