//! One path's way to one namespace: in which connection it was found to be what it was, and its ANA state.
//!
//! Invariant: a queue carries I/O only while its connection is the one in which the namespace was verified. Written
//! by the path's watch; read by channels on all reactors, without locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use sledge_nvme::log_page::AnaState;
use sledge_reactor::time::{Instant, now};

use super::path::{Path, PathState};

/// "In no connection."
const NEVER: u64 = u64::MAX;
/// "It is up."
const UP: u64 = u64::MAX;

/// A way to a namespace.
pub(crate) struct Route {
    pub(crate) path: Arc<Path>,
    pub(crate) nsid: u32,
    ana_group: AtomicU32,
    ana: AtomicU8,
    verified: AtomicU64,
    /// Writes took it, on any reactor: what they left in its controller's cache is that one's to flush.
    written: AtomicBool,
    /// Since when it can't be used, in nanoseconds of the reactor's clock.
    down_since: AtomicU64,
}

impl Route {
    /// A route that nobody has looked at yet. Only on a reactor, for its clock.
    pub(crate) fn new(path: Arc<Path>, nsid: u32) -> Self {
        Self {
            path,
            nsid,
            ana_group: AtomicU32::new(0),
            ana: AtomicU8::new(AnaState::Optimized.value()),
            verified: AtomicU64::new(NEVER),
            written: AtomicBool::new(false),
            down_since: AtomicU64::new(now().as_nanos()),
        }
    }

    pub(crate) fn ana_group(&self) -> u32 {
        self.ana_group.load(Ordering::Relaxed)
    }

    pub(crate) fn ana(&self) -> AnaState {
        AnaState::from_value(self.ana.load(Ordering::Acquire)).unwrap_or(AnaState::Inaccessible)
    }

    /// A write takes it.
    #[inline]
    pub(crate) fn note_written(&self) {
        // Read first: all reactors look at it for each write.
        if !self.written.load(Ordering::Relaxed) {
            self.written.store(true, Ordering::Release);
        }
    }

    /// Whether a write ever took it.
    pub(crate) fn was_written(&self) -> bool {
        self.written.load(Ordering::Acquire)
    }

    /// The namespace was found there, the same as before, in connection `incarnation`.
    pub(crate) fn verify(&self, incarnation: u64, ana_group: u32) {
        self.ana_group.store(ana_group, Ordering::Relaxed);
        self.verified.store(incarnation, Ordering::Release);
        self.note();
    }

    /// The namespace is not there, or is another; or the connection is lost.
    pub(crate) fn refuse(&self) {
        self.verified.store(NEVER, Ordering::Release);
        self.note();
    }

    pub(crate) fn set_ana(&self, state: AnaState) {
        self.ana.store(state.value(), Ordering::Release);
        self.note();
    }

    /// Keeps the time since when it is down.
    fn note(&self) {
        let up = self.verified.load(Ordering::Acquire) != NEVER && self.ana().is_accessible();
        if up {
            self.down_since.store(UP, Ordering::Release);
        } else {
            let now = now().as_nanos();
            let _ = self.down_since.compare_exchange(UP, now, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Whether the namespace was verified in a connection.
    pub(crate) fn is_verified(&self, incarnation: u64) -> bool {
        self.verified.load(Ordering::Acquire) == incarnation
    }

    /// Since when it can't be used; none while it can.
    pub(crate) fn down_since(&self) -> Option<Instant> {
        let since = self.down_since.load(Ordering::Acquire);
        (since != UP).then(|| Instant::from_nanos(since))
    }

    /// Whether no time will bring it back by itself.
    pub(crate) fn is_over(&self) -> bool {
        self.path.is_over()
    }

    /// Whether it can be used, as far as the path's watch knows.
    pub(crate) fn is_up(&self) -> bool {
        self.down_since.load(Ordering::Acquire) == UP && self.path.state() == PathState::Live
    }
}
