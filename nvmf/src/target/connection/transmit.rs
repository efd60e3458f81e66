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

/// Where one PDU's parts lie in the scratch.
#[derive(Clone, Copy)]
struct Encoded {
    header_end: usize,
    end: usize,
    total: usize,
}

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
            let mut encoded = ArrayVec::new();
            self.encode(slots, scratch, &mut encoded);
            let (written, wanted) = self.write(stream, slots, scratch, &encoded)?;
            let Some(written) = written else {
                self.keep_lent_memory_no_longer(slots);
                return Ok(Flushed::Blocked);
            };
            sent += written;
            self.consume(written, slots, &encoded);
            if written < wanted {
                // Most likely full; the next write would say so, and readiness is edge-triggered, so ask it.
                continue;
            }
        }
        Ok(Flushed::All)
    }

    /// Builds the headers of the first PDUs.
    fn encode(&self, slots: &SlotTable, scratch: &mut [u8], encoded: &mut ArrayVec<Encoded, BATCH>) {
        let mut bytes = 0;
        let mut at = 0;
        let mut slices = 1;
        for outgoing in self.queue.iter().take(BATCH) {
            let needed = match outgoing {
                Outgoing::Data { segments, .. } => usize::from(*segments) + 1,
                _ => 0,
            };
            if slices + needed > MAX_SLICES || bytes >= FLUSH_BYTES {
                break;
            }
            slices += needed;
            let start = at;
            let mut data_bytes = 0;
            at += self.encode_header(outgoing, slots, &mut scratch[at..]);
            let header_end = at;
            if let Outgoing::Data { length, digest, .. } = outgoing {
                data_bytes = *length as usize;
                if self.framing.data_digest {
                    at += pdu::encode_data_digest(&mut scratch[at..], *digest);
                }
            }
            bytes += data_bytes;
            encoded.push(Encoded { header_end, end: at, total: at - start + data_bytes });
        }
    }

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
            Outgoing::Data { command_id, length, success, .. } => {
                let header = DataHeader {
                    kind: DataKind::ControllerToHost,
                    command_id: *command_id,
                    transfer_tag: 0,
                    offset: 0,
                    length: *length,
                    last: true,
                    success: *success,
                };
                pdu::encode_data_header(out, &header, &self.framing)
            }
            Outgoing::Response { completion, .. } => {
                pdu::encode_capsule_response(out, completion, &self.framing)
            }
        }
    }

    /// One vectored write of what `encoded` describes: (bytes written, bytes offered).
    fn write(
        &self,
        stream: &TcpStream,
        slots: &SlotTable,
        scratch: &[u8],
        encoded: &[Encoded],
    ) -> io::Result<(Option<usize>, usize)> {
        let mut slices: ArrayVec<IoSlice<'_>, MAX_SLICES> = ArrayVec::new();
        let mut wanted = 0;
        let mut skip = self.sent;
        let mut push = |bytes| {
            let bytes: &[u8] = bytes;
            if skip >= bytes.len() {
                skip -= bytes.len();
            } else {
                // `encode` stopped before there were more than fit.
                slices.push(IoSlice::new(&bytes[skip..]));
                wanted += bytes.len() - skip;
                skip = 0;
            }
        };
        // Headers that lie side by side, and a digest with the header after it, leave as one piece.
        let mut run = 0;
        for (outgoing, place) in self.queue.iter().zip(encoded) {
            if let Outgoing::Data { slot, .. } = outgoing {
                push(&scratch[run..place.header_end]);
                for segment in slots.get(*slot).data.iter() {
                    push(segment.as_slice());
                }
                run = place.header_end;
            }
        }
        if let Some(last) = encoded.last() {
            push(&scratch[run..last.end]);
        }
        let written = stream.try_write(&slices)?;
        Ok((written, wanted))
    }

    /// Takes what has left off the queue.
    fn consume(&mut self, written: usize, slots: &mut SlotTable, encoded: &[Encoded]) {
        self.sent += written;
        for place in encoded {
            if self.sent < place.total {
                return;
            }
            self.sent -= place.total;
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
