//! Takes what NVMe controllers announce by themselves into the configuration: namespaces that appear, grow or vanish.

use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::nvme::{Change, Controllers};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use crate::daemon::Daemon;
use crate::methods::{attach_deferred, wait_for};
use crate::model::Draft;
use crate::rpc::error::RpcError;

/// How often removed drives are looked for, unless told otherwise.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks for drives that were taken out, until the process ends.
pub async fn look_for_drives(daemon: Arc<Daemon>) {
    loop {
        let model = daemon.model();
        let (enabled, period) = match model.nvme.hotplug {
            Some((enabled, 0)) => (enabled, PERIOD),
            Some((enabled, micros)) => (enabled, Duration::from_micros(micros).max(PERIOD / 10)),
            None => (true, PERIOD),
        };
        tokio::time::sleep(period).await;
        let controllers = model.nvme.controllers.clone();
        if enabled && controllers.has_removed_drives() {
            // It opens files and maps memory.
            let looking = tokio::task::spawn_blocking(move || wait_for(controllers.bring_back()));
            let _ = looking.await;
        }
    }
}

/// How often paths that could not be reached are tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(5);
/// How long one may take to answer before it is asked more.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Attaches the paths of the configuration that could not be reached when it was read, until the process ends.
pub async fn retry_deferred(daemon: Arc<Daemon>) {
    loop {
        tokio::time::sleep(RETRY_PERIOD).await;
        for deferred in daemon.model().nvme.controllers.deferred() {
            let Some(address) = deferred.address() else { continue };
            // Outside of the change, which would keep others waiting.
            let answers = tokio::time::timeout(ANSWER_LIMIT, tokio::net::TcpStream::connect(address)).await;
            if !matches!(answers, Ok(Ok(_))) {
                continue;
            }
            match daemon.change(move |draft| attach_deferred(draft, deferred)).await {
                Ok(()) => info!(%address, "attached a path that could not be reached before"),
                Err(error) => {
                    warn!(%address, error = %RpcError::from(error), "can't attach a path of the configuration")
                }
            }
        }
    }
}

/// Takes changes in as they come, until the process ends.
pub async fn follow(daemon: Arc<Daemon>) {
    let controllers = daemon.model().nvme.controllers.clone();
    let told = Arc::new(Notify::new());
    let telling = told.clone();
    controllers.on_change(move || telling.notify_one());
    loop {
        for change in controllers.take_changes() {
            let (controllers, what) = (controllers.clone(), describe(&change));
            match daemon.change_in_turn(move |draft| take(draft, &controllers, change)).await {
                Ok(()) => info!(what, "an NVMe controller has changed"),
                Err(error) => {
                    let error = RpcError::from(error);
                    error!(what, %error, "an NVMe controller has changed, which can't be followed");
                }
            }
        }
        told.notified().await;
    }
}

fn describe(change: &Change) -> String {
    match change {
        Change::Appeared(device) => format!("{} has appeared", device.name()),
        Change::Grown(device, geometry) => {
            format!("{} has grown to {} blocks", device.name(), geometry.blocks)
        }
        Change::Vanished(device) => format!("{} has vanished", device.name()),
    }
}

fn take(draft: &mut Draft, controllers: &Controllers, change: Change) -> Result<(), RpcError> {
    match change {
        Change::Appeared(device) => {
            draft.add_device(device).map_err(RpcError::internal)?;
        }
        Change::Grown(device, geometry) => {
            if geometry.blocks > device.geometry().blocks {
                let undo = device.grow(geometry).map_err(RpcError::internal)?;
                draft.resized(device, undo)?;
            }
        }
        Change::Vanished(device) => match draft.model.devices.claimed_by(device.name()) {
            // Its I/O waits, and fails with a status that hosts retry: it may come back.
            Some(user) => {
                warn!(device = device.name(), user, "a namespace in use has vanished; its device stays")
            }
            None if device.is_up() => {}
            None => {
                draft.remove_device(device.name()).map_err(RpcError::internal)?;
                let controllers = controllers.clone();
                draft.afterwards(move || controllers.forget(&device));
            }
        },
    }
    Ok(())
}
