//! Who waits for the pool: commands of one reactor whose data has no buffer yet.
//!
//! Invariant: bounded by the sizes of all queues. A command may be listed that waits no longer, because it or its
//! connection has ended; whoever takes it off the list finds that out. Called by the poll group.

use std::collections::VecDeque;
use std::time::Duration;

use sledge_reactor::memory;
use sledge_reactor::time::Instant;

/// How long a host may keep buffers waiting while others get none.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody must have been refused a buffer for the shortage to be over.
const RELIEF: Duration = Duration::from_secs(1);

/// Commands, as connection and slot, that wait for a buffer for the host's data, oldest first.
#[derive(Debug, Default)]
pub(crate) struct WaitingForBuffers {
    /// Those whose data is in the capsule; each holds up its connection.
    pub in_capsule: VecDeque<(u32, u16)>,
    /// Those that will ask for their data with an R2T.
    pub by_transfer: VecDeque<(u32, u16)>,
}

impl WaitingForBuffers {
    /// The commands whose data comes this way.
    pub fn of(&mut self, by_transfer: bool) -> &mut VecDeque<(u32, u16)> {
        if by_transfer { &mut self.by_transfer } else { &mut self.in_capsule }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.in_capsule.is_empty() && self.by_transfer.is_empty()
    }
}

/// A pool that has run dry, as seen ten times a second.
#[derive(Debug, Default)]
pub(crate) struct Shortage {
    refused: u64,
    /// When it began, and when somebody was last refused.
    lasts: Option<(Instant, Instant)>,
}

impl Shortage {
    /// Looks at the pool. While it has been dry for too long: since when whoever keeps buffers waiting must have done so
    /// to be cut off, so that others get them.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.observe(memory::statistics().refused, now)
    }

    fn observe(&mut self, refused: u64, now: Instant) -> Option<Instant> {
        let began = self.lasts.filter(|(_, last)| now - *last <= RELIEF).map(|(began, _)| began);
        if refused != self.refused {
            self.refused = refused;
            self.lasts = Some((began.unwrap_or(now), now));
        } else if began.is_none() {
            self.lasts = None;
        }
        began.filter(|began| now - *began >= PATIENCE).map(|_| now - PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    // Without this hosts could be cut off for a pool that was dry for a moment, now and then, or never be.
    #[test]
    fn only_a_shortage_that_lasts_counts() {
        let mut shortage = Shortage::default();
        assert_eq!(shortage.observe(0, at(100_000)), None);
        // Refusals with gaps of less than a second are one shortage, longer gaps end it.
        for (number, ms) in
            [(1, 100_000), (2, 100_900), (3, 101_800), (4, 103_000), (5, 103_900), (6, 104_800)]
        {
            assert_eq!(shortage.observe(number, at(ms)), None, "{ms}");
        }
        assert_eq!(shortage.observe(7, at(105_700)), None, "the shortage before was over");
        assert_eq!(shortage.observe(8, at(106_600)), None);
        assert_eq!(shortage.observe(9, at(107_500)), None);
        assert_eq!(shortage.observe(10, at(108_000)), Some(at(103_000)));
        assert_eq!(shortage.observe(10, at(109_100)), None);
        assert_eq!(shortage.observe(10, at(109_200)), None);
    }
}
