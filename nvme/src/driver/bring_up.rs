//! The steps that bring a controller up, stop it, and cut it off: what they read and write, in which order, and how long
//! they wait.
//!
//! Owns the use of the controller's registers besides doorbells. Invariant: a step ends within the time that the
//! controller claims (CAP.TO, CRTO.CRWMT, RTD3E), bounded by options; all ones in CSTS end it as a removal. The keeper
//! carries the steps out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sledge_reactor::time::{now, sleep};
use zerocopy::FromBytes;

use super::admin::AdminBuffer;
use super::controller::ControllerIdentity;
use super::error::DriverError;
use super::io_queue::Reclaim;
use super::keeper::Keeper;
use super::lifecycle::Event;
use super::queues::reachable_pairs;
use crate::command::Command;
use crate::feature::{AsyncEventConfiguration, Feature};
use crate::function::{Function, Presence};
use crate::identify::capability::oaes;
use crate::identify::{Cns, ControllerData, ControllerType, IDENTIFY_BYTES, NvmControllerData};
use crate::property::{
    AdminQueueAttributes, Capabilities, CommandSetSelected, Configuration, ControllerStatus, Property,
    ReadyTimeouts, ShutdownNotification, ShutdownStatus, Version,
};

/// Unit of CAP.TO and CRTO.
const TIMEOUT_UNIT: Duration = Duration::from_millis(500);
/// Time between looks at CSTS, at first and at most.
const LOOK: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(10));
/// Asynchronous Event Requests that are kept with the controller, where it takes so many.
const EVENT_REQUESTS: u8 = 4;
/// All critical warnings that Base 5.16.1.3 defines.
const CRITICAL_WARNINGS: u8 = 0x3f;

fn read_u32(function: &dyn Function, property: Property) -> u32 {
    function.read_u32(property.value() as usize)
}

fn write_u32(function: &dyn Function, property: Property, value: u32) {
    function.write_u32(property.value() as usize, value);
}

/// CSTS; `None` when the device is gone: its registers read as all ones, or, on emulated buses, as zeroes, which no
/// controller's version is.
pub(super) fn read_status(function: &dyn Function) -> Option<ControllerStatus> {
    match read_u32(function, Property::Csts) {
        u32::MAX => None,
        0 if read_u32(function, Property::Vs) == 0 => None,
        bits => Some(ControllerStatus::from_bits(bits)),
    }
}

/// CAP.
///
/// # Errors
/// [`DriverError::Removed`] when the device is gone.
fn capabilities(function: &dyn Function) -> Result<Capabilities, DriverError> {
    match function.read_u64(Property::Cap.value() as usize) {
        u64::MAX => Err(DriverError::Removed),
        bits => Ok(Capabilities::from_bits(bits)),
    }
}

/// How long CSTS.RDY may take to follow CC.EN: CAP.TO (Base 3.1.3.1), or CRTO where the controller has it (Base
/// 3.1.3.21), bounded by an option. A controller that claims no time gets one unit.
fn ready_limit(function: &dyn Function, capabilities: Capabilities, most: Duration) -> Duration {
    let mut units = u32::from(capabilities.timeout_500ms());
    if capabilities.ready_with_media() {
        let timeouts = ReadyTimeouts::from_bits(read_u32(function, Property::Crto));
        units = units.max(timeouts.with_media_500ms().into());
    }
    (TIMEOUT_UNIT * units.max(1)).min(most)
}

/// Waits until CSTS is as wanted.
async fn wait_status(
    function: &dyn Function,
    what: &'static str,
    limit: Duration,
    mut wanted: impl FnMut(ControllerStatus) -> Result<bool, DriverError>,
) -> Result<(), DriverError> {
    let until = now() + limit;
    let (mut pause, longest) = LOOK;
    loop {
        let late = now() >= until;
        if wanted(read_status(function).ok_or(DriverError::Removed)?)? {
            return Ok(());
        }
        if late {
            return Err(DriverError::Timeout { what, limit });
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Runs what blocks for long apart from the reactor, which has I/O to do.
async fn blocking<T: Send + 'static>(
    function: Arc<dyn Function>,
    work: impl FnOnce(&dyn Function) -> T + Send + 'static,
) -> T {
    if function.environment() == "model" {
        // It does not block, and a thread would be outside of simulated time.
        return work(&*function);
    }
    let result = Arc::new(Mutex::new(None));
    let place = result.clone();
    let work = move || {
        let value = work(&*function);
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
    };
    // Should there be no thread to be had, the closure is lost with the error; so it is run by way of a slot.
    let slot = Arc::new(Mutex::new(Some(work)));
    let taken = slot.clone();
    let run = move || {
        if let Some(work) = taken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            work();
        }
    };
    if std::thread::Builder::new().name("nvme-reset".into()).spawn(run.clone()).is_err() {
        run();
    }
    loop {
        if let Some(value) = result.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return value;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

impl Keeper {
    /// Clears CC.EN and waits for CSTS.RDY to be 0 (Base 3.5.1, 3.7.2): from then on the controller does no DMA.
    /// Clearing CC.EN also clears CSTS.CFS.
    ///
    /// # Errors
    /// When that takes longer than the controller claims, or the device is gone.
    pub(super) async fn disable(&self) -> Result<(), DriverError> {
        let function = self.function()?;
        let capabilities = capabilities(&*function)?;
        let limit = ready_limit(&*function, capabilities, self.shared.options.ready_timeout_limit);
        let configuration = Configuration::from_bits(read_u32(&*function, Property::Cc));
        let status = read_status(&*function).ok_or(DriverError::Removed)?;
        if configuration.enable() && !status.ready() && !status.fatal() {
            // To clear CC.EN before CSTS.RDY follows it has undefined results.
            let what = "becoming ready before it is disabled";
            let ready = |status: ControllerStatus| Ok(status.ready() || status.fatal());
            match wait_status(&*function, what, limit, ready).await {
                Ok(()) | Err(DriverError::Timeout { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if !configuration.enable() && status.fatal() {
            // There is nothing to clear; only a reset of the function gets it out of this.
            return Err(DriverError::Fatal);
        }
        if configuration.enable() {
            let configuration = configuration.with_enable(false).with_shutdown(ShutdownNotification::None);
            write_u32(&*function, Property::Cc, configuration.bits());
        }
        let quiet = |status: ControllerStatus| Ok(!status.ready() && !status.fatal());
        wait_status(&*function, "clearing CSTS.RDY", limit, quiet).await
    }

    /// Cuts the controller off by force, as it does not let itself be disabled.
    pub(super) async fn isolate(&self) -> Event {
        self.shared.counters.isolations.add();
        let address = self.shared.address();
        tracing::error!(controller = %address, "a controller stays ready: turning bus mastering off, resetting the function");
        let Ok(function) = self.function() else { return Event::Gone };
        let (mastering, reset) =
            blocking(function, |function| (function.set_bus_master(false), function.reset())).await;
        if let Err(error) = &mastering {
            tracing::error!(controller = %address, %error, "bus mastering can't be turned off");
        }
        match reset {
            Ok(true) => return Event::WasReset,
            Ok(false) => tracing::error!(controller = %address, "the function has no reset"),
            Err(error) => tracing::error!(controller = %address, %error, "the function's reset failed"),
        }
        if mastering.is_ok() { Event::Confined } else { Event::NotIsolated }
    }

    /// A device that the bus says is gone does nothing. One that only its registers say so of may come back by itself:
    /// it is kept from DMA before its memory is given back.
    pub(super) async fn ensure_silence(&self) {
        let Ok(function) = self.function() else { return };
        if function.presence() == Presence::Gone {
            return;
        }
        if read_status(&*function).is_some_and(|status| !status.ready()) {
            return;
        }
        // Errors are as expected of a device that does not answer.
        let (mastering, reset) =
            blocking(function, |function| (function.set_bus_master(false), function.reset())).await;
        if mastering.is_err() && !matches!(reset, Ok(true)) {
            tracing::warn!(
                controller = %self.shared.address(),
                "a device that does not answer could not be cut off; its mappings go when it is let go of"
            );
        }
    }

    /// Sets the controller up and enables it (Base 3.5.1).
    ///
    /// # Errors
    /// When it can't be driven, or is not ready in time.
    pub(super) async fn enable(&self) -> Result<(), DriverError> {
        // It does no DMA now: this is the time to take back what it had.
        self.reclaim_queues(Reclaim::Retry).await;
        self.admin.drain();
        let function = self.function()?;
        let capabilities = capabilities(&*function)?;
        if capabilities.memory_page_size_minimum() != 0 {
            return Err(DriverError::Unsupported("requires memory pages larger than 4096 bytes".into()));
        }
        let command_set = if capabilities.io_command_sets() {
            CommandSetSelected::All
        } else if capabilities.nvm_command_set() || capabilities.command_sets() == 0 {
            CommandSetSelected::Nvm
        } else {
            return Err(DriverError::Unsupported("has no NVM command set".into()));
        };
        let stride_bytes = 4usize << capabilities.doorbell_stride();
        if reachable_pairs(&*function, stride_bytes) == 0 {
            let problem = "has no doorbells of the admin queue among its registers";
            return Err(DriverError::Unsupported(problem.into()));
        }
        let (entries, submission, completion) =
            self.admin.restart(&function, capabilities.max_queue_entries(), stride_bytes)?;
        function
            .set_bus_master(true)
            .map_err(|source| DriverError::Function { what: "turning bus mastering on", source })?;
        let attributes = AdminQueueAttributes::default()
            .with_submission_entries_minus_one(entries - 1)
            .with_completion_entries_minus_one(entries - 1);
        write_u32(&*function, Property::Aqa, attributes.bits());
        function.write_u64(Property::Asq.value() as usize, submission);
        function.write_u64(Property::Acq.value() as usize, completion);
        let configuration = Configuration::ENABLE_NVM.with_command_set(command_set.value());
        write_u32(&*function, Property::Cc, configuration.bits());
        let limit = ready_limit(&*function, capabilities, self.shared.options.ready_timeout_limit);
        wait_status(&*function, "setting CSTS.RDY", limit, |status| {
            if status.fatal() { Err(DriverError::Fatal) } else { Ok(status.ready()) }
        })
        .await?;
        self.admin.open();
        Ok(())
    }

    /// Asks the controller what it is, and for its namespaces.
    ///
    /// # Errors
    /// When it does not answer, is none for I/O, or another one than before.
    pub(super) async fn identify(&self) -> Result<(), DriverError> {
        let function = self.function()?;
        let limit = self.shared.options.admin_timeout;
        let command = Command::identify(Cns::Controller.value(), 0);
        let (_, bytes) =
            self.admin.run("Identify Controller", limit, command, AdminBuffer::In(IDENTIFY_BYTES)).await?;
        let data = ControllerData::read_from_bytes(&bytes)
            .map_err(|_| DriverError::Malformed { what: "Identify Controller", problem: "too short" })?;
        let kind = ControllerType::from_value(data.cntrltype);
        if !matches!(kind, Some(ControllerType::NotReported | ControllerType::Io)) {
            let kind = kind.map_or("of a type that is not known", ControllerType::name);
            return Err(DriverError::Unsupported(format!("is no I/O controller: it is {kind}")));
        }
        for (field, shift) in [(data.sqes, 6), (data.cqes, 4)] {
            if !(field & 0xf..=field >> 4).contains(&shift) {
                return Err(DriverError::Unsupported("requires queue entries of other sizes".into()));
            }
        }
        if let Some(before) = self.shared.identity() {
            let names = |data: &ControllerData| format!("{} ({})", data.serial_number(), data.model_number());
            let (expected, found) = (names(&before.data), names(&data));
            if expected != found {
                // Trying again would not make it the right one.
                self.raise(Event::FailAsked);
                return Err(DriverError::AnotherController { expected, found });
            }
        }
        self.shared.set_identity(ControllerIdentity {
            capabilities: capabilities(&*function)?,
            version: Version::from_bits(read_u32(&*function, Property::Vs)),
            max_transfer_bytes: data.max_transfer_bytes(),
            limits: self.limits().await?,
            data: Box::new(data),
            io_queues: 0,
            io_queue_depth: 0,
            shadow_doorbells: false,
        });
        self.configure_events(data.oaes.get()).await?;
        self.scan().await?;
        Ok(())
    }

    /// Identify Controller of the NVM command set, which is new in NVM 1.0.
    async fn limits(&self) -> Result<Option<Box<NvmControllerData>>, DriverError> {
        let command = Command::identify(Cns::CommandSetController.value(), 0);
        let limit = self.shared.options.admin_timeout;
        let what = "Identify Controller of the NVM command set";
        match self.admin.run(what, limit, command, AdminBuffer::In(IDENTIFY_BYTES)).await {
            Ok((_, bytes)) => Ok(NvmControllerData::read_from_bytes(&bytes).ok().map(Box::new)),
            Err(DriverError::Command { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asynchronous Event Configuration (Base 5.27.1.8): warnings of health, and the notices that the controller has.
    async fn configure_events(&self, offered: u32) -> Result<(), DriverError> {
        let events = AsyncEventConfiguration::from_bits(0)
            .with_critical_warnings(CRITICAL_WARNINGS)
            .with_namespace_attribute(offered & oaes::NAMESPACE_ATTRIBUTE != 0)
            .with_firmware_activation(offered & oaes::FIRMWARE_ACTIVATION != 0);
        let feature = Feature::AsyncEventConfiguration.value();
        let command = Command::set_features(feature, 0, events.bits()).with_prps(0, 0);
        let limit = self.shared.options.admin_timeout;
        match self.admin.run("Asynchronous Event Configuration", limit, command, AdminBuffer::None).await {
            Ok(_) => Ok(()),
            Err(error @ DriverError::Command { .. }) => {
                tracing::warn!(controller = %self.shared.address(), %error, "some events will not be reported");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the controller Asynchronous Event Requests, as many as it takes and are of use.
    pub(super) fn arm_events(&self) {
        let Some(identity) = self.shared.identity() else { return };
        // AERL is one less.
        self.admin.arm_events(usize::from(identity.data.aerl.saturating_add(1).min(EVENT_REQUESTS)));
    }

    /// Shuts the controller down in an orderly manner (Base 3.6.1): no more I/O, no I/O queues, CC.SHN.
    ///
    /// # Errors
    /// When it does not finish in time. It is to be disabled in any case.
    pub(super) async fn shut_down(&self) -> Result<(), DriverError> {
        self.changed.until(|| self.working.get() == 0).await;
        self.stop_queues().await;
        let function = self.function()?;
        self.drain().await;
        if let Err(error) = self.delete_queues().await {
            tracing::warn!(controller = %self.shared.address(), %error, "shutting down without deleting queues");
        }
        let configuration = Configuration::from_bits(read_u32(&*function, Property::Cc));
        if read_status(&*function).is_none() {
            return Err(DriverError::Removed);
        }
        let configuration = configuration.with_shutdown(ShutdownNotification::Normal);
        write_u32(&*function, Property::Cc, configuration.bits());
        let latency = self.shared.identity().map_or(0, |identity| identity.data.rtd3e.get());
        let limit = self.shared.options.shutdown_timeout.max(Duration::from_micros(latency.into()));
        wait_status(&*function, "the controller's shutdown", limit, |status| {
            Ok(status.shutdown() == Some(ShutdownStatus::Complete))
        })
        .await
    }
}
