//! I/O commands: checks them, hands them to devices, answers them (NVM Command Set 1.0, 3).

use std::sync::atomic::Ordering::Relaxed;

use sledge_nvme::command::{DatasetRange, Fuse, MAX_DATASET_RANGES};
use sledge_nvme::io::{IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvme::opcode::Nvm;
use sledge_nvme::{Command, Status};
use sledge_reactor::memory::Segments;
use zerocopy::FromBytes;

use super::Connection;
use super::slot::{FusedHalf, Obstacle, Phase};
use crate::target::controller::Transfer;
use crate::target::fault::{Fault, field};
use crate::target::group::Shared;
use crate::target::statistics::{self, ReactorCounters};

const RANGE_BYTES: usize = size_of::<DatasetRange>();

impl Connection {
    /// The name of a slot's command at devices.
    pub(super) fn token(&self, slot: u16) -> u64 {
        u64::from(self.key) << 16 | u64::from(slot)
    }

    /// (connection, slot) of a token.
    pub fn of_token(token: u64) -> (u32, u16) {
        ((token >> 16) as u32, token as u16)
    }

    /// The channel of a command's namespace.
    fn namespace_of(&self, command: &Command) -> Result<usize, Fault> {
        let view = self.queue.as_ref().and_then(|queue| queue.view.as_ref());
        view.and_then(|view| view.channel(command.nsid.get())).ok_or(Fault::NAMESPACE)
    }

    /// Whether the device of an I/O command takes a write's data at once.
    pub(super) fn takes_data_at_once(&self, command: &Command, shared: &Shared) -> bool {
        let is_io = self.queue.as_ref().is_some_and(|queue| queue.id != 0);
        is_io && self.namespace_of(command).is_ok_and(|channel| shared.namespaces.takes_data_at_once(channel))
    }

    /// Which way an I/O command's data goes. The namespace gives the block size.
    pub(super) fn io_transfer_of(&self, command: &Command, shared: &Shared) -> Result<Transfer, Fault> {
        let operation = match Nvm::from_value(command.opcode) {
            Some(Nvm::Read) => Transfer::ControllerToHost(self.data_bytes(command, shared)?),
            Some(Nvm::Write | Nvm::Compare) => Transfer::HostToController(self.data_bytes(command, shared)?),
            Some(Nvm::DatasetManagement) => {
                Transfer::HostToController((command.dataset_ranges() * RANGE_BYTES) as u32)
            }
            Some(Nvm::Flush | Nvm::WriteZeroes | Nvm::Verify) => Transfer::None,
            _ => return Err(Fault::OPCODE),
        };
        match command.fuse() {
            Some(Fuse::Normal) => Ok(operation),
            Some(Fuse::First) if command.opcode == Nvm::Compare.value() => Ok(operation),
            Some(Fuse::Second) if command.opcode == Nvm::Write.value() => Ok(operation),
            _ => Err(Fault::field_bit(field::FLAGS, 0)),
        }
    }

    fn data_bytes(&self, command: &Command, shared: &Shared) -> Result<u32, Fault> {
        let geometry = shared.namespaces.get(self.namespace_of(command)?).definition.geometry;
        let bytes = u64::from(command.blocks()) * u64::from(geometry.block_bytes);
        if bytes > u64::from(self.max_io_bytes) {
            return Err(Fault::field(field::DWORD_12));
        }
        geometry.check(command.slba(), u64::from(command.blocks()))?;
        if command.prinfo() != 0 {
            // No namespace has protection information to act on.
            return Err(Fault::field_bit(field::DWORD_12 + 3, 2));
        }
        Ok(bytes as u32)
    }

    /// Executes an I/O command whose data has arrived.
    pub(super) fn execute_io(&mut self, slot: u16, shared: &mut Shared) {
        let entry = self.slots.get(slot);
        if entry.fused != FusedHalf::None {
            return self.execute_fused(slot, shared);
        }
        let command = &entry.command;
        let (slba, blocks) = (command.slba(), command.blocks());
        let fua = command.fua() || self.writes_through();
        let operation = match Nvm::from_value(command.opcode) {
            Some(Nvm::Read) => Operation::Read,
            Some(Nvm::Write) => Operation::Write,
            Some(Nvm::Compare) => Operation::Compare,
            Some(Nvm::Flush) if Self::is_broadcast(command) => return self.next_part(slot, shared),
            Some(Nvm::Flush) => {
                return self.submit(slot, Operation::Flush, 0, 0, false, Segments::new(), shared);
            }
            Some(Nvm::WriteZeroes) => Operation::WriteZeroes { deallocate: command.deallocate() },
            Some(Nvm::Verify) => {
                // For the counters: at most 65,536 blocks of 4 KiB, which may be more than a transfer.
                let block = |channel| shared.namespaces.get(channel).definition.geometry.block_bytes;
                let bytes = self.namespace_of(command).map_or(0, |channel| blocks * block(channel));
                self.slots.get_mut(slot).bytes = bytes;
                Operation::Verify
            }
            Some(Nvm::DatasetManagement) => return self.dataset_management(slot, shared),
            _ => return self.refuse(slot, Fault::OPCODE, shared),
        };
        let data = std::mem::take(&mut self.slots.get_mut(slot).data);
        self.submit(slot, operation, slba, blocks, fua, data, shared);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one I/O command")]
    pub(super) fn submit(
        &mut self,
        slot: u16,
        operation: Operation,
        slba: u64,
        blocks: u32,
        fua: bool,
        data: Segments,
        shared: &mut Shared,
    ) {
        let channel = match self.namespace_of(&self.slots.get(slot).command) {
            Ok(channel) => channel,
            Err(fault) => return self.refuse(slot, fault, shared),
        };
        if let Some(status) = self.access_denied(channel, shared) {
            return self.refuse(slot, status.into(), shared);
        }
        let io = IoCommand { token: self.token(slot), operation, slba, blocks, fua, data };
        self.goes_to_device(slot, channel, shared);
        if let Submitted::Done(completion) = shared.namespaces.submit(channel, io) {
            self.completed(slot, completion, shared);
        }
    }

    /// A command is about to be given to a device. Inlined, as [`Connection::access_denied`] is: calls would be a
    /// twentieth of what it costs.
    #[inline(always)]
    fn goes_to_device(&mut self, slot: u16, channel: usize, shared: &mut Shared) {
        let entry = self.slots.get_mut(slot);
        entry.phase = Phase::Executing;
        entry.channel = channel;
        self.executing += 1;
        if let Some(view) = self.queue.as_ref().and_then(|queue| queue.view.as_ref()) {
            shared.namespaces.busy_from(view, shared.now);
        }
    }

    /// Whether the namespace's ANA state on this path forbids I/O.
    #[inline(always)]
    fn access_denied(&self, channel: usize, shared: &Shared) -> Option<Status> {
        let view = self.queue.as_ref()?.view.as_ref()?;
        if !view.has_ana_states() {
            return None;
        }
        let group = shared.namespaces.get(channel).definition.ana_group;
        let state = view.ana_state(self.listener, group);
        (!state.is_accessible()).then(|| state.status())
    }

    /// Whether the host has switched volatile caches off.
    pub(super) fn writes_through(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.write_cache.load(Relaxed))
    }

    /// Dataset Management: every range is checked before the first is deallocated.
    fn dataset_management(&mut self, slot: u16, shared: &mut Shared) {
        let entry = self.slots.get(slot);
        let command = entry.command;
        let channel = match self.namespace_of(&command) {
            Ok(channel) => channel,
            Err(fault) => return self.refuse(slot, fault, shared),
        };
        let geometry = shared.namespaces.get(channel).definition.geometry;
        let count = command.dataset_ranges().min(MAX_DATASET_RANGES);
        for index in 0..count {
            let range = self.dataset_range(slot, index);
            if let Err(status) = geometry.check(range.slba.get(), u64::from(range.blocks.get())) {
                return self.respond(slot, status, 0, shared);
            }
        }
        if !command.dataset_deallocate() {
            // The other attributes are hints.
            return self.respond(slot, Status::SUCCESS, 0, shared);
        }
        self.next_part(slot, shared);
    }

    fn dataset_range(&self, slot: u16, index: usize) -> DatasetRange {
        let mut bytes = [0; RANGE_BYTES];
        self.slots.get(slot).data.copy_to(index * RANGE_BYTES, &mut bytes);
        // Any 16 bytes are a range.
        DatasetRange::read_from_bytes(&bytes[..]).unwrap_or_default()
    }

    /// Goes on with a command that takes several operations of devices, one after another, until one of them has to be
    /// waited for. In a loop: devices that answer at once must not take a frame of the stack for each.
    fn next_part(&mut self, slot: u16, shared: &mut Shared) {
        loop {
            let (channel, io) = match self.part_of(slot, shared) {
                Ok(Some(part)) => part,
                Ok(None) => {
                    self.slots.get_mut(slot).data = Segments::new();
                    return self.respond(slot, Status::SUCCESS, 0, shared);
                }
                Err(fault) => return self.refuse(slot, fault, shared),
            };
            self.goes_to_device(slot, channel, shared);
            let Submitted::Done(done) = shared.namespaces.submit(channel, io) else { return };
            self.executing -= 1;
            self.slots.get_mut(slot).phase = Phase::Receiving;
            if !done.status.is_success() {
                self.count(slot, None, done.status, shared);
                return self.respond(slot, done.status, 0, shared);
            }
        }
    }

    /// The next operation of such a command: a range of a Dataset Management command, or a namespace of a Flush of all.
    fn part_of(&mut self, slot: u16, shared: &Shared) -> Result<Option<(usize, IoCommand)>, Fault> {
        let token = self.token(slot);
        let entry = self.slots.get(slot);
        let (command, progress) = (entry.command, entry.progress);
        if Nvm::from_value(command.opcode) == Some(Nvm::Flush) {
            // In the order of identifiers, whatever comes and goes meanwhile: the place in a list would not tell.
            let view = self.queue.as_ref().and_then(|queue| queue.view.as_ref());
            let next = view.and_then(|view| view.channel_after(progress));
            return Ok(next.map(|(nsid, channel)| {
                self.slots.get_mut(slot).progress = nsid;
                (channel, IoCommand::new(token, Operation::Flush, 0, 0))
            }));
        }
        if entry.obstacle == Obstacle::NamespaceGone {
            return Err(Fault::NAMESPACE);
        }
        let rest = progress as usize..command.dataset_ranges();
        let Some((index, range)) = rest
            .map(|index| (index, self.dataset_range(slot, index)))
            .find(|(_, range)| range.blocks.get() > 0)
        else {
            return Ok(None);
        };
        // At most 256.
        self.slots.get_mut(slot).progress = index as u32 + 1;
        let channel = self.namespace_of(&command)?;
        match self.access_denied(channel, shared) {
            Some(status) => Err(status.into()),
            None => {
                let (slba, blocks) = (range.slba.get(), range.blocks.get());
                Ok(Some((channel, IoCommand::new(token, Operation::Deallocate, slba, blocks))))
            }
        }
    }

    /// A device has completed a command.
    pub fn completed(&mut self, slot: u16, completion: IoCompletion, shared: &mut Shared) {
        let IoCompletion { status, data, .. } = completion;
        let entry = self.slots.get_mut(slot);
        debug_assert_eq!(entry.phase, Phase::Executing);
        let opcode = Nvm::from_value(entry.command.opcode);
        entry.phase = Phase::Receiving;
        self.count(slot, opcode, status, shared);
        if !self.state.answers() {
            let second = match self.slots.get(slot).fused {
                FusedHalf::First(second) => second,
                _ => None,
            };
            for index in [Some(slot), second].into_iter().flatten() {
                self.slots.get_mut(index).phase = Phase::Responding;
                self.slots.release(index);
            }
            return self.executed(shared);
        }
        self.executing -= 1;
        if let FusedHalf::First(Some(second)) = self.slots.get(slot).fused {
            return self.fused_completed(slot, second, status, shared);
        }
        match opcode {
            Some(Nvm::Read) if status.is_success() => {
                self.slots.get_mut(slot).data.put(data);
                self.respond_with_data(slot, 0, shared);
            }
            Some(Nvm::DatasetManagement) if status.is_success() => self.next_part(slot, shared),
            Some(Nvm::Flush) if status.is_success() && Self::is_broadcast(&self.slots.get(slot).command) => {
                self.next_part(slot, shared);
            }
            _ => self.respond(slot, status, 0, shared),
        }
    }

    /// Counts a command that a device has completed: SMART counts verified blocks as read, but not the commands.
    pub(super) fn count(&self, slot: u16, opcode: Option<Nvm>, status: Status, shared: &Shared) {
        let Some(view) = self.queue.as_ref().and_then(|queue| queue.view.as_ref()) else { return };
        let counters: &ReactorCounters = view.counters(shared.this);
        let bytes = u64::from(self.slots.get(slot).bytes);
        match opcode {
            _ if status.type_value() == 2 => statistics::add(&counters.media_errors, 1),
            Some(Nvm::Read | Nvm::Compare) if status.is_success() => {
                statistics::add(&counters.read_commands, 1);
                statistics::add(&counters.read_bytes, bytes);
            }
            Some(Nvm::Verify) if status.is_success() => statistics::add(&counters.read_bytes, bytes),
            Some(Nvm::Write) if status.is_success() => {
                statistics::add(&counters.write_commands, 1);
                statistics::add(&counters.written_bytes, bytes);
            }
            _ => {}
        }
    }
}
