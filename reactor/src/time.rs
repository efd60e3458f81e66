//! Time as a reactor sees it: the machine's monotonic clock, or the simulator's.
//!
//! Invariant: within one turn of a reactor, [`now`] does not change. Everything above this crate takes the
//! time from here.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::timer::{TimerKey, Timers};

/// A moment on the current world's monotonic clock, in nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The moment `nanoseconds` after the clock's start.
    pub const fn from_nanos(nanoseconds: u64) -> Instant {
        Instant(nanoseconds)
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since an earlier moment; zero if that lies later.
    pub fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the clock's end, 584 years away.
    fn add(self, after: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, after: Duration) {
        *self = *self + after;
    }
}

impl Sub for Instant {
    type Output = Duration;

    /// Zero when `earlier` lies later.
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_since(earlier)
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the clock's start.
    fn sub(self, before: Duration) -> Instant {
        Instant(self.0.saturating_sub(u64::try_from(before.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// The time at which the current reactor began its turn. Costs nothing.
///
/// # Panics
/// Outside a reactor.
pub fn now() -> Instant {
    crate::core::peek_current(|core| core.now())
}

/// Reads the clock.
///
/// # Panics
/// Outside a reactor.
pub fn precise_now() -> Instant {
    crate::core::with_current(|core| core.backend().clock())
}

/// Completes `duration` from now, never earlier; see [`sleep_until`].
///
/// # Panics
/// Outside a reactor.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(now() + duration)
}

/// Completes at `deadline` or up to one timer tick (about 1 µs) and one turn later. Dropping it cancels it.
///
/// # Panics
/// Outside a reactor.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timers: crate::core::with_current(|core| core.timers().clone()), key: None }
}

/// Future of [`sleep`] and [`sleep_until`].
#[derive(Debug)]
#[must_use = "a sleep does nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    timers: Timers,
    key: Option<TimerKey>,
}

impl Sleep {
    /// When it completes.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Moves the deadline; the sleep can be awaited again even if it had completed.
    pub fn reset(&mut self, deadline: Instant) {
        if let Some(key) = self.key.take() {
            self.timers.cancel(key);
        }
        self.deadline = deadline;
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.key {
            Some(key) => {
                if self.timers.refresh(key, context.waker()) {
                    return Poll::Pending;
                }
                self.key = None;
                Poll::Ready(())
            }
            None => {
                if self.deadline <= now() {
                    return Poll::Ready(());
                }
                self.key = Some(self.timers.insert(self.deadline, context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.cancel(key);
        }
    }
}
