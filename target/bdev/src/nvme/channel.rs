//! One reactor's I/O on a device: takes commands, chooses a route for each, and brings them to their end whatever
//! becomes of the routes.
//!
//! Invariants: a command that was accepted is in the table until it is answered, once; it is at one queue at a time, or
//! waits here. How long it waits is bounded (see [`NvmeChannel::hopeless`]). Nothing is allocated for a command, except
//! when it is cut into pieces.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::io::{Channel, Geometry, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::memory::Segments;
use sledge_reactor::task::{JoinHandle, spawn_local};
use sledge_reactor::time::{self, Instant, sleep};

use super::device::{Shared, View};
use super::lower::Lower;
use super::retry::{self, Ended, Verdict};
use super::route::Route;
use super::select::{self, Candidate, Cursor};
use super::split::{self, Whole};
use crate::command::{self, BUSY, MAX_OUTSTANDING};
use crate::slab::Slab;
use crate::statistics::ChannelCounters;

/// How often the reactor is woken, since nothing else wakes it for commands that wait.
const TICK: Duration = Duration::from_millis(20);

/// How many times the wait for a route a command may take that is lost again and again.
const PATIENCE: u32 = 3;

/// Pause when a queue, or the memory for a read, is full.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At a queue.
    Sent,
    /// Here, and not to be sent before this time.
    Waiting(Instant),
}

/// Whose command it is.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// The submitter's, with its token.
    Submitter(u64),
    /// A large command's: its number, and the piece's offset in it.
    Whole(u32, u64),
}

struct Entry {
    of: Of,
    operation: Operation,
    slba: u64,
    blocks: u32,
    fua: bool,
    /// The submitter gave the memory of a read.
    given: bool,
    data: Segments,
    started: Instant,
    /// Since when it waits for a route without interruption.
    waiting_since: Option<Instant>,
    attempts: u32,
    /// A queue had it, and it may have reached the controller.
    sent: bool,
    /// It is not sent again, but answered with this when it has waited.
    last: Option<Status>,
    /// The route that it is for, as long as that takes commands.
    only: Option<Arc<Route>>,
    place: Place,
}

/// One reactor's way to the device.
pub(crate) struct NvmeChannel {
    shared: Arc<Shared>,
    geometry: Geometry,
    view: Arc<View>,
    number: u64,
    lowers: Vec<Lower>,
    entries: Slab<Entry>,
    wholes: Slab<Box<Whole>>,
    /// Entries that wait here, oldest first.
    waiting: VecDeque<u32>,
    finished: Vec<IoCompletion>,
    scratch: Vec<IoCompletion>,
    cursor: Cursor,
    counters: ChannelCounters,
    ticks: JoinHandle<()>,
}

impl NvmeChannel {
    /// Opens a channel on the current reactor; its queues follow as they can be had.
    pub(crate) fn open(shared: Arc<Shared>, counters: ChannelCounters) -> Self {
        let ticks = spawn_local(async {
            loop {
                sleep(TICK).await;
            }
        });
        let mut channel = Self {
            geometry: shared.geometry(),
            view: shared.view(),
            number: u64::MAX,
            shared,
            lowers: Vec::new(),
            entries: Slab::new(MAX_OUTSTANDING),
            wholes: Slab::new(MAX_OUTSTANDING),
            waiting: VecDeque::new(),
            finished: Vec::new(),
            scratch: Vec::new(),
            cursor: Cursor::default(),
            counters,
            ticks,
        };
        channel.follow();
        channel
    }

    /// Takes the device's present routes.
    fn follow(&mut self) {
        let number = self.shared.number();
        if number == self.number {
            return;
        }
        self.number = number;
        self.view = self.shared.view();
        let view = &self.view;
        for lower in &mut self.lowers {
            lower.leaving = !view.routes.iter().any(|route| Arc::ptr_eq(route, &lower.route));
        }
        self.lowers.retain(|lower| !lower.leaving || lower.outstanding > 0);
        for route in &view.routes {
            if !self.lowers.iter().any(|lower| Arc::ptr_eq(route, &lower.route)) {
                self.lowers.push(Lower::open(route.clone(), self.geometry));
            }
        }
    }

    fn choose(&mut self) -> Option<usize> {
        let preferred = self.view.preferred;
        let lowers = &self.lowers;
        select::choose(&self.view.policy, self.shared.failback, &mut self.cursor, lowers.len(), |at| {
            Candidate {
                usable: lowers[at].usable(),
                preferred: preferred == Some(lowers[at].route.path.number),
                outstanding: lowers[at].outstanding,
            }
        })
    }

    /// Whether a command that waits since `since` has waited in vain: too long itself, or all routes are down for too
    /// long already, or for ever.
    fn hopeless(&self, since: Instant, now: Instant) -> bool {
        let routes = &self.view.routes;
        if routes.iter().all(|route| route.is_over()) && !routes.is_empty() {
            return true;
        }
        let Some(limit) = self.shared.fast_fail else { return false };
        let down_for = |route: &Route| route.down_since().map_or(Duration::ZERO, |lost| now - lost);
        let down = routes.iter().map(|route| down_for(route)).min();
        now - since >= limit || down.is_some_and(|down| down >= limit)
    }

    /// Accepts a command into the table; gives it back when that is full.
    fn insert(&mut self, of: Of, mut io: IoCommand, started: Instant) -> Result<u32, IoCommand> {
        let entry = Entry {
            of,
            operation: io.operation,
            slba: io.slba,
            blocks: io.blocks,
            fua: io.fua,
            given: !io.data.is_empty(),
            data: std::mem::take(&mut io.data),
            started,
            waiting_since: None,
            attempts: 0,
            sent: false,
            last: None,
            only: None,
            place: Place::Waiting(started),
        };
        self.entries.insert(entry).map_err(|entry| IoCommand { data: entry.data, ..io })
    }

    /// Sends a command over the best route, or has it wait for one; its end, if it has come to that.
    fn start(&mut self, index: u32, now: Instant) -> Option<IoCompletion> {
        match self.choose() {
            Some(at) => self.send(index, at),
            None => self.start_later(index, now),
        }
    }

    /// Has a command wait for a route.
    fn start_later(&mut self, index: u32, now: Instant) -> Option<IoCompletion> {
        let entry = self.entries.get_mut(index)?;
        let since = *entry.waiting_since.get_or_insert(now);
        if self.hopeless(since, now) {
            return self.finish(index, Status::INTERNAL_PATH_ERROR, None);
        }
        self.waiting.push_back(index);
        None
    }

    /// Sends a command over a route.
    fn send(&mut self, index: u32, at: usize) -> Option<IoCompletion> {
        let entry = self.entries.get_mut(index)?;
        let mut io = IoCommand::new(u64::from(index), entry.operation, entry.slba, entry.blocks);
        io.fua = entry.fua;
        io.data = std::mem::take(&mut entry.data);
        (entry.place, entry.waiting_since) = (Place::Sent, None);
        if entry.operation.modifies() {
            self.lowers[at].route.note_written();
        }
        match self.lowers[at].submit(io) {
            Submitted::Pending => None,
            Submitted::Done(completion) => self.settle(at, completion, false),
        }
    }

    /// Takes in a command that is sent as it is.
    #[inline]
    fn submit_whole(&mut self, io: IoCommand, now: Instant) -> Submitted {
        match self.insert(Of::Submitter(io.token), io, now) {
            Ok(index) => match self.start(index, now) {
                Some(completion) => Submitted::Done(completion),
                None => Submitted::Pending,
            },
            Err(io) => {
                self.counters.count(io.operation, 0, now, BUSY);
                Submitted::Done(io.complete(BUSY))
            }
        }
    }

    /// Sends a flush over each route that writes took, as a controller makes durable what it has completed itself.
    fn submit_flush(&mut self, io: IoCommand, now: Instant) -> Submitted {
        let first = self.choose();
        let wanted = |at: &usize| {
            let lower: &Lower = &self.lowers[*at];
            Some(*at) == first || lower.route.was_written() && lower.usable().is_some()
        };
        let routes: Vec<_> = (0..self.lowers.len()).filter(wanted).collect();
        if routes.len() < 2 {
            return self.submit_whole(io, now);
        }
        let pieces = routes.iter().map(|at| self.lowers[*at].route.clone()).collect::<Vec<_>>();
        let whole = Whole::of_pieces(&io, pieces.len() as u32, now);
        let room = MAX_OUTSTANDING - self.entries.len() >= pieces.len();
        let Some(Ok(number)) = room.then(|| self.wholes.insert(Box::new(whole))) else {
            self.counters.count(io.operation, 0, now, BUSY);
            return Submitted::Done(io.complete(BUSY));
        };
        for (offset, route) in pieces.into_iter().enumerate() {
            let piece = IoCommand::new(0, io.operation, 0, 0);
            // There is room: it was counted.
            let Ok(index) = self.insert(Of::Whole(number, offset as u64), piece, now) else { continue };
            if let Some(entry) = self.entries.get_mut(index) {
                entry.only = Some(route);
            }
            let ended = self.start_on_route(index, now);
            self.finished.extend(ended);
        }
        Submitted::Pending
    }

    /// Sends a command over the route that it is for; over another when that takes none, as a route that is lost is one
    /// to the same namespace as those that are left.
    fn start_on_route(&mut self, index: u32, now: Instant) -> Option<IoCompletion> {
        let route = self.entries.get_mut(index)?.only.take();
        let at = route.as_ref().and_then(|route| {
            self.lowers.iter().position(|lower| Arc::ptr_eq(&lower.route, route) && lower.usable().is_some())
        });
        match at {
            Some(at) => {
                self.entries.get_mut(index)?.only = route;
                self.send(index, at)
            }
            None => self.start(index, now),
        }
    }

    /// Takes in the end of a command at a queue; its end here, if that is final.
    fn settle(&mut self, at: usize, completion: IoCompletion, was_sent: bool) -> Option<IoCompletion> {
        let index = completion.token as u32;
        let lower = &self.lowers[at];
        let entry = self.entries.get_mut(index)?;
        let status = lower.translate(completion.status);
        let full = !was_sent && status.is(BUSY) && !command::has_waited_out(entry.started);
        let pathing = status.is(Status::HOST_PATHING_ERROR);
        // What it did not do here, it may still have done where it was before.
        entry.sent |= was_sent && pathing;
        let ended = Ended {
            operation: entry.operation,
            status,
            sent: was_sent,
            silent: pathing && lower.lost_silently(),
            attempts: entry.attempts,
            limit: self.shared.retry_count,
            quiesce: self.shared.quiesce,
        };
        let verdict = match full {
            true => Verdict::Again { after: ROOM_PAUSE, counts: false },
            false => retry::judge(ended),
        };
        let refused = [Status::ANA_INACCESSIBLE, Status::ANA_TRANSITION, Status::ANA_PERSISTENT_LOSS];
        if let Some(state) = refused.iter().find(|refused| status.is(**refused)) {
            lower.refused_by_ana(*state);
        }
        let now = time::now();
        let after = match verdict {
            Verdict::Answer(status) => return self.finish(index, status, Some(completion.data)),
            Verdict::AnswerLater(status, after) => {
                entry.last = Some(status);
                after
            }
            Verdict::Again { after, counts } => {
                let limit = self.shared.fast_fail.map(|limit| limit * PATIENCE);
                if !counts && limit.is_some_and(|limit| now - entry.started >= limit) {
                    if after.is_zero() {
                        return self.finish(index, Status::INTERNAL_PATH_ERROR, Some(completion.data));
                    }
                    entry.last = Some(Status::INTERNAL_PATH_ERROR);
                }
                entry.attempts += u32::from(counts);
                after
            }
        };
        entry.place = Place::Waiting(now + after);
        // Memory that a queue supplied for a read is its own again.
        let keep = entry.given || entry.operation != Operation::Read;
        entry.data = if keep { completion.data } else { Segments::new() };
        self.waiting.push_back(index);
        None
    }

    /// Ends a command; what is to be told to the submitter.
    fn finish(&mut self, index: u32, status: Status, data: Option<Segments>) -> Option<IoCompletion> {
        let entry = self.entries.remove(index)?;
        let data = data.unwrap_or(entry.data);
        match entry.of {
            Of::Submitter(token) => {
                let bytes = match entry.operation {
                    Operation::Flush => 0,
                    _ => u64::from(entry.blocks) << self.geometry.block_shift(),
                };
                self.counters.count(entry.operation, bytes, entry.started, status);
                Some(IoCompletion { token, status, data })
            }
            Of::Whole(number, offset) => {
                let whole = self.wholes.get_mut(number)?;
                let completion = whole.ended(offset, status, &data)?;
                let whole = self.wholes.remove(number)?;
                self.counters.count(whole.operation, whole.bytes, whole.started, completion.status);
                Some(completion)
            }
        }
    }

    /// Cuts a command that is larger than the controllers take, and starts its pieces.
    fn submit_pieces(&mut self, io: IoCommand, limit: u64, now: Instant) -> Result<Submitted, IoCommand> {
        let operation = io.operation;
        let (whole, pieces) = match split::cut(io, limit, self.geometry.block_bytes, now) {
            Ok(Ok(cut)) => cut,
            Ok(Err(io)) => return Err(io),
            Err(io) => {
                self.counters.count(operation, 0, now, BUSY);
                return Ok(Submitted::Done(io.complete(BUSY)));
            }
        };
        let token = whole.token;
        let room = MAX_OUTSTANDING - self.entries.len() >= pieces.len();
        let number = match room.then(|| self.wholes.insert(Box::new(whole))) {
            Some(Ok(number)) => number,
            Some(Err(_)) | None => {
                self.counters.count(operation, 0, now, BUSY);
                return Ok(Submitted::Done(IoCompletion { token, status: BUSY, data: Segments::new() }));
            }
        };
        for piece in pieces {
            // There is room: it was counted.
            if let Ok(index) = self.insert(Of::Whole(number, piece.offset), piece.io, now)
                && let Some(completion) = self.start(index, now)
            {
                self.finished.push(completion);
            }
        }
        Ok(Submitted::Pending)
    }

    /// Sends what has waited, where it can be sent now.
    fn send_waiting(&mut self, done: &mut Vec<IoCompletion>) {
        let now = time::now();
        for _ in 0..self.waiting.len() {
            let Some(index) = self.waiting.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(index) else { continue };
            if let Place::Waiting(until) = entry.place
                && until > now
            {
                self.waiting.push_back(index);
                continue;
            }
            let ended = match entry.last {
                Some(status) => self.finish(index, status, None),
                None if entry.only.is_some() => self.start_on_route(index, now),
                None => self.start(index, now),
            };
            done.extend(ended);
        }
    }

    fn entry_of(&self, token: u64) -> Option<u32> {
        self.entries.find(|entry| matches!(entry.of, Of::Submitter(own) if own == token))
    }
}

impl Channel for NvmeChannel {
    fn submit(&mut self, io: IoCommand) -> Submitted {
        self.follow();
        let now = time::now();
        if let Err(status) = command::check(&io, &self.geometry) {
            self.counters.count(io.operation, 0, now, status);
            return Submitted::Done(io.complete(status));
        }
        let mut io = io;
        if let Some(limit) = self.view.max_transfer_bytes {
            match self.submit_pieces(io, limit, now) {
                Ok(submitted) => return submitted,
                Err(whole) => io = whole,
            }
        }
        if io.operation == Operation::Flush && self.lowers.len() > 1 {
            return self.submit_flush(io, now);
        }
        self.submit_whole(io, now)
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        self.follow();
        done.append(&mut self.finished);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut left = false;
        for at in 0..self.lowers.len() {
            if self.lowers[at].outstanding == 0 && !self.lowers[at].needs_polling() {
                continue;
            }
            self.lowers[at].poll(&mut scratch);
            for completion in scratch.drain(..) {
                done.extend(self.settle(at, completion, true));
            }
            left |= self.lowers[at].leaving && self.lowers[at].outstanding == 0;
        }
        self.scratch = scratch;
        if left {
            self.lowers.retain(|lower| !lower.leaving || lower.outstanding > 0);
        }
        if !self.waiting.is_empty() {
            self.send_waiting(done);
        }
    }

    fn outstanding(&self) -> usize {
        // Pieces count each, which is enough to know whether anything is left.
        self.entries.len() + self.finished.len()
    }

    fn needs_polling(&self) -> bool {
        !self.finished.is_empty() || self.lowers.iter().any(Lower::needs_polling)
    }

    fn abort(&mut self, token: u64) -> bool {
        let Some(index) = self.entry_of(token) else { return false };
        let Some(entry) = self.entries.get_mut(index) else { return false };
        match entry.place {
            // A copy of it may still arrive.
            _ if entry.sent => false,
            Place::Sent => self.lowers.iter_mut().any(|lower| lower.abort(u64::from(index))),
            Place::Waiting(_) => {
                self.waiting.retain(|waiting| *waiting != index);
                let aborted = self.finish(index, Status::ABORTED_BY_REQUEST, None);
                self.finished.extend(aborted);
                true
            }
        }
    }
}

impl Drop for NvmeChannel {
    fn drop(&mut self) {
        self.ticks.abort();
    }
}
