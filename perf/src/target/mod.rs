//! What load goes to: a namespace over NVMe/TCP or of a controller in this machine, or a local file or block device.
//!
//! Owns the way from a [`Target`] of a job to the [`Link`]s of its lanes. Invariant: whatever a link accepts it gives
//! back exactly once. The engine attaches a target once for each job, and opens a link on the reactor of each lane.
//!
//! | file | what |
//! |---|---|
//! | `nvme` | controllers elsewhere |
//! | `pcie` | controllers in this machine, without the kernel's driver |
//! | `link` | a lane's queue, of any sort |
//! | `split` | I/Os that go in parts |

mod link;
mod nvme;
mod pcie;
mod split;

pub use link::Link;
pub use nvme::Session;
pub use split::Parts;

use crate::job::{Job, Target};
use sledge_nvme::driver::{Controller, DriverError};
use sledge_nvme::io::Geometry;
use sledge_nvme::pci::{EnvironmentKind, OpenError};
use sledge_nvmf::host::{HostError, QueueConnector};
use sledge_reactor::disk::{Disk, DiskOptions, DiskQueue};
use sledge_reactor::{Handle, ReactorGone};

/// Most bytes of one command with many controllers.
const USUAL_TRANSFER: u32 = 128 << 10;
/// Most commands that large I/Os have a queue made for.
const MOST_COMMANDS: u32 = 1024;

/// Why a target can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The controller, or the way to it.
    #[error("{0}")]
    Host(#[from] HostError),
    /// A controller in this machine.
    #[error("{0}")]
    Driver(#[from] DriverError),
    /// The way to a controller in this machine.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The file or device.
    #[error("{0}")]
    Disk(#[from] std::io::Error),
    /// What the job says of it.
    #[error("{0}")]
    Options(String),
    /// A reactor's thread died.
    #[error("a reactor died: {0}")]
    Gone(#[from] ReactorGone),
}

/// A target that is there. May be sent to the reactors of its lanes.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Size and block size.
    pub geometry: Geometry,
    /// Most bytes of one I/O, where there is a limit.
    pub max_transfer: Option<u64>,
    /// Most lanes, where there is a limit.
    pub max_lanes: Option<u64>,
    way: Way,
}

/// What must be before the reactors of a run start: DPDK's memory for them, when a job's controller is reached through it.
///
/// # Errors
/// When there is none.
pub fn prepare(jobs: &[Job]) -> Result<(), TargetError> {
    let dpdk = EnvironmentKind::Dpdk.to_string();
    if jobs.iter().any(|job| matches!(&job.target, Target::Pcie(target) if target.environment == dpdk)) {
        pcie::take_pools_from_dpdk()?;
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Way {
    Nvme { connector: QueueConnector, nsid: u32 },
    Pcie { controller: Controller, nsid: u32, depth: usize },
    Disk(Disk),
}

/// Commands that a queue ought to have room for, so that the parts of large I/Os are on their way together. How large a
/// part is the controller has not said yet.
fn commands(job: &Job) -> u16 {
    let parts = job.largest().div_ceil(USUAL_TRANSFER).max(1);
    let most = u32::from(job.depth).max(MOST_COMMANDS);
    // At most the larger of two numbers of 16 bits.
    u32::from(job.depth).saturating_mul(parts).min(most) as u16
}

impl Attached {
    /// Attaches the target of `job`, whose `lanes` are on all of its cores together. A controller lives on `first`
    /// for as long as `session` does; one in this machine is for all `reactors` of the run.
    ///
    /// # Errors
    /// When the target can't be used.
    pub fn new(
        job: &Job,
        lanes: usize,
        first: &Handle,
        reactors: &[Handle],
        session: &Session,
    ) -> Result<Self, TargetError> {
        match &job.target {
            Target::NvmeTcp(target) => {
                let remote = nvme::attach(target, commands(job), lanes, first, session)?;
                Ok(Self {
                    geometry: remote.geometry,
                    max_transfer: remote.max_transfer,
                    max_lanes: Some(u64::from(remote.io_queues)),
                    way: Way::Nvme { connector: remote.connector, nsid: target.nsid },
                })
            }
            Target::Pcie(target) => {
                let local = pcie::attach(target, reactors, session)?;
                let way = Way::Pcie { controller: local.controller, nsid: target.nsid, depth: local.depth };
                // The driver splits what is too large for the controller.
                Ok(Self { geometry: local.geometry, max_transfer: None, max_lanes: None, way })
            }
            Target::File { path, direct } => {
                let modifies = job.modifies();
                let create_bytes = job.size.filter(|_| modifies).map(|size| job.offset + size);
                let options = DiskOptions { read_only: !modifies, create_bytes, direct: *direct };
                let disk = Disk::open(path, options).map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound if modifies && job.size.is_none() => {
                        TargetError::Options(format!("{error}; it is made when its size is given"))
                    }
                    _ => TargetError::Disk(error),
                })?;
                let block_bytes = disk.block_bytes();
                let geometry = Geometry::new(disk.len_bytes() / u64::from(block_bytes), block_bytes);
                Ok(Self { geometry, max_transfer: None, max_lanes: None, way: Way::Disk(disk) })
            }
        }
    }

    /// Opens a lane's queue on the current reactor.
    ///
    /// # Errors
    /// When it can't be opened.
    pub async fn open(&self) -> Result<Link, TargetError> {
        match &self.way {
            Way::Nvme { connector, nsid } => Ok(Link::nvme(connector.open(*nsid, self.geometry).await?)),
            Way::Pcie { controller, nsid, depth } => {
                Ok(Link::channel(controller.open_channel(*nsid)?, *depth))
            }
            Way::Disk(disk) => Ok(Link::disk(DiskQueue::open(disk)?, self.geometry.block_shift())),
        }
    }
}
