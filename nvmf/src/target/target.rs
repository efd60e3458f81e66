//! The handle on a running target: what the management side holds.
//!
//! Invariant: a definition is either in force on every reactor or on none; it is first prepared everywhere
//! (channels opened, sockets bound), then committed everywhere. Called from management threads, and from the
//! simulator's tests; the calls wait, reactors never do.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sledge_nvme::fabrics::Nqn;
use sledge_reactor::local::LocalKey;
use sledge_reactor::message::Handle;
use sledge_reactor::task::{JoinHandle, spawn_local};
use sledge_reactor::time::{now, sleep};

use super::acceptor::Listening;
use super::definition::TargetDefinition;
use super::group::{Directory, GroupPoller, PollGroup};
use super::namespace_table::namespaces;
use super::reports::{ConnectionReport, ControllerReport, QueueTotals};

/// How often groups look at deadlines and keep-alives.
const TICK: Duration = Duration::from_millis(100);
/// How often the end of removed namespaces' commands is looked for.
const DRAIN_STEP: Duration = Duration::from_millis(2);
/// How long a change waits for the commands of namespaces that it removed.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The socket could not be bound.
    #[error("cannot listen on {address}: {reason}; choose another address or stop what uses it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: std::io::Error,
    },
    /// A device could not be opened on a reactor.
    #[error("cannot open device {device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        reason: String,
    },
    /// A name is no NVMe Qualified Name.
    #[error("{name:?} is not an NVMe Qualified Name: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Commands of removed namespaces did not come back from their devices in time. The change is in force; the
    /// devices must stay until [`Target::still_busy`] no longer names the instances.
    #[error("devices of {} removed namespaces still have commands after {seconds} s", instances.len())]
    StillBusy {
        /// Those of the removed namespaces.
        instances: BTreeSet<u64>,
        /// How long it was waited.
        seconds: u64,
    },
    /// A reactor has stopped.
    #[error("a reactor has stopped; the target can't be changed any more")]
    Stopped,
}

impl From<sledge_reactor::message::ReactorGone> for TargetError {
    fn from(_: sledge_reactor::message::ReactorGone) -> Self {
        Self::Stopped
    }
}

/// What a reactor keeps of a target besides its group.
struct Resident {
    /// The listeners on this reactor.
    listeners: RefCell<BTreeMap<SocketAddr, Listening>>,
    _poller: sledge_reactor::poller::PollerHandle,
    _ticks: JoinHandle<()>,
}

struct Inner {
    directory: Directory,
    residents: LocalKey<Resident>,
    definition: Mutex<Arc<TargetDefinition>>,
    instances: AtomicU64,
}

/// A running target. A cheap handle.
#[derive(Clone)]
pub struct Target {
    inner: Arc<Inner>,
}

impl Target {
    /// Starts a target that serves nothing yet, with one poll group on each reactor.
    ///
    /// # Errors
    /// [`TargetError::Stopped`].
    pub async fn start(reactors: Vec<Handle>) -> Result<Self, TargetError> {
        let directory = Directory { reactors: reactors.into(), key: LocalKey::new() };
        let residents = LocalKey::new();
        let definition = Arc::new(TargetDefinition::default());
        for (place, reactor) in directory.reactors.iter().enumerate() {
            let (directory, definition) = (directory.clone(), definition.clone());
            reactor
                .spawn(move || async move { settle(place as u32, directory, residents, definition) })
                .await?;
        }
        let definition = Mutex::new(definition);
        Ok(Self { inner: Arc::new(Inner { directory, residents, definition, instances: AtomicU64::new(1) }) })
    }

    /// The definition in force.
    #[must_use]
    pub fn definition(&self) -> Arc<TargetDefinition> {
        self.inner.definition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A number for [`super::definition::NamespaceDefinition::instance`].
    #[must_use]
    pub fn next_instance(&self) -> u64 {
        self.inner.instances.fetch_add(1, Ordering::Relaxed)
    }

    /// Serves another definition. Returns when every reactor does, and the commands of removed namespaces have
    /// come back from their devices. `generation` is set here. Calls must not overlap.
    ///
    /// # Errors
    /// Nothing has changed, except after [`TargetError::StillBusy`].
    pub async fn apply(&self, mut definition: TargetDefinition) -> Result<(), TargetError> {
        let before = self.definition();
        for name in definition.subsystems.keys() {
            Nqn::new(name)
                .map_err(|reason| TargetError::Name { name: name.clone(), reason: reason.to_string() })?;
        }
        definition.generation = before.generation + 1;
        let after = Arc::new(definition);
        if let Err(error) = self.prepare(&before, &after).await {
            // Whatever was opened for the new definition is let go.
            self.commit(&before).await?;
            self.close_listeners(&after, &before).await?;
            return Err(error);
        }
        self.commit(&after).await?;
        let removed = removed(&before, &after);
        // Not before: a host that is told once that there is no such subsystem does not come back.
        self.accept().await?;
        self.close_listeners(&before, &after).await?;
        *self.inner.definition.lock().unwrap_or_else(PoisonError::into_inner) = after;
        self.wait_for_retired(removed).await
    }

    async fn prepare(
        &self,
        before: &TargetDefinition,
        after: &Arc<TargetDefinition>,
    ) -> Result<(), TargetError> {
        let key = self.inner.directory.key;
        for reactor in self.inner.directory.reactors.iter() {
            let definition = after.clone();
            let prepared = reactor
                .spawn(move || async move {
                    key.get().map_or(Ok(()), |group| group.borrow_mut().prepare(&definition))
                })
                .await?;
            prepared.map_err(|(device, reason)| TargetError::Device { device, reason })?;
        }
        let old = listeners(before);
        for (address, ()) in listeners(after) {
            if old.contains_key(&address) {
                continue;
            }
            let residents = self.inner.residents;
            let listening = self.listening_reactor(address).spawn(move || async move {
                let bound = Listening::bind(address)?;
                if let Some(resident) = residents.get() {
                    resident.listeners.borrow_mut().insert(address, bound);
                }
                Ok(())
            });
            listening.await?.map_err(|reason| TargetError::Listen { address, reason })?;
        }
        Ok(())
    }

    /// Has every reactor serve a definition, and then tells hosts.
    async fn commit(&self, definition: &Arc<TargetDefinition>) -> Result<(), TargetError> {
        let key = self.inner.directory.key;
        for reactor in self.inner.directory.reactors.iter() {
            let definition = definition.clone();
            reactor
                .spawn(move || async move {
                    if let Some(group) = key.get() {
                        group.borrow_mut().commit(&definition);
                    }
                })
                .await?;
        }
        for reactor in self.inner.directory.reactors.iter() {
            let definition = definition.clone();
            reactor
                .spawn(move || async move {
                    if let Some(group) = key.get() {
                        group.borrow_mut().announce(&definition);
                    }
                })
                .await?;
        }
        Ok(())
    }

    /// Accepts connections on every socket that is bound.
    async fn accept(&self) -> Result<(), TargetError> {
        for reactor in self.inner.directory.reactors.iter() {
            let (residents, directory) = (self.inner.residents, self.inner.directory.clone());
            let accept = reactor.spawn(move || async move {
                let Some(resident) = residents.get() else { return };
                let mut listeners = resident.listeners.borrow_mut();
                let bound = std::mem::take(&mut *listeners);
                let accepting = |(address, bound): (SocketAddr, Listening)| {
                    (address, bound.accept(address, directory.clone()))
                };
                *listeners = bound.into_iter().map(accepting).collect();
            });
            accept.await?;
        }
        Ok(())
    }

    /// Stops listening where `from` did and `to` does not.
    async fn close_listeners(
        &self,
        from: &TargetDefinition,
        to: &TargetDefinition,
    ) -> Result<(), TargetError> {
        let keep = listeners(to);
        for (address, ()) in listeners(from) {
            if keep.contains_key(&address) {
                continue;
            }
            self.stop_listening(address).await?;
            let key = self.inner.directory.key;
            for reactor in self.inner.directory.reactors.iter() {
                let close = reactor.spawn(move || async move {
                    if let Some(group) = key.get() {
                        group.borrow_mut().listener_gone(address);
                    }
                });
                close.await?;
            }
        }
        Ok(())
    }

    async fn stop_listening(&self, address: SocketAddr) -> Result<(), TargetError> {
        let residents = self.inner.residents;
        let stop = self.listening_reactor(address).spawn(move || async move {
            let gone = residents.get().and_then(|resident| resident.listeners.borrow_mut().remove(&address));
            if let Some(listening) = gone {
                listening.close();
            }
        });
        Ok(stop.await?)
    }

    /// Listeners are spread over the reactors by their port; only accepting happens there.
    fn listening_reactor(&self, address: SocketAddr) -> &Handle {
        let reactors = &self.inner.directory.reactors;
        &reactors[usize::from(address.port()) % reactors.len()]
    }

    /// Waits for what this change has removed only: what an earlier one did is no concern of it.
    async fn wait_for_retired(&self, removed: BTreeSet<u64>) -> Result<(), TargetError> {
        let key = self.inner.directory.key;
        let removed = Arc::new(removed);
        let mut left = BTreeSet::new();
        for reactor in self.inner.directory.reactors.iter() {
            let removed = removed.clone();
            let wait = reactor.spawn(move || async move {
                let deadline = now() + DRAIN_LIMIT;
                loop {
                    let left = key.get().map_or_else(BTreeSet::new, |group| among(&group.borrow(), &removed));
                    if left.is_empty() || now() >= deadline {
                        return left;
                    }
                    sleep(DRAIN_STEP).await;
                }
            });
            left.extend(wait.await?);
        }
        if left.is_empty() {
            return Ok(());
        }
        Err(TargetError::StillBusy { instances: left, seconds: DRAIN_LIMIT.as_secs() })
    }

    /// Those of the given instances of removed namespaces that still have commands at their devices.
    pub async fn still_busy(&self, instances: &BTreeSet<u64>) -> BTreeSet<u64> {
        let all = self.gather(|group| group.retired().collect()).await;
        all.into_iter().filter(|instance| instances.contains(instance)).collect()
    }

    /// Every connection of every reactor.
    pub async fn connections(&self) -> Vec<ConnectionReport> {
        self.gather(super::reports::connections).await
    }

    /// Every controller of every reactor.
    pub async fn controllers(&self) -> Vec<ControllerReport> {
        self.gather(super::reports::controllers).await
    }

    /// How many queues hosts have connected, of each reactor.
    pub async fn queue_totals(&self) -> Vec<QueueTotals> {
        self.gather(|group| vec![group.admitted()]).await
    }

    async fn gather<T: Send + 'static>(&self, report: fn(&PollGroup) -> Vec<T>) -> Vec<T> {
        let key = self.inner.directory.key;
        let mut all = Vec::new();
        for reactor in self.inner.directory.reactors.iter() {
            let part = reactor.spawn(move || async move {
                key.get().map_or_else(Vec::new, |group| report(&group.borrow()))
            });
            // A reactor that is gone has nothing to report.
            all.extend(part.await.unwrap_or_default());
        }
        all
    }

    /// Ends the target: takes no more connections and commands, waits for commands at devices up to `timeout`, makes
    /// every device's cache durable, which may take as long, and closes the connections.
    pub async fn drain(&self, timeout: Duration) {
        for (address, ()) in listeners(&self.definition()) {
            let _ = self.stop_listening(address).await;
        }
        let key = self.inner.directory.key;
        let drain = |reactor: &Handle| {
            reactor.spawn(move || async move {
                let Some(group) = key.get() else { return };
                let drained = async || {
                    let deadline = now() + timeout;
                    while group.borrow().outstanding() > 0 && now() < deadline {
                        sleep(DRAIN_STEP).await;
                    }
                };
                group.borrow_mut().begin_to_end();
                drained().await;
                group.borrow_mut().flush_devices();
                drained().await;
                group.borrow_mut().close_all();
                let left = group.borrow().outstanding();
                if left > 0 {
                    tracing::warn!(commands = left, "stopped with commands still at their devices");
                }
            })
        };
        // All at once: what hangs on one reactor does not take the time of the others.
        let draining: Vec<_> = self.inner.directory.reactors.iter().map(drain).collect();
        for ended in draining {
            let _ = ended.await;
        }
    }
}

/// The instances that `after` lacks.
fn removed(before: &TargetDefinition, after: &TargetDefinition) -> BTreeSet<u64> {
    let instances =
        |definition| namespaces(definition).map(|namespace| namespace.instance).collect::<BTreeSet<u64>>();
    &instances(before) - &instances(after)
}

fn among(group: &PollGroup, removed: &BTreeSet<u64>) -> BTreeSet<u64> {
    group.retired().filter(|instance| removed.contains(instance)).collect()
}

/// Every address that is listened on.
fn listeners(definition: &TargetDefinition) -> BTreeMap<SocketAddr, ()> {
    let subsystems = definition.subsystems.values().flat_map(|subsystem| &subsystem.listeners);
    let addresses = subsystems.map(|listener| listener.address);
    addresses.chain(definition.discovery_listeners.iter().copied()).map(|address| (address, ())).collect()
}

/// Makes the current reactor's group.
fn settle(
    place: u32,
    directory: Directory,
    residents: LocalKey<Resident>,
    definition: Arc<TargetDefinition>,
) {
    let key = directory.key;
    let group = Rc::new(RefCell::new(PollGroup::new(place, directory, definition)));
    let poller = sledge_reactor::poller::register_poller(GroupPoller(group.clone()));
    let ticking = Rc::downgrade(&group);
    let ticks = spawn_local(async move {
        loop {
            sleep(TICK).await;
            let Some(group) = ticking.upgrade() else { return };
            group.borrow_mut().tick();
        }
    });
    key.set(group);
    residents.set(Rc::new(Resident { listeners: RefCell::default(), _poller: poller, _ticks: ticks }));
}
