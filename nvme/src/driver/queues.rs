//! The I/O queues of a controller, one on each reactor, as the control path handles them.
//!
//! Owns [`LocalQueue`], what a reactor keeps of a controller. Invariant: a queue is touched on its own reactor only; what
//! the keeper wants done goes there as a message, and messages of the keeper arrive in the order in which it sent them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sledge_reactor::message::Remote;
use sledge_reactor::time::{now, sleep};

use super::admin::AdminBuffer;
use super::error::DriverError;
use super::io_queue::{IoQueue, IoQueueOptions, IoQueueStatistics, QueueAddresses, Reclaim};
use super::keeper::{FAILED, Keeper};
use super::queue_pair::DOORBELLS;
use super::shadow::ShadowDoorbells;
use crate::command::Command;
use crate::feature::{Feature, NumberOfQueues};
use crate::function::Function;
use crate::identify::capability::{oacs, sgls};

/// Most entries of an I/O queue: command identifiers keep some bits for their generation.
const MAX_DEPTH: u32 = 4096;
/// Most commands that a reactor keeps besides those that the device has.
const BACKLOG: usize = 4096;
/// Longest pause before a command is tried again, whatever the controller asks for: some ask for hours.
const MOST_RETRY_DELAY: Duration = Duration::from_secs(10);
/// Longest time between two looks at queues that are to become empty.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// What one reactor has of a controller.
pub(super) struct LocalQueue {
    pub(super) queue: Rc<IoQueue>,
    /// How, and of whom, its rings and registrations were made; none while it has none.
    built: RefCell<Option<(IoQueueOptions, Arc<dyn Function>)>>,
    /// Whether it submits through another reactor's queue pair.
    borrows: Cell<bool>,
}

/// Counts of one reactor's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueReport {
    /// The reactor's number.
    pub reactor: u32,
    /// The queue's identifier; `None` while the device is removed.
    pub id: Option<u16>,
    /// Commands that the device has.
    pub outstanding: usize,
    /// Counts.
    pub counts: IoQueueStatistics,
}

impl Keeper {
    /// Does something on the reactor of number `index` in the controller's list, if that has a queue. Sent at once.
    pub(super) fn on_queue<T: Send + 'static>(
        &self,
        index: usize,
        act: impl FnOnce(&LocalQueue) -> T + Send + 'static,
    ) -> Remote<Option<T>> {
        let key = self.shared.queues;
        self.shared.reactors[index].spawn(move || async move { key.get().map(|local| act(&local)) })
    }

    /// Does something on every reactor that has a queue, and waits for all. Of reactors that have ended there is no
    /// answer.
    pub(super) async fn on_all<T: Send + 'static>(
        &self,
        act: impl Fn(&LocalQueue) -> T + Clone + Send + 'static,
    ) -> Vec<Option<T>> {
        let sent: Vec<_> =
            (0..self.shared.reactors.len()).map(|index| self.on_queue(index, act.clone())).collect();
        let mut answers = Vec::with_capacity(sent.len());
        for remote in sent {
            answers.push(remote.await.ok().flatten());
        }
        answers
    }

    /// No reactor submits any more.
    pub(super) async fn stop_queues(&self) {
        self.on_all(|local| local.queue.stop()).await;
    }

    /// All reactors submit, what they kept first.
    pub(super) async fn start_queues(&self) {
        self.on_all(|local| {
            if local.built.borrow().is_some() {
                local.queue.start();
            } else {
                // The device that came back gives fewer queues than the one that went.
                local.queue.fail(FAILED);
            }
        })
        .await;
    }

    /// As [`Self::on_all`], on reactors that submit through others after those others.
    async fn on_all_in_order(&self, act: impl Fn(&LocalQueue) + Clone + Send + 'static) {
        for borrows in [false, true] {
            let act = act.clone();
            self.on_all(move |local| {
                if local.borrows.get() == borrows {
                    act(local);
                }
            })
            .await;
        }
    }

    /// Takes back what the controller had. Only while it does no DMA.
    pub(super) async fn reclaim_queues(&self, reclaim: Reclaim) {
        self.on_all_in_order(move |local| local.queue.reclaim(reclaim)).await;
    }

    /// The same, and lets go of the function and of all memory that it was given.
    pub(super) async fn release_queues(&self, reclaim: Reclaim) {
        self.on_all_in_order(move |local| {
            local.queue.reclaim(reclaim);
            local.queue.release();
            *local.built.borrow_mut() = None;
        })
        .await;
    }

    /// Answers all commands, and all that come.
    pub(super) async fn give_up_queues(&self, leak: bool) {
        self.stop_queues().await;
        self.on_all_in_order(move |local| {
            if leak {
                local.queue.leak(FAILED);
                *local.built.borrow_mut() = None;
            } else {
                local.queue.reclaim(Reclaim::Fail(FAILED));
            }
            local.queue.fail(FAILED);
        })
        .await;
    }

    /// The reactors let go of the queues; channels that are still open keep theirs, which answer with failure.
    pub(super) async fn forget_queues(&self) {
        let key = self.shared.queues;
        let sent: Vec<_> = self
            .shared
            .reactors
            .iter()
            .map(|reactor| reactor.spawn(move || async move { drop(key.take()) }))
            .collect();
        for remote in sent {
            // A reactor that has ended has let go of everything.
            let _ = remote.await;
        }
    }

    /// Makes the queues as the controller allows, and has it create them.
    ///
    /// # Errors
    /// What failed; a queue that the controller refuses is an error, too.
    pub(super) async fn create_queues(&self) -> Result<(), DriverError> {
        let options = &self.shared.options;
        let function = self.function()?;
        let identity = self.shared.identity().ok_or(DriverError::Reset)?;
        let capabilities = identity.capabilities;
        let stride_bytes = 4usize << capabilities.doorbell_stride();
        let reachable = reachable_pairs(&*function, stride_bytes).saturating_sub(1);
        if reachable == 0 {
            let problem = "has no doorbells of I/O queues among its registers";
            return Err(DriverError::Unsupported(problem.into()));
        }
        let wanted = usize::from(options.io_queues).min(self.shared.reactors.len()).min(reachable);
        let wanted = wanted.min(0xfffe) as u16;
        let granted = self.negotiate(wanted).await?.min(wanted);
        self.offer_shadows(stride_bytes, identity.data.oacs.get() & oacs::DOORBELL_BUFFER != 0).await?;
        let depth = options.io_queue_depth.min(capabilities.max_queue_entries()).clamp(2, MAX_DEPTH);
        if usize::from(granted) < self.shared.reactors.len() {
            tracing::info!(
                controller = %self.shared.address(),
                reactors = self.shared.reactors.len(),
                queues = granted,
                "fewer I/O queues than reactors: some reactors submit through others"
            );
        }
        let [first, second, third] = identity
            .data
            .crdt
            .map(|time| (Duration::from_millis(100) * time.get().into()).min(MOST_RETRY_DELAY));
        let sgl =
            options.use_sgls && identity.data.sgls.get() & (sgls::SUPPORTED | sgls::SUPPORTED_DWORD) != 0;
        let queue_options = IoQueueOptions {
            id: 0,
            depth: depth as u16,
            stride_bytes,
            sgl,
            retry_count: options.retry_count,
            retry_delays: [first, second, third],
            backlog: BACKLOG,
        };
        let mut sent = Vec::new();
        for (index, reactor) in self.shared.reactors.iter().enumerate().take(granted.into()) {
            let queue = IoQueueOptions { id: index as u16 + 1, ..queue_options.clone() };
            let (key, function) = (self.shared.queues, function.clone());
            let shadows = self.shadows.borrow().clone();
            sent.push(reactor.spawn(move || async move {
                let local = match key.get() {
                    Some(local) => {
                        local.prepare(function, &queue)?;
                        local
                    }
                    None => {
                        let made = IoQueue::new(function.clone(), &queue)?;
                        let built = RefCell::new(Some((queue, function)));
                        let local = Rc::new(LocalQueue { queue: made, built, borrows: Cell::new(false) });
                        key.set(local.clone());
                        local
                    }
                };
                local.queue.set_shadows(shadows.as_ref());
                Ok::<_, DriverError>(local.queue.addresses())
            }));
        }
        let mut all = Vec::new();
        for remote in sent {
            all.extend(remote.await??);
        }
        for addresses in all {
            self.create_queue(addresses).await?;
        }
        for index in usize::from(granted)..self.shared.reactors.len() {
            // The identifier of a queue that borrows is its lender's.
            let lender = index % usize::from(granted);
            let queue = IoQueueOptions { id: lender as u16 + 1, ..queue_options.clone() };
            self.borrow_queue(index, lender, queue, &function).await?;
        }
        self.shared.amend_identity(|identity| {
            identity.io_queues = granted;
            identity.io_queue_depth = depth;
            identity.shadow_doorbells = self.shadows.borrow().is_some();
        });
        Ok(())
    }

    /// Makes the queue of a reactor for which the controller has none: it submits through the one of `lender`.
    async fn borrow_queue(
        &self,
        index: usize,
        lender: usize,
        options: IoQueueOptions,
        function: &Arc<dyn Function>,
    ) -> Result<(), DriverError> {
        let (of, queue) = (function.clone(), options.clone());
        let keeps =
            self.on_queue(index, move |local| local.borrows.get() && local.is_built(&queue, &of)).await;
        if keeps.ok().flatten() == Some(true) {
            return Ok(());
        }
        let lent = self.on_queue(lender, |local| local.queue.lend()).await;
        let lane = lent.ok().flatten().flatten().ok_or(DriverError::QueueFull)?;
        let (key, function) = (self.shared.queues, function.clone());
        let made = self.shared.reactors[index].spawn(move || async move {
            match key.get() {
                Some(local) => {
                    local.clear();
                    local.queue.rebuild_borrowing(function.clone(), &options, lane)?;
                    *local.built.borrow_mut() = Some((options, function));
                    local.borrows.set(true);
                }
                None => {
                    let queue = IoQueue::borrowing(function.clone(), &options, lane)?;
                    let built = RefCell::new(Some((options, function)));
                    key.set(Rc::new(LocalQueue { queue, built, borrows: Cell::new(true) }));
                }
            }
            Ok::<_, DriverError>(())
        });
        made.await?
    }

    /// Number of Queues (Base 5.27.1.5): how many pairs the controller gives.
    async fn negotiate(&self, wanted: u16) -> Result<u16, DriverError> {
        let value = NumberOfQueues::pairs(wanted).bits();
        let command = Command::set_features(Feature::NumberOfQueues.value(), 0, value).with_prps(0, 0);
        let limit = self.shared.options.admin_timeout;
        let (completion, _) = self.admin.run("Number of Queues", limit, command, AdminBuffer::None).await?;
        let given = NumberOfQueues::from_bits(completion.result.get());
        Ok(given.submission_minus_one().min(given.completion_minus_one()).saturating_add(1))
    }

    /// Shadow doorbells, where the controller has them; it goes on without them when that fails.
    async fn offer_shadows(&self, stride_bytes: usize, supported: bool) -> Result<(), DriverError> {
        if !supported || !self.shared.options.use_shadow_doorbells {
            self.shadows.take();
            return Ok(());
        }
        let kept = self.shadows.take();
        let shadows = match kept {
            Some(shadows) => {
                shadows.clear();
                shadows
            }
            None => ShadowDoorbells::new(&*self.function()?, stride_bytes)?,
        };
        // From here on the controller may write to them.
        *self.shadows.borrow_mut() = Some(shadows.clone());
        let command = Command::doorbell_buffer_config(shadows.doorbells_address(), shadows.events_address());
        let limit = self.shared.options.admin_timeout;
        match self.admin.run("Doorbell Buffer Config", limit, command, AdminBuffer::None).await {
            Ok(_) => Ok(()),
            Err(error @ DriverError::Command { .. }) => {
                tracing::warn!(controller = %self.shared.address(), %error, "no shadow doorbells");
                self.shadows.take();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Has the controller create a completion queue and its submission queue.
    pub(super) async fn create_queue(&self, addresses: QueueAddresses) -> Result<(), DriverError> {
        let limit = self.shared.options.admin_timeout;
        let QueueAddresses { id, depth, submission, completion } = addresses;
        let command = Command::create_io_completion_queue(id, depth.into(), completion);
        self.admin.run("Create I/O Completion Queue", limit, command, AdminBuffer::None).await?;
        let command = Command::create_io_submission_queue(id, depth.into(), submission, id);
        self.admin.run("Create I/O Submission Queue", limit, command, AdminBuffer::None).await?;
        Ok(())
    }

    /// Has the controller delete a submission queue and its completion queue: afterwards it uses neither.
    pub(super) async fn delete_queue(&self, id: u16) -> Result<(), DriverError> {
        let limit = self.shared.options.abort_timeout;
        let command = Command::delete_io_submission_queue(id);
        self.admin.run("Delete I/O Submission Queue", limit, command, AdminBuffer::None).await?;
        let command = Command::delete_io_completion_queue(id);
        self.admin.run("Delete I/O Completion Queue", limit, command, AdminBuffer::None).await?;
        Ok(())
    }

    /// Waits until the controller has no I/O command any more, for `drain_timeout` at most. The queues were stopped.
    /// Whether it has none.
    pub(super) async fn drain(&self) -> bool {
        let until = now() + self.shared.options.drain_timeout;
        let mut pause = Duration::from_micros(100);
        loop {
            let left = |local: &LocalQueue| {
                local.queue.take_completions();
                local.queue.outstanding()
            };
            let outstanding: usize = self.on_all(left).await.into_iter().flatten().sum();
            if outstanding == 0 {
                return true;
            }
            if now() >= until {
                let address = self.shared.address();
                tracing::warn!(controller = %address, outstanding, "commands did not end in time");
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(DRAIN_LOOK);
        }
    }

    /// Has the controller delete all queues.
    pub(super) async fn delete_queues(&self) -> Result<(), DriverError> {
        let all = self.on_all(|local| local.queue.addresses()).await;
        for addresses in all.into_iter().flatten().flatten() {
            self.delete_queue(addresses.id).await?;
        }
        Ok(())
    }
}

impl LocalQueue {
    /// Counts.
    pub(super) fn report(&self) -> QueueReport {
        QueueReport {
            reactor: sledge_reactor::message::current().id(),
            id: self.queue.addresses().map(|addresses| addresses.id),
            outstanding: self.queue.outstanding(),
            counts: self.queue.statistics(),
        }
    }

    /// Whether rings and registrations are as they are to be.
    fn is_built(&self, options: &IoQueueOptions, function: &Arc<dyn Function>) -> bool {
        let built = self.built.borrow();
        built.as_ref().is_some_and(|(built, of)| built == options && Arc::ptr_eq(of, function))
    }

    /// Lets go of rings and registrations.
    fn clear(&self) {
        self.queue.stop();
        self.queue.release();
        self.built.borrow_mut().take();
    }

    /// Makes an old queue fit to be created again.
    fn prepare(&self, function: Arc<dyn Function>, options: &IoQueueOptions) -> Result<(), DriverError> {
        if self.is_built(options, &function) {
            self.queue.reset_rings();
            return Ok(());
        }
        self.clear();
        self.borrows.set(false);
        self.queue.rebuild(function.clone(), options)?;
        *self.built.borrow_mut() = Some((options.clone(), function));
        Ok(())
    }
}

/// Pairs of queues, the admin queue's among them, whose doorbells lie inside of the registers.
pub(super) fn reachable_pairs(function: &dyn Function, stride_bytes: usize) -> usize {
    // The last doorbell need not be followed by as many bytes as lie between two.
    let doorbells =
        function.register_bytes().checked_sub(DOORBELLS + 4).map_or(0, |bytes| bytes / stride_bytes + 1);
    doorbells / 2
}
