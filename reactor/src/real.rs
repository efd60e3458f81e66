//! The real world: the kernel's clock, sockets and disks, for reactors on threads of their own.
//!
//! Owns all system calls of this crate but the mapping of memory. Only the reactors' threads and
//! [`Disk::open`](crate::disk::Disk::open) call it.

mod backend;
mod engine;
mod file;
mod patience;
mod poll;
mod registered;
mod rest;
mod ring;
mod socket;
mod threads;
mod transfer;
mod wake;

pub(crate) use backend::RealBackend;
pub(crate) use file::{measured_again, open_disk};
pub(crate) use wake::RealWaker;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod engine_tests;
