//! What an operator may choose about a controller.
//!
//! Owns [`ControllerOptions`] and what values make sense. Invariant: options that [`ControllerOptions::check`] accepts
//! bound every wait of the driver. Whoever attaches a controller makes them.

use std::time::Duration;

use super::error::DriverError;

/// How to drive a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerOptions {
    /// Entries of each I/O submission and completion queue, 2 to 65,536; the controller may allow fewer (CAP.MQES).
    /// One entry stays empty, so that one command less fits.
    pub io_queue_depth: u32,
    /// Most I/O queue pairs, at least 1; there are never more than reactors or than the controller gives.
    pub io_queues: u16,
    /// Age at which an I/O command is overdue and escalation begins: Abort, deleting its queue, resetting the
    /// controller, failing it. Zero: never.
    pub io_timeout: Duration,
    /// How long Abort, and the deletion of a queue, may take before the next step.
    pub abort_timeout: Duration,
    /// How long an admin command may take before the controller is reset; admin commands of users name their own.
    pub admin_timeout: Duration,
    /// Resets in a row without one I/O command completed between them, after which the controller is failed; also
    /// attempts to bring it up after it was reset. At least 1.
    pub max_resets: u32,
    /// Time between attempts to bring a controller up again.
    pub reset_delay: Duration,
    /// Bounds the wait that CAP.TO and CRTO name for CSTS.RDY from above: some controllers claim minutes.
    pub ready_timeout_limit: Duration,
    /// How long commands wait after the device was removed for it to return ([`super::Controller::replace`]), before
    /// they are failed.
    pub removal_timeout: Duration,
    /// How long outstanding I/O may take to finish when the controller is detached.
    pub drain_timeout: Duration,
    /// How long an orderly shutdown (CC.SHN) may take; the controller's RTD3E counts when that is longer.
    pub shutdown_timeout: Duration,
    /// How often an I/O command is tried again after a status that says it may succeed.
    pub retry_count: u32,
    /// Use SGLs where the controller has them and they are shorter than PRP lists.
    pub use_sgls: bool,
    /// Use shadow doorbells where the controller has them (Doorbell Buffer Config).
    pub use_shadow_doorbells: bool,
}

impl Default for ControllerOptions {
    fn default() -> Self {
        Self {
            io_queue_depth: 256,
            io_queues: 64,
            io_timeout: Duration::from_secs(30),
            abort_timeout: Duration::from_secs(5),
            admin_timeout: Duration::from_secs(30),
            max_resets: 3,
            reset_delay: Duration::from_secs(1),
            ready_timeout_limit: Duration::from_secs(120),
            removal_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(10),
            retry_count: 4,
            use_sgls: true,
            use_shadow_doorbells: true,
        }
    }
}

impl ControllerOptions {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// [`DriverError::Option`], naming the first that does not.
    pub fn check(&self) -> Result<(), DriverError> {
        let option = |problem: &str| Err(DriverError::Option(problem.into()));
        if !(2..=65_536).contains(&self.io_queue_depth) {
            return option("io_queue_depth is 2 to 65536");
        }
        if self.io_queues == 0 {
            return option("io_queues is at least 1");
        }
        if self.max_resets == 0 {
            return option("max_resets is at least 1");
        }
        if self.abort_timeout.is_zero() || self.admin_timeout.is_zero() || self.ready_timeout_limit.is_zero()
        {
            return option("abort_timeout, admin_timeout and ready_timeout_limit are longer than nothing");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a queue of one entry, which holds no command, or a wait without end be asked for.
    #[test]
    fn options_without_sense_are_refused() {
        let good = ControllerOptions::default();
        assert!(good.check().is_ok());
        let bad = [
            ControllerOptions { io_queue_depth: 1, ..good.clone() },
            ControllerOptions { io_queue_depth: 65_537, ..good.clone() },
            ControllerOptions { io_queues: 0, ..good.clone() },
            ControllerOptions { max_resets: 0, ..good.clone() },
            ControllerOptions { abort_timeout: Duration::ZERO, ..good.clone() },
            ControllerOptions { admin_timeout: Duration::ZERO, ..good },
        ];
        for options in bad {
            assert!(matches!(options.check(), Err(DriverError::Option(_))), "{options:?}");
        }
    }
}
