//! One NVMe/TCP connection on the target side, which is one queue of a controller.
//!
//! Owns the socket, what has arrived of the current PDU, the commands in flight and what is to be sent. Invariants:
//! every command that arrives is answered exactly once or dies with its connection; a command that is at a device
//! keeps its slot, and its connection, until the device gives it back. Called by the poll group, which owns it; the
//! pieces are: [`state`] (life), [`slot`] (commands), `receive` (PDUs to commands), `fabrics`, `admin`, `io` and
//! `fused` (commands to answers), [`transmit`] (answers to bytes).

mod admin;
mod fabrics;
mod fused;
mod io;
mod receive;
pub(crate) mod scratch;
pub(crate) mod slot;
pub(crate) mod state;
pub(crate) mod transmit;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sledge_nvme::{Completion, Status};
use sledge_reactor::net::TcpStream;
use sledge_reactor::time::Instant;

use self::slot::{Phase, SlotTable};
use self::state::{Effect, Event, State};
pub(crate) use self::transmit::SCRATCH_BYTES as TRANSMIT_SCRATCH_BYTES;
use self::transmit::{Flushed, Outgoing, TransmitQueue};
use super::controllers::Admission;
use super::fault::Fault;
use super::group::{GroupAction, Shared};
use super::namespace_table::SubsystemView;
use crate::decoder::{Decoder, Role};
use crate::pdu::{FatalError, ProtocolError};

/// How long a terminated connection may linger so that the host can read the C2HTermReq.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(1);
/// Ticks (tenths of a second) without a command after which a connection gives back memory that it can do without.
const IDLE_TICKS: u8 = 20;
/// Commands that a connection may have in flight before its Connect: the Connect.
const COMMANDS_BEFORE_CONNECT: u16 = 1;

/// The queue that a connection has become.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Queue identifier; 0 is the admin queue.
    pub id: u16,
    /// Controller identifier.
    pub controller_id: u16,
    /// The reactor that owns the controller.
    pub owner: u32,
    /// The subsystem; `None` for the discovery subsystem.
    pub view: Option<Rc<SubsystemView>>,
    /// NQN that the host connected to.
    pub subsystem_nqn: String,
    /// NQN of the host.
    pub host_nqn: String,
    /// Entries, a plain count.
    pub entries: u16,
    /// Whether the host does without submission queue flow control.
    pub flow_control_disabled: bool,
    /// Whether writes may stay in volatile caches (feature 06h); without, every write is as if it had FUA set.
    write_cache: Arc<AtomicBool>,
    /// Submission queue head pointer.
    sqhd: u16,
}

impl Queue {
    /// A command has left the submission queue.
    fn advance(&mut self) {
        let next = self.sqhd.wrapping_add(1);
        // Reserved without flow control, but for the answer to Connect.
        self.sqhd = if self.flow_control_disabled || next >= self.entries { 0 } else { next };
    }
}

/// What the PDU that is arriving carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arriving {
    /// No data.
    Nothing,
    /// Data of the command in this slot.
    Slot(u16),
    /// Data that nobody wants.
    Discard,
}

/// A Connect that is being decided.
#[derive(Debug)]
struct PendingConnect {
    slot: u16,
    admission: Admission,
}

/// One connection.
pub(crate) struct Connection {
    key: u32,
    stream: Option<TcpStream>,
    peer: SocketAddr,
    listener: SocketAddr,
    state: State,
    deadline: Option<Instant>,
    decoder: Decoder,
    arriving: Arriving,
    /// Input that could not be looked at yet: no buffer was free for the data at its front.
    stash: Vec<u8>,
    waiting_for_buffer: bool,
    /// Whether the latest PDU was H2CData worth receiving straight into its buffer.
    large_data_comes: bool,
    slots: SlotTable,
    executing: u16,
    fused_first: fused::Expected,
    max_io_bytes: u32,
    transmit: TransmitQueue,
    header_digest: bool,
    data_digest: bool,
    connect: Option<Box<PendingConnect>>,
    queue: Option<Queue>,
    disconnecting: bool,
    traffic: bool,
    /// Ticks without a command, up to [`IDLE_TICKS`].
    idle_ticks: u8,
    queued_for_flush: bool,
    /// Since when the host has taken nothing of what there is to send.
    stuck_since: Option<Instant>,
}

impl Connection {
    /// A connection that has just been accepted at `listener`.
    pub fn new(
        key: u32,
        stream: TcpStream,
        peer: SocketAddr,
        listener: SocketAddr,
        deadline: Instant,
        max_io_bytes: u32,
    ) -> Self {
        Self {
            key,
            stream: Some(stream),
            peer,
            listener,
            state: State::Initializing,
            deadline: Some(deadline),
            decoder: Decoder::new(Role::Target),
            arriving: Arriving::Nothing,
            stash: Vec::new(),
            waiting_for_buffer: false,
            large_data_comes: false,
            slots: SlotTable::new(COMMANDS_BEFORE_CONNECT),
            executing: 0,
            fused_first: fused::Expected::Nothing,
            max_io_bytes,
            transmit: TransmitQueue::default(),
            header_digest: false,
            data_digest: false,
            connect: None,
            queue: None,
            disconnecting: false,
            traffic: false,
            idle_ticks: 0,
            queued_for_flush: false,
            stuck_since: None,
        }
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The queue it has become, once connected.
    pub fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    /// Whether this is, or is about to become, this queue of this controller.
    pub fn is_queue(&self, controller_id: u16, queue_id: u16) -> bool {
        match (&self.queue, &self.connect) {
            (Some(queue), _) => (queue.controller_id, queue.id) == (controller_id, queue_id),
            (None, Some(pending)) => {
                (pending.admission.controller_id, pending.admission.queue_id) == (controller_id, queue_id)
            }
            (None, None) => false,
        }
    }

    /// The host's socket address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The listener it came in by.
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// (header digests, data digests) in force.
    pub fn digests(&self) -> (bool, bool) {
        (self.header_digest, self.data_digest)
    }

    /// Commands in flight.
    pub fn outstanding(&self) -> u16 {
        self.slots.used()
    }

    /// Whether commands have arrived since the last call.
    pub fn take_traffic(&mut self) -> bool {
        std::mem::take(&mut self.traffic)
    }

    /// Feeds an event to the state machine and does what it says.
    pub fn handle(&mut self, event: Event, shared: &mut Shared) {
        let (next, effect) = self.state.next(event);
        if next != self.state {
            tracing::trace!(connection = self.key, from = ?self.state, ?event, to = ?next, "connection");
        }
        self.state = next;
        if !next.has_deadline() {
            self.deadline = None;
        }
        match effect {
            // Accept, Decide, Admit and Refuse need what came with the event: their callers do them.
            Effect::None | Effect::Accept | Effect::Decide | Effect::Admit | Effect::Refuse => {}
            Effect::Terminate => self.deadline = Some(shared.now + TERMINATION_TIMEOUT),
            Effect::Close => self.close(shared),
            Effect::Release => shared.actions.push_back(GroupAction::Release { connection: self.key }),
        }
    }

    /// Ends the connection for a violation of the protocol, telling the host why if that is allowed.
    fn protocol_error(&mut self, error: ProtocolError, shared: &mut Shared) {
        tracing::warn!(peer = %self.peer, %error, "host broke the protocol");
        if !error.answerable() {
            self.handle(Event::StreamEnded, shared);
            return;
        }
        if self.state.next(Event::ProtocolError).1 == Effect::Terminate {
            self.transmit.push(Outgoing::Termination(Box::new(error)));
            self.needs_flush(shared);
        }
        self.handle(Event::ProtocolError, shared);
    }

    /// A protocol error that only the target can see, about the PDU that has just arrived.
    fn violation(&mut self, status: FatalError, information: u32, shared: &mut Shared) {
        let error = ProtocolError::new(status, information, self.decoder.current_header());
        self.protocol_error(error, shared);
    }

    /// A namespace of a subsystem is gone, or another one is in its place.
    pub fn namespace_gone(&mut self, (view, nsid): &(Rc<SubsystemView>, u32)) {
        let ours =
            |queue: &Queue| queue.id != 0 && queue.view.as_ref().is_some_and(|our| Rc::ptr_eq(our, view));
        if self.queue.as_ref().is_some_and(ours) {
            self.slots.namespace_gone(*nsid);
        }
    }

    /// Closes the socket and lets go of everything but the commands at devices.
    fn close(&mut self, shared: &mut Shared) {
        self.stream = None;
        self.transmit.clear();
        self.stash = Vec::new();
        self.fused_first = fused::Expected::Nothing;
        self.slots.release_idle();
        if let Some(queue) = &self.queue {
            shared.actions.push_back(GroupAction::ConnectionClosed {
                connection: self.key,
                controller_id: queue.controller_id,
                owner: queue.owner,
                queue_id: queue.id,
            });
        }
        if self.executing == 0 {
            self.handle(Event::Drained, shared);
        }
    }

    /// Asks the group to send what is queued at the end of this turn.
    fn needs_flush(&mut self, shared: &mut Shared) {
        if !self.queued_for_flush {
            self.queued_for_flush = true;
            shared.flush.push(self.key);
        }
    }

    /// Goes on sending what the socket did not take, unless that happens at the end of the turn anyway.
    pub fn flush_what_waits(&mut self, shared: &mut Shared) {
        if !self.queued_for_flush {
            self.flush(shared);
        }
    }

    /// Sends what is queued.
    pub fn flush(&mut self, shared: &mut Shared) {
        self.queued_for_flush = false;
        let Some(stream) = &self.stream else { return };
        if self.transmit.is_empty() {
            return;
        }
        let before = self.transmit.position();
        match self.transmit.flush(stream, &mut self.slots, &mut shared.transmit_scratch) {
            Ok(Flushed::More) => self.needs_flush(shared),
            Ok(Flushed::All) => {
                self.stuck_since = None;
                if self.disconnecting && self.slots.used() == 0 {
                    self.handle(Event::Disconnect, shared);
                }
            }
            Ok(Flushed::Blocked) if self.transmit.position() == before => {
                self.stuck_since.get_or_insert(shared.now);
            }
            Ok(Flushed::Blocked) => self.stuck_since = Some(shared.now),
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "connection lost while sending");
                self.handle(Event::StreamEnded, shared);
            }
        }
    }

    /// Whether the host has kept buffers waiting since `limit` or longer: for data that it owes, or that it does not
    /// take.
    pub fn sits_on_memory_since(&self, limit: Instant) -> bool {
        let stuck = self.stuck_since.is_some_and(|since| since <= limit);
        self.stream.is_some() && (stuck || self.slots.owes_data_since(limit))
    }

    /// Checks the deadline, and whether the connection has become idle.
    pub fn tick(&mut self, shared: &mut Shared) {
        if self.traffic {
            self.idle_ticks = 0;
        } else if self.idle_ticks < IDLE_TICKS {
            self.idle_ticks += 1;
            if self.idle_ticks == IDLE_TICKS {
                self.shrink();
            }
        }
        if self.deadline.is_some_and(|deadline| shared.now >= deadline) {
            tracing::debug!(peer = %self.peer, state = ?self.state, "connection closed after its deadline");
            self.handle(Event::Disconnect, shared);
        }
    }

    /// Gives back the memory that only traffic needs; it comes again with the first command. Thousands of connections
    /// may be idle.
    fn shrink(&mut self) {
        self.slots.shrink();
        self.transmit.shrink();
        self.stash.shrink_to_fit();
    }

    /// The completion queue entry of a command.
    fn completion(&self, slot: u16, status: Status, result: u64) -> Completion {
        let sqhd = self.queue.as_ref().map_or(0, |queue| queue.sqhd);
        Completion::new(self.slots.get(slot).command.cid.get(), status)
            .with_result_u64(result)
            .with_sqhd(sqhd)
    }

    /// Answers a command without data.
    fn respond(&mut self, slot: u16, status: Status, result: u64, shared: &mut Shared) {
        if !status.is_success() {
            return self.fail(slot, status.into(), result, shared);
        }
        self.complete(slot, status, result, shared);
    }

    /// Answers a command that failed, which the error log then tells more about.
    fn fail(&mut self, slot: u16, fault: Fault, result: u64, shared: &mut Shared) {
        let mut status = fault.status;
        if self.queue.is_some() {
            self.report_failure(slot, fault, shared);
            status = status.more();
        }
        self.complete(slot, status, result, shared);
    }

    fn complete(&mut self, slot: u16, status: Status, result: u64, shared: &mut Shared) {
        if !self.state.answers() {
            self.slots.get_mut(slot).phase = Phase::Responding;
            self.slots.release(slot);
            return;
        }
        let completion = self.completion(slot, status, result);
        let entry = self.slots.get_mut(slot);
        entry.phase = Phase::Responding;
        self.transmit.push(Outgoing::Response { slot, completion });
        self.needs_flush(shared);
    }

    /// Answers a successful command with the data in its slot.
    fn respond_with_data(&mut self, slot: u16, result: u64, shared: &mut Shared) {
        if self.slots.get(slot).data.is_empty() || !self.state.answers() {
            self.respond(slot, Status::SUCCESS, result, shared);
            return;
        }
        let flow_control_disabled = self.queue.as_ref().is_some_and(|queue| queue.flow_control_disabled);
        // The flag takes the place of the response, and with it of SQHD and the result (NVMe/TCP 1.0, 3.3.2).
        let success = shared.definition.transport.c2h_success && flow_control_disabled && result == 0;
        self.transmit.push_data(slot, self.slots.get(slot), success);
        if success {
            self.slots.get_mut(slot).phase = Phase::Responding;
            self.needs_flush(shared);
        } else {
            let completion = self.completion(slot, Status::SUCCESS, result);
            self.slots.get_mut(slot).phase = Phase::Responding;
            self.transmit.push(Outgoing::Response { slot, completion });
            self.needs_flush(shared);
        }
    }

    /// Sends the failure of a command to its controller's error log.
    fn report_failure(&mut self, slot: u16, fault: Fault, shared: &mut Shared) {
        let Some(queue) = &self.queue else { return };
        let command = &self.slots.get(slot).command;
        shared.actions.push_back(GroupAction::ReportFailure {
            controller_id: queue.controller_id,
            owner: queue.owner,
            error: super::controllers::failure(queue.id, command, fault),
        });
        if let Some(view) = &queue.view {
            super::statistics::add(&view.counters(shared.this).error_log_entries, 1);
        }
    }

    /// A command has come back from where it executed; a connection that is gone may now be all gone.
    fn executed(&mut self, shared: &mut Shared) {
        self.executing -= 1;
        if self.executing == 0 && self.state == State::Draining {
            self.handle(Event::Drained, shared);
        }
    }
}
