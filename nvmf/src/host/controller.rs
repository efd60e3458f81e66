//! A controller that this host is connected to: its admin queue, and the task that keeps it connected.
//!
//! Owns the admin queue and the state that the I/O queue pairs share. Invariant: there is one task for each controller;
//! it alone replaces the admin queue and brings the controller back. Dropping the controller disconnects it and its
//! queue pairs. Called by whoever uses a remote namespace.

use super::admin::{Admin, AdminData, AdminReply};
use super::error::{HostError, Loss};
use super::establish::{ControllerInfo, establish, set_property, status};
use super::options::ConnectOptions;
use super::queue_pair::QueueConnector;
use super::shared::{GIVEN_UP, Shared};
use super::wait::{Signal, within};
use sledge_nvme::async_event::EventResult;
use sledge_nvme::identify::{Cns, IDENTIFY_BYTES, NamespaceData, NamespaceList};
use sledge_nvme::io::Geometry;
use sledge_nvme::property::{Configuration, Property, ShutdownNotification, ShutdownStatus};
use sledge_nvme::{Command, Status};
use sledge_reactor::task::{JoinHandle, spawn_local};
use sledge_reactor::time::{now, sleep};
use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use zerocopy::FromBytes;

/// How long commands that are under way may take when the controller is shut down.
const DRAIN: Duration = Duration::from_secs(1);
/// How often the controller's task looks at queues of other reactors.
const TICK: Duration = Duration::from_millis(100);
/// Most bytes of a log page in one command: any controller can transfer as much.
const LOG_CHUNK: usize = 4096;

/// How a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllerState {
    /// Connected.
    Live,
    /// Lost; attempts to reconnect go on.
    Reconnecting {
        /// Attempts made.
        attempts: u32,
    },
    /// Shut down, or given up after the loss time-out.
    Ended,
}

struct Inner {
    options: ConnectOptions,
    shared: Arc<Shared>,
    admin: RefCell<Rc<Admin>>,
    info: RefCell<ControllerInfo>,
    state: RefCell<ControllerState>,
    /// Why the connection was lost last, or the last attempt failed.
    last_error: RefCell<Option<String>>,
    lost: Rc<Signal>,
    event: Rc<Signal>,
}

/// A connected controller. It stays on its reactor; its queue pairs may be elsewhere, see [`Controller::connector`].
pub struct Controller {
    inner: Rc<Inner>,
    keeper: JoinHandle<()>,
}

impl Controller {
    /// Connects to a controller on the current reactor.
    ///
    /// # Errors
    /// What kept it from connecting. There is one attempt: only a connection that was there is brought back.
    pub async fn connect(options: ConnectOptions) -> Result<Self, HostError> {
        options.check()?;
        let (lost, event) = (Rc::new(Signal::default()), Rc::new(Signal::default()));
        let (admin, info) = establish(&options, &lost, &event).await?;
        let shared = Arc::new(Shared::new(info.parameters()));
        let inner = Rc::new(Inner {
            options,
            shared,
            admin: RefCell::new(admin),
            info: RefCell::new(info),
            state: RefCell::new(ControllerState::Live),
            last_error: RefCell::new(None),
            lost,
            event,
        });
        let keeper = spawn_local(keep(Rc::downgrade(&inner)));
        Ok(Self { inner, keeper })
    }

    /// What the controller said about itself when it was connected last.
    pub fn info(&self) -> ControllerInfo {
        self.inner.info.borrow().clone()
    }

    /// How it is.
    pub fn state(&self) -> ControllerState {
        *self.inner.state.borrow()
    }

    /// A number for each connection that it had, rising; none while it is not connected.
    pub fn incarnation(&self) -> Option<u64> {
        let epoch = self.inner.shared.epoch();
        (epoch != GIVEN_UP && epoch.is_multiple_of(2)).then_some(epoch)
    }

    /// Resets the controller (CC.EN to 0), which ends its commands, and lets it be connected again as after a loss.
    ///
    /// # Errors
    /// When it is not connected, or does not answer; it is connected again all the same.
    pub async fn reset(&self) -> Result<(), HostError> {
        let inner = self.inner.clone();
        let epoch = self.incarnation().ok_or(Loss::ControllerLost)?;
        let limit = inner.options.connect_timeout;
        let admin = inner.admin.borrow().clone();
        let disabled = async {
            set_property(&admin, limit, Property::Cc, 0).await?;
            while status(&admin, limit).await?.ready() {
                sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        let disabled = within("the controller's reset", limit, disabled).await.and_then(|disabled| disabled);
        inner.shared.fail(epoch, disabled.is_err());
        disabled
    }

    /// Why the connection was lost last, or why the last attempt to reconnect failed.
    pub fn last_error(&self) -> Option<String> {
        self.inner.last_error.borrow().clone()
    }

    /// What opens I/O queue pairs, on this reactor or, sent there, on another.
    pub fn connector(&self) -> QueueConnector {
        QueueConnector { shared: self.inner.shared.clone(), options: Arc::new(self.inner.options.clone()) }
    }

    /// Sends an admin command and waits for its answer.
    ///
    /// # Errors
    /// [`HostError::Command`] when the status is not success, and what else can happen to a connection.
    pub async fn admin(
        &self,
        what: &'static str,
        command: Command,
        data: AdminData,
    ) -> Result<AdminReply, HostError> {
        self.admin_within(self.inner.options.command_timeout, what, command, data).await
    }

    /// The same for a command that may take so long; when it takes longer, the connection is given up.
    ///
    /// # Errors
    /// As [`Controller::admin`].
    pub async fn admin_within(
        &self,
        limit: Duration,
        what: &'static str,
        command: Command,
        data: AdminData,
    ) -> Result<AdminReply, HostError> {
        let admin = self.inner.admin.borrow().clone();
        admin.execute(what, limit, command, data).await
    }

    /// Active namespaces, rising.
    ///
    /// # Errors
    /// As [`Controller::admin`].
    pub async fn active_namespaces(&self) -> Result<Vec<u32>, HostError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().copied().unwrap_or(0);
            let command = Command::identify(Cns::ActiveNamespaceList.value(), after);
            let reply = self.admin("listing namespaces", command, AdminData::In(IDENTIFY_BYTES)).await?;
            let list = NamespaceList::read_from_bytes(&reply.data)
                .map_err(|_| HostError::Malformed { what: "the namespace list", problem: "too short" })?;
            let before = all.len();
            for nsid in list.iter() {
                if nsid <= all.last().copied().unwrap_or(0) {
                    return Err(HostError::Malformed { what: "the namespace list", problem: "not rising" });
                }
                all.push(nsid);
            }
            if all.len() - before < NamespaceList::CAPACITY {
                return Ok(all);
            }
        }
    }

    /// Identify Namespace.
    ///
    /// # Errors
    /// As [`Controller::admin`].
    pub async fn identify_namespace(&self, nsid: u32) -> Result<NamespaceData, HostError> {
        let command = Command::identify(Cns::Namespace.value(), nsid);
        let reply = self.admin("Identify Namespace", command, AdminData::In(IDENTIFY_BYTES)).await?;
        NamespaceData::read_from_bytes(&reply.data)
            .map_err(|_| HostError::Malformed { what: "Identify Namespace", problem: "too short" })
    }

    /// Size and block size of a namespace.
    ///
    /// # Errors
    /// As [`Controller::admin`]; also when there is no such namespace, or it has metadata.
    pub async fn geometry(&self, nsid: u32) -> Result<Geometry, HostError> {
        let data = self.identify_namespace(nsid).await?;
        let what = "Identify Namespace";
        if data.nsze.get() == 0 {
            let status = Status::INVALID_NAMESPACE_OR_FORMAT;
            return Err(HostError::Command { what, status });
        }
        if data.metadata_bytes() != 0 {
            return Err(HostError::Unsupported("metadata"));
        }
        let block_bytes =
            data.block_bytes().ok_or(HostError::Malformed { what, problem: "an impossible block size" })?;
        Ok(Geometry::new(data.nsze.get(), block_bytes))
    }

    /// `bytes` (a multiple of 4) of a log page from byte `offset`.
    ///
    /// # Errors
    /// As [`Controller::admin`].
    pub async fn get_log_page(
        &self,
        lid: u8,
        nsid: u32,
        offset: u64,
        bytes: usize,
    ) -> Result<Vec<u8>, HostError> {
        if !bytes.is_multiple_of(4) || !offset.is_multiple_of(4) {
            return Err(HostError::Option("log pages are read in dwords".into()));
        }
        let mut page = Vec::with_capacity(bytes);
        while page.len() < bytes {
            let part = (bytes - page.len()).min(LOG_CHUNK);
            let from = offset + page.len() as u64;
            let command = Command::get_log_page(lid, nsid, from, part as u32);
            let reply = self.admin("Get Log Page", command, AdminData::In(part)).await?;
            if reply.data.len() < part {
                return Err(HostError::Malformed { what: "Get Log Page", problem: "too short" });
            }
            page.extend_from_slice(&reply.data);
        }
        Ok(page)
    }

    /// Waits for the next asynchronous event.
    pub async fn next_event(&self) -> EventResult {
        loop {
            let event = self.inner.admin.borrow().take_event();
            match event {
                Some(event) => return event,
                None => self.inner.event.wait().await,
            }
        }
    }

    /// Shuts the controller down as the specification asks (CC.SHN, then CSTS.SHST) and disconnects. Queue pairs that are
    /// open end; what they have outstanding gets a second for it, and then ends with Host Pathing Error.
    ///
    /// # Errors
    /// What went wrong on the way. The controller is disconnected all the same.
    pub async fn shutdown(self) -> Result<(), HostError> {
        let inner = self.inner.clone();
        let limit = inner.options.connect_timeout;
        let admin = inner.admin.borrow().clone();
        let (shared, until) = (&inner.shared, now() + DRAIN);
        shared.begin_to_end();
        while shared.has_queues() && now() < until && admin.loss().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        shared.give_up();
        self.keeper.abort();
        if let Some(loss) = admin.loss() {
            return Err(loss.into());
        }
        let configuration = Configuration::ENABLE_NVM.with_shutdown(ShutdownNotification::Normal);
        set_property(&admin, limit, Property::Cc, u64::from(configuration.bits())).await?;
        within("the controller's shutdown", limit, async {
            loop {
                let status = status(&admin, limit).await?;
                if status.shutdown() == Some(ShutdownStatus::Complete) {
                    return Ok::<(), HostError>(());
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await??;
        admin.close(Loss::Disconnected);
        Ok(())
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.keeper.abort();
        self.inner.shared.give_up();
        *self.inner.state.borrow_mut() = ControllerState::Ended;
        let admin = self.inner.admin.borrow().clone();
        admin.close(Loss::Disconnected);
    }
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("address", &self.inner.options.address)
            .field("subsystem", &self.inner.options.subsystem.as_str())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// The controller's task: keep alive, notice a loss, reconnect.
async fn keep(weak: Weak<Inner>) {
    loop {
        let Some(inner) = weak.upgrade() else { return };
        let loss = watch(inner).await;
        let Some(inner) = weak.upgrade() else { return };
        let Some(loss) = loss else { return };
        tracing::warn!(address = %inner.options.address, %loss, "lost a controller");
        *inner.last_error.borrow_mut() = Some(loss.to_string());
        inner.admin.borrow().clone().close(Loss::ControllerLost);
        inner.shared.fail(inner.shared.epoch(), loss.is_silent());
        if !reconnect(&inner).await {
            *inner.state.borrow_mut() = ControllerState::Ended;
            inner.shared.give_up();
            return;
        }
        *inner.state.borrow_mut() = ControllerState::Live;
        tracing::info!(address = %inner.options.address, "reconnected a controller");
    }
}

/// Waits until the controller is lost, and says why; none when it was ended.
async fn watch(inner: Rc<Inner>) -> Option<Loss> {
    let weak = Rc::downgrade(&inner);
    let keep_alive = inner.options.keep_alive;
    let lost = inner.lost.clone();
    drop(inner);
    let mut next = now() + keep_alive / 2;
    loop {
        // Only a tick or a loss ends the wait.
        let _ = within("", TICK, lost.wait()).await;
        let inner = weak.upgrade()?;
        let admin = inner.admin.borrow().clone();
        if let Some(loss) = admin.loss() {
            return Some(loss);
        }
        match inner.shared.epoch() {
            GIVEN_UP => return None,
            epoch if !epoch.is_multiple_of(2) => return Some(Loss::ControllerLost),
            _ => {}
        }
        if !keep_alive.is_zero() && now() >= next {
            next = now() + keep_alive / 2;
            drop(inner);
            if admin.execute("Keep Alive", keep_alive, Command::keep_alive(), AdminData::None).await.is_err()
            {
                return Some(admin.loss().unwrap_or(Loss::CommandTimeout));
            }
        }
    }
}

/// Tries until the controller is back. False when it is given up.
async fn reconnect(inner: &Rc<Inner>) -> bool {
    let since = now();
    let mut delay = inner.options.reconnect_delay;
    for attempts in 0.. {
        *inner.state.borrow_mut() = ControllerState::Reconnecting { attempts };
        if inner.shared.epoch() == GIVEN_UP
            || inner.options.loss_timeout.is_some_and(|limit| now() - since >= limit)
        {
            return false;
        }
        // Hosts that lost the same controller don't come back in step.
        let jitter = delay.as_nanos() as u64 / 4 + 1;
        sleep(delay + Duration::from_nanos(sledge_reactor::random_u64() % jitter)).await;
        delay = (delay * 2).min(inner.options.reconnect_delay_max);
        match establish(&inner.options, &inner.lost, &inner.event).await {
            Ok((admin, info)) => {
                inner.shared.restore(info.parameters());
                *inner.info.borrow_mut() = info;
                *inner.admin.borrow_mut() = admin;
                return true;
            }
            Err(error) => {
                tracing::debug!(address = %inner.options.address, %error, attempts, "reconnecting failed");
                *inner.last_error.borrow_mut() = Some(error.to_string());
            }
        }
    }
    false
}
