//! The running target as the management interface sees it: the model, the reactors, the NVMe/TCP target.
//!
//! Invariant: changes are made one at a time, and the model that questions see is always one that the NVMe/TCP
//! target serves as a whole. Questions never wait for a change in progress. All on tokio's threads, which are
//! not pinned to cores; reactors are reached only through [`Target`] and [`Handle`]s.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use sledge_bdev::Registry;
use sledge_nvmf::target::{Target, TargetError};
use sledge_reactor::message::Handle;
use tokio::sync::{Mutex, MutexGuard, watch};
use tracing::{debug, info, warn};

use crate::logging::LogControl;
use crate::methods::{self, Action};
use crate::model::events::Events;
use crate::model::{Claims, Draft, Finished, Model};
use crate::rpc::error::RpcError;
use crate::rpc::server::Calls;

/// Ticks a second in what is reported as ticks: they are nanoseconds.
pub const TICK_RATE: u64 = 1_000_000_000;

/// How often the end of removed namespaces' commands is looked for.
const IDLE_STEP: Duration = Duration::from_millis(100);

/// How long a client's change waits for those before it. One that hangs, for instance on a file of a dead server, must not
/// take the places of all clients.
const TURN_LIMIT: Duration = Duration::from_secs(60);

/// The model, and what goes with it.
struct Current {
    model: Arc<Model>,
    /// By reactor: commands that subsystems completed which it no longer has.
    past_commands: Vec<u64>,
}

/// The running target.
pub struct Daemon {
    model: RwLock<Current>,
    /// Held by the one change that is being made.
    changing: Mutex<Claims>,
    /// No change is made any more.
    ending: AtomicBool,
    events: Events,
    devices: Registry,
    target: Target,
    reactors: Vec<Handle>,
    log: LogControl,
    started: watch::Sender<bool>,
    stopping: watch::Sender<bool>,
    began: Instant,
}

/// Why a change was not made.
#[derive(Debug)]
pub enum ChangeError {
    /// The edit refused.
    Edit(RpcError),
    /// The NVMe/TCP target could not serve it.
    Target(TargetError),
}

impl From<ChangeError> for RpcError {
    fn from(error: ChangeError) -> RpcError {
        match error {
            ChangeError::Edit(error) => error,
            ChangeError::Target(error) => target_error(&error),
        }
    }
}

/// What a client is told when the NVMe/TCP target could not serve a change.
pub fn target_error(error: &TargetError) -> RpcError {
    match error {
        TargetError::Listen { reason, .. } => RpcError::system(reason, error),
        TargetError::Name { .. } => RpcError::invalid_params(error),
        TargetError::StillBusy { .. } | TargetError::Device { .. } | TargetError::Stopped => {
            RpcError::internal(error)
        }
    }
}

impl Daemon {
    /// A daemon that serves nothing yet; `empty` is a model without anything, made for so many reactors.
    /// `started` is false when it waits for `framework_start_init`.
    pub fn new(
        target: Target,
        reactors: Vec<Handle>,
        empty: Model,
        log: LogControl,
        started: bool,
    ) -> Arc<Daemon> {
        Arc::new(Daemon {
            devices: empty.devices.clone(),
            model: RwLock::new(Current { model: Arc::new(empty), past_commands: vec![0; reactors.len()] }),
            changing: Mutex::default(),
            ending: AtomicBool::new(false),
            events: Events::default(),
            target,
            reactors,
            log,
            started: watch::Sender::new(started),
            stopping: watch::Sender::new(false),
            began: Instant::now(),
        })
    }

    /// What the target is configured to be, at this moment.
    pub fn model(&self) -> Arc<Model> {
        Arc::clone(&self.model.read().unwrap_or_else(PoisonError::into_inner).model)
    }

    /// The same, and by reactor the commands that subsystems completed which it no longer has.
    pub fn model_and_past_commands(&self) -> (Arc<Model>, Vec<u64>) {
        let current = self.model.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&current.model), current.past_commands.clone())
    }

    /// Lets a model replace the one that there is, and gives that.
    fn replace_model(&self, model: Model) -> Arc<Model> {
        let mut current = self.model.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut current.model, Arc::new(model));
        for (nqn, subsystem) in &old.definition.subsystems {
            let new = current.model.definition.subsystems.get(nqn);
            if new.is_some_and(|new| Arc::ptr_eq(&new.statistics, &subsystem.statistics)) {
                continue;
            }
            for (past, reactor) in current.past_commands.iter_mut().zip(0..) {
                *past += methods::commands(&subsystem.statistics, reactor);
            }
        }
        old
    }

    /// The block devices.
    pub fn devices(&self) -> &Registry {
        &self.devices
    }

    /// What has come and gone.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// The NVMe/TCP target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The reactors.
    pub fn reactors(&self) -> &[Handle] {
        &self.reactors
    }

    /// The log.
    pub fn log(&self) -> &LogControl {
        &self.log
    }

    /// Nanoseconds since the daemon began.
    pub fn ticks(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether start-up is over.
    pub fn started(&self) -> bool {
        *self.started.borrow()
    }

    /// Ends start-up.
    pub fn mark_started(&self) {
        self.started.send_replace(true);
    }

    /// Waits for the end of start-up.
    pub async fn wait_started(&self) {
        // The sender is ours: it outlives this.
        let _ = self.started.subscribe().wait_for(|started| *started).await;
    }

    /// Asks the process to drain and end.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Waits until the process is asked to end.
    pub async fn wait_stop(&self) {
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Makes a change for a client: runs `edit` on a draft, has the NVMe/TCP target serve the result, and lets it replace
    /// the model. On any error nothing has changed.
    ///
    /// # Errors
    /// EBUSY when the change before it does not end, the edit's own, or that of the NVMe/TCP target.
    pub async fn change<T, F>(&self, edit: F) -> Result<T, ChangeError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Draft) -> Result<T, RpcError> + Send + 'static,
    {
        match tokio::time::timeout(TURN_LIMIT, self.changing.lock()).await {
            Ok(claims) => self.change_with(claims, edit).await,
            Err(_) => {
                let seconds = TURN_LIMIT.as_secs();
                let reason =
                    format!("other changes have not ended for {seconds} s; try again later, or see the log");
                Err(ChangeError::Edit(RpcError::errno(16, "Device or resource busy", reason)))
            }
        }
    }

    /// Makes a change that nobody would ask for again, however long those before it take.
    ///
    /// # Errors
    /// As for [`Daemon::change`].
    pub async fn change_in_turn<T, F>(&self, edit: F) -> Result<T, ChangeError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Draft) -> Result<T, RpcError> + Send + 'static,
    {
        let claims = self.changing.lock().await;
        self.change_with(claims, edit).await
    }

    async fn change_with<T, F>(&self, mut claims: MutexGuard<'_, Claims>, edit: F) -> Result<T, ChangeError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Draft) -> Result<T, RpcError> + Send + 'static,
    {
        let mut draft = self.model().draft(claims.clone());
        // Edits open files and take memory.
        let edited = tokio::task::spawn_blocking(move || edit(&mut draft).map(|result| (result, draft)));
        let (result, draft) = match edited.await {
            Ok(outcome) => outcome.map_err(ChangeError::Edit)?,
            Err(error) => {
                return Err(ChangeError::Edit(RpcError::internal(format!(
                    "the change did not end: {error}"
                ))));
            }
        };
        if self.ending.load(Ordering::SeqCst) {
            return Err(ChangeError::Edit(RpcError::invalid_state("the target is ending")));
        }
        self.commit(draft, &mut claims).await.map_err(ChangeError::Target)?;
        Ok(result)
    }

    /// Serves a draft that was made before this daemon was, of its empty model.
    ///
    /// # Errors
    /// That of the NVMe/TCP target; nothing has changed then.
    pub async fn adopt(&self, draft: Draft) -> Result<(), TargetError> {
        let mut claims = self.changing.lock().await;
        self.commit(draft, &mut claims).await
    }

    async fn commit(&self, draft: Draft, claims: &mut Claims) -> Result<(), TargetError> {
        let outcome = match draft.to_apply() {
            Some(definition) => self.target.apply(definition).await,
            None => Ok(()),
        };
        let busy = match outcome {
            Ok(()) => BTreeSet::new(),
            // In force all the same.
            Err(TargetError::StillBusy { instances, .. }) => instances,
            Err(error) => return Err(error),
        };
        let Finished { model, claims: new_claims, effects, events } = draft.finish();
        let old_model = self.replace_model(model);
        let old_claims = std::mem::replace(claims, new_claims);
        self.keep_until_idle(&old_model, old_claims, busy);
        effects.into_iter().for_each(|effect| effect());
        self.events.add(events);
        Ok(())
    }

    /// Keeps the devices of removed namespaces, which are still at work for them, from being deleted until they are done.
    fn keep_until_idle(&self, old: &Model, mut old_claims: Claims, busy: BTreeSet<u64>) {
        let mut kept = Vec::new();
        for (nqn, subsystem) in &old.definition.subsystems {
            for namespace in subsystem.namespaces.values().filter(|one| busy.contains(&one.instance)) {
                let (nsid, device) = (namespace.nsid, &namespace.device_name);
                warn!(
                    subsystem = nqn,
                    nsid, device, "removed a namespace whose device still has its commands"
                );
                let Some(claim) = old_claims.remove(&(nqn.clone(), nsid)) else { continue };
                // Whoever has the claim, too, keeps the device by it.
                if Arc::strong_count(&claim) == 1 {
                    claim.pass_to(format!("commands of namespace {nsid} of {nqn}, which is removed already"));
                    kept.push(claim);
                }
            }
        }
        if kept.is_empty() {
            return;
        }
        let target = self.target.clone();
        tokio::spawn(async move {
            while !target.still_busy(&busy).await.is_empty() {
                tokio::time::sleep(IDLE_STEP).await;
            }
            info!(devices = kept.len(), "the commands of removed namespaces have ended");
        });
    }

    /// Stops serving: lets commands in flight end, flushes devices, closes connections. Each of these takes at
    /// most `limit` on each reactor. No change is made any more afterwards.
    pub async fn drain(&self, limit: Duration) {
        self.ending.store(true, Ordering::SeqCst);
        // A change in progress ends first, unless it takes too long.
        let _changing = tokio::time::timeout(limit, self.changing.lock()).await;
        self.target.drain(limit).await;
    }

    /// Calls a method.
    ///
    /// # Errors
    /// -32601 when there is none of that name, and its own.
    pub async fn call(self: &Arc<Self>, name: &str, params: Value) -> Result<Value, RpcError> {
        let method = methods::find(name).ok_or_else(|| RpcError::method_not_found(name))?;
        methods::check_phase(&method, self.started())?;
        match method.action {
            Action::Ask(ask) => ask(Arc::clone(self), params).await,
            Action::Edit(edit) => {
                let result = self.change(move |draft| edit(draft, params)).await?;
                info!(method = name, "changed the configuration");
                Ok(result)
            }
        }
    }
}

/// Calls of management clients.
#[derive(Clone)]
pub struct ClientCalls(pub Arc<Daemon>);

impl Calls for ClientCalls {
    fn call(&self, method: String, params: Value) -> impl Future<Output = Result<Value, RpcError>> + Send {
        let daemon = Arc::clone(&self.0);
        async move {
            let outcome = daemon.call(&method, params).await;
            if let Err(error) = &outcome {
                debug!(method, code = error.code, reason = error.message, "refused a call");
            }
            outcome
        }
    }

    fn only_waits(&self, method: &str) -> bool {
        methods::only_waits(method)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use sledge_reactor::Reactors;
    use sledge_reactor::memory::PoolOptions;
    use sledge_reactor::options::{CoreList, ReactorOptions, Wait};

    use super::*;
    use crate::logging::Level;
    use crate::model::Environment;

    // Without it: a change that hangs would have all later ones wait for ever, each with its client's place; or what a
    // controller announces in that time would be lost.
    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_for_a_change_that_hangs() {
        let pool = PoolOptions { total_bytes: 8 << 20 };
        let cores = CoreList::parse("0").unwrap();
        let reactors = Reactors::start(ReactorOptions { cores, wait: Wait::default(), pool }).unwrap();
        let handles = reactors.handles().to_vec();
        let target = Target::start(handles.clone()).await.unwrap();
        let model = Model::new(Environment::new(1));
        let log = LogControl::install(Level::default(), false);
        let daemon = Daemon::new(target, handles, model, log, true);
        let change = |in_turn: bool, edit: fn(&mut Draft) -> Result<(), RpcError>| {
            let daemon = daemon.clone();
            tokio::spawn(async move {
                if in_turn { daemon.change_in_turn(edit).await } else { daemon.change(edit).await }
            })
        };
        let (go_on, hangs) = mpsc::channel::<()>();
        let hanging = daemon.clone();
        let hanging =
            tokio::spawn(
                async move { hanging.change(move |_| hangs.recv().map_err(RpcError::internal)).await },
            );
        tokio::task::yield_now().await;
        let (asked, announced) = (change(false, |_| Ok(())), change(true, |_| Ok(())));
        tokio::task::yield_now().await;
        tokio::time::advance(TURN_LIMIT * 2).await;
        let error = RpcError::from(asked.await.unwrap().unwrap_err());
        assert_eq!(error.code, -16, "{error}");
        assert!(!announced.is_finished() && !hanging.is_finished());
        go_on.send(()).unwrap();
        hanging.await.unwrap().unwrap();
        announced.await.unwrap().unwrap();
        change(false, |_| Ok(())).await.unwrap().unwrap();
        drop(daemon);
        reactors.stop();
    }
}
