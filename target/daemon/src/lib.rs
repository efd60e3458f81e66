//! `sledge-target`, the process: configuration, the management socket, start-up and shutdown, and the wiring of
//! block devices into the NVMe/TCP target. Knows every other crate; none knows it.
//!
//! A library beside the binary only so that its parsers can be fuzzed and its parts tested.

pub mod config;
pub mod daemon;
pub mod logging;
pub mod methods;
pub mod model;
pub mod notify;
pub mod nvme_changes;
pub mod options;
pub mod process;
pub mod quick_start;
pub mod rpc;
