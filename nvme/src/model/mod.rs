//! A model of an NVMe controller, in memory: what the driver's tests run against on any machine.
//!
//! Owns the controller behind the [`Function`](crate::function::Function) that [`Model`] is. Invariant: it does what
//! the NVM Express specifications ask of a controller of PCIe, and nothing that they forbid, until a control tells it
//! to; whatever the host does against them is recorded ([`Model::violations`], [`Model::faults`]).
//! Tests of the driver, and of what stands on it, make one; it may be used from several threads and in the simulator.

mod admin;
mod controller;
mod controls;
mod data_pointer;
mod events;
mod function;
mod identify;
mod media;
mod nvm;
mod options;
mod protection;
mod queue;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use controls::{ModelStatistics, Predicate};
pub use function::DmaFault;
pub use options::{ModelNamespace, ModelOptions, Readiness};

/// A model controller.
///
/// Commands run when their doorbell is rung, in the thread that rings it, unless [`Model::automatic`] says otherwise.
/// What a test gives to be called (a [`Predicate`]) runs under the model's lock and must not call the model.
pub struct Model {
    address: String,
    register_bytes: usize,
    scattered: bool,
    iommu: Arc<function::Iommu>,
    state: Mutex<controller::State>,
}

impl Model {
    /// Makes one: powered on, and not enabled.
    #[must_use]
    pub fn new(options: ModelOptions) -> Arc<Self> {
        let iommu = Arc::new(function::Iommu::default());
        let doorbells = (usize::from(options.max_io_queues) + 1) * 2 * (4 << options.doorbell_stride);
        let all = (controller::DOORBELLS + doorbells).next_multiple_of(4096);
        Arc::new(Self {
            address: options.address.clone(),
            register_bytes: options.register_bytes.unwrap_or(all),
            scattered: options.scattered,
            iommu: iommu.clone(),
            state: Mutex::new(controller::State::new(iommu, options)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, controller::State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_register(&self, offset: usize) -> u64 {
        assert!(offset < self.register_bytes, "a register inside");
        self.lock().read(offset)
    }

    fn write_register(&self, offset: usize, value: u32) {
        assert!(offset < self.register_bytes, "a register inside");
        self.lock().write(offset, value);
    }

    fn presence_now(&self) -> crate::function::Presence {
        self.lock().controls.presence
    }

    fn function_reset(&self) -> bool {
        let mut state = self.lock();
        let can = state.options.function_reset && !state.gone;
        if can {
            state.reset();
            state.statistics.function_resets += 1;
        }
        can
    }
}
