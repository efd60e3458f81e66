//! The path of a command on a memory device.
//!
//! Invariant: a command either holds its range when it touches memory, or waits in the channel's bounded queue
//! and is tried again at each poll, oldest first. Long deallocations and zeroing are done in steps, one a poll,
//! so that the reactor's turn stays short.
//!
//! A write's range is given back one step late, at the next command or poll: giving it back waits until all its bytes
//! have reached memory, which takes several times as long as the copy when the destination is not in the cache, and
//! meanwhile the reactor can already do something else. At most one range is given back late, and it is before any
//! other is taken.

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
    progress: Progress,
}

/// How far a command is.
struct Progress {
    hold: Hold,
    /// First byte and bytes still to do.
    offset: u64,
    left: u64,
}

/// What became of one attempt.
enum Outcome {
    Ended(Status),
    /// A step is done, others are left.
    Stepped,
    /// Others have the range, or a part of it.
    Waits,
}

/// One reactor's way to a memory device.
pub(super) struct MallocChannel {
    memory: Arc<Memory>,
    lender: Rc<Lender>,
    geometry: Geometry,
    waiting: VecDeque<Task>,
    /// The range of the latest write, if it has not been given back yet.
    late: Hold,
    counters: ChannelCounters,
}

impl MallocChannel {
    pub(super) fn new(memory: Arc<Memory>, geometry: Geometry, counters: ChannelCounters) -> Self {
        let lender = Rc::new(Lender(memory.clone()));
        Self { memory, lender, geometry, waiting: VecDeque::new(), late: Hold::NOTHING, counters }
    }

    /// Goes on with a command as far as it can now.
    fn advance(&mut self, io: &mut IoCommand, progress: &mut Progress) -> Outcome {
        match io.operation {
            Operation::Flush | Operation::Verify => Outcome::Ended(Status::SUCCESS),
            Operation::WriteZeroes { .. } | Operation::Deallocate => self.clear(io.operation, progress),
            Operation::Read | Operation::Compare => self.transfer(io, progress, Kind::Share),
            Operation::Write | Operation::CompareAndWrite => self.transfer(io, progress, Kind::Exclusive),
        }
    }

    /// Takes the range and then does all of it.
    fn transfer(&mut self, io: &mut IoCommand, progress: &mut Progress, kind: Kind) -> Outcome {
        if !self.enter(progress, kind, progress.left) {
            return Outcome::Waits;
        }
        let (offset, len) = (progress.offset as usize, progress.left as usize);
        let status = match io.operation {
            Operation::Read if io.data.is_empty() => {
                let owner: Rc<dyn LendOwner> = self.lender.clone();
                // SAFETY: the range was checked against the device, and the share that keeps writers out is given
                // back by the lender only, when the loan ends; the lender keeps the memory mapped.
                let lent = unsafe { Lent::new(self.memory.address(offset), len, owner, progress.offset) };
                let _ = progress.hold.take();
                io.data = lent.into();
                return Outcome::Ended(Status::SUCCESS);
            }
            Operation::Read => {
                // SAFETY: checked range, share held.
                let bytes = unsafe { self.memory.bytes(offset, len) };
                if io.data.copy_from(0, bytes) == len {
                    Status::SUCCESS
                } else {
                    Status::INVALID_FIELD.do_not_retry()
                }
            }
            Operation::Compare => self.compare(io, offset, len),
            Operation::CompareAndWrite => {
                let status = self.compare(io, offset, len);
                if status.is_success() {
                    self.write(io, progress, len);
                }
                status
            }
            _ => {
                self.write(io, progress, 0);
                Status::SUCCESS
            }
        };
        self.leave(progress);
        Outcome::Ended(status)
    }

    /// Compares the held range with the beginning of the data.
    fn compare(&self, io: &IoCommand, offset: usize, len: usize) -> Status {
        // SAFETY: checked range, share or more held.
        let bytes = unsafe { self.memory.bytes(offset, len) };
        if command::equals(&io.data, 0, bytes) { Status::SUCCESS } else { Status::COMPARE_FAILURE }
    }

    /// Writes the data from byte `skip` on to the range, which is held exclusively, and keeps that to give it back late.
    fn write(&mut self, io: &IoCommand, progress: &mut Progress, skip: usize) {
        command::visit(&io.data, skip, progress.left as usize, |at, part| {
            // SAFETY: parts lie within the checked range, which is held exclusively until `give_back_late`.
            unsafe { self.memory.write(progress.offset as usize + at, part) };
            true
        });
        debug_assert!(self.late.is_nothing(), "given back before another range was taken");
        self.late = progress.hold.take();
    }

    /// Gives back the range of the latest write, once all its bytes are where others see them.
    fn give_back_late(&mut self) {
        if !self.late.is_nothing() {
            self.memory.settle();
            self.memory.gate().release(self.late.take());
        }
    }

    /// Does one step of a deallocation or of zeroing.
    fn clear(&mut self, operation: Operation, progress: &mut Progress) -> Outcome {
        let free = operation != Operation::WriteZeroes { deallocate: false };
        let step = if free && self.memory.gives_back() { FREE_STEP } else { ZERO_STEP };
        // Steps end at whole multiples, so that each frees whole pages.
        let part = progress.left.min(step - progress.offset % step);
        if !self.enter(progress, Kind::Exclusive, part) {
            return Outcome::Waits;
        }
        let (offset, len) = (progress.offset as usize, part as usize);
        // SAFETY: a part of the checked range, held exclusively.
        unsafe {
            if free {
                self.memory.free(offset, len);
            } else {
                self.memory.zero(offset, len);
            }
        }
        self.leave(progress);
        progress.offset += part;
        progress.left -= part;
        if progress.left == 0 { Outcome::Ended(Status::SUCCESS) } else { Outcome::Stepped }
    }

    /// Whether the first `len` bytes of what is left are held now.
    fn enter(&mut self, progress: &mut Progress, kind: Kind, len: u64) -> bool {
        self.give_back_late();
        if progress.hold.is_nothing() {
            progress.hold = Hold::new(kind, progress.offset, len);
        }
        self.memory.gate().advance(&mut progress.hold)
    }

    /// Gives back what is held.
    fn leave(&self, progress: &mut Progress) {
        if !progress.hold.is_nothing() {
            self.memory.gate().release(progress.hold.take());
        }
    }

    /// Ends a command that has waited.
    fn end(&self, mut task: Task, status: Status) -> IoCompletion {
        self.leave(&mut task.progress);
        let (_, bytes) = command::byte_range(&task.io, &self.geometry);
        self.counters.count(task.io.operation, bytes, task.started, status);
        task.io.complete(status)
    }
}

impl Channel for MallocChannel {
    fn submit(&mut self, mut io: IoCommand) -> Submitted {
        let status = match command::check(&io, &self.geometry) {
            Ok(()) => {
                let (offset, left) = command::byte_range(&io, &self.geometry);
                let mut progress = Progress { hold: Hold::NOTHING, offset, left };
                match self.advance(&mut io, &mut progress) {
                    Outcome::Ended(status) => {
                        self.counters.count_at_once(io.operation, left, status);
                        return Submitted::Done(io.complete(status));
                    }
                    _ if self.waiting.len() >= MAX_OUTSTANDING => {
                        self.leave(&mut progress);
                        BUSY
                    }
                    _ => {
                        let started = time::now();
                        self.waiting.push_back(Task { io, started, waits_since: started, progress });
                        return Submitted::Pending;
                    }
                }
            }
            Err(status) => status,
        };
        self.counters.count_at_once(io.operation, 0, status);
        Submitted::Done(io.complete(status))
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        self.give_back_late();
        for _ in 0..self.waiting.len() {
            let Some(mut task) = self.waiting.pop_front() else { break };
            match self.advance(&mut task.io, &mut task.progress) {
                Outcome::Ended(status) => done.push(self.end(task, status)),
                Outcome::Stepped => {
                    task.waits_since = time::now();
                    self.waiting.push_back(task);
                }
                Outcome::Waits if command::has_waited_out(task.waits_since) => {
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
        !self.waiting.is_empty() || !self.late.is_nothing()
    }
}

impl Drop for MallocChannel {
    fn drop(&mut self) {
        self.give_back_late();
        while let Some(mut task) = self.waiting.pop_front() {
            self.leave(&mut task.progress);
        }
    }
}
