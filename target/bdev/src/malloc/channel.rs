//! The path of a command on a memory device.
//!
//! Invariant: a command either holds its range when it touches memory, or waits in the channel's bounded queue
//! and is tried again at each poll, oldest first. Long deallocations and zeroing are done in steps, one a poll,
//! so that the reactor's turn stays short.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use sledge_nvme::Status;
use sledge_nvme::io::{Channel, Geometry, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::memory::{LendOwner, Lent};
use sledge_reactor::time::{self, Instant};

use super::memory::Memory;
use crate::command::{self, BUSY, MAX_OUTSTANDING};
use crate::gate::{Hold, Kind};
use crate::statistics::ChannelCounters;

/// Bytes that one step writes zeroes to.
const ZERO_STEP: u64 = 1 << 20;
/// Bytes that one step gives back to the kernel.
const FREE_STEP: u64 = 16 << 20;

/// Takes loans back.
struct Lender(Arc<Memory>);

impl LendOwner for Lender {
    fn give_back(&self, key: u64, len: usize) {
        let gate = self.0.gate();
        gate.release(Hold::complete(Kind::Share, key, len as u64, gate));
    }
}

/// A command that has not ended.
struct Task {
    io: IoCommand,
    started: Instant,
    /// Since when it waits: its start, or its last step.
    waits_since: Instant,
    hold: Hold,
    /// First byte and bytes still to do.
    offset: u64,
    left: u64,
}

/// What became of one attempt.
enum Outcome {
    Ended(Status),
    Waits,
}

/// One reactor's way to a memory device.
pub(super) struct MallocChannel {
    memory: Arc<Memory>,
    lender: Rc<Lender>,
    geometry: Geometry,
    waiting: VecDeque<Task>,
    counters: ChannelCounters,
}

impl MallocChannel {
    pub(super) fn new(memory: Arc<Memory>, geometry: Geometry, counters: ChannelCounters) -> Self {
        let lender = Rc::new(Lender(memory.clone()));
        Self { memory, lender, geometry, waiting: VecDeque::new(), counters }
    }

    /// Goes on with a command as far as it can now.
    fn advance(&self, task: &mut Task) -> Outcome {
        match task.io.operation {
            Operation::Flush | Operation::Verify => Outcome::Ended(Status::SUCCESS),
            Operation::WriteZeroes { .. } | Operation::Deallocate => self.clear(task),
            Operation::Read | Operation::Compare => self.transfer(task, Kind::Share),
            Operation::Write | Operation::CompareAndWrite => self.transfer(task, Kind::Exclusive),
        }
    }

    /// Takes the range and then does all of it.
    fn transfer(&self, task: &mut Task, kind: Kind) -> Outcome {
        if !self.enter(task, kind, task.left) {
            return Outcome::Waits;
        }
        let (offset, len) = (task.offset as usize, task.left as usize);
        let status = match task.io.operation {
            Operation::Read if task.io.data.is_empty() => {
                let owner: Rc<dyn LendOwner> = self.lender.clone();
                // The loan takes over the share.
                let _ = task.hold.take();
                // SAFETY: the range was checked against the device, and the share that keeps writers out is given
                // back by the lender only; the lender keeps the memory mapped.
                let lent = unsafe { Lent::new(self.memory.address(offset), len, owner, task.offset) };
                task.io.data = lent.into();
                Status::SUCCESS
            }
            Operation::Read => {
                // SAFETY: checked range, share held.
                let bytes = unsafe { self.memory.bytes(offset, len) };
                if task.io.data.copy_from(0, bytes) == len {
                    Status::SUCCESS
                } else {
                    Status::INVALID_FIELD.do_not_retry()
                }
            }
            Operation::Compare => self.compare(task),
            Operation::CompareAndWrite => {
                let status = self.compare(task);
                if status.is_success() {
                    self.write(task, len);
                }
                status
            }
            _ => {
                self.write(task, 0);
                Status::SUCCESS
            }
        };
        self.leave(task);
        Outcome::Ended(status)
    }

    /// Compares the held range with the beginning of the data.
    fn compare(&self, task: &Task) -> Status {
        // SAFETY: checked range, share or more held.
        let bytes = unsafe { self.memory.bytes(task.offset as usize, task.left as usize) };
        if command::equals(&task.io.data, 0, bytes) { Status::SUCCESS } else { Status::COMPARE_FAILURE }
    }

    /// Writes the data from byte `skip` on to the range, which is held exclusively.
    fn write(&self, task: &Task, skip: usize) {
        command::visit(&task.io.data, skip, task.left as usize, |at, part| {
            // SAFETY: parts lie within the checked range, which is held exclusively.
            unsafe { self.memory.write(task.offset as usize + at, part) };
            true
        });
    }

    /// Does one step of a deallocation or of zeroing.
    fn clear(&self, task: &mut Task) -> Outcome {
        let free = task.io.operation != Operation::WriteZeroes { deallocate: false };
        let step = if free { FREE_STEP } else { ZERO_STEP };
        // Steps end at whole multiples, so that each frees whole pages.
        let part = task.left.min(step - task.offset % step);
        if !self.enter(task, Kind::Exclusive, part) {
            return Outcome::Waits;
        }
        let (offset, len) = (task.offset as usize, part as usize);
        // SAFETY: a part of the checked range, held exclusively.
        unsafe {
            if free {
                self.memory.free(offset, len);
            } else {
                self.memory.zero(offset, len);
            }
        }
        self.leave(task);
        task.offset += part;
        task.left -= part;
        task.waits_since = time::now();
        if task.left == 0 { Outcome::Ended(Status::SUCCESS) } else { Outcome::Waits }
    }

    /// Whether the first `len` bytes of what is left are held now.
    fn enter(&self, task: &mut Task, kind: Kind, len: u64) -> bool {
        if task.hold.is_nothing() {
            task.hold = Hold::new(kind, task.offset, len);
        }
        self.memory.gate().advance(&mut task.hold)
    }

    /// Gives back what is held.
    fn leave(&self, task: &mut Task) {
        self.memory.gate().release(task.hold.take());
    }

    fn end(&self, task: Task, status: Status) -> IoCompletion {
        let (_, bytes) = command::byte_range(&task.io, &self.geometry);
        self.counters.count(task.io.operation, bytes, task.started, status);
        task.io.complete(status)
    }
}

impl Channel for MallocChannel {
    fn submit(&mut self, io: IoCommand) -> Submitted {
        let started = time::now();
        if let Err(status) = command::check(&io, &self.geometry) {
            self.counters.count(io.operation, 0, started, status);
            return Submitted::Done(io.complete(status));
        }
        let (offset, left) = command::byte_range(&io, &self.geometry);
        let mut task = Task { io, started, waits_since: started, hold: Hold::NOTHING, offset, left };
        match self.advance(&mut task) {
            Outcome::Ended(status) => Submitted::Done(self.end(task, status)),
            Outcome::Waits if self.waiting.len() >= MAX_OUTSTANDING => {
                self.leave(&mut task);
                Submitted::Done(self.end(task, BUSY))
            }
            Outcome::Waits => {
                self.waiting.push_back(task);
                Submitted::Pending
            }
        }
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        for _ in 0..self.waiting.len() {
            let Some(mut task) = self.waiting.pop_front() else { break };
            match self.advance(&mut task) {
                Outcome::Ended(status) => done.push(self.end(task, status)),
                Outcome::Waits if command::has_waited_out(task.waits_since) => {
                    self.leave(&mut task);
                    done.push(self.end(task, BUSY));
                }
                Outcome::Waits => self.waiting.push_back(task),
            }
        }
    }

    fn outstanding(&self) -> usize {
        self.waiting.len()
    }

    fn takes_data_at_once(&self) -> bool {
        true
    }

    fn needs_polling(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Drop for MallocChannel {
    fn drop(&mut self) {
        while let Some(mut task) = self.waiting.pop_front() {
            self.leave(&mut task);
        }
    }
}
