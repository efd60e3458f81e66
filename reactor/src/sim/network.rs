//! The simulated network: all sockets of all nodes, how they come and go, and how they fail.
//!
//! Invariant: a socket's number is never used again; after a close or a crash no call of the program reaches
//! it. Sinks are never called or dropped here (they may reach back into the world): readiness goes to the
//! inboxes, and sinks that are no longer needed go to `garbage`. Called by the sockets of the simulated
//! backend and by the simulation.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::clockwork::{Clockwork, NodeId, ReactorId, SocketId};
use super::endpoint::{Endpoint, InFlight, Listener, Packet, Phase};
use super::links::{self, Links};
use crate::backend::{Readiness, ReadinessSink};

/// The first port that is handed out for port 0.
const FIRST_FREE_PORT: u16 = 49_152;

/// Both directions.
pub(super) const BOTH: Readiness = Readiness { readable: true, writable: true };
/// Something can be read.
pub(super) const READABLE: Readiness = Readiness { readable: true, writable: false };
/// Something can be written.
pub(super) const WRITABLE: Readiness = Readiness { readable: false, writable: true };

/// See the module.
#[derive(Default)]
pub(super) struct Network {
    /// Addresses, weather and cuts.
    pub links: Links,
    /// Sinks to drop once nobody borrows the world.
    pub garbage: Vec<Rc<dyn ReadinessSink>>,
    pub(super) endpoints: BTreeMap<SocketId, Endpoint>,
    pub(super) listeners: BTreeMap<SocketId, Listener>,
    next_socket: SocketId,
    next_port: BTreeMap<NodeId, u16>,
}

impl Network {
    /// Opens a listening socket of a reactor.
    pub(super) fn listen(
        &mut self,
        clockwork: &mut Clockwork,
        reactor: ReactorId,
        mut address: SocketAddr,
    ) -> io::Result<SocketId> {
        let node = reactor.node;
        if self.links.resolve(node, address.ip()) != Some(node) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        if address.port() == 0 {
            address.set_port(self.free_port(node)?);
        }
        let taken = |other: &Listener| {
            other.takes(node, address)
                || (other.node == node
                    && other.address.port() == address.port()
                    && address.ip().is_unspecified()
                    && other.address.is_ipv4() == address.is_ipv4())
        };
        if self.listeners.values().any(taken) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let socket = self.new_socket();
        clockwork.note("listen", socket, u64::from(address.port()));
        let listener = Listener { node, reactor, address, sink: None, backlog: Default::default() };
        self.listeners.insert(socket, listener);
        Ok(socket)
    }

    /// Starts a connection of a reactor.
    pub(super) fn connect(
        &mut self,
        clockwork: &mut Clockwork,
        reactor: ReactorId,
        remote: SocketAddr,
    ) -> io::Result<SocketId> {
        let node = reactor.node;
        let peer_node = self.links.resolve(node, remote.ip()).ok_or(io::ErrorKind::HostUnreachable)?;
        let own: IpAddr = match remote.ip() {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(_) => links::address_v4(node),
            IpAddr::V6(_) => links::address_v6(node),
        };
        let local = SocketAddr::new(own, self.free_port(node)?);
        let socket = self.new_socket();
        clockwork.note("connect", socket, u64::from(remote.port()));
        let mut endpoint = Endpoint::new(node, peer_node, local, remote);
        endpoint.reactor = Some(reactor);
        endpoint.capacity = draw_capacity(clockwork);
        self.endpoints.insert(socket, endpoint);
        self.send(clockwork, socket, Packet::Syn);
        Ok(socket)
    }

    /// Takes a waiting connection.
    pub(super) fn accept(
        &mut self,
        clockwork: &mut Clockwork,
        listener: SocketId,
    ) -> io::Result<Option<(SocketId, SocketAddr)>> {
        let found = self.listeners.get_mut(&listener).ok_or(io::ErrorKind::NotConnected)?;
        while let Some(socket) = found.backlog.pop_front() {
            if let Some(endpoint) = self.endpoints.get(&socket) {
                clockwork.note("accept", listener, socket);
                return Ok(Some((socket, endpoint.remote)));
            }
        }
        Ok(None)
    }

    /// Gives an accepted connection to a reactor of its node.
    pub(super) fn attach(&mut self, socket: SocketId, reactor: ReactorId) -> io::Result<()> {
        let endpoint = self.endpoints.get_mut(&socket).ok_or(io::ErrorKind::NotConnected)?;
        if endpoint.node != reactor.node {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        endpoint.reactor = Some(reactor);
        Ok(())
    }

    /// Sets where the readiness of a connection goes, and tells what is ready already.
    pub(super) fn watch(
        &mut self,
        clockwork: &mut Clockwork,
        socket: SocketId,
        sink: Rc<dyn ReadinessSink>,
    ) -> io::Result<()> {
        let Some(endpoint) = self.endpoints.get_mut(&socket) else {
            self.garbage.push(sink);
            return Err(io::ErrorKind::NotConnected.into());
        };
        self.garbage.extend(endpoint.sink.replace(sink));
        let failed = matches!(endpoint.phase, Phase::Failed(_));
        let readiness = Readiness {
            readable: failed || endpoint.ended || !endpoint.received.is_empty(),
            writable: failed || endpoint.phase == Phase::Open,
        };
        self.edge(clockwork, socket, readiness);
        Ok(())
    }

    /// Sets where the readiness of a listener goes.
    pub(super) fn watch_listener(
        &mut self,
        clockwork: &mut Clockwork,
        socket: SocketId,
        sink: Rc<dyn ReadinessSink>,
    ) -> io::Result<()> {
        let Some(listener) = self.listeners.get_mut(&socket) else {
            self.garbage.push(sink);
            return Err(io::ErrorKind::NotConnected.into());
        };
        self.garbage.extend(listener.sink.replace(sink));
        if !listener.backlog.is_empty() {
            clockwork.make_ready(listener.reactor, socket, READABLE);
        }
        Ok(())
    }

    /// The program drops a connection: what it has written still travels, then the peer sees the end, or a
    /// reset when bytes were left unread.
    pub(super) fn close(&mut self, clockwork: &mut Clockwork, socket: SocketId) {
        let Some(endpoint) = self.endpoints.get_mut(&socket) else { return };
        if endpoint.closed {
            return;
        }
        clockwork.note("close", socket, endpoint.received.len() as u64);
        endpoint.closed = true;
        endpoint.reactor = None;
        self.garbage.extend(endpoint.sink.take());
        let unread = !endpoint.received.is_empty();
        endpoint.received.clear();
        match endpoint.phase {
            // Its reset is on its way.
            Phase::Failed(_) if endpoint.aborted => {}
            Phase::Connecting | Phase::Failed(_) => endpoint.clear_flight(),
            Phase::Open if unread => self.send(clockwork, socket, Packet::Reset),
            Phase::Open if !endpoint.shut => self.send(clockwork, socket, Packet::Fin),
            Phase::Open => {}
        }
        self.reap(socket);
    }

    /// The program drops a listener; connections that nobody accepted are reset.
    pub(super) fn close_listener(&mut self, clockwork: &mut Clockwork, socket: SocketId) {
        let Some(listener) = self.listeners.remove(&socket) else { return };
        clockwork.note("unlisten", socket, listener.backlog.len() as u64);
        self.garbage.extend(listener.sink);
        for waiting in listener.backlog {
            if let Some(endpoint) = self.endpoints.get_mut(&waiting) {
                endpoint.closed = true;
                self.send(clockwork, waiting, Packet::Reset);
                self.reap(waiting);
            }
        }
    }

    /// A connection ends in an error. Bytes that have arrived stay readable or not, by seed.
    pub(super) fn fail(&mut self, clockwork: &mut Clockwork, socket: SocketId, kind: io::ErrorKind) {
        let Some(endpoint) = self.endpoints.get_mut(&socket) else { return };
        if matches!(endpoint.phase, Phase::Failed(_)) {
            return;
        }
        clockwork.note("fail", socket, kind as u64);
        endpoint.phase = Phase::Failed(kind);
        endpoint.clear_flight();
        if clockwork.network_random.chance(500_000) {
            endpoint.received.clear();
        }
        self.edge(clockwork, socket, BOTH);
        self.reap(socket);
    }

    /// Resets every connection between two nodes, at both ends, at once.
    pub(super) fn reset_connections(&mut self, clockwork: &mut Clockwork, a: NodeId, b: NodeId) {
        let between = |endpoint: &Endpoint| {
            (endpoint.node, endpoint.peer_node) == (a, b) || (endpoint.node, endpoint.peer_node) == (b, a)
        };
        let sockets: Vec<SocketId> =
            self.endpoints.iter().filter(|(_, endpoint)| between(endpoint)).map(|(id, _)| *id).collect();
        for socket in sockets {
            self.fail(clockwork, socket, io::ErrorKind::ConnectionReset);
        }
    }

    /// A node dies: its sockets are gone; each peer sees a reset or silence, by seed, after some of what was
    /// on its way.
    pub(super) fn crash(&mut self, clockwork: &mut Clockwork, node: NodeId) {
        let dead: Vec<SocketId> =
            self.listeners.iter().filter(|(_, listener)| listener.node == node).map(|(id, _)| *id).collect();
        for socket in dead {
            self.garbage.extend(self.listeners.remove(&socket).and_then(|listener| listener.sink));
        }
        let lost: Vec<SocketId> =
            self.endpoints.iter().filter(|(_, endpoint)| endpoint.node == node).map(|(id, _)| *id).collect();
        for socket in lost {
            let Some(endpoint) = self.endpoints.get_mut(&socket) else { continue };
            endpoint.closed = true;
            endpoint.reactor = None;
            self.garbage.extend(endpoint.sink.take());
            endpoint.received.clear();
            let kept = clockwork.network_random.below(endpoint.flight.len() as u64 + 1);
            endpoint.flight.truncate(kept as usize);
            endpoint.flight_bytes = 0;
            let silent = clockwork.network_random.chance(clockwork.config.silent_crash_per_million);
            if !silent && endpoint.phase == Phase::Open {
                self.send(clockwork, socket, Packet::Reset);
            }
            self.reap(socket);
        }
    }

    /// How many sockets programs of a node hold open.
    pub(super) fn open_sockets(&self, node: NodeId) -> usize {
        let listeners = self.listeners.values().filter(|listener| listener.node == node);
        let endpoints = self.endpoints.values().filter(|endpoint| endpoint.node == node && !endpoint.closed);
        listeners.count() + endpoints.count()
    }

    /// The sink and readiness of each socket in a list, for the caller to call without a borrow.
    pub(super) fn sink(&self, socket: SocketId) -> Option<Rc<dyn ReadinessSink>> {
        match self.endpoints.get(&socket) {
            Some(endpoint) => endpoint.sink.clone(),
            None => self.listeners.get(&socket)?.sink.clone(),
        }
    }

    /// Tells the reactor that watches a connection.
    pub(super) fn edge(&self, clockwork: &mut Clockwork, socket: SocketId, readiness: Readiness) {
        let Some(endpoint) = self.endpoints.get(&socket) else { return };
        if let (Some(reactor), true) = (endpoint.reactor, endpoint.sink.is_some())
            && (readiness.readable || readiness.writable)
        {
            clockwork.make_ready(reactor, socket, readiness);
        }
    }

    /// Puts a packet on its way, behind those before it.
    pub(super) fn send(&mut self, clockwork: &mut Clockwork, socket: SocketId, packet: Packet) {
        let Some(endpoint) = self.endpoints.get_mut(&socket) else { return };
        let delay = self.links.delay(clockwork, endpoint.node, endpoint.peer_node);
        endpoint.last_due = endpoint.last_due.max(clockwork.now + delay);
        if let Packet::Data(bytes) = &packet {
            endpoint.flight_bytes += bytes.len();
        }
        endpoint.flight.push_back(InFlight { due: endpoint.last_due, packet });
        self.arm(clockwork, socket);
    }

    /// Removes an end that its program has dropped and that has nothing left to send.
    pub(super) fn reap(&mut self, socket: SocketId) {
        let done = |endpoint: &Endpoint| endpoint.closed && endpoint.flight.is_empty();
        if self.endpoints.get(&socket).is_some_and(done)
            && let Some(endpoint) = self.endpoints.remove(&socket)
        {
            self.garbage.extend(endpoint.sink);
        }
    }

    /// A number for a new socket.
    pub(super) fn new_socket(&mut self) -> SocketId {
        self.next_socket += 1;
        self.next_socket
    }

    /// A port that no socket of the node uses.
    fn free_port(&mut self, node: NodeId) -> io::Result<u16> {
        for _ in FIRST_FREE_PORT..=u16::MAX {
            let next = self.next_port.entry(node).or_insert(FIRST_FREE_PORT);
            let port = *next;
            *next = port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
            let used = self.endpoints.values().any(|e| e.node == node && e.local.port() == port)
                || self.listeners.values().any(|l| l.node == node && l.address.port() == port);
            if !used {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Network")
            .field("endpoints", &self.endpoints)
            .field("listeners", &self.listeners)
            .finish_non_exhaustive()
    }
}

/// Draws how many bytes one direction of a connection holds.
pub(super) fn draw_capacity(clockwork: &mut Clockwork) -> usize {
    let range = clockwork.config.send_buffer_bytes.clone();
    clockwork.network_random.between(*range.start(), *range.end()).max(1) as usize
}
