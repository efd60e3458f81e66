//! Looking for I/O commands that are overdue, and carrying out what escalation decides about them.
//!
//! Owns one task for each reactor's queue, on the owner's reactor. Invariant: it uses the controller only while that is
//! live: whatever it waits for, it stops when the controller's epoch has changed, and the keeper waits for that before it
//! goes on. The keeper starts the tasks.

use std::rc::{Rc, Weak};
use std::time::Duration;

use sledge_reactor::time::{Instant, now, sleep};

use super::admin::AdminBuffer;
use super::error::DriverError;
use super::escalation::{Action, Escalation, Event};
use super::io_queue::Reclaim;
use super::keeper::Keeper;
use super::lifecycle::{Event as Lifecycle, State};
use crate::command::Command;

/// Shortest and longest time between two looks at a queue.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Looks in the time that a command may take.
const LOOKS_A_TIMEOUT: u32 = 8;
/// How long an aborted command gets to show up as completed before the next look.
const ABORTED: Duration = Duration::from_millis(1);
/// Most commands that their submitters gave up on to be aborted in one look.
const MAX_GIVEN_UP: usize = 8;

/// What a look at a queue finds.
struct Look {
    id: u16,
    oldest: Option<(u16, Instant)>,
    completed: u64,
    /// Commands that their submitters gave up on.
    given_up: Vec<u16>,
}

/// Why a look ended early: the controller is not live any more, or the reactor has ended.
struct Over;

/// Counts as working while it is there.
pub(super) struct Working<'a>(&'a Keeper);

impl<'a> Working<'a> {
    pub(super) fn new(keeper: &'a Keeper) -> Self {
        keeper.working.set(keeper.working.get() + 1);
        Self(keeper)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.working.set(self.0.working.get() - 1);
        self.0.changed.set();
    }
}

pub(super) async fn watch_queue(keeper: Weak<Keeper>, index: usize) {
    let Some(options) = keeper.upgrade().map(|keeper| keeper.shared.options.clone()) else { return };
    let period = (options.io_timeout / LOOKS_A_TIMEOUT).clamp(LOOKS.0, LOOKS.1);
    let mut escalation = Escalation::new(options.max_resets);
    let (mut epoch, mut completed) = (None, 0);
    loop {
        sleep(period).await;
        let Some(keeper) = keeper.upgrade() else { return };
        // While I/O waits for an admin command, nothing of it is with the controller.
        if keeper.shared.state() != State::Live || keeper.paused.get() {
            continue;
        }
        if epoch != Some(keeper.epoch.get()) {
            epoch = Some(keeper.epoch.get());
            escalation.on(Event::Live);
        }
        let working = Working::new(&keeper);
        let watch = Watch { keeper: &keeper, index, epoch: keeper.epoch.get() };
        let _: Result<(), Over> = watch.look(&mut escalation, &mut completed).await;
        drop(working);
    }
}

struct Watch<'a> {
    keeper: &'a Rc<Keeper>,
    index: usize,
    epoch: u64,
}

impl Watch<'_> {
    /// Whether the controller is as it was when this look began.
    fn still(&self) -> Result<(), Over> {
        if self.keeper.epoch.get() == self.epoch { Ok(()) } else { Err(Over) }
    }

    async fn on_queue<T: Send + 'static>(
        &self,
        act: impl FnOnce(&super::queues::LocalQueue) -> T + Send + 'static,
    ) -> Result<T, Over> {
        self.still()?;
        let answer = self.keeper.on_queue(self.index, act).await;
        self.still()?;
        answer.ok().flatten().ok_or(Over)
    }

    async fn look(&self, escalation: &mut Escalation, completed: &mut u64) -> Result<(), Over> {
        let options = &self.keeper.shared.options;
        loop {
            let look = self
                .on_queue(|local| {
                    let queue = &local.queue;
                    // A command that is answered already is not overdue, whenever its submitter looks.
                    queue.take_completions();
                    let id = queue.addresses()?.id;
                    let given_up = std::iter::from_fn(|| queue.abort_candidate(Instant::from_nanos(0)))
                        .take(MAX_GIVEN_UP)
                        .collect();
                    let completed = queue.statistics().queue.completed;
                    Some(Look { id, oldest: queue.oldest(), completed, given_up })
                })
                .await?
                .ok_or(Over)?;
            for cid in &look.given_up {
                self.abort(look.id, *cid).await?;
            }
            let now = now();
            let overdue = look.oldest.filter(|(_, since)| {
                now - *since >= options.io_timeout && now >= self.keeper.paused_until.get()
            });
            let event = match overdue {
                Some((cid, _)) => Event::Overdue(cid),
                None => Event::InTime { progress: look.completed != *completed },
            };
            *completed = look.completed;
            let mut action = escalation.on(event);
            let mut again = false;
            loop {
                let event = match action {
                    Action::Nothing if again => break,
                    Action::Nothing => return Ok(()),
                    Action::Abort(cid) => {
                        let words = "a command is overdue: aborting it";
                        tracing::warn!(controller = %self.name(), queue = look.id, cid, "{words}");
                        self.keeper.shared.counters.overdue.add();
                        match self.abort(look.id, cid).await? {
                            Some(aborted) => {
                                again = aborted;
                                Event::AbortAnswered
                            }
                            None => Event::AbortTimedOut,
                        }
                    }
                    Action::DeleteQueue => {
                        let words = "aborting did not help: deleting the queue";
                        tracing::warn!(controller = %self.name(), queue = look.id, "{words}");
                        match self.delete(look.id).await? {
                            Ok(()) => Event::Deleted,
                            Err(error) => {
                                let words = "a queue could not be deleted and made again";
                                tracing::warn!(controller = %self.name(), queue = look.id, %error, "{words}");
                                Event::DeleteFailed
                            }
                        }
                    }
                    Action::ResetController => {
                        self.keeper.note(self.overdue());
                        tracing::warn!(controller = %self.name(), queue = look.id, "resetting the controller");
                        self.keeper.reset_overdue();
                        return Ok(());
                    }
                    Action::FailController => {
                        self.keeper.note(self.overdue());
                        tracing::error!(
                            controller = %self.name(),
                            resets = options.max_resets,
                            "resets did not help: failing the controller"
                        );
                        self.keeper.raise(Lifecycle::FailAsked);
                        return Ok(());
                    }
                };
                action = escalation.on(event);
            }
            // The command is about to complete; perhaps there are more like it.
            sleep(ABORTED).await;
            self.still()?;
        }
    }

    fn name(&self) -> String {
        self.keeper.shared.address()
    }

    fn overdue(&self) -> DriverError {
        DriverError::Timeout { what: "an I/O command", limit: self.keeper.shared.options.io_timeout }
    }

    /// Sends Abort. Whether the controller says that it aborted the command; `None` when it says nothing.
    async fn abort(&self, queue: u16, cid: u16) -> Result<Option<bool>, Over> {
        let limit = self.keeper.shared.options.abort_timeout;
        let most = self.keeper.shared.identity().map_or(0, |identity| u32::from(identity.data.acl)) + 1;
        // The Abort Command Limit is small; whoever waits holds one up for no longer than its time.
        let free = || self.keeper.aborting.get() < most || self.still().is_err();
        self.keeper.changed.until(free).await;
        self.still()?;
        self.keeper.shared.counters.aborts.add();
        self.keeper.aborting.set(self.keeper.aborting.get() + 1);
        let command = Command::abort(queue, cid).with_prps(0, 0);
        let answer = self.keeper.admin.execute("Abort", limit, command, AdminBuffer::None).await;
        self.keeper.aborting.set(self.keeper.aborting.get() - 1);
        self.keeper.changed.set();
        self.still()?;
        match answer {
            // Bit 0 of the result: the command was not aborted (Base 5.1).
            Ok((completion, _)) => {
                let aborted = completion.status().is_success() && completion.result.get() & 1 == 0;
                if aborted {
                    self.keeper.shared.counters.aborted.add();
                }
                Ok(Some(aborted))
            }
            Err(_) => Ok(None),
        }
    }

    /// Deletes the queue, takes its commands back, and makes it again.
    async fn delete(&self, id: u16) -> Result<Result<(), DriverError>, Over> {
        self.keeper.shared.counters.queue_deletions.add();
        self.on_queue(|local| local.queue.stop()).await?;
        let deleted = self.keeper.delete_queue(id).await;
        self.still()?;
        if let Err(error) = deleted {
            return Ok(Err(error));
        }
        let addresses = self
            .on_queue(|local| {
                local.queue.reclaim(Reclaim::Retry);
                local.queue.reset_rings();
                local.queue.addresses()
            })
            .await?
            .ok_or(Over)?;
        let created = self.keeper.create_queue(addresses).await;
        self.still()?;
        if let Err(error) = created {
            return Ok(Err(error));
        }
        self.on_queue(|local| local.queue.start()).await?;
        Ok(Ok(()))
    }
}
