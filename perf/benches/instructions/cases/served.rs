//! A target on the current reactor, with one namespace, and a controller that is connected to it.

use super::Failure;
use super::bare_drive::{BareDrive, channel};
use sledge_bdev::BlockDevice;
use sledge_bdev::malloc::{MallocDevice, MallocOptions};
use sledge_bdev::null::{NullDevice, NullOptions};
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::io::Channel;
use sledge_nvmf::host::{ConnectOptions, Controller, HostIdentity, QueuePair};
use sledge_nvmf::target::{
    ListenerDefinition, NamespaceDefinition, SubsystemDefinition, SubsystemStatistics, Target,
    TargetDefinition, TransportOptions,
};
use sledge_reactor::local::LocalKey;
use sledge_reactor::peers;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const NQN: &str = "nqn.2014-08.org.nvmexpress:sledge";
/// Namespace identifier.
pub const NSID: u32 = 1;
/// Bytes of a block.
pub const BLOCK: u32 = 512;
/// Blocks of the device.
pub const BLOCKS: u64 = (32 << 20) / BLOCK as u64;

type OpenChannel = Arc<dyn Fn() -> Result<Box<dyn Channel>, String> + Send + Sync>;

/// What is behind the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Null,
    Malloc,
    /// A drive that is nothing but two rings, by the NVMe driver.
    Drive,
}

/// What to serve, and how to connect.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub device: Device,
    pub queues: u16,
    pub depth: u16,
    pub digests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { device: Device::Null, queues: 1, depth: 32, digests: false }
    }
}

/// The target and the controller.
pub struct Served {
    pub address: SocketAddr,
    pub controller: Controller,
    pub connect: ConnectOptions,
    queues: u16,
    /// Serves as long as it is there.
    _target: Target,
}

impl Served {
    /// Starts both on the current reactor.
    pub async fn start(options: Options) -> Result<Self, Failure> {
        // A connection stays on the port, so that the kernel gives it to nobody else meanwhile.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = free.local_addr()?;
        let _kept = (TcpStream::connect(address)?, free.accept()?);
        drop(free);
        let target = Target::start(peers()).await?;
        target.apply(definition(&target, address, options)?).await?;
        let host = HostIdentity::random()?;
        let mut connect = ConnectOptions::new(address, Nqn::new(NQN)?, host);
        (connect.header_digest, connect.data_digest) = (options.digests, options.digests);
        (connect.queue_depth, connect.io_queues) = (options.depth, options.queues);
        // Callgrind is slow, and a Keep Alive would be counted.
        connect.keep_alive = Duration::from_secs(3600);
        let controller = Controller::connect(connect.clone()).await?;
        Ok(Self { address, controller, connect, queues: options.queues, _target: target })
    }

    /// Opens all queue pairs.
    pub async fn open_all(&self) -> Result<Vec<QueuePair>, Failure> {
        let geometry = self.controller.geometry(NSID).await?;
        let mut pairs = Vec::new();
        for _ in 0..self.queues {
            pairs.push(self.controller.connector().open(NSID, geometry).await?);
        }
        Ok(pairs)
    }

    /// Disconnects.
    pub async fn stop(self) -> Result<(), Failure> {
        Ok(self.controller.shutdown().await?)
    }
}

fn definition(target: &Target, address: SocketAddr, options: Options) -> Result<TargetDefinition, Failure> {
    let device: Arc<dyn BlockDevice> = match options.device {
        // The drive has another's name and shape, and its own channels.
        Device::Null | Device::Drive => Arc::new(NullDevice::new(NullOptions {
            name: "Null0".into(),
            uuid: None,
            num_blocks: BLOCKS,
            block_size: BLOCK,
        })?),
        Device::Malloc => Arc::new(MallocDevice::new(MallocOptions {
            name: "Malloc0".into(),
            uuid: None,
            num_blocks: BLOCKS,
            block_size: BLOCK,
            optimal_io_boundary: 0,
            hugepages: false,
        })?),
    };
    let opening = device.clone();
    let mut open_channel: OpenChannel =
        Arc::new(move || opening.open_channel().map_err(|error| error.to_string()));
    if options.device == Device::Drive {
        let key = LocalKey::new();
        let (_, queue) = BareDrive::start(true)?;
        key.set(queue);
        open_channel = Arc::new(move || {
            let queue = key.get().ok_or("the drive is on another reactor")?;
            let channel = channel(&queue, BLOCKS).map_err(|error| error.to_string())?;
            Ok(Box::new(channel) as Box<dyn Channel>)
        });
    }
    let namespace = NamespaceDefinition {
        nsid: NSID,
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
        open_channel,
    };
    let subsystem = SubsystemDefinition {
        nqn: NQN.into(),
        serial_number: "1".into(),
        model_number: "Sledge".into(),
        allow_any_host: true,
        hosts: BTreeSet::new(),
        namespaces: BTreeMap::from([(NSID, namespace)]),
        max_namespaces: 32,
        listeners: vec![ListenerDefinition { address, ana_states: BTreeMap::new() }],
        ana_reporting: false,
        controller_ids: (1, 0xffef),
        statistics: Arc::new(SubsystemStatistics::new(1)),
    };
    Ok(TargetDefinition {
        // Callgrind is slow.
        transport: TransportOptions { connect_timeout_ms: 60_000, ..TransportOptions::default() },
        subsystems: BTreeMap::from([(NQN.to_owned(), Arc::new(subsystem))]),
        ..TargetDefinition::default()
    })
}
