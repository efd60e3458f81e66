//! One reactor's queue of commands on a file device.
//!
//! Invariant: a task is in the table from submission to completion, and either waits (its number is in
//! `waiting`, oldest first) or flies (the disk has it). Waiting tasks are tried again at each poll. When memory is
//! short it goes to the oldest that needs it, so large commands don't starve behind small ones.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use sledge_nvme::Status;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Submitted};
use sledge_reactor::disk::{DiskCompletion, DiskQueue};
use sledge_reactor::time;

use super::Shared;
use super::abandoned::Abandoned;
use super::task::{Next, Stage, Task};
use crate::command::{self, BUSY, MAX_OUTSTANDING};
use crate::slab::Slab;
use crate::statistics::ChannelCounters;

/// Completions that a channel has room for from the start; more at once make it grow, once.
const USUAL_COMPLETIONS: usize = 64;

/// One reactor's way to a file device.
pub(super) struct UringChannel {
    shared: Arc<Shared>,
    queue: DiskQueue,
    tasks: Slab<Task>,
    waiting: VecDeque<u32>,
    /// Tasks of `waiting` that wait for memory.
    short_of_memory: usize,
    completed: Vec<DiskCompletion>,
    counters: ChannelCounters,
}

/// How far a task got.
enum Outcome {
    Ended(Status),
    Waits,
    Flies,
}

impl UringChannel {
    /// Opens the channel on the current reactor.
    pub(super) fn open(shared: Arc<Shared>, counters: ChannelCounters) -> io::Result<Self> {
        Ok(Self {
            queue: DiskQueue::open(&shared.disk)?,
            shared,
            tasks: Slab::new(MAX_OUTSTANDING),
            waiting: VecDeque::new(),
            short_of_memory: 0,
            completed: Vec::with_capacity(USUAL_COMPLETIONS),
            counters,
        })
    }

    /// Goes on with a task as far as it can now. `memory` is whether it may take memory; it becomes false when the
    /// pool is dry.
    fn advance(&mut self, index: u32, memory: &mut bool) -> Outcome {
        let Some(task) = self.tasks.get_mut(index) else {
            debug_assert!(false, "numbers in `waiting` are of tasks");
            return Outcome::Flies;
        };
        loop {
            match task.stage {
                Stage::Memory => {
                    if !*memory {
                        return Outcome::Waits;
                    }
                    match task.take_memory(&self.shared) {
                        Ok(true) => task.stage = Stage::Gate,
                        Ok(false) => {
                            *memory = false;
                            return Outcome::Waits;
                        }
                        Err(status) => return Outcome::Ended(status),
                    }
                }
                Stage::Gate => {
                    if !task.enter(&self.shared) {
                        return Outcome::Waits;
                    }
                    task.stage = Stage::Queue;
                }
                Stage::Queue => {
                    let request = task.request(u64::from(index), &self.shared);
                    if let Err(request) = self.queue.submit(request) {
                        task.take_back(request.segments);
                        return Outcome::Waits;
                    }
                    task.stage = Stage::Flying;
                    return Outcome::Flies;
                }
                Stage::Flying => return Outcome::Flies,
            }
        }
    }

    /// Puts a task to the others that wait.
    fn wait(&mut self, index: u32) {
        self.short_of_memory += usize::from(self.waits_for_memory(index));
        self.waiting.push_back(index);
    }

    fn waits_for_memory(&mut self, index: u32) -> bool {
        self.tasks.get_mut(index).is_some_and(|task| task.stage == Stage::Memory)
    }

    /// Ends a task.
    fn end(&mut self, index: u32, status: Status) -> Option<IoCompletion> {
        let mut task = self.tasks.remove(index)?;
        task.leave(&self.shared);
        let (_, bytes) = command::byte_range(&task.io, &self.shared.geometry);
        self.counters.count(task.io.operation, bytes, task.started, status);
        Some(task.io.complete(status))
    }

    /// Takes in what the disk has done.
    fn collect(&mut self, done: &mut Vec<IoCompletion>) {
        let mut completed = std::mem::take(&mut self.completed);
        self.queue.poll(&mut completed);
        for DiskCompletion { token, segments, result, .. } in completed.drain(..) {
            let index = token as u32;
            let Some(task) = self.tasks.get_mut(index) else {
                debug_assert!(false, "the disk completes only what it was given");
                continue;
            };
            task.take_back(segments);
            match task.completed(&result, &self.shared) {
                Next::Ended(status) => done.extend(self.end(index, status)),
                Next::Stage(stage) => {
                    task.stage = stage;
                    task.waits_since = time::now();
                    let mut memory = true;
                    match self.advance(index, &mut memory) {
                        Outcome::Ended(status) => done.extend(self.end(index, status)),
                        Outcome::Waits => self.wait(index),
                        Outcome::Flies => {}
                    }
                }
            }
        }
        self.completed = completed;
    }
}

impl Channel for UringChannel {
    fn submit(&mut self, io: IoCommand) -> Submitted {
        let started = time::now();
        if let Err(status) = command::check(&io, &self.shared.geometry) {
            self.counters.count(io.operation, 0, started, status);
            return Submitted::Done(io.complete(status));
        }
        let index = match self.tasks.insert(Task::new(io, started, &self.shared)) {
            Ok(index) => index,
            Err(task) => {
                self.counters.count(task.io.operation, 0, started, BUSY);
                return Submitted::Done(task.io.complete(BUSY));
            }
        };
        let mut memory = self.short_of_memory == 0;
        match self.advance(index, &mut memory) {
            Outcome::Ended(status) => match self.end(index, status) {
                Some(completion) => Submitted::Done(completion),
                None => Submitted::Pending,
            },
            Outcome::Waits => {
                self.wait(index);
                Submitted::Pending
            }
            Outcome::Flies => Submitted::Pending,
        }
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        self.collect(done);
        let mut memory = true;
        for _ in 0..self.waiting.len() {
            let Some(index) = self.waiting.pop_front() else { break };
            self.short_of_memory -= usize::from(self.waits_for_memory(index));
            match self.advance(index, &mut memory) {
                Outcome::Ended(status) => done.extend(self.end(index, status)),
                Outcome::Flies => {}
                Outcome::Waits => {
                    let since = self.tasks.get_mut(index).map(|task| task.waits_since);
                    if since.is_some_and(command::has_waited_out) {
                        done.extend(self.end(index, BUSY));
                    } else {
                        self.wait(index);
                    }
                }
            }
        }
    }

    fn outstanding(&self) -> usize {
        self.tasks.len()
    }

    fn needs_polling(&self) -> bool {
        !self.waiting.is_empty()
    }
}

impl Drop for UringChannel {
    /// Nobody hears of commands that are still under way, and the disk may or may not do those that it has. Whoever cares
    /// drains the channel first, as the target does.
    fn drop(&mut self) {
        let flies = |task: &Task| task.stage == Stage::Flying;
        let mut tasks: Vec<_> = self.tasks.drain().collect();
        for (_, task) in tasks.iter_mut().filter(|(_, task)| !flies(task)) {
            task.leave(&self.shared);
        }
        tasks.retain(|(_, task)| flies(task));
        if !tasks.is_empty() {
            Abandoned::new(self.shared.clone(), self.queue.take(), tasks).keep_until_done();
        }
    }
}
