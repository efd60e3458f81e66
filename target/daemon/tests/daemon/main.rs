//! Tests of the real `sledge-target` process, as one program.

#![allow(clippy::unwrap_used)]

mod configuration;
mod drain;
mod process;
mod support;
