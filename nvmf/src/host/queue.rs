//! One queue's connection: the state machine between commands, PDUs and completions.
//!
//! Owns the connection's state, the slots of the commands, and both directions of the stream. Invariants: a command is
//! given back exactly once, by [`Queue::collect`]; after [`QueueState::Closed`] nothing is read or written; one function
//! handles each event, whatever the state. The admin queue and the I/O queue pairs call it; it does not wait, and
//! does not allocate per command.

use super::error::Loss;
use super::link::Link;
use super::outgoing::Outgoing;
use super::payload::Payload;
use super::slot::{Direction, Slot, Slots, Stage, Transfer};
use crate::decoder::{DataDigest, Decoder, Limits, Role};
use crate::pdu::{
    DataHeader, FatalError, Framing, InitializeRequest, InitializeResponse, MAX_ENCODED_BYTES, ProtocolError,
    ReadyToTransfer, Termination, encode_initialize_request, encode_termination,
};
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Completion, Status};
use sledge_reactor::time::Instant;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

/// Byte offsets of CCCID and of the completion's CID, for FEI.
const COMMAND_ID_OFFSET: u32 = 8;
const COMPLETION_CID_OFFSET: u32 = 20;

/// How far a queue's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueState {
    /// ICReq is sent or about to be; ICResp is to come.
    Initializing,
    /// Only the Fabrics Connect command goes out.
    Connecting,
    /// Commands go out.
    Live,
    /// Over; [`Queue::loss`] says why.
    Closed,
}

/// A command to submit, but for its data.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) token: u64,
    pub(super) command: Command,
    pub(super) direction: Direction,
    /// May take as long as it likes.
    pub(super) unhurried: bool,
}

/// What waits to be encoded.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    /// A command capsule.
    Command(u16),
    /// H2CData for an R2T.
    Transfer(u16),
}

/// The C2HData that is arriving.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    pub(super) slot: u16,
    /// Where the next byte goes, within the command's data.
    pub(super) offset: u32,
    /// SUCCESS: the command ends with this PDU.
    pub(super) success: bool,
}

/// What the two ends of a connection ask of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueOptions {
    pub(super) depth: usize,
    pub(super) header_digest: bool,
    pub(super) data_digest: bool,
    /// HPDA.
    pub(super) data_alignment: u8,
}

/// A queue's connection.
#[derive(Debug)]
pub(super) struct Queue<L> {
    pub(super) link: L,
    pub(super) state: QueueState,
    loss: Option<Loss>,
    options: QueueOptions,
    pub(super) decoder: Decoder,
    /// Of what we send.
    pub(super) framing: Framing,
    /// MAXH2CDATA.
    pub(super) max_host_data: u32,
    /// Most data that goes into a capsule.
    in_capsule_bytes: u32,
    pub(super) slots: Slots,
    pub(super) outgoing: Outgoing,
    pub(super) work: VecDeque<Work>,
    pub(super) incoming: Option<Incoming>,
    /// Slots of the commands that ended, in that order, until [`Queue::collect`].
    ended: Vec<u16>,
    /// The last read did not say that nothing more is there.
    pub(super) more_to_read: bool,
    /// The last write said that nothing more fits; an edge of the socket will come.
    pub(super) write_blocked: bool,
    /// Bytes of scratch memory to offer to the next read.
    pub(super) window: usize,
}

impl<L: Link> Queue<L> {
    /// A queue on a fresh connection, with ICReq ready to go.
    pub(super) fn new(link: L, options: QueueOptions, in_capsule_bytes: u32) -> Self {
        let mut outgoing = Outgoing::new();
        let request = InitializeRequest {
            data_alignment: options.data_alignment,
            header_digest: options.header_digest,
            data_digest: options.data_digest,
            // One R2T at a time for each command: what a slot has room for.
            max_ready_to_transfer: 0,
        };
        outgoing.stage(|out| encode_initialize_request(out, &request));
        let slots = Slots::new(options.depth);
        let depth = slots.depth();
        Self {
            link,
            state: QueueState::Initializing,
            loss: None,
            options,
            decoder: Decoder::new(Role::Host),
            framing: Framing::default(),
            max_host_data: 0,
            in_capsule_bytes,
            slots,
            outgoing,
            work: VecDeque::with_capacity(2 * depth),
            incoming: None,
            ended: Vec::with_capacity(depth),
            more_to_read: true,
            write_blocked: false,
            window: usize::MAX,
        }
    }

    /// Why the connection ended, once it did.
    pub(super) fn loss(&self) -> Option<&Loss> {
        self.loss.as_ref()
    }

    /// The Fabrics Connect command succeeded: other commands may go, with this much data in the capsule.
    pub(super) fn connected(&mut self, in_capsule_bytes: u32) {
        if self.state == QueueState::Connecting {
            self.in_capsule_bytes = in_capsule_bytes;
            self.state = QueueState::Live;
        }
    }

    /// Commands accepted and not given back.
    pub(super) fn outstanding(&self) -> usize {
        self.slots.used()
    }

    /// Whether there is something to do for which no edge of the socket will come.
    pub(super) fn has_work(&self) -> bool {
        let encodable = matches!(self.state, QueueState::Connecting | QueueState::Live);
        let to_send = !self.outgoing.is_empty() || (encodable && !self.work.is_empty());
        let alive = self.state != QueueState::Closed;
        alive && (self.more_to_read || (to_send && !self.write_blocked)) || !self.ended.is_empty()
    }

    /// Accepts a command; it goes out with the next flush. None when the queue is full or closed; the data is not asked
    /// for then. It is made in its place: moving it about is a good part of what a command costs.
    #[inline]
    pub(super) fn submit(&mut self, order: &Order, payload: impl FnOnce() -> Payload) -> Option<u16> {
        if self.state == QueueState::Closed {
            return None;
        }
        let index = self.slots.allocate()?;
        let slot = self.slots.get_mut(index);
        slot.payload = payload();
        let length = slot.payload.len() as u32;
        self.fill(index, order, length);
        self.work.push_back(Work::Command(index));
        Some(index)
    }

    /// Accepts a fused pair, whose first half uses the first `split` bytes of the data, both under one token. Its
    /// completion is the first half's if that failed, else the second's. False when the queue has no two free slots or
    /// is closed; the data is not asked for then.
    pub(super) fn submit_pair(
        &mut self,
        first: Command,
        second: &Order,
        split: u32,
        payload: impl FnOnce() -> Payload,
    ) -> bool {
        if self.state == QueueState::Closed || self.slots.available() < 2 {
            return false;
        }
        let (Some(one), Some(two)) = (self.slots.allocate(), self.slots.allocate()) else { return false };
        let head = Order { command: first, ..*second };
        self.fill(one, &head, split);
        let slot = self.slots.get_mut(one);
        (slot.payload_home, slot.partner) = (two, Some(two));
        let slot = self.slots.get_mut(two);
        (slot.payload_base, slot.partner) = (split, Some(one));
        slot.payload = payload();
        let length = slot.payload.len() as u32;
        self.fill(two, second, length.saturating_sub(split));
        // Adjacent in the submission queue, as fused commands must be.
        self.work.extend([Work::Command(one), Work::Command(two)]);
        true
    }

    fn fill(&mut self, index: u16, order: &Order, length: u32) {
        let in_capsule = order.direction == Direction::Out && length > 0 && length <= self.in_capsule_bytes;
        let descriptor =
            if in_capsule { Descriptor::in_capsule(0, length) } else { Descriptor::transport(length) };
        let command_id = self.slots.command_id(index);
        let slot = self.slots.get_mut(index);
        slot.token = order.token;
        slot.unhurried = order.unhurried;
        slot.command = order.command;
        (slot.command.cid, slot.command.dptr) = (command_id.into(), descriptor);
        slot.direction = order.direction;
        slot.expected = length;
        slot.in_capsule = in_capsule;
    }

    /// Gives the commands that ended to `each`, in that order, with their data.
    pub(super) fn collect(&mut self, mut each: impl FnMut(u64, Completion, Payload)) {
        for index in self.ended.drain(..) {
            let slot = self.slots.get_mut(index);
            each(slot.token, slot.completion, std::mem::take(&mut slot.payload));
            self.slots.release(index);
        }
    }

    /// Gives a command up that has not been encoded yet: it ends with `ABORTED_BY_REQUEST`. False for any other.
    pub(super) fn abort_queued(&mut self, token: u64) -> bool {
        let found = self
            .slots
            .held()
            .find(|(_, slot)| slot.token == token && slot.stage == Stage::Queued && slot.partner.is_none());
        let Some((index, _)) = found else { return false };
        self.work.retain(|work| !matches!(work, Work::Command(slot) if *slot == index));
        self.finish(index, Completion::new(0, Status::ABORTED_BY_REQUEST));
        true
    }

    /// True when a command has waited since it was sent for its answer longer than `limit`.
    pub(super) fn is_overdue(&self, at: Instant, limit: Duration) -> bool {
        self.slots.held().any(|(_, slot)| {
            // Those that wait here wait for the ones that were sent.
            let sent = !matches!(slot.stage, Stage::Queued | Stage::Ended);
            sent && !slot.unhurried && at - slot.sent > limit
        })
    }

    /// Ends the connection. The commands stay; see [`Queue::fail_outstanding`] and [`Queue::adopt`].
    pub(super) fn close(&mut self, loss: Loss) {
        if self.state != QueueState::Closed {
            self.state = QueueState::Closed;
            match &loss {
                Loss::Disconnected | Loss::Protocol(_) => self.link.close(),
                // A write that is repeated elsewhere must not leave the socket later, after newer ones.
                _ => self.link.abort(),
            }
            self.loss = Some(loss);
            self.outgoing.clear();
            self.work.clear();
            self.incoming = None;
        }
    }

    /// Ends all commands of a closed queue with `status`, in the order of submission.
    pub(super) fn fail_outstanding(&mut self, status: Status) {
        for index in self.held_in_order() {
            let slot = self.slots.get_mut(index);
            slot.unsent = 0;
            let completion = match slot.stage {
                Stage::Queued | Stage::Sent => Completion::new(0, status),
                Stage::Answered => slot.completion,
                // The other half of a pair takes this one along, or has done so.
                Stage::Joined | Stage::Free | Stage::Ended => continue,
            };
            self.finish(index, completion);
        }
    }

    fn held_in_order(&self) -> Vec<u16> {
        let mut held: Vec<(u64, u16)> =
            self.slots.held().map(|(index, slot)| (slot.sequence, index)).collect();
        held.sort_unstable();
        held.into_iter().map(|(_, index)| index).collect()
    }

    /// Takes over the commands of a closed queue, to send them again in the order of submission. Those that must not
    /// be repeated (fused pairs), and those that don't fit, end with `status` in the old queue.
    pub(super) fn adopt(&mut self, old: &mut Self, status: Status) {
        for index in old.held_in_order() {
            let slot = old.slots.get_mut(index);
            let repeatable = matches!(slot.stage, Stage::Queued | Stage::Sent) && slot.partner.is_none();
            let Slot { token, command, direction, unhurried, .. } = *slot;
            let order = Order { token, command, direction, unhurried };
            if repeatable && self.submit(&order, || std::mem::take(&mut slot.payload)).is_some() {
                old.slots.release(index);
            }
        }
        old.fail_outstanding(status);
    }

    // Events, one function each.

    /// The socket can't go on.
    pub(super) fn on_socket_error(&mut self, error: std::io::Error) {
        self.close(Loss::from(error));
    }

    /// The controller closed its direction.
    pub(super) fn on_end_of_stream(&mut self) {
        self.close(Loss::EndOfStream);
    }

    /// The controller violated the protocol: it is told, as far as the socket takes it at once.
    pub(super) fn on_protocol_error(&mut self, error: ProtocolError) {
        // A request behind half a PDU would be taken for its data.
        if error.answerable() && self.outgoing.is_empty() {
            let mut out = [0; MAX_ENCODED_BYTES];
            let length = encode_termination(&mut out, true, &error);
            // The connection ends either way.
            let _ = self.link.write(&[IoSlice::new(&out[..length])]);
        }
        self.close(Loss::Protocol(error));
    }

    /// The controller says that we violated the protocol.
    pub(super) fn on_termination(&mut self, request: Termination) {
        self.close(Loss::Terminated(request));
    }

    /// ICResp.
    pub(super) fn on_initialize_response(&mut self, response: InitializeResponse) {
        // The decoder lets it pass only once; the state is `Initializing` then.
        let unasked = (response.header_digest && !self.options.header_digest)
            || (response.data_digest && !self.options.data_digest);
        if unasked {
            let header = self.decoder.current_header();
            return self.on_protocol_error(ProtocolError::new(FatalError::UnsupportedParameter, 11, header));
        }
        let digests = Framing {
            header_digest: response.header_digest,
            data_digest: response.data_digest,
            alignment: self.options.data_alignment,
        };
        self.decoder.initialized(digests, Limits::NONE);
        self.framing = Framing { alignment: response.data_alignment, ..digests };
        self.max_host_data = response.max_host_data;
        self.state = QueueState::Connecting;
    }

    fn violation(&self, status: FatalError, information: u32) -> ProtocolError {
        ProtocolError::new(status, information, self.decoder.current_header())
    }

    /// CapsuleResp.
    pub(super) fn on_completion(&mut self, completion: Completion) -> Result<(), ProtocolError> {
        let Some(index) = self.slots.find(completion.cid.get()) else {
            return Err(self.violation(FatalError::InvalidHeaderField, COMPLETION_CID_OFFSET));
        };
        self.answer(index, completion);
        Ok(())
    }

    /// C2HData starts.
    pub(super) fn on_data_header(&mut self, header: DataHeader) -> Result<(), ProtocolError> {
        let Some(index) = self.slots.find(header.command_id) else {
            return Err(self.violation(FatalError::InvalidHeaderField, COMMAND_ID_OFFSET));
        };
        let slot = self.slots.get(index);
        let end = u64::from(header.offset) + u64::from(header.length);
        if slot.direction != Direction::In || end > u64::from(slot.expected) {
            return Err(self.violation(FatalError::OutOfRange, 0));
        }
        if header.offset != slot.received {
            return Err(self.violation(FatalError::Sequence, 0));
        }
        self.incoming = Some(Incoming { slot: index, offset: header.offset, success: header.success });
        Ok(())
    }

    /// Data of C2HData, from scratch memory.
    pub(super) fn on_data(&mut self, bytes: &[u8]) {
        if let Some(incoming) = self.incoming.as_mut() {
            let (payload, base) = self.slots.payload_of_mut(incoming.slot);
            payload.write(base + incoming.offset as usize, bytes);
            incoming.offset += bytes.len() as u32;
        }
    }

    /// C2HData ends.
    pub(super) fn on_data_end(&mut self, digest: DataDigest) {
        let Some(incoming) = self.incoming.take() else { return };
        let command_id = self.slots.command_id(incoming.slot);
        let slot = self.slots.get_mut(incoming.slot);
        slot.received = incoming.offset;
        slot.spoiled |= matches!(digest, DataDigest::Mismatch { .. });
        if incoming.success {
            self.answer(incoming.slot, Completion::new(command_id, Status::SUCCESS));
        }
    }

    /// R2T.
    pub(super) fn on_ready_to_transfer(&mut self, ready: ReadyToTransfer) -> Result<(), ProtocolError> {
        let Some(index) = self.slots.find(ready.command_id) else {
            return Err(self.violation(FatalError::InvalidHeaderField, COMMAND_ID_OFFSET));
        };
        let slot = self.slots.get(index);
        if slot.transfer.is_some() {
            return Err(self.violation(FatalError::ReadyToTransferLimit, 0));
        }
        let end = u64::from(ready.offset) + u64::from(ready.length);
        if slot.direction != Direction::Out || slot.in_capsule || end > u64::from(slot.expected) {
            return Err(self.violation(FatalError::OutOfRange, 0));
        }
        self.slots.get_mut(index).transfer =
            Some(Transfer { tag: ready.transfer_tag, offset: ready.offset, left: ready.length });
        self.work.push_back(Work::Transfer(index));
        Ok(())
    }

    /// A run of a command's data left.
    pub(super) fn on_run_sent(&mut self, index: u16) {
        let slot = self.slots.get_mut(index);
        slot.unsent -= 1;
        if slot.unsent == 0 && slot.stage == Stage::Answered {
            let completion = slot.completion;
            self.finish(index, completion);
        }
    }

    /// A command's answer is here, by either PDU.
    fn answer(&mut self, index: u16, mut completion: Completion) {
        let slot = self.slots.get_mut(index);
        if completion.status().is_success() {
            let short = slot.direction == Direction::In && slot.received < slot.expected;
            if slot.spoiled {
                completion.set_status(Status::TRANSIENT_TRANSPORT_ERROR);
            } else if short && matches!(slot.payload, Payload::Segments(_)) {
                completion.set_status(Status::DATA_TRANSFER_ERROR);
            }
        }
        if slot.transfer.take().is_some() {
            // Answered early: the rest of the data is not wanted any more.
            self.work.retain(|work| !matches!(work, Work::Transfer(slot) if *slot == index));
        }
        let slot = self.slots.get_mut(index);
        if slot.unsent > 0 {
            slot.completion = completion;
            slot.stage = Stage::Answered;
            return;
        }
        self.finish(index, completion);
    }

    /// Gives a command back; a fused half only together with the other.
    fn finish(&mut self, index: u16, completion: Completion) {
        let slot = self.slots.get_mut(index);
        slot.completion = completion;
        let Some(partner) = slot.partner else {
            if let Payload::Owned(bytes) = &mut slot.payload
                && slot.direction == Direction::In
            {
                bytes.truncate(slot.received as usize);
            }
            slot.stage = Stage::Ended;
            self.ended.push(index);
            return;
        };
        slot.stage = Stage::Joined;
        if self.slots.get(partner).stage != Stage::Joined {
            return;
        }
        let other = self.slots.get(partner).completion;
        // The second half's data starts behind the first's.
        let (first, second) =
            if self.slots.get(index).payload_base == 0 { (completion, other) } else { (other, completion) };
        let home = self.slots.get(index).payload_home;
        let away = if home == index { partner } else { index };
        self.slots.release(away);
        let slot = self.slots.get_mut(home);
        slot.completion = if first.status().is_success() { second } else { first };
        slot.stage = Stage::Ended;
        self.ended.push(home);
    }
}
