//! Commands that a channel had at its disk when it was dropped.
//!
//! Invariant: their ranges stay locked until the disk has ended them. A write that is still under way must not meet
//! commands of other channels in its range: it would tear their blocks, or undo what they wrote after it. Nobody is told
//! how they end. Made by the channel's drop; lives as a task of its reactor.

use std::sync::Arc;
use std::time::Duration;

use sledge_reactor::disk::DiskQueue;
use sledge_reactor::task::spawn_local;
use sledge_reactor::time::sleep;

use super::Shared;
use super::task::Task;

/// How often the disk is looked at.
const STEP: Duration = Duration::from_millis(5);

/// What the disk has not given back.
pub(super) struct Abandoned {
    shared: Arc<Shared>,
    queue: DiskQueue,
    /// By the numbers that the disk knows them by.
    tasks: Vec<(u32, Task)>,
}

impl Abandoned {
    /// Tasks that fly, and the queue that they are in.
    pub(super) fn new(shared: Arc<Shared>, queue: DiskQueue, tasks: Vec<(u32, Task)>) -> Abandoned {
        Abandoned { shared, queue, tasks }
    }

    /// Gives the ranges back as the disk ends what it has. If the reactor ends before the disk does, they stay locked for
    /// good: whoever else wants them is told to try again, which is better than to write beside the disk.
    pub(super) fn keep_until_done(mut self) {
        tracing::debug!(
            device = self.shared.name,
            commands = self.tasks.len(),
            "a channel is gone before its commands"
        );
        drop(spawn_local(async move {
            let mut completed = Vec::new();
            loop {
                self.queue.poll(&mut completed);
                for done in completed.drain(..) {
                    self.end(done.token as u32);
                }
                if self.tasks.is_empty() {
                    return;
                }
                sleep(STEP).await;
            }
        }));
    }

    fn end(&mut self, number: u32) {
        if let Some(at) = self.tasks.iter().position(|(known, _)| *known == number) {
            self.tasks.swap_remove(at).1.leave(&self.shared);
        }
    }
}
