//! Wakes a sleeping reactor in time for an I/O that is due, without allocating for it.
//!
//! The load says when its next I/O is due; a task of the reactor sleeps until shortly before. From then on the load
//! polls, so that the time the kernel takes to wake a thread is not taken for latency.

use sledge_reactor::time::{Instant, Sleep, sleep_until};
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The reactor polls from so long before an I/O is due.
const MARGIN: Duration = Duration::from_micros(100);

/// The next due time, shared by a load and its [`Alarm`].
#[derive(Clone, Default)]
pub struct Wake {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    at: Cell<Option<Instant>>,
    alarm: Cell<Option<Waker>>,
}

impl Wake {
    /// The next I/O is due at `next`. Returns whether that is so soon that the reactor must not sleep.
    #[inline]
    pub fn set(&self, next: Instant, at: Instant) -> bool {
        if next <= at + MARGIN {
            return true;
        }
        if self.shared.at.get() != Some(next) {
            self.shared.at.set(Some(next));
            if let Some(alarm) = self.shared.alarm.take() {
                alarm.wake();
            }
        }
        false
    }

    /// The task's part; it never ends by itself.
    pub fn alarm(&self) -> Alarm {
        Alarm { shared: self.shared.clone(), sleep: None }
    }
}

/// Sleeps until shortly before each due time.
pub struct Alarm {
    shared: Rc<Shared>,
    sleep: Option<Sleep>,
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(at) = this.shared.at.get() else {
            this.sleep = None;
            this.shared.alarm.set(Some(context.waker().clone()));
            return Poll::Pending;
        };
        let deadline = at - MARGIN;
        let sleep = match this.sleep.as_mut() {
            Some(sleep) if sleep.deadline() == deadline => sleep,
            _ => this.sleep.insert(sleep_until(deadline)),
        };
        if Pin::new(sleep).poll(context).is_ready() {
            // The turn that this causes polls the load, which polls on until the I/O is due.
            this.sleep = None;
            this.shared.at.set(None);
        }
        this.shared.alarm.set(Some(context.waker().clone()));
        Poll::Pending
    }
}
