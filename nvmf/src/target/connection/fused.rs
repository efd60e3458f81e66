//! Fused operations: Compare and Write as one (NVMe Base 2.0, 3.4.2; NVM Command Set 1.0, 2.1.4.1).
//!
//! The halves are paired when their capsules arrive, for they must be neighbours in the queue, and executed when
//! the data of both is complete. Invariant: both halves are answered, and the write is done only with the compare.

use sledge_nvme::Status;
use sledge_nvme::command::Fuse;
use sledge_nvme::io::Operation;
use sledge_nvme::opcode::{FABRICS, Nvm};

use super::Connection;
use super::slot::{FusedHalf, Obstacle, Phase};
use crate::target::fault::Fault;
use crate::target::group::Shared;

/// Whether the next command must be the second half of a fused operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// No.
    Nothing,
    /// Yes, of the first half in this slot.
    SecondOf(u16),
    /// Yes, but the first half has been refused already.
    SecondOfRefused,
}

impl Connection {
    /// Settles an arriving command's part in a fused operation.
    ///
    /// # Errors
    /// What the command is answered with when it can't take part.
    pub(super) fn pair_fused(&mut self, slot: u16, shared: &mut Shared) -> Result<(), Status> {
        let io_queue = self.queue.as_ref().is_some_and(|queue| queue.id != 0);
        let command = self.slots.get(slot).command;
        if !io_queue || command.opcode == FABRICS {
            return Ok(());
        }
        let expected = std::mem::replace(&mut self.fused_first, Expected::Nothing);
        match (command.fuse(), expected) {
            (Some(Fuse::Second), Expected::SecondOf(first)) => {
                let compare = self.slots.get(first).command;
                let same = compare.nsid == command.nsid
                    && compare.slba() == command.slba()
                    && compare.blocks() == command.blocks();
                if !same {
                    self.end_half(first, Status::INVALID_FIELD.do_not_retry(), shared);
                    return Err(Status::ABORTED_FAILED_FUSED.do_not_retry());
                }
                self.slots.get_mut(first).fused = FusedHalf::First(Some(slot));
                self.slots.get_mut(slot).fused = FusedHalf::Second(first);
                Ok(())
            }
            (Some(Fuse::Second), Expected::SecondOfRefused) => {
                Err(Status::ABORTED_FAILED_FUSED.do_not_retry())
            }
            (Some(Fuse::Second), Expected::Nothing) => Err(Status::ABORTED_MISSING_FUSED.do_not_retry()),
            (fuse, expected) => {
                if let Expected::SecondOf(first) = expected {
                    self.end_half(first, Status::ABORTED_MISSING_FUSED.do_not_retry(), shared);
                }
                if fuse == Some(Fuse::First) {
                    self.fused_first = Expected::SecondOf(slot);
                    self.slots.get_mut(slot).fused = FusedHalf::First(None);
                }
                Ok(())
            }
        }
    }

    /// Ends a half that no device has: at once, or when its data has come.
    fn end_half(&mut self, slot: u16, status: Status, shared: &mut Shared) {
        let half = self.slots.get_mut(slot);
        match half.phase {
            Phase::AwaitingPartner => {
                half.fused = FusedHalf::None;
                self.respond(slot, status, 0, shared);
            }
            Phase::AwaitingBuffer | Phase::Receiving => half.fused = FusedHalf::Broken(status),
            Phase::Free | Phase::Executing | Phase::Held | Phase::Responding => {}
        }
    }

    /// Answers a command that can't be executed, and its partner in a fused operation with it.
    pub(super) fn refuse(&mut self, slot: u16, fault: Fault, shared: &mut Shared) {
        let half = std::mem::replace(&mut self.slots.get_mut(slot).fused, FusedHalf::None);
        match half {
            FusedHalf::First(None) if self.fused_first == Expected::SecondOf(slot) => {
                self.fused_first = Expected::SecondOfRefused;
            }
            FusedHalf::First(Some(other)) | FusedHalf::Second(other) => {
                self.end_half(other, Status::ABORTED_FAILED_FUSED, shared);
            }
            FusedHalf::None | FusedHalf::First(None) | FusedHalf::Broken(_) => {}
        }
        self.fail(slot, fault, 0, shared);
    }

    /// Takes a half whose data is complete: executes the pair if it was the last to come.
    pub(super) fn execute_fused(&mut self, slot: u16, shared: &mut Shared) {
        let (first, second) = match self.slots.get(slot).fused {
            FusedHalf::Broken(status) => return self.respond(slot, status, 0, shared),
            FusedHalf::First(Some(second)) => (slot, second),
            FusedHalf::Second(first) => (first, slot),
            FusedHalf::First(None) | FusedHalf::None => {
                return self.await_partner(slot, shared);
            }
        };
        self.await_partner(slot, shared);
        let complete = |index| self.slots.get(index).phase == Phase::AwaitingPartner;
        if !(complete(first) && complete(second)) {
            return;
        }
        if [first, second].iter().any(|half| self.slots.get(*half).obstacle == Obstacle::NamespaceGone) {
            return self.refuse(first, Fault::NAMESPACE, shared);
        }
        let mut data = std::mem::take(&mut self.slots.get_mut(first).data);
        // Each half's data is one buffer.
        if let Some(segment) = self.slots.get_mut(second).data.pop()
            && data.push(segment).is_err()
        {
            return self.refuse(first, Status::INTERNAL_ERROR.into(), shared);
        }
        let write = self.slots.get(second).command;
        let (slba, blocks, fua) = (write.slba(), write.blocks(), write.fua() || self.writes_through());
        self.submit(first, Operation::CompareAndWrite, slba, blocks, fua, data, shared);
        // Both stay until the device has answered, even if the connection goes. A device that answered at once
        // has left neither in this phase.
        if self.slots.get(first).phase == Phase::Executing {
            self.slots.get_mut(second).phase = Phase::Executing;
        }
    }

    fn await_partner(&mut self, slot: u16, shared: &Shared) {
        let half = self.slots.get_mut(slot);
        (half.phase, half.asked) = (Phase::AwaitingPartner, shared.now);
    }

    /// The device has executed both halves.
    pub(super) fn fused_completed(&mut self, first: u16, second: u16, status: Status, shared: &mut Shared) {
        let second_status = if status.is_success() { Status::SUCCESS } else { Status::ABORTED_FAILED_FUSED };
        if status.is_success() {
            self.count(second, Some(Nvm::Write), status, shared);
        }
        self.respond(first, status, 0, shared);
        self.respond(second, second_status, 0, shared);
    }
}
