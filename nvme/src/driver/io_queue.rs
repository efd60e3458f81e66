//! One reactor's way to a controller: what the control path does with it, and what the channels do.
//!
//! Owns the engine. Invariants: every I/O that a channel was told is pending is answered once, whatever becomes of the
//! device; memory that a command on the device points to is given to nobody, not even when queue, channel or reactor
//! end, until the device has answered the command or can't reach memory. Stays on its reactor: the control path keeps
//! it there and sends for it.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use sledge_reactor::poller::{Poller, PollerHandle, Turn, register_poller};
use sledge_reactor::time::Instant;

use super::channel::NamespaceChannel;
use super::engine::{Device, Engine};
use super::ledger::Ledger;
use super::lender::Lane;
use super::queue_pair::QueueStatistics;
use super::shadow::ShadowDoorbells;
use super::shape::NamespaceShape;
use crate::Status;
use crate::function::{DmaError, Function};

/// How an I/O queue is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoQueueOptions {
    /// The queues' identifier, from 1.
    pub id: u16,
    /// Entries, a plain count, at most MQES + 1.
    pub depth: u16,
    /// Bytes between doorbells (4 << CAP.DSTRD).
    pub stride_bytes: usize,
    /// Whether the controller takes SGLs for I/O data (SGLS bits 1:0 not 0).
    pub sgl: bool,
    /// How often a command is tried again after a transient failure.
    pub retry_count: u32,
    /// CRDT1 to CRDT3 of Identify Controller.
    pub retry_delays: [Duration; 3],
    /// Most commands that are accepted and not yet answered, beyond which they are refused to be retried.
    pub backlog: usize,
}

impl Default for IoQueueOptions {
    fn default() -> Self {
        Self {
            id: 1,
            depth: 256,
            stride_bytes: 4,
            sgl: false,
            retry_count: 4,
            retry_delays: [Duration::ZERO; 3],
            backlog: 4096,
        }
    }
}

/// Whether commands go to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// They do.
    Running,
    /// They wait: the queue is not there yet, or is being reset.
    Stopped,
    /// They are answered with a status at once.
    Failed(Status),
}

/// What becomes of the commands that the device can't work on any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reclaim {
    /// They are submitted again when the queue starts, as far as their retries allow.
    Retry,
    /// They are answered.
    Fail(Status),
}

/// What Create I/O Submission Queue and Create I/O Completion Queue are to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueAddresses {
    /// Identifier of both.
    pub id: u16,
    /// Entries of each, a plain count.
    pub depth: u16,
    /// The device's address of the submission queue.
    pub submission: u64,
    /// The device's address of the completion queue.
    pub completion: u64,
}

/// Counts of one I/O queue since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoQueueStatistics {
    /// Of the queue pair.
    pub queue: QueueStatistics,
    /// Commands that were tried again.
    pub retried: u64,
    /// I/Os that are accepted and not answered, of all channels.
    pub accepted: usize,
    /// Of these, those whose channel was dropped.
    pub orphans: usize,
    /// Reactors that submit through this queue.
    pub lanes: usize,
}

/// One reactor's I/O queue of one controller.
pub struct IoQueue {
    engine: RefCell<Engine>,
    poller: RefCell<Option<PollerHandle>>,
}

impl IoQueue {
    /// A queue of the current reactor, stopped: makes its memory, and lets the device reach the reactor's pool.
    /// Blocks.
    ///
    /// # Errors
    /// When memory can't be had or mapped.
    ///
    /// # Panics
    /// Outside a reactor.
    pub fn new(function: Arc<dyn Function>, options: &IoQueueOptions) -> Result<Rc<Self>, DmaError> {
        Self::with(function, options, None)
    }

    /// A queue of the current reactor that submits through another reactor's queue pair, by a lane of
    /// [`Self::lend`] there. It has slots, lists and registrations of its own; identifier and depth of `options` say
    /// nothing. Blocks.
    ///
    /// # Errors
    /// When memory can't be had or mapped.
    ///
    /// # Panics
    /// Outside a reactor.
    pub fn borrowing(
        function: Arc<dyn Function>,
        options: &IoQueueOptions,
        lane: Lane,
    ) -> Result<Rc<Self>, DmaError> {
        Self::with(function, options, Some(lane))
    }

    fn with(
        function: Arc<dyn Function>,
        options: &IoQueueOptions,
        lane: Option<Lane>,
    ) -> Result<Rc<Self>, DmaError> {
        let ledger = Ledger::new(options.backlog, options.retry_count, options.retry_delays);
        let engine = Engine::new(Device::new(function, options, lane)?, ledger);
        let queue = Rc::new(Self { engine: RefCell::new(engine), poller: RefCell::new(None) });
        let poller = register_poller(QueuePoller { queue: Rc::downgrade(&queue) });
        queue.poller.replace(Some(poller));
        Ok(queue)
    }

    /// What the device is to be told when the queue is created there; `None` while it has no function, and for a queue
    /// that borrows another reactor's.
    #[must_use]
    pub fn addresses(&self) -> Option<QueueAddresses> {
        let engine = self.engine.borrow();
        let pair = engine.device.as_ref()?.port.own()?;
        Some(QueueAddresses {
            id: pair.id(),
            depth: pair.depth(),
            submission: pair.submission_address(),
            completion: pair.completion_address(),
        })
    }

    /// A lane by which another reactor may submit through this queue's pair; `None` when it has none itself.
    #[must_use]
    pub fn lend(&self) -> Option<Lane> {
        self.engine.borrow_mut().lend()
    }

    /// A channel of a namespace; `None` when there are too many.
    #[must_use]
    pub fn open_channel(self: &Rc<Self>, shape: Arc<NamespaceShape>) -> Option<NamespaceChannel> {
        let number = self.engine.borrow_mut().ledger.open(shape)?;
        Some(NamespaceChannel::new(self.clone(), number))
    }

    /// A namespace has changed: its channels go on with the shape `now` if it is still the `same` with the same format.
    /// Otherwise those that were opened before answer everything with failure.
    pub fn reshape(&self, nsid: u32, now: Option<&Arc<NamespaceShape>>, same: bool) {
        let status = Status::INVALID_NAMESPACE_OR_FORMAT.do_not_retry();
        self.engine.borrow_mut().ledger.reshape(nsid, now, same, status);
    }

    /// From now on rings by shadow doorbells, or not. While stopped.
    pub fn set_shadows(&self, shadows: Option<&Arc<ShadowDoorbells>>) {
        let mut engine = self.engine.borrow_mut();
        if let Some(pair) = engine.device.as_mut().and_then(|device| device.port.own_mut()) {
            pair.set_shadows(shadows);
        }
    }

    /// Whether commands go to the device.
    #[must_use]
    pub fn state(&self) -> QueueState {
        self.engine.borrow().state
    }

    /// No command goes to the device from now on; they are kept. What the device has it goes on with, and its
    /// completions are taken. No doorbell is rung any more once this returns.
    pub fn stop(&self) {
        self.engine.borrow_mut().stop();
    }

    /// Takes what the device has answered, for channels that nobody polls just now.
    pub fn take_completions(&self) {
        self.engine.borrow_mut().turn(&mut None);
    }

    /// Takes all commands back from the device. Only when it can't work on them nor reach their memory any more: after
    /// the queue's deletion has completed, or CSTS.RDY was seen as 0 after CC.EN was cleared, or its bus mastering was
    /// ended, or the device is gone from its slot. Before that, their memory is still the device's.
    ///
    /// For a queue that borrows: after the lender's, whose reclaiming answers what the device had of it.
    ///
    /// A Compare and Write is never submitted again: the device may have done it, and it would then fail against
    /// itself. It is answered with `ABORTED_SQ_DELETION`, as are commands that came ready made.
    pub fn reclaim(&self, reclaim: Reclaim) {
        self.engine.borrow_mut().reclaim(reclaim);
    }

    /// Makes the rings as new, after [`Self::reclaim`] and before the device is told of them again.
    pub fn reset_rings(&self) {
        let mut engine = self.engine.borrow_mut();
        if let Some(pair) = engine.device.as_mut().and_then(|device| device.port.own_mut()) {
            pair.restart();
        }
    }

    /// The device has lost what it had not yet made durable. Each channel that is open learns of it by its next flush,
    /// or the one that waits: it fails, once. Stopped and reclaimed.
    pub fn cache_was_lost(&self) {
        self.engine.borrow_mut().ledger.cache_was_lost(super::ledger::LOST);
    }

    /// Commands go to the device from now on, those that were kept first. After the device was told of the queue. For
    /// a queue that was in use: [`Self::stop`], [`Self::reclaim`], [`Self::reset_rings`], the Create commands, this.
    pub fn start(&self) {
        self.engine.borrow_mut().start();
    }

    /// Answers every I/O that is not on the device with `status`, and all that come from now on. Those on the device
    /// are answered by it, or by [`Self::reclaim`].
    pub fn fail(&self, status: Status) {
        self.engine.borrow_mut().fail(status);
    }

    /// Takes a function in place of the one before, or the same one with other options: makes the queue's memory and the
    /// registrations anew. Stopped and reclaimed. The I/Os that were kept stay. Blocks.
    ///
    /// # Errors
    /// When memory can't be had or mapped; the queue has no function then, as after [`Self::release`].
    pub fn rebuild(&self, function: Arc<dyn Function>, options: &IoQueueOptions) -> Result<(), DmaError> {
        self.engine.borrow_mut().rebuild(function, options, None)
    }

    /// As [`Self::rebuild`], for a queue that borrows from now on.
    ///
    /// # Errors
    /// As [`Self::rebuild`].
    pub fn rebuild_borrowing(
        &self,
        function: Arc<dyn Function>,
        options: &IoQueueOptions,
        lane: Lane,
    ) -> Result<(), DmaError> {
        self.engine.borrow_mut().rebuild(function, options, Some(lane))
    }

    /// Lets go of the function and of all memory that was made or mapped for it: the device is gone, or is being given
    /// up. Stopped and reclaimed. I/Os go on being kept, or failed; [`Self::rebuild`] comes before [`Self::start`].
    pub fn release(&self) {
        self.engine.borrow_mut().release();
    }

    /// In place of [`Self::reclaim`] and [`Self::release`], when nothing could say that the device does no DMA any more:
    /// what it may reach (rings, lists, registrations, the data of the commands that it has) is never given back, on
    /// purpose. Its commands are answered with `status`, without their data; I/Os that it has nothing of are kept.
    pub fn leak(&self, status: Status) {
        self.engine.borrow_mut().leak(status);
    }

    /// The command that has been on the device for the longest: its identifier, and since when.
    #[must_use]
    pub fn oldest(&self) -> Option<(u16, Instant)> {
        self.engine.borrow().device.as_ref()?.port.own()?.oldest()
    }

    /// A command that the device is to be asked to abort (Abort, SQID [`QueueAddresses::id`], this CID), because it
    /// was submitted before `before`, or because its submitter gave it up; each is named once.
    #[must_use]
    pub fn abort_candidate(&self, before: Instant) -> Option<u16> {
        self.engine.borrow_mut().abort_candidate(before)
    }

    /// Commands that the device has.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.engine.borrow().on_device()
    }

    /// Counts since it was made.
    #[must_use]
    pub fn statistics(&self) -> IoQueueStatistics {
        let engine = self.engine.borrow();
        IoQueueStatistics {
            queue: engine.queue_statistics(),
            retried: engine.ledger.retried,
            accepted: engine.ledger.requests.len(),
            orphans: engine.ledger.orphans(),
            lanes: engine.lanes.len(),
        }
    }

    /// The engine, for the channels.
    pub(super) fn engine(&self) -> &RefCell<Engine> {
        &self.engine
    }
}

impl Drop for IoQueue {
    /// What the device still has stays in memory for ever, with all that it may write to.
    fn drop(&mut self) {
        let engine = self.engine.get_mut();
        if engine.on_device() > 0 {
            engine.leak(Status::ABORTED_SQ_DELETION);
        }
    }
}

impl std::fmt::Debug for IoQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoQueue").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Takes a queue's turn for what has no channel that would: commands whose channel was dropped, and those of reactors
/// that submit through this one.
struct QueuePoller {
    queue: Weak<IoQueue>,
}

impl Poller for QueuePoller {
    fn name(&self) -> &'static str {
        "nvme queue"
    }

    fn poll(&mut self) -> Turn {
        let Some(queue) = self.queue.upgrade() else { return Turn::Idle };
        let mut engine = queue.engine.borrow_mut();
        let orphans = engine.ledger.orphans();
        if orphans == 0 && !engine.lends() {
            return Turn::Idle;
        }
        let before = engine.queue_statistics();
        engine.turn(&mut None);
        let after = engine.queue_statistics();
        let work = (after.submitted - before.submitted) + (after.completed - before.completed);
        if work > 0 {
            // At most twice as many as there are slots.
            Turn::Worked(work as u32)
        } else if engine.ledger.orphans() == 0 && engine.lanes_may_rest() {
            Turn::Idle
        } else {
            Turn::KeepPolling
        }
    }
}
