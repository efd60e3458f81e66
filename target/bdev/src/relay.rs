//! The way of a command through a device that stands on another: kept here, sent down under a number of ours,
//! and answered with what the lower device says. Used by the channels of `delay` and `error`.
//!
//! Invariant: each command accepted is in the table from submission to its answer, with what the upper device
//! wants to remember of it.

use sledge_nvme::Status;
use sledge_nvme::io::{Channel, Geometry, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::time::{self, Instant};

use crate::command::{self, BUSY, MAX_OUTSTANDING};
use crate::slab::Slab;
use crate::statistics::ChannelCounters;

struct Entry<T> {
    token: u64,
    operation: Operation,
    bytes: u64,
    started: Instant,
    memo: T,
}

/// A lower channel, and the commands under way on it.
pub(crate) struct Relay<T> {
    lower: Box<dyn Channel>,
    geometry: Geometry,
    entries: Slab<Entry<T>>,
    completed: Vec<IoCompletion>,
    counters: ChannelCounters,
}

impl<T> Relay<T> {
    pub(crate) fn new(lower: Box<dyn Channel>, geometry: Geometry, counters: ChannelCounters) -> Self {
        Self { lower, geometry, entries: Slab::new(MAX_OUTSTANDING), completed: Vec::new(), counters }
    }

    /// Commands accepted and not yet answered.
    pub(crate) fn outstanding(&self) -> usize {
        self.entries.len()
    }

    /// Whether the lower channel must be polled.
    pub(crate) fn needs_polling(&self) -> bool {
        self.lower.needs_polling() || !self.completed.is_empty()
    }

    /// Shape of both devices.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Accepts a command: its number, under which it is sent or ended later.
    ///
    /// # Errors
    /// Why it can't be accepted.
    pub(crate) fn accept(&mut self, io: &mut IoCommand, memo: T) -> Result<u32, Status> {
        let started = time::now();
        command::check(io, &self.geometry).inspect_err(|status| {
            self.counters.count(io.operation, 0, started, *status);
        })?;
        let (_, bytes) = command::byte_range(io, &self.geometry);
        let entry = Entry { token: io.token, operation: io.operation, bytes, started, memo };
        match self.entries.insert(entry) {
            Ok(index) => {
                io.token = u64::from(index);
                Ok(index)
            }
            Err(_) => {
                self.counters.count(io.operation, 0, started, BUSY);
                Err(BUSY)
            }
        }
    }

    /// Sends an accepted command down.
    pub(crate) fn send(&mut self, io: IoCommand) -> Option<(IoCompletion, T)> {
        match self.lower.submit(io) {
            Submitted::Done(completion) => self.answer(completion),
            Submitted::Pending => None,
        }
    }

    /// Ends an accepted command, with its own token again; `None` if there is no such command.
    pub(crate) fn answer(&mut self, mut completion: IoCompletion) -> Option<(IoCompletion, T)> {
        let Some(entry) = self.entries.remove(completion.token as u32) else {
            debug_assert!(false, "a command is answered once");
            return None;
        };
        completion.token = entry.token;
        self.counters.count(entry.operation, entry.bytes, entry.started, completion.status);
        Some((completion, entry.memo))
    }

    /// The number of the command that its submitter calls `token`.
    pub(crate) fn number_of(&self, token: u64) -> Option<u32> {
        self.entries.find(|entry| entry.token == token)
    }

    /// Asks the lower device to give a command up, by its number.
    pub(crate) fn abort_below(&mut self, number: u32) -> bool {
        self.lower.abort(u64::from(number))
    }

    /// Ends a command that never went down as aborted; [`Relay::poll`] answers it.
    pub(crate) fn abort_here(&mut self, io: IoCommand) {
        self.completed.push(io.complete(Status::ABORTED_BY_REQUEST));
    }

    /// Takes in what the lower device has done; `finish` has the last word on each.
    pub(crate) fn poll(
        &mut self,
        done: &mut Vec<IoCompletion>,
        mut finish: impl FnMut(IoCompletion, T) -> IoCompletion,
    ) {
        let mut completed = std::mem::take(&mut self.completed);
        self.lower.poll(&mut completed);
        for completion in completed.drain(..) {
            if let Some((completion, memo)) = self.answer(completion) {
                done.push(finish(completion, memo));
            }
        }
        self.completed = completed;
    }
}
