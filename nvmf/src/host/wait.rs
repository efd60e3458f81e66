//! Waiting with a limit, and waiting for something on the same reactor.

use super::error::HostError;
use sledge_reactor::time::sleep;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Waits for `future`, at most for `limit`.
///
/// # Errors
/// [`HostError::Timeout`]; the future is dropped then.
pub(super) async fn within<T>(
    what: &'static str,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Result<T, HostError> {
    let mut future = pin!(future);
    let mut timer = pin!(sleep(limit));
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        timer.as_mut().poll(context).map(|()| Err(HostError::Timeout { what, limit }))
    })
    .await
}

/// Tells one waiting task of the same reactor that something changed.
#[derive(Debug, Default)]
pub(super) struct Signal {
    set: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Wakes the waiter, or the next one that comes.
    pub(super) fn set(&self) {
        self.set.set(true);
        let waiter = self.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// Waits until the signal is set, and clears it.
    pub(super) fn wait(&self) -> impl Future<Output = ()> {
        poll_fn(|context| {
            if self.set.replace(false) {
                return Poll::Ready(());
            }
            let old = self.waiter.replace(Some(context.waker().clone()));
            drop(old);
            Poll::Pending
        })
    }
}
