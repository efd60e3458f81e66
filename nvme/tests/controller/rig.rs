//! A controller that is attached to a model, and hosts' I/O through it.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sledge_nvme::driver::{Controller, ControllerEvent, ControllerOptions, DriverError, State};
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvme::model::{Model, ModelOptions};
use sledge_nvme::opcode::Nvm;
use sledge_nvme::{Command, Status};
use sledge_reactor::memory::allocate;
use sledge_reactor::sim::{Simulation, SimulationConfig};
use sledge_reactor::{JoinHandle, Segments, current, peers, sleep, spawn_local};

/// Bytes of a block in most tests.
pub const BLOCK: usize = 512;

/// Runs a test on the first of so many simulated reactors.
pub fn on_reactors<Fut: Future<Output = ()> + 'static>(reactors: usize, test: impl FnOnce() -> Fut) {
    on_seeded_reactors(11, reactors, test);
}

/// The same, with a seed that decides which reactor runs when.
pub fn on_seeded_reactors<Fut>(seed: u64, reactors: usize, test: impl FnOnce() -> Fut)
where
    Fut: Future<Output = ()> + 'static,
{
    // What waits for a device polls; most of what is waited for here takes seconds.
    let config = SimulationConfig { longest_idle_poll: Duration::from_millis(2), ..Default::default() };
    let mut simulation = Simulation::with_config(seed, config);
    let node = simulation.add_node("node", reactors);
    simulation.block_on(node, test).unwrap();
}

/// An attached controller, and what it told.
pub struct Rig {
    pub model: Arc<Model>,
    pub controller: Controller,
    events: Arc<Mutex<Vec<ControllerEvent>>>,
}

impl Rig {
    /// Attaches a controller with short timeouts to all reactors.
    pub async fn new(model: ModelOptions) -> Self {
        Self::with(Model::new(model), options()).await.unwrap()
    }

    pub async fn with(model: Arc<Model>, options: ControllerOptions) -> Result<Self, DriverError> {
        let controller = Controller::attach(model.clone(), current(), peers(), options).await?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let told = events.clone();
        controller.on_event(Box::new(move |event| told.lock().unwrap().push(event)));
        Ok(Self { model, controller, events })
    }

    pub fn channel(&self) -> Box<dyn Channel> {
        self.controller.open_channel(1).unwrap()
    }

    /// What the controller told since this was asked last.
    pub fn events(&self) -> Vec<ControllerEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// Waits until the controller is in a state; fails when that takes too long.
    pub async fn until(&self, state: State) {
        for _ in 0..10_000 {
            if self.controller.state() == state {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{} rather than {state}: {:?}", self.controller.state(), self.controller.last_error());
    }

    /// Detaches, and fails when the driver did what it must not, or kept memory.
    pub async fn end(self) {
        self.controller.detach().await.unwrap();
        assert_eq!(self.controller.state(), State::Detached);
        check(&self.model);
        assert_eq!(self.model.mapped_bytes(), 0, "memory that the device still reaches");
        assert_eq!(self.model.io_queues(), []);
    }
}

/// Fails when the driver did what it must not.
pub fn check(model: &Model) {
    assert_eq!(model.faults(), []);
    assert_eq!(model.violations(), Vec::<String>::new());
}

/// Timeouts that differ from each other.
pub fn options() -> ControllerOptions {
    ControllerOptions {
        io_queue_depth: 16,
        io_timeout: Duration::from_secs(8),
        abort_timeout: Duration::from_secs(2),
        admin_timeout: Duration::from_secs(4),
        max_resets: 2,
        removal_timeout: Duration::from_secs(20),
        drain_timeout: Duration::from_secs(3),
        ..Default::default()
    }
}

/// Data whose blocks tell which they are.
pub fn pattern(tag: u8, slba: u64, blocks: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks * BLOCK);
    for lba in slba..slba + blocks as u64 {
        bytes.extend_from_slice(&lba.to_le_bytes());
        bytes.resize(bytes.len() + BLOCK - 8, tag ^ lba as u8);
    }
    bytes
}

pub fn data(bytes: &[u8]) -> Segments {
    let mut data = Segments::from(allocate(bytes.len()).unwrap());
    assert_eq!(data.copy_from(0, bytes), bytes.len());
    data
}

pub fn bytes_of(data: &Segments) -> Vec<u8> {
    let mut bytes = vec![0; data.len_bytes()];
    assert_eq!(data.copy_to(0, &mut bytes), bytes.len());
    bytes
}

pub fn write(token: u64, tag: u8, slba: u64, blocks: usize) -> IoCommand {
    let mut io = IoCommand::new(token, Operation::Write, slba, blocks as u32);
    io.data = data(&pattern(tag, slba, blocks));
    io
}

pub fn read(token: u64, slba: u64, blocks: usize) -> IoCommand {
    IoCommand::new(token, Operation::Read, slba, blocks as u32)
}

/// Collects `count` answers; fails when there are more, or they take hours.
pub async fn collect(channel: &mut dyn Channel, count: usize) -> Vec<IoCompletion> {
    let mut done = Vec::new();
    for turn in 0..40_000_u64 {
        channel.poll(&mut done);
        if done.len() >= count {
            assert_eq!(done.len(), count, "one answer each");
            return done;
        }
        sleep(Duration::from_micros(10 + turn * 10)).await;
    }
    panic!("only {} of {count} answers", done.len());
}

/// Submits without waiting.
pub fn submit(channel: &mut dyn Channel, io: IoCommand) {
    match channel.submit(io) {
        Submitted::Pending => {}
        Submitted::Done(done) => panic!("answered at once: {}", done.status),
    }
}

pub async fn run(channel: &mut dyn Channel, io: IoCommand) -> IoCompletion {
    match channel.submit(io) {
        Submitted::Done(done) => done,
        Submitted::Pending => collect(channel, 1).await.remove(0),
    }
}

/// Writes and reads back.
pub async fn works(channel: &mut dyn Channel, tag: u8) {
    assert_eq!(run(channel, write(1, tag, 40, 8)).await.status, Status::SUCCESS);
    let found = run(channel, read(2, 40, 8)).await;
    assert_eq!(found.status, Status::SUCCESS);
    assert!(bytes_of(&found.data) == pattern(tag, 40, 8));
}

/// Keeps a reactor's channel busy with writes and reads that overlap nobody's, until it is told to stop; each is to
/// succeed and every read to find what was written; `pause` after each 20. Returns how many there were.
pub fn load(controller: Controller, first: u64, pause: Duration, stop: Arc<Mutex<bool>>) -> JoinHandle<u64> {
    spawn_local(async move {
        let mut channel = controller.open_channel(1).unwrap();
        let mut count = 0;
        while !*stop.lock().unwrap() {
            let tag = count as u8;
            for token in 0..10 {
                submit(&mut *channel, write(token, tag, first + token * 10, 10));
            }
            for done in collect(&mut *channel, 10).await {
                assert_eq!(done.status, Status::SUCCESS, "write {}", done.token);
            }
            for token in 0..10 {
                submit(&mut *channel, read(token, first + token * 10, 10));
            }
            for done in collect(&mut *channel, 10).await {
                assert_eq!(done.status, Status::SUCCESS, "read {}", done.token);
                assert!(bytes_of(&done.data) == pattern(tag, first + done.token * 10, 10));
            }
            count += 20;
            sleep(pause).await;
        }
        count
    })
}

/// Chooses reads and writes.
pub fn is_io(queue: u16, command: &Command) -> bool {
    queue != 0 && [Nvm::Read.value(), Nvm::Write.value()].contains(&command.opcode)
}
