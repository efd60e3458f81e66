//! What a controller tells its users.
//!
//! Owns [`ControllerEvent`] and who listens. Invariant: a listener is called on the owner's reactor, in the order in which
//! things happened, and never while something of the controller is locked; it must not block. The keeper calls.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::log_page::{CriticalWarning, HealthLog};

/// What a controller says of its health (SMART / Health Information log).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmartWarning {
    /// Critical Warning.
    pub critical: CriticalWarning,
    /// Composite Temperature in kelvins; 0 when not known.
    pub temperature_kelvins: u16,
    /// Available Spare in percent.
    pub available_spare: u8,
    /// Percentage Used, 0 to 255.
    pub percentage_used: u8,
}

impl From<&HealthLog> for SmartWarning {
    fn from(log: &HealthLog) -> Self {
        Self {
            critical: CriticalWarning::from_bits(log.critical_warning),
            temperature_kelvins: log.composite_temperature.get(),
            available_spare: log.available_spare,
            percentage_used: log.percentage_used,
        }
    }
}

/// Something that happened to a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerEvent {
    /// Namespaces came, went or changed: [`super::Controller::namespaces`] has the new ones already.
    NamespacesChanged,
    /// The controller warns of its health.
    Health(SmartWarning),
    /// Firmware is being activated; commands may be paused for a while.
    FirmwareActivation,
    /// The controller was reset and takes I/O again.
    Reset,
    /// The controller was given up: all commands fail.
    Failed,
    /// The device was removed, or let go of because the system asked for it: commands wait for its return.
    Removed,
    /// Another function took the removed one's place, and takes I/O.
    Returned,
}

/// One who listens.
pub type Listener = Box<dyn Fn(ControllerEvent) + Send + Sync>;

/// All who listen to one controller.
#[derive(Default)]
pub(super) struct Listeners {
    all: Mutex<Vec<Arc<Listener>>>,
}

impl Listeners {
    pub(super) fn add(&self, listener: Listener) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(listener));
    }

    /// Nobody listens any more.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner));
        drop(all);
    }

    pub(super) fn tell(&self, event: ControllerEvent) {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for listener in all {
            listener(event);
        }
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listeners").finish_non_exhaustive()
    }
}
