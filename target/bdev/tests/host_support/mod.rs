//! What the tests of host and target together share: a target on a simulated node, and a host that drives a queue pair.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::malloc::{MallocDevice, MallocOptions};
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Submitted};
use sledge_nvmf::host::{ConnectOptions, HostIdentity, QueuePair};
use sledge_nvmf::target::{
    ListenerDefinition, NamespaceDefinition, SubsystemDefinition, SubsystemStatistics, Target,
    TargetDefinition, TransportOptions,
};
use sledge_reactor::memory::{Segments, allocate};
use sledge_reactor::message::Handle;
use sledge_reactor::sim::{NodeId, Simulation};
use sledge_reactor::time::sleep;

/// The subsystem that tests serve.
pub const NQN: &str = "nqn.2016-06.io.spdk:cnode1";
/// Blocks of its namespace.
pub const BLOCKS: u64 = 2048;
/// Most reactors of a target in these tests.
const MAX_REACTORS: usize = 2;
/// Bytes of a block.
pub const BLOCK: usize = 512;

/// An address of this machine that nobody else is given until this program ends: a connection stays on its port, which
/// the kernel then gives to nobody who asks for any, while a listener may still take it by its number.
pub fn free_address() -> SocketAddr {
    static KEPT: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let ours = TcpStream::connect(address).unwrap();
    KEPT.lock().unwrap().extend([ours, listener.accept().unwrap().0]);
    address
}

/// A device in memory.
pub fn device() -> Arc<MallocDevice> {
    let options = MallocOptions {
        name: "Malloc0".into(),
        uuid: Some("11111111-2222-4333-8444-555555555555".parse().unwrap()),
        num_blocks: BLOCKS,
        block_size: BLOCK as u32,
        optimal_io_boundary: 0,
        hugepages: false,
    };
    Arc::new(MallocDevice::new(options).unwrap())
}

/// What the target serves.
pub fn definition(
    target: &Target,
    device: &Arc<MallocDevice>,
    address: SocketAddr,
    transport: TransportOptions,
) -> TargetDefinition {
    let opening = device.clone();
    let namespace = NamespaceDefinition {
        nsid: 1,
        instance: target.next_instance(),
        opening: 0,
        device_name: device.name().into(),
        geometry: device.geometry(),
        uuid: *device.uuid().as_bytes(),
        nguid: [0; 16],
        eui64: [0; 8],
        ana_group: 1,
        volatile_write_cache: false,
        deallocates: true,
        deallocated_reads_zeroes: true,
        open_channel: Arc::new(move || opening.open_channel().map_err(|error| error.to_string())),
    };
    let subsystem = SubsystemDefinition {
        nqn: NQN.into(),
        serial_number: "SN".into(),
        model_number: "Sledge".into(),
        allow_any_host: true,
        hosts: BTreeSet::new(),
        namespaces: BTreeMap::from([(1, namespace)]),
        max_namespaces: 32,
        listeners: vec![ListenerDefinition { address, ana_states: BTreeMap::new() }],
        ana_reporting: false,
        controller_ids: (1, 0xffef),
        statistics: Arc::new(SubsystemStatistics::new(MAX_REACTORS)),
    };
    TargetDefinition {
        transport,
        subsystems: BTreeMap::from([(NQN.to_owned(), Arc::new(subsystem))]),
        ..TargetDefinition::default()
    }
}

/// Starts a target on a node and returns where it listens.
pub fn start_target(
    simulation: &mut Simulation,
    node: NodeId,
    device: &Arc<MallocDevice>,
    transport: TransportOptions,
) -> SocketAddr {
    let address = SocketAddr::new(simulation.address(node), 4420);
    let handles: Vec<Handle> = simulation.handles(node);
    let device = device.clone();
    simulation
        .block_on(node, move || async move {
            let target = Target::start(handles).await.unwrap();
            let definition = definition(&target, &device, address, transport);
            target.apply(definition).await.unwrap();
        })
        .unwrap();
    address
}

/// Options with short times, since simulated time is not free of steps.
pub fn options(address: SocketAddr) -> ConnectOptions {
    let host = HostIdentity::random().unwrap();
    let mut options = ConnectOptions::new(address, Nqn::new(NQN).unwrap(), host);
    options.keep_alive = Duration::from_secs(2);
    options.command_timeout = Duration::from_secs(5);
    options.connect_timeout = Duration::from_secs(3);
    options.reconnect_delay = Duration::from_millis(20);
    options.reconnect_delay_max = Duration::from_millis(200);
    options.queue_depth = 32;
    options
}

/// Pool memory with this content.
pub fn memory(bytes: &[u8]) -> Segments {
    let mut buffer = allocate(bytes.len()).unwrap();
    buffer.copy_from_slice(bytes);
    Segments::from(buffer)
}

/// The content of an I/O's data.
pub fn content(data: &Segments) -> Vec<u8> {
    let mut bytes = vec![0; data.len_bytes()];
    data.copy_to(0, &mut bytes);
    bytes
}

/// Submits commands at once and waits for all of them, in the order of their tokens.
pub async fn run(pair: &mut QueuePair, commands: Vec<IoCommand>) -> Vec<IoCompletion> {
    let wanted = commands.len();
    let mut done = Vec::new();
    for command in commands {
        if let Submitted::Done(completion) = pair.submit(command) {
            done.push(completion);
        }
    }
    loop {
        pair.poll(&mut done);
        if done.len() >= wanted {
            break;
        }
        sleep(Duration::from_micros(30)).await;
    }
    assert_eq!(done.len(), wanted, "nothing is answered twice");
    done.sort_by_key(|completion| completion.token);
    done
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
