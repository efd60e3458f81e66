//! What the tests of host and target in the simulator share: worlds, queues with futures, and a model of blocks.
#![allow(dead_code, clippy::unwrap_used)]

pub mod model;
pub mod queue;
pub mod raw;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::malloc::{MallocDevice, MallocOptions};
use sledge_nvme::fabrics::Nqn;
use sledge_nvmf::host::{ConnectOptions, HostIdentity};
use sledge_nvmf::target::{
    ListenerDefinition, NamespaceDefinition, SubsystemDefinition, SubsystemStatistics, Target,
    TargetDefinition,
};
use sledge_reactor::sim::{NodeId, Simulation, SimulationConfig};
use uuid::Uuid;

/// The subsystem that worlds start with.
pub const NQN: &str = "nqn.2026-01.io.sledge:simulated";
/// Where it listens.
pub const PORT: u16 = 4420;

/// A target and a host.
pub struct World {
    pub simulation: Simulation,
    pub target_node: NodeId,
    pub host_node: NodeId,
    pub target: Target,
    pub target_reactors: usize,
}

impl World {
    /// Two nodes; the target serves nothing yet.
    pub fn new(seed: u64, config: SimulationConfig, target_reactors: usize, host_reactors: usize) -> World {
        let mut simulation = Simulation::with_config(seed, config);
        let target_node = simulation.add_node("target", target_reactors);
        let host_node = simulation.add_node("host", host_reactors);
        let target = start_target(&mut simulation, target_node);
        World { simulation, target_node, host_node, target, target_reactors }
    }

    /// Serves devices as namespaces 1, 2, … of [`NQN`].
    pub fn serve(&mut self, devices: Vec<Arc<dyn BlockDevice>>) {
        let definition = self.definition(devices);
        self.apply(definition);
    }

    /// What [`World::serve`] serves.
    pub fn definition(&self, devices: Vec<Arc<dyn BlockDevice>>) -> TargetDefinition {
        let namespaces =
            devices.into_iter().zip(1..).map(|(device, nsid)| namespace(&self.target, nsid, device));
        let subsystem = subsystem(NQN, self.address(), self.target_reactors, namespaces.collect());
        TargetDefinition {
            subsystems: BTreeMap::from([(NQN.to_owned(), Arc::new(subsystem))]),
            ..TargetDefinition::default()
        }
    }

    /// Makes a definition that of the target.
    pub fn apply(&mut self, definition: TargetDefinition) {
        let target = self.target.clone();
        self.simulation
            .block_on(self.target_node, || async move { target.apply(definition).await })
            .unwrap()
            .unwrap();
    }

    /// The address of the subsystem.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.simulation.address(self.target_node), PORT)
    }

    /// How to connect to [`NQN`].
    pub fn options(&self) -> ConnectOptions {
        options(self.address(), 1)
    }

    /// Bytes out of the pools of a node's reactors.
    pub fn pool_bytes(&mut self, node: NodeId) -> usize {
        let reactors = self.simulation.handles(node).len();
        (0..reactors)
            .map(|reactor| {
                let read = || async { sledge_reactor::memory::statistics().used_bytes };
                self.simulation.block_on_reactor(node, reactor, read).unwrap()
            })
            .sum()
    }

    /// Waits until nothing of any connection is left on the target, and checks that it is so.
    pub fn expect_target_is_empty(&mut self, listeners: usize) {
        let target = self.target.clone();
        let left = self
            .simulation
            .block_on(self.target_node, || async move {
                // A controller that its host forgot before it was ready stays for two minutes.
                for _ in 0..1300 {
                    if target.connections().await.is_empty() && target.controllers().await.is_empty() {
                        break;
                    }
                    sledge_reactor::sleep(Duration::from_millis(100)).await;
                }
                (target.connections().await, target.controllers().await)
            })
            .unwrap();
        assert!(left.0.is_empty(), "connections are left: {:?}", left.0);
        assert!(left.1.is_empty(), "controllers are left: {:?}", left.1);
        assert_eq!(self.simulation.open_sockets(self.target_node), listeners, "sockets leaked on the target");
        assert_eq!(self.pool_bytes(self.target_node), 0, "buffers leaked on the target");
    }
}

/// Starts a target on a node.
pub fn start_target(simulation: &mut Simulation, node: NodeId) -> Target {
    let handles = simulation.handles(node);
    simulation.block_on(node, || Target::start(handles)).unwrap().unwrap()
}

/// How to connect to [`NQN`] as host number `host`.
pub fn options(address: SocketAddr, host: u128) -> ConnectOptions {
    let host = HostIdentity::from_uuid(Uuid::from_u128(host)).unwrap();
    let mut options = ConnectOptions::new(address, Nqn::new(NQN).unwrap(), host);
    options.io_queues = 4;
    options
}

/// A namespace on a device.
pub fn namespace(target: &Target, nsid: u32, device: Arc<dyn BlockDevice>) -> NamespaceDefinition {
    NamespaceDefinition {
        nsid,
        instance: target.next_instance(),
        opening: 0,
        device_name: device.name().to_owned(),
        geometry: device.geometry(),
        uuid: *device.uuid().as_bytes(),
        nguid: [0; 16],
        eui64: [0; 8],
        ana_group: 1,
        volatile_write_cache: device.volatile_write_cache(),
        deallocates: true,
        deallocated_reads_zeroes: device.deallocated_reads_zeroes(),
        open_channel: Arc::new(move || device.open_channel().map_err(|error| error.to_string())),
    }
}

/// A subsystem for any host.
pub fn subsystem(
    nqn: &str,
    address: SocketAddr,
    reactors: usize,
    namespaces: Vec<NamespaceDefinition>,
) -> SubsystemDefinition {
    SubsystemDefinition {
        nqn: nqn.to_owned(),
        serial_number: "SIMULATED".to_owned(),
        model_number: "Sledge".to_owned(),
        allow_any_host: true,
        hosts: BTreeSet::new(),
        namespaces: namespaces.into_iter().map(|namespace| (namespace.nsid, namespace)).collect(),
        max_namespaces: 32,
        listeners: vec![ListenerDefinition { address, ana_states: BTreeMap::new() }],
        ana_reporting: false,
        controller_ids: (1, 0xffef),
        statistics: Arc::new(SubsystemStatistics::new(reactors)),
    }
}

/// A memory device.
pub fn malloc(name: &str, num_blocks: u64, block_size: u32) -> Arc<dyn BlockDevice> {
    let options = MallocOptions {
        name: name.to_owned(),
        uuid: Some(Uuid::from_u128(7)),
        num_blocks,
        block_size,
        optimal_io_boundary: 0,
        hugepages: false,
    };
    Arc::new(MallocDevice::new(options).unwrap())
}
