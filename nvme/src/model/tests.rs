//! The model, driven by hand: registers, queues and commands as the specification has them, without the driver.

mod bring_up;
mod data;
mod faults;

use std::sync::Arc;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

use super::{Model, ModelOptions};
use crate::function::{DmaMemory, Function};
use crate::identify::IDENTIFY_BYTES;
use crate::opcode::Admin;
use crate::property::{Capabilities, Configuration, ControllerStatus, Property};
use crate::sgl::Descriptor;
use crate::{Command, Completion, Status};

/// A queue pair, driven by hand.
struct Pair {
    id: u16,
    entries: u32,
    tail: u32,
    head: u32,
    phase: bool,
    submission: DmaMemory,
    completion: DmaMemory,
}

/// A host that does one thing at a time.
struct Host {
    model: Arc<Model>,
    pairs: Vec<Pair>,
    cid: u16,
    stride: usize,
}

impl Host {
    fn new(options: ModelOptions) -> Self {
        let stride = 4 << options.doorbell_stride;
        let mut host = Self { model: Model::new(options), pairs: Vec::new(), cid: 0, stride };
        host.enable(4);
        host
    }

    fn pair(&self, id: u16, entries: u32) -> Pair {
        let submission = self.model.allocate(entries as usize * 64).unwrap();
        let completion = self.model.allocate(entries as usize * 16).unwrap();
        Pair { id, entries, tail: 0, head: 0, phase: true, submission, completion }
    }

    fn enable(&mut self, entries: u32) {
        let admin = self.pair(0, entries);
        self.model.set_bus_master(true).unwrap();
        self.model.write_u32(Property::Aqa.value() as usize, (entries - 1) << 16 | (entries - 1));
        self.model.write_u64(Property::Asq.value() as usize, admin.submission.device_address(0));
        self.model.write_u64(Property::Acq.value() as usize, admin.completion.device_address(0));
        let command_set = if self.capabilities().io_command_sets() { 6 } else { 0 };
        let configuration = Configuration::ENABLE_NVM.with_command_set(command_set);
        self.model.write_u32(Property::Cc.value() as usize, configuration.bits());
        self.pairs = vec![admin];
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits(self.model.read_u64(0))
    }

    fn status(&self) -> ControllerStatus {
        ControllerStatus::from_bits(self.model.read_u32(Property::Csts.value() as usize))
    }

    fn doorbell(&self, queue: u16, completion: bool) -> usize {
        0x1000 + (usize::from(queue) * 2 + usize::from(completion)) * self.stride
    }

    fn put(&mut self, queue: usize, command: Command) {
        let pair = &mut self.pairs[queue];
        pair.submission.write(pair.tail as usize * 64, command);
        pair.tail = (pair.tail + 1) % pair.entries;
    }

    fn ring(&self, queue: usize) {
        let pair = &self.pairs[queue];
        self.model.write_u32(self.doorbell(pair.id, false), pair.tail);
    }

    /// The next completion, consumed without telling the controller.
    fn next(&mut self, queue: usize) -> Option<Completion> {
        let pair = &mut self.pairs[queue];
        let completion: Completion = pair.completion.read(pair.head as usize * 16);
        if completion.phase() != pair.phase {
            return None;
        }
        pair.head += 1;
        if pair.head == pair.entries {
            (pair.head, pair.phase) = (0, !pair.phase);
        }
        Some(completion)
    }

    fn consumed(&self, queue: usize) {
        let pair = &self.pairs[queue];
        self.model.write_u32(self.doorbell(pair.id, true), pair.head);
    }

    fn submit(&mut self, queue: usize, mut command: Command) -> u16 {
        self.cid += 1;
        command.cid.set(self.cid);
        self.put(queue, command);
        self.ring(queue);
        self.cid
    }

    fn run(&mut self, queue: usize, command: Command) -> Completion {
        let cid = self.submit(queue, command);
        let completion = self.next(queue).expect("an answer");
        self.consumed(queue);
        assert_eq!(completion.cid.get(), cid);
        completion
    }

    fn admin(&mut self, command: Command) -> Completion {
        self.run(0, prp(command, 0, 0))
    }

    fn identify(&mut self, command: Command) -> Result<Vec<u8>, Status> {
        let page = self.model.allocate(IDENTIFY_BYTES).unwrap();
        Result::from(self.run(0, prp(command, page.device_address(0), 0)).status())?;
        let mut bytes = vec![0; IDENTIFY_BYTES];
        page.copy_to(0, &mut bytes);
        Ok(bytes)
    }

    fn create_pair(&mut self, id: u16, entries: u32) -> Status {
        let pair = self.pair(id, entries);
        let mut create = Command { opcode: Admin::CreateIoCompletionQueue.value(), ..Command::default() };
        create.cdw10.set(u32::from(id) | (entries - 1) << 16);
        create.cdw11.set(1);
        let status = self.run(0, prp(create, pair.completion.device_address(0), 0)).status();
        if !status.is_success() {
            return status;
        }
        create.opcode = Admin::CreateIoSubmissionQueue.value();
        create.cdw11.set(1 | u32::from(id) << 16);
        let status = self.run(0, prp(create, pair.submission.device_address(0), 0)).status();
        self.pairs.push(pair);
        status
    }

    fn faultless(&self) {
        assert_eq!(self.model.faults(), []);
        assert_eq!(self.model.violations(), Vec::<String>::new());
    }
}

/// The command with two PRP entries.
fn prp(mut command: Command, first: u64, second: u64) -> Command {
    command.flags &= 0x3f;
    let entries = [U64::new(first), U64::new(second)];
    command.dptr = Descriptor::read_from_bytes(entries.as_bytes()).unwrap();
    command
}

/// A host with one I/O queue pair of `entries` entries.
fn host_with_queue(options: ModelOptions, entries: u32) -> Host {
    let mut host = Host::new(options);
    assert_eq!(host.create_pair(1, entries), Status::SUCCESS);
    host
}
