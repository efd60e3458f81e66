//! Controllers of this machine: driven from this process, once for all jobs of a run.

use super::{Session, TargetError};
use crate::job::Pcie;
use sledge_nvme::driver::{Controller, ControllerOptions};
use sledge_nvme::io::Geometry;
use sledge_nvme::pci::{self, EnvironmentKind, PciAddress};
use sledge_reactor::{Handle, ReactorGone};

/// What a controller said that the run needs.
pub struct Local {
    pub controller: Controller,
    pub geometry: Geometry,
    /// Most I/Os of one reactor at once; the driver has room for more, which wait.
    pub depth: usize,
}

/// Brings the controller up for all of `reactors`, the first of which watches it, unless the session has it already.
pub fn attach(target: &Pcie, reactors: &[Handle], session: &Session) -> Result<Local, TargetError> {
    let controller = match session.controller(&target.address) {
        Some(controller) => controller,
        None => {
            let owner = reactors.first().ok_or(ReactorGone)?;
            let controller = bring_up(target, owner, reactors)?;
            session.keep(&target.address, &controller, owner);
            controller
        }
    };
    let refused = |reason: &str| {
        TargetError::Options(format!("namespace {} of {}: {reason}", target.nsid, target.address))
    };
    let namespace = controller.namespace(target.nsid).ok_or_else(|| refused("there is none"))?;
    if let Some(reason) = &namespace.refused {
        return Err(refused(reason));
    }
    // One entry of a queue stays empty.
    let entries = controller.identity().map_or(0, |identity| identity.io_queue_depth as usize);
    Ok(Local { controller, geometry: namespace.geometry, depth: entries.saturating_sub(1).max(1) })
}

fn bring_up(target: &Pcie, owner: &Handle, reactors: &[Handle]) -> Result<Controller, TargetError> {
    let option = |error: &dyn std::fmt::Display| TargetError::Options(error.to_string());
    let address: PciAddress = target.address.parse().map_err(|error| option(&error))?;
    let environment: EnvironmentKind = target.environment.parse().map_err(|error| option(&error))?;
    let function = pci::open(&address, environment)?;
    let (keeper, all) = (owner.clone(), reactors.to_vec());
    let attached =
        owner.spawn(move || Controller::attach(function, keeper, all, ControllerOptions::default()));
    Ok(attached.wait_blocking()??)
}

/// Has reactors that start from now on take their memory from DPDK.
#[cfg(feature = "dpdk")]
pub fn take_pools_from_dpdk() -> Result<(), TargetError> {
    sledge_nvme::dpdk::start_with_pools(None)?;
    Ok(())
}

/// There is no DPDK in this program: opening the controller says so.
#[cfg(not(feature = "dpdk"))]
#[allow(clippy::unnecessary_wraps)]
pub fn take_pools_from_dpdk() -> Result<(), TargetError> {
    Ok(())
}
