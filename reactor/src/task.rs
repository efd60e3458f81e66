//! Local tasks: futures that run on one reactor's thread and need not be `Send`.
//!
//! Owns the executor and the handles of tasks. Invariants: a task's future is polled and dropped only on its
//! reactor's thread with that reactor current; a task is in a ready queue at most once, so the queues are
//! bounded by the number of tasks. Called by everything that runs as a state machine in `async` form.

mod executor;
mod join;
mod wake;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(crate) use executor::Executor;
pub use join::JoinHandle;
pub(crate) use wake::{ReadyStack, TaskWaker};

/// Starts a task on the current reactor. It first runs after the caller has yielded to the reactor.
///
/// # Panics
/// Outside a reactor.
pub fn spawn_local<T: 'static>(future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
    crate::core::with_current(|core| core.executor().spawn(future))
}

/// Lets other tasks, pollers and events run, and goes on in the next turn.
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// Future of [`yield_now`].
#[derive(Debug)]
#[must_use = "yielding does nothing unless awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
