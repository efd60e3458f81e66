//! What a host asks for when it connects.

use super::error::HostError;
use super::slot::MAX_SLOTS;
use crate::pdu::MAX_ALIGNMENT;
use sledge_nvme::fabrics::Nqn;
use std::net::SocketAddr;
use std::time::Duration;

/// Who the host is: both are the same for all of a host's connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// Host NQN.
    pub nqn: Nqn,
    /// Host Identifier.
    pub id: [u8; 16],
}

impl HostIdentity {
    /// The identity that a UUID gives: itself as the identifier, and the NQN in the UUID form (Base 4.5).
    ///
    /// # Errors
    /// None in fact: the name that is made is always valid.
    pub fn from_uuid(uuid: uuid::Uuid) -> Result<Self, HostError> {
        let name = format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}");
        let nqn = Nqn::new(&name).map_err(|error| HostError::Option(format!("host NQN {name}: {error}")))?;
        Ok(Self { nqn, id: *uuid.as_bytes() })
    }

    /// A fresh identity, drawn from the current reactor's random numbers.
    ///
    /// # Errors
    /// As [`HostIdentity::from_uuid`].
    pub fn random() -> Result<Self, HostError> {
        let (high, low) = (sledge_reactor::random_u64(), sledge_reactor::random_u64());
        let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        Self::from_uuid(uuid::Builder::from_random_bytes(bytes).into_uuid())
    }
}

/// What becomes of I/O commands whose connection is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnLoss {
    /// They end with Host Pathing Error, which tells the submitter to retry, on another path if there is one. So do
    /// those submitted until the connection is back.
    #[default]
    Fail,
    /// They are kept and sent again, in their order, when the connection is back. Fused pairs fail. Beware: the
    /// controller may still be executing the first copy of a write when the second arrives, and then overwrite a
    /// newer write of the same blocks. Only for submitters that never write blocks with a write in flight elsewhere.
    Resubmit,
}

/// How to connect to a controller, and how to keep the connection.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Where the controller listens.
    pub address: SocketAddr,
    /// The subsystem.
    pub subsystem: Nqn,
    /// Who asks.
    pub host: HostIdentity,
    /// Keep Alive Timeout; zero switches it off. A Keep Alive goes out in half this time.
    pub keep_alive: Duration,
    /// Ask for header digests.
    pub header_digest: bool,
    /// Ask for data digests.
    pub data_digest: bool,
    /// HPDA: alignment that is wanted for the data of C2HData, 4 * (this + 1) bytes.
    pub data_alignment: u8,
    /// Most commands outstanding on an I/O queue pair; the controller may allow fewer.
    pub queue_depth: u16,
    /// I/O queue pairs to ask for; the controller may grant fewer.
    pub io_queues: u16,
    /// Limit for each step of connecting.
    pub connect_timeout: Duration,
    /// A command that takes longer has lost its connection.
    pub command_timeout: Duration,
    /// Pause before the first attempt to reconnect; it doubles up to `reconnect_delay_max`.
    pub reconnect_delay: Duration,
    /// Longest pause between attempts.
    pub reconnect_delay_max: Duration,
    /// After so long without a connection the controller is given up; none is never.
    pub loss_timeout: Option<Duration>,
    /// What becomes of commands meanwhile.
    pub on_loss: OnLoss,
}

impl ConnectOptions {
    /// Usual values: one I/O queue pair of 128 commands, no digests, 15 s of keep alive, given up after 10 minutes.
    pub fn new(address: SocketAddr, subsystem: Nqn, host: HostIdentity) -> Self {
        Self {
            address,
            subsystem,
            host,
            keep_alive: Duration::from_secs(15),
            header_digest: false,
            data_digest: false,
            data_alignment: 0,
            queue_depth: 128,
            io_queues: 1,
            connect_timeout: Duration::from_secs(10),
            command_timeout: Duration::from_secs(30),
            reconnect_delay: Duration::from_millis(100),
            reconnect_delay_max: Duration::from_secs(5),
            loss_timeout: Some(Duration::from_secs(600)),
            on_loss: OnLoss::Fail,
        }
    }

    /// Checks the values against each other.
    ///
    /// # Errors
    /// [`HostError::Option`] with the value that is wrong.
    pub(super) fn check(&self) -> Result<(), HostError> {
        let problem = if self.data_alignment > MAX_ALIGNMENT {
            format!("a data alignment of {} is over {MAX_ALIGNMENT}", self.data_alignment)
        } else if self.queue_depth == 0 || usize::from(self.queue_depth) >= MAX_SLOTS {
            format!("a queue depth of {} is not in 1 to {}", self.queue_depth, MAX_SLOTS - 1)
        } else if self.keep_alive.as_millis() > u128::from(u32::MAX) {
            format!("a keep alive timeout of {:?} is too long", self.keep_alive)
        } else {
            return Ok(());
        };
        Err(HostError::Option(problem))
    }
}
