//! What a target tells about itself: connections and controllers, as plain values for the management side.

use std::net::SocketAddr;

use super::group::PollGroup;

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionReport {
    /// The reactor's place in the target.
    pub reactor: u32,
    /// Where it stands, in the words of the state machine.
    pub state: String,
    /// NQN that the host connected to; empty before its Connect.
    pub subsystem_nqn: String,
    /// NQN of the host; empty before its Connect.
    pub host_nqn: String,
    /// Controller identifier; 0 before its Connect.
    pub controller_id: u16,
    /// Queue identifier.
    pub queue_id: u16,
    /// Entries of the queue; 0 before its Connect.
    pub entries: u16,
    /// The host's socket address.
    pub peer: SocketAddr,
    /// The listener it came in by.
    pub listener: SocketAddr,
    /// Header digests are in force.
    pub header_digest: bool,
    /// Data digests are in force.
    pub data_digest: bool,
    /// Commands in flight.
    pub outstanding: u16,
}

/// One controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerReport {
    /// The reactor's place in the target.
    pub reactor: u32,
    /// Controller identifier.
    pub controller_id: u16,
    /// NQN of its subsystem.
    pub subsystem_nqn: String,
    /// NQN of the host.
    pub host_nqn: String,
    /// Host identifier.
    pub host_id: [u8; 16],
    /// The listener its admin queue came in by.
    pub listener: SocketAddr,
    /// I/O queues that are connected.
    pub io_queues: usize,
    /// Keep Alive Timeout in milliseconds; 0 is none.
    pub keep_alive_ms: u32,
}

/// The queues that hosts have connected on one reactor since the target was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueTotals {
    /// The reactor's place in the target.
    pub reactor: u32,
    /// Admin queues.
    pub admin_queues: u64,
    /// I/O queues.
    pub io_queues: u64,
    /// Not since then but now: commands that wait for a buffer for their data.
    pub waiting_for_buffers: usize,
}

impl QueueTotals {
    pub(super) fn count(&mut self, queue_id: u16) {
        let kind = if queue_id == 0 { &mut self.admin_queues } else { &mut self.io_queues };
        *kind += 1;
    }
}

pub(crate) fn connections(group: &PollGroup) -> Vec<ConnectionReport> {
    let report = |connection: &super::connection::Connection| {
        let queue = connection.queue();
        let (header_digest, data_digest) = connection.digests();
        ConnectionReport {
            reactor: group.place(),
            state: format!("{:?}", connection.state()).to_lowercase(),
            subsystem_nqn: queue.map_or_else(String::new, |queue| queue.subsystem_nqn.clone()),
            host_nqn: queue.map_or_else(String::new, |queue| queue.host_nqn.clone()),
            controller_id: queue.map_or(0, |queue| queue.controller_id),
            queue_id: queue.map_or(0, |queue| queue.id),
            entries: queue.map_or(0, |queue| queue.entries),
            peer: connection.peer(),
            listener: connection.listener(),
            header_digest,
            data_digest,
            outstanding: connection.outstanding(),
        }
    };
    group.connections().map(report).collect()
}

pub(crate) fn controllers(group: &PollGroup) -> Vec<ControllerReport> {
    let report = |entry: &super::controllers::Entry| {
        let identity = entry.controller.identity();
        ControllerReport {
            reactor: group.place(),
            controller_id: identity.controller_id,
            subsystem_nqn: identity.subsystem_nqn.clone(),
            host_nqn: identity.host_nqn.clone(),
            host_id: identity.host_id,
            listener: identity.listener,
            io_queues: entry.controller.io_queues(),
            keep_alive_ms: entry.controller.keep_alive_ms(),
        }
    };
    group.controllers().map(report).collect()
}
