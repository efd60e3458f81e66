//! Why something asked of a controller failed.
//!
//! Owns [`DriverError`]. Invariant: each says what was tried, and where a person can do something, what.

use std::io;
use std::time::Duration;

use sledge_reactor::message::ReactorGone;

use super::lifecycle::State;
use crate::function::DmaError;
use crate::status::Status;

/// Why something asked of a controller failed.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No memory for queues or data.
    #[error(transparent)]
    Dma(#[from] DmaError),
    /// The kernel refused something of the PCI function.
    #[error("{what} failed: {source}")]
    Function {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An option, or a command of the caller's, has an impossible value.
    #[error("{0}")]
    Option(String),
    /// The controller can't be driven.
    #[error("the controller {0}, which is not supported")]
    Unsupported(String),
    /// CSTS.RDY or CSTS.SHST did not change in the time that the controller claims.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// CSTS.CFS is set.
    #[error("the controller is in its fatal state (CSTS.CFS)")]
    Fatal,
    /// A command ended with a status other than success.
    #[error("{what} failed: {status}")]
    Command {
        /// Which.
        what: &'static str,
        /// How.
        status: Status,
    },
    /// The answer makes no sense.
    #[error("{what}: {problem}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The device is gone.
    #[error("the device was removed")]
    Removed,
    /// The controller was given up.
    #[error("the controller has failed: {0}")]
    Failed(String),
    /// It was detached, or is being detached.
    #[error("the controller is detached")]
    Detached,
    /// It is being brought up or reset; try again.
    #[error("the controller is not ready: it is {0}")]
    NotReady(State),
    /// The command was outstanding when the controller was reset.
    #[error("the controller was reset meanwhile")]
    Reset,
    /// As many admin commands as the queue takes are outstanding, or there are as many channels as a reactor takes.
    #[error("there are too many admin commands or channels; try again later")]
    QueueFull,
    /// There is no such namespace.
    #[error("the controller has no active namespace {nsid}")]
    NoNamespace {
        /// Which.
        nsid: u32,
    },
    /// The namespace can't be used.
    #[error("namespace {nsid} can't be used: {reason}")]
    NamespaceRefused {
        /// Which.
        nsid: u32,
        /// Why, and what would help.
        reason: String,
    },
    /// The current reactor is none of those that the controller was attached to.
    #[error("reactor {0} has no queue of this controller")]
    ForeignReactor(u32),
    /// Another controller came in place of the one that was removed.
    #[error("the controller is another one: serial number {found}, not {expected}")]
    AnotherController {
        /// Serial number and model of the one that was there.
        expected: String,
        /// Of the one that is there now.
        found: String,
    },
    /// A reactor ended meanwhile.
    #[error("a reactor that this needs has ended")]
    Reactor,
}

impl From<ReactorGone> for DriverError {
    fn from(_: ReactorGone) -> Self {
        Self::Reactor
    }
}
