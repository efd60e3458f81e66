//! Controllers elsewhere: connected on one reactor, kept until the run is over, shut down in order. The session keeps
//! those of this machine, too.

use super::TargetError;
use crate::job::NvmeTcp;
use sledge_nvme::driver::Controller as LocalController;
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::io::Geometry;
use sledge_nvmf::host::{ConnectOptions, Controller, HostError, HostIdentity, OnLoss, QueueConnector};
use sledge_reactor::Handle;
use sledge_reactor::time::sleep;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a controller may take to shut down.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a controller said that the run needs.
pub struct Remote {
    pub connector: QueueConnector,
    pub geometry: Geometry,
    pub max_transfer: Option<u64>,
    pub io_queues: u16,
}

/// Keeps the controllers of a run; [`Session::end`] shuts them down.
#[derive(Debug, Default)]
pub struct Session {
    state: Arc<State>,
    /// Those of this machine: a process has each once.
    local: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Kept {
    address: String,
    controller: LocalController,
    owner: Handle,
}

#[derive(Debug, Default)]
struct State {
    ended: AtomicBool,
    open: AtomicUsize,
}

impl Session {
    /// A controller of this machine that the run has already.
    pub fn controller(&self, address: &str) -> Option<LocalController> {
        let local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.iter().find(|kept| kept.address == address).map(|kept| kept.controller.clone())
    }

    /// Keeps a controller of this machine, which lives on `owner`, until the run is over.
    pub fn keep(&self, address: &str, controller: &LocalController, owner: &Handle) {
        let kept = Kept { address: address.to_owned(), controller: controller.clone(), owner: owner.clone() };
        self.local.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
    }

    /// Shuts the controllers down, in order as far as they answer.
    pub fn end(self) {
        for Kept { controller, owner, .. } in self.local.into_inner().unwrap_or_else(PoisonError::into_inner)
        {
            // The results are known by now: how a controller ends changes nothing.
            let _ = owner.spawn(move || async move { controller.detach().await }).wait_blocking();
        }
        self.state.ended.store(true, Ordering::Release);
        let pause = Duration::from_millis(2);
        for _ in 0..FAREWELL.as_millis() / pause.as_millis() {
            if self.state.open.load(Ordering::Acquire) == 0 {
                break;
            }
            std::thread::sleep(pause);
        }
    }
}

/// Connects on `reactor`, which keeps the controller until the session ends.
pub fn attach(
    target: &NvmeTcp,
    depth: u16,
    lanes: usize,
    reactor: &Handle,
    session: &Session,
) -> Result<Remote, TargetError> {
    let address = SocketAddr::new(target.traddr, target.trsvcid);
    let subsystem = parse(&target.nqn)?;
    let host_nqn = target.hostnqn.as_deref().map(parse).transpose()?;
    let (header_digest, data_digest) = (target.header_digest, target.data_digest);
    let (nsid, reconnect) = (target.nsid, target.reconnect);
    let state = session.state.clone();
    let attached = reactor.spawn(move || async move {
        let mut host = HostIdentity::random()?;
        if let Some(nqn) = host_nqn {
            host.nqn = nqn;
        }
        let mut connect = ConnectOptions::new(address, subsystem, host);
        (connect.header_digest, connect.data_digest) = (header_digest, data_digest);
        connect.queue_depth = depth;
        connect.io_queues = u16::try_from(lanes).unwrap_or(u16::MAX);
        connect.on_loss = if reconnect { OnLoss::Resubmit } else { OnLoss::Fail };
        let controller = Controller::connect(connect).await?;
        let geometry = controller.geometry(nsid).await?;
        let info = controller.info();
        let remote = Remote {
            connector: controller.connector(),
            geometry,
            max_transfer: info.identify.max_transfer_bytes(),
            io_queues: info.io_queues,
        };
        state.open.fetch_add(1, Ordering::AcqRel);
        drop(sledge_reactor::spawn_local(async move {
            while !state.ended.load(Ordering::Acquire) {
                sleep(Duration::from_millis(10)).await;
            }
            // The results are known by now: how the connection ends changes nothing.
            let _ = controller.shutdown().await;
            state.open.fetch_sub(1, Ordering::AcqRel);
        }));
        Ok::<Remote, HostError>(remote)
    });
    Ok(attached.wait_blocking()??)
}

fn parse(nqn: &str) -> Result<Nqn, TargetError> {
    Nqn::new(nqn).map_err(|error| TargetError::Options(format!("{nqn}: {error}")))
}
