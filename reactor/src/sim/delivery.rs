//! How packets of the simulated network arrive, are held up, and are refused.
//!
//! Invariant: per end at most one delivery event is scheduled, and it stands for the front of what that end
//! has in flight, so order within a direction can't be broken by latency, loss or partition. Called by the
//! world when an event's time has come.

use std::io;

use super::clockwork::{Clockwork, Event, SocketId};
use super::endpoint::{Endpoint, Held, Packet, Phase};
use super::network::{BOTH, Network, READABLE, WRITABLE, draw_capacity};
use super::random::hash_bytes;

/// The first pause before a held packet is tried again, nanoseconds; doubles with each try.
const FIRST_RETRY: u64 = 50_000_000;
/// Doublings of that pause at most (1.6 s).
const MOST_DOUBLINGS: u32 = 5;

impl Network {
    /// Schedules the delivery of the front of what an end has in flight, unless it is scheduled.
    pub(super) fn arm(&mut self, clockwork: &mut Clockwork, socket: SocketId) {
        let Some(endpoint) = self.endpoints.get_mut(&socket) else { return };
        if endpoint.delivering {
            return;
        }
        if let Some(front) = endpoint.flight.front() {
            endpoint.delivering = true;
            clockwork.schedule(front.due, Event::Deliver(socket));
        }
    }

    /// A delivery event: everything that is due arrives, or is held up.
    pub(super) fn deliver(&mut self, clockwork: &mut Clockwork, socket: SocketId) {
        let Some(endpoint) = self.endpoints.get_mut(&socket) else { return };
        if endpoint.flight.is_empty() {
            endpoint.delivering = false;
            return;
        }
        if !self.links.passes(endpoint.node, endpoint.peer_node) {
            self.hold(clockwork, socket);
            return;
        }
        endpoint.held = None;
        while let Some(endpoint) = self.endpoints.get_mut(&socket) {
            match endpoint.flight.front() {
                Some(front) if front.due <= clockwork.now => {}
                _ => break,
            }
            if matches!(endpoint.flight.front().map(|front| &front.packet), Some(Packet::Syn)) {
                if !self.arrive_syn(clockwork, socket) {
                    self.hold(clockwork, socket);
                    return;
                }
                continue;
            }
            let Some(in_flight) = endpoint.flight.pop_front() else { break };
            self.arrive(clockwork, socket, in_flight.packet);
        }
        if let Some(endpoint) = self.endpoints.get_mut(&socket) {
            endpoint.delivering = false;
        }
        self.arm(clockwork, socket);
        self.reap(socket);
    }

    /// A packet does not get through: it is tried again, until its sender gives up.
    fn hold(&mut self, clockwork: &mut Clockwork, socket: SocketId) {
        let Some(endpoint) = self.endpoints.get_mut(&socket) else { return };
        if endpoint.aborted {
            endpoint.held = None;
            endpoint.delivering = false;
            endpoint.clear_flight();
            self.reap(socket);
            return;
        }
        let held = endpoint.held.get_or_insert_with(|| {
            let patience = match endpoint.phase {
                Phase::Connecting => clockwork.config.connect_timeout.clone(),
                _ => clockwork.config.delivery_timeout.clone(),
            };
            Held { until: clockwork.now + clockwork.network_random.nanos(&patience), tries: 0 }
        });
        clockwork.note("hold", socket, u64::from(held.tries));
        if clockwork.now >= held.until {
            endpoint.held = None;
            endpoint.delivering = false;
            endpoint.clear_flight();
            self.fail(clockwork, socket, io::ErrorKind::TimedOut);
            self.reap(socket);
            return;
        }
        let at = retry_at(clockwork, held.tries).min(held.until);
        held.tries += 1;
        clockwork.schedule(at, Event::Deliver(socket));
    }

    /// A connection attempt arrives. False when it has to be tried again.
    fn arrive_syn(&mut self, clockwork: &mut Clockwork, client: SocketId) -> bool {
        let Some(endpoint) = self.endpoints.get(&client) else { return true };
        let (node, peer_node) = (endpoint.node, endpoint.peer_node);
        let (local, remote) = (endpoint.local, endpoint.remote);
        let found = self.listeners.iter_mut().find(|(_, listener)| listener.takes(peer_node, remote));
        clockwork.note("syn", client, found.as_ref().map_or(0, |(id, _)| **id));
        let Some((&listener_id, listener)) = found else {
            self.drop_front(client);
            self.refuse(clockwork, client);
            return true;
        };
        if listener.backlog.len() >= clockwork.config.backlog {
            return false;
        }
        self.next_server(clockwork, client, Endpoint::new(peer_node, node, remote, local), listener_id);
        self.drop_front(client);
        true
    }

    /// Makes the server's end of a connection and puts it in the backlog.
    fn next_server(
        &mut self,
        clockwork: &mut Clockwork,
        client: SocketId,
        mut server: Endpoint,
        listener_id: SocketId,
    ) {
        let server_id = self.new_socket();
        server.phase = Phase::Open;
        server.peer = Some(client);
        server.capacity = draw_capacity(clockwork);
        self.endpoints.insert(server_id, server);
        if let Some(endpoint) = self.endpoints.get_mut(&client) {
            endpoint.peer = Some(server_id);
        }
        if let Some(listener) = self.listeners.get_mut(&listener_id) {
            listener.backlog.push_back(server_id);
            if listener.sink.is_some() {
                clockwork.make_ready(listener.reactor, listener_id, READABLE);
            }
        }
        self.send(clockwork, server_id, Packet::SynAck);
    }

    /// Forgets the packet that has just arrived.
    fn drop_front(&mut self, socket: SocketId) {
        if let Some(endpoint) = self.endpoints.get_mut(&socket) {
            endpoint.flight.pop_front();
        }
    }

    /// Any packet but a connection attempt arrives at the peer of its sender.
    fn arrive(&mut self, clockwork: &mut Clockwork, sender: SocketId, packet: Packet) {
        let Some(from) = self.endpoints.get_mut(&sender) else { return };
        if let Packet::Data(bytes) = &packet {
            from.flight_bytes = from.flight_bytes.saturating_sub(bytes.len());
        }
        let Some(target) = from.peer else { return };
        let Some(to) = self.endpoints.get_mut(&target) else {
            clockwork.note("stray", sender, target);
            if !matches!(packet, Packet::Fin | Packet::Reset) {
                self.refuse(clockwork, sender);
            }
            return;
        };
        match packet {
            Packet::Syn => {}
            Packet::SynAck => {
                clockwork.note("syn-ack", target, 0);
                if to.phase == Phase::Connecting && !to.closed {
                    to.phase = Phase::Open;
                    self.edge(clockwork, target, WRITABLE);
                } else {
                    self.refuse(clockwork, sender);
                }
            }
            Packet::Data(bytes) => {
                clockwork.note("data", target, hash_bytes(&bytes));
                if !to.listens() {
                    self.refuse(clockwork, sender);
                } else if to.shut {
                    self.make_room(clockwork, sender);
                } else {
                    to.received.extend(&bytes);
                    self.edge(clockwork, target, READABLE);
                }
            }
            Packet::Fin => {
                clockwork.note("fin", target, 0);
                to.ended = true;
                self.edge(clockwork, target, READABLE);
            }
            Packet::Reset => {
                clockwork.note("reset", target, 0);
                self.fail(clockwork, target, io::ErrorKind::ConnectionReset);
            }
        }
    }

    /// The peer's node does not know the connection, and says so.
    fn refuse(&mut self, clockwork: &mut Clockwork, to: SocketId) {
        let Some(endpoint) = self.endpoints.get(&to) else { return };
        let delay = self.links.delay(clockwork, endpoint.peer_node, endpoint.node);
        clockwork.schedule(clockwork.now + delay, Event::Refusal { to, tries: 0 });
    }

    /// A refusal arrives.
    pub(super) fn refused(&mut self, clockwork: &mut Clockwork, to: SocketId, tries: u32) {
        let Some(endpoint) = self.endpoints.get(&to) else { return };
        if !self.links.passes(endpoint.peer_node, endpoint.node) {
            let at = retry_at(clockwork, tries);
            clockwork.schedule(at, Event::Refusal { to, tries: tries.saturating_add(1) });
            return;
        }
        let kind = match endpoint.phase {
            Phase::Connecting => io::ErrorKind::ConnectionRefused,
            _ => io::ErrorKind::ConnectionReset,
        };
        self.fail(clockwork, to, kind);
        self.reap(to);
    }

    /// Bytes that an end has sent have been read: it may hear of the room.
    pub(super) fn make_room(&mut self, clockwork: &mut Clockwork, sender: SocketId) {
        let room = self.room(sender);
        let Some(endpoint) = self.endpoints.get_mut(&sender) else { return };
        if endpoint.wants_room && !endpoint.room_announced && room >= endpoint.capacity.div_ceil(3) {
            endpoint.room_announced = true;
            let delay = self.links.delay(clockwork, endpoint.peer_node, endpoint.node);
            clockwork.schedule(clockwork.now + delay, Event::Window { to: sender, tries: 0 });
        }
    }

    /// News of room arrives.
    pub(super) fn window(&mut self, clockwork: &mut Clockwork, to: SocketId, tries: u32) {
        let Some(endpoint) = self.endpoints.get_mut(&to) else { return };
        if !self.links.passes(endpoint.peer_node, endpoint.node) {
            let at = retry_at(clockwork, tries);
            clockwork.schedule(at, Event::Window { to, tries: tries.saturating_add(1) });
            return;
        }
        clockwork.note("window", to, 0);
        endpoint.room_announced = false;
        endpoint.wants_room = false;
        self.edge(clockwork, to, BOTH);
    }

    /// How many bytes an end may write now.
    pub(super) fn room(&self, sender: SocketId) -> usize {
        let Some(endpoint) = self.endpoints.get(&sender) else { return 0 };
        let unread = endpoint.peer.and_then(|peer| self.endpoints.get(&peer)).map_or(0, |p| p.received.len());
        endpoint.capacity.saturating_sub(endpoint.flight_bytes + unread)
    }
}

/// When something that was held up is tried again.
fn retry_at(clockwork: &mut Clockwork, tries: u32) -> u64 {
    let pause = FIRST_RETRY << tries.min(MOST_DOUBLINGS);
    clockwork.now + pause + clockwork.network_random.below(pause / 4)
}
