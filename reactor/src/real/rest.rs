//! How a reactor falls asleep without missing a wake.
//!
//! One word says what the reactor does. Senders first make their message visible and then call
//! [`Rest::notify`]; the reactor calls [`Rest::begin_turn`] and then looks for messages, and calls
//! [`Rest::try_sleep`] when it found nothing.
//!
//! Why no wake is lost: all changes of the word are read-modify-write operations, so they have one order.
//! * `notify` after the reactor's `begin_turn`: the word is `NOTIFIED`, so `try_sleep`, which only goes from
//!   `AWAKE` to `ASLEEP`, refuses, and another turn looks again. If the reactor was `ASLEEP` already, `notify`
//!   sees that in the swap and writes the event that ends the kernel's wait.
//! * `notify` before `begin_turn`: the swap there reads what `notify` wrote (acquire, release), so the look for
//!   messages that follows sees the message.
//! * `notify` that does not write because it reads `NOTIFIED`: both sides have a sequentially consistent fence
//!   between their own write and their look at the other's (a store-buffer, or Dekker, pattern), so either it
//!   sees the reactor's `AWAKE`, or the reactor sees its message.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering, fence};

const AWAKE: u32 = 0;
const NOTIFIED: u32 = 1;
const ASLEEP: u32 = 2;

/// Whether a reactor runs, must take another turn, or sleeps.
#[derive(Debug)]
pub(crate) struct Rest {
    word: AtomicU32,
}

impl Rest {
    /// A reactor that runs.
    pub(crate) fn new() -> Rest {
        Rest { word: AtomicU32::new(AWAKE) }
    }

    /// Called by a sender after its message is visible. True: the reactor sleeps, and the caller, and nobody
    /// else, must end the kernel's wait.
    #[must_use = "true obliges the caller to end the kernel's wait"]
    pub(crate) fn notify(&self) -> bool {
        fence(Ordering::SeqCst);
        if self.word.load(Ordering::Relaxed) == NOTIFIED {
            return false;
        }
        self.word.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP
    }

    /// Called by the reactor before it looks for messages.
    pub(crate) fn begin_turn(&self) {
        // A notification that comes after this look stays for `try_sleep` to find.
        if self.word.load(Ordering::Relaxed) != AWAKE {
            self.word.swap(AWAKE, Ordering::AcqRel);
            fence(Ordering::SeqCst);
        }
    }

    /// Called by the reactor when a turn found nothing. True: it may wait in the kernel; whoever notifies from
    /// now on ends that wait.
    pub(crate) fn try_sleep(&self) -> bool {
        self.word.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicBool;

    // Without it a reordering in the protocol could leave a message with a sleeping reactor; loom tries every
    // order of two senders and the reactor.
    #[test]
    fn no_wake_is_lost() {
        let mut builder = loom::model::Builder::new();
        // Every order with up to 3 preemptions; without a bound it takes most of a minute and finds no more.
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let rest = Arc::new(Rest::new());
            let messages = [Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false))];
            let event = Arc::new(AtomicBool::new(false));
            let senders = messages.clone().map(|message| {
                let (rest, event) = (rest.clone(), event.clone());
                loom::thread::spawn(move || {
                    message.store(true, Ordering::Relaxed);
                    if rest.notify() {
                        event.store(true, Ordering::Release);
                    }
                })
            });
            let mut seen = [false; 2];
            // Two turns at most, each with one attempt to sleep.
            let mut asleep = false;
            for _ in 0..2 {
                rest.begin_turn();
                for (seen, message) in seen.iter_mut().zip(&messages) {
                    *seen |= message.load(Ordering::Relaxed);
                }
                if rest.try_sleep() {
                    asleep = true;
                    break;
                }
            }
            for sender in senders {
                sender.join().expect("senders don't panic");
            }
            // Asleep with a message unseen is right only when the kernel's wait was ended.
            if asleep && seen != [true; 2] {
                assert!(event.load(Ordering::Acquire), "asleep with {seen:?} and no event");
            }
        });
    }
}
