//! One user's way to a namespace, on one reactor.
//!
//! Owns its number in the reactor's I/O queue, which does the work. Invariant: what was submitted by it is answered to
//! it, in whatever order the device likes; when it is dropped, what the device has stays with the queue until the
//! device has answered. Opened by the control path.

use std::rc::Rc;

use super::io_queue::IoQueue;
use super::ledger::{RawCompletion, RawIo};
use crate::io::{Channel, IoCommand, IoCompletion, Submitted};

/// A channel of a namespace.
#[derive(Debug)]
pub struct NamespaceChannel {
    queue: Rc<IoQueue>,
    number: u32,
}

impl NamespaceChannel {
    pub(super) fn new(queue: Rc<IoQueue>, number: u32) -> Self {
        Self { queue, number }
    }

    /// Submits a command that is ready but for identifier and pointers, which are set here: for what
    /// [`Channel::submit`] does not know, and for metadata. Not cut, not retried, not checked: whoever sends it knows
    /// the namespace. Data and metadata lie in this reactor's pool, metadata in one piece. Answered by
    /// [`Self::poll_raw`], also when it is refused.
    pub fn submit_raw(&mut self, raw: RawIo) {
        self.queue.engine().borrow_mut().submit_raw(self.number, raw);
    }

    /// Appends what has completed of [`Self::submit_raw`].
    pub fn poll_raw(&mut self, done: &mut Vec<RawCompletion>) {
        let mut engine = self.queue.engine().borrow_mut();
        engine.turn(&mut None);
        if let Some(channel) = engine.ledger.channels.get_mut(self.number) {
            done.append(&mut channel.raw_done);
        }
    }
}

impl Channel for NamespaceChannel {
    fn submit(&mut self, io: IoCommand) -> Submitted {
        self.queue.engine().borrow_mut().submit(self.number, io)
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        let mut engine = self.queue.engine().borrow_mut();
        engine.turn(&mut Some((self.number, done)));
        engine.collect(self.number, done);
    }

    fn outstanding(&self) -> usize {
        let engine = self.queue.engine().borrow();
        engine
            .ledger
            .channels
            .get(self.number)
            .map_or(0, |channel| channel.outstanding + channel.done.len() + channel.raw_done.len())
    }

    fn needs_polling(&self) -> bool {
        self.outstanding() > 0
    }

    fn abort(&mut self, token: u64) -> bool {
        self.queue.engine().borrow_mut().abort(self.number, token)
    }
}

impl Drop for NamespaceChannel {
    fn drop(&mut self) {
        self.queue.engine().borrow_mut().ledger.close(self.number);
    }
}
