//! A controller that is attached: what users of the driver hold.
//!
//! Owns [`Controller`], a handle that any thread may have, and what is published of the controller for its readers.
//! Invariant: everything that changes the controller happens on its owner's reactor, where its keeper is; a handle only
//! asks. Dropping handles detaches nothing. Block devices and the management interface call.

#![allow(dead_code)]

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use sledge_reactor::message::Handle;

use super::error::DriverError;
use super::events::{Listener, Listeners};
use super::lifecycle::State;
use super::namespaces::NamespaceInfo;
use super::options::ControllerOptions;
use super::statistics::{ControllerStatistics, Counters};
use crate::command::Command;
use crate::completion::Completion;
use crate::function::Function;
use crate::identify::ControllerData;
use crate::io::Channel;
use crate::property::{Capabilities, Version};

/// Data of an admin command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBuffer {
    /// None.
    None,
    /// To the controller.
    Out(Vec<u8>),
    /// From the controller, this many bytes.
    In(usize),
}

/// What a controller says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerIdentity {
    /// Identify Controller, all of it.
    pub data: Box<ControllerData>,
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

pub(super) struct Shared {
    pub(super) owner: Handle,
    pub(super) reactors: Vec<Handle>,
    pub(super) options: ControllerOptions,
    pub(super) listeners: Listeners,
    pub(super) counters: Counters,
    published: Mutex<Published>,
}

impl Shared {
    /// Reads or changes what is published.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Published) -> T) -> T {
        // Nothing panics while it holds the lock; if something did, the plain data is still usable.
        change(&mut self.published.lock().unwrap_or_else(PoisonError::into_inner))
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
    /// What kept the controller from coming up. The function is let go of then.
    pub async fn attach(
        function: Arc<dyn Function>,
        owner: Handle,
        reactors: Vec<Handle>,
        options: ControllerOptions,
    ) -> Result<Self, DriverError> {
        options.check()?;
        let (_, _, _) = (function, owner, reactors);
        Err(DriverError::Unsupported("can't be attached yet".into()))
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
        Err(DriverError::NoNamespace { nsid })
    }

    /// Resets the controller, and waits until it takes I/O again. I/O that is outstanding is submitted again. A
    /// controller that failed is tried anew.
    ///
    /// # Errors
    /// When it did not come back.
    pub async fn reset(&self) -> Result<(), DriverError> {
        Err(DriverError::Detached)
    }

    /// Shuts the controller down in an orderly manner (CC.SHN), gives all memory back and lets go of the function. I/O
    /// that is outstanding may finish ([`ControllerOptions::drain_timeout`]); what then still is, and what comes, fails.
    ///
    /// # Errors
    /// When the controller is detached already, or its owner's reactor has ended.
    pub async fn detach(&self) -> Result<(), DriverError> {
        Err(DriverError::Detached)
    }

    /// Puts another function in the place of one that was removed: the same controller, by serial and model number.
    /// Commands that waited go on.
    ///
    /// # Errors
    /// When the controller is not removed, the function is another controller's, or it does not come up.
    pub async fn replace(&self, function: Arc<dyn Function>) -> Result<(), DriverError> {
        drop(function);
        Err(DriverError::Detached)
    }

    /// Looks for namespaces that came, went or changed, and publishes them.
    ///
    /// # Errors
    /// When the controller can't tell.
    pub async fn rescan(&self) -> Result<(), DriverError> {
        Err(DriverError::Detached)
    }

    /// Sends an admin command of the user's and waits for its answer, whatever its status. Commands that would take
    /// the driver's own queues, events or doorbells from it are refused; whether a command harms data is the caller's
    /// to know. The data pointer and the command identifier are filled in.
    ///
    /// # Errors
    /// When the controller is not live, does not answer within
    /// [`ControllerOptions::admin_timeout`] (it is reset then), or is reset meanwhile.
    pub async fn admin(
        &self,
        command: Command,
        buffer: AdminBuffer,
    ) -> Result<(Completion, Vec<u8>), DriverError> {
        let (_, _) = (command, buffer);
        Err(DriverError::Detached)
    }

    /// The same, for commands that may take longer, such as Format NVM.
    ///
    /// # Errors
    /// As [`Controller::admin`].
    pub async fn admin_within(
        &self,
        limit: std::time::Duration,
        command: Command,
        buffer: AdminBuffer,
    ) -> Result<(Completion, Vec<u8>), DriverError> {
        let (_, _, _) = (limit, command, buffer);
        Err(DriverError::Detached)
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
