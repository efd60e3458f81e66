//! A controller that is attached: what users of the driver hold.
//!
//! Owns [`Controller`], a handle that any thread may have, and what is published of the controller for its readers.
//! Invariant: everything that changes the controller happens on its owner's reactor, where its keeper is; a handle only
//! asks. Dropping handles detaches nothing. Block devices and the management interface call.

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sledge_reactor::local::LocalKey;
use sledge_reactor::message::Handle;

use super::admin::AdminBuffer;
use super::error::DriverError;
use super::events::{Listener, Listeners};
use super::keeper::Keeper;
use super::lifecycle::{Event, State};
use super::namespaces::NamespaceInfo;
use super::options::ControllerOptions;
use super::passthrough;
use super::queue_pair::DOORBELLS;
use super::queues::{LocalQueue, QueueReport};
use super::statistics::{ControllerStatistics, Counters};
use crate::command::Command;
use crate::completion::Completion;
use crate::function::Function;
use crate::identify::{ControllerData, NvmControllerData};
use crate::io::Channel;
use crate::property::{Capabilities, Version};

/// What a controller says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerIdentity {
    /// Identify Controller, all of it.
    pub data: Box<ControllerData>,
    /// Identify Controller of the NVM command set (CNS 06h), where it has that.
    pub limits: Option<Box<NvmControllerData>>,
    /// CAP.
    pub capabilities: Capabilities,
    /// VS.
    pub version: Version,
    /// I/O queue pairs that it gave.
    pub io_queues: u16,
    /// Entries of each.
    pub io_queue_depth: u32,
    /// Most bytes of data in one command, where it says so (MDTS).
    pub max_transfer_bytes: Option<u64>,
    /// Shadow doorbells are in use.
    pub shadow_doorbells: bool,
}

impl ControllerIdentity {
    /// Serial number.
    #[must_use]
    pub fn serial(&self) -> &str {
        self.data.serial_number()
    }

    /// Model number.
    #[must_use]
    pub fn model(&self) -> &str {
        self.data.model_number()
    }

    /// Firmware revision.
    #[must_use]
    pub fn firmware(&self) -> &str {
        self.data.firmware_revision()
    }
}

/// What readers see; the keeper writes it.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) state: State,
    pub(super) identity: Option<Arc<ControllerIdentity>>,
    pub(super) namespaces: Arc<[NamespaceInfo]>,
    pub(super) address: String,
    pub(super) environment: &'static str,
    /// Why it failed last.
    pub(super) last_error: Option<String>,
}

/// What the handles and the keeper share.
pub(super) struct Shared {
    pub(super) owner: Handle,
    pub(super) reactors: Vec<Handle>,
    pub(super) options: ControllerOptions,
    pub(super) listeners: Listeners,
    pub(super) counters: Arc<Counters>,
    /// The keeper, on the owner's reactor.
    pub(super) keeper: LocalKey<Keeper>,
    /// The I/O queue of each reactor, there.
    pub(super) queues: LocalKey<LocalQueue>,
    published: Mutex<Published>,
}

impl Shared {
    /// Reads or changes what is published.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Published) -> T) -> T {
        // Nothing panics while it holds the lock; if something did, the plain data is still usable.
        change(&mut self.published.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn state(&self) -> State {
        self.with(|published| published.state)
    }

    pub(super) fn publish(&self, state: State) {
        self.with(|published| published.state = state);
    }

    pub(super) fn address(&self) -> String {
        self.with(|published| published.address.clone())
    }

    pub(super) fn identity(&self) -> Option<Arc<ControllerIdentity>> {
        self.with(|published| published.identity.clone())
    }

    pub(super) fn set_identity(&self, identity: ControllerIdentity) {
        self.with(|published| published.identity = Some(Arc::new(identity)));
    }

    pub(super) fn amend_identity(&self, amend: impl FnOnce(&mut ControllerIdentity)) {
        self.with(|published| {
            if let Some(identity) = &mut published.identity {
                amend(Arc::make_mut(identity));
            }
        });
    }

    /// Publishes namespaces. Returns those before, when they differ.
    pub(super) fn set_namespaces(&self, namespaces: &Arc<[NamespaceInfo]>) -> Option<Arc<[NamespaceInfo]>> {
        self.with(|published| {
            let differ = published.namespaces != *namespaces;
            differ.then(|| std::mem::replace(&mut published.namespaces, namespaces.clone()))
        })
    }
}

/// A handle of an attached controller.
#[derive(Clone)]
pub struct Controller {
    shared: Arc<Shared>,
}

impl Controller {
    /// Brings a controller up. `owner` is the reactor that watches it; each of `reactors` gets a way to it, its own
    /// queue pair as far as the controller has enough. May be called from anywhere, tokio included.
    ///
    /// # Errors
    /// What kept the controller from coming up. The function is let go of then, as it is when the caller does not wait
    /// for the end.
    pub async fn attach(
        function: Arc<dyn Function>,
        owner: Handle,
        reactors: Vec<Handle>,
        options: ControllerOptions,
    ) -> Result<Self, DriverError> {
        options.check()?;
        if reactors.is_empty() {
            return Err(DriverError::Option("a controller needs at least one reactor".into()));
        }
        check_registers(&*function)?;
        let published = Published {
            state: State::Disabling,
            identity: None,
            namespaces: Arc::new([]),
            address: function.address().to_owned(),
            environment: function.environment(),
            last_error: None,
        };
        let shared = Arc::new(Shared {
            owner,
            reactors,
            options,
            listeners: Listeners::default(),
            counters: Arc::default(),
            keeper: LocalKey::new(),
            queues: LocalKey::new(),
            published: Mutex::new(published),
        });
        let kept = shared.clone();
        let mut attaching = Attaching { shared: Some(shared.clone()) };
        let attached = shared.owner.spawn(move || Keeper::start(kept, function)).await;
        attaching.shared = None;
        attached??;
        Ok(Self { shared })
    }

    /// What it says of itself; of a removed one, what it said last.
    #[must_use]
    pub fn identity(&self) -> Option<Arc<ControllerIdentity>> {
        self.shared.with(|published| published.identity.clone())
    }

    /// Its active namespaces, by rising identifier; those that can't be used say why.
    #[must_use]
    pub fn namespaces(&self) -> Arc<[NamespaceInfo]> {
        self.shared.with(|published| published.namespaces.clone())
    }

    /// A namespace.
    #[must_use]
    pub fn namespace(&self, nsid: u32) -> Option<NamespaceInfo> {
        self.namespaces().iter().find(|namespace| namespace.nsid == nsid).cloned()
    }

    /// How it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.with(|published| published.state)
    }

    /// Why it was reset, could not be brought up, or failed last.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.shared.with(|published| published.last_error.clone())
    }

    /// The function's name, such as its PCI address.
    #[must_use]
    pub fn address(&self) -> String {
        self.shared.with(|published| published.address.clone())
    }

    /// The environment that the function is reached by.
    #[must_use]
    pub fn environment(&self) -> &'static str {
        self.shared.with(|published| published.environment)
    }

    /// The options that it was attached with.
    #[must_use]
    pub fn options(&self) -> &ControllerOptions {
        &self.shared.options
    }

    /// Counts.
    #[must_use]
    pub fn statistics(&self) -> ControllerStatistics {
        self.shared.counters.read()
    }

    /// Counts of the I/O queue of each reactor that has one.
    pub async fn queues(&self) -> Vec<QueueReport> {
        let key = self.shared.queues;
        let reactors = self.shared.reactors.iter();
        let asked: Vec<_> = reactors
            .map(|reactor| reactor.spawn(move || async move { key.get().map(|local| local.report()) }))
            .collect();
        let mut reports = Vec::new();
        for remote in asked {
            // Reactors that have ended have none.
            reports.extend(remote.await.ok().flatten());
        }
        reports
    }

    /// From now on calls `listener` for what happens, on the owner's reactor; it must not block. It goes when the
    /// controller is detached.
    pub fn on_event(&self, listener: Listener) {
        self.shared.listeners.add(listener);
    }

    /// Opens a way for I/O to a namespace from the current reactor.
    ///
    /// # Errors
    /// When there is no such namespace, it can't be used, the current reactor is none of the controller's, or the
    /// controller was detached.
    pub fn open_channel(&self, nsid: u32) -> Result<Box<dyn Channel>, DriverError> {
        let namespace = self.namespace(nsid).ok_or(DriverError::NoNamespace { nsid })?;
        if let Some(reason) = namespace.refused {
            return Err(DriverError::NamespaceRefused { nsid, reason });
        }
        let current = sledge_reactor::message::current();
        let shape = namespace.shape.ok_or(DriverError::NoNamespace { nsid })?;
        let Some(local) = self.shared.queues.get() else {
            return Err(match self.state() {
                State::Detached => DriverError::Detached,
                _ => DriverError::ForeignReactor(current.id()),
            });
        };
        match local.queue.open_channel(shape) {
            Some(channel) => Ok(Box::new(channel)),
            None => Err(DriverError::QueueFull),
        }
    }

    /// Resets the controller, and waits until it takes I/O again. I/O that is outstanding is submitted again. A
    /// controller that failed is tried anew.
    ///
    /// # Errors
    /// When it did not come back.
    pub async fn reset(&self) -> Result<(), DriverError> {
        self.keeper(|keeper| async move {
            match keeper.ask(Event::ResetAsked).await {
                State::Live => Ok(()),
                _ => Err(keeper.failure()),
            }
        })
        .await
    }

    /// Shuts the controller down in an orderly manner (CC.SHN), gives all memory back and lets go of the function. I/O
    /// that is outstanding may finish ([`ControllerOptions::drain_timeout`]); what then still is, and what comes, fails.
    /// It comes before the end of the reactors: those that end first take memory with them that the controller may use.
    ///
    /// # Errors
    /// When the controller is detached already, or its owner's reactor has ended.
    pub async fn detach(&self) -> Result<(), DriverError> {
        self.keeper(|keeper| async move {
            keeper.ask(Event::DetachAsked).await;
            Ok(())
        })
        .await
    }

    /// Puts another function in the place of one that was removed: the same controller, by serial and model number.
    /// Commands that waited go on.
    ///
    /// # Errors
    /// When the controller is not removed, the function is another controller's, or it does not come up; it has failed
    /// in the latter two cases, and another replacement may be tried.
    pub async fn replace(&self, function: Arc<dyn Function>) -> Result<(), DriverError> {
        check_registers(&*function)?;
        self.keeper(|keeper| async move { keeper.replace(function).await }).await
    }

    /// Looks for namespaces that came, went or changed, and publishes them.
    ///
    /// # Errors
    /// When the controller can't tell.
    pub async fn rescan(&self) -> Result<(), DriverError> {
        self.keeper(|keeper| async move { keeper.rescan().await }).await
    }

    /// Sends an admin command of the user's and waits for its answer, whatever its status. Commands that would take
    /// the driver's own queues, events or doorbells from it are refused, as are those that transfer more than the
    /// buffer holds; whether a command harms data is the caller's to know. The data pointer and the command identifier
    /// are filled in.
    ///
    /// # Errors
    /// When the command is refused, the controller is not live, does not answer within
    /// [`ControllerOptions::admin_timeout`] (it is reset then; commands such as Format NVM have at least ten minutes), or is
    /// reset meanwhile.
    pub async fn admin(
        &self,
        command: Command,
        buffer: AdminBuffer,
    ) -> Result<(Completion, Vec<u8>), DriverError> {
        let limit = passthrough::usual_limit(&command, self.shared.options.admin_timeout);
        self.admin_within(limit, command, buffer).await
    }

    /// The same with a time of its own.
    ///
    /// # Errors
    /// As [`Controller::admin`].
    pub async fn admin_within(
        &self,
        limit: Duration,
        command: Command,
        buffer: AdminBuffer,
    ) -> Result<(Completion, Vec<u8>), DriverError> {
        self.keeper(move |keeper| async move { keeper.pass_on(limit, command, buffer).await }).await
    }

    /// Has the keeper do something.
    async fn keeper<T, Fut, F>(&self, act: F) -> Result<T, DriverError>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, DriverError>>,
        F: FnOnce(Rc<Keeper>) -> Fut + Send + 'static,
    {
        let key = self.shared.keeper;
        let asked = self.shared.owner.spawn(move || async move {
            match key.get() {
                Some(keeper) => act(keeper).await,
                None => Err(DriverError::Detached),
            }
        });
        asked.await?
    }
}

/// Whether a function has all registers but doorbells, which depend on what it says of itself.
fn check_registers(function: &dyn Function) -> Result<(), DriverError> {
    let bytes = function.register_bytes();
    if bytes < DOORBELLS {
        return Err(DriverError::Unsupported(format!("has {bytes} bytes of registers")));
    }
    Ok(())
}

/// An attachment that somebody waits for. If nobody does any more, nobody would ever detach the controller.
struct Attaching {
    shared: Option<Arc<Shared>>,
}

impl Drop for Attaching {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let key = shared.keeper;
        // Messages arrive in order: the keeper is there, or has ended already.
        drop(shared.owner.spawn(move || async move {
            if let Some(keeper) = key.get() {
                keeper.ask(Event::DetachAsked).await;
            }
        }));
    }
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller")
            .field("address", &self.address())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
