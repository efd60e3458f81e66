//! The links between nodes: addresses, latency and loss, and which directions are cut.
//!
//! Invariant: every pair of nodes has a link; a cut stops packets of one direction and loses none of them.
//! Changed by the simulation, asked by the network for every packet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::clockwork::{Clockwork, NodeId};
use super::config::LinkConfig;

/// The IPv4 address of a node: 10.0.0.1 for the first.
pub(super) fn address_v4(node: NodeId) -> IpAddr {
    let [_, high, low, last] = (node.0 + 1).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, high, low, last))
}

/// The IPv6 address of a node: fd00::1 for the first.
pub(super) fn address_v6(node: NodeId) -> IpAddr {
    let [high, low] = [(node.0 + 1) >> 16, (node.0 + 1) & 0xFFFF].map(|half| half as u16);
    IpAddr::V6(Ipv6Addr::new(0xFD00, 0, 0, 0, 0, 0, high, low))
}

/// The state of all links.
#[derive(Debug, Default)]
pub(super) struct Links {
    nodes: u32,
    configured: BTreeMap<(NodeId, NodeId), LinkConfig>,
    cut: BTreeSet<(NodeId, NodeId)>,
    down: BTreeSet<NodeId>,
}

impl Links {
    /// One more node exists and is up.
    pub(super) fn add_node(&mut self) {
        self.nodes += 1;
    }

    /// The node that an address reaches from a node.
    pub(super) fn resolve(&self, from: NodeId, address: IpAddr) -> Option<NodeId> {
        if address.is_loopback() || address.is_unspecified() {
            return Some(from);
        }
        let number = match address {
            IpAddr::V4(v4) => u32::from_be_bytes(v4.octets()) & 0x00FF_FFFF,
            IpAddr::V6(v6) => {
                let [.., high, low] = v6.segments();
                u32::from(high) << 16 | u32::from(low)
            }
        };
        let node = NodeId(number.checked_sub(1)?);
        let known = node.0 < self.nodes && (address == address_v4(node) || address == address_v6(node));
        known.then_some(node)
    }

    /// Sets the properties of the link between two nodes, both directions.
    pub(super) fn set(&mut self, a: NodeId, b: NodeId, link: LinkConfig) {
        self.configured.insert((a.min(b), a.max(b)), link);
    }

    /// Cuts or mends one direction.
    pub(super) fn set_cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        if cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    /// Marks a node as up or down.
    pub(super) fn set_down(&mut self, node: NodeId, down: bool) {
        if down {
            self.down.insert(node);
        } else {
            self.down.remove(&node);
        }
    }

    /// True when a packet that arrives now gets through.
    pub(super) fn passes(&self, from: NodeId, to: NodeId) -> bool {
        !self.cut.contains(&(from, to)) && !self.down.contains(&to)
    }

    /// The properties of the link between two nodes.
    fn config<'a>(&'a self, clockwork: &'a Clockwork, a: NodeId, b: NodeId) -> &'a LinkConfig {
        match self.configured.get(&(a.min(b), a.max(b))) {
            Some(link) => link,
            None if a == b => &clockwork.config.loopback,
            None => &clockwork.config.link,
        }
    }

    /// Draws how long the next packet takes, in nanoseconds.
    pub(super) fn delay(&self, clockwork: &mut Clockwork, from: NodeId, to: NodeId) -> u64 {
        let link = self.config(clockwork, from, to);
        let (latency, loss) = (link.latency.clone(), link.loss_per_million);
        let retransmission = link.retransmission.clone();
        let mut delay = clockwork.network_random.nanos(&latency);
        while delay < 60_000_000_000 && clockwork.network_random.chance(loss) {
            delay += clockwork.network_random.nanos(&retransmission).max(1);
        }
        delay
    }

    /// Draws whether the next write is cut into several packets.
    pub(super) fn splits(&self, clockwork: &mut Clockwork, from: NodeId, to: NodeId) -> bool {
        let split = self.config(clockwork, from, to).split_per_million;
        clockwork.network_random.chance(split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without this, two nodes could share an address, or a node could be unreachable at its own.
    #[test]
    fn every_node_has_its_own_addresses() {
        let mut links = Links::default();
        for _ in 0..300 {
            links.add_node();
        }
        assert_eq!(address_v4(NodeId(0)).to_string(), "10.0.0.1");
        assert_eq!(address_v6(NodeId(0)).to_string(), "fd00::1");
        for number in 0..300 {
            let node = NodeId(number);
            assert_eq!(links.resolve(NodeId(7), address_v4(node)), Some(node));
            assert_eq!(links.resolve(NodeId(7), address_v6(node)), Some(node));
        }
        assert_eq!(links.resolve(NodeId(7), address_v4(NodeId(300))), None);
        assert_eq!(links.resolve(NodeId(7), IpAddr::V4(Ipv4Addr::LOCALHOST)), Some(NodeId(7)));
        assert_eq!(links.resolve(NodeId(7), IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1))), None);
    }
}
