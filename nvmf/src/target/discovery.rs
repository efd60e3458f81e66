//! The discovery log: which subsystems a host may reach, and where (Base 5.16.1.23).
//!
//! Owns how a [`TargetDefinition`] looks to one host. Invariant: the same definition, host and local address give the
//! same entries in the same order, so that a log read in pieces fits together as long as its generation stays.
//! Discovery controllers are the callers.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;

use sledge_nvme::fabrics::{
    DiscoveryEntry, DiscoveryEntryFlags, DiscoveryHeader, NQN_FIELD_BYTES, Nqn, SubsystemType,
    TransportRequirements,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

use super::controller::page::Page;
use super::definition::TargetDefinition;

/// Least entries of an Admin submission queue that an entry may state (Base 5.16.1.23).
pub(crate) const ADMIN_QUEUE_ENTRIES_MINIMUM: u16 = 32;

/// Who looks at the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewer<'a> {
    /// The host's NQN.
    pub host_nqn: &'a str,
    /// NQN of the discovery subsystem that it is connected to.
    pub discovery_nqn: &'a str,
    /// The local address of its connection.
    pub local_address: SocketAddr,
}

/// Writes the whole log page.
pub(crate) fn write(page: &mut Page<'_>, target: &TargetDefinition, viewer: Viewer<'_>) {
    let entries = entries(target, viewer);
    page.put(DiscoveryHeader::new(target.generation, entries.len() as u64).as_bytes());
    for entry in &entries {
        if page.is_full() {
            break;
        }
        page.put(make(target, entry).as_bytes());
    }
}

/// A number that changes with what `viewer` sees, but not with the generation.
pub(crate) fn fingerprint(target: &TargetDefinition, viewer: Viewer<'_>) -> u64 {
    // Not `RandomState`: a simulation that is replayed must see the same numbers.
    let mut hasher = DefaultHasher::new();
    for entry in entries(target, viewer) {
        hasher.write(make(target, &entry).as_bytes());
    }
    hasher.finish()
}

/// An entry before it takes its kilobyte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry<'a> {
    kind: SubsystemType,
    nqn: &'a str,
    address: SocketAddr,
    port_id: u16,
    flags: DiscoveryEntryFlags,
}

fn entries<'a>(target: &'a TargetDefinition, viewer: Viewer<'a>) -> Vec<Entry<'a>> {
    let subsystem_addresses =
        target.subsystems.values().flat_map(|subsystem| subsystem.listeners.iter().map(|l| l.address));
    let ports: BTreeSet<SocketAddr> =
        subsystem_addresses.chain(target.discovery_listeners.iter().copied()).collect();
    // Port identifiers count from 1; more than 65,535 ports would share the last one.
    let port_id = |address: &SocketAddr| -> u16 {
        let position = ports.iter().position(|port| port == address).unwrap_or(0);
        u16::try_from(position + 1).unwrap_or(u16::MAX)
    };
    let serves_viewer = |port: &&SocketAddr| {
        let local = viewer.local_address;
        reachable(**port, local).is_some_and(|at| at.ip() == local.ip() && at.port() == local.port())
    };
    let own = Entry {
        kind: SubsystemType::CurrentDiscovery,
        nqn: viewer.discovery_nqn,
        address: viewer.local_address,
        port_id: ports.iter().find(serves_viewer).map_or(1, port_id),
        flags: DiscoveryEntryFlags::default()
            .with_duplicate_information(true)
            .with_persistent_connection(true),
    };
    let mut entries = vec![own];
    for subsystem in target.subsystems.values().filter(|subsystem| subsystem.allows_host(viewer.host_nqn)) {
        for listener in &subsystem.listeners {
            let Some(address) = reachable(listener.address, viewer.local_address) else { continue };
            entries.push(Entry {
                kind: SubsystemType::Nvm,
                nqn: &subsystem.nqn,
                address,
                port_id: port_id(&listener.address),
                flags: DiscoveryEntryFlags::default(),
            });
        }
    }
    for referral in &target.referrals {
        entries.push(Entry {
            kind: SubsystemType::DiscoveryReferral,
            nqn: &referral.nqn,
            address: referral.address,
            port_id: 0,
            flags: DiscoveryEntryFlags::default(),
        });
    }
    entries
}

/// The address under which a host that came in by `local` reaches a listener: the one it is bound to or, when it is
/// bound to every address of the host's family, the one that the host used. `None` when that can't be known.
fn reachable(listener: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
    if !listener.ip().is_unspecified() {
        return Some(listener);
    }
    (listener.is_ipv4() == local.is_ipv4()).then(|| SocketAddr::new(local.ip(), listener.port()))
}

fn make(target: &TargetDefinition, entry: &Entry<'_>) -> DiscoveryEntry {
    let mut made = DiscoveryEntry::tcp(entry.kind, &Nqn::discovery(), &entry.address, entry.port_id);
    made.subnqn = nqn_field(entry.nqn);
    made.flags = U16::new(entry.flags.bits());
    if entry.kind != SubsystemType::DiscoveryReferral {
        made.transport_requirements = TransportRequirements::from_bits(made.transport_requirements)
            .with_flow_control_disable(true)
            .bits();
        made.admin_queue_entries =
            U16::new(target.transport.max_queue_depth.max(ADMIN_QUEUE_ENTRIES_MINIMUM));
    }
    made
}

/// A name as NQN fields have it: padded with NULs, at least one. A name that is not in one of the specification's forms is
/// shown as it is, because hosts have to use it as it is.
pub(crate) fn nqn_field(name: &str) -> [u8; NQN_FIELD_BYTES] {
    let mut field = [0; NQN_FIELD_BYTES];
    let length = name.len().min(NQN_FIELD_BYTES - 1);
    field[..length].copy_from_slice(&name.as_bytes()[..length]);
    field
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "discovery_tests.rs"]
mod tests;
