//! What a program does with the bytes of a simulated connection: read, write, shut down.
//!
//! Invariant: whenever a call moved less than it could have, or nothing, an edge of readiness follows, as if
//! the rest had come (or room had been made) a moment later. Called by the sockets of the simulated backend.

use std::io::{self, IoSlice, IoSliceMut};

use super::clockwork::{Clockwork, Event, SocketId};
use super::endpoint::{Packet, Phase};
use super::network::{BOTH, Network, READABLE, WRITABLE};
use crate::backend::Readiness;

/// Longest wait for the edge after a short read or write, nanoseconds.
const LONGEST_PAUSE: u64 = 30_000;

impl Network {
    /// Reads what has arrived, sometimes less.
    pub(super) fn read(
        &mut self,
        clockwork: &mut Clockwork,
        socket: SocketId,
        buffers: &mut [IoSliceMut<'_>],
    ) -> io::Result<Option<usize>> {
        let endpoint = self.endpoints.get_mut(&socket).ok_or(io::ErrorKind::ConnectionReset)?;
        if endpoint.received.is_empty() || endpoint.shut {
            return match endpoint.phase {
                Phase::Failed(kind) => Err(kind.into()),
                Phase::Connecting => Ok(None),
                Phase::Open if endpoint.ended || endpoint.shut => Ok(Some(0)),
                Phase::Open => Ok(None),
            };
        }
        let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let whole = wanted.min(endpoint.received.len());
        let length = shorten(clockwork, socket, whole, READABLE);
        if length == 0 && whole != 0 {
            return Ok(None);
        }
        let mut left = length;
        for buffer in buffers {
            let piece = left.min(buffer.len());
            let (front, back) = endpoint.received.as_slices();
            let from_front = piece.min(front.len());
            buffer[..from_front].copy_from_slice(&front[..from_front]);
            buffer[from_front..piece].copy_from_slice(&back[..piece - from_front]);
            endpoint.received.drain(..piece);
            left -= piece;
        }
        clockwork.note("read", socket, length as u64);
        if let Some(peer) = endpoint.peer {
            self.make_room(clockwork, peer);
        }
        Ok(Some(length))
    }

    /// Takes bytes to send, as many as fit, sometimes less.
    pub(super) fn write(
        &mut self,
        clockwork: &mut Clockwork,
        socket: SocketId,
        buffers: &[IoSlice<'_>],
    ) -> io::Result<Option<usize>> {
        let room = self.room(socket);
        let endpoint = self.endpoints.get_mut(&socket).ok_or(io::ErrorKind::ConnectionReset)?;
        match endpoint.phase {
            Phase::Connecting => return Ok(None),
            Phase::Failed(kind) => return Err(kind.into()),
            Phase::Open if endpoint.shut => return Err(io::ErrorKind::BrokenPipe.into()),
            Phase::Open => {}
        }
        let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let whole = wanted.min(room);
        let length = shorten(clockwork, socket, whole, WRITABLE);
        endpoint.wants_room |= length < wanted;
        let (node, peer_node) = (endpoint.node, endpoint.peer_node);
        if length == 0 && wanted != 0 {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(length);
        for buffer in buffers {
            let piece = buffer.len().min(length - bytes.len());
            bytes.extend_from_slice(&buffer[..piece]);
        }
        clockwork.note("write", socket, length as u64);
        if self.links.splits(clockwork, node, peer_node) {
            for _ in 0..clockwork.network_random.between(1, 6) {
                if bytes.len() < 2 {
                    break;
                }
                let most = match clockwork.network_random.chance(500_000) {
                    true => bytes.len().min(64) as u64 - 1,
                    false => bytes.len() as u64 - 1,
                };
                let rest = bytes.split_off(clockwork.network_random.between(1, most) as usize);
                self.send(clockwork, socket, Packet::Data(bytes));
                bytes = rest;
            }
        }
        if !bytes.is_empty() {
            self.send(clockwork, socket, Packet::Data(bytes));
        }
        Ok(Some(length))
    }

    /// How a connection attempt ended, or with which error the connection did.
    pub(super) fn take_error(&self, socket: SocketId) -> io::Result<Option<io::Error>> {
        match self.endpoints.get(&socket).map(|endpoint| endpoint.phase) {
            None => Err(io::ErrorKind::ConnectionReset.into()),
            Some(Phase::Failed(kind)) => Ok(Some(kind.into())),
            Some(Phase::Connecting) => Ok(Some(io::ErrorKind::NotConnected.into())),
            Some(Phase::Open) => Ok(None),
        }
    }

    /// Ends both directions.
    pub(super) fn shutdown(&mut self, clockwork: &mut Clockwork, socket: SocketId) -> io::Result<()> {
        let endpoint = self.endpoints.get_mut(&socket).ok_or(io::ErrorKind::NotConnected)?;
        match endpoint.phase {
            Phase::Connecting | Phase::Failed(_) => return Err(io::ErrorKind::NotConnected.into()),
            Phase::Open if endpoint.shut => return Ok(()),
            Phase::Open => {}
        }
        clockwork.note("shutdown", socket, endpoint.received.len() as u64);
        endpoint.shut = true;
        endpoint.received.clear();
        let peer = endpoint.peer;
        self.send(clockwork, socket, Packet::Fin);
        self.edge(clockwork, socket, BOTH);
        if let Some(peer) = peer {
            self.make_room(clockwork, peer);
        }
        Ok(())
    }

    /// Ends a connection at once: some of what is on its way still arrives, by seed, unless it is held up.
    pub(super) fn abort(&mut self, clockwork: &mut Clockwork, socket: SocketId) {
        let Some(endpoint) = self.endpoints.get_mut(&socket) else { return };
        if matches!(endpoint.phase, Phase::Failed(_)) {
            return;
        }
        clockwork.note("abort", socket, endpoint.flight.len() as u64);
        let open = endpoint.phase == Phase::Open;
        endpoint.phase = Phase::Failed(io::ErrorKind::ConnectionAborted);
        endpoint.aborted = true;
        endpoint.received.clear();
        let passes = self.links.passes(endpoint.node, endpoint.peer_node);
        if open && passes && endpoint.held.is_none() {
            let kept = clockwork.network_random.below(endpoint.flight.len() as u64 + 1);
            endpoint.flight.truncate(kept as usize);
            self.send(clockwork, socket, Packet::Reset);
        } else {
            endpoint.clear_flight();
        }
        self.edge(clockwork, socket, BOTH);
    }
}

/// Draws how much of a transfer happens at once; an edge is scheduled for the rest.
fn shorten(clockwork: &mut Clockwork, socket: SocketId, whole: usize, readiness: Readiness) -> usize {
    if whole == 0 || !clockwork.network_random.chance(clockwork.config.short_io_per_million) {
        return whole;
    }
    let length = match clockwork.network_random.below(8) {
        0 => 0,
        1..4 => clockwork.network_random.between(1, whole.min(64) as u64) as usize,
        _ => clockwork.network_random.between(1, whole as u64) as usize,
    };
    if length < whole {
        let at = clockwork.now + clockwork.network_random.between(1, LONGEST_PAUSE);
        clockwork.schedule(at, Event::Edge { socket, readiness });
    }
    length
}
