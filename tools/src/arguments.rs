//! The command line of `sledge`: subcommands by noun.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::setup::Setup;
use crate::size;

/// The port of NVMe/TCP.
const NVME_TCP_PORT: u16 = 4420;

/// Looks at and changes a running sledge-target.
#[derive(Debug, Parser)]
#[command(name = "sledge", version, arg_required_else_help = true)]
pub struct Arguments {
    /// The target's management socket; found by itself in the usual places
    #[arg(long, global = true, value_name = "PATH", env = "SLEDGE_SOCKET")]
    pub socket: Option<PathBuf>,

    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The target in a few lines
    Status,
    /// Subsystems: what hosts connect to
    #[command(subcommand, visible_alias = "subsystems")]
    Subsystem(Subsystem),
    /// Namespaces: the disks in subsystems
    #[command(subcommand, visible_alias = "namespaces")]
    Namespace(Namespace),
    /// Listeners: the addresses of subsystems
    #[command(subcommand, visible_alias = "listeners")]
    Listener(Listener),
    /// Block devices, which namespaces stand on
    #[command(subcommand, visible_alias = "devices")]
    Device(Device),
    /// Connections of hosts, one a queue pair
    #[command(subcommand, visible_alias = "connections")]
    Connection(OfSubsystem),
    /// Controllers, one an association of a host with a subsystem
    #[command(subcommand, visible_alias = "controllers")]
    Controller(OfSubsystem),
    /// NVMe controllers elsewhere, or drives of this machine, whose namespaces are devices here
    #[command(subcommand)]
    Nvme(crate::nvme_arguments::Nvme),
    /// Reactors: the cores that do the work
    #[command(subcommand, visible_alias = "reactors")]
    Reactor(Reactor),
    /// The configuration as a whole
    #[command(subcommand)]
    Config(Config),
    /// This machine's NVMe controllers and huge pages; needs no target
    Setup {
        /// Folder that stands for the machine's root
        #[arg(long, default_value = "/", hide = true)]
        root: PathBuf,
        #[command(subcommand)]
        command: Setup,
    },
    /// Call a method of the management interface
    Rpc {
        /// Its name; `sledge rpc rpc_get_methods` lists them
        method: String,
        /// Its parameters, a JSON object
        params: Option<String>,
    },
    /// Print completions for a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// What to do with subsystems.
#[derive(Debug, Subcommand)]
pub enum Subsystem {
    /// List all
    List,
    /// Show one in full
    Show {
        /// Its NQN
        nqn: String,
    },
    /// Create one; no host may connect to it until allowed
    Create(CreateSubsystem),
    /// Delete one, with its namespaces and listeners; devices stay
    Delete {
        /// Its NQN
        nqn: String,
    },
    /// Let a host connect
    AllowHost {
        /// The subsystem's NQN
        nqn: String,
        /// The host's NQN (in /etc/nvme/hostnqn on the host)
        host: String,
    },
    /// No longer let a host connect
    DenyHost {
        /// The subsystem's NQN
        nqn: String,
        /// The host's NQN
        host: String,
    },
    /// Let any host connect
    AllowAny {
        /// The subsystem's NQN
        nqn: String,
        /// Let only hosts that are listed connect again
        #[arg(long)]
        off: bool,
    },
}

/// A subsystem to be.
#[derive(Args, Debug)]
pub struct CreateSubsystem {
    /// Its NQN, as nqn.2026-01.com.example:disk1
    pub nqn: String,
    /// Serial number, at most 20 characters
    #[arg(long)]
    pub serial: Option<String>,
    /// Model number, at most 40 characters
    #[arg(long)]
    pub model: Option<String>,
    /// Most namespaces
    #[arg(long)]
    pub max_namespaces: Option<u32>,
    /// Report ANA to hosts, for several paths
    #[arg(long)]
    pub ana: bool,
    /// Let any host connect
    #[arg(long)]
    pub allow_any: bool,
}

/// What to do with namespaces.
#[derive(Debug, Subcommand)]
pub enum Namespace {
    /// List all, or those of one subsystem
    List {
        /// The subsystem's NQN
        nqn: Option<String>,
    },
    /// Add a device to a subsystem as a namespace
    Add {
        /// The subsystem's NQN
        nqn: String,
        /// The device's name
        device: String,
        /// Namespace identifier; the lowest that is free
        #[arg(long)]
        nsid: Option<u32>,
        /// UUID; the device's
        #[arg(long)]
        uuid: Option<String>,
    },
    /// Remove a namespace; its device stays
    Remove {
        /// The subsystem's NQN
        nqn: String,
        /// Namespace identifier
        nsid: u32,
    },
}

/// What to do with listeners.
#[derive(Debug, Subcommand)]
pub enum Listener {
    /// List all, or those of one subsystem
    List {
        /// The subsystem's NQN
        nqn: Option<String>,
    },
    /// Make a subsystem reachable at an address
    Add(ListenerAddress),
    /// Make it unreachable there; connections that came in there end
    Remove(ListenerAddress),
}

/// A subsystem at an address.
#[derive(Args, Debug)]
pub struct ListenerAddress {
    /// The subsystem's NQN
    pub nqn: String,
    /// IP address, with a port unless it is 4420: 192.0.2.1, 192.0.2.1:4421, [::1]:4421
    #[arg(value_parser = parse_address)]
    pub address: SocketAddr,
}

pub(crate) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = inner.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, NVME_TCP_PORT));
    }
    text.parse().map_err(|_| "not an IP address, as 192.0.2.1, 192.0.2.1:4421 or [::1]:4421".to_owned())
}

/// What to do with devices.
#[derive(Debug, Subcommand)]
pub enum Device {
    /// List all
    List,
    /// Create one
    #[command(subcommand)]
    Create(CreateDevice),
    /// Show what all, or one, have done since their start or the last --reset
    Stats {
        /// Its name
        name: Option<String>,
        /// Show what each reactor did
        #[arg(long, requires = "name")]
        by_reactor: bool,
        /// Count anew from what is shown
        #[arg(long)]
        reset: bool,
    },
    /// Make a null device larger; hosts see it at once
    Resize {
        /// Its name
        name: String,
        /// Its new size, as 64M or 1G
        #[arg(value_parser = size::parse)]
        size: u64,
    },
    /// Look at the size of a file device's file again, which has been made larger; hosts see it at once
    Rescan {
        /// Its name
        name: String,
    },
    /// Delete one that nobody uses; a file stays
    Delete {
        /// Its name
        name: String,
    },
}

/// The kinds of device.
#[derive(Debug, Subcommand)]
pub enum CreateDevice {
    /// In memory: content is lost when the target ends
    Malloc {
        /// Its name; Malloc0 and so on
        name: Option<String>,
        #[command(flatten)]
        shape: Shape,
    },
    /// Reads zeroes, forgets what is written: for benchmarks
    Null {
        /// Its name
        name: String,
        #[command(flatten)]
        shape: Shape,
    },
    /// On a file or a kernel block device
    File {
        /// Its name
        name: String,
        /// The file, or a device as /dev/sdb
        path: PathBuf,
        /// Make the file with this size, sparse, if there is none
        #[arg(long, value_parser = size::parse)]
        size: Option<u64>,
        /// Bytes of a block: 512 or 4096; the file's own
        #[arg(long)]
        block_size: Option<u32>,
    },
    /// Slower than another device: for tests
    Delay {
        /// Its name
        name: String,
        /// The device below
        base: String,
        /// Microseconds added to reads
        #[arg(long, default_value_t = 0)]
        read: u64,
        /// Microseconds added to writes
        #[arg(long, default_value_t = 0)]
        write: u64,
        /// Microseconds added to one read in a hundred; as --read
        #[arg(long)]
        read_p99: Option<u64>,
        /// Microseconds added to one write in a hundred; as --write
        #[arg(long)]
        write_p99: Option<u64>,
    },
    /// Fails when told to (bdev_error_inject_error): for tests
    Error {
        /// The device below; this one's name is EE_ and its name
        base: String,
    },
}

/// Size and block size.
#[derive(Args, Debug)]
pub struct Shape {
    /// Size, as 64M or 1G
    #[arg(long, value_parser = size::parse)]
    pub size: u64,
    /// Bytes of a block: 512 or 4096
    #[arg(long, default_value_t = 4096)]
    pub block_size: u32,
}

/// What to do with what belongs to subsystems and comes and goes with hosts.
#[derive(Debug, Subcommand)]
pub enum OfSubsystem {
    /// List all, or those of one subsystem
    List {
        /// The subsystem's NQN
        nqn: Option<String>,
    },
}

/// What to do with reactors.
#[derive(Debug, Subcommand)]
pub enum Reactor {
    /// List all
    List,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Write it to a file, or print it
    Save {
        /// The file; it is replaced as a whole
        file: Option<PathBuf>,
    },
    /// Make what a file says, all of it or nothing
    Load {
        /// The file
        file: PathBuf,
    },
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    // Without it: a mistake in the definition of the command line would show only when it is used.
    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    // Without it: an address could be read with another port, or IPv6 refused.
    #[test]
    fn addresses_have_a_usual_port() {
        assert_eq!(parse_address("192.0.2.1"), Ok("192.0.2.1:4420".parse().unwrap()));
        assert_eq!(parse_address("192.0.2.1:1"), Ok("192.0.2.1:1".parse().unwrap()));
        assert_eq!(parse_address("::1"), Ok("[::1]:4420".parse().unwrap()));
        assert_eq!(parse_address("[::1]"), Ok("[::1]:4420".parse().unwrap()));
        assert_eq!(parse_address("[::1]:9"), Ok("[::1]:9".parse().unwrap()));
        assert!(parse_address("example.org").is_err());
    }
}
