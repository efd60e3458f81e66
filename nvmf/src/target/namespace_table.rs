//! One reactor's channels to the devices behind namespaces, and which subsystem shows which.
//!
//! Invariant: a channel is in at most one subsystem's view; a command is submitted only through a view; a channel
//! that has left its view is polled until its last command is back and then dropped. Called by the poll group.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use sledge_nvme::Status;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::time::{Instant, now, precise_now};

use super::definition::{AnaState, NamespaceDefinition, SubsystemDefinition, TargetDefinition};
use super::statistics::{self, ReactorCounters, SubsystemStatistics};

/// What a reactor knows of one subsystem; connections hold it.
#[derive(Debug)]
pub(crate) struct SubsystemView {
    definition: RefCell<Arc<SubsystemDefinition>>,
    /// (namespace identifier, channel), ascending.
    channels: RefCell<Vec<(u32, usize)>>,
    statistics: Arc<SubsystemStatistics>,
    /// Whether any listener has ANA states other than optimized: if not, commands need no check.
    has_ana_states: Cell<bool>,
    /// Since when commands have been executed without a pause, as far as that is not counted yet.
    busy_since: Cell<Option<Instant>>,
}

impl SubsystemView {
    /// The counters that reactor `reactor` adds to.
    pub fn counters(&self, reactor: u32) -> &ReactorCounters {
        self.statistics.of_reactor(reactor)
    }

    /// Whether some path is other than optimized.
    pub fn has_ana_states(&self) -> bool {
        self.has_ana_states.get()
    }

    /// The ANA state of a group for those who came in through `listener`.
    pub fn ana_state(&self, listener: SocketAddr, group: u32) -> AnaState {
        self.definition.borrow().ana_state(listener, group)
    }

    /// The channel of a namespace, if it is active.
    pub fn channel(&self, nsid: u32) -> Option<usize> {
        let channels = self.channels.borrow();
        channels.binary_search_by_key(&nsid, |entry| entry.0).ok().map(|at| channels[at].1)
    }

    /// The active namespace with the next larger identifier, and its channel.
    pub fn channel_after(&self, nsid: u32) -> Option<(u32, usize)> {
        let channels = self.channels.borrow();
        channels.get(channels.partition_point(|entry| entry.0 <= nsid)).copied()
    }

    /// Every active namespace's channel.
    pub fn all_channels(&self) -> Vec<usize> {
        self.channels.borrow().iter().map(|entry| entry.1).collect()
    }
}

/// A channel with what is needed to use it.
pub(crate) struct OpenNamespace {
    /// The namespace it was opened for.
    pub definition: NamespaceDefinition,
    channel: Box<dyn Channel>,
    takes_data_at_once: bool,
    retired: bool,
}

impl OpenNamespace {
    /// Whether its channel is the one that a namespace is to have.
    fn is_of(&self, namespace: &NamespaceDefinition) -> bool {
        let own = &self.definition;
        (own.instance, own.opening) == (namespace.instance, namespace.opening)
    }
}

/// All channels of one reactor.
#[derive(Default)]
pub(crate) struct NamespaceTable {
    open: Vec<Option<OpenNamespace>>,
    views: BTreeMap<String, Rc<SubsystemView>>,
    /// Those that execute commands.
    busy: Vec<Rc<SubsystemView>>,
}

impl NamespaceTable {
    /// Opens the channels that `target` needs and that are not open yet. They are not in any view before
    /// [`NamespaceTable::commit`].
    ///
    /// # Errors
    /// The device and the reason, of the first that can't be opened; those opened before it stay until
    /// [`NamespaceTable::commit`] with a definition that lacks them.
    pub fn prepare(&mut self, target: &TargetDefinition) -> Result<(), (String, String)> {
        for namespace in namespaces(target) {
            if self.channel_of(namespace).is_some() {
                continue;
            }
            let channel = (namespace.open_channel)().map_err(|e| (namespace.device_name.clone(), e))?;
            let entry = OpenNamespace {
                definition: namespace.clone(),
                takes_data_at_once: channel.takes_data_at_once(),
                channel,
                retired: false,
            };
            match self.open.iter().position(Option::is_none) {
                Some(at) => self.open[at] = Some(entry),
                None => self.open.push(Some(entry)),
            }
        }
        Ok(())
    }

    /// Makes the views those of `target`, and retires the channels that it lacks. Returns the namespaces that views
    /// showed and that are gone, or have another in their place.
    pub fn commit(&mut self, target: &TargetDefinition) -> Vec<(Rc<SubsystemView>, u32)> {
        let mut gone = Vec::new();
        self.views.retain(|nqn, view| {
            let keep = target.subsystems.contains_key(nqn);
            if !keep {
                view.channels.borrow_mut().clear();
            }
            keep
        });
        for (nqn, subsystem) in &target.subsystems {
            let channels: Vec<(u32, usize)> = subsystem
                .namespaces
                .values()
                .filter_map(|namespace| Some((namespace.nsid, self.channel_of(namespace)?)))
                .collect();
            for ((_, channel), namespace) in channels.iter().zip(subsystem.namespaces.values()) {
                if let Some(open) = &mut self.open[*channel] {
                    open.definition = namespace.clone();
                }
            }
            let has_ana_states = subsystem.listeners.iter().any(|listener| !listener.ana_states.is_empty());
            match self.views.get(nqn) {
                Some(view) => {
                    // Those in views are all open. One that was only opened anew is the same namespace still.
                    let before = view.channels.borrow();
                    let stays = |(nsid, channel): &(u32, usize)| {
                        let now = subsystem.namespaces.get(nsid).map(|namespace| namespace.instance);
                        now == self.open[*channel].as_ref().map(|open| open.definition.instance)
                    };
                    let lost = before.iter().filter(|entry| !stays(entry));
                    gone.extend(lost.map(|(nsid, _)| (view.clone(), *nsid)));
                    drop(before);
                    view.has_ana_states.set(has_ana_states);
                    *view.definition.borrow_mut() = subsystem.clone();
                    *view.channels.borrow_mut() = channels;
                }
                None => {
                    subsystem.statistics.start(now());
                    let view = SubsystemView {
                        definition: RefCell::new(subsystem.clone()),
                        channels: RefCell::new(channels),
                        statistics: subsystem.statistics.clone(),
                        has_ana_states: Cell::new(has_ana_states),
                        busy_since: Cell::new(None),
                    };
                    self.views.insert(nqn.clone(), Rc::new(view));
                }
            }
        }
        for open in self.open.iter_mut().flatten() {
            open.retired = !namespaces(target).any(|wanted| open.is_of(wanted));
        }
        self.drop_drained();
        gone
    }

    /// The view of a subsystem.
    pub fn view(&self, nqn: &str) -> Option<Rc<SubsystemView>> {
        self.views.get(nqn).cloned()
    }

    /// The namespace behind a channel that a view named.
    pub fn get(&self, channel: usize) -> &OpenNamespace {
        match self.open.get(channel) {
            Some(Some(open)) => open,
            _ => unreachable!("views name only open channels"),
        }
    }

    /// Notes that a subsystem executes a command from `now` on.
    pub fn busy_from(&mut self, view: &Rc<SubsystemView>, now: Instant) {
        if view.busy_since.get().is_none() {
            view.busy_since.set(Some(now));
            self.busy.push(view.clone());
        }
    }

    /// Counts the time that subsystems have been busy; once a turn, at its end.
    pub fn count_busy_time(&mut self, this: u32) {
        if self.busy.is_empty() {
            return;
        }
        let now = precise_now();
        let open = &self.open;
        let executes = |channel: usize| {
            open.get(channel).is_some_and(|open| open.as_ref().is_some_and(|o| o.channel.outstanding() > 0))
        };
        self.busy.retain(|view| {
            let busy = now - view.busy_since.get().unwrap_or(now);
            statistics::add(&view.counters(this).busy_ns, busy.as_nanos() as u64);
            let goes_on = view.channels.borrow().iter().any(|(_, channel)| executes(*channel));
            view.busy_since.set(goes_on.then_some(now));
            goes_on
        });
    }

    /// Hands a command to a device, after checking the range against the namespace.
    pub fn submit(&mut self, channel: usize, io: IoCommand) -> Submitted {
        match self.open.get_mut(channel) {
            Some(Some(open)) => match open.definition.geometry.check(io.slba, u64::from(io.blocks)) {
                Err(status) if io.operation != Operation::Flush => Submitted::Done(io.complete(status)),
                _ => open.channel.submit(io),
            },
            _ => Submitted::Done(io.complete(Status::INVALID_NAMESPACE_OR_FORMAT.do_not_retry())),
        }
    }

    /// See [`Channel::takes_data_at_once`].
    pub fn takes_data_at_once(&self, channel: usize) -> bool {
        self.open.get(channel).and_then(Option::as_ref).is_some_and(|open| open.takes_data_at_once)
    }

    /// Asks a device to give a command up; true when it will come back as aborted.
    pub fn abort(&mut self, channel: usize, token: u64) -> bool {
        match self.open.get_mut(channel) {
            Some(Some(open)) => open.channel.abort(token),
            _ => false,
        }
    }

    /// Collects completions of all channels; drops those that are retired and drained.
    pub fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        let mut drained = false;
        for open in self.open.iter_mut().flatten() {
            if open.channel.outstanding() > 0 || open.channel.needs_polling() {
                open.channel.poll(done);
            }
            drained |= open.retired && open.channel.outstanding() == 0;
        }
        if drained {
            self.drop_drained();
        }
    }

    /// Whether some channel makes progress only when polled.
    pub fn needs_polling(&self) -> bool {
        self.open.iter().flatten().any(|open| open.channel.needs_polling())
    }

    /// The instances of namespaces that have left their view and still have commands.
    pub fn retired(&self) -> impl Iterator<Item = u64> {
        self.open.iter().flatten().filter(|open| open.retired).map(|open| open.definition.instance)
    }

    /// Commands at devices.
    pub fn outstanding(&self) -> usize {
        self.open.iter().flatten().map(|open| open.channel.outstanding()).sum()
    }

    /// Every channel that is in a view and whose device has a volatile write cache.
    pub fn cached(&self) -> Vec<usize> {
        let caches = |entry: &Option<OpenNamespace>| {
            entry.as_ref().is_some_and(|open| !open.retired && open.definition.volatile_write_cache)
        };
        (0..self.open.len()).filter(|at| caches(&self.open[*at])).collect()
    }

    /// Those of [`NamespaceTable::cached`] that are one subsystem's.
    pub fn cached_of(&self, nqn: &str) -> Vec<usize> {
        let all = self.view(nqn).map_or_else(Vec::new, |view| view.all_channels());
        self.cached().into_iter().filter(|channel| all.contains(channel)).collect()
    }

    fn drop_drained(&mut self) {
        for entry in &mut self.open {
            if entry.as_ref().is_some_and(|open| open.retired && open.channel.outstanding() == 0) {
                *entry = None;
            }
        }
    }

    fn channel_of(&self, namespace: &NamespaceDefinition) -> Option<usize> {
        self.open.iter().position(|entry| entry.as_ref().is_some_and(|open| open.is_of(namespace)))
    }
}

pub(super) fn namespaces(target: &TargetDefinition) -> impl Iterator<Item = &NamespaceDefinition> {
    target.subsystems.values().flat_map(|subsystem| subsystem.namespaces.values())
}
