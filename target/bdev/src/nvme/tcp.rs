//! A path over NVMe/TCP: connecting, looking at the namespaces, and the task that watches it for its whole life.
//!
//! Owns the host side's controller, which stays on the path's owner reactor. Invariant: after each connection the
//! namespaces are looked at before I/O takes the path. Called by [`super::controllers`].

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use sledge_nvme::async_event::Notice;
use sledge_nvme::command::{BROADCAST_NSID, DataPointerKind};
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::identify::{Cns, IDENTIFY_BYTES};
use sledge_nvme::log_page::{AnaGroupDescriptor, AnaHeader, AnaState, LogPage, RETURN_GROUPS_ONLY};
use sledge_nvme::{Command, Completion};
use sledge_nvmf::host::{
    AdminData, AdminReply, ConnectOptions, Controller as HostController, ControllerState, HostError,
    HostIdentity, OnLoss, QueueConnector,
};
use sledge_reactor::local::LocalKey;
use sledge_reactor::message;
use sledge_reactor::task::{JoinHandle, spawn_local};
use sledge_reactor::time::{Instant, now, sleep};
use uuid::Uuid;
use zerocopy::FromBytes;

use super::controller::Controller;
use super::error::NvmeError;
use super::found::Found;
use super::look::{Connected, Look};
use super::options::{AttachOptions, NvmeOptions, Transport};
use super::path::{About, Link, Path, PathState};

/// How often a path is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Most namespaces of one controller.
const MAX_NAMESPACES: usize = 1024;
/// Most ANA groups that are read.
const MAX_ANA_GROUPS: usize = 4096;
/// Bytes of a log page that any controller gives at once.
const LOG_CHUNK: usize = 4096;
/// Longest pause between attempts to reconnect.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// What lives on the path's owner reactor.
pub(crate) struct Resident {
    controller: RefCell<Option<Rc<HostController>>>,
    watch: RefCell<Option<JoinHandle<()>>>,
}

/// A controller over NVMe/TCP.
pub(crate) struct TcpLink {
    pub(crate) connector: QueueConnector,
    /// Who we are there.
    pub(crate) host: Nqn,
    /// The connection in which the namespaces were looked at last.
    seen: AtomicU64,
    resident: LocalKey<Resident>,
}

fn connect_options(
    options: &AttachOptions,
    settings: &NvmeOptions,
    host: &Nqn,
) -> Result<ConnectOptions, NvmeError> {
    let Transport::Tcp { address, subsystem } = &options.transport else {
        return Err(NvmeError::Parameter {
            name: options.name.clone(),
            parameter: "trtype",
            problem: "is not TCP".to_owned(),
        });
    };
    let identity = HostIdentity { nqn: host.clone(), id: host_id(host) };
    let mut wanted = ConnectOptions::new(*address, subsystem.clone(), identity);
    wanted.keep_alive = settings.keep_alive;
    wanted.header_digest = options.header_digest;
    wanted.data_digest = options.data_digest;
    wanted.queue_depth = settings.queue_depth;
    wanted.io_queues = options.io_queues;
    wanted.connect_timeout = settings.connect_timeout;
    wanted.command_timeout = settings.timeout;
    wanted.reconnect_delay = options.reconnect.delay;
    wanted.reconnect_delay_max = options.reconnect.delay.min(LONGEST_DELAY);
    wanted.loss_timeout = options.reconnect.loss_timeout;
    // Lost commands come back here, where it is known whether they may be repeated.
    wanted.on_loss = OnLoss::Fail;
    Ok(wanted)
}

/// The Host Identifier that goes with a host NQN: the same for each of its connections, whichever process makes them.
fn host_id(host: &Nqn) -> [u8; 16] {
    let text = host.as_str();
    let uuid = text.rsplit_once("uuid:").and_then(|(_, uuid)| Uuid::try_parse(uuid).ok());
    uuid.unwrap_or_else(|| super::found::Identity::default().device_uuid(text, 0)).into_bytes()
}

/// Connects on the current reactor, which becomes the path's owner.
pub(crate) async fn connect(
    number: u64,
    options: AttachOptions,
    settings: NvmeOptions,
    host: Nqn,
) -> Result<Connected, NvmeError> {
    let wanted = connect_options(&options, &settings, &host)?;
    let to = options.transport.to_string();
    let failed = |source: HostError| NvmeError::Host { to: to.clone(), source };
    let controller = HostController::connect(wanted).await.map_err(failed)?;
    let look = look(&controller).await.map_err(failed)?;
    let resident = LocalKey::new();
    let seen = AtomicU64::new(look.incarnation);
    let link = TcpLink { connector: controller.connector(), host, seen, resident };
    let owner = message::current();
    let path = Path::new(number, options, settings, owner, Link::Tcp(link), look.about.clone());
    resident.set(Rc::new(Resident {
        controller: RefCell::new(Some(Rc::new(controller))),
        watch: RefCell::new(None),
    }));
    Ok(Connected { path: Arc::new(path), look })
}

/// Begins to watch a path. On its owner.
pub(crate) fn start_watch(path: &Arc<Path>, seen: u64, of: Weak<Controller>) {
    let Link::Tcp(link) = &path.link else { return };
    let Some(resident) = link.resident.get() else { return };
    let Some(controller) = resident.controller.borrow().clone() else { return };
    let task = spawn_local(watch(path.clone(), controller, seen, of));
    *resident.watch.borrow_mut() = Some(task);
}

impl TcpLink {
    /// The controller, on its reactor.
    fn on_owner(resident: LocalKey<Resident>) -> Option<Rc<HostController>> {
        resident.get()?.controller.borrow().clone()
    }

    pub(crate) async fn admin(
        &self,
        path: &Path,
        command: Command,
        data: AdminData,
        limit: Option<Duration>,
    ) -> Result<AdminReply, NvmeError> {
        let limit = limit.unwrap_or(path.settings.admin_timeout);
        let resident = self.resident;
        // Fabrics know no PRPs; what a user's command says of its data, for a drive perhaps, is filled in anew.
        let psdt = DataPointerKind::SglContiguousMetadata.value() << 6;
        let command = Command { flags: psdt, mptr: 0.into(), ..command };
        let sent = path.owner.spawn(move || async move {
            let controller = Self::on_owner(resident)?;
            Some(controller.admin_within(limit, "the command", command, data).await)
        });
        let to = path.options.transport.to_string();
        let answered = sent.await?.ok_or_else(|| path.not_connected())?;
        match answered {
            Ok(reply) => Ok(reply),
            // Its status is an answer like any other.
            Err(HostError::Command { status, .. }) => {
                Ok(AdminReply { completion: Completion::new(0, status), data: Vec::new() })
            }
            Err(source) => Err(NvmeError::Host { to, source }),
        }
    }

    pub(crate) async fn reset(&self, path: &Path) -> Result<(), NvmeError> {
        let (resident, before) = (self.resident, self.seen.load(Ordering::Acquire));
        let asked = path.owner.spawn(move || async move {
            let controller = Self::on_owner(resident)?;
            Some(controller.reset().await)
        });
        let to = path.options.transport.to_string();
        let done = asked.await?.ok_or_else(|| path.not_connected())?;
        done.map_err(|source| NvmeError::Host { to: to.clone(), source })?;
        // It comes back as after a loss, and takes I/O once its namespaces were looked at.
        let limit = path.options.reconnect.delay * 2 + path.settings.connect_timeout;
        let deadline = path.owner.spawn(move || async move { now() + limit }).await?;
        while self.seen.load(Ordering::Acquire) == before {
            if path.owner.spawn(move || pause_until(deadline)).await? {
                return Err(NvmeError::Timeout { what: format!("the return of {to}"), limit });
            }
        }
        Ok(())
    }

    pub(crate) async fn close(&self, path: &Path) {
        let resident = self.resident;
        let closing = path.owner.spawn(move || async move {
            let Some(resident) = resident.take() else { return };
            if let Some(watch) = resident.watch.take() {
                watch.abort();
            }
            let Some(controller) = resident.controller.take() else { return };
            // Somebody waits for an admin command: the drop then disconnects.
            let Ok(controller) = Rc::try_unwrap(controller) else { return };
            if let Err(error) = controller.shutdown().await {
                tracing::debug!(%error, "a controller was not shut down in order");
            }
        });
        // A reactor that is gone has no connections.
        let _ = closing.await;
    }
}

/// Pauses a little; whether it is past the deadline.
async fn pause_until(deadline: Instant) -> bool {
    sleep(TICK / 10).await;
    now() >= deadline
}

/// Waits for `future`, at most for `limit`.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut timer = pin!(sleep(limit));
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        timer.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// The path's task: notices what becomes of the connection, and of the namespaces.
async fn watch(path: Arc<Path>, controller: Rc<HostController>, mut seen: u64, of: Weak<Controller>) {
    let mut look_again = false;
    loop {
        let event = within(TICK, controller.next_event()).await;
        let Some(of) = of.upgrade() else { return };
        let Some(incarnation) = controller.incarnation() else {
            let over = controller.state() == ControllerState::Ended;
            let state = if over { PathState::GivenUp } else { PathState::Lost };
            if path.state() != state {
                path.set_state(state);
                of.lost(&path);
            }
            if over {
                tracing::error!(to = %path.options.transport, "gave an NVMe controller up");
                return;
            }
            continue;
        };
        match event.and_then(|event| event.as_notice()) {
            Some(Notice::NamespaceAttributeChanged) => look_again = true,
            Some(Notice::AnaChange) => path.ana_stale.store(true, Ordering::Release),
            _ => {}
        }
        if incarnation != seen || look_again {
            look_again = true;
            if let Ok(look) = look(&controller).await
                && look.incarnation == incarnation
            {
                (seen, look_again) = (incarnation, false);
                path.set_state(PathState::Live);
                of.see(&path, &look);
                if let Link::Tcp(link) = &path.link {
                    link.seen.store(seen, Ordering::Release);
                }
            }
        } else if path.ana_stale.swap(false, Ordering::AcqRel) {
            match read_ana(&controller).await {
                Ok(states) => of.see_ana(&path, &states),
                Err(_) => path.ana_stale.store(true, Ordering::Release),
            }
        }
    }
}

/// Looks at everything that a controller shows.
async fn look(controller: &HostController) -> Result<Look, HostError> {
    let incarnation = controller.incarnation().unwrap_or(u64::MAX - 1);
    let info = controller.info();
    let about = About::read(&info.identify, info.version.bits());
    // Reading it lets the controller tell of the next change. One that has no such log tells of none.
    let page = LogPage::ChangedNamespaces.value();
    let changed = Command::get_log_page(page, BROADCAST_NSID, 0, IDENTIFY_BYTES as u32);
    match controller.admin("Changed Namespace List", changed, AdminData::In(IDENTIFY_BYTES)).await {
        Ok(_) | Err(HostError::Command { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut found = Vec::new();
    for nsid in controller.active_namespaces().await?.into_iter().take(MAX_NAMESPACES) {
        let data = match controller.identify_namespace(nsid).await {
            Ok(data) => data,
            // It has just gone.
            Err(HostError::Command { .. }) => continue,
            Err(error) => return Err(error),
        };
        let command = Command::identify(Cns::NamespaceDescriptors.value(), nsid);
        let names = match controller.admin("its identifiers", command, AdminData::In(IDENTIFY_BYTES)).await {
            Ok(reply) => reply.data,
            // Controllers before NVMe 1.3 have none.
            Err(HostError::Command { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        match Found::read(nsid, &data, &names) {
            Ok(namespace) => found.push(namespace),
            Err(reason) => tracing::warn!(nsid, reason, "a namespace can't be used"),
        }
    }
    let ana = match about.ana_reporting {
        true => Some(read_ana(controller).await?),
        false => None,
    };
    Ok(Look { incarnation, about, found, ana })
}

/// Reads the states of all ANA groups.
async fn read_ana(controller: &HostController) -> Result<Vec<(u32, AnaState)>, HostError> {
    const MALFORMED: HostError = HostError::Malformed { what: "the ANA log", problem: "too short" };
    let (header_bytes, descriptor_bytes) = (size_of::<AnaHeader>(), size_of::<AnaGroupDescriptor>());
    let mut page = Vec::new();
    let mut wanted = header_bytes;
    while page.len() < wanted {
        let part = (wanted - page.len()).min(LOG_CHUNK);
        let command =
            Command::get_log_page(LogPage::Ana.value(), BROADCAST_NSID, page.len() as u64, part as u32)
                .with_log_specific_field(RETURN_GROUPS_ONLY);
        let reply = controller.admin("the ANA log", command, AdminData::In(part)).await?;
        if reply.data.len() < part {
            return Err(MALFORMED);
        }
        page.extend_from_slice(&reply.data);
        if wanted == header_bytes {
            let (header, _) = AnaHeader::read_from_prefix(&page).map_err(|_| MALFORMED)?;
            wanted += usize::from(header.groups.get()).min(MAX_ANA_GROUPS) * descriptor_bytes;
        }
    }
    let descriptors = page[header_bytes..].chunks_exact(descriptor_bytes);
    let read = descriptors.filter_map(|bytes| AnaGroupDescriptor::read_from_bytes(bytes).ok());
    Ok(read
        .map(|descriptor| (descriptor.group.get(), descriptor.ana_state().unwrap_or(AnaState::Inaccessible)))
        .collect())
}
