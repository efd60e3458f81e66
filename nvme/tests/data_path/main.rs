//! The data path of the driver against a model controller.

#![allow(clippy::unwrap_used, missing_docs)]

mod allocation;
mod faults;
mod io;
mod lending;
mod orders;
mod rig;
