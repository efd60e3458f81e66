//! The driver of PCIe controllers in user space: brings them up, moves blocks by one queue pair a reactor, watches them,
//! and brings them back.
//!
//! Owns nothing itself. The control path ([`Controller`]) runs on one reactor, the controller's owner: a pure state
//! machine ([`State`] and its events) decides, a task there carries out. The data path is one I/O queue on each
//! reactor, which no other touches. Invariant: memory that the controller may reach is given back only after the
//! controller can't do DMA any more, and each command that was taken is answered exactly once, whatever becomes of the
//! controller. `docs/nvme-driver.md` has the state machine, the timeouts and the memory rules.

mod admin;
mod admin_memory;
mod bring_up;
mod channel;
mod command_id;
mod controller;
mod data_pointer;
mod engine;
mod error;
mod escalation;
mod events;
pub mod io_queue;
mod keeper;
mod launch;
mod leak;
mod ledger;
mod lender;
mod lending;
mod lifecycle;
mod namespaces;
mod options;
mod overdue;
mod passthrough;
pub mod queue_pair;
mod queues;
mod reach;
mod request;
pub mod shadow;
pub mod shape;
mod slab;
mod slots;
mod split;
mod statistics;
mod wait;
mod watch;

pub use admin::AdminBuffer;
pub use channel::NamespaceChannel;
pub use controller::{Controller, ControllerIdentity};
pub use error::DriverError;
pub use events::{ControllerEvent, Listener, SmartWarning};
pub use ledger::{RawCompletion, RawIo};
pub use lender::Lane;
pub use lifecycle::State;
pub use namespaces::{Metadata, NamespaceInfo};
pub use options::ControllerOptions;
pub use queues::QueueReport;
pub use statistics::ControllerStatistics;
