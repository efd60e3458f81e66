//! What the tests of the driver share: a model controller that was brought up by hand, for the data path alone.
#![allow(dead_code)]

use std::sync::Arc;

use sledge_nvme::command::DataPointerKind;
use sledge_nvme::driver::io_queue::QueueAddresses;
use sledge_nvme::driver::queue_pair::QueuePair;
use sledge_nvme::function::Function;
use sledge_nvme::identify::{Cns, IDENTIFY_BYTES};
use sledge_nvme::model::{Model, ModelOptions};
use sledge_nvme::opcode::Admin;
use sledge_nvme::property::{Capabilities, Configuration, Property};
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Completion};
use sledge_reactor::Instant;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

/// A moment; the queue pair only keeps it.
pub fn moment(nanoseconds: u64) -> Instant {
    Instant::from_nanos(nanoseconds)
}

/// The command with PRP entries in place of SGLs.
pub fn prp(mut command: Command, first: u64, second: u64) -> Command {
    command.flags = command.flags & 0x3f | DataPointerKind::Prp.value() << 6;
    command.dptr = Descriptor::read_from_bytes([U64::new(first), U64::new(second)].as_bytes()).unwrap();
    command
}

/// A model that is enabled, and its admin queue.
pub struct Bench {
    pub model: Arc<Model>,
    pub admin: QueuePair<()>,
}

impl Bench {
    pub fn new(options: ModelOptions) -> Self {
        let model = Model::new(options);
        let stride = 4 << Capabilities::from_bits(model.read_u64(0)).doorbell_stride();
        let admin = QueuePair::new(model.clone(), 0, 16, stride).unwrap();
        model.set_bus_master(true).unwrap();
        let register = |property: Property| property.value() as usize;
        model.write_u32(register(Property::Aqa), 15 << 16 | 15);
        model.write_u64(register(Property::Asq), admin.submission_address());
        model.write_u64(register(Property::Acq), admin.completion_address());
        model.write_u32(register(Property::Cc), Configuration::ENABLE_NVM.bits());
        Self { model, admin }
    }

    /// Runs an admin command.
    pub fn admin(&mut self, command: Command) -> Completion {
        self.admin.submit(command, (), moment(0)).unwrap();
        self.admin.ring();
        let mut answer = None;
        // One that runs few commands a step may run others first.
        for _ in 0..1000 {
            self.model.step();
            if self.admin.reap(1, |(), completion| answer = Some(completion)) > 0 {
                break;
            }
        }
        self.admin.ring();
        answer.expect("an answer")
    }

    /// A queue pair that the controller knows.
    pub fn queue<T>(&mut self, id: u16, depth: u16) -> QueuePair<T> {
        let queue = QueuePair::new(self.model.clone(), id, depth, self.stride()).unwrap();
        self.create(QueueAddresses {
            id,
            depth,
            submission: queue.submission_address(),
            completion: queue.completion_address(),
        });
        queue
    }

    /// Bytes between doorbells.
    pub fn stride(&self) -> usize {
        4 << Capabilities::from_bits(self.model.read_u64(0)).doorbell_stride()
    }

    /// Tells the controller of a queue pair.
    pub fn create(&mut self, queue: QueueAddresses) {
        let mut create = Command::new(Admin::CreateIoCompletionQueue.value(), 0);
        create.cdw10.set(u32::from(queue.id) | u32::from(queue.depth - 1) << 16);
        create.cdw11.set(1);
        assert!(self.admin(prp(create, queue.completion, 0)).status().is_success());
        create.opcode = Admin::CreateIoSubmissionQueue.value();
        create.cdw11.set(1 | u32::from(queue.id) << 16);
        assert!(self.admin(prp(create, queue.submission, 0)).status().is_success());
    }

    /// Deletes a queue pair.
    pub fn delete(&mut self, id: u16) {
        for opcode in [Admin::DeleteIoSubmissionQueue, Admin::DeleteIoCompletionQueue] {
            let mut delete = Command::new(opcode.value(), 0);
            delete.cdw10.set(id.into());
            assert!(self.admin(prp(delete, 0, 0)).status().is_success());
        }
    }

    /// What Identify says.
    pub fn identify<T: FromBytes>(&mut self, cns: Cns, nsid: u32) -> T {
        let page = self.model.allocate(IDENTIFY_BYTES).unwrap();
        let command = prp(Command::identify(cns.value(), nsid), page.device_address(0), 0);
        assert!(self.admin(command).status().is_success());
        let mut bytes = vec![0; IDENTIFY_BYTES];
        page.copy_to(0, &mut bytes);
        T::read_from_bytes(&bytes).unwrap()
    }

    /// Fails when the host did what it must not.
    pub fn check(&self) {
        assert_eq!(self.model.faults(), []);
        assert_eq!(self.model.violations(), Vec::<String>::new());
    }
}
