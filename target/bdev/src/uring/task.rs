//! One command on a file device: which disk requests it takes, and what follows each.
//!
//! A task goes through memory, gate, disk, in this order: memory first, so that a task that holds a range never
//! waits for memory (whoever has the memory may wait for that range). Invariant: `stage` says what it waits for;
//! its segments are with the disk exactly while that is [`Stage::Flying`].

use std::io;

use sledge_nvme::Status;
use sledge_nvme::io::{IoCommand, Operation};
use sledge_reactor::disk::{DiskOperation, DiskRequest};
use sledge_reactor::memory::Segments;
use sledge_reactor::time::Instant;

use super::{Shared, status};
use crate::command;
use crate::gate::{Hold, Kind};

/// Bytes that a compare or verify reads at once.
const LOOK_BYTES: u64 = 128 << 10;
/// Bytes that one request deallocates or zeroes: bounds how long a range stays locked.
const CLEAR_BYTES: u64 = 32 << 20;

/// What a task waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Buffers out of the reactor's pool.
    Memory,
    /// Its range.
    Gate,
    /// A place in the disk's queue.
    Queue,
    /// The disk.
    Flying,
}

/// Which part of its work a task is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The one transfer of a read or write, or a flush.
    Whole,
    /// Reading to compare or verify.
    Look,
    /// The write after a successful compare.
    Swap,
    /// Deallocating or zeroing.
    Clear,
    /// The flush that makes a zeroing with FUA durable.
    Settle,
}

/// What follows when the disk has done a request.
pub(super) enum Next {
    /// The command has ended.
    Ended(Status),
    /// Go on at this stage.
    Stage(Stage),
}

/// A command under way.
pub(super) struct Task {
    pub(super) io: IoCommand,
    pub(super) started: Instant,
    /// Since when it waits: its start, or its last request's end.
    pub(super) waits_since: Instant,
    pub(super) stage: Stage,
    pub(super) hold: Hold,
    step: Step,
    /// Memory that the disk can reach, when the command's own is not aligned or not there.
    scratch: Segments,
    /// Whether the request in the disk's queue has the scratch memory (else the command's data).
    scratch_flies: bool,
    /// First byte on the disk, and length of the command's range.
    offset: u64,
    len: u64,
    /// Bytes of the range that are done (for steps that go piecewise).
    done: u64,
    /// Bytes of the request in the disk's queue.
    flying: u64,
}

impl Task {
    /// A task for a checked command.
    pub(super) fn new(io: IoCommand, started: Instant, shared: &Shared) -> Task {
        let (offset, len) = command::byte_range(&io, &shared.geometry);
        let step = match io.operation {
            Operation::Read | Operation::Write | Operation::Flush => Step::Whole,
            Operation::Compare | Operation::CompareAndWrite | Operation::Verify => Step::Look,
            Operation::WriteZeroes { .. } | Operation::Deallocate => Step::Clear,
        };
        Task {
            io,
            started,
            waits_since: started,
            stage: Stage::Memory,
            hold: Hold::NOTHING,
            step,
            scratch: Segments::EMPTY,
            scratch_flies: false,
            offset,
            len,
            done: 0,
            flying: 0,
        }
    }

    /// Takes what memory the task needs; false when the pool is dry.
    ///
    /// # Errors
    /// The command needs more than fits into one I/O's data.
    pub(super) fn take_memory(&mut self, shared: &Shared) -> Result<bool, Status> {
        let needed = match self.io.operation {
            Operation::Read if self.io.data.is_empty() => {
                return match command::allocate(self.len)? {
                    Some(data) => {
                        self.io.data = data;
                        Ok(true)
                    }
                    None => Ok(false),
                };
            }
            Operation::Read | Operation::Write => {
                if is_aligned(&self.io.data, shared) {
                    return Ok(true);
                }
                self.len
            }
            Operation::Compare | Operation::Verify => self.len.min(LOOK_BYTES),
            // The new data goes out of the scratch memory when the command's own is not aligned.
            Operation::CompareAndWrite if is_aligned(&self.io.data, shared) => self.len.min(LOOK_BYTES),
            Operation::CompareAndWrite => self.len,
            Operation::Flush | Operation::WriteZeroes { .. } | Operation::Deallocate => return Ok(true),
        };
        let Some(scratch) = command::allocate(needed)? else { return Ok(false) };
        self.scratch = scratch;
        if self.io.operation == Operation::Write {
            copy(&self.io.data, 0, &mut self.scratch, self.len as usize);
        }
        Ok(true)
    }

    /// Takes the range that the current step needs; false when it is not to be had now.
    pub(super) fn enter(&mut self, shared: &Shared) -> bool {
        if self.hold.is_nothing() {
            let (kind, start, len) = match self.step {
                Step::Whole if self.io.operation == Operation::Write => {
                    (Kind::Exclusive, self.offset, self.len)
                }
                Step::Whole => (Kind::Share, self.offset, self.len),
                Step::Look | Step::Swap => match self.io.operation {
                    Operation::CompareAndWrite => (Kind::Exclusive, self.offset, self.len),
                    Operation::Compare => (Kind::Share, self.offset, self.len),
                    _ => return true,
                },
                Step::Clear => (Kind::Exclusive, self.offset + self.done, self.piece()),
                Step::Settle => return true,
            };
            self.hold = Hold::new(kind, start, len);
        }
        shared.gate.advance(&mut self.hold)
    }

    /// Gives back the range.
    pub(super) fn leave(&mut self, shared: &Shared) {
        shared.gate.release(self.hold.take());
    }

    /// Bytes of the next request of the current step.
    fn piece(&self) -> u64 {
        let (left, at) = (self.len - self.done, self.offset + self.done);
        match self.step {
            Step::Whole | Step::Swap => self.len,
            Step::Look => left.min(LOOK_BYTES),
            // Pieces end at whole multiples, so that each covers whole pages.
            Step::Clear => left.min(CLEAR_BYTES - at % CLEAR_BYTES),
            Step::Settle => 0,
        }
    }

    /// The next request for the disk. Its memory is the task's, which must get it back by [`Task::take_back`].
    pub(super) fn request(&mut self, token: u64, shared: &Shared) -> DiskRequest {
        self.flying = self.piece();
        let mut request = DiskRequest {
            token,
            operation: DiskOperation::Read,
            offset: self.offset + self.done,
            length: self.flying,
            segments: Segments::EMPTY,
            skip: 0,
        };
        let durable = self.io.fua;
        match self.step {
            Step::Whole | Step::Swap => {
                request.offset = self.offset;
                request.operation = match self.io.operation {
                    Operation::Flush => DiskOperation::Flush,
                    Operation::Read => DiskOperation::Read,
                    _ => DiskOperation::Write { durable },
                };
                self.scratch_flies = if self.step == Step::Swap {
                    !is_aligned(&self.io.data, shared)
                } else {
                    !self.scratch.is_empty()
                };
                if self.step == Step::Swap {
                    if self.scratch_flies {
                        let len = self.len as usize;
                        copy(&self.io.data, len, &mut self.scratch, len);
                    } else {
                        request.skip = self.len as usize;
                    }
                }
                let memory = if self.scratch_flies { &mut self.scratch } else { &mut self.io.data };
                request.segments = std::mem::take(memory);
            }
            Step::Look => {
                self.scratch_flies = true;
                request.segments = std::mem::take(&mut self.scratch);
            }
            Step::Clear => {
                self.scratch_flies = true;
                request.operation = match self.io.operation {
                    Operation::WriteZeroes { deallocate } => DiskOperation::WriteZeroes { deallocate },
                    _ => DiskOperation::Discard,
                };
            }
            Step::Settle => {
                self.scratch_flies = true;
                request.operation = DiskOperation::Flush;
            }
        }
        request
    }

    /// Takes a request's memory back, done or refused.
    pub(super) fn take_back(&mut self, segments: Segments) {
        match self.step {
            // They send nothing.
            Step::Clear | Step::Settle => {}
            _ if self.scratch_flies => self.scratch = segments,
            _ => self.io.data = segments,
        }
    }

    /// What follows a request's end.
    pub(super) fn completed(&mut self, result: &io::Result<usize>, shared: &Shared) -> Next {
        if let Err(error) = result {
            return self.failed(error, shared);
        }
        match self.step {
            Step::Whole => {
                if self.io.operation == Operation::Read && self.scratch_flies {
                    let scratch = std::mem::take(&mut self.scratch);
                    if !copy(&scratch, 0, &mut self.io.data, self.len as usize) {
                        return Next::Ended(Status::INVALID_FIELD.do_not_retry());
                    }
                }
                Next::Ended(Status::SUCCESS)
            }
            Step::Look => self.looked(),
            Step::Swap | Step::Settle => Next::Ended(Status::SUCCESS),
            Step::Clear => {
                self.leave(shared);
                self.done += self.flying;
                if self.done < self.len {
                    return Next::Stage(Stage::Gate);
                }
                if self.io.fua && matches!(self.io.operation, Operation::WriteZeroes { .. }) {
                    self.step = Step::Settle;
                    Next::Stage(Stage::Queue)
                } else {
                    Next::Ended(Status::SUCCESS)
                }
            }
        }
    }

    /// What follows a piece that was read to compare or verify.
    fn looked(&mut self) -> Next {
        if self.io.operation != Operation::Verify {
            let (data, at) = (&self.io.data, self.done as usize);
            let equal = command::visit(&self.scratch, 0, self.flying as usize, |passed, part| {
                command::equals(data, at + passed, part)
            });
            if !equal {
                return Next::Ended(Status::COMPARE_FAILURE);
            }
        }
        self.done += self.flying;
        if self.done < self.len {
            Next::Stage(Stage::Queue)
        } else if self.io.operation == Operation::CompareAndWrite {
            self.step = Step::Swap;
            Next::Stage(Stage::Queue)
        } else {
            Next::Ended(Status::SUCCESS)
        }
    }

    /// What follows a failed request.
    fn failed(&mut self, error: &io::Error, shared: &Shared) -> Next {
        if self.io.operation == Operation::Deallocate && status::is_unsupported(error) {
            // A hint that this disk can't take (NVM 3.3.3): nothing is deallocated, and that is no error.
            return Next::Ended(Status::SUCCESS);
        }
        let write = match self.step {
            Step::Whole => self.io.operation != Operation::Read,
            Step::Look => false,
            Step::Swap | Step::Clear | Step::Settle => true,
        };
        let status = status::of(error, write);
        tracing::warn!(
            device = shared.name,
            operation = ?self.io.operation,
            slba = self.io.slba,
            blocks = self.io.blocks,
            %error,
            %status,
            "disk request failed"
        );
        Next::Ended(status)
    }
}

/// Whether the disk can transfer to and from these segments directly: each begins at, and is as long as, a
/// multiple of the disk's block.
fn is_aligned(segments: &Segments, shared: &Shared) -> bool {
    let unit = (shared.disk.block_bytes() as usize).max(512);
    segments.iter().all(|segment| {
        segment.len().is_multiple_of(unit) && segment.as_slice().as_ptr().addr().is_multiple_of(unit)
    })
}

/// Copies `len` bytes from byte `skip` of one list to the beginning of another; false when they don't fit.
fn copy(from: &Segments, skip: usize, to: &mut Segments, len: usize) -> bool {
    command::visit(from, skip, len, |at, part| to.copy_from(at, part) == part.len())
}
