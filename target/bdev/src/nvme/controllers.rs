//! The table of named controllers, and what the management side does with it: attach, detach, reset, ask.
//!
//! Invariant: names are unique, and a controller in the table has at least one path. One change is made at a time, by
//! the management side; each is bounded in time and leaves I/O on other paths alone. A cheap handle: clones are the
//! same table.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use sledge_nvme::Command;
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::function::Function;
use sledge_nvmf::host::{AdminData, AdminReply};
use sledge_reactor::message::Handle;
use uuid::Uuid;

use super::controller::{Change, Changes, Controller};
use super::deferred::Deferred;
use super::device::NvmeDevice;
use super::error::NvmeError;
use super::look::Connected;
use super::options::{AttachOptions, Multipath, NvmeOptions, Transport, host_nqn};
use super::path::{Link, Path, PathState};
use super::pcie;
use super::report::{self, ControllerReport, IoPathReport, QueueCounts};
use super::tcp::{self, within};
use crate::device::{BlockDevice, check_shape};

/// How long an attach may take in all.
const ATTACH_LIMIT: Duration = Duration::from_secs(30);

/// Opens a drive by its address, in an environment.
pub type OpenDrive = dyn Fn(&str, &str) -> Result<Arc<dyn Function>, String> + Send + Sync;

#[derive(Default)]
struct Inner {
    reactors: OnceLock<Vec<Handle>>,
    controllers: Mutex<Vec<Arc<Controller>>>,
    changes: Arc<Changes>,
    paths: AtomicU64,
    deferred: Mutex<Vec<Deferred>>,
    /// Opens drives, where that is not the machine's own bus.
    opener: OnceLock<Box<OpenDrive>>,
    /// This process as a host, where nothing else is asked for.
    host: OnceLock<Option<Nqn>>,
}

/// All NVMe controllers of a process.
#[derive(Clone, Default)]
pub struct Controllers {
    inner: Arc<Inner>,
}

/// What an attach did.
pub struct Attached {
    /// Devices that it made, which are to be registered.
    pub made: Vec<Arc<NvmeDevice>>,
    /// Names of all devices that the path leads to.
    pub names: Vec<String>,
    path: u64,
}

/// What a detach is going to do; see [`Controllers::finish_detach`].
pub struct Detaching {
    /// Devices that go with the last path.
    pub devices: Vec<Arc<NvmeDevice>>,
    controller: Arc<Controller>,
    paths: Vec<Arc<Path>>,
    deferred: Vec<AttachOptions>,
}

impl Controllers {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says on which reactors controllers live. Nothing can be attached before.
    pub fn start(&self, reactors: Vec<Handle>) {
        // They are started once in a process.
        let _ = self.inner.reactors.set(reactors);
    }

    /// Has drives opened by `open` rather than on the machine's bus: for tests.
    pub fn open_drives_by(
        &self,
        open: impl Fn(&str, &str) -> Result<Arc<dyn Function>, String> + Send + Sync + 'static,
    ) {
        let _ = self.inner.opener.set(Box::new(open));
    }

    fn open_drive(&self, address: &str, environment: &str) -> Result<Arc<dyn Function>, String> {
        match self.inner.opener.get() {
            Some(open) => open(address, environment),
            None => pcie::open(address, environment),
        }
    }

    /// Has `tell` called, on any thread, when [`Controllers::take_changes`] has something. It must not block.
    pub fn on_change(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.inner.changes.on_change(Arc::new(tell));
    }

    /// What controllers announced since the last call.
    #[must_use]
    pub fn take_changes(&self) -> Vec<Change> {
        self.inner.changes.take()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Controller>>> {
        self.inner.controllers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn with_deferred<T>(&self, act: impl FnOnce(&mut Vec<Deferred>) -> T) -> T {
        act(&mut self.inner.deferred.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, name: &str) -> Result<Arc<Controller>, NvmeError> {
        let found = self.lock().iter().find(|controller| controller.name == name).cloned();
        found.ok_or_else(|| NvmeError::NotFound { name: name.to_owned() })
    }

    fn host(&self) -> Option<Nqn> {
        self.inner.host.get_or_init(|| host_nqn(Uuid::new_v4())).clone()
    }

    /// Attaches a path, to a controller of that name if there is one. Waits until it is connected and its namespaces
    /// are known, for a bounded time.
    ///
    /// # Errors
    /// It can't be reached, leads elsewhere than the paths that are there, or is not wanted. Nothing has changed then.
    pub async fn attach(
        &self,
        options: AttachOptions,
        settings: &NvmeOptions,
    ) -> Result<Attached, NvmeError> {
        let name = options.name.clone();
        let wrong =
            |parameter, problem: String| NvmeError::Parameter { name: name.clone(), parameter, problem };
        check_shape(&format!("{name}n1"), 1, 512)?;
        let everywhere = self.lock().clone();
        let drive = matches!(options.transport, Transport::Pcie { .. });
        let taken = |controller: &Arc<Controller>| controller.leads_to(&options.transport);
        if drive && everywhere.iter().any(taken) {
            return Err(NvmeError::PathExists { name });
        }
        let before = self.find(&name).ok();
        if let Some(before) = &before {
            let known = |path: &Arc<Path>| path.leads_to(&options.transport);
            if before.paths().iter().any(known) {
                return Err(NvmeError::PathExists { name });
            }
            let off = options.multipath == Multipath::Disable || before.multipath == Multipath::Disable;
            if off || matches!(options.transport, Transport::Pcie { .. }) {
                return Err(NvmeError::Exists { name });
            }
            match (&before.options.transport, &options.transport) {
                (Transport::Tcp { subsystem: one, .. }, Transport::Tcp { subsystem: two, .. })
                    if one == two => {}
                _ => return Err(wrong("subnqn", "is another than that of the paths that are there".into())),
            }
        }
        let host = options.host.clone().or_else(|| self.host());
        let host = host.ok_or_else(|| wrong("hostnqn", "is needed".into()))?;
        let controllers = self.clone();
        let number = self.inner.paths.fetch_add(1, Ordering::Relaxed);
        let settings = settings.clone();
        let reactors = self.reactors()?.to_vec();
        let function = match &options.transport {
            Transport::Tcp { .. } => None,
            // Blocks, as the management side may.
            Transport::Pcie { address, environment } => Some(
                self.open_drive(address, environment)
                    .map_err(|reason| NvmeError::Open { to: options.transport.to_string(), reason })?,
            ),
        };
        let attaching = self.owner(number)?.spawn(move || async move {
            let connected = match function {
                // The driver's own limits hold.
                Some(function) => {
                    pcie::connect(number, options.clone(), settings.clone(), function, reactors).await?
                }
                None => connect_tcp(number, &options, &settings, host).await?,
            };
            let changes = controllers.inner.changes.clone();
            let about = connected.look.about.clone();
            let controller =
                before.unwrap_or_else(|| Arc::new(Controller::new(&options, &settings, about, changes)));
            controllers.take_in(&controller, connected).await
        });
        attaching.await?
    }

    /// Takes a connected path into a controller, and the controller into the table. On the path's owner.
    async fn take_in(
        &self,
        controller: &Arc<Controller>,
        connected: Connected,
    ) -> Result<Attached, NvmeError> {
        let Connected { path, look } = connected;
        let made = match controller.add_path(&path, &look) {
            Ok(made) => made,
            Err(error) => {
                path.close(PathState::Disabled).await;
                return Err(error);
            }
        };
        {
            let mut all = self.lock();
            if !all.iter().any(|known| Arc::ptr_eq(known, controller)) {
                all.push(controller.clone());
            }
        }
        controller.watch(&path, look.incarnation);
        let devices = controller.devices();
        let led = devices.iter().filter(|device| device.route_of(&path).is_some());
        let names = led.map(|device| device.name().to_owned()).collect();
        tracing::info!(name = controller.name, to = %path.options.transport, "attached an NVMe controller");
        Ok(Attached { made, names, path: path.number })
    }

    fn reactors(&self) -> Result<&[Handle], NvmeError> {
        self.inner.reactors.get().map(Vec::as_slice).ok_or(NvmeError::NotStarted)
    }

    /// The reactor for a path's controller.
    fn owner(&self, number: u64) -> Result<&Handle, NvmeError> {
        let reactors = self.reactors()?;
        let at = number.checked_rem(reactors.len() as u64).ok_or(NvmeError::NotStarted)?;
        Ok(&reactors[at as usize])
    }

    /// Takes an attach back.
    pub fn undo_attach(&self, attached: &Attached) {
        let all = self.lock().clone();
        for controller in all {
            let mut paths = controller.paths();
            paths.retain(|path| path.number == attached.path);
            if !paths.is_empty() {
                attached.made.iter().for_each(|device| controller.forget(device));
                self.let_go(&controller, &paths);
            }
        }
    }

    /// Prepares to detach a controller, or only those of its paths that `which` picks. Its devices go with its last
    /// path; they must not be in use, which the caller sees to.
    ///
    /// # Errors
    /// There is no such controller or path.
    pub fn detach(&self, name: &str, which: impl Fn(&AttachOptions) -> bool) -> Result<Detaching, NvmeError> {
        let controller = self.find(name)?;
        let all = controller.paths();
        let paths: Vec<_> = all.iter().filter(|path| which(&path.options)).cloned().collect();
        let meant = |deferred: &Deferred| deferred.options.name == name && which(&deferred.options);
        let deferred: Vec<_> = self.deferred().into_iter().filter(meant).map(|found| found.options).collect();
        if paths.is_empty() && deferred.is_empty() {
            return Err(NvmeError::NoSuchPath { name: name.to_owned() });
        }
        let devices = if paths.len() == all.len() { controller.devices() } else { Vec::new() };
        Ok(Detaching { devices, controller, paths, deferred })
    }

    /// Detaches; connections are closed in their own time.
    pub fn finish_detach(&self, detaching: Detaching) {
        let Detaching { controller, paths, deferred, .. } = detaching;
        deferred.iter().for_each(|options| self.forget_deferred(options));
        self.let_go(&controller, &paths);
    }

    fn let_go(&self, controller: &Arc<Controller>, paths: &[Arc<Path>]) {
        for path in paths {
            controller.remove_path(path);
            let (closing, owner) = (path.clone(), path.owner.clone());
            drop(owner.spawn(move || async move { closing.close(PathState::Disabled).await }));
            tracing::info!(name = controller.name, to = %path.options.transport, "detached an NVMe controller");
        }
        if controller.paths().is_empty() {
            self.lock().retain(|known| !Arc::ptr_eq(known, controller));
        }
    }

    /// All controllers, or the one of a name, in the order in which they were attached.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn list(&self, name: Option<&str>) -> Result<Vec<ControllerReport>, NvmeError> {
        let chosen = match name {
            Some(name) => vec![self.find(name)?],
            None => self.lock().clone(),
        };
        let deferred = self.deferred();
        Ok(chosen.iter().map(|controller| report::controller(controller, &deferred)).collect())
    }

    /// Whether drives were taken out, which [`Controllers::bring_back`] would look for.
    #[must_use]
    pub fn has_removed_drives(&self) -> bool {
        !self.removed_drives().is_empty()
    }

    fn removed_drives(&self) -> Vec<Arc<Path>> {
        let mut paths: Vec<_> = self.lock().iter().flat_map(|controller| controller.paths()).collect();
        paths.retain(|path| matches!(&path.link, Link::Pcie(link) if link.is_removed()));
        paths
    }

    /// Looks for drives that were taken out, in their old places, and has those that are back go on. Blocks for a
    /// while: call it from the management side.
    pub async fn bring_back(&self) {
        for path in self.removed_drives() {
            let (Link::Pcie(link), Transport::Pcie { address, environment }) =
                (&path.link, &path.options.transport)
            else {
                continue;
            };
            if self.inner.opener.get().is_none()
                && let Err(reason) = pcie::take_back(address, environment, &path.about().serial_number, link)
            {
                tracing::debug!(address, reason, "a drive is not back yet");
                continue;
            }
            let opened = self.open_drive(address, environment);
            let back = match opened {
                Ok(function) => link.put_back(&path, function).await.map_err(|error| error.to_string()),
                Err(reason) => Err(reason),
            };
            match back {
                Ok(()) => tracing::info!(address, "a drive is back"),
                Err(reason) => tracing::debug!(address, reason, "a drive is not back yet"),
            }
        }
    }

    /// Shuts all controllers down, before the reactors end: a drive must not reach memory that is given back.
    pub async fn shut_down(&self) {
        let all = self.lock().clone();
        let close = |path: Arc<Path>| {
            let owner = path.owner.clone();
            owner.spawn(move || async move { path.close(PathState::Disabled).await })
        };
        // All at once: one that does not answer does not take the time of the others.
        let closing: Vec<_> = all.iter().flat_map(|controller| controller.paths()).map(close).collect();
        for closed in closing {
            let _ = closed.await;
        }
    }

    /// The attaches that made the table, in order.
    #[must_use]
    pub fn attaches(&self) -> Vec<AttachOptions> {
        let all = self.lock().clone();
        let paths = all.iter().flat_map(|controller| controller.paths());
        let attached = paths.map(|path| path.options.clone());
        attached.chain(self.deferred().into_iter().map(|deferred| deferred.options)).collect()
    }

    /// The devices of a controller.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn devices(&self, name: &str) -> Result<Vec<Arc<NvmeDevice>>, NvmeError> {
        Ok(self.find(name)?.devices())
    }

    /// Forgets a device whose namespace has vanished: one that appears there is a new one.
    pub fn forget(&self, device: &Arc<NvmeDevice>) {
        if let Ok(controller) = self.find(device.controller()) {
            controller.forget(device);
        }
    }

    /// What the queues on drives counted, of each controller and reactor.
    pub async fn queue_counts(&self) -> Vec<QueueCounts> {
        let all = self.lock().clone();
        let mut counts = Vec::new();
        for controller in all {
            counts.extend(report::queue_counts(&controller).await);
        }
        counts
    }

    /// The paths of a device.
    #[must_use]
    pub fn io_paths(&self, device: &NvmeDevice) -> Vec<IoPathReport> {
        report::io_paths(device)
    }

    /// Has a device prefer the path whose controller has this identifier.
    ///
    /// # Errors
    /// There is none.
    pub fn set_preferred(&self, device: &NvmeDevice, cntlid: u16) -> Result<(), NvmeError> {
        let routes = device.routes();
        let route = routes.iter().find(|route| route.path.about().cntlid == cntlid);
        let route = route.ok_or_else(|| NvmeError::NoSuchPath { name: device.controller().to_owned() })?;
        device.set_preferred(Some(route.path.number));
        Ok(())
    }

    /// The controller's paths, or the one with this controller identifier.
    fn paths_of(
        &self,
        name: &str,
        cntlid: Option<u16>,
    ) -> Result<(Arc<Controller>, Vec<Arc<Path>>), NvmeError> {
        let controller = self.find(name)?;
        let mut paths = controller.paths();
        paths.retain(|path| cntlid.is_none_or(|cntlid| path.about().cntlid == cntlid));
        if paths.is_empty() {
            return Err(NvmeError::NoSuchPath { name: name.to_owned() });
        }
        Ok((controller, paths))
    }

    /// Sends an admin command over the first path that is connected. A status that is not success is an answer, too. It may
    /// take `limit`; after that the controller is reset.
    ///
    /// # Errors
    /// None is connected, or the connection is lost.
    pub async fn admin(
        &self,
        name: &str,
        command: Command,
        data: AdminData,
        limit: Option<Duration>,
    ) -> Result<AdminReply, NvmeError> {
        let (_, paths) = self.paths_of(name, None)?;
        let live = paths.iter().find(|path| path.state() == PathState::Live);
        let path = live.ok_or_else(|| NvmeError::NotConnected { name: name.to_owned() })?;
        path.admin(command, data, limit).await
    }

    /// Resets a controller, or the one with this identifier: its I/O goes on over other paths, or waits. One that was
    /// given up is connected again.
    ///
    /// # Errors
    /// There is none, or it can't be reached.
    pub async fn reset(&self, name: &str, cntlid: Option<u16>) -> Result<(), NvmeError> {
        let (controller, paths) = self.paths_of(name, cntlid)?;
        for path in paths {
            if matches!(path.link, Link::Pcie(_)) {
                path.reset().await?;
                continue;
            }
            match path.state() {
                PathState::Live => path.reset().await?,
                PathState::GivenUp => self.revive(&controller, &path).await?,
                // It is being brought back already, or is to stay away.
                PathState::Lost | PathState::Disabled => {}
            }
        }
        Ok(())
    }

    /// Disconnects a controller, or the one with this identifier, until it is enabled.
    ///
    /// # Errors
    /// There is none.
    pub async fn disable(&self, name: &str, cntlid: Option<u16>) -> Result<(), NvmeError> {
        let (controller, paths) = self.paths_of(name, cntlid)?;
        if paths.iter().any(|path| matches!(path.link, Link::Pcie(_))) {
            let problem = "is a drive: detach it instead".to_owned();
            return Err(NvmeError::Parameter { name: name.to_owned(), parameter: "name", problem });
        }
        for path in paths {
            // First no more I/O, so that what is under way can end.
            path.set_state(PathState::Disabled);
            controller.lost(&path);
            path.close(PathState::Disabled).await;
            controller.lost(&path);
        }
        Ok(())
    }

    /// Connects a controller that was disabled or given up, or the one with this identifier.
    ///
    /// # Errors
    /// There is none, or it can't be reached.
    pub async fn enable(&self, name: &str, cntlid: Option<u16>) -> Result<(), NvmeError> {
        let (controller, paths) = self.paths_of(name, cntlid)?;
        for path in paths.iter().filter(|path| path.is_over()) {
            self.revive(&controller, path).await?;
        }
        Ok(())
    }

    /// Puts a new path in the place of one that is over.
    async fn revive(&self, controller: &Arc<Controller>, old: &Arc<Path>) -> Result<(), NvmeError> {
        let (options, settings) = (old.options.clone(), old.settings.clone());
        let missing = || NvmeError::NotConnected { name: controller.name.clone() };
        let host = options.host.clone().or_else(|| self.host()).ok_or_else(missing)?;
        let number = self.inner.paths.fetch_add(1, Ordering::Relaxed);
        let (controllers, controller, old) = (self.clone(), controller.clone(), old.clone());
        let reviving = self.owner(number)?.spawn(move || async move {
            let connected = connect_tcp(number, &options, &settings, host).await?;
            let attached = controllers.take_in(&controller, connected).await?;
            for device in attached.made {
                controllers.inner.changes.push(Change::Appeared(device));
            }
            controller.remove_path(&old);
            Ok(())
        });
        reviving.await?
    }
}

/// Connects over NVMe/TCP, within a limit for all of it.
async fn connect_tcp(
    number: u64,
    options: &AttachOptions,
    settings: &NvmeOptions,
    host: Nqn,
) -> Result<Connected, NvmeError> {
    let connecting = tcp::connect(number, options.clone(), settings.clone(), host);
    within(ATTACH_LIMIT, connecting).await.unwrap_or_else(|| {
        let what = format!("attaching {}", options.transport);
        Err(NvmeError::Timeout { what, limit: ATTACH_LIMIT })
    })
}
