//! The command line of `sledge-target`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use sledge_reactor::memory::PoolOptions;
use sledge_reactor::options::{CoreList, ReactorOptions, Wait};

use crate::logging::Level;

/// Where everything of a target that was started without a configuration lies, from the current folder.
pub const DATA_FOLDER: &str = "sledge-data";

/// Serves block devices over NVMe/TCP.
///
/// Without a configuration it serves a 1 GiB disk in a file under ./sledge-data on 127.0.0.1:4420 and prints the
/// commands that attach it.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Options {
    /// Configuration to load: JSON, as save_config writes it
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["empty", "listen"])]
    pub config: Option<PathBuf>,

    /// Start with nothing to serve, to be configured through the management socket
    #[arg(long, conflicts_with = "listen")]
    pub empty: bool,

    /// Start with nothing, and take start-up methods only until framework_start_init is called
    #[arg(long, conflicts_with_all = ["config", "listen"])]
    pub wait_for_rpc: bool,

    /// Where to serve the disk of a target without a configuration
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4420")]
    pub listen: SocketAddr,

    /// Cores to run reactors on, as 0,2-3 or 0x3; unless told, the first that this process may use
    #[arg(short = 'm', long, value_name = "CORES", default_value_t)]
    pub cores: CoreList,

    /// The management socket
    #[arg(
        short,
        long,
        value_name = "PATH",
        env = "SLEDGE_SOCKET",
        default_value = "sledge-data/sledge.sock"
    )]
    pub rpc_socket: PathBuf,

    /// What reactors do without work: poll on, or sleep after a short while
    #[arg(long, value_enum, default_value = "adaptive")]
    pub wait: WaitOption,

    /// What to log: ERROR, WARNING, NOTICE, INFO or DEBUG
    #[arg(long, value_name = "LEVEL", default_value = "NOTICE", value_parser = parse_level)]
    pub log_level: Level,

    /// Log as JSON, one object a line
    #[arg(long)]
    pub log_json: bool,

    /// Memory for I/O of each reactor, in MiB
    #[arg(long, value_name = "MIB", default_value = "128", value_parser = clap::value_parser!(u32).range(8..=65536))]
    pub memory: u32,

    /// Take reactors' memory from DPDK, which NVMe drives can be attached through in any case; arguments for DPDK's EAL
    /// are taken from SLEDGE_DPDK_ARGS
    #[cfg(feature = "dpdk")]
    #[arg(long)]
    pub dpdk: bool,
}

/// How reactors wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitOption {
    /// Poll for ever.
    Busy,
    /// Poll for a short while after work, then sleep.
    Adaptive,
}

fn parse_level(text: &str) -> Result<Level, String> {
    text.parse()
}

impl Options {
    /// What reactors are started with.
    pub fn reactors(&self) -> ReactorOptions {
        let wait = match self.wait {
            WaitOption::Busy => Wait::Busy,
            WaitOption::Adaptive => Wait::default(),
        };
        let pool = PoolOptions { total_bytes: self.memory as usize * (1 << 20) };
        ReactorOptions { cores: self.cores.clone(), wait, pool }
    }

    /// Whether the disk for newcomers is to be served.
    pub fn quick_start(&self) -> bool {
        self.config.is_none() && !self.empty && !self.wait_for_rpc
    }

    /// The folder of the disk for newcomers.
    pub fn data_folder(&self) -> &'static Path {
        Path::new(DATA_FOLDER)
    }
}

/// How long each step of the end may take: commands in flight, then flushes.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    // Without it: a mistake in the definition of the command line would show only when it is used.
    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }
}
