//! A target in the process of a test.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sledge_bdev::BlockDevice;
use sledge_bdev::malloc::{MallocDevice, MallocOptions};
use sledge_nvmf::target::{
    ListenerDefinition, NamespaceDefinition, SubsystemDefinition, SubsystemStatistics, Target,
    TargetDefinition,
};
use sledge_reactor::options::{CoreList, ReactorOptions};
use sledge_reactor::{Reactors, peers};

/// Its subsystem.
pub const NQN: &str = "nqn.2016-06.io.spdk:cnode1";

/// An address of this machine that nobody else is given until this program ends: a connection stays on its port, which
/// the kernel then gives to nobody who asks for any, while a listener may still take it by its number.
fn free_address() -> SocketAddr {
    static KEPT: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let ours = TcpStream::connect(address).unwrap();
    KEPT.lock().unwrap().extend([ours, listener.accept().unwrap().0]);
    address
}

/// A target with 16 MiB in memory, for as long as the reactors run.
pub fn start() -> (Reactors, SocketAddr) {
    let reactors =
        Reactors::start(ReactorOptions { cores: CoreList::floating(1), ..ReactorOptions::default() })
            .unwrap();
    let address = free_address();
    let started = reactors.handles()[0].spawn(move || async move {
        let target = Target::start(peers()).await.unwrap();
        target.apply(definition(&target, address)).await.unwrap();
    });
    started.wait_blocking().unwrap();
    (reactors, address)
}

fn definition(target: &Target, address: SocketAddr) -> TargetDefinition {
    let device = MallocDevice::new(MallocOptions {
        name: "Malloc0".into(),
        uuid: None,
        num_blocks: 32_768,
        block_size: 512,
        optimal_io_boundary: 0,
        hugepages: false,
    });
    let device = Arc::new(device.unwrap());
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
        statistics: Arc::new(SubsystemStatistics::new(1)),
    };
    TargetDefinition {
        subsystems: BTreeMap::from([(NQN.to_owned(), Arc::new(subsystem))]),
        ..TargetDefinition::default()
    }
}
