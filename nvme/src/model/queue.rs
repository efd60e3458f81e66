//! Queues as the controller sees them.
//!
//! Owns heads, tails and the completions that wait for room. Invariant: a completion is written only to a free entry,
//! and each entry's phase tag changes with each pass over the queue.

use std::collections::VecDeque;

use zerocopy::little_endian::U16;
use zerocopy::{FromZeros, IntoBytes};

use super::function::{DmaFault, Iommu};
use crate::{Command, Completion};

/// A submission queue.
pub(super) struct SubmissionQueue {
    base: u64,
    pub entries: u32,
    pub head: u32,
    pub tail: u32,
    /// The completion queue that its commands answer to.
    pub completion_queue: u16,
    /// The first half of a fused operation whose second half is to come.
    pub fused: Option<Command>,
}

impl SubmissionQueue {
    pub(super) const fn new(base: u64, entries: u32, completion_queue: u16) -> Self {
        Self { base, entries, head: 0, tail: 0, completion_queue, fused: None }
    }

    /// Takes the next command, if the host has rung for one.
    pub(super) fn fetch(&mut self, iommu: &Iommu) -> Result<Option<Command>, DmaFault> {
        if self.head == self.tail {
            return Ok(None);
        }
        let mut command = Command::new_zeroed();
        iommu.read(self.base + u64::from(self.head) * 64, command.as_mut_bytes())?;
        self.head = (self.head + 1) % self.entries;
        Ok(Some(command))
    }
}

/// A completion queue.
pub(super) struct CompletionQueue {
    base: u64,
    pub entries: u32,
    pub head: u32,
    tail: u32,
    phase: bool,
    waiting: VecDeque<Completion>,
}

impl CompletionQueue {
    pub(super) const fn new(base: u64, entries: u32) -> Self {
        Self { base, entries, head: 0, tail: 0, phase: true, waiting: VecDeque::new() }
    }

    pub(super) fn push(&mut self, completion: Completion) {
        self.waiting.push_back(completion);
    }

    /// Whether the host may have consumed up to `head`: it lies between the last head and the tail.
    pub(super) const fn may_consume(&self, head: u32) -> bool {
        let used = (self.tail + self.entries - self.head) % self.entries;
        let consumed = (head + self.entries - self.head) % self.entries;
        head < self.entries && consumed <= used
    }

    /// Writes what waits, as far as there is room; how many.
    pub(super) fn post(&mut self, iommu: &Iommu, head_of: impl Fn(u16) -> u16) -> Result<usize, DmaFault> {
        let mut posted = 0;
        while (self.tail + 1) % self.entries != self.head {
            let Some(mut completion) = self.waiting.pop_front() else { break };
            completion.sqhd = U16::new(head_of(completion.sqid.get()));
            completion.status_field = U16::new(completion.status_field.get() & !1 | u16::from(self.phase));
            iommu.write(self.base + u64::from(self.tail) * 16, completion.as_bytes())?;
            self.tail += 1;
            if self.tail == self.entries {
                (self.tail, self.phase) = (0, !self.phase);
            }
            posted += 1;
        }
        Ok(posted)
    }
}
