//! Bringing a controller up: admin queue, properties, enable, Identify, number of queues, events.

use super::admin::{ADMIN_DEPTH, Admin, AdminData};
use super::error::HostError;
use super::open::{ADMIN_IN_CAPSULE_BYTES, Opening, open_queue};
use super::options::ConnectOptions;
use super::shared::Parameters;
use super::wait::{Signal, within};
use sledge_nvme::Command;
use sledge_nvme::fabrics::{ADMIN_CONTROLLER_DYNAMIC, PropertyGetCommand, PropertySetCommand};
use sledge_nvme::feature::{AsyncEventConfiguration, Feature, NumberOfQueues};
use sledge_nvme::identify::{Cns, ControllerData, IDENTIFY_BYTES};
use sledge_nvme::property::{Capabilities, Configuration, ControllerStatus, Property, Version};
use sledge_reactor::time::sleep;
use std::rc::Rc;
use std::time::Duration;
use zerocopy::FromBytes;

/// Most Asynchronous Event Requests to keep outstanding.
const EVENT_REQUESTS: usize = 4;
/// Pause between looks at CSTS.
const STATUS_PAUSE: Duration = Duration::from_millis(2);

/// What a controller said about itself when it was connected.
#[derive(Clone, Debug)]
pub struct ControllerInfo {
    /// Controller identifier.
    pub cntlid: u16,
    /// CAP.
    pub capabilities: Capabilities,
    /// VS.
    pub version: Version,
    /// Identify Controller.
    pub identify: Box<ControllerData>,
    /// I/O queue pairs granted.
    pub io_queues: u16,
}

impl ControllerInfo {
    /// What queues need to know.
    pub(super) fn parameters(&self) -> Parameters {
        Parameters {
            cntlid: self.cntlid,
            in_capsule_bytes: self.identify.in_capsule_bytes(),
            max_entries: self.capabilities.max_queue_entries(),
            queues: self.io_queues,
            max_transfer_bytes: self.identify.max_transfer_bytes(),
        }
    }
}

/// Connects to a controller and brings it to the point where I/O queues can be opened.
pub(super) async fn establish(
    options: &ConnectOptions,
    lost: &Rc<Signal>,
    event: &Rc<Signal>,
) -> Result<(Rc<Admin>, ControllerInfo), HostError> {
    let opening = Opening {
        qid: 0,
        cntlid: ADMIN_CONTROLLER_DYNAMIC,
        depth: ADMIN_DEPTH,
        in_capsule_bytes: ADMIN_IN_CAPSULE_BYTES,
    };
    let (queue, response) = open_queue(options, opening).await?;
    let admin = Admin::start(queue, lost.clone(), event.clone());
    let limit = options.connect_timeout;

    let capabilities = Capabilities::from_bits(get_property(&admin, limit, Property::Cap).await?);
    let version = Version::from_bits(get_property(&admin, limit, Property::Vs).await? as u32);
    let enable = Configuration::ENABLE_NVM;
    set_property(&admin, limit, Property::Cc, u64::from(enable.bits())).await?;
    // CAP.TO may be zero where it means "at once".
    let ready_limit = limit.max(Duration::from_millis(u64::from(capabilities.timeout_500ms()) * 500));
    within("enabling the controller", ready_limit, ready(&admin, limit)).await??;

    let command = Command::identify(Cns::Controller.value(), 0);
    let reply = admin.execute("Identify Controller", limit, command, AdminData::In(IDENTIFY_BYTES)).await?;
    let identify = ControllerData::read_from_bytes(&reply.data)
        .map_err(|_| HostError::Malformed { what: "Identify Controller", problem: "too short" })?;

    let mut io_queues = 0;
    if options.io_queues > 0 && !options.subsystem.is_discovery() {
        let value = NumberOfQueues::pairs(options.io_queues);
        let command = Command::set_features(Feature::NumberOfQueues.value(), 0, value.bits());
        let reply = admin.execute("setting the number of queues", limit, command, AdminData::None).await?;
        let granted = NumberOfQueues::from_bits(reply.completion.result.get());
        let most = granted.submission_minus_one().min(granted.completion_minus_one()).saturating_add(1);
        io_queues = options.io_queues.min(most);
    }
    arm_events(&admin, limit, &identify).await?;
    let info = ControllerInfo {
        cntlid: response.cntlid(),
        capabilities,
        version,
        identify: Box::new(identify),
        io_queues,
    };
    Ok((admin, info))
}

/// Asks for the events that the controller can send.
async fn arm_events(admin: &Admin, limit: Duration, identify: &ControllerData) -> Result<(), HostError> {
    let offered = AsyncEventConfiguration::from_bits(identify.oaes.get());
    let wanted = AsyncEventConfiguration::default()
        .with_namespace_attribute(offered.namespace_attribute())
        .with_ana_change(offered.ana_change())
        .with_discovery_change(offered.discovery_change());
    if wanted.bits() == 0 {
        return Ok(());
    }
    let command = Command::set_features(Feature::AsyncEventConfiguration.value(), 0, wanted.bits());
    match admin.execute("configuring events", limit, command, AdminData::None).await {
        // A controller may do without: events are a convenience here.
        Ok(_) | Err(HostError::Command { .. }) => {}
        Err(error) => return Err(error),
    }
    admin.arm_events(EVENT_REQUESTS.min(usize::from(identify.aerl) + 1));
    Ok(())
}

async fn ready(admin: &Admin, limit: Duration) -> Result<(), HostError> {
    loop {
        let status = status(admin, limit).await?;
        if status.fatal() {
            return Err(HostError::Fatal);
        }
        if status.ready() {
            return Ok(());
        }
        sleep(STATUS_PAUSE).await;
    }
}

/// Reads CSTS.
pub(super) async fn status(admin: &Admin, limit: Duration) -> Result<ControllerStatus, HostError> {
    Ok(ControllerStatus::from_bits(get_property(admin, limit, Property::Csts).await? as u32))
}

/// Reads a property.
pub(super) async fn get_property(
    admin: &Admin,
    limit: Duration,
    property: Property,
) -> Result<u64, HostError> {
    let command = Command::from(PropertyGetCommand::new(property));
    let reply = admin.execute("Property Get", limit, command, AdminData::None).await?;
    Ok(reply.completion.result_u64())
}

/// Writes a property.
pub(super) async fn set_property(
    admin: &Admin,
    limit: Duration,
    property: Property,
    value: u64,
) -> Result<(), HostError> {
    let command = Command::from(PropertySetCommand::new(property, value));
    admin.execute("Property Set", limit, command, AdminData::None).await?;
    Ok(())
}
