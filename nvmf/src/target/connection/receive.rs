//! From bytes to commands: receives, follows the decoder's events, gathers each command's data.
//!
//! Most data of large writes is received straight into the command's buffer; only what came along with a header
//! is copied from the scratch. Data of small writes, which came in the capsule, is lent to the device from where it was
//! received if the device takes it at once, and copied to a buffer otherwise. A connection whose next data has no
//! buffer stops reading until there is one.

use std::io::IoSliceMut;

use sledge_nvme::opcode::Nvm;
use sledge_nvme::sgl::Sgl;
use sledge_nvme::{Command, Status};
use sledge_reactor::memory::{self, Segments};

use super::scratch::Scratch;
use super::slot::{FusedHalf, NoSlot, Obstacle, Phase};
use super::state::Event;
use super::transmit::Outgoing;
use super::{Arriving, Connection, State};
use crate::decoder::{self, DataDigest, Limits};
use crate::pdu::{DataHeader, FatalError, Framing, InitializeRequest, InitializeResponse};
use crate::target::controller::Transfer;
use crate::target::fault::{Fault, field};
use crate::target::group::Shared;

/// Scratch offered while large H2CData comes: little of its data is copied then, and the rest of each PDU is received
/// straight into its command's buffer.
const NARROW_WINDOW: usize = 4096;
/// H2CData of so many bytes is worth that.
const LARGE_DATA: u32 = 16 * 1024;
/// Receives that one connection may make in a turn before others get theirs.
const RECEIVES_PER_TURN: usize = 4;

/// Bytes of data that the capsules of Fabrics and Admin commands may carry.
const ADMIN_IN_CAPSULE_BYTES: u32 = 8192;
/// Most bytes of host data that is no blocks, unless the command needs more.
const PAGE_BYTES: u32 = 4096;

/// Byte offsets of H2CData fields, for FEI (NVMe/TCP 1.0, 3.6.2.6).
mod pdu_field {
    pub const COMMAND_ID: u32 = 8;
    pub const TRANSFER_TAG: u32 = 10;
}

impl Connection {
    /// Receives what is there and acts on it; returns how many receives brought something.
    pub fn receive(&mut self, shared: &mut Shared) -> u32 {
        let Some(mut scratch) = shared.receive_scratch.take() else {
            unreachable!("connections receive one after the other")
        };
        let mut work = 0;
        while let Some(taken) = self.receive_once(&mut scratch, shared) {
            work += 1;
            if taken == 0 {
                break;
            }
            if work as usize >= RECEIVES_PER_TURN {
                shared.ready.push(self.key);
                break;
            }
        }
        shared.receive_scratch = Some(scratch);
        work
    }

    /// One receive; `None` when nothing came or nothing may be read now.
    fn receive_once(&mut self, scratch: &mut Scratch, shared: &mut Shared) -> Option<usize> {
        if self.waiting_for_buffer || !(self.state.reads() || self.state == State::Terminating) {
            return None;
        }
        let stream = self.stream.as_ref()?;
        let window = if self.large_data_comes { NARROW_WINDOW } else { usize::MAX };
        let memory = scratch.writable();
        let window = window.min(memory.len());
        let memory = &mut memory[..window];
        let wanted = self.decoder.data_remaining();
        let mut direct: &mut [u8] = &mut [];
        if let Arriving::Slot(slot) = self.arriving {
            let slot = self.slots.get_mut(slot);
            let from = slot.received as usize;
            if let Some(data) = slot.data.iter_mut().next().and_then(|segment| segment.as_mut_slice()) {
                direct = &mut data[from..from + wanted];
            }
        }
        let direct_bytes = direct.len();
        let mut slices = [IoSliceMut::new(direct), IoSliceMut::new(memory)];
        let slices = if direct_bytes == 0 { &mut slices[1..] } else { &mut slices[..] };
        let received = match stream.try_read(slices) {
            Ok(None) => return None,
            Ok(Some(0)) => {
                self.handle(Event::StreamEnded, shared);
                return None;
            }
            Ok(Some(received)) => received,
            Err(error) => {
                tracing::debug!(peer = %self.peer, %error, "connection lost");
                self.handle(Event::StreamEnded, shared);
                return None;
            }
        };
        if self.state == State::Terminating {
            return Some(received);
        }
        let placed = received.min(direct_bytes);
        if let (Arriving::Slot(slot), true) = (self.arriving, placed > 0) {
            let slot = self.slots.get_mut(slot);
            let from = slot.received as usize;
            if let Some(segment) = slot.data.iter().next() {
                self.decoder.data_received(&segment.as_slice()[from..from + placed]);
            }
            slot.received += placed as u32;
        }
        let chunk = scratch.current();
        shared.lender = scratch.lends().then(|| chunk.clone());
        self.parse(chunk.received(received - placed), shared);
        shared.lender = None;
        Some(received)
    }

    /// Looks again at input that had to wait.
    pub fn resume(&mut self, shared: &mut Shared) {
        if !self.waiting_for_buffer && self.state.reads() {
            let stash = std::mem::take(&mut self.stash);
            self.parse(&stash, shared);
            // The socket may have become readable meanwhile, and its edge has been used up.
            shared.ready.push(self.key);
        }
    }

    fn parse(&mut self, mut input: &[u8], shared: &mut Shared) {
        while self.state.reads() && !self.waiting_for_buffer {
            match self.decoder.next(&mut input) {
                Ok(Some(event)) => self.decoded(event, input, shared),
                Ok(None) => return,
                Err(error) => return self.protocol_error(error, shared),
            }
        }
        if self.waiting_for_buffer || self.state == State::Connecting {
            // At most one scratch full: nothing more is read until this has been looked at.
            self.stash.extend_from_slice(input);
        }
    }

    /// Acts on an event; `input` is what follows it.
    fn decoded(&mut self, event: decoder::Event<'_>, input: &[u8], shared: &mut Shared) {
        use decoder::Event as E;
        match event {
            E::InitializeRequest(request) => self.initialize(request, shared),
            E::Command { command, in_capsule_length } => {
                let whole = in_capsule_length > 0 && self.decoder.data_lies_in(input);
                self.command(command, in_capsule_length, whole, shared);
            }
            E::DataHeader(header) => self.data_header(header, shared),
            E::Data(bytes) => self.data(bytes, shared),
            E::DataEnd(digest) => self.data_end(digest, shared),
            E::Termination(termination) => {
                tracing::warn!(peer = %self.peer, ?termination, "host terminated the connection");
                self.handle(Event::StreamEnded, shared);
            }
            E::InitializeResponse(_) | E::Completion(_) | E::ReadyToTransfer(_) => {
                unreachable!("the decoder of a target refuses PDUs that only hosts receive")
            }
        }
    }

    /// ICReq: settles digests and alignment (NVMe/TCP 1.0, 3.6.2.2 and 3.6.2.3).
    fn initialize(&mut self, request: InitializeRequest, shared: &mut Shared) {
        self.handle(Event::InitializeRequest, shared);
        if self.state != State::Initialized {
            return;
        }
        let transport = &shared.definition.transport;
        let limits = Limits {
            // Before it is an I/O queue, whatever IOCCSZ says (NVMe/TCP 1.0, 3.3.2.1).
            max_in_capsule: transport.in_capsule_data_bytes.max(ADMIN_IN_CAPSULE_BYTES),
            max_host_data: transport.max_h2c_data_bytes,
        };
        (self.header_digest, self.data_digest) = (request.header_digest, request.data_digest);
        let agreed =
            Framing { header_digest: self.header_digest, data_digest: self.data_digest, alignment: 0 };
        self.decoder.initialized(agreed, limits);
        self.transmit.push(Outgoing::InitializeResponse(InitializeResponse {
            data_alignment: 0,
            header_digest: self.header_digest,
            data_digest: self.data_digest,
            max_host_data: limits.max_host_data,
        }));
        // ICResp has no digest and no data, so the framing that follows it may be set already.
        self.transmit.set_framing(Framing { alignment: request.data_alignment, ..agreed });
        self.needs_flush(shared);
    }

    /// CapsuleCmd: takes a slot, and finds out where data comes from or goes to.
    fn command(&mut self, command: Command, in_capsule: u32, whole: bool, shared: &mut Shared) {
        self.traffic = true;
        self.large_data_comes = false;
        self.arriving = if in_capsule > 0 { Arriving::Discard } else { Arriving::Nothing };
        if let Some(queue) = &mut self.queue {
            queue.advance();
        }
        let slot = match self.slots.take(command) {
            Ok(slot) => slot,
            // More commands than the host may have outstanding: what follows can't be told apart from a runaway host.
            Err(NoSlot::Full) => return self.violation(FatalError::Sequence, 0, shared),
            Err(NoSlot::Conflict(slot)) => {
                let conflict = Fault::at(Status::COMMAND_ID_CONFLICT, field::CID);
                return self.refuse(slot, conflict, shared);
            }
        };
        if let Err(status) = self.pair_fused(slot, shared) {
            return self.refuse(slot, status.into(), shared);
        }
        let transfer = match self.transfer_of(slot, shared) {
            Ok(transfer) => transfer,
            Err(fault) => return self.refuse(slot, fault, shared),
        };
        match transfer {
            Transfer::None => self.execute(slot, shared),
            Transfer::ControllerToHost(bytes) => match host_buffer(&command, bytes) {
                Ok(()) => {
                    self.slots.get_mut(slot).bytes = bytes;
                    self.execute(slot, shared);
                }
                Err(fault) => self.refuse(slot, fault, shared),
            },
            Transfer::HostToController(0) => self.execute(slot, shared),
            Transfer::HostToController(bytes) => match host_data(&command, bytes, in_capsule) {
                Ok(Offer::InCapsule(length)) if whole && self.borrows(slot, shared) => {
                    let entry = self.slots.get_mut(slot);
                    (entry.expected, entry.bytes, entry.borrows) = (length, length, true);
                    self.arriving = Arriving::Slot(slot);
                }
                Ok(Offer::InCapsule(length)) => self.expect_data(slot, length, false, shared),
                Ok(Offer::ByTransfer(length)) => self.expect_data(slot, length, true, shared),
                Ok(Offer::BehindOther(length)) => {
                    self.expect_data(slot, in_capsule, false, shared);
                    let entry = self.slots.get_mut(slot);
                    (entry.bytes, entry.obstacle) = (length, Obstacle::DataOffset);
                }
                Err(fault) => self.refuse(slot, fault, shared),
            },
        }
    }

    /// Whether a command's data, all of which has arrived, may go to its device from where it was received, without a
    /// copy and without a buffer.
    fn borrows(&self, slot: u16, shared: &Shared) -> bool {
        let entry = self.slots.get(slot);
        shared.lender.is_some()
            && entry.fused == FusedHalf::None
            && entry.command.opcode == Nvm::Write.value()
            && self.takes_data_at_once(&entry.command, shared)
    }

    /// Prepares to receive a command's data.
    fn expect_data(&mut self, slot: u16, bytes: u32, by_transfer: bool, shared: &mut Shared) {
        let entry = self.slots.get_mut(slot);
        entry.expected = bytes;
        entry.bytes = bytes;
        entry.by_transfer = by_transfer;
        if !by_transfer {
            self.arriving = Arriving::Slot(slot);
        }
        let first = shared.waiting_for_buffers.of(by_transfer).is_empty();
        if !first || !self.give_buffer(slot, shared) {
            self.slots.get_mut(slot).phase = Phase::AwaitingBuffer;
            self.waiting_for_buffer |= !by_transfer;
            shared.waiting_for_buffers.of(by_transfer).push_back((self.key, slot));
        }
    }

    /// Tries to give a command the buffer for its data; false when the pool is dry.
    pub fn give_buffer(&mut self, slot: u16, shared: &mut Shared) -> bool {
        let Some(entry) = self.slots.find(slot) else { return true };
        let bytes = entry.expected as usize;
        // Who waits for the pool comes first there. Data in a capsule stands in front of all that follows on its
        // connection, even in front of data that would free buffers, so it must not wait for those.
        let pool_is_for_others = !entry.by_transfer && !shared.waiting_for_buffers.by_transfer.is_empty();
        let mut buffer = if pool_is_for_others { None } else { memory::allocate(bytes) };
        if buffer.is_none() && !entry.by_transfer {
            buffer = memory::allocate_from_headroom(bytes);
        }
        let Some(mut buffer) = buffer else { return false };
        buffer.truncate(entry.expected as usize);
        entry.data = Segments::from(buffer);
        (entry.phase, entry.asked) = (Phase::Receiving, shared.now);
        if entry.by_transfer {
            self.transmit.push(Outgoing::ReadyToTransfer { slot });
            self.needs_flush(shared);
        }
        true
    }

    /// A buffer has become free for a command that waited; false when it must go on waiting.
    pub fn retry_buffer(&mut self, slot: u16, shared: &mut Shared) -> bool {
        let waiting = self.slots.find(slot).is_some_and(|entry| entry.phase == Phase::AwaitingBuffer);
        if !waiting || !self.state.answers() {
            return true;
        }
        if !self.give_buffer(slot, shared) {
            return false;
        }
        if !self.slots.get(slot).by_transfer {
            self.waiting_for_buffer = false;
            self.resume(shared);
        }
        true
    }

    /// H2CData: checks it against the R2T that it answers.
    fn data_header(&mut self, header: DataHeader, shared: &mut Shared) {
        self.large_data_comes = header.length >= LARGE_DATA;
        let Some(slot) = self.slots.find(header.transfer_tag) else {
            return self.violation(FatalError::InvalidHeaderField, pdu_field::TRANSFER_TAG, shared);
        };
        if slot.phase != Phase::Receiving || !slot.by_transfer {
            return self.violation(FatalError::InvalidHeaderField, pdu_field::TRANSFER_TAG, shared);
        }
        if slot.command.cid.get() != header.command_id {
            return self.violation(FatalError::InvalidHeaderField, pdu_field::COMMAND_ID, shared);
        }
        let end = u64::from(header.offset) + u64::from(header.length);
        if end > u64::from(slot.expected) {
            return self.violation(FatalError::OutOfRange, 0, shared);
        }
        // Each is a value that the field may have, but in another place of the sequence.
        if header.offset != slot.received || header.last != (end == u64::from(slot.expected)) {
            return self.violation(FatalError::Sequence, 0, shared);
        }
        slot.asked = shared.now;
        self.arriving = Arriving::Slot(header.transfer_tag);
    }

    fn data(&mut self, bytes: &[u8], shared: &Shared) {
        if let Arriving::Slot(slot) = self.arriving {
            let slot = self.slots.get_mut(slot);
            if let (true, Some(lender)) = (slot.borrows, &shared.lender) {
                assert_eq!(
                    bytes.len(),
                    slot.expected as usize,
                    "data is borrowed only when it lies together"
                );
                slot.data.put(Segments::from(lender.lend(bytes)));
                slot.received = slot.expected;
                return;
            }
            // Both the capsule's length and H2CData's range have been checked against what is expected.
            slot.data.copy_from(slot.received as usize, bytes);
            slot.received += bytes.len() as u32;
        }
    }

    fn data_end(&mut self, digest: DataDigest, shared: &mut Shared) {
        let arriving = std::mem::replace(&mut self.arriving, Arriving::Nothing);
        let Arriving::Slot(slot) = arriving else { return };
        let entry = self.slots.get_mut(slot);
        if let DataDigest::Mismatch { received, computed } = digest {
            tracing::warn!(peer = %self.peer, received, computed, "data digest error");
            entry.obstruct(Obstacle::DataDigest);
        }
        if entry.received == entry.expected {
            self.execute(slot, shared);
        }
    }
}

/// Checks that the host's buffer takes `bytes`.
fn host_buffer(command: &Command, bytes: u32) -> Result<(), Fault> {
    match command.dptr.decode() {
        _ if bytes == 0 => Ok(()),
        Sgl::Transport { length } if length >= bytes => Ok(()),
        Sgl::Transport { .. } => Err(WRONG_LENGTH),
        _ => Err(WRONG_TYPE),
    }
}

/// SGL 1 describes more or less data than the command moves, or than came.
const WRONG_LENGTH: Fault = Fault::at(Status::SGL_DATA_LENGTH_INVALID, field::SGL_LENGTH);
/// SGL 1 is none that NVMe/TCP has for the command.
const WRONG_TYPE: Fault = Fault::at(Status::SGL_DESCRIPTOR_TYPE_INVALID, field::SGL_TYPE);
/// SGL 1 begins behind all that came.
const WRONG_OFFSET: Fault = Fault::at(Status::SGL_OFFSET_INVALID, field::SGL);

/// How a host offers a command's data; each with the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offer {
    /// It is all that came in the capsule.
    InCapsule(u32),
    /// It is the end of what came in the capsule, behind something else.
    BehindOther(u32),
    /// It comes when an R2T asks for it.
    ByTransfer(u32),
}

/// Checks that the host offers `bytes`.
///
/// Blocks come exactly. Other data may be followed by more that means nothing, up to a page: Linux sends a whole
/// page of ranges with each Dataset Management, however few it fills.
fn host_data(command: &Command, bytes: u32, in_capsule: u32) -> Result<Offer, Fault> {
    let moves_blocks = matches!(Nvm::from_value(command.opcode), Some(Nvm::Write | Nvm::Compare));
    let most = if moves_blocks { bytes } else { bytes.max(PAGE_BYTES) };
    let fits = |length| length >= bytes && length <= most;
    match command.dptr.decode() {
        // Offsets count from where the capsule's data starts, as ICDOFF is 0.
        Sgl::InCapsule { offset: 0, length } if fits(length) && in_capsule == length => {
            Ok(Offer::InCapsule(length))
        }
        Sgl::Transport { length } if fits(length) && in_capsule == 0 => Ok(Offer::ByTransfer(length)),
        Sgl::InCapsule { offset, .. } if offset > u64::from(in_capsule) => Err(WRONG_OFFSET),
        Sgl::InCapsule { offset, length }
            if fits(length) && u64::from(in_capsule) - offset == length.into() =>
        {
            Ok(Offer::BehindOther(length))
        }
        Sgl::InCapsule { .. } | Sgl::Transport { .. } => Err(WRONG_LENGTH),
        _ => Err(WRONG_TYPE),
    }
}

#[cfg(test)]
mod tests {
    use sledge_nvme::sgl::Descriptor;

    use super::*;

    // Without this a write could be executed with data of another length than its range, or a host whose
    // Dataset Management carries a whole page of ranges could not free anything.
    #[test]
    fn blocks_come_exactly_and_ranges_may_fill_a_page() {
        let write = Command::write(1, 0, 8);
        let data = |length| write.with_data(Descriptor::in_capsule(0, length));
        assert_eq!(host_data(&data(4096), 4096, 4096), Ok(Offer::InCapsule(4096)));
        let wrong = Err(WRONG_LENGTH);
        assert_eq!(host_data(&data(8192), 4096, 8192), wrong);
        assert_eq!(host_data(&data(4096), 4096, 512), wrong);
        let ranges = Command::deallocate_ranges(1, 2);
        let data = |length| ranges.with_data(Descriptor::transport(length));
        assert_eq!(host_data(&data(32), 32, 0), Ok(Offer::ByTransfer(32)));
        assert_eq!(host_data(&data(4096), 32, 0), Ok(Offer::ByTransfer(4096)));
        assert_eq!(host_data(&data(8192), 32, 0), wrong);
        assert_eq!(host_data(&data(16), 32, 0), wrong);
        let keyed = write.with_data(Descriptor::keyed(0, 4096, 1));
        assert_eq!(host_data(&keyed, 4096, 0), Err(WRONG_TYPE));
        let shifted = |offset| write.with_data(Descriptor::in_capsule(offset, 4096));
        assert_eq!(host_data(&shifted(16), 4096, 4112), Ok(Offer::BehindOther(4096)));
        assert_eq!(host_data(&shifted(16), 4096, 4096), wrong);
        assert_eq!(host_data(&shifted(16), 4096, 8192), wrong);
        assert_eq!(host_data(&shifted(4097), 4096, 4096), Err(WRONG_OFFSET));
        assert_eq!(host_data(&shifted(u64::MAX), 4096, 4096), Err(WRONG_OFFSET));
    }
}
