//! A model controller brought up by hand, with one I/O queue of the driver's on it, in the simulator.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use sledge_nvme::driver::NamespaceChannel;
use sledge_nvme::driver::io_queue::{IoQueue, IoQueueOptions, Reclaim};
use sledge_nvme::driver::queue_pair::QueuePair;
use sledge_nvme::driver::shadow::ShadowDoorbells;
use sledge_nvme::driver::shape::NamespaceShape;
use sledge_nvme::function::Function;
use sledge_nvme::identify::{Cns, ControllerData, IDENTIFY_BYTES, NamespaceData, NvmControllerData};
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvme::model::{Model, ModelOptions};
use sledge_nvme::opcode::Admin;
use sledge_nvme::property::{Capabilities, Configuration, Property};
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Completion, Status};
use sledge_reactor::memory::{self, MAX_BUFFER_BYTES, Segments};
use sledge_reactor::sim::Simulation;
use sledge_reactor::time::now;
use sledge_reactor::yield_now;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, IntoBytes};

/// Runs a test on a reactor of the simulator.
pub fn simulated<Fut: Future<Output = ()> + 'static>(test: impl FnOnce() -> Fut) {
    let mut simulation = Simulation::new(1);
    let node = simulation.add_node("host", 1);
    simulation.block_on(node, test).unwrap();
}

/// A controller, and this reactor's queue on it.
pub struct Rig {
    pub model: Arc<Model>,
    pub queue: Rc<IoQueue>,
    admin: RefCell<QueuePair<()>>,
    stride: usize,
}

impl Rig {
    /// A controller of a kind, and a queue, running.
    pub fn new(model: ModelOptions, mut options: IoQueueOptions) -> Rig {
        options.stride_bytes = 4 << model.doorbell_stride;
        options.sgl = model.sgl;
        let model = Model::new(model);
        let function: Arc<dyn Function> = model.clone();
        let admin = QueuePair::new(function.clone(), 0, 8, options.stride_bytes).unwrap();
        let queue = IoQueue::new(function, &options).unwrap();
        let rig = Rig { model, queue, admin: RefCell::new(admin), stride: options.stride_bytes };
        rig.enable();
        rig.create();
        rig.queue.start();
        rig
    }

    fn enable(&self) {
        let admin = self.admin.borrow();
        let entries = u32::from(admin.depth()) - 1;
        self.model.set_bus_master(true).unwrap();
        self.model.write_u32(Property::Aqa.value() as usize, entries << 16 | entries);
        self.model.write_u64(Property::Asq.value() as usize, admin.submission_address());
        self.model.write_u64(Property::Acq.value() as usize, admin.completion_address());
        let capabilities = Capabilities::from_bits(self.model.read_u64(0));
        let command_set = if capabilities.io_command_sets() { 6 } else { 0 };
        let configuration = Configuration::ENABLE_NVM.with_command_set(command_set);
        self.model.write_u32(Property::Cc.value() as usize, configuration.bits());
    }

    fn create(&self) {
        let addresses = self.queue.addresses().unwrap();
        let size = u32::from(addresses.id) | u32::from(addresses.depth - 1) << 16;
        for (opcode, address, flags) in [
            (Admin::CreateIoCompletionQueue, addresses.completion, 1),
            (Admin::CreateIoSubmissionQueue, addresses.submission, 1 | u32::from(addresses.id) << 16),
        ] {
            let mut command = Command { opcode: opcode.value(), dptr: prp(address, 0), ..Command::default() };
            command.cdw10.set(size);
            command.cdw11.set(flags);
            assert_eq!(self.admin(command).status(), Status::SUCCESS, "{opcode}");
        }
    }

    /// Runs an admin command; the model is automatic meanwhile.
    pub fn admin(&self, command: Command) -> Completion {
        let mut admin = self.admin.borrow_mut();
        admin.submit(command, (), now()).unwrap();
        admin.ring();
        let mut answer = None;
        for _ in 0..1000 {
            admin.reap(1, |(), completion| answer = Some(completion));
            if answer.is_some() {
                break;
            }
            self.model.step();
        }
        admin.ring();
        answer.expect("an answer")
    }

    fn identify(&self, cns: Cns, nsid: u32) -> Vec<u8> {
        let page = self.model.allocate(IDENTIFY_BYTES).unwrap();
        let mut command = Command::identify(cns.value(), nsid);
        command.flags = 0;
        command.dptr = prp(page.device_address(0), 0);
        let mut bytes = vec![0; IDENTIFY_BYTES];
        if self.admin(command).status().is_success() {
            page.copy_to(0, &mut bytes);
        }
        bytes
    }

    /// What a namespace is.
    pub fn shape(&self, nsid: u32) -> Result<NamespaceShape, String> {
        let controller = ControllerData::read_from_bytes(&self.identify(Cns::Controller, 0)).unwrap();
        let limits =
            NvmControllerData::read_from_bytes(&self.identify(Cns::CommandSetController, 0)).unwrap();
        let namespace = NamespaceData::read_from_bytes(&self.identify(Cns::Namespace, nsid)).unwrap();
        NamespaceShape::new(nsid, &controller, Some(&limits), &namespace)
    }

    /// A channel of a namespace on this reactor's queue.
    pub fn channel(&self, nsid: u32) -> NamespaceChannel {
        self.queue.open_channel(Arc::new(self.shape(nsid).unwrap())).unwrap()
    }

    /// Uses shadow doorbells from now on.
    pub fn use_shadows(&self) {
        let function: &dyn Function = &*self.model;
        let shadows = ShadowDoorbells::new(function, self.stride).unwrap();
        let command = Command {
            opcode: Admin::DoorbellBufferConfig.value(),
            dptr: prp(shadows.doorbells_address(), shadows.events_address()),
            ..Command::default()
        };
        assert_eq!(self.admin(command).status(), Status::SUCCESS);
        self.queue.set_shadows(Some(&shadows));
    }

    /// Disables the controller: it does nothing any more, and knows no queues.
    pub fn disable(&self) {
        self.queue.stop();
        self.model.write_u32(Property::Cc.value() as usize, 0);
    }

    /// Brings it up again.
    pub fn restart(&self, reclaim: Reclaim) {
        self.queue.reclaim(reclaim);
        self.queue.reset_rings();
        self.admin.borrow_mut().drain(|()| ());
        self.admin.borrow_mut().restart();
        self.enable();
        self.create();
        self.queue.start();
    }

    /// What was done to the device is right.
    pub fn assert_faultless(&self) {
        assert_eq!(self.model.faults(), []);
        assert_eq!(self.model.violations(), Vec::<String>::new());
    }
}

pub fn prp(first: u64, second: u64) -> Descriptor {
    Descriptor::read_from_bytes([U64::new(first), U64::new(second)].as_bytes()).unwrap()
}

/// Bytes that are different in each block, and for each seed.
pub fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (seed as usize + at / 512 * 7 + at % 251) as u8).collect()
}

/// Pool memory with these bytes, in buffers of at most `piece` bytes.
pub fn data(bytes: &[u8], piece: usize) -> Segments {
    let mut segments = Segments::new();
    for bytes in bytes.chunks(piece.min(MAX_BUFFER_BYTES)) {
        let mut buffer = memory::allocate(bytes.len()).unwrap();
        buffer.copy_from_slice(bytes);
        segments.push(buffer).unwrap();
    }
    segments
}

pub fn bytes_of(data: &Segments) -> Vec<u8> {
    let mut bytes = vec![0; data.len_bytes()];
    assert_eq!(data.copy_to(0, &mut bytes), bytes.len());
    bytes
}

pub fn write(token: u64, slba: u64, blocks: u32, data: impl Into<Segments>) -> IoCommand {
    IoCommand { data: data.into(), ..IoCommand::new(token, Operation::Write, slba, blocks) }
}

pub fn read(token: u64, slba: u64, blocks: u32) -> IoCommand {
    IoCommand::new(token, Operation::Read, slba, blocks)
}

/// Submits an I/O that has to be pending.
pub fn submit(channel: &mut NamespaceChannel, io: IoCommand) {
    let submitted = channel.submit(io);
    assert!(matches!(submitted, Submitted::Pending), "{submitted:?}");
}

/// Polls until this many have ended, a turn of the reactor between polls.
pub async fn collect(channel: &mut NamespaceChannel, count: usize) -> Vec<IoCompletion> {
    let mut done = Vec::new();
    while done.len() < count {
        channel.poll(&mut done);
        yield_now().await;
    }
    assert_eq!(done.len(), count, "more than were waited for");
    done
}

/// Does one I/O.
pub async fn run(channel: &mut NamespaceChannel, io: IoCommand) -> IoCompletion {
    let token = io.token;
    let completion = match channel.submit(io) {
        Submitted::Done(completion) => completion,
        Submitted::Pending => collect(channel, 1).await.remove(0),
    };
    assert_eq!(completion.token, token);
    completion
}
