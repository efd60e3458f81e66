//! What a reactor's I/O queue has accepted, for whom, and where each I/O stands.
//!
//! Owns the requests, the channels' lists of what has ended, and the lists of what waits. Knows nothing of the device.
//! Invariant: every request is answered once, by [`Ledger::finish`], to the channel it came by, or to nobody when that
//! was dropped; its data is owned here until then, whatever becomes of the channel. The I/O queue calls it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sledge_reactor::memory::Segments;
use sledge_reactor::time::Instant;

use super::request::{Extra, NO_EXTRA, Part, RawCommand, Request, Waits};
use super::shape::NamespaceShape;
use super::slab::Slab;
use super::split::{self, Role};
use crate::io::{IoCommand, IoCompletion, Operation};
use crate::{Command, Completion, Status};

/// Most channels of one queue at a time.
const MAX_CHANNELS: usize = 4096;

/// What a flush fails with when what it was to make durable is lost. A host that tried it again would be told of success.
pub const LOST: Status = Status::WRITE_FAULT.do_not_retry();

/// A command that is ready but for identifier and pointers.
#[derive(Debug)]
pub struct RawIo {
    /// The submitter's name for it, returned in the completion.
    pub token: u64,
    /// The command. Its flags say whether it is fused; kind of pointer, identifier and pointers are set by the driver.
    pub command: Command,
    /// Its data, all of which is transferred.
    pub data: Segments,
    /// Its metadata, in one contiguous piece; may be empty.
    pub metadata: Segments,
}

/// The end of a command that came ready made.
#[derive(Debug)]
pub struct RawCompletion {
    /// Token of the command.
    pub token: u64,
    /// The device's answer; a status alone when the device gave none.
    pub completion: Completion,
    /// The data, given back.
    pub data: Segments,
    /// The metadata, given back.
    pub metadata: Segments,
}

/// Why a part has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The device says so.
    Device,
    /// It was taken back from a device that may or may not have done it.
    Reclaimed,
    /// It is not to be tried again.
    Final,
}

/// A part to be tried again.
#[derive(Debug)]
pub struct Resume {
    pub part: Part,
    pub not_before: Instant,
}

/// One channel.
#[derive(Debug)]
pub struct Channel {
    pub shape: Arc<NamespaceShape>,
    pub done: Vec<IoCompletion>,
    pub raw_done: Vec<RawCompletion>,
    pub outstanding: usize,
    open: bool,
    /// Writes of it may be lost that nobody has been told of.
    lost: bool,
}

/// Where completions of one channel may go directly.
pub type Out<'a> = Option<(u32, &'a mut Vec<IoCompletion>)>;

/// All that a queue has accepted.
#[derive(Debug)]
pub struct Ledger {
    pub requests: Slab<Request>,
    pub channels: Slab<Channel>,
    pub extras: Slab<Extra>,
    pub resume: VecDeque<Resume>,
    /// Requests that wait for a slot, oldest first.
    pub waiting: VecDeque<u32>,
    /// Requests that wait for memory, oldest first.
    pub hungry: VecDeque<u32>,
    /// Requests of channels that were dropped.
    orphans: usize,
    retry_count: u32,
    retry_delays: [Duration; 3],
    /// Parts that were tried again.
    pub retried: u64,
}

impl Ledger {
    pub fn new(limit: usize, retry_count: u32, retry_delays: [Duration; 3]) -> Self {
        Self {
            requests: Slab::new(limit),
            channels: Slab::new(MAX_CHANNELS),
            extras: Slab::new(limit),
            resume: VecDeque::new(),
            waiting: VecDeque::new(),
            hungry: VecDeque::new(),
            orphans: 0,
            retry_count: retry_count.min(u32::from(u8::MAX)),
            retry_delays,
            retried: 0,
        }
    }

    /// A new channel; `None` when there are too many.
    pub fn open(&mut self, shape: Arc<NamespaceShape>) -> Option<u32> {
        let (done, raw_done) = (Vec::new(), Vec::new());
        let channel = Channel { shape, done, raw_done, outstanding: 0, open: true, lost: false };
        self.channels.insert(channel).ok()
    }

    /// Requests that nobody waits for any more, but the device has.
    pub fn orphans(&self) -> usize {
        self.orphans
    }

    /// Accepts an I/O; gives it back when there are too many.
    #[inline]
    pub fn accept(&mut self, channel: u32, io: IoCommand, now: Instant) -> Result<u32, IoCommand> {
        let index = self.requests.insert(Request::new(io, channel, now)).map_err(|request| request.io)?;
        if let Some(channel) = self.channels.get_mut(channel) {
            channel.outstanding += 1;
        }
        Ok(index)
    }

    /// Accepts a command that came ready made; answers it with `refused`, or for want of room.
    pub fn accept_raw(
        &mut self,
        number: u32,
        raw: RawIo,
        refused: Option<Status>,
        now: Instant,
    ) -> Option<u32> {
        let room = self.requests.has_room() && self.extras.has_room();
        if let Some(status) = refused.or((!room).then_some(Status::COMMAND_INTERRUPTED)) {
            let RawIo { token, data, metadata, .. } = raw;
            let completion = Completion::new(0, status);
            let channel = self.channels.get_mut(number)?;
            channel.raw_done.push(RawCompletion { token, completion, data, metadata });
            return None;
        }
        // No range: it is issued as one command, as a flush is.
        let mut io = IoCommand::new(raw.token, Operation::Flush, 0, 0);
        io.data = raw.data;
        let index = self.accept(number, io, now).ok()?;
        let raw =
            RawCommand { command: raw.command, metadata: raw.metadata, completion: Completion::default() };
        *self.extra_or_new(index)? = Extra { raw: Some(raw), ..Extra::default() };
        Some(index)
    }

    /// Puts a request to those that wait.
    pub fn wait(&mut self, index: u32, waits: Waits) {
        if let Some(request) = self.requests.get_mut(index) {
            request.waits = waits;
            match waits {
                Waits::No => {}
                Waits::Slot => self.waiting.push_back(index),
                Waits::Memory => self.hungry.push_back(index),
            }
        }
    }

    /// Takes in that a part has ended. `answer` is what a command that came ready made is answered with.
    #[inline]
    pub fn part_ended(
        &mut self,
        part: Part,
        answer: &Completion,
        cause: Cause,
        now: Instant,
        out: &mut Out<'_>,
    ) {
        let status = answer.status();
        let Some(request) = self.requests.get_mut(part.request) else {
            debug_assert!(false, "a part belongs to a request until it has ended");
            return;
        };
        request.in_flight -= 1;
        if status.is_success() && request.extra == NO_EXTRA && part.role == Role::Single {
            if request.is_over() {
                self.finish(part.request, out);
            }
            return;
        }
        self.note(part, answer, cause, now);
        if self.requests.get(part.request).is_some_and(Request::is_over) {
            self.finish(part.request, out);
        }
    }

    /// Books how a part ended that did not simply succeed.
    #[cold]
    fn note(&mut self, part: Part, answer: &Completion, cause: Cause, now: Instant) {
        let status = answer.status();
        let raw = self.extra(part.request).and_then(|extra| extra.raw.as_mut());
        let is_raw = raw.is_some();
        if let Some(raw) = raw {
            raw.completion = *answer;
        }
        let retry_count = self.retry_count;
        let Some(request) = self.requests.get_mut(part.request) else { return };
        if status.is_success() && part.role == Role::Single {
            return;
        }
        let tries_left =
            u32::from(part.retries) < retry_count && cause != Cause::Final && !request.given_up && !is_raw;
        if part.role == Role::Single {
            if tries_left && request.status.is_success() && split::is_transient(status) {
                self.try_again(part, status, cause, now);
            } else if request.status.is_success() {
                request.status = status;
            }
            return;
        }
        // A fused pair fails as one. What befell the compare is the reason, unless it fell with the write.
        let consequence = [Status::ABORTED_FAILED_FUSED, Status::ABORTED_MISSING_FUSED]
            .iter()
            .any(|known| status.is(*known));
        let reason = request.status.is_success() || part.role == Role::FusedCompare && !consequence;
        if !status.is_success() && reason {
            request.status = status;
        }
        // Taken back, it may have been done: compared once more, it would fail against its own write.
        if request.in_flight == 0
            && tries_left
            && cause == Cause::Device
            && split::is_transient(request.status)
        {
            let status = std::mem::take(&mut request.status);
            self.try_again(Part { role: Role::FusedCompare, ..part }, status, cause, now);
        }
    }

    /// Books a part to be tried again.
    fn try_again(&mut self, mut part: Part, status: Status, cause: Cause, now: Instant) {
        let delay = match (cause, status.retry_delay()) {
            (Cause::Device, 0) => Duration::from_millis(1 << (2 * part.retries.min(5))),
            (Cause::Device, index) => self.retry_delays[usize::from(index) - 1],
            _ => Duration::ZERO,
        };
        part.retries += 1;
        self.retried += 1;
        if let Some(request) = self.requests.get_mut(part.request) {
            request.resuming += 1;
            self.resume.push_back(Resume { part, not_before: now + delay });
        }
    }

    /// Leaves a request's memory behind for ever: a device that nobody can stop may still use it.
    pub fn leave_data(&mut self, index: u32) {
        if let Some(extra) = self.extra(index) {
            std::mem::forget(std::mem::take(&mut extra.bounce));
            if let Some(raw) = &mut extra.raw {
                std::mem::forget(std::mem::take(&mut raw.metadata));
            }
        }
        if let Some(request) = self.requests.get_mut(index) {
            std::mem::forget(std::mem::take(&mut request.io.data));
        }
    }

    /// Fails a request that is in no list, or of which parts are on the device still.
    pub fn fail(&mut self, index: u32, status: Status, out: &mut Out<'_>) {
        let Some(request) = self.requests.get_mut(index) else { return };
        if request.status.is_success() {
            request.status = status;
        }
        if request.is_over() {
            self.finish(index, out);
        }
    }

    /// Answers a request.
    #[inline]
    pub fn finish(&mut self, index: u32, out: &mut Out<'_>) {
        let Some(request) = self.requests.get_mut(index) else { return };
        let (number, extra) = (request.channel, request.extra);
        let raw = if extra == NO_EXTRA { None } else { Self::finish_extra(&mut self.extras, request) };
        let (token, status) = (request.io.token, request.status);
        let data = std::mem::take(&mut request.io.data);
        self.requests.discard(index);
        let Some(channel) = self.channels.get_mut(number) else { return };
        channel.outstanding -= 1;
        if !channel.open {
            self.orphans -= 1;
            if channel.outstanding == 0 {
                self.channels.discard(number);
            }
        } else if let Some(raw) = raw {
            let mut completion = raw.completion;
            if !status.is_success() && completion.status().is_success() {
                completion.set_status(status);
            }
            channel.raw_done.push(RawCompletion { token, completion, data, metadata: raw.metadata });
        } else {
            let completion = IoCompletion { token, status, data };
            match out {
                Some((direct, done)) if *direct == number => done.push(completion),
                _ => channel.done.push(completion),
            }
        }
    }

    /// Takes what a read got by way of other memory to where it belongs.
    #[cold]
    fn finish_extra(extras: &mut Slab<Extra>, request: &mut Request) -> Option<RawCommand> {
        let extra = extras.remove(request.extra)?;
        if request.io.operation == Operation::Read && request.status.is_success() {
            let mut at = extra.bounce_from;
            for segment in extra.bounce.iter() {
                at += request.io.data.copy_from(at, segment.as_slice());
            }
        }
        extra.raw
    }

    /// What a request needs rarely, if it needs any.
    pub fn extra(&mut self, index: u32) -> Option<&mut Extra> {
        let request = self.requests.get(index)?;
        self.extras.get_mut(request.extra)
    }

    /// As [`Self::extra`], made if there is none; `None` when there is no such request.
    pub fn extra_or_new(&mut self, index: u32) -> Option<&mut Extra> {
        let request = self.requests.get_mut(index)?;
        if request.extra == NO_EXTRA {
            request.extra = self.extras.insert(Extra::default()).ok()?;
        }
        self.extras.get_mut(request.extra)
    }

    /// The first I/O of a channel with this token.
    pub fn find(&self, channel: u32, token: u64) -> Option<u32> {
        self.requests
            .iter()
            .find(|(_, request)| request.channel == channel && request.io.token == token)
            .map(|(index, _)| index)
    }

    /// Gives a request up: nothing more is issued of it. True: the device has nothing of it, and it is answered with
    /// `status`. False: it is answered when the device has answered, as usual if all of it was issued.
    pub fn give_up(&mut self, index: u32, status: Status) -> bool {
        let Some(request) = self.requests.get_mut(index) else { return false };
        request.given_up = true;
        let untouched = request.in_flight == 0;
        if untouched || request.issued < request.blocks() || request.resuming > 0 {
            self.withdraw(index);
            self.fail(index, status, &mut None);
        }
        untouched
    }

    /// What channels have written, and the device has not made durable, is lost. The flushes that wait fail with
    /// `status`, and so does the next one of each channel that has none.
    pub fn cache_was_lost(&mut self, status: Status) {
        for (_, channel) in self.channels.iter_mut() {
            channel.lost = channel.shape.volatile_cache;
        }
        for index in self.numbers(|request| request.io.operation == Operation::Flush) {
            // One that came ready made stands as a flush here, too; its submitter knows what it is.
            if self.extra(index).is_some_and(|extra| extra.raw.is_some()) {
                continue;
            }
            let number = self.requests.get(index).map(|request| request.channel);
            if let Some(channel) = number.and_then(|number| self.channels.get_mut(number)) {
                channel.lost = false;
            }
            self.give_up(index, status);
        }
    }

    /// Whether a channel's writes may be lost, which it is told now.
    pub fn take_lost(&mut self, channel: u32) -> bool {
        self.channels.get_mut(channel).is_some_and(|channel| std::mem::take(&mut channel.lost))
    }

    /// Takes a request out of all lists.
    fn withdraw(&mut self, index: u32) {
        self.waiting.retain(|waiting| *waiting != index);
        self.hungry.retain(|waiting| *waiting != index);
        self.resume.retain(|resume| resume.part.request != index);
        if let Some(request) = self.requests.get_mut(index) {
            request.waits = Waits::No;
            request.resuming = 0;
        }
    }

    /// Ends a channel: what the device has nothing of is dropped; the rest stays, with its data, until the device has
    /// answered.
    pub fn close(&mut self, number: u32) {
        let Some(channel) = self.channels.get_mut(number) else { return };
        channel.open = false;
        self.orphans += channel.outstanding;
        if channel.outstanding == 0 {
            self.channels.discard(number);
            return;
        }
        let mine = self.numbers(|request| request.channel == number);
        for index in mine {
            self.give_up(index, Status::ABORTED_BY_REQUEST);
        }
    }

    /// Gives the channels of a namespace its new shape: `now` if it is still the `same` namespace with the same format.
    /// Otherwise all that have an older shape end: what they still have is answered with `status`, and what comes has no
    /// blocks to go to.
    pub fn reshape(&mut self, nsid: u32, now: Option<&Arc<NamespaceShape>>, same: bool, status: Status) {
        let mut ended = Vec::new();
        for (number, channel) in self.channels.iter_mut() {
            let new = now.is_some_and(|now| Arc::ptr_eq(now, &channel.shape));
            if channel.shape.nsid != nsid || new || channel.shape.geometry.blocks == 0 {
                continue;
            }
            match now {
                Some(now) if same => channel.shape = now.clone(),
                _ => {
                    let mut none = (*channel.shape).clone();
                    none.geometry.blocks = 0;
                    channel.shape = Arc::new(none);
                    ended.push(number);
                }
            }
        }
        for index in self.numbers(|request| ended.contains(&request.channel)) {
            self.give_up(index, status);
        }
    }

    /// Answers all that the device has nothing of, and lets nothing more be issued of the rest.
    pub fn fail_all(&mut self, status: Status) {
        for index in self.numbers(|_| true) {
            self.give_up(index, status);
        }
    }

    /// The numbers of requests that are as `wanted`. Allocates: for what is rare.
    fn numbers(&self, wanted: impl Fn(&Request) -> bool) -> Vec<u32> {
        self.requests.iter().filter(|(_, request)| wanted(request)).map(|(index, _)| index).collect()
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::identify::{ControllerData, NamespaceData};

    /// A ledger with one fused pair on the device, and its two parts.
    fn with_pair() -> (Ledger, u32, [Part; 2]) {
        let mut ledger = Ledger::new(8, 2, [Duration::ZERO; 3]);
        let shape = NamespaceShape::new(1, &ControllerData::new_zeroed(), None, &NamespaceData::new(100, 9));
        let Ok(shape) = shape else { unreachable!("a plain namespace is served") };
        let Some(channel) = ledger.open(Arc::new(shape)) else { unreachable!("the first channel") };
        let io = IoCommand::new(7, Operation::CompareAndWrite, 3, 1);
        let compare = Part { role: Role::FusedCompare, ..Part::whole(&io, 0) };
        let Ok(0) = ledger.accept(channel, io, Instant::default()) else { unreachable!("the first request") };
        if let Some(request) = ledger.requests.get_mut(0) {
            (request.issued, request.in_flight) = (1, 2);
        }
        (ledger, channel, [compare, Part { role: Role::FusedWrite, ..compare }])
    }

    // Deleting this lets a miscompare be reported as the abort of the write that followed from it, when the controller
    // completes the write first.
    #[test]
    fn a_pair_is_answered_with_what_befell_the_compare() {
        for order in [[0, 1], [1, 0]] {
            let (mut ledger, channel, parts) = with_pair();
            for index in order {
                let status = [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED][index];
                let answer = Completion::new(0, status);
                ledger.part_ended(parts[index], &answer, Cause::Device, Instant::default(), &mut None);
            }
            let done = ledger.channels.get(channel).map(|channel| &channel.done);
            let statuses: Vec<_> = done.into_iter().flatten().map(|done| (done.token, done.status)).collect();
            assert_eq!(statuses, [(7, Status::COMPARE_FAILURE)], "{order:?}");
        }
    }

    // Deleting this lets a pair be tried again while half of it is still on the device.
    #[test]
    fn a_pair_is_tried_again_as_one() {
        let (mut ledger, channel, parts) = with_pair();
        let compared = Completion::new(0, Status::SUCCESS);
        let passing = Completion::new(0, Status::COMMAND_INTERRUPTED);
        ledger.part_ended(parts[1], &passing, Cause::Device, Instant::default(), &mut None);
        assert!(ledger.resume.is_empty());
        ledger.part_ended(parts[0], &compared, Cause::Device, Instant::default(), &mut None);
        let role = ledger.resume.front().map(|resume| resume.part.role);
        assert!(ledger.channels.get(channel).is_some_and(|channel| channel.done.is_empty()));
        assert_eq!((role, ledger.resume.len()), (Some(Role::FusedCompare), 1));
    }
}
