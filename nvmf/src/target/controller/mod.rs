//! The NVMe controller as pure logic: bytes and time in, bytes and actions out.
//!
//! Owns what one host sees of a subsystem through its Admin queue: properties and the life cycle behind them
//! ([`state`]), Identify ([`identify`]), log pages ([`log_pages`]), features ([`features`]), asynchronous events
//! ([`events`]), the error log ([`errors`]) and the keep alive timer ([`keep_alive`]). It has no sockets and no
//! channels. Invariant: one reactor owns it; each command gets exactly one [`Outcome`], and each held request
//! exactly one [`Action::CompleteHeld`] unless the connection ends first.
//!
//! The poll group calls it, and after each call drains [`Controller::next_action`].

mod admin;
mod changes;
mod errors;
mod events;
mod features;
mod identify;
mod identify_controller;
mod keep_alive;
mod log_pages;
pub(crate) mod page;
mod registers;
pub mod state;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_admin;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_changes;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_features;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_identify;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_life;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests_log_pages;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests_support;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use sledge_nvme::Status;
use sledge_nvme::property::{Configuration, ShutdownNotification};
use sledge_reactor::time::Instant;

use super::definition::{SubsystemDefinition, TransportOptions};
use super::discovery::Viewer;
use super::fault::Fault;
use changes::{AnaHistory, ChangedNamespaces};
pub use errors::CommandError;
use errors::ErrorLog;
use events::{EventKind, Events};
use features::Features;
use keep_alive::KeepAlive;
use state::{Effect, Event, State};

/// Who a controller is, and for whom: fixed by the Connect command that made it.
#[derive(Clone, Debug)]
pub struct ControllerIdentity {
    /// Controller identifier (CNTLID), unique in its subsystem.
    pub controller_id: u16,
    /// NQN of the host.
    pub host_nqn: String,
    /// Host identifier.
    pub host_id: [u8; 16],
    /// The subsystem; `None` for a discovery controller.
    pub subsystem: Option<Arc<SubsystemDefinition>>,
    /// NQN of the subsystem as the host named it.
    pub subsystem_nqn: String,
    /// Address of the listener as the definition has it; it decides the ANA states.
    pub listener: SocketAddr,
    /// Local address of the Admin queue's connection: differs from `listener` when that is bound to every address.
    pub local_address: SocketAddr,
    /// Keep Alive Timeout of the Connect command in milliseconds; 0 for none.
    pub keep_alive_ms: u32,
    /// Entries of the Admin submission queue.
    pub admin_queue_entries: u16,
    /// Whether the host asked for submission queues without flow control.
    pub disable_sq_flow_control: bool,
}

/// Which way the data of an Admin command goes, and how much there is of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// There is no data.
    None,
    /// This many bytes from the host.
    HostToController(u32),
    /// This many bytes to the host.
    ControllerToHost(u32),
}

/// What became of an Admin command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, and succeeded.
    Done {
        /// Completion dwords 0 (bits 31:0) and 1 (bits 63:32).
        result: u64,
        /// Bytes of the reply buffer to send.
        reply_bytes: usize,
    },
    /// It failed; nothing of the reply buffer is to be sent.
    Failed(Fault),
    /// It waits for an event; [`Action::CompleteHeld`] answers it.
    Held,
    /// The poll group is to abort the named command and then to answer this one: success, with bit 0 of dword 0
    /// set when the command was not aborted.
    Abort {
        /// Submission queue of the command to abort; one that exists.
        sqid: u16,
        /// The command to abort.
        cid: u16,
        /// Whether it is an Asynchronous Event Request that waited, and has been taken back. One that did not wait
        /// any more is about to be answered with its event, and can't be aborted.
        request: bool,
    },
}

impl Outcome {
    const fn done(result: u64) -> Self {
        Self::Done { result, reply_bytes: 0 }
    }
}

/// Why the I/O queues are closed while the Admin queue stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    /// CC.EN went from 1 to 0.
    Reset,
    /// A normal shutdown: outstanding commands may finish first.
    Shutdown,
    /// An abrupt shutdown.
    AbruptShutdown,
}

/// Why a controller ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminateReason {
    /// No command for longer than the Keep Alive Timeout.
    KeepAliveExpired,
    /// Not ready for two minutes.
    AssociationTimeout,
    /// A discovery controller without Keep Alive Timeout had no command for two minutes.
    DiscoveryIdle,
    /// Its subsystem is gone.
    SubsystemRemoved,
    /// Its host may not connect any more.
    HostRemoved,
    /// The subsystem is not reached any more by the way that the host came.
    ListenerRemoved,
}

impl std::fmt::Display for TerminateReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::KeepAliveExpired => "keep alive timer expired",
            Self::AssociationTimeout => "controller was not ready for two minutes",
            Self::DiscoveryIdle => "no discovery command for two minutes",
            Self::SubsystemRemoved => "subsystem was removed",
            Self::HostRemoved => "host may no longer connect",
            Self::ListenerRemoved => "listener was removed",
        })
    }
}

/// What the poll group has to do for a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer an Asynchronous Event Request that was [`Outcome::Held`].
    CompleteHeld {
        /// Its command identifier.
        cid: u16,
        /// Completion dwords 0 and 1.
        result: u64,
        /// Its status.
        status: Status,
    },
    /// Close the I/O queues, if there are any, then call [`Controller::queues_gone`].
    DisconnectQueues(DisconnectReason),
    /// Close every connection of the controller.
    Terminate(TerminateReason),
}

/// One controller.
#[derive(Debug)]
pub struct Controller {
    identity: ControllerIdentity,
    transport: TransportOptions,
    state: State,
    configuration: Configuration,
    features: Features,
    keep_alive: KeepAlive,
    events: Events,
    errors: ErrorLog,
    changed: ChangedNamespaces,
    ana: AnaHistory,
    /// What the discovery log looked like when the host last read its beginning.
    discovery_seen: Option<u64>,
    io_queues: BTreeSet<u16>,
    actions: VecDeque<Action>,
    created: Instant,
}

impl Controller {
    /// A controller as it is right after Connect: disabled.
    #[must_use]
    pub fn new(identity: ControllerIdentity, transport: TransportOptions, now: Instant) -> Self {
        let discovery = identity.subsystem.is_none();
        Self {
            state: State::Disabled,
            configuration: Configuration::default(),
            features: Features::new(discovery),
            keep_alive: KeepAlive::new(identity.keep_alive_ms, discovery, now),
            events: Events::new(transport.max_async_events.max(1)),
            errors: ErrorLog::default(),
            changed: ChangedNamespaces::default(),
            ana: AnaHistory::default(),
            discovery_seen: None,
            io_queues: BTreeSet::new(),
            actions: VecDeque::new(),
            created: now,
            identity,
            transport,
        }
    }

    /// Who it is. `subsystem` is the definition in force.
    #[must_use]
    pub fn identity(&self) -> &ControllerIdentity {
        &self.identity
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether CSTS.RDY is 1 and commands are executed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether CC.EN is 1.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.configuration.enable()
    }

    /// Whether it is a discovery controller.
    #[must_use]
    pub fn is_discovery(&self) -> bool {
        self.identity.subsystem.is_none()
    }

    /// I/O queues that the host may connect: what Set Features Number of Queues granted, or the most there can be.
    #[must_use]
    pub fn io_queues_granted(&self) -> u16 {
        if self.is_discovery() { 0 } else { self.features.queues().unwrap_or(self.io_queue_limit()) }
    }

    /// I/O queues that are connected.
    #[must_use]
    pub fn io_queues(&self) -> usize {
        self.io_queues.len()
    }

    /// Keep Alive Timeout in force, in milliseconds; 0 for none.
    #[must_use]
    pub fn keep_alive_ms(&self) -> u32 {
        self.keep_alive.timeout_ms()
    }

    /// Whether writes may be answered from a volatile cache. While this is false, each write has to be made durable
    /// as if it had FUA set (Base 5.27.1.4).
    #[must_use]
    pub fn write_cache_enabled(&self) -> bool {
        self.features.write_cache()
    }

    /// The next thing to do; drained after every other call.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Looks at the timers; called about ten times a second.
    pub fn tick(&mut self, now: Instant) {
        if let Some(reason) = self.keep_alive.expired(now) {
            self.terminate(reason, now);
        }
    }

    /// A command arrived on one of its queues: it counts as keep alive traffic.
    pub fn activity(&mut self, now: Instant) {
        self.keep_alive.restart(now);
    }

    /// Checks that the host may connect I/O queue `qid`, and notes that it has.
    ///
    /// # Errors
    /// `COMMAND_SEQUENCE_ERROR` when the controller is not ready or the queue exists already,
    /// `CONNECT_INVALID_PARAMETERS` when `qid` is none of an I/O queue that was granted (Base 6.3).
    pub fn queue_added(&mut self, qid: u16) -> Result<(), Status> {
        if !self.is_ready() {
            return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
        }
        if qid == 0 || qid > self.io_queues_granted() {
            return Err(Status::CONNECT_INVALID_PARAMETERS.do_not_retry());
        }
        // Retryable: the host may be reconnecting while the old connection is still being taken down.
        if self.io_queues.insert(qid) { Ok(()) } else { Err(Status::COMMAND_SEQUENCE_ERROR) }
    }

    /// The connection of I/O queue `qid` is gone.
    pub fn queue_removed(&mut self, qid: u16) {
        self.io_queues.remove(&qid);
    }

    /// Whether it shuts down so that nothing may be left in volatile caches: the host lets the power go afterwards.
    #[must_use]
    pub fn shuts_down_normally(&self) -> bool {
        self.state == State::ShuttingDown
            && self.configuration.shutdown() == Some(ShutdownNotification::Normal)
    }

    /// All I/O queues are closed, as [`Action::DisconnectQueues`] asked: a reset or shutdown finishes.
    pub fn queues_gone(&mut self) {
        self.io_queues.clear();
        // This event has no effect but the state's change, and never makes a controller ready or unready.
        self.state = state::next(self.state, Event::QueuesGone).0;
    }

    /// Notes a command that failed, on any of its queues, in the error log. Returns the status to answer it with:
    /// the same, with More set because the log tells more.
    pub fn command_failed(&mut self, error: CommandError) -> Status {
        let status = error.status.more();
        self.errors.add(CommandError { status, ..error });
        status
    }

    /// Lets an event happen to the life cycle and carries out what follows, but for [`Effect::Close`], whose reason
    /// only the caller knows.
    fn step(&mut self, event: Event, now: Instant) -> Effect {
        let (state, effect) = state::next(self.state, event);
        self.state = state;
        self.keep_alive.set_ready(state == State::Ready, now);
        match effect {
            Effect::Reset => self.reset(now),
            Effect::ResetAndDrain => {
                self.reset(now);
                self.actions.push_back(Action::DisconnectQueues(DisconnectReason::Reset));
            }
            Effect::None | Effect::Start | Effect::Drain | Effect::Close | Effect::Refuse => {}
        }
        effect
    }

    /// Everything goes back to what it was after Connect, except for the error log (Base 3.7.2).
    fn reset(&mut self, now: Instant) {
        for cid in self.events.reset() {
            let status = Status::ABORTED_BY_REQUEST;
            self.actions.push_back(Action::CompleteHeld { cid, result: 0, status });
        }
        self.features = Features::new(self.is_discovery());
        self.keep_alive.set_timeout(self.identity.keep_alive_ms, now);
        self.changed = ChangedNamespaces::default();
        self.discovery_seen = None;
    }

    fn terminate(&mut self, reason: TerminateReason, now: Instant) {
        if self.step(Event::Terminate, now) == Effect::Close {
            self.actions.push_back(Action::Terminate(reason));
        }
    }

    /// Raises an event that the host is to hear of, if it wants to.
    fn raise(&mut self, kind: EventKind) {
        if self.is_ready() && self.features.async_events() & kind.bit() != 0 {
            self.events.raise(kind);
            self.deliver_events();
        }
    }

    fn deliver_events(&mut self) {
        while let Some((cid, result)) = self.events.deliver() {
            self.actions.push_back(Action::CompleteHeld { cid, result, status: Status::SUCCESS });
        }
    }

    fn io_queue_limit(&self) -> u16 {
        self.transport.max_io_queues_per_controller.max(1)
    }

    fn viewer(&self) -> Viewer<'_> {
        Viewer {
            host_nqn: &self.identity.host_nqn,
            discovery_nqn: &self.identity.subsystem_nqn,
            local_address: self.identity.local_address,
        }
    }
}
