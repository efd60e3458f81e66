//! What happened to a controller, counted.
//!
//! Owns [`ControllerStatistics`] and the counters behind it. Invariant: counters only grow, for as long as the
//! controller is attached. The keeper and the escalation count; anybody reads.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Counts of what happened to a controller since it was attached.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct ControllerStatistics {
            $($(#[$doc])* pub $name: u64,)+
        }

        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)+
        }

        impl Counters {
            pub(super) fn read(&self) -> ControllerStatistics {
                ControllerStatistics { $($name: self.$name.get(),)+ }
            }
        }

        impl ControllerStatistics {
            /// Each count with its name.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Times it was brought up.
    brought_up,
    /// Attempts to bring it up that failed.
    bring_up_failures,
    /// Controller resets, whatever the reason.
    resets,
    /// Resets because of Controller Fatal Status.
    fatal_resets,
    /// Resets because commands had no answer.
    timeout_resets,
    /// I/O commands that were overdue.
    overdue,
    /// Abort commands sent.
    aborts,
    /// Abort commands whose answer says that the command was aborted.
    aborted,
    /// I/O queue pairs deleted and made again because of overdue commands.
    queue_deletions,
    /// Times it was given up.
    failures,
    /// Times that bus mastering was turned off because CSTS.RDY stayed 1.
    isolations,
    /// Times that memory was never given back, because the controller might still reach it.
    leaks,
    /// Times that the device was removed.
    removals,
    /// Times that a device took a removed one's place.
    returns,
    /// Admin commands completed.
    admin_commands,
    /// Of these, with a status other than success.
    admin_errors,
    /// Asynchronous events.
    events,
    /// Of these, warnings of health.
    health_warnings,
    /// Times that namespaces were found changed.
    namespace_changes,
}

/// One count.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
