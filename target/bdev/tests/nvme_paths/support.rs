//! Targets on simulated nodes that serve one device, and verified load on an NVMe device that stands on them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::malloc::{MallocDevice, MallocOptions};
use sledge_bdev::nvme::options::{AttachOptions, NvmeOptions, ReconnectPolicy, Transport};
use sledge_bdev::nvme::{Controllers, NvmeDevice};
use sledge_nvme::Status;
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvmf::target::definition::AnaState;
use sledge_nvmf::target::{
    ListenerDefinition, NamespaceDefinition, SubsystemDefinition, SubsystemStatistics, Target,
    TargetDefinition, TransportOptions,
};
use sledge_reactor::memory::{Segments, allocate};
use sledge_reactor::random_u64;
use sledge_reactor::sim::{NodeId, Simulation};
use sledge_reactor::time::sleep;

pub const NQN: &str = "nqn.2016-06.io.spdk:cnode1";
pub const BLOCKS: u64 = 2048;
pub const BLOCK: usize = 512;
/// Keep Alive Timeout of the hosts.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// A device in memory, which several simulated nodes serve as if it lay behind all of them.
pub fn memory_device(name: &str, uuid: u8, blocks: u64) -> Arc<MallocDevice> {
    let options = MallocOptions {
        name: name.into(),
        uuid: Some(uuid::Uuid::from_bytes([uuid; 16])),
        num_blocks: blocks,
        block_size: BLOCK as u32,
        optimal_io_boundary: 0,
        hugepages: false,
    };
    Arc::new(MallocDevice::new(options).unwrap())
}

/// What a node serves: devices by namespace identifier, and the ANA state of all.
#[derive(Clone)]
pub struct Served {
    pub devices: BTreeMap<u32, Arc<dyn BlockDevice>>,
    pub ana: AnaState,
    pub transport: TransportOptions,
    pub instances: u64,
    /// Whether hosts are told of a volatile write cache.
    pub cached: bool,
}

impl Served {
    pub fn one(device: &Arc<MallocDevice>) -> Served {
        Served::this(device.clone())
    }

    pub fn this(device: Arc<dyn BlockDevice>) -> Served {
        Served {
            devices: BTreeMap::from([(1, device)]),
            ana: AnaState::Optimized,
            transport: TransportOptions::default(),
            instances: 1,
            cached: false,
        }
    }

    fn definition(&self, address: SocketAddr) -> TargetDefinition {
        let namespace = |(nsid, device): (&u32, &Arc<dyn BlockDevice>)| {
            let opening = device.clone();
            let definition = NamespaceDefinition {
                nsid: *nsid,
                instance: self.instances << 8 | u64::from(*nsid),
                opening: 0,
                device_name: device.name().into(),
                geometry: device.geometry(),
                uuid: *device.uuid().as_bytes(),
                nguid: *device.uuid().as_bytes(),
                eui64: [0; 8],
                ana_group: 1,
                volatile_write_cache: self.cached,
                deallocates: true,
                deallocated_reads_zeroes: true,
                open_channel: Arc::new(move || opening.open_channel().map_err(|error| error.to_string())),
            };
            (*nsid, definition)
        };
        let subsystem = SubsystemDefinition {
            nqn: NQN.into(),
            serial_number: "SN".into(),
            model_number: "Sledge".into(),
            allow_any_host: true,
            hosts: Default::default(),
            namespaces: self.devices.iter().map(namespace).collect(),
            max_namespaces: 32,
            listeners: vec![ListenerDefinition { address, ana_states: BTreeMap::from([(1, self.ana)]) }],
            ana_reporting: true,
            controller_ids: (1, 0xffef),
            statistics: Arc::new(SubsystemStatistics::new(2)),
        };
        TargetDefinition {
            transport: self.transport,
            subsystems: BTreeMap::from([(NQN.to_owned(), Arc::new(subsystem))]),
            ..TargetDefinition::default()
        }
    }
}

/// A target on a node.
pub struct Node {
    pub node: NodeId,
    pub address: SocketAddr,
    target: Option<Target>,
}

impl Node {
    pub fn start(simulation: &mut Simulation, name: &str, served: &Served) -> Node {
        let node = simulation.add_node(name, 2);
        let address = SocketAddr::new(simulation.address(node), 4420);
        let mut started = Node { node, address, target: None };
        started.serve(simulation, served);
        started
    }

    /// Serves something else from now on; starts the target where there is none.
    pub fn serve(&mut self, simulation: &mut Simulation, served: &Served) {
        let (handles, target, definition) =
            (simulation.handles(self.node), self.target.take(), served.definition(self.address));
        let target = simulation.block_on(self.node, move || async move {
            let target = match target {
                Some(target) => target,
                None => Target::start(handles).await.unwrap(),
            };
            target.apply(definition).await.unwrap();
            target
        });
        self.target = Some(target.unwrap());
    }

    /// Serves its subsystem nowhere any more.
    pub fn withdraw(&mut self, simulation: &mut Simulation, served: &Served) {
        let mut definition = served.definition(self.address);
        for subsystem in definition.subsystems.values_mut() {
            Arc::get_mut(subsystem).unwrap().listeners.clear();
        }
        let target = self.target.take().unwrap();
        let target = simulation.block_on(self.node, move || async move {
            target.apply(definition).await.unwrap();
            target
        });
        self.target = Some(target.unwrap());
    }

    pub fn crash(&mut self, simulation: &mut Simulation) {
        self.target = None;
        simulation.crash(self.node);
    }

    pub fn restart(&mut self, simulation: &mut Simulation, served: &Served) {
        simulation.restart(self.node);
        self.serve(simulation, served);
    }
}

/// Options with short times.
pub fn settings() -> NvmeOptions {
    NvmeOptions {
        keep_alive: KEEP_ALIVE,
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
        queue_depth: 32,
        ..NvmeOptions::default()
    }
}

pub fn attach_options(address: SocketAddr) -> AttachOptions {
    let subsystem = Nqn::new(NQN).unwrap();
    let mut options = AttachOptions::new("Nvme0", Transport::Tcp { address, subsystem });
    // A random one would not be the same when a seed is replayed.
    options.host =
        Some(Nqn::new("nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-555555555555").unwrap());
    options.reconnect = ReconnectPolicy {
        loss_timeout: None,
        delay: Duration::from_millis(200),
        fast_fail: Some(Duration::from_secs(15)),
    };
    options
}

/// The host's table, on all reactors of its node.
pub fn controllers(simulation: &Simulation, host: NodeId) -> Controllers {
    let controllers = Controllers::new();
    controllers.start(simulation.handles(host));
    controllers
}

/// Attaches a path; returns the devices that it made.
pub fn attach(
    simulation: &mut Simulation,
    host: NodeId,
    controllers: &Controllers,
    options: AttachOptions,
) -> Result<Vec<Arc<NvmeDevice>>, String> {
    let controllers = controllers.clone();
    let attach = move || async move { controllers.attach(options, &settings()).await };
    let attached = simulation.block_on(host, attach).unwrap();
    attached.map(|attached| attached.made).map_err(|error| error.to_string())
}

/// Pool memory, each block of which holds `stamp` and its own number.
pub fn stamped(slba: u64, blocks: u32, stamp: u64) -> Segments {
    let mut buffer = allocate(blocks as usize * BLOCK).unwrap();
    for (at, block) in buffer.chunks_mut(BLOCK).enumerate() {
        for word in block.chunks_mut(16) {
            word[..8].copy_from_slice(&stamp.to_le_bytes());
            word[8..].copy_from_slice(&(slba + at as u64).to_le_bytes());
        }
    }
    Segments::from(buffer)
}

/// The stamp of a block, which must be whole and in its place.
pub fn stamp_of(bytes: &[u8], lba: u64) -> u64 {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (stamp, place) = (word(0), word(8));
    assert!(bytes.chunks(16).all(|pair| pair == &bytes[..16]), "block {lba} is torn");
    assert!(place == lba || (stamp, place) == (0, 0), "block {lba} holds block {place}");
    stamp
}

pub fn content(data: &Segments) -> Vec<u8> {
    let mut bytes = vec![0; data.len_bytes()];
    data.copy_to(0, &mut bytes);
    bytes
}

/// Runs commands to their end, in the order of their tokens.
pub async fn run(channel: &mut dyn Channel, commands: Vec<IoCommand>) -> Vec<IoCompletion> {
    let wanted = commands.len();
    let mut done = Vec::new();
    for command in commands {
        if let Submitted::Done(completion) = channel.submit(command) {
            done.push(completion);
        }
    }
    while done.len() < wanted {
        channel.poll(&mut done);
        sleep(Duration::from_micros(50)).await;
    }
    assert_eq!(done.len(), wanted, "nothing is answered twice");
    done.sort_by_key(|completion| completion.token);
    done
}

/// What the load on a device came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub answered: u64,
    pub failed: u64,
    /// Longest time that a command took.
    pub longest: Duration,
}

/// A running load: how far it is, and when it ends.
#[derive(Clone, Default)]
pub struct Progress(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tally: Tally,
    stop: bool,
    done: bool,
}

impl Progress {
    pub fn tally(&self) -> Tally {
        self.0.lock().unwrap().tally
    }

    /// Sends no more commands.
    pub fn stop(&self) {
        self.0.lock().unwrap().stop = true;
    }

    pub fn is_done(&self) -> bool {
        self.0.lock().unwrap().done
    }
}

/// Regions of the device that are written and read at once, and the blocks of each.
const REGIONS: u64 = 8;
const REGION: u32 = 8;

/// What a region holds, as far as is known: one of these stamps.
struct Region {
    possible: Vec<u64>,
    /// The command under way, and the stamp that it brings.
    under_way: Option<(u64, Operation, u64, sledge_reactor::time::Instant)>,
}

/// Writes, reads, zeroes and swaps until it is stopped, and checks each answer against what was
/// answered before. A command that fails must have failed with a status that hosts retry.
pub async fn load(device: Arc<dyn BlockDevice>, progress: Progress) {
    let mut channel = device.open_channel().unwrap();
    let new = || Region { possible: vec![0], under_way: None };
    let mut regions: Vec<Region> = (0..REGIONS).map(|_| new()).collect();
    let (mut token, mut done, mut tally) = (0, Vec::new(), Tally::default());
    loop {
        let stop = progress.0.lock().unwrap().stop;
        if stop && channel.outstanding() == 0 {
            break;
        }
        for (at, region) in regions.iter_mut().enumerate() {
            if region.under_way.is_some() || stop {
                continue;
            }
            token += 1;
            let slba = at as u64 * u64::from(REGION);
            let known = (region.possible.len() == 1).then(|| region.possible[0]);
            let (operation, stamp) = match (random_u64() % 8, known) {
                (0..4, _) => (Operation::Write, token),
                (4, _) => (Operation::WriteZeroes { deallocate: true }, 0),
                (5, Some(known)) if known != 0 => (Operation::CompareAndWrite, token),
                _ => (Operation::Read, 0),
            };
            let mut io = IoCommand::new(token, operation, slba, REGION);
            match operation {
                Operation::Write => io.data = stamped(slba, REGION, stamp),
                Operation::CompareAndWrite => {
                    io.data = stamped(slba, REGION, known.unwrap());
                    let Some(sledge_reactor::memory::Segment::Buffer(new)) =
                        stamped(slba, REGION, stamp).pop()
                    else {
                        unreachable!()
                    };
                    io.data.push(new).unwrap();
                }
                _ => {}
            }
            region.under_way = Some((token, operation, stamp, sledge_reactor::time::now()));
            if let Submitted::Done(completion) = channel.submit(io) {
                done.push(completion);
            }
        }
        channel.poll(&mut done);
        for completion in done.drain(..) {
            let at = regions
                .iter()
                .position(|region| region.under_way.is_some_and(|(token, ..)| token == completion.token))
                .expect("each command is answered once");
            let region = &mut regions[at];
            let (_, operation, stamp, began) = region.under_way.take().unwrap();
            tally.answered += 1;
            tally.longest = tally.longest.max(sledge_reactor::time::now() - began);
            judge(region, at as u64 * u64::from(REGION), operation, stamp, &completion, &mut tally);
            progress.0.lock().unwrap().tally = tally;
        }
        sleep(Duration::from_micros(200 + random_u64() % 800)).await;
    }
    progress.0.lock().unwrap().done = true;
}

fn judge(
    region: &mut Region,
    slba: u64,
    operation: Operation,
    stamp: u64,
    completion: &IoCompletion,
    tally: &mut Tally,
) {
    if completion.status.is_success() {
        if operation == Operation::Read {
            let bytes = content(&completion.data);
            let stamps: Vec<u64> =
                bytes.chunks(BLOCK).zip(slba..).map(|(block, lba)| stamp_of(block, lba)).collect();
            let wrong = stamps.iter().find(|stamp| !region.possible.contains(stamp));
            assert!(wrong.is_none(), "at {slba}: {stamps:?}, expected one of {:?}", region.possible);
        } else {
            region.possible = vec![stamp];
        }
        return;
    }
    tally.failed += 1;
    let status = completion.status;
    let swapped = operation == Operation::CompareAndWrite && status.is(Status::TRANSIENT_TRANSPORT_ERROR);
    assert!(status.is(Status::INTERNAL_PATH_ERROR) || swapped, "{operation:?}: {status}");
    assert!(!status.is_do_not_retry(), "{operation:?}: {status}");
    if operation != Operation::Read {
        region.possible.push(stamp);
    }
}

/// The seeds that a test runs: as many as `SLEDGE_SEEDS` says, or the one of `SLEDGE_SEED`.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("SLEDGE_SEED"), number("SLEDGE_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(count)) => 0..count,
        (None, None) => 0..usual,
    }
}
