//! The controllers that one reactor owns, each with the queues that belong to it, here and on other reactors.
//!
//! A controller lives on the reactor that its admin queue came to; its identifier says which that is. Invariant:
//! a queue that has been admitted is listed until its connection is gone, and a controller is dropped only when
//! its admin connection and all its queues are gone. Called by the poll group.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sledge_nvme::fabrics::InvalidParameter;
use sledge_nvme::opcode::Nvm;
use sledge_nvme::{Command, Status};

use super::controller::{CommandError, Controller};
use super::fault::{Fault, field};

/// What a Connect asks for.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    /// Controller identifier that the host named.
    pub controller_id: u16,
    /// Queue identifier.
    pub queue_id: u16,
    /// Entries of the queue.
    pub entries: u16,
    /// Subsystem to connect to.
    pub subsystem_nqn: String,
    /// Who asks.
    pub host_nqn: String,
    /// Host identifier.
    pub host_id: [u8; 16],
    /// Keep Alive Timeout in milliseconds.
    pub keep_alive_ms: u32,
    /// Whether the host does without submission queue flow control.
    pub flow_control_disabled: bool,
    /// The listener that the connection came in by.
    pub listener: SocketAddr,
    /// The connection's own end.
    pub local_address: SocketAddr,
    /// The reactor that has the connection.
    pub reactor: u32,
    /// The connection there.
    pub connection: u32,
}

/// A Connect that was granted.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    /// The controller.
    pub controller_id: u16,
    /// The reactor that owns it.
    pub owner: u32,
    /// Whether writes may stay in volatile caches; the controller's owner changes it, its queues read it.
    pub write_cache: Arc<AtomicBool>,
}

/// A Connect that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Status of the Connect.
    pub status: Status,
    /// DW0: which parameter is invalid.
    pub result: u32,
}

impl Refusal {
    /// A refusal that says nothing but its status.
    pub fn new(status: Status) -> Self {
        Self { status: status.do_not_retry(), result: 0 }
    }

    /// A refusal for one parameter.
    pub fn parameter(parameter: InvalidParameter) -> Self {
        Self { status: Status::CONNECT_INVALID_PARAMETERS.do_not_retry(), result: parameter.to_result() }
    }
}

/// Where a queue's connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueRef {
    /// Queue identifier.
    pub queue_id: u16,
    /// The reactor that has the connection.
    pub reactor: u32,
    /// The connection there.
    pub connection: u32,
}

/// One controller with its queues.
pub(crate) struct Entry {
    /// The controller.
    pub controller: Controller,
    /// The admin queue's connection, on this reactor; `None` once it is gone.
    pub admin: Option<u32>,
    /// I/O queues.
    pub queues: Vec<QueueRef>,
    /// The host's choice of the Volatile Write Cache feature, as the queues on all reactors see it.
    pub write_cache: Arc<AtomicBool>,
    /// The round of flushes under way that its shutdown waits for.
    pub flushing: Option<u16>,
}

/// All controllers of one reactor.
#[derive(Default)]
pub(crate) struct Controllers {
    entries: BTreeMap<u16, Entry>,
    sequence: u16,
}

impl Controllers {
    /// An identifier that no controller of this reactor has: reactor `this` of `reactors` gives out those that
    /// leave `this` when one less is divided by `reactors`. `None` when all in `range` are taken.
    pub fn free_id(&mut self, this: u32, reactors: u32, range: (u16, u16)) -> Option<u16> {
        let reactors = reactors.max(1);
        let count = (0xffef / reactors) as u16;
        for _ in 0..count {
            let candidate = u32::from(self.sequence) * reactors + this + 1;
            self.sequence = (self.sequence + 1) % count;
            let candidate = candidate as u16;
            if candidate >= range.0 && candidate <= range.1 && !self.entries.contains_key(&candidate) {
                return Some(candidate);
            }
        }
        None
    }

    /// The reactor that owns a controller identifier, whether or not there is such a controller.
    pub fn owner(controller_id: u16, reactors: u32) -> u32 {
        u32::from(controller_id.saturating_sub(1)) % reactors.max(1)
    }

    /// Adds a controller.
    pub fn insert(&mut self, id: u16, entry: Entry) {
        let before = self.entries.insert(id, entry);
        assert!(before.is_none(), "controller identifier {id} is given out twice");
    }

    /// The controller of an identifier.
    pub fn get_mut(&mut self, id: u16) -> Option<&mut Controller> {
        self.entries.get_mut(&id).map(|entry| &mut entry.controller)
    }

    /// The controller of an identifier with its queues.
    pub fn entry(&mut self, id: u16) -> Option<&mut Entry> {
        self.entries.get_mut(&id)
    }

    /// Every identifier.
    pub fn ids(&self) -> Vec<u16> {
        self.entries.keys().copied().collect()
    }

    /// Every controller.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Decides whether a queue may join its controller.
    pub fn admit(&mut self, admission: &Admission, owner: u32) -> Result<Granted, Refusal> {
        let entry = self
            .entries
            .get_mut(&admission.controller_id)
            .filter(|entry| entry.admin.is_some())
            .ok_or(Refusal::parameter(InvalidParameter::CNTLID))?;
        let identity = entry.controller.identity();
        if identity.subsystem_nqn != admission.subsystem_nqn {
            return Err(Refusal::parameter(InvalidParameter::SUBNQN));
        }
        if identity.host_nqn != admission.host_nqn {
            return Err(Refusal::parameter(InvalidParameter::HOSTNQN));
        }
        if identity.host_id != admission.host_id {
            return Err(Refusal::parameter(InvalidParameter::HOST_ID));
        }
        if identity.listener != admission.listener {
            // All queues of an association use one port of the subsystem (NVMe Base 2.0, 2.2).
            return Err(Refusal::parameter(InvalidParameter::CNTLID));
        }
        entry.controller.queue_added(admission.queue_id).map_err(|status| {
            if status.is(Status::CONNECT_INVALID_PARAMETERS) {
                Refusal::parameter(InvalidParameter::QID)
            } else {
                Refusal { status, result: 0 }
            }
        })?;
        entry.queues.push(QueueRef {
            queue_id: admission.queue_id,
            reactor: admission.reactor,
            connection: admission.connection,
        });
        let write_cache = entry.write_cache.clone();
        Ok(Granted { controller_id: admission.controller_id, owner, write_cache })
    }

    /// A queue's connection is gone. Returns whether it was the last of its controller, which has to be told.
    pub fn queue_gone(&mut self, controller_id: u16, gone: QueueRef) -> bool {
        let Some(entry) = self.entries.get_mut(&controller_id) else { return false };
        let before = entry.queues.len();
        entry.queues.retain(|queue| *queue != gone);
        if entry.queues.len() == before {
            return false;
        }
        entry.controller.queue_removed(gone.queue_id);
        let last = entry.queues.is_empty();
        if last {
            self.drop_if_gone(controller_id);
        }
        last
    }

    /// The admin connection is gone; returns the queues that must go too.
    pub fn admin_gone(&mut self, controller_id: u16) -> Vec<QueueRef> {
        let Some(entry) = self.entries.get_mut(&controller_id) else { return Vec::new() };
        entry.admin = None;
        let queues = entry.queues.clone();
        self.drop_if_gone(controller_id);
        queues
    }

    fn drop_if_gone(&mut self, controller_id: u16) {
        let gone = self
            .entries
            .get(&controller_id)
            .is_some_and(|entry| entry.admin.is_none() && entry.queues.is_empty());
        if gone {
            self.entries.remove(&controller_id);
        }
    }
}

/// What a controller's error log keeps of a failed command.
pub(crate) fn failure(queue_id: u16, command: &Command, fault: Fault) -> CommandError {
    use Nvm::{Compare, Read, Verify, Write, WriteZeroes};
    let has_blocks = queue_id != 0
        && matches!(Nvm::from_value(command.opcode), Some(Read | Write | Compare | WriteZeroes | Verify));
    // Devices, too, find ranges out of bounds.
    let range = has_blocks && fault.status.is(Status::LBA_OUT_OF_RANGE);
    CommandError {
        sqid: queue_id,
        cid: command.cid.get(),
        status: fault.status,
        location: if range { Fault::field(field::DWORD_10).location } else { fault.location },
        lba: if has_blocks { command.slba() } else { 0 },
        nsid: if command.opcode == sledge_nvme::opcode::FABRICS { 0 } else { command.nsid.get() },
        opcode: command.opcode,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without this two reactors could give out one identifier, and a queue could join a stranger's controller.
    #[test]
    fn identifiers_tell_their_reactor() {
        for reactors in 1..=5 {
            for this in 0..reactors {
                let mut controllers = Controllers::default();
                for _ in 0..100 {
                    let id = controllers.free_id(this, reactors, (1, 0xffef));
                    assert_eq!(id.map(|id| Controllers::owner(id, reactors)), Some(this));
                }
            }
        }
    }

    // Without this a subsystem's limits on controller identifiers mean nothing.
    #[test]
    fn identifiers_stay_in_their_range() {
        let mut controllers = Controllers::default();
        let ids: Vec<_> = (0..6).map(|_| controllers.free_id(0, 1, (10, 12))).collect();
        assert_eq!(ids, [10, 11, 12, 10, 11, 12].map(Some));
        assert_eq!(controllers.free_id(1, 2, (1, 1)), None, "1 belongs to reactor 0");
    }
}
