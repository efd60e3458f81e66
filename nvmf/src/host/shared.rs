//! What a controller's queue pairs on all reactors know of it.
//!
//! Invariant: the epoch only rises. Even: the controller is connected, with the parameters of that epoch. Odd: it is
//! not, and the controller's task works on it. [`GIVEN_UP`]: it never will be again. Whoever sees a queue fail moves
//! the epoch on; everybody else notices by comparing.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The epoch of a controller that was shut down or given up.
pub(super) const GIVEN_UP: u64 = u64::MAX;

/// What a queue needs to know to connect.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parameters {
    pub(super) cntlid: u16,
    /// Data that an I/O queue's capsules take, bytes.
    pub(super) in_capsule_bytes: u32,
    /// Most entries in a queue.
    pub(super) max_entries: u32,
    /// I/O queues granted.
    pub(super) queues: u16,
    /// MDTS in bytes; none is unlimited.
    pub(super) max_transfer_bytes: Option<u64>,
}

/// One controller, as seen from any thread.
#[derive(Debug, Default)]
pub(super) struct Shared {
    epoch: AtomicU64,
    /// It is about to be shut down: queue pairs end as soon as they have no commands.
    ending: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    parameters: Parameters,
    /// Queue identifiers in use: index 0 is identifier 1.
    taken: Vec<bool>,
    /// The controller may still have commands of the connection that was lost last.
    silent: bool,
}

impl Shared {
    /// A connected controller.
    pub(super) fn new(parameters: Parameters) -> Self {
        Self { inner: Mutex::new(Inner { parameters, ..Inner::default() }), ..Self::default() }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// A queue of this epoch failed. `silent`: as far as we know the controller has not let go of it.
    pub(super) fn fail(&self, epoch: u64, silent: bool) {
        if !epoch.is_multiple_of(2) {
            return;
        }
        // Under the lock, so that whoever sees the new epoch reads its cause.
        self.with(|inner| {
            let moved = self.epoch.compare_exchange(epoch, epoch + 1, Ordering::AcqRel, Ordering::Acquire);
            // Else somebody was first, and knows the cause.
            if moved.is_ok() {
                inner.silent = silent;
            }
        });
    }

    /// Whether the controller may still have commands of the connection that was lost last.
    pub(super) fn lost_silently(&self) -> bool {
        self.with(|inner| inner.silent)
    }

    /// The controller is connected again.
    pub(super) fn restore(&self, parameters: Parameters) {
        self.with(|inner| inner.parameters = parameters);
        let epoch = self.epoch();
        if epoch != GIVEN_UP && !epoch.is_multiple_of(2) {
            let _ = self.epoch.compare_exchange(epoch, epoch + 1, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// From now on queue pairs end as soon as they have no commands, and no more are opened.
    pub(super) fn begin_to_end(&self) {
        self.ending.store(true, Ordering::Release);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Whether there are queue pairs that have not ended.
    pub(super) fn has_queues(&self) -> bool {
        self.with(|inner| inner.taken.contains(&true))
    }

    /// The controller will not be connected again.
    pub(super) fn give_up(&self) {
        self.with(|inner| {
            let epoch = self.epoch.swap(GIVEN_UP, Ordering::AcqRel);
            // Left rather than lost: it goes on with what it has.
            inner.silent |= epoch != GIVEN_UP && epoch.is_multiple_of(2);
        });
    }

    pub(super) fn parameters(&self) -> Parameters {
        self.with(|inner| inner.parameters)
    }

    /// Takes a free queue identifier among those granted.
    pub(super) fn take_queue_id(&self) -> Option<u16> {
        self.with(|inner| {
            let granted = usize::from(inner.parameters.queues);
            let index = (0..granted).find(|index| !inner.taken.get(*index).copied().unwrap_or(false))?;
            if inner.taken.len() <= index {
                inner.taken.resize(index + 1, false);
            }
            inner.taken[index] = true;
            Some(index as u16 + 1)
        })
    }

    pub(super) fn release_queue_id(&self, qid: u16) {
        self.with(|inner| {
            if let Some(taken) = inner.taken.get_mut(usize::from(qid).wrapping_sub(1)) {
                *taken = false;
            }
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        // Nothing panics while it holds the lock; if something did, the plain data is still usable.
        change(&mut self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
