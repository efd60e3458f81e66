//! The commands that a queue has accepted and not yet given back.
//!
//! Invariant: a slot is free, or holds one command that will be given back exactly once. A command identifier names a
//! slot and the slot's generation, so that a late or repeated answer is never taken for another command's.

use super::payload::Payload;
use sledge_nvme::{Command, Completion};
use sledge_reactor::time::Instant;

/// Bits of a command identifier that name the slot; the rest is the slot's generation.
const INDEX_BITS: u32 = 12;
/// Most commands of one queue.
pub(super) const MAX_SLOTS: usize = 1 << INDEX_BITS;

/// Which way a command's data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// No data.
    None,
    /// To the host.
    In,
    /// To the controller.
    Out,
}

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// No command.
    Free,
    /// Not yet encoded.
    Queued,
    /// Its capsule is encoded; the answer is to come.
    Sent,
    /// Answered, but its data is still in the send queue.
    Answered,
    /// One half of a fused pair, done, waiting for the other.
    Joined,
    /// It has a completion, and waits to be given back.
    Ended,
}

/// An R2T that is being answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// TTAG.
    pub(super) tag: u16,
    /// Next byte to send, within the command's data.
    pub(super) offset: u32,
    /// Bytes left to send.
    pub(super) left: u32,
}

/// One command.
#[derive(Debug)]
pub(super) struct Slot {
    generation: u16,
    pub(super) stage: Stage,
    /// The submitter's name for the command.
    pub(super) token: u64,
    /// Order of submission.
    pub(super) sequence: u64,
    /// When its capsule was encoded.
    pub(super) sent: Instant,
    /// Whether the command may take as long as it likes (Asynchronous Event Request).
    pub(super) unhurried: bool,
    pub(super) command: Command,
    pub(super) direction: Direction,
    /// Bytes of data that the command transfers.
    pub(super) expected: u32,
    /// Bytes of data that arrived.
    pub(super) received: u32,
    pub(super) payload: Payload,
    /// Slot whose payload holds this command's data: its own, or the second half's of its fused pair.
    pub(super) payload_home: u16,
    /// Where in that payload the data starts.
    pub(super) payload_base: u32,
    /// The other half of a fused pair.
    pub(super) partner: Option<u16>,
    /// The data goes in the capsule.
    pub(super) in_capsule: bool,
    /// Runs of data in the send queue.
    pub(super) unsent: u16,
    pub(super) transfer: Option<Transfer>,
    /// Data arrived with a wrong digest.
    pub(super) spoiled: bool,
    pub(super) completion: Completion,
}

impl Slot {
    fn new(index: u16) -> Self {
        Self {
            generation: 0,
            stage: Stage::Free,
            token: 0,
            sequence: 0,
            sent: Instant::from_nanos(0),
            unhurried: false,
            command: Command::default(),
            direction: Direction::None,
            expected: 0,
            received: 0,
            payload: Payload::None,
            payload_home: index,
            payload_base: 0,
            partner: None,
            in_capsule: false,
            unsent: 0,
            transfer: None,
            spoiled: false,
            completion: Completion::default(),
        }
    }
}

/// The slots of one queue.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    free: Vec<u16>,
    next_sequence: u64,
}

impl Slots {
    /// `depth` (at least 1, at most [`MAX_SLOTS`]) free slots.
    pub(super) fn new(depth: usize) -> Self {
        let depth = depth.clamp(1, MAX_SLOTS) as u16;
        Self {
            slots: (0..depth).map(Slot::new).collect(),
            free: (0..depth).rev().collect(),
            next_sequence: 0,
        }
    }

    /// Most commands at once.
    pub(super) fn depth(&self) -> usize {
        self.slots.len()
    }

    /// Commands held.
    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots free.
    pub(super) fn available(&self) -> usize {
        self.free.len()
    }

    /// Takes a free slot, reset but for what the caller fills in.
    pub(super) fn allocate(&mut self) -> Option<u16> {
        let index = self.free.pop()?;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let slot = &mut self.slots[index as usize];
        slot.stage = Stage::Queued;
        slot.sequence = sequence;
        slot.unhurried = false;
        slot.payload_home = index;
        slot.payload_base = 0;
        slot.partner = None;
        slot.in_capsule = false;
        slot.unsent = 0;
        slot.received = 0;
        slot.transfer = None;
        slot.spoiled = false;
        Some(index)
    }

    /// Frees a slot, whose data somebody has taken, or drops it.
    pub(super) fn release(&mut self, index: u16) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.stage != Stage::Free, "a slot is freed once");
        slot.stage = Stage::Free;
        slot.generation = slot.generation.wrapping_add(1) & (u16::MAX >> INDEX_BITS);
        if !matches!(slot.payload, Payload::None) {
            slot.payload = Payload::None;
        }
        self.free.push(index);
    }

    /// The slot at an index that [`Slots::allocate`] or [`Slots::find`] gave.
    pub(super) fn get(&self, index: u16) -> &Slot {
        &self.slots[index as usize]
    }

    /// The same for changing.
    pub(super) fn get_mut(&mut self, index: u16) -> &mut Slot {
        &mut self.slots[index as usize]
    }

    /// The identifier of the command in a slot.
    pub(super) fn command_id(&self, index: u16) -> u16 {
        index | self.slots[index as usize].generation << INDEX_BITS
    }

    /// The slot of a command that was sent and is not answered, by the identifier that the peer named.
    pub(super) fn find(&self, command_id: u16) -> Option<u16> {
        let index = command_id & (MAX_SLOTS as u16 - 1);
        let slot = self.slots.get(index as usize)?;
        (slot.stage == Stage::Sent && slot.generation == command_id >> INDEX_BITS).then_some(index)
    }

    /// All slots that hold a command, by index.
    pub(super) fn held(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.stage != Stage::Free)
            .map(|(index, slot)| (index as u16, slot))
    }

    /// The payload that holds a command's data.
    pub(super) fn payload_of(&self, index: u16) -> (&Payload, usize) {
        let slot = &self.slots[index as usize];
        (&self.slots[slot.payload_home as usize].payload, slot.payload_base as usize)
    }

    /// The same for changing.
    pub(super) fn payload_of_mut(&mut self, index: u16) -> (&mut Payload, usize) {
        let slot = &self.slots[index as usize];
        let (home, base) = (slot.payload_home as usize, slot.payload_base as usize);
        (&mut self.slots[home].payload, base)
    }
}
