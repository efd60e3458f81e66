//! Watching a controller: its presence, its fatal status, and the events that it reports.
//!
//! Owns the tasks that do so on the owner's reactor. Invariant: each event's log page is read, which lets the controller
//! report the next of its kind, whether or not anybody listens. The keeper starts the tasks and ends them.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use sledge_reactor::task::{JoinHandle, spawn_local};
use sledge_reactor::time::{now, sleep};
use zerocopy::FromBytes;

use super::admin::AdminBuffer;
use super::bring_up::read_status;
use super::controller::ControllerIdentity;
use super::error::DriverError;
use super::events::{ControllerEvent, SmartWarning};
use super::keeper::Keeper;
use super::lifecycle::{Event, State};
use super::namespaces::NamespaceInfo;
use crate::async_event::{EventResult, EventType, Notice};
use crate::command::{BROADCAST_NSID, Command};
use crate::function::Presence;
use crate::identify::{
    Cns, CommandSet, ControllerData, IDENTIFY_BYTES, IdentifierType, NamespaceData, NamespaceList,
};
use crate::log_page::{HealthLog, LogPage};
use crate::property::Version;
use crate::status::Status;

/// How often the admin queue is looked at while nobody waits for a command: for events.
const LOOK: Duration = Duration::from_millis(10);
/// Looks between two of the registers and the bus.
const LOOKS_A_CHECK: u32 = 10;
/// Most namespaces that are looked at.
const MAX_NAMESPACES: usize = 1024;
/// Bytes of an entry of the Error Information log.
const ERROR_BYTES: u32 = 64;
/// Bytes of the Firmware Slot Information log.
const FIRMWARE_BYTES: u32 = 512;

impl Keeper {
    /// Starts what watches the controller: presence and status, events, and each reactor's queue.
    pub(super) fn watchers(self: &Rc<Self>) -> Vec<JoinHandle<()>> {
        let mut tasks = vec![
            spawn_local(watch_presence(Rc::downgrade(self))),
            spawn_local(watch_events(Rc::downgrade(self))),
        ];
        if !self.shared.options.io_timeout.is_zero() {
            for index in 0..self.shared.reactors.len() {
                tasks.push(spawn_local(super::overdue::watch_queue(Rc::downgrade(self), index)));
            }
        }
        tasks
    }

    fn check(&self) {
        let Ok(function) = self.function() else { return };
        match function.presence() {
            Presence::Gone => {
                self.raise_once(Event::Gone);
                return;
            }
            Presence::Leaving if matches!(self.shared.state(), State::Live | State::Failed) => {
                self.raise_once(Event::Leaving);
            }
            // While it is being brought up, or goes already, the news can wait.
            Presence::Leaving | Presence::Present => {}
        }
        match read_status(&*function) {
            None => {
                self.raise_once(Event::Gone);
            }
            Some(status) if status.fatal() => {
                self.raise_once(Event::Fatal);
            }
            Some(_) => {}
        }
    }

    /// What an event is about; reading its log page lets the controller report the next.
    async fn handle(&self, event: EventResult) -> Result<(), DriverError> {
        let address = self.shared.address();
        let kind = EventType::from_value(event.event_type());
        match (kind, event.as_notice()) {
            (Some(EventType::Health), _) => {
                let bytes = self.read_log(LogPage::Health, size_of::<HealthLog>() as u32).await?;
                let log = HealthLog::read_from_bytes(&bytes)
                    .map_err(|_| DriverError::Malformed { what: "the health log", problem: "too short" })?;
                let warning = SmartWarning::from(&log);
                self.shared.counters.health_warnings.add();
                tracing::warn!(
                    controller = %address,
                    critical = format_args!("{:#04x}", log.critical_warning),
                    kelvins = warning.temperature_kelvins,
                    spare_percent = warning.available_spare,
                    used_percent = warning.percentage_used,
                    "a controller warns of its health"
                );
                self.shared.listeners.tell(ControllerEvent::Health(warning));
            }
            (_, Some(Notice::NamespaceAttributeChanged)) => {
                self.read_log(LogPage::ChangedNamespaces, IDENTIFY_BYTES as u32).await?;
                self.rescan().await?;
            }
            (_, Some(Notice::FirmwareActivationStarting)) => {
                let limit = self.shared.identity().map_or(0, |identity| identity.data.mtfa.get());
                let pause = Duration::from_millis(100) * limit.into();
                self.paused_until.set(now() + pause);
                tracing::warn!(controller = %address, ?pause, "a controller activates firmware");
                self.shared.listeners.tell(ControllerEvent::FirmwareActivation);
                self.read_log(LogPage::FirmwareSlot, FIRMWARE_BYTES).await?;
            }
            (Some(EventType::Error), _) => {
                tracing::warn!(controller = %address, information = event.information(), "a controller reports an error");
                self.read_log(LogPage::Error, ERROR_BYTES).await?;
            }
            _ => tracing::info!(
                controller = %address,
                kind = event.event_type(),
                information = event.information(),
                log = event.log_page(),
                "a controller reports an event that has no meaning here"
            ),
        }
        Ok(())
    }

    async fn read_log(&self, page: LogPage, bytes: u32) -> Result<Vec<u8>, DriverError> {
        let nsid = if page == LogPage::ChangedNamespaces { 0 } else { BROADCAST_NSID };
        let command = Command::get_log_page(page.value(), nsid, 0, bytes);
        let limit = self.shared.options.admin_timeout;
        let (_, data) = self.admin.run(page.name(), limit, command, AdminBuffer::In(bytes as usize)).await?;
        Ok(data)
    }

    /// Looks for namespaces that came, went or changed, and tells.
    ///
    /// # Errors
    /// When the controller can't say.
    pub(super) async fn rescan(&self) -> Result<(), DriverError> {
        if self.scan().await? {
            self.shared.counters.namespace_changes.add();
            tracing::info!(controller = %self.shared.address(), "the namespaces of a controller have changed");
            self.shared.listeners.tell(ControllerEvent::NamespacesChanged);
        }
        Ok(())
    }

    /// Reads all namespaces and publishes them. Whether they differ from what was known.
    ///
    /// # Errors
    /// When the controller can't say.
    pub(super) async fn scan(&self) -> Result<bool, DriverError> {
        let identity = self.shared.identity().ok_or(DriverError::Reset)?;
        let mut all = Vec::new();
        for nsid in self.active_namespaces(&identity.data, identity.version).await? {
            all.extend(self.namespace(&identity, nsid).await?);
        }
        for namespace in &all {
            if let Some(reason) = &namespace.refused {
                let address = self.shared.address();
                tracing::warn!(controller = %address, nsid = namespace.nsid, reason, "a namespace can't be used");
            }
        }
        let all: Arc<[NamespaceInfo]> = all.into();
        let Some(before) = self.shared.set_namespaces(&all) else { return Ok(false) };
        let changes: Arc<[_]> = before
            .iter()
            .map(|old| {
                let new = all.iter().find(|new| new.nsid == old.nsid);
                let same = new.is_some_and(|new| new.is_same(old));
                (old.nsid, new.and_then(|new| new.shape.clone()), same)
            })
            .collect();
        self.on_all(move |local| {
            for (nsid, shape, same) in &*changes {
                local.queue.reshape(*nsid, shape.as_ref(), *same);
            }
        })
        .await;
        Ok(true)
    }

    /// Identifiers of the active namespaces, rising.
    async fn active_namespaces(
        &self,
        data: &ControllerData,
        version: Version,
    ) -> Result<Vec<u32>, DriverError> {
        let most = data.nn.get();
        // Base 1.0 has no lists.
        if (version.major(), version.minor()) < (1, 1) {
            return Ok((1..=most.min(MAX_NAMESPACES as u32)).collect());
        }
        let mut all: Vec<u32> = Vec::new();
        let what = "Active Namespace ID list";
        loop {
            let after = all.last().copied().unwrap_or(0);
            let bytes =
                self.identify_page(what, Command::identify(Cns::ActiveNamespaceList.value(), after)).await?;
            let list = NamespaceList::read_from_bytes(&bytes)
                .map_err(|_| DriverError::Malformed { what, problem: "too short" })?;
            let before = all.len();
            for nsid in list.iter() {
                if nsid <= all.last().copied().unwrap_or(0) {
                    return Err(DriverError::Malformed { what, problem: "not rising" });
                }
                all.push(nsid);
            }
            if all.len() > MAX_NAMESPACES {
                tracing::warn!(controller = %self.shared.address(), most = MAX_NAMESPACES, "more namespaces than are looked at");
                all.truncate(MAX_NAMESPACES);
                return Ok(all);
            }
            if all.len() - before < NamespaceList::CAPACITY {
                return Ok(all);
            }
        }
    }

    /// A namespace; `None` when it went meanwhile.
    async fn namespace(
        &self,
        controller: &ControllerIdentity,
        nsid: u32,
    ) -> Result<Option<NamespaceInfo>, DriverError> {
        let version = controller.version;
        let mut descriptors = Vec::new();
        if (version.major(), version.minor()) >= (1, 3) {
            let command = Command::identify(Cns::NamespaceDescriptors.value(), nsid);
            match self.identify_page("Namespace Identification Descriptor list", command).await {
                Ok(bytes) => descriptors = bytes,
                Err(DriverError::Command { status, .. })
                    if status.is(Status::INVALID_NAMESPACE_OR_FORMAT) =>
                {
                    return Ok(None);
                }
                // Some controllers have none; the namespace is of the NVM command set then.
                Err(DriverError::Command { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let command_set = CommandSet::from_value(command_set(&descriptors));
        if command_set != Some(CommandSet::Nvm) {
            return Ok(Some(NamespaceInfo::foreign(nsid, command_set, &descriptors)));
        }
        let command = Command::identify(Cns::Namespace.value(), nsid);
        let bytes = match self.identify_page("Identify Namespace", command).await {
            Ok(bytes) => bytes,
            Err(DriverError::Command { status, .. }) if status.is(Status::INVALID_NAMESPACE_OR_FORMAT) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let data = NamespaceData::read_from_bytes(&bytes)
            .map_err(|_| DriverError::Malformed { what: "Identify Namespace", problem: "too short" })?;
        // All zero: it is not active.
        if data.ncap.get() == 0 && data.nsze.get() == 0 {
            return Ok(None);
        }
        let limits = controller.limits.as_deref();
        Ok(Some(NamespaceInfo::new(nsid, &controller.data, limits, &data, &descriptors)))
    }

    async fn identify_page(&self, what: &'static str, command: Command) -> Result<Vec<u8>, DriverError> {
        let limit = self.shared.options.admin_timeout;
        let (_, bytes) = self.admin.run(what, limit, command, AdminBuffer::In(IDENTIFY_BYTES)).await?;
        Ok(bytes)
    }
}

/// The Command Set Identifier among a namespace's descriptors, known here or not; NVM where there is none.
fn command_set(descriptors: &[u8]) -> u8 {
    let mut rest = descriptors;
    while let [kind, length, _, _, after @ ..] = rest
        && *length > 0
    {
        match after {
            [set, ..] if *kind == IdentifierType::CommandSet.value() => return *set,
            _ => rest = after.get(usize::from(*length)..).unwrap_or_default(),
        }
    }
    CommandSet::Nvm.value()
}

async fn watch_presence(keeper: Weak<Keeper>) {
    for look in 0u32.. {
        sleep(LOOK).await;
        let Some(keeper) = keeper.upgrade() else { return };
        keeper.admin.turn();
        if look % LOOKS_A_CHECK == 0 {
            keeper.check();
        }
    }
}

async fn watch_events(keeper: Weak<Keeper>) {
    loop {
        let Some(admin) = keeper.upgrade().map(|keeper| keeper.admin.clone()) else { return };
        let version = admin.event.version();
        let Some(event) = admin.take_event() else {
            admin.event.after(version).await;
            continue;
        };
        let Some(keeper) = keeper.upgrade() else { return };
        match keeper.handle(event).await {
            // What a reset interrupts, the bring-up after it reads anyway.
            Ok(()) | Err(DriverError::Reset | DriverError::Removed | DriverError::Detached) => {}
            Err(error) => {
                tracing::warn!(controller = %keeper.shared.address(), %error, "an event could not be looked into");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a namespace of a command set that is not known be taken for one with blocks.
    #[test]
    fn command_sets_are_found_known_or_not() {
        assert_eq!(command_set(&[]), 0);
        assert_eq!(command_set(&[0; 64]), 0);
        assert_eq!(command_set(&[1, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 1, 0, 0, 2, 0]), 2);
        assert_eq!(command_set(&[4, 1, 0, 0, 0x30, 0, 0, 0, 0]), 0x30);
        assert_eq!(command_set(&[1, 200, 0, 0, 1]), 0);
    }
}
