//! `bdev_nvme_*`: controllers that are attached, over NVMe/TCP or PCIe, and their devices.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sledge_bdev::nvme::options::{AttachOptions, Multipath, NvmeOptions, Transport};
use sledge_bdev::nvme::report::QueueCounts;
use sledge_bdev::nvme::{Deferred, NvmeDevice, NvmeError};
use sledge_bdev::{BlockDevice, Registry};
use sledge_nvme::fabrics::Nqn;

use super::bdev::{Nothing, device_error};
use super::bdev_nvme_options::{self as options, MultipathOptions};
use super::framework::in_time;
use super::params::{neutral, no_secret};
use super::wait::wait_for;
use crate::daemon::Daemon;
use crate::model::Draft;
use crate::rpc::error::{RpcError, Step};

/// What a client is told of an error.
pub(super) fn nvme_error(error: NvmeError) -> RpcError {
    let number = error.errno();
    match error {
        NvmeError::Device(error) => device_error(error),
        NvmeError::Parameter { parameter, .. } => {
            RpcError { path: vec![Step::Key(parameter.to_owned())], ..RpcError::invalid_params(&error) }
        }
        NvmeError::NotFound { .. } | NvmeError::NoSuchPath { .. } => {
            RpcError::errno(number, "No such device", &error)
        }
        other => RpcError { code: -i64::from(number), message: other.to_string(), path: Vec::new() },
    }
}

/// A port as text, which is what SPDK takes, or as a number.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Service {
    Text(String),
    Number(u16),
}

impl Service {
    fn port(&self) -> Option<u16> {
        match self {
            Service::Text(text) => text.parse().ok(),
            Service::Number(port) => Some(*port),
        }
        .filter(|port| *port != 0)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attach {
    name: String,
    trtype: String,
    traddr: String,
    adrfam: Option<String>,
    trsvcid: Option<Service>,
    #[serde(rename = "priority")]
    _priority: Option<Value>,
    subnqn: Option<String>,
    hostnqn: Option<String>,
    hostaddr: Option<String>,
    hostsvcid: Option<String>,
    prchk_reftag: Option<bool>,
    prchk_guard: Option<bool>,
    hdgst: Option<bool>,
    ddgst: Option<bool>,
    #[serde(rename = "fabrics_connect_timeout_us", alias = "fabrics_timeout")]
    connect_timeout_us: Option<u64>,
    multipath: Option<Value>,
    num_io_queues: Option<u16>,
    ctrlr_loss_timeout_sec: Option<i64>,
    reconnect_delay_sec: Option<u64>,
    fast_io_fail_timeout_sec: Option<u64>,
    psk: Option<String>,
    #[serde(rename = "max_bdevs")]
    _max_bdevs: Option<u64>,
    dhchap_key: Option<String>,
    dhchap_ctrlr_key: Option<String>,
    allow_unrecognized_csi: Option<bool>,
    multipath_opts: Option<MultipathOptions>,
    #[serde(rename = "disable_sq_flow_control")]
    _disable_sq_flow_control: Option<bool>,
    /// Not in SPDK: how a drive is reached.
    environment: Option<String>,
}

fn multipath_of(value: Option<Value>) -> Result<Multipath, RpcError> {
    match value {
        None => Ok(Multipath::default()),
        // Configurations of older releases.
        Some(Value::Bool(true)) => Ok(Multipath::Multipath),
        Some(Value::Bool(false)) => Ok(Multipath::Disable),
        Some(Value::String(word)) => [Multipath::Disable, Multipath::Failover, Multipath::Multipath]
            .into_iter()
            .find(|known| known.word() == word)
            .ok_or_else(|| {
                let reason = format!("{word:?} is not disable, failover or multipath");
                RpcError::invalid_param("multipath", reason)
            }),
        Some(other) => Err(RpcError::invalid_param("multipath", format!("{other} is not a string"))),
    }
}

fn nqn_of(name: &str, text: &str) -> Result<Nqn, RpcError> {
    Nqn::new(text).map_err(|error| RpcError::invalid_param(name, format!("{text:?}: {error}")))
}

/// Where a controller is, from the parameters that attach and detach have in common.
fn tcp_address(
    traddr: &str,
    adrfam: Option<&str>,
    trsvcid: Option<&Service>,
) -> Result<std::net::SocketAddr, RpcError> {
    let address: IpAddr = traddr.parse().map_err(|_| {
        let reason = format!("{traddr:?} is not an IPv4 or IPv6 address, as 192.0.2.1 or ::1");
        RpcError::invalid_param("traddr", reason)
    })?;
    let port = trsvcid.and_then(Service::port).ok_or_else(|| {
        RpcError::invalid_param("trsvcid", "needs a port number from 1 to 65535 (4420 for NVMe/TCP)")
    })?;
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    if let Some(other) = adrfam.filter(|other| !other.eq_ignore_ascii_case(family)) {
        return Err(RpcError::invalid_param("adrfam", format!("{address} is {family}, not {other}")));
    }
    Ok(std::net::SocketAddr::new(address, port))
}

pub(super) fn attach(draft: &mut Draft, params: Attach) -> Result<Value, RpcError> {
    neutral("prchk_reftag", params.prchk_reftag, false)?;
    neutral("prchk_guard", params.prchk_guard, false)?;
    neutral("hostaddr", params.hostaddr.as_deref(), "")?;
    neutral("hostsvcid", params.hostsvcid.as_deref(), "")?;
    no_secret("psk", params.psk.as_deref())?;
    no_secret("dhchap_key", params.dhchap_key.as_deref())?;
    no_secret("dhchap_ctrlr_key", params.dhchap_ctrlr_key.as_deref())?;
    neutral("allow_unrecognized_csi", params.allow_unrecognized_csi, false)?;
    let mut settings = draft.model.nvme.options.clone();
    if let Some(limit) = params.connect_timeout_us.filter(|limit| *limit != 0) {
        settings.connect_timeout = Duration::from_micros(limit);
    }
    let transport = if params.trtype.eq_ignore_ascii_case("tcp") {
        neutral("environment", params.environment.as_deref(), "")?;
        let subsystem = params.subnqn.as_deref();
        let subsystem = subsystem.ok_or_else(|| RpcError::invalid_param("subnqn", "is needed for TCP"))?;
        Transport::Tcp {
            address: tcp_address(&params.traddr, params.adrfam.as_deref(), params.trsvcid.as_ref())?,
            subsystem: nqn_of("subnqn", subsystem)?,
        }
    } else if params.trtype.eq_ignore_ascii_case("pcie") {
        let environment = params.environment.unwrap_or_else(|| settings.environment.clone());
        Transport::Pcie { address: pci_address(&params.traddr)?, environment }
    } else {
        let reason = format!("{:?} is not TCP or PCIe", params.trtype);
        return Err(RpcError::invalid_param("trtype", reason));
    };
    let mut wanted = AttachOptions::new(params.name, transport);
    wanted.host = params.hostnqn.as_deref().map(|text| nqn_of("hostnqn", text)).transpose()?;
    wanted.header_digest = params.hdgst.unwrap_or(false);
    wanted.data_digest = params.ddgst.unwrap_or(false);
    wanted.multipath = multipath_of(params.multipath)?;
    if let Some(queues) = params.num_io_queues.filter(|queues| *queues != 0) {
        wanted.io_queues = queues;
    }
    wanted.reconnect = options::reconnect(
        &settings.reconnect,
        params.ctrlr_loss_timeout_sec,
        params.reconnect_delay_sec,
        params.fast_io_fail_timeout_sec,
    )?;
    wanted.policy = options::policy(settings.policy, params.multipath_opts.as_ref())?;

    attach_path(draft, wanted, settings)
}

fn attach_path(draft: &mut Draft, wanted: AttachOptions, settings: NvmeOptions) -> Result<Value, RpcError> {
    let controllers = draft.model.nvme.controllers.clone();
    let attached = match wait_for(controllers.attach(wanted.clone(), &settings)) {
        Ok(attached) => attached,
        // Whether another path of its controller works is seen when all of the configuration was read.
        Err(error) if draft.reads_configuration && error.is_unreachable() => {
            controllers.defer(Deferred { options: wanted.clone(), settings, reason: error.to_string() });
            draft.undo_by(move || controllers.forget_deferred(&wanted));
            return Ok(json!([]));
        }
        Err(error) => return Err(nvme_error(error)),
    };
    let (made, names) = (attached.made.clone(), attached.names.clone());
    draft.undo_by(move || controllers.undo_attach(&attached));
    for device in made {
        draft.add_device(device).map_err(device_error)?;
    }
    Ok(json!(names))
}

/// Attaches a path that could not be reached before.
pub(crate) fn attach_deferred(draft: &mut Draft, deferred: Deferred) -> Result<(), RpcError> {
    let controllers = draft.model.nvme.controllers.clone();
    let options = deferred.options.clone();
    attach_path(draft, deferred.options, deferred.settings)?;
    draft.afterwards(move || controllers.forget_deferred(&options));
    Ok(())
}

/// The name of a controller of a configuration that has no path that works, and why.
pub(crate) fn unreached(draft: &Draft) -> Option<(String, RpcError)> {
    let deferred = draft.model.nvme.controllers.unreached()?;
    let reason = format!("{}: {}", deferred.options.transport, deferred.reason);
    Some((deferred.options.name, RpcError::errno(107, "Transport endpoint is not connected", reason)))
}

fn pci_address(text: &str) -> Result<String, RpcError> {
    let address: Result<sledge_nvme::pci::PciAddress, _> = text.parse();
    address
        .map(|address| address.to_string())
        .map_err(|error| RpcError::invalid_param("traddr", format!("{text:?}: {error}")))
}

/// The call that attaches a path again.
pub(crate) fn attach_call(options: &AttachOptions) -> Value {
    let mut params = Map::new();
    let mut put = |name: &str, value: Value| {
        params.insert(name.to_owned(), value);
    };
    put("name", json!(options.name));
    match &options.transport {
        Transport::Tcp { address, subsystem } => {
            put("trtype", json!("TCP"));
            put("adrfam", json!(if address.is_ipv4() { "IPv4" } else { "IPv6" }));
            put("traddr", json!(address.ip().to_string()));
            put("trsvcid", json!(address.port().to_string()));
            put("subnqn", json!(subsystem.as_str()));
            put("hdgst", json!(options.header_digest));
            put("ddgst", json!(options.data_digest));
        }
        Transport::Pcie { address, environment } => {
            put("trtype", json!("PCIe"));
            put("traddr", json!(address));
            put("environment", json!(environment));
        }
    }
    if let Some(host) = &options.host {
        put("hostnqn", json!(host.as_str()));
    }
    put("prchk_reftag", json!(false));
    put("prchk_guard", json!(false));
    put("multipath", json!(options.multipath.word()));
    put("num_io_queues", json!(options.io_queues));
    let policy = options.reconnect;
    let seconds = |limit: Option<Duration>| limit.map(|limit| limit.as_secs());
    put("ctrlr_loss_timeout_sec", seconds(policy.loss_timeout).map_or(json!(-1), |limit| json!(limit)));
    put("reconnect_delay_sec", json!(policy.delay.as_secs()));
    put("fast_io_fail_timeout_sec", json!(seconds(policy.fast_fail).unwrap_or(0)));
    put("multipath_opts", options::policy_json(options.policy));
    json!({"method": "bdev_nvme_attach_controller", "params": params})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Detach {
    name: String,
    trtype: Option<String>,
    traddr: Option<String>,
    adrfam: Option<String>,
    trsvcid: Option<Service>,
    subnqn: Option<String>,
    hostaddr: Option<String>,
    hostsvcid: Option<String>,
}

impl Detach {
    /// Whether a path is one that is meant.
    fn means(&self, options: &AttachOptions) -> bool {
        let same = |given: &Option<String>, is: &str| {
            given.as_ref().is_none_or(|given| given.eq_ignore_ascii_case(is))
        };
        match &options.transport {
            Transport::Tcp { address, subsystem } => {
                let port = self.trsvcid.as_ref();
                same(&self.trtype, "TCP")
                    && same(&self.traddr, &address.ip().to_string())
                    && same(&self.adrfam, if address.is_ipv4() { "IPv4" } else { "IPv6" })
                    && port.is_none_or(|port| port.port() == Some(address.port()))
                    && self.subnqn.as_ref().is_none_or(|nqn| nqn == subsystem.as_str())
            }
            Transport::Pcie { address, .. } => same(&self.trtype, "PCIe") && same(&self.traddr, address),
        }
    }
}

pub(super) fn detach(draft: &mut Draft, params: Detach) -> Result<Value, RpcError> {
    neutral("hostaddr", params.hostaddr.as_deref(), "")?;
    neutral("hostsvcid", params.hostsvcid.as_deref(), "")?;
    let controllers = draft.model.nvme.controllers.clone();
    let detaching = controllers.detach(&params.name, |options| params.means(options)).map_err(nvme_error)?;
    for device in &detaching.devices {
        // One that could not be registered is not there to be removed; another may have its name.
        let registered = draft.model.devices.get_as::<NvmeDevice>(device.name());
        if registered.is_ok_and(|registered| Arc::ptr_eq(&registered, device)) {
            draft.remove_device(device.name()).map_err(device_error)?;
        }
    }
    draft.afterwards(move || controllers.finish_detach(detaching));
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    name: Option<String>,
}

pub(super) async fn get_controllers(daemon: Arc<Daemon>, params: Which) -> Result<Value, RpcError> {
    let reports = daemon.model().nvme.controllers.list(params.name.as_deref()).map_err(nvme_error)?;
    serde_json::to_value(reports).map_err(RpcError::internal)
}

/// A controller, or the path whose controller has this identifier. What is done with it changes no configuration, but
/// must not meet an attach or detach of the same.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfController {
    name: String,
    cntlid: Option<u16>,
}

pub(super) fn reset(draft: &mut Draft, params: OfController) -> Result<Value, RpcError> {
    let controllers = draft.model.nvme.controllers.clone();
    wait_for(controllers.reset(&params.name, params.cntlid)).map_err(nvme_error)?;
    Ok(json!(true))
}

pub(super) fn enable(draft: &mut Draft, params: OfController) -> Result<Value, RpcError> {
    let controllers = draft.model.nvme.controllers.clone();
    wait_for(controllers.enable(&params.name, params.cntlid)).map_err(nvme_error)?;
    Ok(json!(true))
}

pub(super) fn disable(draft: &mut Draft, params: OfController) -> Result<Value, RpcError> {
    let controllers = draft.model.nvme.controllers.clone();
    wait_for(controllers.disable(&params.name, params.cntlid)).map_err(nvme_error)?;
    Ok(json!(true))
}

/// All devices of NVMe controllers, or the one of a name.
fn chosen(devices: &Registry, name: Option<&str>) -> Result<Vec<Arc<NvmeDevice>>, RpcError> {
    match name {
        Some(name) => Ok(vec![devices.get_as::<NvmeDevice>(name).map_err(device_error)?]),
        None => {
            let all = devices.list();
            Ok(all.iter().filter_map(|device| devices.get_as::<NvmeDevice>(device.name()).ok()).collect())
        }
    }
}

pub(super) async fn get_io_paths(daemon: Arc<Daemon>, params: Which) -> Result<Value, RpcError> {
    let controllers = daemon.model().nvme.controllers.clone();
    let chosen = chosen(daemon.devices(), params.name.as_deref())?;
    let paths: Vec<_> = chosen.iter().flat_map(|device| controllers.io_paths(device)).collect();
    // SPDK has a group for each thread; here each reactor takes the same paths.
    Ok(json!({"poll_groups": [{"thread": "all", "io_paths": paths}]}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPolicy {
    name: String,
    policy: String,
    selector: Option<String>,
    rr_min_io: Option<u32>,
}

pub(super) fn set_multipath_policy(draft: &mut Draft, params: SetPolicy) -> Result<Value, RpcError> {
    let device = draft.model.devices.get_as::<NvmeDevice>(&params.name).map_err(device_error)?;
    let given =
        MultipathOptions { policy: Some(params.policy), selector: params.selector, min_io: params.rr_min_io };
    let policy = options::policy(device.policy(), Some(&given))?;
    draft.afterwards(move || device.set_policy(policy));
    Ok(json!(true))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetPreferred {
    name: String,
    cntlid: u16,
}

pub(super) async fn set_preferred_path(daemon: Arc<Daemon>, params: SetPreferred) -> Result<Value, RpcError> {
    let device = daemon.devices().get_as::<NvmeDevice>(&params.name).map_err(device_error)?;
    daemon.model().nvme.controllers.set_preferred(&device, params.cntlid).map_err(nvme_error)?;
    Ok(json!(true))
}

/// A group is a reactor; over TCP there is nothing to count here that `nvmf_get_stats` of the other side does not.
pub(super) async fn get_transport_statistics(daemon: Arc<Daemon>, _: Nothing) -> Result<Value, RpcError> {
    let controllers = daemon.model().nvme.controllers.clone();
    let counts = in_time(controllers.queue_counts()).await?;
    let group = |reactor: u32| {
        let own: Vec<_> = counts.iter().filter(|counts| counts.reactor == reactor).collect();
        let sum = |field: fn(&QueueCounts) -> u64| own.iter().map(|counts| field(counts)).sum::<u64>();
        json!({
            "thread": format!("reactor_{reactor}"),
            "transports": [{
                "trname": "PCIE",
                "submitted_requests": sum(|counts| counts.submitted_requests),
                "completions": sum(|counts| counts.completions),
                "sq_mmio_doorbell_updates": sum(|counts| counts.sq_mmio_doorbell_updates),
                "cq_mmio_doorbell_updates": sum(|counts| counts.cq_mmio_doorbell_updates),
                "controllers": own,
            }],
        })
    };
    let groups: Vec<Value> = daemon.reactors().iter().map(|reactor| group(reactor.id())).collect();
    Ok(json!({"tick_rate": crate::daemon::TICK_RATE, "poll_groups": groups}))
}
