//! What the target is configured to be: devices, subsystems, transport. The authority; everything that
//! reactors know of it was handed to them from here.
//!
//! Every change is made on a [`Draft`], a copy that only replaces the model once the NVMe/TCP target has
//! taken it as a whole. So a change, and a whole configuration file just as well, either happens or does not.
//! Called by [`crate::methods`] under the daemon's one lock.

pub mod address;
pub mod events;
pub mod save;
pub mod transport;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value};
use sledge_bdev::device::UndoResize;
use sledge_bdev::nvme::Controllers;
use sledge_bdev::nvme::options::NvmeOptions;
use sledge_bdev::{BlockDevice, Claim, DeviceError, Registry};
use sledge_nvmf::target::definition::{SubsystemDefinition, TargetDefinition};

use self::events::{Event, Kind};
use self::transport::Transport;
use crate::rpc::error::RpcError;

/// What edits need to know of the running target.
#[derive(Clone, Debug)]
pub struct Environment {
    /// How many reactors count statistics.
    pub reactors: usize,
    /// The last number that was given to a namespace.
    instances: Arc<AtomicU64>,
}

impl Environment {
    /// For a target with so many reactors.
    pub fn new(reactors: usize) -> Environment {
        Environment { reactors, instances: Arc::default() }
    }

    /// A number that no other namespace of this process has or had.
    pub fn next_instance(&self) -> u64 {
        self.instances.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// NVMe controllers that are attached, and what holds for all of them.
#[derive(Clone, Default)]
pub struct NvmeModel {
    /// The controllers. One table, shared by the model and its draft: the draft undoes what it did to it.
    pub controllers: Controllers,
    /// What holds for those that are attached from now on.
    pub options: NvmeOptions,
    /// The parameters that say so, as they were given.
    pub given: Map<String, Value>,
    /// Whether removed drives are looked for, and how often in microseconds (0: as usual), where that was set.
    pub hotplug: Option<(bool, u64)>,
}

/// The whole configuration.
#[derive(Clone)]
pub struct Model {
    /// What edits need to know of the running target.
    pub environment: Environment,
    /// NVMe controllers elsewhere.
    pub nvme: NvmeModel,
    /// Block devices. One registry, shared by the model and its draft: the draft undoes what it did to it.
    pub devices: Registry,
    /// The TCP transport's options, once it has been created.
    pub transport: Option<Transport>,
    /// How many subsystems there may be, the discovery subsystem included, where that was set.
    pub max_subsystems: Option<u32>,
    /// What the NVMe/TCP target serves.
    pub definition: TargetDefinition,
}

/// The claims of namespaces on their devices, by NQN and namespace identifier. Kept apart from the model, of
/// which there are copies: a claim ends when the change that removed its namespace has been made.
pub type Claims = BTreeMap<(String, u32), Arc<Claim>>;

/// Something that a change does to a device in use, once the change has been taken.
pub type Effect = Box<dyn FnOnce() + Send>;

/// What gives the registry back as it was.
enum Undo {
    Remove(String),
    Restore(Arc<dyn BlockDevice>),
    Resize(UndoResize),
    Other(Box<dyn FnOnce() + Send>),
}

/// A changed copy of the model. Dropped without [`Draft::finish`], it leaves nothing behind.
pub struct Draft {
    /// The copy.
    pub model: Model,
    /// The claims that go with it.
    pub claims: Claims,
    /// It is made by a whole configuration, not by one call.
    pub reads_configuration: bool,
    serves: bool,
    effects: Vec<Effect>,
    undo: Vec<Undo>,
}

impl Model {
    /// A target without anything.
    pub fn new(environment: Environment) -> Model {
        Model {
            environment,
            nvme: NvmeModel::default(),
            devices: Registry::new(),
            transport: None,
            max_subsystems: None,
            definition: TargetDefinition::default(),
        }
    }

    /// A copy to change. There must be one at a time.
    pub fn draft(&self, claims: Claims) -> Draft {
        Draft {
            model: self.clone(),
            claims,
            reads_configuration: false,
            serves: false,
            effects: Vec::new(),
            undo: Vec::new(),
        }
    }

    /// A subsystem by its NQN.
    ///
    /// # Errors
    /// -32602 when there is none.
    pub fn subsystem(&self, nqn: &str) -> Result<&SubsystemDefinition, RpcError> {
        let found = self.definition.subsystems.get(nqn).map(Arc::as_ref);
        found.ok_or_else(|| {
            RpcError::invalid_param(
                "nqn",
                format!("there is no subsystem {nqn}: list them with nvmf_get_subsystems"),
            )
        })
    }
}

impl Draft {
    /// What is served, to change.
    pub fn definition(&mut self) -> &mut TargetDefinition {
        self.serves = true;
        &mut self.model.definition
    }

    /// A subsystem, to change.
    ///
    /// # Errors
    /// -32602 when there is none of that name.
    pub fn subsystem(&mut self, nqn: &str) -> Result<&mut SubsystemDefinition, RpcError> {
        self.model.subsystem(nqn)?;
        let found = self.definition().subsystems.get_mut(nqn).map(Arc::make_mut);
        found.ok_or_else(|| RpcError::internal(format!("subsystem {nqn} went away")))
    }

    /// Adds a device.
    ///
    /// # Errors
    /// Those of [`Registry::add`].
    pub fn add_device(&mut self, device: Arc<dyn BlockDevice>) -> Result<String, DeviceError> {
        let name = device.name().to_owned();
        self.model.devices.add(device)?;
        self.undo.push(Undo::Remove(name.clone()));
        Ok(name)
    }

    /// Removes a device that nobody uses.
    ///
    /// # Errors
    /// Those of [`Registry::remove`].
    pub fn remove_device(&mut self, name: &str) -> Result<(), DeviceError> {
        let device = self.model.devices.remove(name)?;
        self.undo.push(Undo::Restore(device));
        Ok(())
    }

    /// Serves the new size of a device: namespaces that stand on it, or on devices that do, are opened anew.
    ///
    /// # Errors
    /// -32603 when a namespace is not where its claim says.
    pub fn resized(&mut self, device: Arc<dyn BlockDevice>, undo: UndoResize) -> Result<(), RpcError> {
        self.undo.push(Undo::Resize(undo));
        for ((nqn, nsid), claim) in self.claims.clone() {
            if !stands_on(claim.device(), device.name()) {
                continue;
            }
            let namespace = self.subsystem(&nqn)?.namespaces.get_mut(&nsid);
            let namespace = namespace
                .ok_or_else(|| RpcError::internal(format!("namespace {nsid} of {nqn} went away")))?;
            // The channels that there are keep the size that they were opened with.
            namespace.opening += 1;
            namespace.geometry = claim.device().geometry();
        }
        Ok(())
    }

    /// Has something done when the change is not made after all; it must not block.
    pub fn undo_by(&mut self, undo: impl FnOnce() + Send + 'static) {
        self.undo.push(Undo::Other(Box::new(undo)));
    }

    /// Has something done once the change has been taken.
    pub fn afterwards(&mut self, effect: impl FnOnce() + Send + 'static) {
        self.effects.push(Box::new(effect));
    }

    /// What the NVMe/TCP target must be told; `None` when nothing that it serves has changed.
    pub fn to_apply(&self) -> Option<TargetDefinition> {
        self.serves.then(|| self.model.definition.clone())
    }

    /// Takes the change as made.
    pub fn finish(mut self) -> Finished {
        let event = |undo: Undo| match undo {
            Undo::Remove(name) => Some(Event { kind: Kind::DeviceCame, subject: name }),
            Undo::Restore(device) => {
                Some(Event { kind: Kind::DeviceWent, subject: device.name().to_owned() })
            }
            Undo::Resize(_) | Undo::Other(_) => None,
        };
        Finished {
            events: self.undo.drain(..).filter_map(event).collect(),
            model: self.model.clone(),
            claims: std::mem::take(&mut self.claims),
            effects: std::mem::take(&mut self.effects),
        }
    }
}

/// A change that has been made.
pub struct Finished {
    /// What replaces the model.
    pub model: Model,
    /// The claims that go with it.
    pub claims: Claims,
    /// What is to be done after it has replaced the old.
    pub effects: Vec<Effect>,
    /// What has come and gone, in this order.
    pub events: Vec<Event>,
}

/// Whether a device is the one of that name, or stands on it.
fn stands_on(device: &Arc<dyn BlockDevice>, name: &str) -> bool {
    device.name() == name || device.lower().is_some_and(|lower| stands_on(&lower, name))
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.undo.is_empty() {
            return;
        }
        // Claims that only the draft has end first, so that the devices under them can go.
        self.claims.clear();
        for undo in self.undo.drain(..).rev() {
            let undone = match undo {
                Undo::Remove(name) => self.model.devices.remove(&name).map(drop),
                Undo::Restore(device) => self.model.devices.add(device),
                Undo::Resize(undo) | Undo::Other(undo) => {
                    undo();
                    Ok(())
                }
            };
            if let Err(error) = undone {
                tracing::error!(%error, "a change that failed could not be undone fully");
            }
        }
    }
}
