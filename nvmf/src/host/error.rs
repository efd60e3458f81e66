//! Why a connection ended, and why something asked of a controller failed.

use crate::pdu::{ProtocolError, Termination};
use sledge_nvme::Status;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// The controller closed the connection.
    #[error("the controller closed the connection")]
    EndOfStream,
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Socket(io::ErrorKind),
    /// The controller violated the protocol; it was told so.
    #[error("the controller violated the protocol: {0}")]
    Protocol(#[from] ProtocolError),
    /// The controller says that we violated the protocol.
    #[error("the controller terminated the connection: {}", termination_words(.0))]
    Terminated(Termination),
    /// A command got no answer in time.
    #[error("a command got no answer in time")]
    CommandTimeout,
    /// The controller has another queue that was lost, or was reset.
    #[error("the controller is reconnecting")]
    ControllerLost,
    /// We closed it.
    #[error("disconnected")]
    Disconnected,
}

impl Loss {
    /// Whether the controller may still hold commands that were sent on the connection: it did not let go of it, as far
    /// as we know.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        match self {
            Loss::EndOfStream | Loss::Terminated(_) => false,
            Loss::Socket(kind) => !matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe),
            Loss::Protocol(_) | Loss::CommandTimeout | Loss::ControllerLost | Loss::Disconnected => true,
        }
    }
}

fn termination_words(request: &Termination) -> String {
    match request.status {
        Some(status) => format!("{status} (information {:#x})", request.information),
        None => format!("reserved reason {:#x} (information {:#x})", request.raw_status, request.information),
    }
}

impl From<io::Error> for Loss {
    fn from(error: io::Error) -> Self {
        Self::Socket(error.kind())
    }
}

/// Why something asked of a controller failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The connection was lost meanwhile.
    #[error("{0}")]
    Lost(#[from] Loss),
    /// No answer.
    #[error("{what} took longer than {limit:?}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        limit: Duration,
    },
    /// The controller does not let this host connect, or not to this subsystem.
    #[error("the controller refused the connection to {subsystem}: {}", refusal_words(.status, .field))]
    Refused {
        /// The subsystem's NQN.
        subsystem: String,
        /// The status of Connect.
        status: Status,
        /// For an invalid parameter: its byte offset.
        field: Option<u16>,
    },
    /// A command of the connection's set-up, or one asked for, failed.
    #[error("{what} failed: {status}")]
    Command {
        /// Which.
        what: &'static str,
        /// How.
        status: Status,
    },
    /// The controller reports Controller Fatal Status.
    #[error("the controller is in its fatal state (CSTS.CFS)")]
    Fatal,
    /// The controller demands what this host does not have.
    #[error("the controller requires {0}, which is not supported")]
    Unsupported(&'static str),
    /// An option has an impossible value.
    #[error("{0}")]
    Option(String),
    /// The answer makes no sense.
    #[error("{what}: {problem}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// As many commands as the queue takes are outstanding.
    #[error("the admin queue is full")]
    QueueFull,
}

fn refusal_words(status: &Status, field: &Option<u16>) -> String {
    match field {
        Some(offset) => format!("{status} (at byte {offset})"),
        None => status.to_string(),
    }
}
