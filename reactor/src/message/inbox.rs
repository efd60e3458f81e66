//! A reactor's inbox: a bounded lock-free ring of messages, and the tasks woken from other threads.
//!
//! Invariants: whoever pushes looks at `closed` afterwards and empties the queues if it is set; whoever closes
//! sets it first and empties them afterwards. So in every order somebody sees what is left, and nothing stays
//! in a closed inbox. A push is followed by a wake, so a sleeping reactor sees it.
//!
//! One ring for all senders, since management threads send, too, and since what comes here is control: a message is a
//! task, with its allocations and its wake. Of that a ring of one sender would save 16 ns (19 to 3, measured), and then
//! each turn would have to look at as many rings as there are reactors. I/O that crosses reactors has rings of its own,
//! of one sender each: the NVMe driver's lanes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use crossbeam_queue::ArrayQueue;

use crate::backend::Wake;
use crate::task::{ReadyStack, TaskWaker};

/// What runs on the receiving reactor.
pub(crate) type Message = Box<dyn FnOnce() + Send>;

/// Messages that the ring holds.
const RING: usize = 4096;
/// Messages kept beyond the ring for senders that did not wait; more are refused. What must happen is awaited, and then
/// waits for room. What is sent without waiting is one message a detached or abandoned NVMe path, one a lane and rest of
/// its lender, one a question whose asker has given up. A reactor takes 256 in each turn: to be so far behind it must hang,
/// and then the process is to be ended; the log says it.
const OVERFLOW: usize = 65_536;

/// The receiving end of a reactor, shared with all senders.
pub(crate) struct Inbox {
    id: u32,
    ring: ArrayQueue<Message>,
    ready: ReadyStack,
    wake: Arc<dyn Wake>,
    closed: AtomicBool,
    /// Length of `beyond.messages` plus that of `beyond.senders`: nothing to look for while it is 0.
    beyond_count: AtomicUsize,
    /// Length of `beyond.messages`. While it is not 0 the ring counts as full, so that nobody's message overtakes
    /// another of the same sender. It becomes 0 with `beyond` locked: who has just added to that, and finds this above
    /// 0, is seen by the `take` that follows.
    overflow_count: AtomicUsize,
    beyond: Mutex<Beyond>,
}

/// What did not fit into the ring. Rarely touched.
#[derive(Default)]
struct Beyond {
    messages: VecDeque<Message>,
    /// Tasks that wait for room in the ring.
    senders: Vec<Waker>,
}

impl Inbox {
    /// An open, empty inbox.
    pub(crate) fn new(id: u32, wake: Arc<dyn Wake>) -> Inbox {
        Inbox {
            id,
            ring: ArrayQueue::new(RING),
            ready: ReadyStack::new(),
            wake,
            closed: AtomicBool::new(false),
            beyond_count: AtomicUsize::new(0),
            overflow_count: AtomicUsize::new(0),
            beyond: Mutex::default(),
        }
    }

    /// The reactor's number.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Whether the reactor has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Tasks woken from other threads.
    pub(crate) fn ready(&self) -> &ReadyStack {
        &self.ready
    }

    /// Queues a task woken from another thread, and ends the reactor's sleep.
    pub(crate) fn push_ready(&self, waker: Arc<TaskWaker>) {
        self.ready.push(waker);
        self.after_push();
    }

    /// Queues a message; gives it back when the ring is full.
    pub(crate) fn send(&self, message: Message) -> Result<(), Message> {
        if self.overflow_count.load(Ordering::SeqCst) != 0 {
            return Err(message);
        }
        self.ring.push(message)?;
        self.after_push();
        Ok(())
    }

    /// Queues a message, and when the ring is full makes `sender` be woken when there may be room again.
    pub(crate) fn send_or_wait(&self, message: Message, sender: &Waker) -> Result<(), Message> {
        let message = match self.send(message) {
            Ok(()) => return Ok(()),
            Err(message) => message,
        };
        {
            let mut beyond = self.beyond();
            if !beyond.senders.iter().any(|waiting| waiting.will_wake(sender)) {
                beyond.senders.push(sender.clone());
                self.beyond_count.fetch_add(1, Ordering::SeqCst);
            }
        }
        // Room may have come between the two; then nobody would wake us.
        self.send(message)
    }

    /// Queues a message whose sender does not wait; false when it was refused.
    pub(crate) fn send_detached(&self, message: Message) -> bool {
        let Err(message) = self.send(message) else { return true };
        {
            let mut beyond = self.beyond();
            if beyond.messages.len() >= OVERFLOW {
                return false;
            }
            beyond.messages.push_back(message);
            self.overflow_count.store(beyond.messages.len(), Ordering::SeqCst);
            self.beyond_count.fetch_add(1, Ordering::SeqCst);
        }
        self.after_push();
        true
    }

    /// Takes the next message. Called by the reactor.
    pub(crate) fn take(&self) -> Option<Message> {
        let message = self.ring.pop();
        // Orders the pop before the look: a sender that found the ring full has counted itself before, or
        // finds room when it tries once more.
        fence(Ordering::SeqCst);
        if self.beyond_count.load(Ordering::Relaxed) != 0 {
            let (overflow, senders) = {
                let mut beyond = self.beyond();
                let overflow = if message.is_none() { beyond.messages.pop_front() } else { None };
                let senders = std::mem::take(&mut beyond.senders);
                self.overflow_count.store(beyond.messages.len(), Ordering::SeqCst);
                self.beyond_count.store(beyond.messages.len(), Ordering::SeqCst);
                (overflow, senders)
            };
            for sender in senders {
                sender.wake();
            }
            return message.or(overflow);
        }
        message
    }

    /// Refuses everything from now on and drops what waits.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.discard();
    }

    fn after_push(&self) {
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.discard();
        } else {
            self.wake.wake();
        }
    }

    /// Empties a closed inbox; any thread may.
    fn discard(&self) {
        self.ready.take_all(drop);
        while let Some(message) = self.take() {
            drop(message);
        }
    }

    fn beyond(&self) -> std::sync::MutexGuard<'_, Beyond> {
        // Nothing panics while it is held; and a half-done push is harmless.
        self.beyond.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Counts wakes.
    #[derive(Default)]
    struct Wakes(AtomicU32);

    impl Wake for Wakes {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            Wake::wake(&*self);
        }
    }

    // Without it one sender's messages could overtake each other once the ring had been full: what ends a thing would
    // come before what begins it. Or a sender that waits could wait for ever, because others do not.
    #[test]
    fn a_senders_messages_stay_in_their_order() {
        let inbox = Inbox::new(0, Arc::new(Wakes::default()));
        let came = Arc::new(Mutex::new(Vec::new()));
        let message = |number: usize| -> Message {
            let came = came.clone();
            Box::new(move || came.lock().unwrap_or_else(PoisonError::into_inner).push(number))
        };
        let take = || inbox.take().map(|message| message()).is_some();
        let sender = Arc::new(Wakes::default());
        for number in 0..RING {
            assert!(inbox.send(message(number)).is_ok());
        }
        assert!(inbox.send_detached(message(RING)));
        // Now there is room in the ring, and one beyond it.
        assert!(take());
        assert!(inbox.send_detached(message(RING + 1)));
        let waits = inbox.send_or_wait(message(RING + 2), &Waker::from(sender.clone()));
        assert!(waits.is_err());
        // The last one beyond the ring is the one that lets the sender go on.
        for _ in 1..RING + 2 {
            assert!(take());
        }
        assert!(sender.0.load(Ordering::Relaxed) > 0, "the sender is woken");
        assert!(waits.is_err_and(|message| inbox.send(message).is_ok()));
        assert!(take() && !take());
        let came = came.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(came.iter().copied().eq(0..RING + 3), "{} of {}", came.len(), RING + 3);
    }
}
