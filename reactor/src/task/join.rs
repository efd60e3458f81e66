//! The handle of a local task.
//!
//! Invariant: the result is stored before the waiter is woken, and taken once.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::executor::Tasks;

/// Waits for a local task's result. Dropping it detaches the task, which goes on.
pub struct JoinHandle<T> {
    slot: Rc<ResultSlot<T>>,
    tasks: Weak<Tasks>,
    index: u32,
    generation: u32,
}

/// Where a task leaves its result.
pub(super) struct ResultSlot<T> {
    state: RefCell<State<T>>,
}

struct State<T> {
    result: Option<T>,
    waiter: Option<Waker>,
    finished: bool,
}

impl<T> ResultSlot<T> {
    /// An empty slot.
    pub(super) fn new() -> Rc<ResultSlot<T>> {
        Rc::new(ResultSlot { state: RefCell::new(State { result: None, waiter: None, finished: false }) })
    }

    /// Stores the result and wakes who waits for it.
    pub(super) fn finish(&self, result: T) {
        let waiter = {
            let mut state = self.state.borrow_mut();
            state.result = Some(result);
            state.finished = true;
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl<T> JoinHandle<T> {
    /// Makes the handle of the task at `index`.
    pub(super) fn new(slot: Rc<ResultSlot<T>>, tasks: Weak<Tasks>, index: u32, generation: u32) -> Self {
        JoinHandle { slot, tasks, index, generation }
    }

    /// Whether the task has run to its end.
    pub fn is_finished(&self) -> bool {
        self.slot.state.borrow().finished
    }

    /// Drops the task's future now, or as soon as it yields if it is the one that runs. Does nothing to a
    /// finished task. The handle of an aborted task never completes: don't await it.
    pub fn abort(&self) {
        if let Some(tasks) = self.tasks.upgrade() {
            tasks.abort(self.index, self.generation);
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.slot.state.borrow_mut();
        if let Some(result) = state.result.take() {
            return Poll::Ready(result);
        }
        let old = state.waiter.replace(context.waker().clone());
        drop(state);
        drop(old);
        Poll::Pending
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("index", &self.index)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
