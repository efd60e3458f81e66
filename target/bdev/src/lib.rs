//! Block devices: the trait that all have in common, the registry that holds them, and the simple ones.
//!
//! A device is made by the management side ([`null`], [`malloc`], [`uring`], [`nvme`], and [`delay`] and [`error`], which
//! stand on another) and put into a [`Registry`]. Each reactor opens channels on it ([`BlockDevice::open_channel`])
//! and does I/O through them in poll mode, in the terms of [`sledge_nvme::io`]. Invariants that all devices keep:
//! single blocks are never torn and compare-and-write is atomic across reactors (see [`gate`]); every command is
//! answered exactly once, in bounded time as far as the device below answers; no I/O allocates in steady state.

mod command;
pub mod delay;
pub mod device;
pub mod error;
pub mod gate;
pub mod malloc;
pub mod null;
pub mod nvme;
pub mod registry;
mod relay;
mod slab;
pub mod statistics;
pub mod uring;
mod zero;

pub use device::{BlockDevice, Description, DeviceError, DeviceStatistics, OperationStatistics};
pub use registry::{Claim, Registry};
