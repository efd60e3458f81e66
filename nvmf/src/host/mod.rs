//! The host side of NVMe/TCP: controllers elsewhere, and I/O queue pairs on their namespaces.
//!
//! Owns the connections of a host. Invariant: an I/O that a queue pair accepted ends exactly once, whatever happens to
//! its connection. A [`Controller`] connects, identifies, keeps alive and reconnects; a [`QueuePair`] is a
//! [`Channel`](sledge_nvme::io::Channel) on one namespace, opened on any reactor through a [`QueueConnector`];
//! [`discover`] reads a discovery log. The load generator, the simulator's tests and links between nodes call it.
//!
//! | file | what |
//! |---|---|
//! | `controller`, `establish` | a controller's life: connecting, keeping alive, reconnecting, shutting down |
//! | `queue_pair` | the I/O channel, and what becomes of commands when the connection is lost |
//! | `admin` | admin commands as futures |
//! | `open` | TCP, ICReq, Fabrics Connect for any queue |
//! | `queue`, `queue_io` | one queue's state machine, and its reads and writes |
//! | `slot`, `payload`, `outgoing` | commands in flight, their data, what waits to be sent |
//! | `shared` | what queue pairs on other reactors know of the controller |

mod admin;
mod controller;
mod discovery;
mod error;
mod establish;
mod link;
mod open;
mod options;
mod outgoing;
mod payload;
mod queue;
mod queue_io;
mod queue_pair;
#[cfg(test)]
mod queue_peer;
#[cfg(test)]
mod queue_tests;
mod shared;
mod slot;
mod wait;

pub use admin::{AdminData, AdminReply};
pub use controller::{Controller, ControllerState};
pub use discovery::discover;
pub use error::{HostError, Loss};
pub use establish::ControllerInfo;
pub use options::{ConnectOptions, HostIdentity, OnLoss};
pub use queue_pair::{QueueConnector, QueuePair, QueuePairState};
