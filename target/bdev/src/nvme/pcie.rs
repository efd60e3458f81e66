//! A path over PCIe: a drive of this machine, driven by [`sledge_nvme::driver`].
//!
//! The driver brings the drive up, resets it and has its I/O wait meanwhile; here its namespaces become devices, and
//! what happens to it is followed. Invariant: a drive whose driver is not live has no route that I/O takes. Called by
//! [`super::controllers`] and by the driver's events, on the owner's reactor.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sledge_nvme::driver::{
    AdminBuffer, Controller as Drive, ControllerOptions, DriverError, NamespaceInfo, State,
};
use sledge_nvme::function::Function;
use sledge_nvme::pci::{self, EnvironmentKind, PciAddress, System};
use sledge_nvme::{Command, Completion};
use sledge_nvmf::host::{AdminData, AdminReply};
use sledge_reactor::message::{self, Handle};

use super::controller::Controller;
use super::error::NvmeError;
use super::found::{Found, Identity};
use super::look::{Connected, Look};
use super::options::{AttachOptions, NvmeOptions, TimeoutAction};
use super::path::{About, Link, Path as NvmePath, PathState};

/// The driver keeps connections by itself: there is only one.
pub(crate) const INCARNATION: u64 = 0;
/// Longest that a drive may take to become ready, whatever it claims.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long I/O waits for a drive that was taken out, when nothing else says so.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

/// A drive.
pub(crate) struct PcieLink {
    pub(crate) drive: Drive,
    /// Number of its folder in sysfs: one that was taken out and put in again has another.
    folder: AtomicU64,
}

fn folder_of(address: &str) -> u64 {
    std::fs::metadata(Path::new("/sys/bus/pci/devices").join(address)).map_or(0, |found| found.ino())
}

/// Gives a drive that was put in again to the environment's kernel driver, if the kernel's own has it, and it is the one
/// with this serial number. One that was not taken out, but given to another driver, is left to whoever did that. Blocks.
///
/// # Errors
/// Why it is not ours.
pub(crate) fn take_back(
    address: &str,
    environment: &str,
    serial: &str,
    link: &PcieLink,
) -> Result<(), String> {
    let again = folder_of(address) != link.folder.load(Ordering::Relaxed);
    let address: PciAddress = address.parse().map_err(|error| format!("{error}"))?;
    let kind: EnvironmentKind = environment.parse().map_err(|error| format!("{error}"))?;
    let folder = Path::new("/sys/bus/pci/devices").join(address.to_string());
    let driver = std::fs::read_link(folder.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    if driver == Some(kind.driver()) {
        return Ok(());
    }
    if !again {
        return Err("the system has taken it; `sledge setup bind` gives it back".to_owned());
    }
    let controllers = std::fs::read_dir(folder.join("nvme")).map_err(|error| format!("{error}"))?;
    let serials =
        controllers.flatten().filter_map(|found| std::fs::read_to_string(found.path().join("serial")).ok());
    match serials.map(|found| found.trim().to_owned()).next() {
        Some(found) if found == serial.trim() => {}
        Some(found) => return Err(format!("another drive is there, with serial number {found:?}")),
        None => return Err("the kernel does not know its serial number yet".to_owned()),
    }
    pci::bind(&System::host(), &[address], kind.driver()).map(drop).map_err(|error| error.to_string())
}

/// Opens a drive that the environment's kernel driver has. Blocks.
///
/// # Errors
/// Why not, with what to do about it.
pub(crate) fn open(address: &str, environment: &str) -> Result<Arc<dyn Function>, String> {
    let address: PciAddress = address.parse().map_err(|error| format!("{error}"))?;
    let kind: EnvironmentKind = environment.parse().map_err(|error| format!("{error}"))?;
    pci::open(&address, kind).map_err(|error| error.to_string())
}

fn driver_options(options: &AttachOptions, settings: &NvmeOptions) -> ControllerOptions {
    let usual = ControllerOptions::default();
    let watched = settings.action_on_timeout != TimeoutAction::None;
    ControllerOptions {
        // One entry stays empty.
        io_queue_depth: u32::from(settings.queue_depth) + 1,
        io_queues: options.io_queues.max(1),
        io_timeout: if watched { settings.timeout } else { Duration::ZERO },
        admin_timeout: settings.admin_timeout,
        ready_timeout_limit: usual.ready_timeout_limit.min(READY_LIMIT),
        removal_timeout: options.reconnect.fast_fail.unwrap_or(REMOVAL_LIMIT),
        retry_count: settings.retry_count.unwrap_or(u32::MAX),
        ..usual
    }
}

/// Brings a drive up. On the reactor that is to own it.
///
/// # Errors
/// It does not come up.
pub(crate) async fn connect(
    number: u64,
    options: AttachOptions,
    settings: NvmeOptions,
    function: Arc<dyn Function>,
    reactors: Vec<Handle>,
) -> Result<Connected, NvmeError> {
    let owner = message::current();
    let wanted = driver_options(&options, &settings);
    let drive = Drive::attach(function, owner.clone(), reactors, wanted)
        .await
        .map_err(|source| NvmeError::Drive { to: options.transport.to_string(), source })?;
    let look = look(&drive);
    let folder = AtomicU64::new(folder_of(&drive.address()));
    let link = Link::Pcie(PcieLink { drive, folder });
    let path = NvmePath::new(number, options, settings, owner, link, look.about.clone());
    Ok(Connected { path: Arc::new(path), look })
}

/// What the driver knows of the drive.
fn look(drive: &Drive) -> Look {
    let about = drive.identity().map(|identity| About::read(&identity.data, identity.version.bits()));
    let mut found = Vec::new();
    for namespace in drive.namespaces().iter() {
        match &namespace.refused {
            None => found.push(read(namespace)),
            Some(reason) => {
                let (address, nsid) = (drive.address(), namespace.nsid);
                tracing::warn!(address, nsid, reason, "a namespace can't be used");
            }
        }
    }
    // The driver splits what is too large.
    let about = About { max_transfer_bytes: None, ..about.unwrap_or_default() };
    Look { incarnation: INCARNATION, about, found, ana: None }
}

fn read(namespace: &NamespaceInfo) -> Found {
    Found {
        nsid: namespace.nsid,
        geometry: namespace.geometry,
        identity: Identity {
            uuid: namespace.uuid.unwrap_or_default(),
            nguid: namespace.nguid.unwrap_or_default(),
            eui64: namespace.eui64.unwrap_or_default(),
        },
        ana_group: 0,
        shared: namespace.shared,
        zeroes_after_deallocate: namespace.deallocated_reads_zeroes,
    }
}

/// Follows what happens to a drive. On its owner.
pub(crate) fn follow(path: &Arc<NvmePath>, link: &PcieLink, of: Weak<Controller>) {
    let (watched, early) = (Arc::downgrade(path), of.clone());
    link.drive.on_event(Box::new(move |event| {
        let (Some(path), Some(of)) = (watched.upgrade(), of.upgrade()) else { return };
        tracing::info!(to = %path.options.transport, ?event, "a drive reports");
        note(&path, &of);
    }));
    // Something may have happened before anybody listened.
    if let Some(of) = early.upgrade()
        && link.drive.state() != State::Live
    {
        note(path, &of);
    }
}

/// Brings path and routes in line with the driver's state.
fn note(path: &Arc<NvmePath>, of: &Controller) {
    let Link::Pcie(link) = &path.link else { return };
    if path.state() == PathState::Disabled {
        return;
    }
    match link.drive.state() {
        State::Live => {
            path.set_state(PathState::Live);
            of.see(path, &look(&link.drive));
        }
        State::Failed => {
            path.set_state(PathState::GivenUp);
            of.lost(path);
        }
        State::Removed => {
            path.set_state(PathState::Lost);
            of.lost(path);
        }
        // It is on its way to one of these.
        _ => {}
    }
}

impl PcieLink {
    pub(crate) async fn admin(
        &self,
        path: &NvmePath,
        command: Command,
        data: AdminData,
        limit: Option<Duration>,
    ) -> Result<AdminReply, NvmeError> {
        let buffer = match data {
            AdminData::None => AdminBuffer::None,
            AdminData::Out(bytes) => AdminBuffer::Out(bytes),
            AdminData::In(length) => AdminBuffer::In(length),
        };
        let limit = limit.unwrap_or(path.settings.admin_timeout);
        let answer = self.drive.admin_within(limit, command, buffer).await;
        let (completion, data): (Completion, Vec<u8>) = answer.map_err(|source| failed(path, source))?;
        Ok(AdminReply { completion, data })
    }

    pub(crate) async fn reset(&self, path: &NvmePath) -> Result<(), NvmeError> {
        self.drive.reset().await.map_err(|source| failed(path, source))
    }

    pub(crate) async fn close(&self, path: &NvmePath) {
        if let Err(error) = self.drive.detach().await {
            tracing::debug!(to = %path.options.transport, %error, "a drive was not shut down in order");
        }
    }

    /// Puts a drive that has come back in the place of the one that was taken out; it must be the same.
    pub(crate) async fn put_back(
        &self,
        path: &NvmePath,
        function: Arc<dyn Function>,
    ) -> Result<(), NvmeError> {
        self.drive.replace(function).await.map_err(|source| failed(path, source))?;
        self.folder.store(folder_of(&self.drive.address()), Ordering::Relaxed);
        Ok(())
    }

    /// Whether the drive was taken out.
    pub(crate) fn is_removed(&self) -> bool {
        self.drive.state() == State::Removed
    }
}

fn failed(path: &NvmePath, source: DriverError) -> NvmeError {
    NvmeError::Drive { to: path.options.transport.to_string(), source }
}
