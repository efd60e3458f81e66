//! Waiting on one reactor: with a limit, and for something to change.
//!
//! Owns [`Signal`] and [`within`]. Invariant: no wake-up is lost; a wait ends when it was signalled after the wait's
//! version was taken, even before the wait was polled. The control path calls.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use sledge_reactor::time::sleep;

/// Waits for `future`, at most for `limit`; `None` when that passed, and the future is dropped.
pub(super) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = pin!(sleep(limit));
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// Something that changes, and any number of tasks of the same reactor that wait for that.
#[derive(Debug, Default)]
pub(super) struct Signal {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Signal {
    /// How often it has changed.
    pub(super) fn version(&self) -> u64 {
        self.version.get()
    }

    /// It changed: wakes all who wait.
    pub(super) fn set(&self) {
        self.version.set(self.version.get() + 1);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for waker in waiting {
            waker.wake();
        }
    }

    /// Waits until it has changed since `version` was taken.
    pub(super) async fn after(&self, version: u64) {
        poll_fn(|context| {
            if self.version.get() != version {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits until `condition` holds, which is looked at after each change.
    pub(super) async fn until(&self, mut condition: impl FnMut() -> bool) {
        loop {
            let version = self.version();
            if condition() {
                return;
            }
            self.after(version).await;
        }
    }
}
