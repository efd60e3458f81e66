//! The target side: listeners, connections, controllers and the subsystems they serve.
//!
//! [`Target`](target::Target) is what the management side holds; each reactor runs one poll group that owns
//! its connections, its controllers and its channels to the namespaces' devices.

pub mod definition;
pub mod statistics;
