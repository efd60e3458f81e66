//! Tests of the `sledge` command against a real, running target.

#![allow(clippy::unwrap_used)]

mod alone;
mod configuration;
mod hosts;
mod nvme;
mod objects;
mod setup;
mod support;
