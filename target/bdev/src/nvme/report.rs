//! What is told about controllers, paths and devices, in the words of SPDK. Serialised as it stands.

use std::collections::BTreeMap;

use serde::Serialize;
use sledge_nvme::identify::capability::oacs;
use sledge_nvme::log_page::AnaState;

use super::controller::Controller;
use super::deferred::Deferred;
use super::device::NvmeDevice;
use super::options::{AttachOptions, Transport};
use super::path::{About, Link, Path, PathState};
use super::route::Route;
use crate::device::BlockDevice;

/// `driver_specific` of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NvmeDescription {
    /// Its paths.
    pub nvme: Vec<PathDescription>,
    /// How it uses them.
    pub mp_policy: &'static str,
    /// How it chooses among several active ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<&'static str>,
    /// With round robin: I/Os in a row on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rr_min_io: Option<u32>,
}

/// A path of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathDescription {
    /// PCI address of a drive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pci_address: Option<String>,
    /// Where it leads.
    pub trid: TransportId,
    /// What the controller says about itself.
    pub ctrlr_data: ControllerDescription,
    /// Its version.
    pub vs: VersionDescription,
    /// The namespace there.
    pub ns_data: NamespaceDescription,
    /// None.
    pub security: SecurityDescription,
}

/// A transport address, as SPDK names its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TransportId {
    /// `TCP` or `PCIe`.
    pub trtype: &'static str,
    /// `IPv4` or `IPv6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adrfam: Option<&'static str>,
    /// IP or PCI address.
    pub traddr: String,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trsvcid: Option<String>,
    /// NQN of the subsystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnqn: Option<String>,
}

impl From<&Transport> for TransportId {
    fn from(transport: &Transport) -> Self {
        match transport {
            Transport::Tcp { address, subsystem } => Self {
                trtype: "TCP",
                adrfam: Some(if address.is_ipv4() { "IPv4" } else { "IPv6" }),
                traddr: address.ip().to_string(),
                trsvcid: Some(address.port().to_string()),
                subnqn: Some(subsystem.as_str().to_owned()),
            },
            Transport::Pcie { address, .. } => {
                Self { trtype: "PCIe", adrfam: None, traddr: address.clone(), trsvcid: None, subnqn: None }
            }
        }
    }
}

/// What a controller says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControllerDescription {
    /// Controller identifier.
    pub cntlid: u16,
    /// PCI vendor, `0x` and hexadecimal digits.
    pub vendor_id: String,
    /// Model number.
    pub model_number: String,
    /// Serial number.
    pub serial_number: String,
    /// Firmware revision.
    pub firmware_revision: String,
    /// NQN of the subsystem.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnqn: String,
    /// Optional admin commands.
    pub oacs: OptionalAdminCommands,
    /// Whether its subsystem can have more controllers.
    pub multi_ctrlr: bool,
    /// Whether it reports ANA.
    pub ana_reporting: bool,
}

/// Optional admin commands, 0 or 1 each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OptionalAdminCommands {
    /// Security Send and Receive.
    pub security: u8,
    /// Format NVM.
    pub format: u8,
    /// Firmware Commit and Image Download.
    pub firmware: u8,
    /// Namespace Management.
    pub ns_manage: u8,
}

impl From<&About> for ControllerDescription {
    fn from(about: &About) -> Self {
        let bit = |bit: u16| u8::from(about.oacs & bit != 0);
        Self {
            cntlid: about.cntlid,
            vendor_id: format!("{:#06x}", about.vendor_id),
            model_number: about.model_number.clone(),
            serial_number: about.serial_number.clone(),
            firmware_revision: about.firmware_revision.clone(),
            subnqn: about.subnqn.clone(),
            oacs: OptionalAdminCommands {
                security: bit(oacs::SECURITY),
                format: bit(oacs::FORMAT),
                firmware: bit(oacs::FIRMWARE),
                ns_manage: bit(oacs::NAMESPACE_MANAGEMENT),
            },
            multi_ctrlr: about.multiple_controllers,
            ana_reporting: about.ana_reporting,
        }
    }
}

/// A controller's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VersionDescription {
    /// As `1.4`.
    pub nvme_version: String,
}

/// A namespace at one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamespaceDescription {
    /// Namespace identifier.
    pub id: u32,
    /// Whether several controllers may have it.
    pub can_share: bool,
    /// ANA state, where it is reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ana_state: Option<&'static str>,
}

/// Security features that are used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecurityDescription {
    /// None.
    pub opal: bool,
}

/// A state in SPDK's words.
const fn ana_word(state: AnaState) -> &'static str {
    match state {
        AnaState::Optimized => "optimized",
        AnaState::NonOptimized => "non_optimized",
        AnaState::Inaccessible => "inaccessible",
        AnaState::PersistentLoss => "persistent_loss",
        AnaState::Change => "change",
    }
}

/// A device's `driver_specific`.
pub(crate) fn describe(device: &NvmeDevice) -> NvmeDescription {
    let policy = device.policy();
    let active = policy.mode == super::options::PathMode::ActiveActive;
    let robin = active && policy.selector == super::options::PathSelector::RoundRobin;
    NvmeDescription {
        nvme: device.routes().iter().map(|route| describe_path(device, route)).collect(),
        mp_policy: policy.mode.word(),
        selector: active.then(|| policy.selector.word()),
        rr_min_io: robin.then(|| policy.min_io.max(1)),
    }
}

fn describe_path(device: &NvmeDevice, route: &Route) -> PathDescription {
    let about = route.path.about();
    let (major, minor) = (about.version >> 16, about.version >> 8 & 0xff);
    let pci_address = match &route.path.options.transport {
        Transport::Pcie { address, .. } => Some(address.clone()),
        Transport::Tcp { .. } => None,
    };
    PathDescription {
        pci_address,
        trid: TransportId::from(&route.path.options.transport),
        ctrlr_data: ControllerDescription::from(&*about),
        vs: VersionDescription { nvme_version: format!("{major}.{minor}") },
        ns_data: NamespaceDescription {
            id: device.nsid(),
            can_share: device.is_shared(),
            ana_state: about.ana_reporting.then(|| ana_word(route.ana())),
        },
        security: SecurityDescription { opal: false },
    }
}

/// A row of `bdev_nvme_get_controllers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ControllerReport {
    /// Its name.
    pub name: String,
    /// Its paths.
    pub ctrlrs: Vec<PathReport>,
}

/// A path of a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PathReport {
    /// `enabled`, `reconnecting`, `failed`, `disabled`, `connecting`.
    pub state: &'static str,
    /// Where it leads.
    pub trid: TransportId,
    /// Controller identifier.
    pub cntlid: u16,
    /// Who we are there.
    pub host: HostReport,
    /// How a drive is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Model number.
    pub model_number: String,
    /// Serial number.
    pub serial_number: String,
    /// Firmware revision.
    pub firmware_revision: String,
    /// What happened to a drive since it was attached, counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statistics: Option<BTreeMap<&'static str, u64>>,
}

/// Who a host is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostReport {
    /// Host NQN.
    pub nqn: String,
    /// Empty: chosen by the system.
    pub addr: &'static str,
    /// Empty: chosen by the system.
    pub svcid: &'static str,
}

/// A controller's row.
pub(crate) fn controller(controller: &Controller, deferred: &[Deferred]) -> ControllerReport {
    let mut ctrlrs: Vec<PathReport> = controller.paths().iter().map(|path| path_report(path)).collect();
    let waiting = deferred.iter().filter(|deferred| deferred.options.name == controller.name);
    ctrlrs.extend(waiting.map(|deferred| PathReport {
        state: "connecting",
        trid: TransportId::from(&deferred.options.transport),
        cntlid: 0,
        host: host_report(&deferred.options),
        environment: None,
        model_number: String::new(),
        serial_number: String::new(),
        firmware_revision: String::new(),
        statistics: None,
    }));
    ControllerReport { name: controller.name.clone(), ctrlrs }
}

fn host_report(options: &AttachOptions) -> HostReport {
    let nqn = options.host.as_ref().map_or_else(String::new, |nqn| nqn.as_str().to_owned());
    HostReport { nqn, addr: "", svcid: "" }
}

fn path_report(path: &Path) -> PathReport {
    let about = path.about();
    let environment = match &path.options.transport {
        Transport::Pcie { environment, .. } => Some(environment.clone()),
        Transport::Tcp { .. } => None,
    };
    PathReport {
        state: path.state().word(),
        trid: TransportId::from(&path.options.transport),
        cntlid: about.cntlid,
        host: match &path.link {
            Link::Tcp(link) => HostReport { nqn: link.host.as_str().to_owned(), addr: "", svcid: "" },
            Link::Pcie(_) => host_report(&path.options),
        },
        environment,
        model_number: about.model_number.clone(),
        serial_number: about.serial_number.clone(),
        firmware_revision: about.firmware_revision.clone(),
        statistics: match &path.link {
            Link::Pcie(link) => Some(link.drive.statistics().entries().into_iter().collect()),
            Link::Tcp(_) => None,
        },
    }
}

/// A row of `bdev_nvme_get_io_paths`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IoPathReport {
    /// The device.
    pub bdev_name: String,
    /// Controller identifier.
    pub cntlid: u16,
    /// Whether I/O takes it: its ANA state is the best there is, and the policy wants it.
    pub current: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// Whether I/O may take it.
    pub accessible: bool,
    /// Where it leads.
    pub transport: TransportId,
}

/// The paths of a device.
pub(crate) fn io_paths(device: &NvmeDevice) -> Vec<IoPathReport> {
    let routes = device.routes();
    let best = routes.iter().filter(|route| route.is_up()).map(|route| route.ana().value()).min();
    let passive = device.policy().mode == super::options::PathMode::ActivePassive;
    let preferred = device.preferred();
    let good = |route: &Route| route.is_up() && Some(route.ana().value()) == best;
    let first = routes
        .iter()
        .find(|route| good(route) && Some(route.path.number) == preferred)
        .or_else(|| routes.iter().find(|route| good(route)))
        .map(|route| route.path.number);
    let row = |route: &std::sync::Arc<Route>| IoPathReport {
        bdev_name: device.name().to_owned(),
        cntlid: route.path.about().cntlid,
        current: if passive { Some(route.path.number) == first } else { good(route) },
        connected: route.path.state() == PathState::Live,
        accessible: route.is_up(),
        transport: TransportId::from(&route.path.options.transport),
    };
    routes.iter().map(row).collect()
}

/// What a reactor's queue on a drive counted, in SPDK's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueCounts {
    /// The controller.
    pub name: String,
    /// The reactor.
    #[serde(skip)]
    pub reactor: u32,
    /// Commands put into the submission queue.
    pub submitted_requests: u64,
    /// Completions delivered.
    pub completions: u64,
    /// Writes to the submission queue's doorbell.
    pub sq_mmio_doorbell_updates: u64,
    /// Writes to the completion queue's doorbell.
    pub cq_mmio_doorbell_updates: u64,
    /// Commands that were tried again.
    pub retried_requests: u64,
    /// Completions that came for commands nobody waited for.
    pub late_completions: u64,
    /// Commands that the drive has.
    pub outstanding_requests: usize,
}

/// The counts of a controller's queues on drives.
pub(crate) async fn queue_counts(controller: &Controller) -> Vec<QueueCounts> {
    let mut counts = Vec::new();
    for path in controller.paths() {
        let Link::Pcie(link) = &path.link else { continue };
        counts.extend(link.drive.queues().await.into_iter().map(|report| QueueCounts {
            name: controller.name.clone(),
            reactor: report.reactor,
            submitted_requests: report.counts.queue.submitted,
            completions: report.counts.queue.completed,
            sq_mmio_doorbell_updates: report.counts.queue.submission_doorbells,
            cq_mmio_doorbell_updates: report.counts.queue.completion_doorbells,
            retried_requests: report.counts.retried,
            late_completions: report.counts.queue.late,
            outstanding_requests: report.outstanding,
        }));
    }
    counts
}
