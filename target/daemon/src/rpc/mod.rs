//! JSON-RPC 2.0 over a Unix socket: cutting the stream into requests, reading them, calling the method,
//! answering. Knows nothing of what the methods do; [`crate::methods`] has the table.

pub mod error;
pub mod framing;
pub mod message;
mod places;
pub mod server;
pub mod socket;
