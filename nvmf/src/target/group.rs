//! One reactor's part of a target: its connections, controllers and channels, and the poller that drives them.
//!
//! Invariants: everything here belongs to one reactor and is reached from others only by messages; a connection's
//! place is reused only after its last command is back; each turn receives first, then collects completions, then
//! sends, so that what belongs together leaves together. Called by the reactor each turn and by
//! [`super::target::Target`] through messages.

mod changes;
mod flushes;
mod messages;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::io::IoCompletion;
use sledge_reactor::local::LocalKey;
use sledge_reactor::message::Handle;
use sledge_reactor::net::{DetachedStream, ReadySet};
use sledge_reactor::poller::{Poller, Turn};
use sledge_reactor::time::{Instant, now};

use self::flushes::{INTERNAL, Round};
use self::messages::Active;
use super::connection::scratch::{Chunk, Scratch};
use super::connection::state::{Event, State};
use super::connection::{Connection, TRANSMIT_SCRATCH_BYTES};
use super::controller::{Action, CommandError, Controller, ControllerIdentity};
use super::controllers::{Admission, Controllers, Entry, Granted, QueueRef, Refusal};
use super::definition::{DISCOVERY_NQN, TargetDefinition};
use super::namespace_table::NamespaceTable;
use super::reports::QueueTotals;
use super::waiting::{Shortage, WaitingForBuffers};

/// How groups find each other.
#[derive(Clone)]
pub(crate) struct Directory {
    /// The reactors, in the order of their places in this target.
    pub reactors: Arc<[Handle]>,
    /// Finds a reactor's group.
    pub key: LocalKey<RefCell<PollGroup>>,
}

/// What is to be done once the connection at hand has been dealt with.
#[derive(Debug)]
pub(crate) enum GroupAction {
    /// Make a controller for an admin queue.
    CreateController { admission: Admission },
    /// Ask a queue's controller, here or elsewhere, to admit it.
    AdmitQueue { admission: Admission },
    /// A connected queue's socket is closed and its commands are on their way back.
    ConnectionClosed { connection: u32, controller_id: u16, owner: u32, queue_id: u16 },
    /// A connection's place is free.
    Release { connection: u32 },
    /// A command failed: for its controller's error log.
    ReportFailure { controller_id: u16, owner: u32, error: CommandError },
    /// Abort a command of an I/O queue.
    Abort { admin: u32, slot: u16, controller_id: u16, sqid: u16, cid: u16 },
    /// Something that a controller asks for.
    Controller { controller_id: u16, action: Action },
}

/// A connected queue's end, told to its controller once nothing of it is left.
#[derive(Debug)]
struct Parting {
    connection: u32,
    controller_id: u16,
    owner: u32,
    queue_id: u16,
}

/// What a group's connections share.
pub(crate) struct Shared {
    /// This reactor's place in the target.
    pub this: u32,
    /// When this turn began.
    pub now: Instant,
    /// What is served.
    pub definition: Arc<TargetDefinition>,
    /// What hosts are told: what every reactor serves. Behind `definition` while a change is being made.
    pub announced: Arc<TargetDefinition>,
    /// Channels.
    pub namespaces: NamespaceTable,
    /// Controllers that this reactor owns.
    pub controllers: Controllers,
    /// Connections with something to receive.
    pub ready: ReadySet,
    /// Connections with something to send.
    pub flush: Vec<u32>,
    /// Commands that wait for a buffer. Bounded by all queues' sizes.
    pub waiting_for_buffers: WaitingForBuffers,
    /// What is to be done after the connection at hand.
    pub actions: VecDeque<GroupAction>,
    /// Queues that were ever connected here.
    pub admitted: QueueTotals,
    /// Where connections receive; the one that does has taken it out.
    pub receive_scratch: Option<Scratch>,
    /// Whose memory the input lies in that is being looked at, if data in it may be lent.
    pub lender: Option<Rc<Chunk>>,
    /// Where connections build headers.
    pub transmit_scratch: Vec<u8>,
}

impl Shared {
    /// Queues what a controller wants done.
    pub fn collect_actions(&mut self, controller_id: u16) {
        if let Some(Entry { controller, write_cache, .. }) = self.controllers.entry(controller_id) {
            write_cache.store(controller.write_cache_enabled(), Relaxed);
            while let Some(action) = controller.next_action() {
                self.actions.push_back(GroupAction::Controller { controller_id, action });
            }
        }
    }
}

/// One reactor's part of a target.
pub(crate) struct PollGroup {
    directory: Directory,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    shared: Shared,
    partings: Vec<Parting>,
    keys: Vec<u32>,
    flushing: Vec<u32>,
    done: Vec<IoCompletion>,
    /// Takes no more connections and commands.
    ending: bool,
    /// By reactor: what it is to hear of its controllers' traffic.
    active: Vec<Active>,
    /// Reports of failures that are on their way to other reactors.
    reports: Rc<Cell<usize>>,
    /// Flushes that shutdowns wait for.
    rounds: Vec<Option<Round>>,
    shortage: Shortage,
}

/// Drives a group from its reactor's turns.
pub(crate) struct GroupPoller(pub Rc<RefCell<PollGroup>>);

impl Poller for GroupPoller {
    fn name(&self) -> &'static str {
        "nvmf_tcp"
    }

    fn poll(&mut self) -> Turn {
        self.0.borrow_mut().poll()
    }
}

impl PollGroup {
    /// The group of the current reactor, which has place `this` in the target.
    pub fn new(this: u32, directory: Directory, definition: Arc<TargetDefinition>) -> Self {
        let active = directory.reactors.iter().map(|_| Active::default()).collect();
        Self {
            directory,
            connections: Vec::new(),
            free: Vec::new(),
            shared: Shared {
                this,
                now: now(),
                announced: definition.clone(),
                definition,
                namespaces: NamespaceTable::default(),
                controllers: Controllers::default(),
                ready: ReadySet::new(),
                flush: Vec::new(),
                waiting_for_buffers: WaitingForBuffers::default(),
                actions: VecDeque::new(),
                admitted: QueueTotals { reactor: this, ..QueueTotals::default() },
                receive_scratch: Some(Scratch::new()),
                lender: None,
                transmit_scratch: vec![0; TRANSMIT_SCRATCH_BYTES],
            },
            partings: Vec::new(),
            keys: Vec::new(),
            flushing: Vec::new(),
            done: Vec::new(),
            ending: false,
            active,
            reports: Rc::default(),
            rounds: Vec::new(),
            shortage: Shortage::default(),
        }
    }

    /// One turn.
    pub fn poll(&mut self) -> Turn {
        self.shared.now = now();
        let mut work = self.receive();
        work += self.collect_completions();
        work += self.retry_buffers();
        self.run_actions();
        work += self.flush();
        self.run_actions();
        self.shared.namespaces.count_busy_time(self.shared.this);
        if work > 0 {
            Turn::Worked(work)
        } else if self.shared.namespaces.needs_polling() || !self.shared.waiting_for_buffers.is_empty() {
            Turn::KeepPolling
        } else {
            Turn::Idle
        }
    }

    fn receive(&mut self) -> u32 {
        let mut keys = std::mem::take(&mut self.keys);
        self.shared.ready.take(&mut keys);
        let mut work = 0;
        for key in keys.drain(..) {
            if let Some(Some(connection)) = self.connections.get_mut(key as usize) {
                // Whoever never pauses would keep a target that ends from ending.
                if !self.ending {
                    work += connection.receive(&mut self.shared);
                }
                // The edge may have been for writing.
                connection.flush_what_waits(&mut self.shared);
            }
        }
        self.keys = keys;
        work
    }

    fn collect_completions(&mut self) -> u32 {
        let mut done = std::mem::take(&mut self.done);
        self.shared.namespaces.poll(&mut done);
        let work = done.len() as u32;
        for completion in done.drain(..) {
            let (key, slot) = Connection::of_token(completion.token);
            if key == INTERNAL {
                self.flushed(slot);
                continue;
            }
            match self.connections.get_mut(key as usize) {
                Some(Some(connection)) => connection.completed(slot, completion, &mut self.shared),
                _ => unreachable!("a connection stays until its commands are back"),
            }
        }
        self.done = done;
        work
    }

    fn retry_buffers(&mut self) -> u32 {
        let mut work = 0;
        for by_transfer in [false, true] {
            while let Some((key, slot)) = self.shared.waiting_for_buffers.of(by_transfer).pop_front() {
                let Some(Some(connection)) = self.connections.get_mut(key as usize) else { continue };
                if !connection.retry_buffer(slot, &mut self.shared) {
                    self.shared.waiting_for_buffers.of(by_transfer).push_front((key, slot));
                    break;
                }
                work += 1;
            }
        }
        work
    }

    fn flush(&mut self) -> u32 {
        let mut keys = std::mem::take(&mut self.flushing);
        keys.append(&mut self.shared.flush);
        let work = keys.len() as u32;
        for key in keys.drain(..) {
            if let Some(Some(connection)) = self.connections.get_mut(key as usize) {
                connection.flush(&mut self.shared);
            }
        }
        self.flushing = keys;
        work
    }

    /// Checks deadlines and keep-alives; called about ten times a second.
    pub fn tick(&mut self) {
        self.shared.now = now();
        if let Some(limit) = self.shortage.tick(self.shared.now) {
            let connections = self.close_where(|connection| connection.sits_on_memory_since(limit));
            if connections > 0 {
                tracing::warn!(connections, "cut off hosts that kept buffers waiting while others got none");
            }
        }
        for index in 0..self.connections.len() {
            let Some(connection) = self.connections[index].as_mut() else { continue };
            connection.tick(&mut self.shared);
            if !connection.take_traffic() {
                continue;
            }
            let Some(queue) = connection.queue() else { continue };
            let (owner, controller_id) = (queue.owner, queue.controller_id);
            self.note_traffic(owner, controller_id);
        }
        self.tell_of_traffic();
        let now = self.shared.now;
        for id in self.shared.controllers.ids() {
            if let Some(controller) = self.shared.controllers.get_mut(id) {
                controller.tick(now);
            }
            self.shared.collect_actions(id);
        }
        self.run_actions();
        self.flush();
        self.run_actions();
    }

    /// Takes a connection that was accepted at `listener`. Refused, which closes it, when there are too many.
    pub fn adopt(&mut self, stream: DetachedStream, peer: SocketAddr, listener: SocketAddr) {
        self.shared.now = now();
        let transport = self.shared.definition.transport;
        let live = self.connections.len() - self.free.len();
        if self.ending || live >= transport.max_connections_per_reactor as usize {
            tracing::warn!(%peer, live, "connection refused: the target is full or stopping");
            return;
        }
        let stream = match stream.attach() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%peer, %error, "connection lost before it was taken");
                return;
            }
        };
        let key = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            (self.connections.len() - 1) as u32
        });
        stream.notify(&self.shared.ready, key);
        // What arrived before may have made no edge since.
        self.shared.ready.push(key);
        let deadline = self.shared.now + Duration::from_millis(transport.connect_timeout_ms);
        let connection = Connection::new(key, stream, peer, listener, deadline, transport.max_io_bytes);
        self.connections[key as usize] = Some(Box::new(connection));
    }

    /// The instances of namespaces that are removed and still have commands at their device.
    pub fn retired(&self) -> impl Iterator<Item = u64> {
        self.shared.namespaces.retired()
    }

    /// Closes every connection that came in by `listener`.
    pub fn listener_gone(&mut self, listener: SocketAddr) {
        self.close_where(|connection| connection.listener() == listener);
    }

    /// Takes no more connections and commands.
    pub fn begin_to_end(&mut self) {
        self.ending = true;
    }

    /// Commands in flight, but for asynchronous event requests that wait.
    pub fn outstanding(&self) -> usize {
        self.shared.namespaces.outstanding()
    }

    /// Closes every connection.
    pub fn close_all(&mut self) {
        self.close_where(|_| true);
    }

    fn close_where(&mut self, which: impl Fn(&Connection) -> bool) -> usize {
        self.shared.now = now();
        let mut closed = 0;
        for connection in self.connections.iter_mut().flatten().filter(|connection| which(connection)) {
            connection.handle(Event::Disconnect, &mut self.shared);
            closed += 1;
        }
        self.run_actions();
        closed
    }

    /// The connections, for reports.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().flatten().map(|connection| &**connection)
    }

    /// The controllers, for reports.
    pub fn controllers(&self) -> impl Iterator<Item = &Entry> {
        self.shared.controllers.iter()
    }

    /// How many queues were ever connected, and who waits now, for reports.
    pub fn admitted(&self) -> QueueTotals {
        let waiting = &self.shared.waiting_for_buffers;
        let waiting_for_buffers = waiting.in_capsule.len() + waiting.by_transfer.len();
        QueueTotals { waiting_for_buffers, ..self.shared.admitted }
    }

    /// This reactor's place in the target.
    pub fn place(&self) -> u32 {
        self.shared.this
    }

    fn connection(&mut self, key: u32) -> Option<(&mut Connection, &mut Shared)> {
        let connection = self.connections.get_mut(key as usize)?.as_mut()?;
        Some((connection, &mut self.shared))
    }

    fn run_actions(&mut self) {
        while let Some(action) = self.shared.actions.pop_front() {
            self.run(action);
        }
    }

    fn run(&mut self, action: GroupAction) {
        match action {
            GroupAction::CreateController { admission } => {
                let decision = self.create_controller(&admission);
                self.decided(admission.connection, decision);
            }
            GroupAction::AdmitQueue { admission } => {
                let owner = Controllers::owner(admission.controller_id, self.directory.reactors.len() as u32);
                self.tell(owner, move |group| {
                    let decision = group.shared.controllers.admit(&admission, owner);
                    group.tell(admission.reactor, move |asking| {
                        asking.decided(admission.connection, decision)
                    });
                });
            }
            GroupAction::ConnectionClosed { connection, controller_id, owner, queue_id } => {
                self.partings.push(Parting { connection, controller_id, owner, queue_id });
            }
            GroupAction::Release { connection } => self.release(connection),
            GroupAction::ReportFailure { controller_id, owner, error } => {
                self.report_failure(owner, controller_id, error);
            }
            GroupAction::Abort { admin, slot, controller_id, sqid, cid } => {
                self.abort(admin, slot, controller_id, sqid, cid);
            }
            GroupAction::Controller { controller_id, action } => {
                self.controller_action(controller_id, action)
            }
        }
    }

    fn decided(&mut self, key: u32, decision: Result<Granted, Refusal>) {
        if let Some((connection, shared)) = self.connection(key) {
            connection.connect_decided(decision, shared);
        }
    }

    fn create_controller(&mut self, admission: &Admission) -> Result<Granted, Refusal> {
        let reactors = self.directory.reactors.len() as u32;
        let shared = &mut self.shared;
        let subsystem = shared.announced.subsystems.get(&admission.subsystem_nqn).cloned();
        if subsystem.is_none() && admission.subsystem_nqn != DISCOVERY_NQN {
            return Err(Refusal::parameter(sledge_nvme::fabrics::InvalidParameter::SUBNQN));
        }
        let range = subsystem.as_ref().map_or((1, 0xffef), |subsystem| subsystem.controller_ids);
        let controller_id = shared
            .controllers
            .free_id(shared.this, reactors, range)
            .ok_or(Refusal { status: Status::CONNECT_CONTROLLER_BUSY, result: 0 })?;
        let identity = ControllerIdentity {
            controller_id,
            host_nqn: admission.host_nqn.clone(),
            host_id: admission.host_id,
            subsystem,
            subsystem_nqn: admission.subsystem_nqn.clone(),
            listener: admission.listener,
            local_address: admission.local_address,
            keep_alive_ms: admission.keep_alive_ms,
            admin_queue_entries: admission.entries,
            disable_sq_flow_control: admission.flow_control_disabled,
        };
        tracing::info!(controller_id, host = %identity.host_nqn, subsystem = %identity.subsystem_nqn, "controller created");
        let controller = Controller::new(identity, shared.definition.transport, shared.now);
        let write_cache = Arc::new(AtomicBool::new(controller.write_cache_enabled()));
        let granted = Granted { controller_id, owner: shared.this, write_cache: write_cache.clone() };
        let entry = Entry {
            controller,
            admin: Some(admission.connection),
            queues: Vec::new(),
            write_cache,
            flushing: None,
        };
        shared.controllers.insert(controller_id, entry);
        Ok(granted)
    }

    /// The last command of a closed connection is back.
    fn release(&mut self, key: u32) {
        self.connections[key as usize] = None;
        self.free.push(key);
        let Some(at) = self.partings.iter().position(|parting| parting.connection == key) else { return };
        let Parting { connection, controller_id, owner, queue_id } = self.partings.swap_remove(at);
        if queue_id == 0 {
            let queues = self.shared.controllers.admin_gone(controller_id);
            self.close_queues(controller_id, queues);
            return;
        }
        let gone = QueueRef { queue_id, reactor: self.shared.this, connection };
        self.tell(owner, move |group| {
            if group.shared.controllers.queue_gone(controller_id, gone) {
                group.queues_closed(controller_id);
            }
            group.shared.collect_actions(controller_id);
        });
    }

    fn close_queues(&mut self, controller_id: u16, queues: Vec<QueueRef>) {
        for queue in queues {
            self.tell(queue.reactor, move |group| {
                if let Some((connection, shared)) = group.connection(queue.connection) {
                    // Its place may have been given to another meanwhile.
                    if connection.is_queue(controller_id, queue.queue_id) {
                        connection.handle(Event::Disconnect, shared);
                    }
                }
            });
        }
    }

    fn controller_action(&mut self, controller_id: u16, action: Action) {
        let Some(entry) = self.shared.controllers.entry(controller_id) else { return };
        let (admin, queues) = (entry.admin, entry.queues.clone());
        match action {
            Action::CompleteHeld { cid, result, status } => {
                if let Some((connection, shared)) = admin.and_then(|key| self.connection(key)) {
                    connection.complete_held(cid, result, status, shared);
                }
            }
            Action::DisconnectQueues(reason) => {
                tracing::info!(controller_id, ?reason, queues = queues.len(), "controller closes its queues");
                if queues.is_empty() {
                    self.queues_closed(controller_id);
                } else {
                    self.close_queues(controller_id, queues);
                }
            }
            Action::Terminate(reason) => {
                tracing::warn!(controller_id, %reason, "controller terminated");
                if let Some((connection, shared)) = admin.and_then(|key| self.connection(key)) {
                    connection.handle(Event::Disconnect, shared);
                }
                self.close_queues(controller_id, queues);
            }
        }
    }

    fn abort(&mut self, admin: u32, slot: u16, controller_id: u16, sqid: u16, cid: u16) {
        let queues = self.shared.controllers.entry(controller_id).map(|entry| entry.queues.clone());
        let queue = queues.into_iter().flatten().find(|queue| queue.queue_id == sqid);
        let asking = self.shared.this;
        let Some(queue) = queue else { return self.abort_decided(admin, slot, false) };
        self.tell(queue.reactor, move |group| {
            let aborted = group.connection(queue.connection).is_some_and(|(connection, shared)| {
                connection.state() == State::Live
                    && connection.is_queue(controller_id, sqid)
                    && connection.abort(cid, false, shared)
            });
            group.tell(asking, move |asking| asking.abort_decided(admin, slot, aborted));
        });
    }

    fn abort_decided(&mut self, admin: u32, slot: u16, aborted: bool) {
        if let Some((connection, shared)) = self.connection(admin) {
            connection.abort_decided(slot, aborted, shared);
        }
    }
}
