//! The block device: a namespace over the routes that lead to it.
//!
//! Invariant: what channels need to choose a route is one value, [`View`], that is replaced as a whole; channels see a
//! new one by its number. The geometry that hosts know only grows, when the management side says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sledge_nvme::identify::capability;
use sledge_nvme::io::{Channel, Geometry, Operation};
use uuid::Uuid;

use super::channel::NvmeChannel;
use super::found::{Found, Identity};
use super::options::{AttachOptions, NvmeOptions, PathPolicy, Transport};
use super::path::{About, Path};
use super::report;
use super::route::Route;
use crate::device::{BlockDevice, Description, DeviceError, UndoResize, check_growth};
use crate::statistics::DeviceCounters;

/// What channels choose among.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) policy: PathPolicy,
    /// Number of the path that comes first among its equals.
    pub(crate) preferred: Option<u64>,
    /// Most bytes of one command on every route; none is unlimited.
    pub(crate) max_transfer_bytes: Option<u64>,
}

/// What the namespace can do.
#[derive(Clone, Copy, Debug)]
struct Features {
    oncs: u16,
    fuses: u16,
    volatile_write_cache: bool,
    zeroes_after_deallocate: bool,
}

/// What all channels of a device use.
pub(crate) struct Shared {
    pub(crate) name: String,
    geometry: RwLock<Geometry>,
    view: RwLock<Arc<View>>,
    number: AtomicU64,
    /// How often a command is repeated because of a status.
    pub(crate) retry_count: Option<u32>,
    pub(crate) failback: bool,
    /// How long I/O waits for a route; none is as long as there is hope.
    pub(crate) fast_fail: Option<Duration>,
    /// How long a controller that lost touch may hold on to a command.
    pub(crate) quiesce: Duration,
}

impl Shared {
    /// Changes whenever the view does.
    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn geometry(&self) -> Geometry {
        *self.geometry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut View)) {
        let mut place = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let mut view = View::clone(&place);
        change(&mut view);
        let limits = view.routes.iter().filter_map(|route| route.path.about().max_transfer_bytes);
        view.max_transfer_bytes = limits.min();
        *place = Arc::new(view);
        drop(place);
        self.number.fetch_add(1, Ordering::AcqRel);
    }
}

/// A namespace of an NVMe controller.
pub struct NvmeDevice {
    controller: String,
    nsid: u32,
    uuid: Uuid,
    identity: Identity,
    is_shared: bool,
    is_drive: bool,
    features: Features,
    shared: Arc<Shared>,
    counters: Arc<DeviceCounters>,
}

impl NvmeDevice {
    pub(crate) fn new(
        controller: &str,
        found: &Found,
        about: &About,
        settings: &NvmeOptions,
        options: &AttachOptions,
        policy: PathPolicy,
    ) -> Self {
        let owner = match &options.transport {
            Transport::Tcp { subsystem, .. } => subsystem.as_str().to_owned(),
            Transport::Pcie { .. } => format!("{} {}", about.model_number, about.serial_number),
        };
        let view = View { routes: Vec::new(), policy, preferred: None, max_transfer_bytes: None };
        let shared = Shared {
            name: format!("{controller}n{}", found.nsid),
            geometry: RwLock::new(found.geometry),
            view: RwLock::new(Arc::new(view)),
            number: AtomicU64::new(0),
            retry_count: settings.retry_count,
            failback: settings.failback,
            fast_fail: options.reconnect.fast_fail,
            quiesce: settings.quiesce(),
        };
        Self {
            controller: controller.to_owned(),
            nsid: found.nsid,
            uuid: found.identity.device_uuid(&owner, found.nsid),
            identity: found.identity,
            is_shared: found.shared,
            is_drive: matches!(options.transport, Transport::Pcie { .. }),
            features: Features {
                oncs: about.oncs,
                fuses: about.fuses,
                volatile_write_cache: about.volatile_write_cache,
                zeroes_after_deallocate: found.zeroes_after_deallocate,
            },
            shared: Arc::new(shared),
            counters: Arc::default(),
        }
    }

    /// The controller that it belongs to.
    #[must_use]
    pub fn controller(&self) -> &str {
        &self.controller
    }

    /// Its namespace identifier there.
    #[must_use]
    pub fn nsid(&self) -> u32 {
        self.nsid
    }

    /// The namespace's own identifiers.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether a path shows the namespace at this moment.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.routes().iter().any(|route| route.is_up())
    }

    /// How many paths show the namespace, and take I/O.
    #[must_use]
    pub fn routes_up(&self) -> usize {
        self.routes().iter().filter(|route| route.is_up()).count()
    }

    /// Whether several controllers may have the namespace.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    pub(crate) fn raw_geometry(&self) -> Geometry {
        self.shared.geometry()
    }

    /// How it uses several paths.
    #[must_use]
    pub fn policy(&self) -> PathPolicy {
        self.shared.view().policy
    }

    /// Changes how it uses several paths.
    pub fn set_policy(&self, policy: PathPolicy) {
        self.shared.change(|view| view.policy = policy);
    }

    pub(crate) fn preferred(&self) -> Option<u64> {
        self.shared.view().preferred
    }

    pub(crate) fn set_preferred(&self, path: Option<u64>) {
        self.shared.change(|view| view.preferred = path);
    }

    pub(crate) fn routes(&self) -> Vec<Arc<Route>> {
        self.shared.view().routes.clone()
    }

    pub(crate) fn route_of(&self, path: &Path) -> Option<Arc<Route>> {
        self.shared.view().routes.iter().find(|route| std::ptr::eq(&*route.path, path)).cloned()
    }

    pub(crate) fn add_route(&self, route: Arc<Route>) {
        self.shared.change(|view| view.routes.push(route));
    }

    /// A path's limits have changed.
    pub(crate) fn take_limits(&self) {
        self.shared.change(|_| {});
    }

    pub(crate) fn remove_route(&self, path: &Path) {
        self.shared.change(|view| {
            view.routes.retain(|route| !std::ptr::eq(&*route.path, path));
            view.preferred = view.preferred.filter(|preferred| *preferred != path.number);
        });
    }

    /// Takes the size that the namespace has grown to. Channels that are open keep the size that they were opened with.
    ///
    /// # Errors
    /// It is smaller.
    pub fn grow(self: &Arc<Self>, geometry: Geometry) -> Result<UndoResize, DeviceError> {
        let old = self.raw_geometry();
        check_growth(&self.shared.name, "num_blocks", old.blocks, geometry.blocks)?;
        let device = Arc::clone(self);
        device.set_geometry(geometry);
        Ok(Box::new(move || device.set_geometry(old)))
    }

    fn set_geometry(&self, geometry: Geometry) {
        *self.shared.geometry.write().unwrap_or_else(PoisonError::into_inner) = geometry;
    }

    fn has(&self, command: u16) -> bool {
        self.features.oncs & command != 0
    }
}

impl BlockDevice for NvmeDevice {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn uuid(&self) -> Uuid {
        self.uuid
    }

    fn product(&self) -> &'static str {
        "NVMe disk"
    }

    fn geometry(&self) -> Geometry {
        self.raw_geometry()
    }

    fn supports(&self, operation: Operation) -> bool {
        use capability::{fuses, oncs};
        match operation {
            Operation::Read | Operation::Write | Operation::Flush => true,
            Operation::Compare => self.has(oncs::COMPARE),
            Operation::CompareAndWrite => {
                self.has(oncs::COMPARE) && self.features.fuses & fuses::COMPARE_AND_WRITE != 0
            }
            // A namespace of ours offers both or none.
            Operation::WriteZeroes { .. } | Operation::Deallocate => {
                self.has(oncs::WRITE_ZEROES) && self.has(oncs::DATASET_MANAGEMENT)
            }
            // The driver of drives reads where a drive can't verify.
            Operation::Verify => self.is_drive || self.has(oncs::VERIFY),
        }
    }

    fn volatile_write_cache(&self) -> bool {
        self.features.volatile_write_cache
    }

    fn deallocated_reads_zeroes(&self) -> bool {
        self.features.zeroes_after_deallocate
    }

    fn open_channel(&self) -> Result<Box<dyn Channel>, DeviceError> {
        Ok(Box::new(NvmeChannel::open(self.shared.clone(), self.counters.open())))
    }

    fn description(&self) -> Description {
        Description::Nvme(report::describe(self))
    }

    fn counters(&self) -> &DeviceCounters {
        &self.counters
    }

    fn namespace_identity(&self) -> Option<Identity> {
        Some(self.identity)
    }
}

impl std::fmt::Debug for NvmeDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NvmeDevice").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
