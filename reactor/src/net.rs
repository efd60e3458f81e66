//! TCP with edge-triggered readiness: listeners, streams, and sets of ready streams.
//!
//! Owns the readiness state between the backend, which reports edges, and those who wait for them. Invariant:
//! an edge is latched until a read or write finds that it would block, so nobody who reads or writes until
//! `None` before waiting misses one. Called by the transport.

mod listener;
mod ready_set;
mod stream;

pub use listener::{Accept, TcpListener};
pub use ready_set::ReadySet;
pub use stream::{DetachedStream, Ready, TcpStream};
