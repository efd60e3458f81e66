//! One lane: a queue, the I/Os outstanding on it, and what comes next.
//!
//! Invariant: every place has its own memory, which it gets back with each completion.

use crate::target::Link;
use crate::verify::Verifier;
use crate::workload::pace::Pace;
use crate::workload::{Kind, Step, Workload};
use sledge_nvme::io::IoCompletion;
use sledge_reactor::memory::{Segment, Segments};
use sledge_reactor::time::Instant;

/// An I/O that may go: what it does, and from when its latency counts.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub step: Step,
    pub since: Instant,
}

/// A queue and its load.
#[derive(Debug)]
pub struct Lane {
    pub link: Link,
    pub workload: Workload,
    pub pace: Pace,
    pub verifier: Option<Verifier>,
    /// What is outstanding, by token.
    pub places: Vec<Due>,
    /// Places without an I/O: the I/Os that ended there, with their memory.
    pub idle: Vec<IoCompletion>,
    /// Whether I/Os differ in size.
    pub resizes: bool,
    /// Memory of I/Os without data, by token; empty where all I/Os have some, or none has.
    pub aside: Vec<Segments>,
    /// Writes until the next flush; `None` without flushes.
    pub until_flush: Option<u32>,
    /// Writes from one flush to the next.
    pub flush_every: u32,
    /// Bytes of a block, as a power of two.
    pub shift: u32,
    /// An I/O that found no free blocks: it goes as soon as there are some.
    pub held: Option<Instant>,
}

impl Lane {
    /// The next I/O, if one may go at `at`.
    #[inline]
    pub fn next(&mut self, at: Instant) -> Option<Due> {
        if self.until_flush == Some(0) {
            self.until_flush = Some(self.flush_every);
            let step = Step { kind: Kind::Flush, block: 0, blocks: 0, version: 0 };
            return Some(Due { step, since: at });
        }
        let since = match self.held.take() {
            Some(since) => since,
            None => self.pace.next(at)?,
        };
        let mut step = self.workload.step();
        if let Some(verifier) = self.verifier.as_mut()
            && !verifier.claim(&mut step)
        {
            self.held = Some(since);
            return None;
        }
        if step.kind == Kind::Write
            && let Some(left) = self.until_flush.as_mut()
        {
            *left -= 1;
        }
        Some(Due { step, since })
    }

    /// The next I/O of reading back.
    pub fn next_read_back(&mut self, at: Instant, most: u32) -> Option<Due> {
        let step = self.verifier.as_mut()?.read_back(most)?;
        Some(Due { step, since: at })
    }

    /// Gives an I/O's memory the length it needs, or puts it aside for one that needs none.
    #[inline]
    pub fn prepare(&mut self, token: u64, step: &Step, data: &mut Segments) {
        if !step.kind.moves_data() {
            return self.put_aside(token, data);
        }
        if self.resizes
            && let Some(Segment::Buffer(buffer)) = data.iter_mut().next()
        {
            buffer.resize((step.blocks as usize) << self.shift);
        }
        if step.kind == Kind::Write
            && let Some(verifier) = self.verifier.as_ref()
        {
            let parts = self.link.memory_for(token, step.blocks).unwrap_or(std::slice::from_mut(data));
            verifier.fill(step, parts);
        }
    }

    #[cold]
    fn put_aside(&mut self, token: u64, data: &mut Segments) {
        if let Some(place) = self.aside.get_mut(token as usize) {
            *place = std::mem::take(data);
        }
    }

    /// I/Os outstanding.
    pub fn outstanding(&self) -> usize {
        self.places.len() - self.idle.len()
    }
}
