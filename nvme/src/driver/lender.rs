//! Queue pairs for reactors that have none: they submit through another reactor's, when the controller gives fewer
//! queues than there are reactors.
//!
//! Owns the [`Lane`] between two reactors and both of its ends. What crosses is a command, ready but for its identifier,
//! and later its completion; buffers and lists stay with the reactor that they belong to, which registered them itself.
//! Invariant: a command that went into a lane is answered through it once: by the device, or by the lender when it was
//! taken back from the device; or the borrower takes it out of the lane again. Until then its memory is kept, as if it
//! were on the device. Lanes hold as many as the borrower has slots, so neither end ever waits for room.
//!
//! Each direction is a ring for one sender and one receiver. Measured with two cores, a command there and its answer back
//! cost 135 ns one by one and 31 ns with 8 in flight; over rings for many senders, as reactors' messages have, 230 and 80.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use rtrb::{Consumer, Producer, RingBuffer};
use sledge_reactor::Handle;
use sledge_reactor::time::Instant;

use super::engine::Context;
use super::queue_pair::{QueuePair, QueueStatistics};
use super::slots::{Ended, Slots};
use crate::command::Fuse;
use crate::{Command, Completion, Status};

/// A command on its way to the lender.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    pub command: Command,
    /// The borrower's name for it.
    pub cid: u16,
}

/// What became of a command.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// The device has answered.
    Completed(Completion),
    /// It was taken back from the device, and may be submitted again.
    Reclaimed(Status),
    /// It was taken back, or never put on the device, and is not to be submitted again.
    Final(Status),
    /// The device may still use its memory, for ever.
    Left(Status),
}

/// The borrower's part of the way between a reactor that has a queue pair and one that has none, until it gets there.
#[derive(Debug)]
pub struct Lane {
    shared: Arc<Shared>,
    commands: Producer<Forward>,
    answers: Consumer<(u16, Outcome)>,
    lender: Handle,
    slots: u16,
}

/// What both ends look at.
#[derive(Debug)]
struct Shared {
    /// The lender's, who has it for the time of a look and goes without one rather than wait. The borrower has it when it
    /// takes back what the lender, which serves nobody then, has left.
    commands: Mutex<Consumer<Forward>>,
    /// The lender looks at the lane each turn; otherwise it may be asleep, and is to be woken.
    watched: AtomicBool,
    /// The borrower has ended.
    closed: AtomicBool,
}

impl Lane {
    /// A lane to the current reactor, for at most `slots` commands at a time, and the lender's end of it.
    pub(super) fn to_here(slots: u16) -> (Self, Lent) {
        let (commands, received) = RingBuffer::new(usize::from(slots));
        let (answered, answers) = RingBuffer::new(usize::from(slots));
        let shared = Arc::new(Shared {
            commands: Mutex::new(received),
            watched: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let lent = Lent { shared: shared.clone(), answers: answered, half: None, outstanding: 0 };
        (Self { shared, commands, answers, lender: sledge_reactor::current(), slots }, lent)
    }
}

impl Drop for Lane {
    /// With its borrower, or before it got to one.
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

/// The borrower's end: stands where a queue pair would.
#[derive(Debug)]
pub struct Borrower {
    lane: Lane,
    slots: Slots<Context>,
    /// Whether the lender has not been told of something.
    news: bool,
    submitted: u64,
    completed: u64,
    late: u64,
}

impl Borrower {
    pub fn new(lane: Lane) -> Self {
        let slots = Slots::new(lane.slots);
        Self { lane, slots, news: false, submitted: 0, completed: 0, late: 0 }
    }

    fn submit(&mut self, command: Command, context: Context, now: Instant) -> Result<u16, Context> {
        let cid = self.slots.take(context, now)?;
        let pushed = self.lane.commands.push(Forward { command, cid });
        debug_assert!(pushed.is_ok(), "a lane has room for all slots");
        self.news = true;
        self.submitted += 1;
        Ok(cid)
    }

    /// Wakes the lender if it does not look.
    fn ring(&mut self) {
        if !std::mem::take(&mut self.news) {
            return;
        }
        // Orders the commands before the look: either the lender sees them when it goes to rest, or we see that it does.
        fence(Ordering::SeqCst);
        if !self.lane.shared.watched.swap(true, Ordering::SeqCst) {
            // Any message ends its sleep; then its poller looks.
            drop(self.lane.lender.spawn(|| async {}));
        }
    }

    /// Delivers what the lender has answered.
    pub fn reap(&mut self, mut deliver: impl FnMut(Context, Outcome)) {
        while let Ok((cid, outcome)) = self.lane.answers.pop() {
            match self.slots.end(cid) {
                Ended::Known(context) => {
                    self.completed += u64::from(matches!(outcome, Outcome::Completed(_)));
                    deliver(context, outcome);
                }
                Ended::Nobody => self.late += 1,
            }
        }
    }

    /// Takes back what the lender has not taken, while the lender takes nothing (it is stopped).
    pub fn take_back(&mut self, mut give: impl FnMut(Context)) {
        // A lender that has failed may be refusing some at this moment, one at a time.
        let mut commands = self.lane.shared.commands.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(forward) = commands.pop() {
            if let Ended::Known(context) = self.slots.end(forward.cid) {
                give(context);
            }
        }
    }
}

/// The lender's end.
#[derive(Debug)]
pub struct Lent {
    shared: Arc<Shared>,
    answers: Producer<(u16, Outcome)>,
    /// The first command of a fused pair whose second has not arrived yet.
    half: Option<Forward>,
    /// Commands of the lane that are on the device.
    outstanding: usize,
}

impl Lent {
    /// Answers a command that was on the device.
    pub fn answer(&mut self, cid: u16, outcome: Outcome) {
        self.outstanding -= 1;
        self.send(cid, outcome);
    }

    fn send(&mut self, cid: u16, outcome: Outcome) {
        let pushed = self.answers.push((cid, outcome));
        debug_assert!(pushed.is_ok(), "a lane has room for all slots");
    }

    /// Puts what the borrower has sent on the device, as far as there are slots.
    pub fn serve(&mut self, number: u32, pair: &mut QueuePair<Context>, now: Instant) {
        // Taken by the borrower only while this reactor serves nobody.
        let Ok(mut commands) = self.shared.commands.try_lock() else { return };
        loop {
            let needed = if self.half.is_some() { 2 } else { 1 };
            if pair.free() < needed {
                return;
            }
            let Ok(forward) = commands.pop() else { return };
            if forward.command.fuse() == Some(Fuse::First) && self.half.is_none() {
                self.half = Some(forward);
                continue;
            }
            for forward in self.half.take().into_iter().chain([forward]) {
                self.outstanding += 1;
                let put = pair.submit(forward.command, Context::of_borrower(number, forward.cid), now);
                debug_assert!(put.is_ok(), "there are slots");
            }
        }
    }

    /// Answers all that was sent and is not on the device.
    pub fn refuse(&mut self, status: Status) {
        self.give_back_half(Outcome::Final(status));
        while let Some(forward) = self.next() {
            self.send(forward.cid, Outcome::Final(status));
        }
    }

    /// Takes what was sent next.
    fn next(&mut self) -> Option<Forward> {
        self.shared.commands.try_lock().ok()?.pop().ok()
    }

    /// Gives back half a pair that waits for its second.
    pub fn give_back_half(&mut self, outcome: Outcome) {
        if let Some(half) = self.half.take() {
            self.send(half.cid, outcome);
        }
    }

    /// Whether the borrower has ended and nothing of it is on the device.
    pub fn is_over(&self) -> bool {
        self.outstanding == 0 && self.shared.closed.load(Ordering::Acquire)
    }

    /// Whether the lender may sleep: nothing is on the device, and nothing came in. From then on the borrower wakes it.
    pub fn may_rest(&self) -> bool {
        if self.outstanding > 0 {
            return false;
        }
        self.shared.watched.store(false, Ordering::SeqCst);
        // See `Borrower::ring`.
        fence(Ordering::SeqCst);
        if self.shared.commands.try_lock().is_ok_and(|commands| commands.is_empty()) {
            return true;
        }
        self.shared.watched.store(true, Ordering::SeqCst);
        false
    }
}

/// Where a reactor's commands go.
#[derive(Debug)]
pub enum Port {
    /// Its own queue pair.
    Own(QueuePair<Context>),
    /// Another reactor's.
    Borrowed(Borrower),
}

impl Port {
    /// The reactor's own queue pair, if it has one.
    #[inline]
    pub fn own(&self) -> Option<&QueuePair<Context>> {
        match self {
            Self::Own(pair) => Some(pair),
            Self::Borrowed(_) => None,
        }
    }

    /// The reactor's own queue pair, if it has one.
    #[inline]
    pub fn own_mut(&mut self) -> Option<&mut QueuePair<Context>> {
        match self {
            Self::Own(pair) => Some(pair),
            Self::Borrowed(_) => None,
        }
    }

    pub fn slots(&self) -> usize {
        self.free() + self.outstanding()
    }

    #[inline]
    pub fn free(&self) -> usize {
        match self {
            Self::Own(pair) => pair.free(),
            Self::Borrowed(borrower) => borrower.slots.free(),
        }
    }

    #[inline]
    pub fn next_slot(&self) -> Option<u16> {
        match self {
            Self::Own(pair) => pair.next_slot(),
            Self::Borrowed(borrower) => borrower.slots.next(),
        }
    }

    #[inline]
    pub fn outstanding(&self) -> usize {
        match self {
            Self::Own(pair) => pair.outstanding(),
            Self::Borrowed(borrower) => borrower.slots.outstanding(),
        }
    }

    #[inline(always)]
    pub fn submit(&mut self, command: Command, context: Context, now: Instant) -> Result<u16, Context> {
        match self {
            Self::Own(pair) => pair.submit(command, context, now),
            Self::Borrowed(borrower) => borrower.submit(command, context, now),
        }
    }

    #[inline]
    pub fn ring(&mut self) {
        match self {
            Self::Own(pair) => pair.ring(),
            Self::Borrowed(borrower) => borrower.ring(),
        }
    }

    /// As [`QueuePair::ring_all`].
    pub fn ring_all(&mut self) {
        match self {
            Self::Own(pair) => pair.ring_all(),
            Self::Borrowed(borrower) => borrower.ring(),
        }
    }

    /// Frees all slots.
    pub fn drain(&mut self, give: impl FnMut(Context)) {
        match self {
            Self::Own(pair) => pair.drain(give),
            Self::Borrowed(borrower) => borrower.slots.drain(give),
        }
    }

    pub fn statistics(&self) -> QueueStatistics {
        match self {
            Self::Own(pair) => pair.statistics(),
            Self::Borrowed(borrower) => QueueStatistics {
                submitted: borrower.submitted,
                completed: borrower.completed,
                late: borrower.late,
                ..QueueStatistics::default()
            },
        }
    }
}
