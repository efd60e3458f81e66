//! NVMe itself: commands, completions, status codes, controller properties, Identify and log-page data structures,
//! features and the Fabrics command set, as layouts that are checked when compiled; and the driver of PCIe
//! controllers in user space, which stands on a [`function`] that [`pci`] opens.
//!
//! Sources are the NVM Express Base Specification 2.0 and 2.1 ("Base"), the NVM Command Set Specification 1.0
//! and 1.1 ("NVM") and the NVMe/TCP Transport Specification 1.0 and 1.1 ("TCP"); every type names its section.
//! Section numbers are those of Base 2.0 and NVM 1.0 unless said otherwise.
//!
//! Invariant: every struct with `repr(C)` here is exactly the bytes of the wire, little-endian and without padding;
//! any byte pattern of the right length is a valid value, so nothing here can panic on bytes from outside.
//! The target and host sides of `sledge-nvmf` and the block devices are the callers.

#![deny(unsafe_code)]

mod wire;

pub mod async_event;
pub mod command;
pub mod completion;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod driver;
pub mod fabrics;
pub mod feature;
pub mod function;
pub mod identify;
pub mod io;
pub mod log_page;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod opcode;
pub mod pci;
pub mod property;
pub mod sgl;
pub mod status;

pub use command::Command;
pub use completion::Completion;
pub use status::Status;
