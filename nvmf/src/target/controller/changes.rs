//! What a change of the target's definition means to a host: namespaces, ANA states, the discovery log.
//!
//! Owns the Changed Namespace List (Base 5.16.1.5) and the history of ANA states (Base 8.1.3). Invariant: a
//! difference that a host can see is on its log page before the event that announces it is raised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sledge_reactor::time::Instant;

use super::events::EventKind;
use super::{Controller, TerminateReason};
use crate::target::definition::{AnaState, NamespaceDefinition, SubsystemDefinition, TargetDefinition};
use crate::target::discovery;

/// Most namespaces that the list can name.
const CHANGED_LIMIT: usize = 1024;

/// Namespaces that changed since the host last read the list.
#[derive(Debug, Default)]
pub(super) struct ChangedNamespaces {
    nsids: BTreeSet<u32>,
    overflowed: bool,
}

impl ChangedNamespaces {
    fn add(&mut self, nsid: u32) {
        if self.nsids.len() < CHANGED_LIMIT || self.nsids.contains(&nsid) {
            self.nsids.insert(nsid);
        } else {
            self.overflowed = true;
        }
    }

    /// The entries of the list: the namespaces, or FFFFFFFFh when there are more than it can name.
    pub fn entries(&self) -> impl Iterator<Item = u32> + '_ {
        let overflow = self.overflowed.then_some(u32::MAX);
        overflow.into_iter().chain(self.nsids.iter().copied().filter(|_| !self.overflowed))
    }

    /// The host has read the list.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// How often ANA states have changed since the controller was made.
#[derive(Debug, Default)]
pub(super) struct AnaHistory {
    /// Change Count of the log page.
    pub changes: u64,
    /// Change Count of each group that ever changed; a group that is not in use is forgotten.
    groups: BTreeMap<u32, u64>,
}

impl AnaHistory {
    /// Change Count of a group.
    pub fn changes_of(&self, group: u32) -> u64 {
        self.groups.get(&group).copied().unwrap_or(0)
    }
}

/// ANA groups of a subsystem that have namespaces, each with its namespaces in order.
pub(super) fn groups(subsystem: &SubsystemDefinition) -> BTreeMap<u32, Vec<u32>> {
    let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for namespace in subsystem.namespaces.values() {
        groups.entry(namespace.ana_group).or_default().push(namespace.nsid);
    }
    groups
}

/// Whether a host would see a difference, in the list of namespaces or in one's Identify data.
fn differs(old: &NamespaceDefinition, new: &NamespaceDefinition) -> bool {
    old.instance != new.instance
        || old.geometry != new.geometry
        || (old.uuid, old.nguid, old.eui64) != (new.uuid, new.nguid, new.eui64)
        || old.ana_group != new.ana_group
        || old.deallocates != new.deallocates
        || old.deallocated_reads_zeroes != new.deallocated_reads_zeroes
}

impl Controller {
    /// The target's definition changed. `subsystem` is this controller's subsystem in it, `None` when it is gone (or
    /// this is a discovery controller).
    pub fn definition_changed(
        &mut self,
        subsystem: Option<&Arc<SubsystemDefinition>>,
        target: &TargetDefinition,
        now: Instant,
    ) {
        let Some(old) = self.identity.subsystem.clone() else { return self.discovery_changed(target) };
        let Some(new) = subsystem else { return self.terminate(TerminateReason::SubsystemRemoved, now) };
        if !new.allows_host(&self.identity.host_nqn) {
            return self.terminate(TerminateReason::HostRemoved, now);
        }
        if !new.listeners.iter().any(|listener| listener.address == self.identity.listener) {
            // The socket may still be there, for other subsystems.
            return self.terminate(TerminateReason::ListenerRemoved, now);
        }
        self.identity.subsystem = Some(Arc::clone(new));
        if Arc::ptr_eq(&old, new) {
            return;
        }
        let namespaces_changed = self.note_namespaces(&old, new);
        let ana_changed = self.note_ana(&old, new);
        if namespaces_changed {
            self.raise(EventKind::NamespaceAttribute);
        }
        if ana_changed {
            self.raise(EventKind::AnaChange);
        }
    }

    fn discovery_changed(&mut self, target: &TargetDefinition) {
        // A host that has not read the log has nothing that could be out of date.
        let Some(seen) = self.discovery_seen else { return };
        let fingerprint = discovery::fingerprint(target, self.viewer());
        if fingerprint != seen {
            self.discovery_seen = Some(fingerprint);
            self.raise(EventKind::DiscoveryLog);
        }
    }

    fn note_namespaces(&mut self, old: &SubsystemDefinition, new: &SubsystemDefinition) -> bool {
        let nsids: BTreeSet<u32> = old.namespaces.keys().chain(new.namespaces.keys()).copied().collect();
        let mut any = false;
        for nsid in nsids {
            let changed = match (old.namespaces.get(&nsid), new.namespaces.get(&nsid)) {
                (Some(old), Some(new)) => differs(old, new),
                _ => true,
            };
            if changed {
                self.changed.add(nsid);
                any = true;
            }
        }
        any
    }

    fn note_ana(&mut self, old: &SubsystemDefinition, new: &SubsystemDefinition) -> bool {
        let groups = groups(new);
        self.ana.groups.retain(|group, _| groups.contains_key(group));
        let state = |subsystem: &SubsystemDefinition, group| -> AnaState {
            subsystem.ana_state(self.identity.listener, group)
        };
        let changed: Vec<u32> =
            groups.into_keys().filter(|&group| state(old, group) != state(new, group)).collect();
        if changed.is_empty() {
            return false;
        }
        self.ana.changes += 1;
        for group in changed {
            *self.ana.groups.entry(group).or_default() += 1;
        }
        new.ana_reporting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a host miss namespaces beyond the 1,024 that the list can name, or the list grow.
    #[test]
    fn a_list_that_overflows_says_so() {
        let mut changed = ChangedNamespaces::default();
        (1..=1024).for_each(|nsid| changed.add(nsid));
        changed.add(5);
        assert!(changed.entries().eq(1..=1024));
        changed.add(2000);
        assert!(changed.entries().eq([u32::MAX]));
        changed.clear();
        assert_eq!(changed.entries().next(), None);
    }
}
