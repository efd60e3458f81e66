//! The result of a task on another reactor, as a future for any executor or a plain thread.
//!
//! Invariant: exactly one of the result and "gone" is delivered; "gone" when the task or its message is dropped
//! before the task's end.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::inbox::{Inbox, Message};

/// The reactor ended, or dropped the task, before there was a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reactor ended before the task did")]
pub struct ReactorGone;

/// The result of a task on a reactor. Await it on another reactor, on tokio or in the simulator, or use
/// [`Remote::wait_blocking`] on a plain thread. Dropping it leaves the task running.
#[must_use = "a remote task's failure shows only in its result; drop it explicitly to detach"]
pub struct Remote<T> {
    slot: Arc<Slot<T>>,
    inbox: Arc<Inbox>,
    /// The message while the reactor's ring is full.
    unsent: Option<Message>,
}

struct Slot<T> {
    state: Mutex<State<T>>,
}

enum State<T> {
    /// No result yet; who waits for it.
    Waiting(Option<Waker>),
    Done(T),
    Gone,
}

/// The task's end of the slot.
struct Sender<T> {
    slot: Arc<Slot<T>>,
}

impl<T> Slot<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Held for a few instructions that don't panic; and every state is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the wait, if it has not ended yet.
    fn finish(&self, end: State<T>) {
        let waiter = {
            let mut state = self.state();
            match &mut *state {
                State::Waiting(waiter) => {
                    let waiter = waiter.take();
                    *state = end;
                    waiter
                }
                State::Done(_) | State::Gone => return,
            }
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.slot.finish(State::Gone);
    }
}

impl<T: Send + 'static> Remote<T> {
    /// Sends `make` to the reactor of `inbox`.
    pub(super) fn send<Fut, F>(inbox: &Arc<Inbox>, make: F) -> Remote<T>
    where
        Fut: Future<Output = T> + 'static,
        F: FnOnce() -> Fut + Send + 'static,
    {
        let slot = Arc::new(Slot { state: Mutex::new(State::Waiting(None)) });
        let sender = Sender { slot: slot.clone() };
        let message: Message = Box::new(move || {
            let future = make();
            drop(crate::task::spawn_local(async move {
                let value = future.await;
                sender.slot.finish(State::Done(value));
            }));
        });
        let unsent = inbox.send(message).err();
        Remote { slot, inbox: inbox.clone(), unsent }
    }
}

impl<T> Remote<T> {
    /// Waits for the result, blocking the thread.
    ///
    /// # Errors
    /// [`ReactorGone`] when the reactor ended first.
    ///
    /// # Panics
    /// On a reactor, which must never block.
    pub fn wait_blocking(self) -> Result<T, ReactorGone> {
        assert!(
            crate::core::try_with_current(|_| ()).is_none(),
            "a reactor must not block: await the Remote instead"
        );
        let mut remote = self;
        let waker = Waker::from(Arc::new(Unpark { thread: std::thread::current() }));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut remote).poll(&mut context) {
                Poll::Ready(result) => return result,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

/// Wakes a thread that waits in `wait_blocking`.
struct Unpark {
    thread: std::thread::Thread,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.thread.unpark();
    }
}

impl<T> Future for Remote<T> {
    type Output = Result<T, ReactorGone>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(message) = self.unsent.take() {
            self.unsent = self.inbox.send_or_wait(message, context.waker()).err();
        }
        let mut state = self.slot.state();
        match &mut *state {
            State::Waiting(waiter) => {
                if !waiter.as_ref().is_some_and(|waiter| waiter.will_wake(context.waker())) {
                    *waiter = Some(context.waker().clone());
                }
                Poll::Pending
            }
            State::Done(_) | State::Gone => match std::mem::replace(&mut *state, State::Gone) {
                State::Done(value) => Poll::Ready(Ok(value)),
                _ => Poll::Ready(Err(ReactorGone)),
            },
        }
    }
}

impl<T> Unpin for Remote<T> {}

impl<T> Drop for Remote<T> {
    fn drop(&mut self) {
        if let Some(message) = self.unsent.take()
            && !self.inbox.send_detached(message)
        {
            tracing::error!(
                reactor = self.inbox.id(),
                "reactor does not keep up with its messages; one was dropped"
            );
        }
    }
}

impl<T> fmt::Debug for Remote<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("reactor", &self.inbox.id()).finish_non_exhaustive()
    }
}
