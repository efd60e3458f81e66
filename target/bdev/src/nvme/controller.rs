//! What the management interface calls a controller: a name, the paths under it, and the devices of its namespaces.
//!
//! Invariant: each device's routes are those of the controller's paths; a route is verified only by a look at its path
//! that found the device's namespace, the same as before. Its lock is held for a few steps and never while waiting;
//! the paths' watches take it when a connection came back or a controller announced a change, the management side for
//! its calls, the data path never.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use sledge_nvme::io::Geometry;
use sledge_nvme::log_page::AnaState;

use super::device::NvmeDevice;
use super::error::NvmeError;
use super::look::Look;
use super::options::{AttachOptions, Multipath, NvmeOptions, PathMode, PathPolicy, Transport};
use super::path::{About, Link, Path};
use super::route::Route;
use crate::device::BlockDevice;

/// What a controller announced, or showed after its return, for the management side to act on.
#[derive(Clone)]
pub enum Change {
    /// There is a namespace more.
    Appeared(Arc<NvmeDevice>),
    /// A namespace has grown to this.
    Grown(Arc<NvmeDevice>, Geometry),
    /// No path shows the namespace any more.
    Vanished(Arc<NvmeDevice>),
}

/// Changes that the management side has not taken yet, and how it is told that there are some.
#[derive(Default)]
pub(crate) struct Changes {
    waiting: Mutex<Vec<Change>>,
    tell: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl Changes {
    pub(crate) fn push(&self, change: Change) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(change);
        let tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(tell) = tell {
            tell();
        }
    }

    pub(crate) fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn on_change(&self, tell: Arc<dyn Fn() + Send + Sync>) {
        *self.tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(tell);
    }
}

struct State {
    paths: Vec<Arc<Path>>,
    devices: Vec<Arc<NvmeDevice>>,
}

/// A name, its paths and its devices.
pub(crate) struct Controller {
    pub(crate) name: String,
    pub(crate) multipath: Multipath,
    pub(crate) options: AttachOptions,
    settings: NvmeOptions,
    /// Of the first path: all others are compared with it.
    first: About,
    state: Mutex<State>,
    changes: Arc<Changes>,
}

impl Controller {
    /// A controller without paths, for one that shows `first`.
    pub(crate) fn new(
        options: &AttachOptions,
        settings: &NvmeOptions,
        first: About,
        changes: Arc<Changes>,
    ) -> Self {
        Self {
            name: options.name.clone(),
            multipath: options.multipath,
            options: options.clone(),
            settings: settings.clone(),
            first,
            state: Mutex::new(State { paths: Vec::new(), devices: Vec::new() }),
            changes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is a push or a removal: a panic elsewhere leaves the lists whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn paths(&self) -> Vec<Arc<Path>> {
        self.lock().paths.clone()
    }

    /// Whether one of its paths is that.
    pub(crate) fn leads_to(&self, transport: &Transport) -> bool {
        self.lock().paths.iter().any(|path| path.leads_to(transport))
    }

    pub(crate) fn devices(&self) -> Vec<Arc<NvmeDevice>> {
        self.lock().devices.clone()
    }

    /// Takes a path in, with what a first look at it showed. Returns the devices that it added. On the path's owner.
    ///
    /// # Errors
    /// It leads to something else than the paths that are there.
    pub(crate) fn add_path(&self, path: &Arc<Path>, look: &Look) -> Result<Vec<Arc<NvmeDevice>>, NvmeError> {
        let differs = |problem| NvmeError::Differs {
            name: self.name.clone(),
            to: path.options.transport.to_string(),
            problem,
        };
        look.about.is_of_the_same(&self.first).map_err(differs)?;
        let mut state = self.lock();
        for device in &state.devices {
            let found = look.found.iter().find(|found| found.nsid == device.nsid());
            let Some(found) = found else { continue };
            if !state.paths.is_empty() && !found.identity.is_known() {
                return Err(differs(format!("namespace {} has no identifiers to compare", found.nsid)));
            }
            found.is_the_same(&device.raw_geometry(), &device.identity()).map_err(differs)?;
        }
        state.paths.push(path.clone());
        Ok(self.update(&mut state, path, look))
    }

    /// A path was looked at again.
    pub(crate) fn see(&self, path: &Arc<Path>, look: &Look) {
        let mut state = self.lock();
        if !state.paths.iter().any(|known| Arc::ptr_eq(known, path)) {
            return;
        }
        if let Err(problem) = look.about.is_of_the_same(&self.first) {
            let to = &path.options.transport;
            tracing::error!(name = self.name, %to, problem, "another controller answers; it gets no I/O");
            for device in &state.devices {
                device.route_of(path).iter().for_each(|route| route.refuse());
            }
            return;
        }
        let limit_before = path.about().max_transfer_bytes;
        path.set_about(look.about.clone());
        if look.about.max_transfer_bytes != limit_before {
            state.devices.iter().for_each(|device| device.take_limits());
        }
        for device in self.update(&mut state, path, look) {
            self.changes.push(Change::Appeared(device));
        }
    }

    /// Brings routes and devices in line with a look at a path; returns the devices that it made.
    fn update(&self, state: &mut State, path: &Arc<Path>, look: &Look) -> Vec<Arc<NvmeDevice>> {
        for device in &state.devices {
            let Some(found) = look.found.iter().find(|found| found.nsid == device.nsid()) else {
                if let Some(route) = device.route_of(path) {
                    route.refuse();
                    if !device.routes().iter().any(|route| route.is_up()) {
                        self.changes.push(Change::Vanished(device.clone()));
                    }
                }
                continue;
            };
            let route = device.route_of(path).unwrap_or_else(|| {
                let route = Arc::new(Route::new(path.clone(), found.nsid));
                device.add_route(route.clone());
                route
            });
            match found.is_the_same(&device.raw_geometry(), &device.identity()) {
                Ok(()) => {
                    route.set_ana(Look::state_of(look.ana.as_deref(), found.ana_group));
                    route.verify(look.incarnation, found.ana_group);
                    if found.geometry.blocks > device.raw_geometry().blocks {
                        self.changes.push(Change::Grown(device.clone(), found.geometry));
                    }
                }
                Err(problem) => {
                    let to = &path.options.transport;
                    tracing::error!(device = device.name(), %to, problem, "another disk answers; it gets no I/O");
                    route.refuse();
                }
            }
        }
        let mut made = Vec::new();
        for found in &look.found {
            if state.devices.iter().any(|device| device.nsid() == found.nsid) {
                continue;
            }
            let policy = self.first_policy();
            let device =
                NvmeDevice::new(&self.name, found, &look.about, &self.settings, &self.options, policy);
            let route = Arc::new(Route::new(path.clone(), found.nsid));
            route.set_ana(Look::state_of(look.ana.as_deref(), found.ana_group));
            route.verify(look.incarnation, found.ana_group);
            let device = Arc::new(device);
            device.add_route(route);
            state.devices.push(device.clone());
            made.push(device);
        }
        made
    }

    fn first_policy(&self) -> PathPolicy {
        match self.multipath {
            Multipath::Multipath => self.options.policy,
            Multipath::Disable | Multipath::Failover => {
                PathPolicy { mode: PathMode::ActivePassive, ..self.options.policy }
            }
        }
    }

    /// A path's ANA states were read.
    pub(crate) fn see_ana(&self, path: &Arc<Path>, states: &[(u32, AnaState)]) {
        for device in &self.lock().devices {
            if let Some(route) = device.route_of(path) {
                route.set_ana(Look::state_of(Some(states), route.ana_group()));
            }
        }
    }

    /// A path's connection was lost.
    pub(crate) fn lost(&self, path: &Arc<Path>) {
        for device in &self.lock().devices {
            device.route_of(path).iter().for_each(|route| route.refuse());
        }
    }

    /// Takes a path out; the devices go on over the others.
    pub(crate) fn remove_path(&self, path: &Arc<Path>) {
        let mut state = self.lock();
        state.paths.retain(|known| !Arc::ptr_eq(known, path));
        for device in &state.devices {
            device.remove_route(path);
        }
    }

    /// Forgets a device, so that its namespace makes a new one when it is seen again.
    pub(crate) fn forget(&self, device: &Arc<NvmeDevice>) {
        self.lock().devices.retain(|known| !Arc::ptr_eq(known, device));
    }

    /// Begins to watch a path that was taken in. On its owner.
    pub(crate) fn watch(self: &Arc<Self>, path: &Arc<Path>, seen: u64) {
        let of: Weak<Controller> = Arc::downgrade(self);
        match &path.link {
            Link::Tcp(_) => super::tcp::start_watch(path, seen, of),
            Link::Pcie(link) => super::pcie::follow(path, link, of),
        }
    }
}
