//! A queue's way to and from its socket: encoding what waits, few large writes, few large reads.
//!
//! Invariant: whatever the socket takes or gives in one call, the stream stays whole; a PDU's data goes straight into
//! the command's memory as soon as its header is known. Called by the owner of the queue each turn.

use super::link::Link;
use super::outgoing::MAX_PARTS;
use super::payload::Payload;
use super::queue::{Queue, QueueState, Work};
use super::slot::Stage;
use crate::decoder::Event;
use crate::digest::RunningDigest;
use crate::pdu::{
    DataHeader, DataKind, ProtocolError, encode_capsule_command, encode_data_digest, encode_data_header,
};
use arrayvec::ArrayVec;
use sledge_reactor::time::{Instant, now};
use std::cell::RefCell;
use std::io::IoSliceMut;

/// Scratch memory that all queues of a thread receive into.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Scratch offered when large data PDUs come: little of their data is copied then.
const NARROW_WINDOW: usize = 4096;
/// Data PDUs from this size on are worth receiving straight.
const LARGE_DATA: u32 = 16 * 1024;
/// Most bytes received in one turn, so that other pollers get theirs.
const TURN_BYTES: usize = 4 * 1024 * 1024;
/// Bytes after which sending pauses until what has arrived has been looked at. More than a processor's cache holds would
/// have left it before the network takes it.
const FLUSH_BYTES: usize = 1024 * 1024;
/// Most parts of one read: a command's segments and scratch memory.
const READ_PARTS: usize = sledge_reactor::memory::MAX_SEGMENTS + 1;

thread_local! {
    /// Nothing stays in it between calls.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

impl<L: Link> Queue<L> {
    /// Sends what waits and receives what is there. Returns the bytes moved.
    pub(super) fn turn(&mut self) -> usize {
        let sent = self.flush();
        let received = self.receive();
        // R2Ts that just came are answered at once.
        let answered = self.flush();
        sent + received + answered
    }

    /// Sends as much of what waits as the socket takes. Returns the bytes sent.
    #[inline]
    pub(super) fn flush(&mut self) -> usize {
        // Most turns have nothing to send.
        if self.work.is_empty() && self.outgoing.is_empty() { 0 } else { self.flush_some() }
    }

    fn flush_some(&mut self) -> usize {
        let mut total = 0;
        while self.state != QueueState::Closed && total < FLUSH_BYTES {
            self.encode();
            if self.outgoing.is_empty() {
                break;
            }
            let written = {
                let mut parts = ArrayVec::new();
                self.outgoing.gather(&self.slots, &mut parts);
                self.link.write(&parts)
            };
            match written {
                Ok(Some(sent)) => {
                    total += sent;
                    self.write_blocked = false;
                    // At most one for each part of the write.
                    let mut ended: ArrayVec<u16, MAX_PARTS> = ArrayVec::new();
                    self.outgoing.advance(sent, |slot| ended.push(slot));
                    for slot in ended {
                        self.on_run_sent(slot);
                    }
                }
                Ok(None) => {
                    self.write_blocked = true;
                    break;
                }
                Err(error) => self.on_socket_error(error),
            }
        }
        total
    }

    /// Encodes what waits, as far as there is room.
    fn encode(&mut self) {
        let at = now();
        while let Some(work) = self.work.front().copied() {
            let allowed = match self.state {
                QueueState::Live => true,
                // Only Connect is in the queue then, see `QueueState::Connecting`.
                QueueState::Connecting => matches!(work, Work::Command(_)),
                QueueState::Initializing | QueueState::Closed => false,
            };
            if !allowed || !self.outgoing.reserve() {
                return;
            }
            self.work.pop_front();
            match work {
                Work::Command(slot) => self.encode_command(slot, at),
                Work::Transfer(slot) => self.encode_transfer(slot),
            }
        }
    }

    fn encode_command(&mut self, index: u16, at: Instant) {
        let framing = self.framing;
        let slot = self.slots.get_mut(index);
        slot.stage = Stage::Sent;
        slot.sent = at;
        let length = if slot.in_capsule { slot.expected } else { 0 };
        let command = &slot.command;
        self.outgoing.stage(|out| encode_capsule_command(out, command, length, &framing));
        self.encode_data(index, 0, length);
    }

    fn encode_transfer(&mut self, index: u16) {
        let (framing, most) = (self.framing, self.max_host_data);
        let command_id = self.slots.command_id(index);
        let slot = self.slots.get_mut(index);
        let Some(transfer) = slot.transfer.as_mut() else { return };
        let length = transfer.left.min(most);
        let (offset, last) = (transfer.offset, length == transfer.left);
        let header = DataHeader {
            kind: DataKind::HostToController,
            command_id,
            transfer_tag: transfer.tag,
            offset,
            length,
            last,
            success: false,
        };
        transfer.offset += length;
        transfer.left -= length;
        if last {
            slot.transfer = None;
        } else {
            // Behind the others: a large write does not hold up small commands.
            self.work.push_back(Work::Transfer(index));
        }
        self.outgoing.stage(|out| encode_data_header(out, &header, &framing));
        self.encode_data(index, offset, length);
    }

    /// Appends data of a command with its digest.
    fn encode_data(&mut self, index: u16, offset: u32, length: u32) {
        if length == 0 {
            return;
        }
        let (offset, length) = (offset as usize, length as usize);
        self.outgoing.refer(index, offset, length);
        self.slots.get_mut(index).unsent += 1;
        if self.framing.data_digest {
            let (payload, base) = self.slots.payload_of(index);
            let mut running = RunningDigest::new();
            let mut done = 0;
            while done < length {
                let run = payload.run(base + offset + done, length - done);
                if run.is_empty() {
                    break;
                }
                running.update(run);
                done += run.len();
            }
            self.outgoing.stage(|out| encode_data_digest(out, running.value()));
        }
    }

    /// Receives and handles what is there. Returns the bytes received.
    pub(super) fn receive(&mut self) -> usize {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut total = 0;
            while self.state != QueueState::Closed && total < TURN_BYTES {
                let (received, drained) = self.receive_once(scratch);
                total += received;
                if drained {
                    break;
                }
            }
            total
        })
    }

    /// One read: (bytes received, nothing more is likely to be there).
    fn receive_once(&mut self, scratch: &mut [u8]) -> (usize, bool) {
        let window = self.window.min(scratch.len());
        let scratch = &mut scratch[..window];
        let (payload, at) = match self.incoming {
            Some(incoming) => {
                let (payload, base) = self.slots.payload_of_mut(incoming.slot);
                (Some(payload), base + incoming.offset as usize)
            }
            None => (None, 0),
        };
        let wanted = self.decoder.data_remaining();
        let (result, listed) = read_parts(&mut self.link, payload, at, wanted, scratch);
        let received = match result {
            Ok(Some(0)) => {
                self.on_end_of_stream();
                return (0, true);
            }
            Ok(Some(received)) => received,
            Ok(None) => {
                self.more_to_read = false;
                return (0, true);
            }
            Err(error) => {
                self.on_socket_error(error);
                return (0, true);
            }
        };
        // A short read took all there was: asking again now would cost a system call for nothing.
        self.more_to_read = true;
        let drained = received < listed + if listed == wanted || listed == 0 { window } else { 0 };
        let direct = self.account_direct(received.min(listed));
        let mut input = &scratch[..received - direct];
        if let Err(error) = self.decode(&mut input) {
            self.on_protocol_error(error);
        }
        (received, drained)
    }

    /// Tells the decoder about data that was received straight into the command's memory.
    fn account_direct(&mut self, received: usize) -> usize {
        let Some(incoming) = self.incoming.as_mut() else { return 0 };
        let (payload, base) = self.slots.payload_of(incoming.slot);
        let mut done = 0;
        while done < received {
            let run = payload.run(base + incoming.offset as usize, received - done);
            if run.is_empty() {
                break;
            }
            self.decoder.data_received(run);
            incoming.offset += run.len() as u32;
            done += run.len();
        }
        done
    }

    fn decode(&mut self, input: &mut &[u8]) -> Result<(), ProtocolError> {
        while let Some(event) = self.decoder.next(input)? {
            match event {
                Event::Completion(completion) => self.on_completion(completion)?,
                Event::DataHeader(header) => {
                    self.window = if header.length >= LARGE_DATA { NARROW_WINDOW } else { usize::MAX };
                    self.on_data_header(header)?;
                }
                Event::Data(bytes) => self.on_data(bytes),
                Event::DataEnd(digest) => self.on_data_end(digest),
                Event::ReadyToTransfer(ready) => self.on_ready_to_transfer(ready)?,
                Event::InitializeResponse(response) => self.on_initialize_response(response),
                Event::Termination(request) => self.on_termination(request),
                // The decoder's role excludes these.
                Event::InitializeRequest(_) | Event::Command { .. } => {}
            }
            if self.state == QueueState::Closed {
                break;
            }
        }
        Ok(())
    }
}

/// Reads the `wanted` bytes of data that are to come into a command's memory from `at`, and what follows into scratch
/// memory; all into scratch memory when the command's can't be written. Returns how many bytes of it were offered.
fn read_parts(
    link: &mut impl Link,
    payload: Option<&mut Payload>,
    at: usize,
    wanted: usize,
    scratch: &mut [u8],
) -> (std::io::Result<Option<usize>>, usize) {
    let mut parts: ArrayVec<IoSliceMut<'_>, READ_PARTS> = ArrayVec::new();
    let mut listed = 0;
    if let Some(payload) = payload
        && wanted > 0
    {
        payload.runs_mut(at, wanted, |run| {
            listed += run.len();
            parts.push(IoSliceMut::new(run));
        });
    }
    if listed == wanted || listed == 0 {
        parts.push(IoSliceMut::new(scratch));
    }
    (link.read(&mut parts), listed)
}
