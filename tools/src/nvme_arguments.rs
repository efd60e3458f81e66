//! `sledge nvme`, on the command line.

use std::net::SocketAddr;

use clap::{Args, Subcommand};

use crate::arguments::parse_address;

/// What to do with NVMe controllers that are attached.
#[derive(Debug, Subcommand)]
pub enum Nvme {
    /// List all, one a path
    List,
    /// Attach a controller over NVMe/TCP; its namespaces become devices, as Nvme0n1
    Attach(AttachTcp),
    /// Attach a drive of this machine that `sledge setup bind` has taken from the kernel
    AttachDrive {
        /// The controller's name, as Nvme0
        name: String,
        /// PCI address, as 0000:04:00.0; `sledge setup status` lists them
        address: String,
        /// How it is reached: vfio, uio_pci_generic, vfio-noiommu, dpdk; vfio
        #[arg(long)]
        environment: Option<String>,
    },
    /// Detach a controller and delete its devices, or one of its paths only
    Detach {
        /// The controller's name
        name: String,
        /// The path's address; all paths
        #[arg(value_parser = parse_address)]
        address: Option<SocketAddr>,
    },
    /// Reset a controller; its I/O waits until it is back
    Reset {
        /// The controller's name
        name: String,
    },
    /// Show what a controller says of its health
    Health {
        /// The controller's name
        name: String,
    },
}

/// A path to a controller.
#[derive(Args, Debug)]
pub struct AttachTcp {
    /// The controller's name, as Nvme0; another path when there is one of this name
    pub name: String,
    /// IP address, with a port unless it is 4420: 192.0.2.1, 192.0.2.1:4421, [::1]:4421
    #[arg(value_parser = parse_address)]
    pub address: SocketAddr,
    /// The subsystem's NQN
    pub nqn: String,
    /// Host NQN to connect with; one made for this target
    #[arg(long)]
    pub host: Option<String>,
    /// Header and data digests
    #[arg(long)]
    pub digests: bool,
}
