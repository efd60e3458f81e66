//! What the management side asks for: the parameters of `bdev_nvme_set_options` and `bdev_nvme_attach_controller` that
//! mean something here, with their defaults.

use std::net::SocketAddr;
use std::time::Duration;

use sledge_nvme::fabrics::Nqn;
use uuid::Uuid;

/// What holds for all controllers that are attached from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvmeOptions {
    /// A command that takes longer has failed: its connection is given up, or the drive's escalation begins.
    pub timeout: Duration,
    /// The same for admin commands.
    pub admin_timeout: Duration,
    /// What a command that takes too long leads to, on drives.
    pub action_on_timeout: TimeoutAction,
    /// Keep Alive Timeout; zero switches it off.
    pub keep_alive: Duration,
    /// How often a command is repeated after a status that says that it may succeed later; none is without limit.
    pub retry_count: Option<u32>,
    /// Most commands outstanding on one queue pair.
    pub queue_depth: u16,
    /// How often a drive's admin queue is looked at while nothing is expected of it.
    pub admin_poll_period: Duration,
    /// How long a step of connecting may take.
    pub connect_timeout: Duration,
    /// What becomes of a controller whose connection is lost.
    pub reconnect: ReconnectPolicy,
    /// How a device with several paths uses them at first.
    pub policy: PathPolicy,
    /// Whether I/O returns to the preferred path, or the first, when that is back.
    pub failback: bool,
    /// How drives are reached when their attach does not say: `vfio`, `uio_pci_generic`, `vfio-noiommu`, `dpdk`.
    pub environment: String,
}

impl Default for NvmeOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            admin_timeout: Duration::from_secs(60),
            action_on_timeout: TimeoutAction::Abort,
            keep_alive: Duration::from_secs(10),
            retry_count: Some(3),
            queue_depth: 128,
            admin_poll_period: Duration::from_millis(10),
            connect_timeout: Duration::from_secs(5),
            reconnect: ReconnectPolicy::default(),
            policy: PathPolicy::default(),
            failback: true,
            environment: "vfio".to_owned(),
        }
    }
}

impl NvmeOptions {
    /// How long a controller that lost touch may hold on to a command: it ends its connections when nothing was heard for
    /// its Keep Alive Timeout. One that has none does not say.
    pub(crate) fn quiesce(&self) -> Duration {
        if self.keep_alive.is_zero() { Self::default().keep_alive } else { self.keep_alive }
    }
}

/// What a command that takes too long leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeoutAction {
    /// A line in the log.
    None,
    /// A reset of the controller.
    Reset,
    /// Abort first, then more.
    Abort,
}

/// What becomes of a controller whose connection is lost, and of its I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectPolicy {
    /// After so long without connection there are no more attempts; none is never.
    pub loss_timeout: Option<Duration>,
    /// Pause between attempts.
    pub delay: Duration,
    /// I/O waits so long for a path, then fails with a status that hosts retry; none waits until the controller is
    /// given up. From then on I/O fails at once, until a path is back.
    pub fast_fail: Option<Duration>,
}

impl Default for ReconnectPolicy {
    /// Attempts for ever, every two seconds. I/O waits for 20 s: Linux hosts give a command 30.
    fn default() -> Self {
        Self { loss_timeout: None, delay: Duration::from_secs(2), fast_fail: Some(Duration::from_secs(20)) }
    }
}

/// How a device with several paths uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PathPolicy {
    /// Over one path or over all that are equally good.
    pub mode: PathMode,
    /// With several: which is next.
    pub selector: PathSelector,
    /// With [`PathSelector::RoundRobin`]: I/Os on a path before the next one's turn; 0 counts as 1.
    pub min_io: u32,
}

/// Over one path or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PathMode {
    /// One path at a time.
    #[default]
    ActivePassive,
    /// All paths of the best ANA state.
    ActiveActive,
}

impl PathMode {
    /// Its name in the management interface.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            PathMode::ActivePassive => "active_passive",
            PathMode::ActiveActive => "active_active",
        }
    }
}

/// Which of several equally good paths is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PathSelector {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest commands outstanding.
    QueueDepth,
}

impl PathSelector {
    /// Its name in the management interface.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            PathSelector::RoundRobin => "round_robin",
            PathSelector::QueueDepth => "queue_depth",
        }
    }
}

/// What a second path under a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Multipath {
    /// It is refused.
    Disable,
    /// It is used when the first is lost.
    Failover,
    /// It is used by the device's policy.
    #[default]
    Multipath,
}

impl Multipath {
    /// Its name in the management interface.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Multipath::Disable => "disable",
            Multipath::Failover => "failover",
            Multipath::Multipath => "multipath",
        }
    }
}

/// Where a controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over NVMe/TCP.
    Tcp {
        /// Where it listens.
        address: SocketAddr,
        /// Its subsystem.
        subsystem: Nqn,
    },
    /// A drive of this machine.
    Pcie {
        /// PCI address, as `0000:04:00.0`.
        address: String,
        /// How it is reached.
        environment: String,
    },
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Transport::Tcp { address, subsystem } => write!(f, "{} at {address}", subsystem.as_str()),
            Transport::Pcie { address, .. } => write!(f, "the drive {address}"),
        }
    }
}

/// One path to attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachOptions {
    /// The controller's name; its devices are this and `n` and their namespace identifiers.
    pub name: String,
    /// Where it is.
    pub transport: Transport,
    /// Host NQN; this process's own when not given.
    pub host: Option<Nqn>,
    /// Header digests.
    pub header_digest: bool,
    /// Data digests.
    pub data_digest: bool,
    /// What a path more under this name means.
    pub multipath: Multipath,
    /// I/O queue pairs to ask for; the controller may grant fewer.
    pub io_queues: u16,
    /// What becomes of it when its connection is lost.
    pub reconnect: ReconnectPolicy,
    /// How its devices use several paths at first.
    pub policy: PathPolicy,
}

/// I/O queue pairs that are asked for: each channel of each device takes one.
pub const IO_QUEUES: u16 = 1024;

impl AttachOptions {
    /// A path with everything else as usual.
    #[must_use]
    pub fn new(name: impl Into<String>, transport: Transport) -> Self {
        Self {
            name: name.into(),
            transport,
            host: None,
            header_digest: false,
            data_digest: false,
            multipath: Multipath::default(),
            io_queues: IO_QUEUES,
            reconnect: ReconnectPolicy::default(),
            policy: PathPolicy::default(),
        }
    }
}

/// A host NQN in the UUID form.
pub(crate) fn host_nqn(uuid: Uuid) -> Option<Nqn> {
    Nqn::new(&format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}")).ok()
}
