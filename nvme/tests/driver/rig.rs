//! What the tests share: a simulated node with some reactors, a model controller, and I/O.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::driver::{Controller, ControllerEvent, ControllerOptions, DriverError};
use sledge_nvme::io::{IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvme::model::{Model, ModelOptions};
use sledge_reactor::sim::{NodeId, Simulation, SimulationConfig};
use sledge_reactor::time::sleep;

pub const BLOCK: usize = 512;

/// Options whose times tests can wait for.
pub fn options() -> ControllerOptions {
    ControllerOptions {
        io_queue_depth: 16,
        io_timeout: Duration::from_millis(400),
        abort_timeout: Duration::from_millis(100),
        admin_timeout: Duration::from_millis(500),
        reset_delay: Duration::from_millis(50),
        removal_timeout: Duration::from_millis(800),
        drain_timeout: Duration::from_millis(200),
        // Each reset is a retry of what the controller had.
        retry_count: 16,
        shutdown_timeout: Duration::from_millis(500),
        ready_timeout_limit: Duration::from_secs(2),
        ..ControllerOptions::default()
    }
}

pub struct Rig {
    pub sim: Simulation,
    pub node: NodeId,
    pub model: Arc<Model>,
    pub reactors: usize,
}

impl Rig {
    pub fn new(seed: u64, reactors: usize, options: ModelOptions) -> Self {
        let config = SimulationConfig { pool_bytes: 4 << 20, ..SimulationConfig::default() };
        let mut sim = Simulation::with_config(seed, config);
        let node = sim.add_node("host", reactors);
        Self { sim, node, model: Model::new(options), reactors }
    }

    pub fn attach(&mut self, options: ControllerOptions) -> Result<Controller, DriverError> {
        let (model, handles) = (self.model.clone(), self.sim.handles(self.node));
        self.run(move || async move { Controller::attach(model, handles[0].clone(), handles, options).await })
    }

    /// Runs something on the first reactor until it is done.
    pub fn run<T, Fut, F>(&mut self, make: F) -> T
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
        F: FnOnce() -> Fut + 'static,
    {
        self.sim.block_on(self.node, make).unwrap()
    }

    /// The same on another reactor.
    pub fn run_on<T, Fut, F>(&mut self, reactor: usize, make: F) -> T
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
        F: FnOnce() -> Fut + 'static,
    {
        self.sim.block_on_reactor(self.node, reactor, make).unwrap()
    }

    pub fn run_for(&mut self, milliseconds: u64) {
        self.sim.run_for(Duration::from_millis(milliseconds));
    }

    /// From now on the model takes its time: it looks now and then.
    pub fn slow_model(&mut self) {
        self.model.automatic(false);
        let (model, node) = (self.model.clone(), self.node);
        self.sim.spawn_on(node, self.reactors - 1, move || async move {
            loop {
                model.step();
                sleep(Duration::from_micros(20 + sledge_reactor::random_u64() % 300)).await;
            }
        });
    }

    /// The driver did nothing that the specification, or the IOMMU, forbids.
    pub fn assert_clean(&self) {
        assert!(self.model.faults().is_empty(), "{:?}", self.model.faults());
        assert!(self.model.violations().is_empty(), "{:?}", self.model.violations());
    }

    /// Nothing of the driver is left that the device could reach.
    pub fn assert_nothing_mapped(&self) {
        assert_eq!(self.model.mapped_bytes(), 0);
    }
}

/// Collects a controller's events.
pub fn listen(controller: &Controller) -> Arc<Mutex<Vec<ControllerEvent>>> {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let place = heard.clone();
    controller.on_event(Box::new(move |event| place.lock().unwrap().push(event)));
    heard
}

/// One I/O on a channel of its own.
pub async fn io(controller: &Controller, operation: Operation, slba: u64, data: Option<u8>) -> IoCompletion {
    let mut channel = controller.open_channel(1).unwrap();
    let mut io = IoCommand::new(7, operation, slba, 1);
    if let Some(byte) = data {
        let mut buffer = sledge_reactor::memory::allocate(BLOCK).unwrap();
        buffer.truncate(BLOCK);
        buffer.fill(byte);
        io.data = buffer.into();
    }
    if let Submitted::Done(done) = channel.submit(io) {
        return done;
    }
    let mut done = Vec::new();
    loop {
        channel.poll(&mut done);
        if let Some(done) = done.pop() {
            return done;
        }
        sleep(Duration::from_micros(50)).await;
    }
}

pub async fn write(controller: &Controller, slba: u64, byte: u8) -> Status {
    io(controller, Operation::Write, slba, Some(byte)).await.status
}

pub async fn read(controller: &Controller, slba: u64) -> Result<u8, Status> {
    let done = io(controller, Operation::Read, slba, None).await;
    if !done.status.is_success() {
        return Err(done.status);
    }
    let mut bytes = [0; BLOCK];
    done.data.copy_to(0, &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a block is of one write");
    Ok(bytes[0])
}
