//! Commands of the admin queue: executed by the controller, which lives on this reactor.

use sledge_nvme::command::{BROADCAST_NSID, Fuse};
use sledge_nvme::opcode::{FABRICS, FabricsType};
use sledge_nvme::{Command, Status};
use sledge_reactor::memory::{self, Segment, Segments};

use super::Connection;
use super::fabrics::CONNECT_DATA_BYTES;
use super::slot::{FusedHalf, Obstacle, Phase};
use super::state::State;
use crate::target::controller::{Controller, Outcome, Transfer};
use crate::target::fault::{Fault, field};
use crate::target::group::{GroupAction, Shared};

/// Bytes that the host gets with an admin command even where MDTS is less.
const LEAST_MAX_REPLY_BYTES: u32 = 128 * 1024;

impl Connection {
    /// Which way a command's data goes, and how much there is.
    ///
    /// # Errors
    /// What a command is answered with that must not be executed at all.
    pub(super) fn transfer_of(&self, slot: u16, shared: &Shared) -> Result<Transfer, Fault> {
        let command = &self.slots.get(slot).command;
        if command.data_pointer_kind() != Some(sledge_nvme::command::DataPointerKind::SglContiguousMetadata) {
            // Fabrics commands always use SGLs (NVMe Base 2.0, 3.3.3.1, PSDT).
            return Err(Fault::field_bit(field::FLAGS, 6));
        }
        if command.opcode == FABRICS {
            let connects = command.fctype() == FabricsType::Connect.value();
            if !connects && self.state != State::Live {
                return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry().into());
            }
            return Ok(if connects {
                Transfer::HostToController(CONNECT_DATA_BYTES)
            } else {
                Transfer::None
            });
        }
        match (&self.queue, self.state) {
            (Some(queue), State::Live) if queue.id == 0 => Ok(Controller::transfer(command)),
            (Some(_), State::Live) => self.io_transfer_of(command, shared),
            _ => Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry().into()),
        }
    }

    /// Executes a command whose data, if any, has arrived.
    pub(super) fn execute(&mut self, slot: u16, shared: &mut Shared) {
        let entry = self.slots.get(slot);
        let opcode = entry.command.opcode;
        if entry.obstacle != Obstacle::None
            && let Err(fault) = self.overcome(slot)
        {
            return self.refuse(slot, fault, shared);
        }
        if opcode == FABRICS {
            self.execute_fabrics(slot, shared);
        } else if self.queue.as_ref().is_some_and(|queue| queue.id == 0) {
            self.execute_admin(slot, shared);
        } else {
            self.execute_io(slot, shared);
        }
    }

    /// Deals with what keeps a command from being executed as it is.
    #[cold]
    fn overcome(&mut self, slot: u16) -> Result<(), Fault> {
        let entry = self.slots.get_mut(slot);
        match entry.obstacle {
            Obstacle::None => Ok(()),
            Obstacle::Aborted => Err(Status::ABORTED_BY_REQUEST.into()),
            Obstacle::DataDigest => Err(Status::TRANSIENT_TRANSPORT_ERROR.into()),
            // The first of a pair is to blame, once both are here.
            Obstacle::NamespaceGone if entry.fused != FusedHalf::None => Ok(()),
            Obstacle::NamespaceGone => Err(Fault::NAMESPACE),
            Obstacle::DataOffset => {
                // Both lie in the capsule, as was checked when it arrived.
                let (offset, length) = (entry.command.dptr.address.get() as usize, entry.bytes as usize);
                let Some(Segment::Buffer(mut buffer)) = entry.data.pop() else {
                    return Err(Status::INTERNAL_ERROR.into());
                };
                buffer.copy_within(offset..offset + length, 0);
                buffer.truncate(length);
                entry.data = Segments::from(buffer);
                entry.obstacle = Obstacle::None;
                Ok(())
            }
        }
    }

    fn execute_admin(&mut self, slot: u16, shared: &mut Shared) {
        let command = self.slots.get(slot).command;
        if command.fuse() != Some(Fuse::Normal) {
            // No fused operation is of Admin commands.
            return self.refuse(slot, Fault::field_bit(field::FLAGS, 0), shared);
        }
        let reply_bytes = match Controller::transfer(&command) {
            Transfer::ControllerToHost(bytes) => bytes as usize,
            Transfer::HostToController(_) | Transfer::None => 0,
        };
        if reply_bytes > self.max_io_bytes.max(LEAST_MAX_REPLY_BYTES) as usize {
            // Only Get Log Page can ask for so much: NUMDL, the upper half of its dword 10.
            return self.refuse(slot, Fault::field(field::DWORD_10 + 2), shared);
        }
        let mut reply = None;
        if reply_bytes > 0 {
            // A host can't even connect without the small ones, and hosts don't try those again.
            let small = reply_bytes <= memory::MIN_BUFFER_BYTES;
            let headroom = || small.then(|| memory::allocate_from_headroom(reply_bytes)).flatten();
            let Some(mut buffer) = memory::allocate(reply_bytes).or_else(headroom) else {
                return self.respond(slot, Status::COMMAND_INTERRUPTED, 0, shared);
            };
            buffer.truncate(reply_bytes);
            buffer.fill(0);
            reply = Some(buffer);
        }
        let now = shared.now;
        let definition = shared.announced.clone();
        let data = std::mem::take(&mut self.slots.get_mut(slot).data);
        let input = data.iter().next().map_or(&[][..], |segment| segment.as_slice());
        let outcome = match self.own_controller(shared) {
            Ok(controller) => {
                let output = reply.as_mut().map_or(&mut [][..], |buffer| &mut buffer[..]);
                controller.execute(&command, input, output, &definition, now)
            }
            Err(status) => Outcome::Failed(status.into()),
        };
        match outcome {
            Outcome::Done { result, reply_bytes } => {
                if let Some(mut buffer) = reply {
                    buffer.truncate(reply_bytes);
                    self.slots.get_mut(slot).data = Segments::from(buffer);
                }
                self.respond_with_data(slot, result, shared);
            }
            Outcome::Failed(fault) => self.refuse(slot, fault, shared),
            Outcome::Held => self.slots.get_mut(slot).phase = Phase::Held,
            Outcome::Abort { sqid, cid, request } => self.abort_request(slot, sqid, cid, request, shared),
        }
        self.after_controller(shared);
    }

    /// Abort: on this queue at once, on an I/O queue by way of the group.
    fn abort_request(&mut self, slot: u16, sqid: u16, cid: u16, request: bool, shared: &mut Shared) {
        let Some(queue) = &self.queue else { return };
        if sqid == 0 {
            let aborted = self.abort(cid, request, shared);
            return self.respond(slot, Status::SUCCESS, u64::from(!aborted), shared);
        }
        let controller_id = queue.controller_id;
        self.slots.get_mut(slot).phase = Phase::Executing;
        self.executing += 1;
        shared.actions.push_back(GroupAction::Abort { admin: self.key, slot, controller_id, sqid, cid });
    }

    /// The answer to an Abort that went to another queue: DW0 bit 0 is clear when the command was aborted.
    pub fn abort_decided(&mut self, slot: u16, aborted: bool, shared: &mut Shared) {
        self.respond(slot, Status::SUCCESS, u64::from(!aborted), shared);
        self.executed(shared);
    }

    /// Aborts a command of this queue; true when it has been or will be answered as aborted. `request`: an asynchronous
    /// event request that the controller has given back.
    pub fn abort(&mut self, cid: u16, request: bool, shared: &mut Shared) -> bool {
        let Some(slot) = self.slots.by_command_id(cid) else { return false };
        let entry = self.slots.get_mut(slot);
        match entry.phase {
            Phase::Free | Phase::Responding => false,
            Phase::Held => {
                if request {
                    self.respond(slot, Status::ABORTED_BY_REQUEST, 0, shared);
                }
                request
            }
            // Its data is on its way and must find it; it is answered when all has come, and not executed.
            Phase::AwaitingBuffer | Phase::Receiving => {
                entry.obstacle = Obstacle::Aborted;
                true
            }
            Phase::AwaitingPartner => {
                self.refuse(slot, Status::ABORTED_BY_REQUEST.into(), shared);
                true
            }
            Phase::Executing => {
                let channel = entry.channel;
                channel != usize::MAX && shared.namespaces.abort(channel, self.token(slot))
            }
        }
    }

    /// An asynchronous event request is answered.
    pub fn complete_held(&mut self, cid: u16, result: u64, status: Status, shared: &mut Shared) {
        let held = self.slots.by_command_id(cid).filter(|slot| self.slots.get(*slot).phase == Phase::Held);
        if let Some(slot) = held {
            self.respond(slot, status, result, shared);
        }
    }

    /// The controller of this admin queue.
    pub(super) fn own_controller<'a>(&self, shared: &'a mut Shared) -> Result<&'a mut Controller, Status> {
        let queue = self.queue.as_ref().ok_or(Status::COMMAND_SEQUENCE_ERROR.do_not_retry())?;
        if queue.id != 0 {
            // Properties are only reached by the admin queue (NVMe Base 2.0, 6.6).
            return Err(Status::INVALID_QUEUE_TYPE.do_not_retry());
        }
        shared.controllers.get_mut(queue.controller_id).ok_or(Status::INTERNAL_ERROR)
    }

    /// Takes up what the controller wants done.
    pub(super) fn after_controller(&mut self, shared: &mut Shared) {
        if let Some(queue) = &self.queue {
            let controller_id = queue.controller_id;
            shared.collect_actions(controller_id);
        }
    }

    pub(super) fn is_broadcast(command: &Command) -> bool {
        command.nsid.get() == BROADCAST_NSID
    }
}
