//! One end of a simulated connection: what it has received, what it has sent that has not arrived, and how
//! the connection stands from its side.
//!
//! Invariant: packets of one end arrive in the order in which they were sent; bytes between write and read
//! never exceed the capacity drawn for that direction. Owned and changed by the network.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use super::clockwork::{NodeId, ReactorId, SocketId};
use crate::backend::ReadinessSink;

/// What travels from one end to the other.
#[derive(Debug)]
pub(super) enum Packet {
    /// Asks for a connection.
    Syn,
    /// Grants it.
    SynAck,
    /// Bytes of the stream.
    Data(Vec<u8>),
    /// Nothing more follows.
    Fin,
    /// The connection is gone.
    Reset,
}

/// A packet and when it arrives if nothing is in its way.
#[derive(Debug)]
pub(super) struct InFlight {
    /// Virtual nanoseconds.
    pub due: u64,
    /// What it carries.
    pub packet: Packet,
}

/// How a connection stands as one end knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The attempt has not been answered.
    Connecting,
    /// Bytes can flow.
    Open,
    /// It ended in an error, which every call repeats.
    Failed(io::ErrorKind),
}

/// See the module.
pub(super) struct Endpoint {
    /// The node of this end.
    pub node: NodeId,
    /// The node of the other end.
    pub peer_node: NodeId,
    /// The other end, once it exists.
    pub peer: Option<SocketId>,
    /// The reactor that watches this end.
    pub reactor: Option<ReactorId>,
    /// Where that reactor wants readiness.
    pub sink: Option<Rc<dyn ReadinessSink>>,
    /// Our address.
    pub local: SocketAddr,
    /// The address of the other end.
    pub remote: SocketAddr,
    /// See [`Phase`].
    pub phase: Phase,
    /// The program has dropped this end; it only stays for what it still has to send.
    pub closed: bool,
    /// The program has shut both directions.
    pub shut: bool,
    /// The program has aborted the connection: what can't get through is not tried again.
    pub aborted: bool,
    /// The other end will send nothing more.
    pub ended: bool,
    /// Arrived and not yet read.
    pub received: VecDeque<u8>,
    /// Sent and not yet arrived.
    pub flight: VecDeque<InFlight>,
    /// Bytes of data in `flight`.
    pub flight_bytes: usize,
    /// When the last packet arrives, so that the next does not overtake it.
    pub last_due: u64,
    /// A delivery event for the front of `flight` is scheduled.
    pub delivering: bool,
    /// Most bytes between write and read.
    pub capacity: usize,
    /// A write found no room.
    pub wants_room: bool,
    /// News of room is on its way.
    pub room_announced: bool,
    /// Since when and until when delivery is tried in vain.
    pub held: Option<Held>,
}

/// A delivery that does not get through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// When this end gives up, virtual nanoseconds.
    pub until: u64,
    /// How often it has tried.
    pub tries: u32,
}

impl Endpoint {
    /// A fresh end.
    pub(super) fn new(node: NodeId, peer_node: NodeId, local: SocketAddr, remote: SocketAddr) -> Endpoint {
        Endpoint {
            node,
            peer_node,
            peer: None,
            reactor: None,
            sink: None,
            local,
            remote,
            phase: Phase::Connecting,
            closed: false,
            shut: false,
            aborted: false,
            ended: false,
            received: VecDeque::new(),
            flight: VecDeque::new(),
            flight_bytes: 0,
            last_due: 0,
            delivering: false,
            capacity: 0,
            wants_room: false,
            room_announced: false,
            held: None,
        }
    }

    /// True when bytes that arrive still find a reader.
    pub(super) fn listens(&self) -> bool {
        !self.closed && self.phase == Phase::Open
    }

    /// Forgets everything that is on its way.
    pub(super) fn clear_flight(&mut self) {
        self.flight.clear();
        self.flight_bytes = 0;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} -> {} {:?}", self.local, self.remote, self.phase)
    }
}

/// A listening socket.
pub(super) struct Listener {
    /// Its node.
    pub node: NodeId,
    /// The reactor that made it.
    pub reactor: ReactorId,
    /// What it is bound to.
    pub address: SocketAddr,
    /// Where readiness goes.
    pub sink: Option<Rc<dyn ReadinessSink>>,
    /// Connections that nobody has accepted.
    pub backlog: VecDeque<SocketId>,
}

impl Listener {
    /// True when a connection to this address is meant for this listener.
    pub(super) fn takes(&self, node: NodeId, to: SocketAddr) -> bool {
        let (own, asked) = (self.address.ip(), to.ip());
        let same_family = own.is_ipv4() == asked.is_ipv4();
        self.node == node
            && self.address.port() == to.port()
            && (own == asked || (own.is_unspecified() && same_family))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "listener {}", self.address)
    }
}
