//! What one connection has to send: a queue of PDUs, written in few large vectored writes.
//!
//! Only descriptions are queued. Headers are built into the reactor's scratch when they are about to leave, and
//! data goes from where it lies, so a device's lent memory reaches the socket without a copy. Invariant: bytes
//! leave in the order of the queue, and a PDU that left in part is rebuilt the same and continued. Memory lent
//! by a device is held over a turn only when there is no buffer to copy it to, so a host that does not read
//! can't hold up others' writes.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use arrayvec::ArrayVec;
use sledge_nvme::Completion;
use sledge_reactor::memory::{self, Segment, Segments};
use sledge_reactor::net::TcpStream;

use super::slot::{Slot, SlotTable};
use crate::digest::digest_of;
use crate::pdu::{
    self, DataHeader, DataKind, Framing, InitializeResponse, MAX_ENCODED_BYTES, ProtocolError,
    ReadyToTransfer,
};

/// Most PDUs that one write carries.
const BATCH: usize = 256;
/// Most pieces of memory that one write carries (the kernel takes 1,024).
const MAX_SLICES: usize = 640;
/// Bytes after which a connection lets others go first, and looks what has arrived. More than a processor's cache holds
/// would have left it before the network takes it.
const FLUSH_BYTES: usize = 1024 * 1024;
/// Bytes of scratch that [`TransmitQueue::flush`] needs.
pub(crate) const SCRATCH_BYTES: usize = BATCH * (MAX_ENCODED_BYTES + 4);

/// One PDU to send.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// ICResp.
    InitializeResponse(InitializeResponse),
    /// C2HTermReq.
    Termination(Box<ProtocolError>),
    /// R2T for all of a command's data.
    ReadyToTransfer {
        /// The command; its index is the transfer tag.
        slot: u16,
    },
    /// C2HData with all of a slot's data.
    Data {
        /// The command.
        slot: u16,
        /// Its identifier.
        command_id: u16,
        /// Bytes of the data.
        length: u32,
        /// Data digest, if they are in force.
        digest: u32,
        /// Most segments that the data has.
        segments: u8,
        /// SUCCESS: no response follows, and the slot is free once this has left.
        success: bool,
    },
    /// CapsuleResp; the slot is free once it has left.
    Response {
        /// The command.
        slot: u16,
        /// Its completion.
        completion: Completion,
    },
}

/// What a flush did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Everything has left.
    All,
    /// The socket takes no more for now.
    Blocked,
    /// There is more, for the next turn.
    More,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct TransmitQueue {
    queue: VecDeque<Outgoing>,
    /// Bytes of the first PDU that have left.
    sent: usize,
    framing: Framing,
}

/// Bytes of each PDU of a write.
type Lengths = ArrayVec<u32, BATCH>;
/// The pieces of a write.
type Slices<'a> = ArrayVec<IoSlice<'a>, MAX_SLICES>;

impl TransmitQueue {
    /// Sets digests and alignment, as negotiated, for what is sent from now on.
    pub fn set_framing(&mut self, framing: Framing) {
        self.framing = framing;
    }

    /// How far sending is: different after each byte that has left.
    pub fn position(&self) -> (usize, usize) {
        (self.queue.len(), self.sent)
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Gives back the memory that a busy time has left, while there is nothing to send.
    pub fn shrink(&mut self) {
        self.queue.shrink_to_fit();
    }

    /// Drops everything; only when the socket is closed.
    pub fn clear(&mut self) {
        self.queue.clear();
        self.sent = 0;
    }

    /// Adds a PDU that carries no data.
    pub fn push(&mut self, outgoing: Outgoing) {
        self.queue.push_back(outgoing);
    }

    /// Adds C2HData with all of a slot's data.
    pub fn push_data(&mut self, slot: u16, of: &Slot, success: bool) {
        let data = &of.data;
        let digest = if self.framing.data_digest { digest_of(data.iter().map(Segment::as_slice)) } else { 0 };
        self.queue.push_back(Outgoing::Data {
            slot,
            command_id: of.command.cid.get(),
            // Transfers are bounded by MDTS, far below 4 GiB.
            length: data.len_bytes() as u32,
            digest,
            segments: data.count() as u8,
            success,
        });
    }

    /// Sends until nothing is left or the socket takes no more. Frees the slots of what has left.
    ///
    /// # Errors
    /// The socket's; the connection is then lost.
    pub fn flush(
        &mut self,
        stream: &TcpStream,
        slots: &mut SlotTable,
        scratch: &mut [u8],
    ) -> io::Result<Flushed> {
        let mut sent = 0;
        while !self.queue.is_empty() {
            if sent >= FLUSH_BYTES {
                return Ok(Flushed::More);
            }
            let mut lengths = Lengths::new();
            let written = {
                let mut slices = Slices::new();
                self.gather(slots, scratch, &mut slices, &mut lengths);
                let mut unsent = &mut slices[..];
                if self.sent > 0 {
                    IoSlice::advance_slices(&mut unsent, self.sent);
                }
                stream.try_write(unsent)?
            };
            let Some(written) = written else {
                self.keep_lent_memory_no_longer(slots);
                return Ok(Flushed::Blocked);
            };
            sent += written;
            // When not all was written the socket is most likely full. The next write would say so, and readiness is
            // edge-triggered, so ask it.
            self.consume(written, slots, &lengths);
        }
        Ok(Flushed::All)
    }

    /// Builds the headers of the first PDUs and lists them with their data.
    fn gather<'a>(
        &self,
        slots: &'a SlotTable,
        mut scratch: &'a mut [u8],
        slices: &mut Slices<'a>,
        lengths: &mut Lengths,
    ) {
        // Headers that lie side by side, and a digest with the header after it, leave as one piece: so many bytes at the
        // start of the scratch are built and not listed.
        let mut built = 0;
        let mut bytes = 0;
        for outgoing in self.queue.iter().take(BATCH) {
            if bytes >= FLUSH_BYTES {
                break;
            }
            let Outgoing::Data { slot, command_id, length, digest, segments, success } = outgoing else {
                let header = self.encode_header(outgoing, slots, &mut scratch[built..]);
                built += header;
                lengths.push(header as u32);
                continue;
            };
            // One for the header, and one for what is built behind the data.
            if slices.remaining_capacity() < usize::from(*segments) + 2 {
                break;
            }
            let header = DataHeader {
                kind: DataKind::ControllerToHost,
                command_id: *command_id,
                transfer_tag: 0,
                offset: 0,
                length: *length,
                last: true,
                success: *success,
            };
            let header = pdu::encode_data_header(&mut scratch[built..], &header, &self.framing);
            let (piece, rest) = std::mem::take(&mut scratch).split_at_mut(built + header);
            scratch = rest;
            slices.push(IoSlice::new(piece));
            for segment in slots.get(*slot).data.iter() {
                slices.push(IoSlice::new(segment.as_slice()));
            }
            built = if self.framing.data_digest { pdu::encode_data_digest(scratch, *digest) } else { 0 };
            bytes += *length as usize;
            lengths.push((header + built) as u32 + length);
        }
        if built > 0 {
            slices.push(IoSlice::new(&scratch[..built]));
        }
    }

    /// Builds a PDU without data.
    fn encode_header(&self, outgoing: &Outgoing, slots: &SlotTable, out: &mut [u8]) -> usize {
        match outgoing {
            Outgoing::InitializeResponse(response) => pdu::encode_initialize_response(out, response),
            Outgoing::Termination(error) => pdu::encode_termination(out, false, error),
            Outgoing::ReadyToTransfer { slot } => {
                let waiting = slots.get(*slot);
                let ready = ReadyToTransfer {
                    command_id: waiting.command.cid.get(),
                    transfer_tag: *slot,
                    offset: 0,
                    length: waiting.expected,
                };
                pdu::encode_ready_to_transfer(out, &ready, &self.framing)
            }
            Outgoing::Data { .. } => unreachable!("data is listed by whoever builds its header"),
            Outgoing::Response { completion, .. } => {
                pdu::encode_capsule_response(out, completion, &self.framing)
            }
        }
    }

    /// Takes what has left off the queue.
    fn consume(&mut self, written: usize, slots: &mut SlotTable, lengths: &[u32]) {
        self.sent += written;
        for length in lengths {
            let length = *length as usize;
            if self.sent < length {
                return;
            }
            self.sent -= length;
            match self.queue.pop_front() {
                Some(Outgoing::Data { slot, success: true, .. } | Outgoing::Response { slot, .. }) => {
                    slots.release(slot);
                }
                Some(Outgoing::Data { slot, .. }) => slots.get_mut(slot).data = Segments::new(),
                Some(_) => {}
                None => unreachable!("more PDUs were encoded than are queued"),
            }
        }
    }

    /// Copies lent memory that must wait to buffers, and gives it back to its device.
    fn keep_lent_memory_no_longer(&mut self, slots: &mut SlotTable) {
        for outgoing in &self.queue {
            let Outgoing::Data { slot, .. } = outgoing else { continue };
            let data = &mut slots.get_mut(*slot).data;
            if !data.iter().any(|segment| matches!(segment, Segment::Lent(_))) {
                continue;
            }
            // Without a buffer the memory stays lent; the next attempt to send tries again.
            let Some(mut copy) = memory::allocate(data.len_bytes()) else { continue };
            copy.truncate(data.len_bytes());
            data.copy_to(0, &mut copy);
            *data = Segments::from(copy);
        }
    }
}
