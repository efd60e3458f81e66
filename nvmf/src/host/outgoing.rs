//! What a queue has encoded and not yet sent: headers in staging memory, data by reference to the commands' slots.
//!
//! Invariant: the runs in order are the bytes of the stream; every data run names a slot that is held until it left.
//! Nothing is allocated after creation; when there is no room, commands wait to be encoded.

use super::slot::Slots;
use crate::pdu::MAX_ENCODED_BYTES;
use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Staging memory of one queue, in bytes.
const STAGING_BYTES: usize = 64 * 1024;
/// Most runs in the queue.
const MAX_RUNS: usize = 1024;
/// Most runs of one PDU: header with data, digest.
const RUNS_PER_PDU: usize = 2;
/// Most parts of one write.
pub(super) const MAX_PARTS: usize = 256;

/// A part of the stream: bytes of staging memory, and perhaps a command's data behind them.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The next bytes of staging memory.
    staged: u32,
    /// The command whose data follows.
    slot: Option<u16>,
    /// Where that data starts in the command's.
    offset: u32,
    /// Bytes of it.
    length: u32,
}

/// The send queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    staging: Box<[u8]>,
    head: usize,
    tail: usize,
    runs: VecDeque<Run>,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self {
            staging: vec![0; STAGING_BYTES].into_boxed_slice(),
            head: 0,
            tail: 0,
            runs: VecDeque::with_capacity(MAX_RUNS),
        }
    }

    /// Forgets everything: the connection is gone.
    pub(super) fn clear(&mut self) {
        (self.head, self.tail) = (0, 0);
        self.runs.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Makes room for one more PDU's header and digest; false when there is none.
    pub(super) fn reserve(&mut self) -> bool {
        if self.runs.len() + RUNS_PER_PDU > MAX_RUNS {
            return false;
        }
        let wanted = MAX_ENCODED_BYTES + crate::digest::DIGEST_BYTES;
        if self.staging.len() - self.tail >= wanted {
            return true;
        }
        // Moving is worth it only when it frees much: at most one byte is moved for each one sent.
        if self.head < self.staging.len() / 2 {
            return false;
        }
        self.staging.copy_within(self.head..self.tail, 0);
        (self.head, self.tail) = (0, self.tail - self.head);
        true
    }

    /// Appends what `encode` writes (at most [`MAX_ENCODED_BYTES`]) and says how long it is.
    pub(super) fn stage(&mut self, encode: impl FnOnce(&mut [u8]) -> usize) {
        let length = encode(&mut self.staging[self.tail..]);
        self.tail += length;
        match self.runs.back_mut() {
            Some(run) if run.slot.is_none() => run.staged += length as u32,
            _ => self.runs.push_back(Run { staged: length as u32, slot: None, offset: 0, length: 0 }),
        }
    }

    /// Appends a command's data. The caller counts it in the slot's `unsent`.
    pub(super) fn refer(&mut self, slot: u16, offset: usize, length: usize) {
        // What fits a transfer fits 32 bits.
        let (offset, length) = (offset as u32, length as u32);
        match self.runs.back_mut() {
            Some(run) if run.slot.is_none() => {
                (run.slot, run.offset, run.length) = (Some(slot), offset, length);
            }
            _ => self.runs.push_back(Run { staged: 0, slot: Some(slot), offset, length }),
        }
    }

    /// Lists the front of the stream for one write.
    pub(super) fn gather<'a>(&'a self, slots: &'a Slots, parts: &mut ArrayVec<IoSlice<'a>, MAX_PARTS>) {
        let mut at = self.head;
        for run in &self.runs {
            if run.staged > 0 {
                if parts.is_full() {
                    return;
                }
                let end = at + run.staged as usize;
                parts.push(IoSlice::new(&self.staging[at..end]));
                at = end;
            }
            let Some(slot) = run.slot else { continue };
            let (payload, base) = slots.payload_of(slot);
            let (mut at, mut left) = (base + run.offset as usize, run.length as usize);
            while left > 0 {
                let bytes = payload.run(at, left);
                if parts.is_full() || bytes.is_empty() {
                    return;
                }
                parts.push(IoSlice::new(bytes));
                at += bytes.len();
                left -= bytes.len();
            }
        }
    }

    /// Takes `sent` bytes off the front and tells each slot whose data run ended with them.
    pub(super) fn advance(&mut self, mut sent: usize, mut ended: impl FnMut(u16)) {
        while let Some(run) = self.runs.front_mut() {
            let staged = sent.min(run.staged as usize);
            let data = (sent - staged).min(run.length as usize);
            self.head += staged;
            sent -= staged + data;
            run.staged -= staged as u32;
            run.offset += data as u32;
            run.length -= data as u32;
            if run.staged > 0 || run.length > 0 {
                return;
            }
            if let Some(slot) = run.slot {
                ended(slot);
            }
            self.runs.pop_front();
        }
        (self.head, self.tail) = (0, 0);
    }
}
