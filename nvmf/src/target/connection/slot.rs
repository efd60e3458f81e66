//! The commands of one queue that have arrived and are not yet answered.
//!
//! Invariant: a slot is either free or holds one command with its data, and goes back to free only once its last
//! PDU has been handed to the socket, or the connection is gone and no device holds it. The table grows to what
//! the host really uses and never beyond the queue's size.

use sledge_nvme::{Command, Status};
use sledge_reactor::memory::Segments;
use sledge_reactor::time::Instant;

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No command.
    Free,
    /// Waits until the pool has a buffer for its data.
    AwaitingBuffer,
    /// Its data is arriving, in the capsule or in H2CData.
    Receiving,
    /// First half of a fused operation, complete, waits for the second; or a second half waits for the first's data.
    AwaitingPartner,
    /// At a device, or with a decision that another reactor makes.
    Executing,
    /// An asynchronous event request that waits for an event.
    Held,
    /// Answered; its last PDU is queued.
    Responding,
}

/// A command's part in a fused operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FusedHalf {
    /// None: an ordinary command.
    None,
    /// The first half, with the slot of the second once that has arrived.
    First(Option<u16>),
    /// The second half, with the slot of the first.
    Second(u16),
    /// A half whose partner failed or never came: answered so when its data is complete.
    Broken(Status),
}

/// One command.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The submission queue entry.
    pub command: Command,
    /// Where it stands.
    pub phase: Phase,
    /// Its data: received so far, or to be sent.
    pub data: Segments,
    /// Bytes that the host sends.
    pub expected: u32,
    /// Of them, received.
    pub received: u32,
    /// Whether the data arrives by H2CData after an R2T, not in the capsule.
    pub by_transfer: bool,
    /// Whether the data is borrowed from the scratch once it has been looked at.
    pub borrows: bool,
    /// Whether the data digest of some of its data was wrong.
    pub digest_failed: bool,
    /// Whether an Abort has taken it: it is not executed when its data is complete.
    pub aborted: bool,
    /// Its part in a fused operation.
    pub fused: FusedHalf,
    /// Next range of a Dataset Management command.
    pub next_range: u16,
    /// The device channel that executes it.
    pub channel: usize,
    /// Data bytes that the command moves, for the counters.
    pub bytes: u32,
    /// When the host was asked for the data, or last sent some of it.
    pub asked: Instant,
}

impl Slot {
    fn empty() -> Self {
        Self {
            command: Command::default(),
            phase: Phase::Free,
            data: Segments::new(),
            expected: 0,
            received: 0,
            by_transfer: false,
            borrows: false,
            digest_failed: false,
            aborted: false,
            fused: FusedHalf::None,
            next_range: 0,
            channel: usize::MAX,
            bytes: 0,
            asked: Instant::from_nanos(0),
        }
    }

    /// Makes a free slot that of a command which has just arrived. What is set before it is looked at stays as it is.
    #[inline]
    fn begin(&mut self, command: Command) {
        self.command = command;
        self.phase = Phase::Receiving;
        (self.expected, self.received, self.bytes) = (0, 0, 0);
        (self.by_transfer, self.borrows, self.digest_failed, self.aborted) = (false, false, false, false);
        (self.fused, self.next_range) = (FusedHalf::None, 0);
    }
}

/// The slots of one queue.
#[derive(Debug)]
pub(crate) struct SlotTable {
    slots: Vec<Slot>,
    free: Vec<u16>,
    limit: u16,
    used: u16,
}

impl SlotTable {
    /// A table for a queue of `limit` commands at a time.
    pub fn new(limit: u16) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit, used: 0 }
    }

    /// Gives back the table's memory while no slot is taken.
    pub fn shrink(&mut self) {
        if self.used == 0 {
            (self.slots, self.free) = (Vec::new(), Vec::new());
        }
    }

    /// Sets how many commands may be in flight; commands already there stay.
    pub fn set_limit(&mut self, limit: u16) {
        self.limit = limit;
    }

    /// A slot for a new command; `None` when the host has more in flight than its queue has entries.
    pub fn take(&mut self, command: Command) -> Option<u16> {
        if self.used >= self.limit {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = self.slots.len() as u16;
                if index == 0 {
                    // Most queues that were just connected have one command at a time for a while.
                    self.slots.reserve_exact(1);
                }
                self.slots.push(Slot::empty());
                index
            }
        };
        self.used += 1;
        let slot = &mut self.slots[usize::from(index)];
        debug_assert!(slot.phase == Phase::Free && slot.data.is_empty());
        slot.begin(command);
        Some(index)
    }

    /// Frees a slot and what it holds.
    pub fn release(&mut self, index: u16) {
        let slot = &mut self.slots[usize::from(index)];
        assert!(slot.phase != Phase::Free, "slot {index} is released twice");
        slot.phase = Phase::Free;
        slot.data = Segments::new();
        self.free.push(index);
        self.used -= 1;
        // A queue that has gone quiet gives its table back, so that idle queues cost little.
        if self.used == 0 && self.slots.len() > 64 {
            self.slots = Vec::new();
            self.free = Vec::new();
        }
    }

    /// The command in a slot.
    pub fn get(&self, index: u16) -> &Slot {
        &self.slots[usize::from(index)]
    }

    /// The command in a slot, to be changed.
    pub fn get_mut(&mut self, index: u16) -> &mut Slot {
        &mut self.slots[usize::from(index)]
    }

    /// The command in a slot that outside bytes named; `None` when there is none.
    pub fn find(&mut self, index: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(index)).filter(|slot| slot.phase != Phase::Free)
    }

    /// The slot that holds the unanswered command `cid`.
    pub fn by_command_id(&self, cid: u16) -> Option<u16> {
        self.slots
            .iter()
            .position(|slot| {
                !matches!(slot.phase, Phase::Free | Phase::Responding) && slot.command.cid.get() == cid
            })
            .map(|index| index as u16)
    }

    /// Whether the host has owed some command's data since `limit` or longer, and keeps its buffer waiting.
    pub fn owes_data_since(&self, limit: Instant) -> bool {
        let owed = |slot: &Slot| slot.phase == Phase::Receiving && slot.by_transfer && slot.asked <= limit;
        self.slots.iter().any(owed)
    }

    /// Commands in flight.
    pub fn used(&self) -> u16 {
        self.used
    }

    /// Frees every slot that no device holds, when the connection is gone.
    pub fn release_idle(&mut self) {
        for index in 0..self.slots.len() as u16 {
            if !matches!(self.get(index).phase, Phase::Free | Phase::Executing) {
                // Not through `release`: the table must keep its shape until all are out.
                let slot = &mut self.slots[usize::from(index)];
                (slot.phase, slot.data) = (Phase::Free, Segments::new());
                self.free.push(index);
                self.used -= 1;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without this a host could have more commands in flight than its queue holds, without bound.
    #[test]
    fn the_queue_size_is_a_bound() {
        let mut table = SlotTable::new(3);
        let taken: Vec<u16> = (0..3).map(|_| table.take(Command::default()).unwrap()).collect();
        assert_eq!(table.take(Command::default()), None);
        table.release(taken[1]);
        assert_eq!(table.take(Command::default()), Some(taken[1]));
        assert_eq!(table.used(), 3);
    }

    // Without this a device's late completion could find its slot given to another command.
    #[test]
    fn commands_at_devices_keep_their_slots() {
        let mut table = SlotTable::new(8);
        let first = table.take(Command::default().with_cid(7)).unwrap();
        let second = table.take(Command::default().with_cid(8)).unwrap();
        table.get_mut(first).phase = Phase::Executing;
        table.get_mut(second).phase = Phase::Responding;
        assert_eq!(table.by_command_id(7), Some(first));
        assert_eq!(table.by_command_id(8), None, "an answered command can't be aborted");
        table.release_idle();
        assert_eq!((table.used(), table.get(first).phase), (1, Phase::Executing));
    }
}
