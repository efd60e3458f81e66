//! Places for connections, of which there is a fixed number.
//!
//! Invariant: a connection is only asked to make room while it waits for its client's next bytes, and only when
//! somebody needs its place; those that have never asked anything are asked first, then the one that has waited for
//! longest. Called by [`super::server`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How often the next idle connection is looked for when there is none.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// How long one that was asked to leave may take.
const LEAVE_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// By whether they have asked something, and the order in which they began to wait.
    connections: BTreeMap<(bool, u64), Arc<Notify>>,
}

/// The places. A cheap handle.
#[derive(Clone, Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    waiting: Arc<Mutex<Waiting>>,
}

/// A connection that waits for its client; dropped when it no longer does.
#[derive(Debug)]
pub struct Idle {
    waiting: Arc<Mutex<Waiting>>,
    key: (bool, u64),
    unwanted: Arc<Notify>,
}

impl Places {
    /// So many places.
    pub fn new(count: usize) -> Places {
        Places { free: Arc::new(Semaphore::new(count)), waiting: Arc::default() }
    }

    /// Takes a place. When there is none, an idle connection is asked to leave.
    pub async fn take(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
                return Some(place);
            }
            let longest = lock(&self.waiting).connections.pop_first();
            // One that is asked goes, unless its client has said something in the same moment.
            let patience = if longest.is_some() { LEAVE_TIME } else { LOOK_PERIOD };
            if let Some((_, connection)) = longest {
                connection.notify_one();
            }
            let free = Arc::clone(&self.free).acquire_owned();
            if let Ok(place) = tokio::time::timeout(patience, free).await {
                // The semaphore is never closed.
                return place.ok();
            }
        }
    }

    /// Notes that a connection waits for its client, which has, or has never, asked something.
    pub fn idle(&self, has_asked: bool) -> Idle {
        let unwanted = Arc::new(Notify::new());
        let mut waiting = lock(&self.waiting);
        let key = (has_asked, waiting.next);
        waiting.next += 1;
        waiting.connections.insert(key, unwanted.clone());
        Idle { waiting: self.waiting.clone(), key, unwanted }
    }
}

impl Idle {
    /// Waits until the connection is to make room.
    pub async fn unwanted(&self) {
        self.unwanted.notified().await;
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        lock(&self.waiting).connections.remove(&self.key);
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
