//! The timers that end a controller whose host is gone.
//!
//! Owns three of them, of which at most one runs: the Keep Alive Timer of a ready controller (Base 3.9), the
//! two minutes that a discovery controller without a Keep Alive Timeout waits for a command (Base 3.1.2.3), and
//! the two minutes that a controller which is not ready waits to be enabled or disconnected (Base 3.1.3.5).
//!
//! Traffic based: any command that arrives restarts the timer, as CTRATT.TBKAS promises.

use std::time::Duration;

use sledge_reactor::time::Instant;

use super::TerminateReason;

/// Keep Alive Support (KAS): granularity of the timeout in units of 100 ms.
pub(super) const GRANULARITY_100MS: u16 = 10;

/// How long a controller that is not ready, or a discovery controller without a Keep Alive Timeout, is kept.
pub(super) const ASSOCIATION_TIMEOUT: Duration = Duration::from_secs(120);

/// When a controller last heard from its host.
#[derive(Debug)]
pub(super) struct KeepAlive {
    timeout_ms: u32,
    discovery: bool,
    restarted: Instant,
    not_ready_since: Option<Instant>,
}

/// Rounds a timeout in milliseconds up to the granularity that the controller reports.
pub(super) fn round_up(timeout_ms: u32) -> u32 {
    let granularity = u32::from(GRANULARITY_100MS) * 100;
    timeout_ms.div_ceil(granularity).saturating_mul(granularity)
}

impl KeepAlive {
    /// For a controller that was made just now and is not ready yet.
    pub fn new(timeout_ms: u32, discovery: bool, now: Instant) -> Self {
        Self { timeout_ms: round_up(timeout_ms), discovery, restarted: now, not_ready_since: Some(now) }
    }

    /// Milliseconds; 0 when the timer is off.
    pub fn timeout_ms(&self) -> u32 {
        self.timeout_ms
    }

    /// Sets another timeout (0: off) and restarts the timer.
    pub fn set_timeout(&mut self, timeout_ms: u32, now: Instant) {
        self.timeout_ms = round_up(timeout_ms);
        self.restarted = now;
    }

    /// A command has arrived.
    pub fn restart(&mut self, now: Instant) {
        self.restarted = now;
    }

    /// The controller has become ready or stopped being so; the same again changes nothing.
    pub fn set_ready(&mut self, ready: bool, now: Instant) {
        match (ready, self.not_ready_since) {
            (true, Some(_)) => {
                self.not_ready_since = None;
                self.restarted = now;
            }
            (false, None) => self.not_ready_since = Some(now),
            _ => {}
        }
    }

    /// Why the controller has to end now, if it has to.
    pub fn expired(&self, now: Instant) -> Option<TerminateReason> {
        if let Some(since) = self.not_ready_since {
            return (now - since > ASSOCIATION_TIMEOUT).then_some(TerminateReason::AssociationTimeout);
        }
        let silence = now - self.restarted;
        if self.timeout_ms != 0 {
            let timeout = Duration::from_millis(self.timeout_ms.into());
            return (silence > timeout).then_some(TerminateReason::KeepAliveExpired);
        }
        (self.discovery && silence > ASSOCIATION_TIMEOUT).then_some(TerminateReason::DiscoveryIdle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    // Deleting this lets a lost host's controller live on, or a live one's end too early.
    #[test]
    fn silence_for_longer_than_the_timeout_ends_a_ready_controller() {
        let mut timer = KeepAlive::new(4_500, false, at(0));
        assert_eq!(timer.timeout_ms(), 5_000);
        timer.set_ready(true, at(100));
        assert_eq!(timer.expired(at(5_100)), None);
        assert_eq!(timer.expired(at(5_101)), Some(TerminateReason::KeepAliveExpired));
        timer.restart(at(5_000));
        assert_eq!(timer.expired(at(10_000)), None);
        timer.set_timeout(1, at(10_000));
        assert_eq!(timer.timeout_ms(), 1_000);
        assert_eq!(timer.expired(at(11_001)), Some(TerminateReason::KeepAliveExpired));
        timer.set_timeout(0, at(11_001));
        assert_eq!(timer.expired(at(1 << 40)), None);
        assert_eq!(round_up(u32::MAX), u32::MAX);
    }

    // Deleting this lets connections that never enable their controller, or that stay after a shutdown, pile up.
    #[test]
    fn a_controller_that_is_not_ready_is_kept_for_two_minutes() {
        let mut timer = KeepAlive::new(1_000, false, at(0));
        assert_eq!(timer.expired(at(120_000)), None);
        assert_eq!(timer.expired(at(120_001)), Some(TerminateReason::AssociationTimeout));
        timer.set_ready(true, at(120_000));
        timer.set_ready(false, at(120_500));
        timer.set_ready(false, at(200_000));
        assert_eq!(timer.expired(at(240_500)), None);
        assert_eq!(timer.expired(at(240_501)), Some(TerminateReason::AssociationTimeout));
    }

    // Deleting this lets forgotten discovery connections pile up, or persistent ones be cut.
    #[test]
    fn discovery_without_keep_alive_ends_after_two_minutes_of_silence() {
        let mut timer = KeepAlive::new(0, true, at(0));
        timer.set_ready(true, at(0));
        timer.restart(at(60_000));
        assert_eq!(timer.expired(at(180_000)), None);
        assert_eq!(timer.expired(at(180_001)), Some(TerminateReason::DiscoveryIdle));
        timer.set_timeout(300_000, at(180_000));
        assert_eq!(timer.expired(at(480_000)), None);
        let mut nvm = KeepAlive::new(0, false, at(0));
        nvm.set_ready(true, at(0));
        assert_eq!(nvm.expired(at(1 << 40)), None);
    }
}
