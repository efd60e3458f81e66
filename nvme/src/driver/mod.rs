//! The driver of PCIe controllers in user space: one queue pair a reactor, polled.
//!
//! The control path brings a controller up, watches it and resets it; the data path moves blocks.

pub mod command_id;
pub mod io_queue;
pub mod queue_pair;
pub mod shadow;
