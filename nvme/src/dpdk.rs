//! The driver's environment on DPDK: memory, device addresses and VFIO of its environment abstraction layer (EAL), so
//! that the target shares hugepages and device binding with what else of DPDK runs on the machine.
//!
//! Owns the EAL, which starts at most once a process: by [`start`], or when the first device is opened. Invariant: what
//! the EAL does to the thread that starts it (its affinity above all) happens to a thread made for that. Nothing here
//! makes our threads known to the EAL: only functions are called that any thread may call. Called by
//! [`pci`](crate::pci), which opens devices, and by a process at its start that has its pools' memory from here.
//!
//! The EAL's own PCI bus is left alone (`--no-pci`): its drivers are for network cards, and it would take hold of every
//! device that is bound. Devices are opened through the EAL's VFIO container, so its memory is mapped for them by the
//! EAL itself, whenever it grows or shrinks.

mod arguments;
pub(crate) mod container;
mod eal;
mod memory;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use eal::{Eal, EalError, IovaMode, start};
pub use memory::{provide_pools, start_with_pools};

pub(crate) use container::Opened;
pub(crate) use memory::{Block, Pages};
