//! The commands of one queue that have arrived and are not yet answered.
//!
//! Invariant: a slot is either free or holds one command with its data, and goes back to free only once its last
//! PDU has been handed to the socket, or the connection is gone and no device holds it. The table grows to what
//! the host really uses and never beyond the queue's size.

use sledge_nvme::opcode::FABRICS;
use sledge_nvme::{Command, Status};
use sledge_reactor::memory::Segments;
use sledge_reactor::time::Instant;

/// Places to note commands at: one for each low byte of an identifier, so that finding it needs no check.
const PLACES: usize = 256;

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

/// What keeps a command from being executed as it is once its data is complete. Rare, whichever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Nothing.
    None,
    /// Its data starts behind something else that came in the capsule; the SGL says where.
    DataOffset,
    /// The data digest of some of its data was wrong.
    DataDigest,
    /// Its namespace is gone since it arrived; there may be another in its place, which it is not meant for.
    NamespaceGone,
    /// An Abort has taken it.
    Aborted,
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
    /// What keeps it from being executed.
    pub obstacle: Obstacle,
    /// Its part in a fused operation.
    pub fused: FusedHalf,
    /// How far a command is that takes several operations of devices: the next range of a Dataset Management command,
    /// or the latest namespace of a Flush of all.
    pub progress: u32,
    /// The device channel that executes it.
    pub channel: usize,
    /// Data bytes that the command moves, for the counters.
    pub bytes: u32,
    /// When the host was asked for the data, or last sent some of it, or began to owe the other half of the operation.
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
            obstacle: Obstacle::None,
            fused: FusedHalf::None,
            progress: 0,
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
        (self.by_transfer, self.borrows, self.obstacle) = (false, false, Obstacle::None);
        (self.fused, self.progress) = (FusedHalf::None, 0);
    }

    /// Notes what keeps it from being executed, unless that is decided already.
    pub fn obstruct(&mut self, obstacle: Obstacle) {
        if matches!(self.obstacle, Obstacle::None | Obstacle::DataOffset) {
            self.obstacle = obstacle;
        }
    }
}

/// Why a command gets no slot to be executed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// The host has more in flight than its queue has entries.
    Full,
    /// Another command in flight has the same identifier. The slot is there to answer from.
    Conflict(u16),
}

/// A command that came, and that may be gone.
#[derive(Clone, Copy, Debug)]
struct Noted {
    cid: u16,
    slot: u16,
}

impl Noted {
    /// No slot has this number.
    const NONE: Self = Self { cid: 0, slot: u16::MAX };
}

/// The slots of one queue.
#[derive(Debug)]
pub(crate) struct SlotTable {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// By the low byte of a command identifier: the command with such an identifier that came last. There while
    /// commands come.
    latest: Option<Box<[Noted; PLACES]>>,
    limit: u16,
    used: u16,
}

impl SlotTable {
    /// A table for a queue of `limit` commands at a time.
    pub fn new(limit: u16) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), latest: None, limit, used: 0 }
    }

    /// Gives back the table's memory while no slot is taken.
    pub fn shrink(&mut self) {
        if self.used == 0 {
            (self.slots, self.free, self.latest) = (Vec::new(), Vec::new(), None);
        }
    }

    /// Sets how many commands may be in flight; commands already there stay.
    pub fn set_limit(&mut self, limit: u16) {
        self.limit = limit;
    }

    /// A slot for a new command.
    ///
    /// Conflicts are found by one look at `latest`, for all hosts that number up to 256 commands from 0 or 1 on, whatever
    /// they put into the bits above. A conflict is missed when a third identifier with the same low byte was used
    /// meanwhile: the specification leaves it to the controller how many commands are searched (Base 3.3.3.2.1.1,
    /// Command ID Conflict), and nothing here mistakes one command for another by its identifier.
    ///
    /// # Errors
    /// Why it is not to be executed.
    pub fn take(&mut self, command: Command) -> Result<u16, NoSlot> {
        if self.used >= self.limit {
            return Err(NoSlot::Full);
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
        let cid = command.cid.get();
        let place = usize::from(cid) % PLACES;
        let before = match &mut self.latest {
            Some(latest) => std::mem::replace(&mut latest[place], Noted { cid, slot: index }),
            None => self.first_noted(Noted { cid, slot: index }),
        };
        // The slot that was just taken is still free.
        let conflict = before.cid == cid && self.is_in_flight(before);
        let slot = &mut self.slots[usize::from(index)];
        debug_assert!(slot.phase == Phase::Free && slot.data.is_empty());
        slot.begin(command);
        if conflict {
            // The first keeps its place: it will be there for longer.
            if let Some(latest) = &mut self.latest {
                latest[place] = before;
            }
            return Err(NoSlot::Conflict(index));
        }
        Ok(index)
    }

    fn is_in_flight(&self, noted: Noted) -> bool {
        let slot = self.slots.get(usize::from(noted.slot));
        slot.is_some_and(|slot| slot.phase != Phase::Free && slot.command.cid.get() == noted.cid)
    }

    /// Makes room to note commands, and notes the first.
    #[cold]
    fn first_noted(&mut self, first: Noted) -> Noted {
        let mut latest = Box::new([Noted::NONE; PLACES]);
        latest[usize::from(first.cid) % PLACES] = first;
        self.latest = Some(latest);
        Noted::NONE
    }

    /// Frees a slot and what it holds.
    pub fn release(&mut self, index: u16) {
        let slot = &mut self.slots[usize::from(index)];
        assert!(slot.phase != Phase::Free, "slot {index} is released twice");
        slot.phase = Phase::Free;
        if !slot.data.is_empty() {
            slot.data = Segments::new();
        }
        self.free.push(index);
        self.used -= 1;
        // A queue that has gone quiet gives its table back, so that idle queues cost little.
        if self.used == 0 && self.slots.len() > 64 {
            (self.slots, self.free) = (Vec::new(), Vec::new());
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

    /// Whether the host has owed some command's data, or the second half of a fused operation, since `limit` or longer,
    /// and keeps its buffer waiting.
    pub fn owes_data_since(&self, limit: Instant) -> bool {
        let waits = |slot: &Slot| matches!(slot.phase, Phase::Receiving | Phase::AwaitingPartner);
        self.slots.iter().any(|slot| waits(slot) && !slot.data.is_empty() && slot.asked <= limit)
    }

    /// A namespace is gone: the commands that are on their way to it must not reach another under its identifier.
    pub fn namespace_gone(&mut self, nsid: u32) {
        for slot in &mut self.slots {
            let on_its_way = !matches!(slot.phase, Phase::Free | Phase::Held | Phase::Responding);
            if on_its_way && slot.command.opcode != FABRICS && slot.command.nsid.get() == nsid {
                slot.obstruct(Obstacle::NamespaceGone);
            }
        }
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

    fn command(cid: u16) -> Command {
        Command::default().with_cid(cid)
    }

    // Without this two commands in flight could have one identifier, and the host not know which was answered.
    #[test]
    fn an_identifier_in_flight_is_not_taken_again() {
        for limit in [1, 2, 3, 100, 128, 256] {
            let mut table = SlotTable::new(1);
            table.set_limit(limit + 1);
            // Linux and others count how often they have used a number in the upper bits.
            for generation in 0..3 {
                let cid = |number: u16| number | generation << 12;
                let taken: Vec<u16> =
                    (0..limit).map(|number| table.take(command(cid(number))).unwrap()).collect();
                // Again and again.
                for number in (0..limit).chain(0..limit) {
                    let Err(NoSlot::Conflict(slot)) = table.take(command(cid(number))) else {
                        panic!("{number} of {limit} was taken twice")
                    };
                    assert_eq!(
                        table.get(slot).command.cid.get(),
                        cid(number),
                        "there is something to answer"
                    );
                    table.get_mut(slot).phase = Phase::Responding;
                    table.release(slot);
                }
                for slot in taken {
                    table.get_mut(slot).phase = Phase::Responding;
                    table.release(slot);
                }
                assert_eq!(table.used(), 0);
                if generation == 1 {
                    table.shrink();
                }
            }
        }
    }

    // Without this a host could have more commands in flight than its queue holds, without bound.
    #[test]
    fn the_queue_size_is_a_bound() {
        let mut table = SlotTable::new(3);
        let taken: Vec<u16> = (0..3).map(|cid| table.take(command(cid)).unwrap()).collect();
        assert_eq!(table.take(command(3)), Err(NoSlot::Full));
        table.release(taken[1]);
        assert_eq!(table.take(command(3)), Ok(taken[1]));
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
