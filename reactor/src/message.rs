//! Messages to reactors, from other reactors and from threads that are none.
//!
//! A message is a function that runs on the receiving reactor; [`Handle::spawn`] makes it a task there and gives
//! a [`Remote`], whose result can be awaited anywhere. This is the only way between the data plane and the
//! management plane. Invariant: a message that was accepted runs, or its `Remote` says [`ReactorGone`].

mod inbox;
mod remote;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::backend::Wake;
use crate::statistics::ReactorStatistics;

pub(crate) use inbox::Inbox;
pub use remote::{ReactorGone, Remote};

/// A way to reach one reactor, from any thread.
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox>,
}

impl Handle {
    /// The handle of a reactor that is about to be made. What is sent before it runs waits.
    pub(crate) fn new(id: u32, wake: Arc<dyn Wake>) -> Handle {
        Handle { inbox: Arc::new(Inbox::new(id, wake)) }
    }

    /// The reactor's number in its set, from 0.
    pub fn id(&self) -> u32 {
        self.inbox.id()
    }

    /// Whether the reactor has ended.
    pub fn is_gone(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Whether this is the handle of the reactor that runs the caller.
    pub fn is_current(&self) -> bool {
        crate::core::try_with_current(|core| Arc::ptr_eq(&core.handle().inbox, &self.inbox)).unwrap_or(false)
    }

    /// Calls `make` on the reactor and runs the future it returns there, as a task. The task runs whether or
    /// not the [`Remote`] is awaited or kept.
    pub fn spawn<T, Fut, F>(&self, make: F) -> Remote<T>
    where
        T: Send + 'static,
        Fut: Future<Output = T> + 'static,
        F: FnOnce() -> Fut + Send + 'static,
    {
        Remote::send(&self.inbox, make)
    }

    /// The reactor's counts.
    pub fn statistics(&self) -> Remote<ReactorStatistics> {
        self.spawn(|| async { crate::core::with_current(|core| core.statistics()) })
    }

    /// The reactor's side of this handle.
    pub(crate) fn inbox(&self) -> &Arc<Inbox> {
        &self.inbox
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("id", &self.id()).field("gone", &self.is_gone()).finish()
    }
}

/// The handle of the reactor that runs the caller.
///
/// # Panics
/// Outside a reactor.
pub fn current() -> Handle {
    crate::core::with_current(|core| core.handle().clone())
}

/// The handles of all reactors of the current one's set (its process, or its simulated node), itself included,
/// in the order of their numbers.
///
/// # Panics
/// Outside a reactor.
pub fn peers() -> Vec<Handle> {
    crate::core::with_current(|core| core.peers().to_vec())
}
