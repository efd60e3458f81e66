//! How many calls should end before a sleeping reactor is woken, where threads of the kernel end them one by one.
//!
//! A file system ends each write on a kernel thread of the core that the disk interrupts. A reactor that sleeps on
//! that core until *one* call has ended stops that thread after each of them: two switches between threads for each
//! write. Invariants: never more is wanted than half of what is in flight, nor more than [`MOST`]; waiting in vain
//! halves what is wanted and keeps it from growing for a while. Called by the ring alone.

/// Most calls that are waited for together.
const MOST: usize = 32;
/// Fewer calls in flight are waited for one by one.
const LEAST_IN_FLIGHT: usize = 8;
/// A wait is worth it when one of so many that were wanted ended in it.
const WORTH: usize = 4;
/// Sleeps after one in vain before more is wanted again.
const MEMORY: u32 = 32;

/// Microseconds for which more than one call is waited for. Then one is enough, as it is to a lone call; a socket's
/// traffic or a message waits no longer than that either. Shorter waits are over before the thread got far, and each
/// then costs a timer, too: with 5 µs a disk did less than half of what it does with no such waits at all.
pub(super) const MOST_WAIT_US: u32 = 50;

/// What a sleep has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slept {
    /// Calls that were wanted.
    pub wanted: usize,
    /// Calls that had ended when it was over.
    pub came: usize,
}

/// What one ring has learnt.
#[derive(Debug)]
pub(super) struct Patience {
    wanted: usize,
    /// Sleeps until more may be wanted.
    hold: u32,
}

impl Patience {
    /// Knows nothing: the first sleep ends with the first call.
    pub(super) fn new() -> Patience {
        Patience { wanted: 1, hold: 0 }
    }

    /// How many calls to wait for, of `in_flight`.
    pub(super) fn wanted(&self, in_flight: usize) -> usize {
        if in_flight < LEAST_IN_FLIGHT { 1 } else { self.wanted.min(in_flight / 2) }
    }

    /// Learns from a sleep.
    pub(super) fn learn(&mut self, Slept { wanted, came }: Slept) {
        if came * WORTH < wanted {
            *self = Patience { wanted: (wanted / 2).max(1), hold: MEMORY };
        } else if self.hold > 0 {
            self.hold -= 1;
        } else {
            self.wanted = self.wanted.max(2 * wanted).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a reactor would be woken for each write, or wait for more than is in flight.
    #[test]
    fn as_many_as_come_in_time_are_waited_for() {
        let mut patience = Patience::new();
        assert_eq!(patience.wanted(128), 1);
        for expected in [2, 4, 8, 16, MOST, MOST] {
            let wanted = patience.wanted(128);
            patience.learn(Slept { wanted, came: wanted.div_ceil(WORTH) });
            assert_eq!(patience.wanted(128), expected);
        }
        assert_eq!(patience.wanted(16), 8, "half of what is in flight");
        assert_eq!(patience.wanted(LEAST_IN_FLIGHT - 1), 1, "a lone call");
        patience.learn(Slept { wanted: 8, came: 8 });
        assert_eq!(patience.wanted(128), MOST, "a shallow time does not unteach");
    }

    // Without it a slow disk would make each sleep, and what ends it, wait for nothing.
    #[test]
    fn waiting_in_vain_is_remembered() {
        let mut patience = Patience { wanted: 16, hold: 0 };
        patience.learn(Slept { wanted: 16, came: 3 });
        for _ in 0..=MEMORY {
            assert_eq!(patience.wanted(128), 8);
            patience.learn(Slept { wanted: 8, came: 8 });
        }
        assert_eq!(patience.wanted(128), 16);
        for _ in 0..10 {
            patience.learn(Slept { wanted: patience.wanted(128), came: 0 });
        }
        assert_eq!(patience.wanted(128), 1);
    }
}
