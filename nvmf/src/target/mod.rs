//! The target side: listeners, connections, controllers and the subsystems they serve.
//!
//! [`Target`] is what the management side holds; each reactor runs one poll group that owns
//! its connections, its controllers and its channels to the namespaces' devices.

mod acceptor;
mod connection;
pub mod controller;
mod controllers;
pub mod definition;
pub mod discovery;
mod fault;
mod group;
mod namespace_table;
mod reports;
pub mod statistics;
#[expect(clippy::module_inception, reason = "the noun of this file is the target itself")]
mod target;
mod waiting;

pub use definition::*;
pub use fault::Fault;
pub use reports::{ConnectionReport, ControllerReport, QueueTotals};
pub use statistics::SubsystemStatistics;
pub use target::{Target, TargetError};
