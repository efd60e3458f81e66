//! A submission queue and its completion queue: rings in memory that the device reaches, and the commands in them.
//!
//! Owns the rings, the slots of the commands under way and the doorbells. Invariant: a slot is in use from
//! [`QueuePair::submit`] until its completion was seen or the queue was emptied by [`QueuePair::drain`]; taking a
//! command's context out ([`QueuePair::take`]) leaves its slot in use. So there is never a command more than there are
//! slots, neither queue runs over, and a completion is delivered to the use of the slot that it answers or to nobody.
//! The Admin queue and each reactor's I/O queue are made of it. Not shared between threads.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use sledge_reactor::time::Instant;
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

use super::command_id::MAX_SLOTS;
use super::leak::Leaky;
use super::shadow::{ShadowDoorbell, ShadowDoorbells};
use super::slots::{Ended, Slots};
use crate::function::{DmaError, DmaMemory, Function};
use crate::{Command, Completion};

/// Offset of the first doorbell register (Base 3.1, "Submission Queue 0 Tail Doorbell").
pub(super) const DOORBELLS: usize = 0x1000;
const SUBMISSION_BYTES: usize = 64;
const COMPLETION_BYTES: usize = 16;
/// Fewest entries of a queue (Base 3.1.3.1: queues have at least two).
const MIN_DEPTH: u16 = 2;
/// The completion queue's doorbell is rung when this part of the queue has been reaped since: the device needs room,
/// not news. One in this many entries.
const REAPED_SHARE: u16 = 4;

/// What a queue pair has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatistics {
    /// Commands put into the submission queue.
    pub submitted: u64,
    /// Completions delivered.
    pub completed: u64,
    /// Writes to the submission queue's doorbell register.
    pub submission_doorbells: u64,
    /// Writes to the completion queue's doorbell register.
    pub completion_doorbells: u64,
    /// Completions of commands that nobody waits for: late, twice or unasked.
    pub late: u64,
}

impl std::ops::AddAssign for QueueStatistics {
    fn add_assign(&mut self, other: Self) {
        self.submitted += other.submitted;
        self.completed += other.completed;
        self.submission_doorbells += other.submission_doorbells;
        self.completion_doorbells += other.completion_doorbells;
        self.late += other.late;
    }
}

/// A submission queue and the completion queue that belongs to it.
pub struct QueuePair<T> {
    function: Arc<dyn Function>,
    id: u16,
    depth: u16,
    submission: Leaky<DmaMemory>,
    completion: Leaky<DmaMemory>,
    submission_doorbell: usize,
    completion_doorbell: usize,
    shadows: Option<(ShadowDoorbell, ShadowDoorbell)>,
    /// Where the next command goes, and what the doorbell says.
    tail: u16,
    rung_tail: u16,
    /// Where the next completion comes, and how many have been taken since the doorbell was rung.
    head: u16,
    reaped_since: u16,
    /// Value of the Phase Tag that marks a new entry at `head`.
    phase: bool,
    slots: Slots<T>,
    statistics: QueueStatistics,
}

impl<T> QueuePair<T> {
    /// Queues of `depth` entries (brought to 2 to 4096) with identifier `id`, whose doorbells lie
    /// `stride_bytes` apart (CAP.DSTRD). Blocks; the device knows nothing of them yet.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(
        function: Arc<dyn Function>,
        id: u16,
        depth: u16,
        stride_bytes: usize,
    ) -> Result<Self, DmaError> {
        let depth = depth.clamp(MIN_DEPTH, MAX_SLOTS);
        let slots = depth - 1;
        let doorbell = |index: usize| DOORBELLS + index * stride_bytes;
        Ok(Self {
            submission: Leaky::new(function.allocate(usize::from(depth) * SUBMISSION_BYTES)?),
            completion: Leaky::new(function.allocate(usize::from(depth) * COMPLETION_BYTES)?),
            submission_doorbell: doorbell(2 * usize::from(id)),
            completion_doorbell: doorbell(2 * usize::from(id) + 1),
            function,
            id,
            depth,
            shadows: None,
            tail: 0,
            rung_tail: 0,
            head: 0,
            reaped_since: 0,
            phase: true,
            slots: Slots::new(slots),
            statistics: QueueStatistics::default(),
        })
    }

    /// The queues' identifier (both have the same).
    #[must_use]
    pub fn id(&self) -> u16 {
        self.id
    }

    /// Entries of each queue, a plain count.
    #[must_use]
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// Most commands that can be under way.
    #[must_use]
    pub fn slots(&self) -> u16 {
        self.depth - 1
    }

    /// The device's address of the submission queue.
    #[must_use]
    pub fn submission_address(&self) -> u64 {
        self.submission.device_address(0)
    }

    /// The device's address of the completion queue.
    #[must_use]
    pub fn completion_address(&self) -> u64 {
        self.completion.device_address(0)
    }

    /// From now on rings by shadow doorbells; by registers alone again with `None`. While the queue is not in use.
    pub fn set_shadows(&mut self, shadows: Option<&Arc<ShadowDoorbells>>) {
        let index = 2 * usize::from(self.id);
        self.shadows = shadows.and_then(|shadows| shadows.doorbell(index).zip(shadows.doorbell(index + 1)));
    }

    /// Slots that are free.
    #[inline]
    #[must_use]
    pub fn free(&self) -> usize {
        self.slots.free()
    }

    /// The slot that the next command will use, when there is one: what belongs to slots, such as PRP lists, is made
    /// ready before [`Self::submit`].
    #[inline]
    #[must_use]
    pub fn next_slot(&self) -> Option<u16> {
        self.slots.next()
    }

    /// Commands under way, those that nobody waits for among them.
    #[inline]
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.slots.outstanding()
    }

    /// Puts a command into the submission queue and gives it an identifier; the device is told by [`Self::ring`].
    ///
    /// # Errors
    /// Gives the context back when all slots are in use.
    #[inline(always)]
    pub fn submit(&mut self, mut command: Command, context: T, now: Instant) -> Result<u16, T> {
        let cid = self.slots.take(context, now)?;
        command.cid = U16::new(cid);
        self.submission.write(usize::from(self.tail) * SUBMISSION_BYTES, Entry::of(&command));
        self.tail = self.after(self.tail);
        self.statistics.submitted += 1;
        Ok(cid)
    }

    /// Tells the device of all that was submitted since the last time, by at most one write; and of what was reaped,
    /// when that is worth a write.
    #[inline]
    pub fn ring(&mut self) {
        if self.tail != self.rung_tail {
            self.rung_tail = self.tail;
            let shadow = self.shadows.as_ref().map(|(submission, _)| submission);
            if shadow.is_none_or(|shadow| shadow.ring(self.tail)) {
                self.function.write_u32(self.submission_doorbell, u32::from(self.tail));
                self.statistics.submission_doorbells += 1;
            }
        }
        if self.reaped_since > 0 && self.reaped_since >= self.depth / REAPED_SHARE {
            self.ring_completion();
        }
    }

    /// Tells the device of all that was submitted and of all that was reaped. Afterwards there is room in the
    /// completion queue for all that is under way, so that it need not be told of anything for as long as nothing is
    /// submitted.
    pub fn ring_all(&mut self) {
        self.ring();
        if self.reaped_since > 0 {
            self.ring_completion();
        }
    }

    #[inline]
    fn ring_completion(&mut self) {
        self.reaped_since = 0;
        let shadow = self.shadows.as_ref().map(|(_, completion)| completion);
        if shadow.is_none_or(|shadow| shadow.ring(self.head)) {
            self.function.write_u32(self.completion_doorbell, u32::from(self.head));
            self.statistics.completion_doorbells += 1;
        }
    }

    /// Takes at most `max` completions and delivers each to whom it answers. Returns how many there were. Completions
    /// of nobody's command are counted as late and go nowhere.
    #[inline]
    pub fn reap(&mut self, max: usize, mut deliver: impl FnMut(T, Completion)) -> usize {
        let mut count = 0;
        while count < max {
            let Some(completion) = self.next_completion() else { break };
            count += 1;
            match self.slots.end(completion.cid.get()) {
                Ended::Known(context) => {
                    self.statistics.completed += 1;
                    deliver(context, completion);
                }
                Ended::Nobody => self.statistics.late += 1,
            }
        }
        count
    }

    /// The next completion of the queue, whosever it is.
    #[inline]
    fn next_completion(&mut self) -> Option<Completion> {
        let offset = usize::from(self.head) * COMPLETION_BYTES;
        // Command Identifier, Phase Tag and Status lie in one word, which the device writes last.
        let last = u32::from_le(self.completion.read(offset + 12));
        if (last & 1 << 16 != 0) != self.phase {
            return None;
        }
        // Neither the rest of the entry nor the data is older than the Phase Tag.
        fence(Ordering::Acquire);
        let first: u64 = u64::from_le(self.completion.read(offset));
        let queue: u32 = u32::from_le(self.completion.read(offset + 8));
        self.head = self.after(self.head);
        self.phase ^= self.head == 0;
        self.reaped_since += 1;
        Some(Completion {
            result: (first as u32).into(),
            result_high: ((first >> 32) as u32).into(),
            sqhd: (queue as u16).into(),
            sqid: ((queue >> 16) as u16).into(),
            cid: (last as u16).into(),
            status_field: ((last >> 16) as u16).into(),
        })
    }

    /// The command that has been under way for the longest: its identifier, and when it was submitted. Looks at all
    /// slots: for what is rare.
    #[must_use]
    pub fn oldest(&self) -> Option<(u16, Instant)> {
        self.slots.oldest()
    }

    /// The commands that somebody waits for: identifier, when it was submitted, and whose it is.
    pub fn under_way(&self) -> impl Iterator<Item = (u16, Instant, &T)> {
        self.slots.under_way()
    }

    /// The context of a command under way.
    pub fn context_mut(&mut self, cid: u16) -> Option<&mut T> {
        self.slots.context_mut(cid)
    }

    /// Takes a command's context out, for who no longer waits for the command. The device may still work on it, so its
    /// slot stays in use and its memory must stay as it is, until the completion comes (it is counted as late) or the
    /// queue is emptied.
    pub fn take(&mut self, cid: u16) -> Option<T> {
        self.slots.abandon(cid)
    }

    /// Empties the queue: gives out every command that somebody waits for, oldest first as far as slots tell, and
    /// frees all slots. Only when the device can't work on the queue any more: deleted, disabled, or gone.
    pub fn drain(&mut self, give: impl FnMut(T)) {
        self.slots.drain(give);
    }

    /// Makes the queues as new: zeroed, first entry, Phase Tag 1. Only when the device does not know them (any more)
    /// and nothing is outstanding.
    pub fn restart(&mut self) {
        debug_assert_eq!(self.outstanding(), 0, "a queue is restarted when it is empty");
        self.submission.clear();
        self.completion.clear();
        if let Some((submission, completion)) = &self.shadows {
            submission.reset();
            completion.reset();
        }
        (self.tail, self.rung_tail, self.head, self.reaped_since) = (0, 0, 0, 0);
        self.phase = true;
    }

    /// Counts since it was made.
    #[must_use]
    pub fn statistics(&self) -> QueueStatistics {
        self.statistics
    }

    #[inline]
    fn after(&self, index: u16) -> u16 {
        if index + 1 == self.depth { 0 } else { index + 1 }
    }
}

impl<T> Drop for QueuePair<T> {
    /// Rings that the device may still use are left behind.
    fn drop(&mut self) {
        if self.outstanding() > 0 {
            self.submission.leak();
            self.completion.leak();
        }
    }
}

impl<T> std::fmt::Debug for QueuePair<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueuePair")
            .field("id", &self.id)
            .field("depth", &self.depth)
            .field("outstanding", &self.outstanding())
            .finish_non_exhaustive()
    }
}

/// A submission queue entry as aligned words, which take the fewest stores.
#[derive(Clone, Copy, IntoBytes, FromBytes)]
#[repr(C, align(64))]
struct Entry([u64; 8]);

impl Entry {
    #[inline]
    fn of(command: &Command) -> Self {
        Self(zerocopy::transmute!(*command))
    }
}
