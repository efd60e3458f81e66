//! The keeper of a controller: the one task that changes its state.
//!
//! Owns what the control path knows of a controller, and feeds the [`Lifecycle`]. Invariant: one action is carried out
//! at a time; a new one begins only after the one before has ended or was dropped at a point where it waits. Everything
//! here lives on the owner's reactor. Handles ask through [`Keeper::ask`]; the watch and the escalation raise events.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use sledge_reactor::task::{JoinHandle, spawn_local};
use sledge_reactor::time::{Instant, sleep};

use super::admin::{Admin, AdminBuffer, Closed};
use super::controller::Shared;
use super::error::DriverError;
use super::events::ControllerEvent;
use super::io_queue::Reclaim;
use super::lifecycle::{Action, Event, Lifecycle, State};
use super::overdue::Working;
use super::passthrough;
use super::shadow::ShadowDoorbells;
use super::wait::Signal;
use crate::command::Command;
use crate::completion::Completion;
use crate::function::{Function, Presence};
use crate::status::Status;

/// What commands end with when the controller has failed, was removed for too long, or is detached.
pub(super) const FAILED: Status = Status::INTERNAL_ERROR.do_not_retry();

/// See the module.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) admin: Rc<Admin>,
    pub(super) function: RefCell<Option<Arc<dyn Function>>>,
    pub(super) shadows: RefCell<Option<Arc<ShadowDoorbells>>>,
    /// Changes whenever the controller stops being live.
    pub(super) epoch: Cell<u64>,
    /// Escalations that are using the controller or its queues just now.
    pub(super) working: Cell<u32>,
    /// Whether I/O waits for an admin command that changes namespaces.
    pub(super) paused: Cell<bool>,
    /// Abort commands under way.
    pub(super) aborting: Cell<u32>,
    /// The controller said that it pauses until then, at most: nothing is overdue before.
    pub(super) paused_until: Cell<Instant>,
    /// State, epoch, `working` or the queue of events has changed.
    pub(super) changed: Signal,
    events: RefCell<VecDeque<Event>>,
    raised: Cell<u64>,
    taken: Cell<u64>,
    /// The state is published, but its action is not yet carried out.
    busy: Cell<bool>,
    /// It was shut down since it was live last: nothing is left in its volatile write cache.
    shut_down: Cell<bool>,
    /// It lost its power since it was live last, and with it perhaps what it had not yet made durable.
    cache_lost: Cell<bool>,
    /// What to tell when it is live again.
    news: Cell<Option<ControllerEvent>>,
    error: RefCell<Option<DriverError>>,
    replacement: RefCell<Option<Arc<dyn Function>>>,
    tasks: RefCell<Vec<JoinHandle<()>>>,
}

impl Drop for Keeper {
    /// Its reactor ends without a detach: the controller is kept from the memory that goes now.
    fn drop(&mut self) {
        let Some(function) = self.function.take() else { return };
        tracing::warn!(controller = %self.shared.address(), "a controller was not detached: turning its bus mastering off");
        if function.set_bus_master(false).is_err() {
            self.leak();
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Event>>>;

/// I/O waits while it is there.
struct Pause<'a>(&'a Keeper);

impl<'a> Pause<'a> {
    fn new(keeper: &'a Keeper) -> Self {
        keeper.paused.set(true);
        Self(keeper)
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.paused.set(false);
        self.0.changed.set();
    }
}

impl Keeper {
    /// Brings a controller up on the current reactor, its owner, and stays with it.
    ///
    /// # Errors
    /// What kept it from coming up; nothing of it is left then.
    pub(super) async fn start(shared: Arc<Shared>, function: Arc<dyn Function>) -> Result<(), DriverError> {
        let keeper = Rc::new(Self {
            admin: Admin::new(shared.counters.clone()),
            shared: shared.clone(),
            function: RefCell::new(Some(function)),
            shadows: RefCell::new(None),
            epoch: Cell::new(0),
            working: Cell::new(0),
            paused: Cell::new(false),
            shut_down: Cell::new(false),
            cache_lost: Cell::new(false),
            aborting: Cell::new(0),
            paused_until: Cell::new(Instant::default()),
            changed: Signal::default(),
            events: RefCell::new(VecDeque::new()),
            raised: Cell::new(0),
            taken: Cell::new(0),
            busy: Cell::new(true),
            news: Cell::new(None),
            error: RefCell::new(None),
            replacement: RefCell::new(None),
            tasks: RefCell::new(Vec::new()),
        });
        shared.keeper.set(keeper.clone());
        *keeper.tasks.borrow_mut() = keeper.watchers();
        drop(spawn_local(keeper.clone().keep()));
        keeper.settled().await;
        if shared.state() == State::Live {
            return Ok(());
        }
        let error = keeper.error.take().unwrap_or(DriverError::Removed);
        keeper.ask(Event::DetachAsked).await;
        Err(error)
    }

    /// Raises an event for the state machine.
    pub(super) fn raise(&self, event: Event) {
        let mut events = self.events.borrow_mut();
        self.raised.set(self.raised.get() + 1);
        events.push_back(event);
        drop(events);
        self.changed.set();
    }

    /// The same, unless that event waits already. Whether it did not.
    pub(super) fn raise_once(&self, event: Event) -> bool {
        let new = !self.events.borrow().contains(&event);
        if new {
            self.raise(event);
        }
        new
    }

    /// A command has no answer: asks for a reset.
    pub(super) fn reset_overdue(&self) {
        // Others may have found the same; it is one reset.
        if self.shared.state() == State::Live && self.raise_once(Event::ResetAsked) {
            self.shared.counters.timeout_resets.add();
        }
    }

    /// Raises an event, waits until the state machine has taken it and the controller has settled.
    pub(super) async fn ask(&self, event: Event) -> State {
        self.raise(event);
        self.settled().await
    }

    /// Waits until every event raised so far was taken, and the controller stays as it is.
    pub(super) async fn settled(&self) -> State {
        let raised = self.raised.get();
        let settled = || self.taken.get() >= raised && !self.busy.get() && self.shared.state().is_settled();
        self.changed.until(settled).await;
        self.shared.state()
    }

    /// Gives the function that takes a removed one's place.
    ///
    /// # Errors
    /// As [`super::Controller::replace`].
    pub(super) async fn replace(&self, function: Arc<dyn Function>) -> Result<(), DriverError> {
        if self.shared.state() == State::Live && self.is_gone() {
            // Nobody has noticed yet.
            self.ask(Event::Gone).await;
        }
        match self.settled().await {
            State::Removed | State::Failed => {}
            State::Detached => return Err(DriverError::Detached),
            state => return Err(DriverError::NotReady(state)),
        }
        *self.replacement.borrow_mut() = Some(function);
        match self.ask(Event::Returned).await {
            State::Live => Ok(()),
            _ => Err(self.failure()),
        }
    }

    /// Why what was asked for did not end with the controller live.
    pub(super) fn failure(&self) -> DriverError {
        self.error.take().unwrap_or_else(|| self.absence())
    }

    /// Why the controller takes no commands.
    fn absence(&self) -> DriverError {
        match self.shared.state() {
            State::Removed => DriverError::Removed,
            State::Detached => DriverError::Detached,
            State::Failed => {
                let reason = self.shared.with(|published| published.last_error.clone());
                DriverError::Failed(reason.unwrap_or_else(|| "it was given up".into()))
            }
            state => DriverError::NotReady(state),
        }
    }

    /// Sends a user's admin command.
    ///
    /// # Errors
    /// As [`super::Controller::admin`].
    pub(super) async fn pass_on(
        &self,
        limit: Duration,
        command: Command,
        buffer: AdminBuffer,
    ) -> Result<(Completion, Vec<u8>), DriverError> {
        if self.shared.state() != State::Live {
            return Err(self.absence());
        }
        let identity = self.shared.identity().ok_or(DriverError::Reset)?;
        let (command, buffer) = passthrough::check(&identity.data, command, buffer)?;
        if !self.admin.has_room() {
            return Err(DriverError::QueueFull);
        }
        // The format of a namespace must not change under commands that count in blocks of the old one.
        let pauses = passthrough::changes_namespaces(&command);
        let pause = if pauses { Some(self.pause().await?) } else { None };
        let epoch = self.epoch.get();
        let answer = self.admin.execute("an admin command", limit, command, buffer).await;
        let mut scanned = Ok(());
        if pauses && answer.as_ref().is_ok_and(|(completion, _)| completion.status().is_success()) {
            scanned = self.rescan().await;
        }
        // One that is not answered may go on for long: the reset that follows ends it, and I/O waits for that.
        let ended = !matches!(answer, Err(DriverError::Timeout { .. }));
        if pauses && self.epoch.get() == epoch && scanned.is_ok() && ended {
            self.start_queues().await;
        }
        drop(pause);
        match &answer {
            Err(error @ DriverError::Timeout { limit, .. }) => {
                tracing::warn!(
                    controller = %self.shared.address(),
                    opcode = command.opcode,
                    %error,
                    "resetting the controller"
                );
                self.note(DriverError::Timeout { what: "an admin command", limit: *limit });
                self.reset_overdue();
            }
            // Nobody knows the namespaces now: bringing it up anew finds out.
            Ok(_) if scanned.is_err() => self.raise(Event::ResetAsked),
            _ => {}
        }
        answer
    }

    /// Has I/O wait, for as long as nothing starts the queues, and ends what is under way. Nobody else uses the queues
    /// until the result is dropped.
    ///
    /// # Errors
    /// When I/O does not end; it goes on then. And when the controller is not live any more.
    async fn pause(&self) -> Result<(Pause<'_>, Working<'_>), DriverError> {
        let live = || self.shared.state() == State::Live;
        self.changed.until(|| !live() || !self.paused.get() && self.working.get() == 0).await;
        if !live() {
            return Err(self.absence());
        }
        let (epoch, pause) = (self.epoch.get(), Pause::new(self));
        let working = Working::new(self);
        self.stop_queues().await;
        if !self.drain().await {
            if self.epoch.get() == epoch {
                self.start_queues().await;
            }
            let limit = self.shared.options.drain_timeout;
            return Err(DriverError::Timeout { what: "the end of the I/O before an admin command", limit });
        }
        Ok((pause, working))
    }

    /// Remembers why something went wrong.
    pub(super) fn note(&self, error: DriverError) {
        let words = error.to_string();
        tracing::warn!(controller = %self.shared.address(), error = %words, "a controller is in trouble");
        self.shared.with(|published| published.last_error = Some(words));
        *self.error.borrow_mut() = Some(error);
    }

    /// The function, unless it was let go of.
    pub(super) fn function(&self) -> Result<Arc<dyn Function>, DriverError> {
        self.function.borrow().clone().ok_or(DriverError::Removed)
    }

    /// Whether the bus, or the registers, say that the device is gone.
    pub(super) fn is_gone(&self) -> bool {
        self.function().is_ok_and(|function| {
            function.presence() == Presence::Gone || super::bring_up::read_status(&*function).is_none()
        })
    }

    async fn keep(self: Rc<Self>) {
        let (mut machine, action) = Lifecycle::new(self.shared.options.max_resets);
        let mut running = self.clone().begin(action);
        loop {
            let (event, ended) = self.next(&mut running).await;
            let before = machine.state();
            let action = machine.on(event);
            let state = machine.state();
            if action == Action::Continue {
                if ended {
                    // Its end was of no use here, which the machine's tests rule out; then only events go on.
                    running = Box::pin(pending());
                }
                self.took(event);
                continue;
            }
            self.busy.set(true);
            self.pass(before, state, event);
            // What was being done is dropped where it waits before the next thing begins.
            drop(std::mem::replace(&mut running, Box::pin(pending())));
            self.took(event);
            running = self.clone().begin(action);
            if state == State::Detached {
                running.await;
                return;
            }
        }
    }

    /// The next event, from outside or as the end of what is being done.
    async fn next(&self, running: &mut Running) -> (Event, bool) {
        loop {
            let version = self.changed.version();
            let mut changed = std::pin::pin!(self.changed.after(version));
            let next = poll_fn(|context| {
                if let Some(event) = self.events.borrow_mut().pop_front() {
                    return Poll::Ready(Some((event, false)));
                }
                if let Poll::Ready(event) = running.as_mut().poll(context) {
                    return Poll::Ready(Some((event, true)));
                }
                changed.as_mut().poll(context).map(|()| None)
            });
            if let Some(next) = next.await {
                return next;
            }
        }
    }

    /// An event was taken: those who asked may look.
    fn took(&self, _: Event) {
        let waiting = self.events.borrow().len() as u64;
        self.taken.set(self.raised.get() - waiting);
        self.changed.set();
    }

    /// From one state to another.
    fn pass(&self, before: State, state: State, event: Event) {
        let address = self.shared.address();
        tracing::info!(controller = %address, from = %before, to = %state, event = ?event, "controller");
        let counters = &self.shared.counters;
        if before == State::Live {
            self.epoch.set(self.epoch.get() + 1);
        }
        match (before, event) {
            (State::Live, Event::Fatal) => {
                counters.fatal_resets.add();
                self.note(DriverError::Fatal);
            }
            (State::Enabling | State::Identifying | State::CreatingQueues, Event::StepFailed) => {
                counters.bring_up_failures.add();
            }
            (State::Enabling | State::Identifying | State::CreatingQueues, Event::Fatal) => {
                counters.bring_up_failures.add();
                self.note(DriverError::Fatal);
            }
            (_, Event::ShutDown) => self.shut_down.set(true),
            (_, Event::Returned) => {
                self.cache_lost.set(!self.shut_down.get());
                *self.function.borrow_mut() = self.replacement.take();
                // Of the function before, which does no DMA any more.
                self.shadows.take();
                self.error.take();
                if let Ok(function) = self.function() {
                    self.shared.with(|published| {
                        published.address = function.address().to_owned();
                        published.environment = function.environment();
                    });
                }
                self.news.set(Some(ControllerEvent::Returned));
            }
            _ => {}
        }
        match state {
            State::Resetting => {
                counters.resets.add();
                self.news.set(Some(ControllerEvent::Reset));
            }
            State::Disabling if before == State::Failed && event == Event::ResetAsked => {
                counters.resets.add();
                self.error.take();
                self.news.set(Some(ControllerEvent::Reset));
            }
            _ => {}
        }
        if !state.is_settled() {
            self.shared.publish(state);
        }
    }

    /// A settled state is reached: its action is carried out as far as others see.
    fn settle(&self, state: State) {
        self.shared.publish(state);
        self.busy.set(false);
        self.changed.set();
    }

    fn begin(self: Rc<Self>, action: Action) -> Running {
        Box::pin(async move {
            match action {
                Action::Continue => pending().await,
                Action::StopQueues => {
                    self.quiesce(Closed::Reset).await;
                    Event::QueuesStopped
                }
                Action::Disable => self.end(self.disable().await, Event::NotReady),
                Action::Isolate => self.isolate().await,
                Action::Delay => {
                    sleep(self.shared.options.reset_delay).await;
                    Event::Again
                }
                Action::Enable => self.end(self.enable().await, Event::Ready),
                Action::Identify => self.end(self.identify().await, Event::Identified),
                Action::CreateQueues => self.end(self.create_queues().await, Event::QueuesCreated),
                Action::Serve => self.serve().await,
                Action::ShutDown => self.end(self.shut_down().await, Event::ShutDown),
                Action::Fail => self.fail(false).await,
                Action::LeakAndFail => self.fail(true).await,
                Action::AwaitReturn => self.await_return().await,
                Action::StopWaiting => self.stop_waiting().await,
                Action::Retire => self.retire(false).await,
                Action::LeakAndRetire => self.retire(true).await,
            }
        })
    }

    /// The event that ends an action.
    fn end(&self, result: Result<(), DriverError>, good: Event) -> Event {
        match result {
            Ok(()) => good,
            Err(DriverError::Removed) => Event::Gone,
            Err(error) => {
                self.note(error);
                Event::StepFailed
            }
        }
    }

    /// Nobody but the keeper uses the controller from now on: no admin command, no escalation, no I/O.
    pub(super) async fn quiesce(&self, closed: Closed) {
        self.admin.close(closed);
        self.changed.until(|| self.working.get() == 0).await;
        self.stop_queues().await;
    }

    async fn serve(&self) -> Event {
        self.shut_down.set(false);
        if self.cache_lost.take() {
            self.on_all(|local| local.queue.cache_was_lost()).await;
        }
        self.start_queues().await;
        self.shared.counters.brought_up.add();
        self.error.take();
        self.settle(State::Live);
        self.arm_events();
        match self.news.take() {
            Some(ControllerEvent::Returned) => {
                self.shared.counters.returns.add();
                self.shared.listeners.tell(ControllerEvent::Returned);
            }
            Some(news) => self.shared.listeners.tell(news),
            None => {}
        }
        pending().await
    }

    /// The controller does no DMA, or, when `leak`, may do some for ever.
    async fn fail(&self, leak: bool) -> Event {
        self.admin.close(Closed::Reset);
        self.give_up_queues(leak).await;
        if leak {
            self.leak();
        } else {
            self.admin.drain();
        }
        self.shared.counters.failures.add();
        let reason = self.shared.with(|published| published.last_error.clone());
        tracing::error!(
            controller = %self.shared.address(),
            reason = reason.as_deref().unwrap_or("it was asked for"),
            "a controller has failed: its commands fail until it is reset or replaced"
        );
        self.news.set(None);
        self.settle(State::Failed);
        self.shared.listeners.tell(ControllerEvent::Failed);
        pending().await
    }

    /// The device is gone, or was shut down because the system wants it.
    async fn await_return(&self) -> Event {
        self.quiesce(Closed::Removed).await;
        self.ensure_silence().await;
        self.release_queues(Reclaim::Retry).await;
        self.let_go();
        self.shared.counters.removals.add();
        tracing::warn!(
            controller = %self.shared.address(),
            seconds = self.shared.options.removal_timeout.as_secs_f64(),
            "a controller was removed: its commands wait for its return"
        );
        self.settle(State::Removed);
        self.shared.listeners.tell(ControllerEvent::Removed);
        sleep(self.shared.options.removal_timeout).await;
        Event::WaitedEnough
    }

    async fn stop_waiting(&self) -> Event {
        self.quiesce(Closed::Removed).await;
        self.ensure_silence().await;
        self.give_up_queues(false).await;
        self.release_queues(Reclaim::Fail(FAILED)).await;
        self.let_go();
        self.note(DriverError::Removed);
        self.settle(State::Removed);
        self.shared.listeners.tell(ControllerEvent::Failed);
        pending().await
    }

    async fn retire(&self, leak: bool) -> Event {
        self.quiesce(Closed::Detached).await;
        self.give_up_queues(leak).await;
        if leak {
            self.leak();
        } else {
            self.release_queues(Reclaim::Fail(FAILED)).await;
        }
        self.forget_queues().await;
        self.let_go();
        for task in self.tasks.take() {
            task.abort();
        }
        self.shared.listeners.clear();
        // The reactor lets go of the keeper; who waits for it still holds it.
        drop(self.shared.keeper.take());
        self.settle(State::Detached);
        Event::DetachAsked
    }

    /// Gives all memory of the control path back, and lets go of the function. The queues have let go of theirs.
    fn let_go(&self) {
        if let Ok(function) = self.function() {
            // It does no DMA already, or is gone; whoever opens it next is not surprised by what it was told before.
            let _ = function.set_bus_master(false);
        }
        self.admin.release();
        self.shadows.take();
        self.function.take();
    }

    /// Lets go of all memory of the control path without giving it back, on purpose.
    fn leak(&self) {
        self.shared.counters.leaks.add();
        tracing::error!(
            controller = %self.shared.address(),
            "a controller could neither be stopped nor cut off: memory that it may still write to is never given back"
        );
        self.admin.leak();
        std::mem::forget(self.shadows.take());
    }
}
