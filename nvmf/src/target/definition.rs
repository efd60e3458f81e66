//! What a target is to serve, as one immutable value: subsystems, namespaces, listeners, hosts.
//!
//! The management side builds a new [`TargetDefinition`] for every change and hands it to each reactor,
//! which keeps the `Arc` and compares it with the one before. Invariant: a definition never changes once a
//! reactor has seen it, so the data path reads it without locks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use sledge_nvme::io::{Channel, Geometry};

use super::statistics::SubsystemStatistics;

pub use sledge_nvme::fabrics::DISCOVERY_NQN;
pub use sledge_nvme::log_page::AnaState;

/// Opens this namespace's channel on the current reactor; called once per reactor.
pub type OpenChannel = Arc<dyn Fn() -> Result<Box<dyn Channel>, String> + Send + Sync>;

/// Everything that one target serves.
#[derive(Clone, Debug, Default)]
pub struct TargetDefinition {
    /// Counts changes; reported as the discovery log's GENCTR.
    pub generation: u64,
    /// Transport limits that new connections get.
    pub transport: TransportOptions,
    /// By NQN. The discovery subsystem is always there and not listed.
    pub subsystems: BTreeMap<String, Arc<SubsystemDefinition>>,
    /// Addresses that serve discovery only, besides every subsystem's listeners.
    pub discovery_listeners: Vec<SocketAddr>,
    /// Discovery services elsewhere that the discovery log refers to.
    pub referrals: Vec<Referral>,
}

/// A discovery service elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referral {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its NQN, usually the well-known one.
    pub nqn: String,
}

/// One NVM subsystem.
#[derive(Clone, Debug)]
pub struct SubsystemDefinition {
    /// NVMe Qualified Name, at most 223 bytes.
    pub nqn: String,
    /// Serial number, at most 20 ASCII bytes.
    pub serial_number: String,
    /// Model number, at most 40 ASCII bytes.
    pub model_number: String,
    /// Whether hosts that are not listed may connect.
    pub allow_any_host: bool,
    /// NQNs of hosts that may connect.
    pub hosts: BTreeSet<String>,
    /// By namespace identifier.
    pub namespaces: BTreeMap<u32, NamespaceDefinition>,
    /// Largest namespace identifier that may be used (Identify Controller NN).
    pub max_namespaces: u32,
    /// Where the subsystem is reachable, with the ANA state there.
    pub listeners: Vec<ListenerDefinition>,
    /// Whether ANA is reported to hosts.
    pub ana_reporting: bool,
    /// Controller identifiers that may be given out, both ends included.
    pub controller_ids: (u16, u16),
    /// Counters that all reactors add to, each in its own cache line.
    pub statistics: Arc<SubsystemStatistics>,
}

/// One way to reach a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerDefinition {
    /// The socket address that is listened on.
    pub address: SocketAddr,
    /// ANA state that controllers made through this listener report, per group; groups not listed are optimized.
    pub ana_states: BTreeMap<u32, AnaState>,
}

/// One namespace and the way to its storage.
#[derive(Clone)]
pub struct NamespaceDefinition {
    /// Namespace identifier, from 1.
    pub nsid: u32,
    /// Unique for each time a namespace is added, so that a namespace that was removed and added again under
    /// the same identifier is not taken for the old one.
    pub instance: u64,
    /// Differs each time the device is to be opened anew under a namespace that stays the same, as when it has grown:
    /// commands that are on their way then go to the device as it is now.
    pub opening: u64,
    /// Name of the block device behind it, for people.
    pub device_name: String,
    /// Size and block format.
    pub geometry: Geometry,
    /// Namespace UUID.
    pub uuid: [u8; 16],
    /// Namespace Globally Unique Identifier; zeros when there is none.
    pub nguid: [u8; 16],
    /// IEEE Extended Unique Identifier; zeros when there is none.
    pub eui64: [u8; 8],
    /// ANA group identifier, from 1.
    pub ana_group: u32,
    /// Whether the device can lose acknowledged writes at a power cut before a Flush.
    pub volatile_write_cache: bool,
    /// Whether Dataset Management (deallocate) and Write Zeroes are offered.
    pub deallocates: bool,
    /// Whether deallocated blocks read as zeroes (else as anything), as Identify Namespace's DLFEAT tells hosts.
    pub deallocated_reads_zeroes: bool,
    /// Opens the device on a reactor.
    pub open_channel: OpenChannel,
}

impl fmt::Debug for NamespaceDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamespaceDefinition")
            .field("nsid", &self.nsid)
            .field("instance", &self.instance)
            .field("device_name", &self.device_name)
            .finish_non_exhaustive()
    }
}

/// Limits of the TCP transport, in the words of SPDK's `nvmf_create_transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportOptions {
    /// Most I/O queues per controller.
    pub max_io_queues_per_controller: u16,
    /// Most entries of one queue.
    pub max_queue_depth: u16,
    /// Most bytes of one transfer; a power of two of 4 KiB pages (reported as MDTS).
    pub max_io_bytes: u32,
    /// Most bytes of data in a command capsule.
    pub in_capsule_data_bytes: u32,
    /// Largest H2CData PDU payload that hosts may send (MAXH2CDATA).
    pub max_h2c_data_bytes: u32,
    /// Commands a host may have outstanding for asynchronous events.
    pub max_async_events: u8,
    /// Whether the SUCCESS flag may replace a response capsule.
    pub c2h_success: bool,
    /// Most connections on one reactor.
    pub max_connections_per_reactor: u32,
    /// Milliseconds a connection may take from accept to a finished Connect command.
    pub connect_timeout_ms: u64,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            max_io_queues_per_controller: 127,
            max_queue_depth: 128,
            max_io_bytes: 128 * 1024,
            in_capsule_data_bytes: 8192,
            max_h2c_data_bytes: 128 * 1024,
            max_async_events: 4,
            c2h_success: true,
            max_connections_per_reactor: 16 * 1024,
            connect_timeout_ms: 10_000,
        }
    }
}

impl SubsystemDefinition {
    /// Whether `host_nqn` may connect.
    #[must_use]
    pub fn allows_host(&self, host_nqn: &str) -> bool {
        self.allow_any_host || self.hosts.contains(host_nqn)
    }

    /// The ANA state of `group` for controllers that came in through `listener`.
    #[must_use]
    pub fn ana_state(&self, listener: SocketAddr, group: u32) -> AnaState {
        self.listeners
            .iter()
            .find(|candidate| candidate.address == listener)
            .and_then(|found| found.ana_states.get(&group).copied())
            .unwrap_or_default()
    }
}
