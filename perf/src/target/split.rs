//! I/Os that are larger than one command, or than one buffer of the pool: each goes as several parts.
//!
//! Owns the memory of these I/Os, by their tokens. Invariants: an I/O ends once, when none of its parts is outstanding
//! any more, with the status of the first of them that failed; after a failure its other parts don't go; parts go in
//! order, as many as the link below takes at once; nothing is allocated for an I/O. Lanes have it between themselves
//! and their link where the plan says so.

use super::Link;
use crate::workload::{Kind, Step};
use sledge_nvme::Status;
use sledge_nvme::io::IoCompletion;
use sledge_reactor::memory::{Segment, Segments};
use std::collections::VecDeque;

/// How I/Os go in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Blocks of all parts of an I/O but the last one.
    pub blocks: u32,
    /// Parts of the largest I/O.
    pub most: u32,
}

/// A link whose I/Os go in parts.
#[derive(Debug)]
pub struct SplitLink {
    below: Link,
    /// Blocks of all parts of an I/O but the last one.
    part_blocks: u32,
    /// Bytes of a block, as a power of two.
    shift: u32,
    /// Parts of the largest I/O.
    most_parts: usize,
    /// Memory of the parts: that of the first I/O, of the second...; empty where no data is moved.
    memory: Vec<Segments>,
    wholes: Vec<Whole>,
    /// I/Os that have parts which have not gone, the first in front.
    waiting: VecDeque<u64>,
    /// Parts outstanding below.
    outstanding: usize,
    ended_parts: Vec<IoCompletion>,
    ended: Vec<IoCompletion>,
}

/// One I/O.
#[derive(Clone, Copy, Debug)]
struct Whole {
    step: Step,
    fua: bool,
    parts: u32,
    /// Parts that have gone.
    gone: u32,
    /// Parts that have ended.
    ended: u32,
    status: Status,
}

impl SplitLink {
    /// A link on top of `below`, whose blocks have 2 to the power of `shift` bytes, for `depth` I/Os at once. `memory` is
    /// empty where no data is moved.
    pub fn new(below: Link, parts: Parts, shift: u32, depth: usize, memory: Vec<Segments>) -> Self {
        let below_depth = below.depth();
        let step = Step { kind: Kind::Flush, block: 0, blocks: 0, version: 0 };
        let whole = Whole { step, fua: false, parts: 0, gone: 0, ended: 0, status: Status::SUCCESS };
        Self {
            below,
            part_blocks: parts.blocks.max(1),
            shift,
            most_parts: parts.most.max(1) as usize,
            memory,
            wholes: vec![whole; depth],
            waiting: VecDeque::with_capacity(depth),
            outstanding: 0,
            ended_parts: Vec::with_capacity(below_depth),
            ended: Vec::with_capacity(depth),
        }
    }

    /// Most I/Os at once.
    pub fn depth(&self) -> usize {
        self.wholes.len()
    }

    /// The memory of an I/O, part by part.
    pub fn memory(&self, token: u64) -> &[Segments] {
        self.memory.get(self.places(token)).unwrap_or_default()
    }

    /// The same, to be filled for an I/O of `blocks` blocks, and as long as that.
    pub fn memory_for(&mut self, token: u64, blocks: u32) -> &mut [Segments] {
        let places = self.places(token);
        let memory = self.memory.get_mut(places).unwrap_or_default();
        let mut left = blocks;
        for part in memory.iter_mut() {
            let blocks = left.min(self.part_blocks);
            left -= blocks;
            resize(part, (blocks as usize) << self.shift);
        }
        memory
    }

    fn places(&self, token: u64) -> std::ops::Range<usize> {
        let first = token as usize * self.most_parts;
        first..first + self.most_parts
    }

    /// Takes an I/O; it comes back by [`SplitLink::poll`] in any case.
    pub fn submit(&mut self, token: u64, step: &Step, fua: bool) {
        let parts = match step.kind {
            // They move no data, and have no limit.
            Kind::Flush | Kind::Trim => 1,
            Kind::Read | Kind::Write | Kind::Zeroes => step.blocks.div_ceil(self.part_blocks).max(1),
        };
        self.wholes[token as usize] =
            Whole { step: *step, fua, parts, gone: 0, ended: 0, status: Status::SUCCESS };
        self.waiting.push_back(token);
        self.send();
    }

    /// Appends the I/Os that have ended.
    pub fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        let mut ended = std::mem::take(&mut self.ended_parts);
        self.below.poll(&mut ended);
        let any = !ended.is_empty();
        ended.drain(..).for_each(|part| self.end(part));
        self.ended_parts = ended;
        if any && self.send() {
            self.below.flush();
        }
        done.append(&mut self.ended);
    }

    /// The link below.
    pub fn below(&self) -> &Link {
        &self.below
    }

    /// Sends what was submitted.
    pub fn flush(&mut self) {
        self.below.flush();
    }

    /// Whether progress needs another turn though no event will cause one.
    pub fn needs_polling(&self) -> bool {
        !self.ended.is_empty() || self.below.needs_polling()
    }

    /// Sends parts for as long as there is room. Whether any went.
    fn send(&mut self) -> bool {
        let mut any = false;
        while let Some(token) = self.waiting.front().copied()
            && self.outstanding < self.below.depth()
        {
            let whole = &mut self.wholes[token as usize];
            let number = whole.gone;
            whole.gone += 1;
            if whole.gone == whole.parts {
                self.waiting.pop_front();
            }
            let Whole { step, fua, .. } = *whole;
            let part = if whole.parts == 1 { step } else { part_of(&step, number, self.part_blocks) };
            let place = self.places(token).start + number as usize;
            let data = match step.kind.moves_data() {
                true => self.take_memory(place, (part.blocks as usize) << self.shift),
                false => Segments::new(),
            };
            self.outstanding += 1;
            any = true;
            if let Some(refused) = self.below.submit(place as u64, &part, fua, data) {
                self.end(refused);
            }
        }
        any
    }

    fn take_memory(&mut self, place: usize, bytes: usize) -> Segments {
        let mut data = self.memory.get_mut(place).map(std::mem::take).unwrap_or_default();
        resize(&mut data, bytes);
        data
    }

    /// A part has ended, and its I/O with the last one.
    fn end(&mut self, part: IoCompletion) {
        self.outstanding -= 1;
        let place = part.token as usize;
        let token = (place / self.most_parts) as u64;
        if !part.data.is_empty()
            && let Some(memory) = self.memory.get_mut(place)
        {
            *memory = part.data;
        }
        let whole = &mut self.wholes[token as usize];
        whole.ended += 1;
        if !part.status.is_success() && whole.status.is_success() {
            whole.status = part.status;
            if whole.gone < whole.parts {
                whole.parts = whole.gone;
                self.waiting.retain(|waiting| *waiting != token);
            }
        }
        if whole.ended == whole.parts {
            self.ended.push(IoCompletion { token, status: whole.status, data: Segments::new() });
        }
    }
}

/// Gives the memory of a part its length.
fn resize(data: &mut Segments, bytes: usize) {
    if let Some(Segment::Buffer(buffer)) = data.iter_mut().next() {
        buffer.resize(bytes);
    }
}

/// Part `number` of an I/O.
fn part_of(step: &Step, number: u32, part_blocks: u32) -> Step {
    let before = number * part_blocks;
    let blocks = part_blocks.min(step.blocks - before);
    Step { block: step.block + u64::from(before), blocks, ..*step }
}
