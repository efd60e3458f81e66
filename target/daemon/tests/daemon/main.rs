//! Tests of the real `sledge-target` process, as one program.

#![allow(clippy::unwrap_used)]

mod configuration;
mod death;
mod drain;
mod host;
mod management;
mod nvme;
mod process;
mod resize;
mod support;
