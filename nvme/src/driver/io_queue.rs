//! One reactor's way to a controller.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sledge_reactor::time::Instant;

use super::queue_pair::{QueuePair, QueueStatistics};
use super::shadow::ShadowDoorbells;
use crate::Status;
use crate::function::{DmaError, Function};

/// How an I/O queue is made.
#[derive(Clone, Debug)]
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

/// One reactor's I/O queue of one controller.
#[derive(Debug)]
pub struct IoQueue {
    pair: RefCell<QueuePair<u32>>,
    state: RefCell<QueueState>,
}

impl IoQueue {
    /// A queue of the current reactor, stopped: makes its memory, and lets the device reach the reactor's pool.
    /// Blocks.
    ///
    /// # Errors
    /// When memory can't be had or mapped.
    pub fn new(function: Arc<dyn Function>, options: &IoQueueOptions) -> Result<Rc<Self>, DmaError> {
        let pair = QueuePair::new(function, options.id, options.depth, options.stride_bytes)?;
        Ok(Rc::new(Self { pair: RefCell::new(pair), state: RefCell::new(QueueState::Stopped) }))
    }

    /// What the device is to be told when the queue is created there; `None` for a queue that borrows another
    /// reactor's.
    #[must_use]
    pub fn addresses(&self) -> Option<QueueAddresses> {
        let pair = self.pair.borrow();
        Some(QueueAddresses {
            id: pair.id(),
            depth: pair.depth(),
            submission: pair.submission_address(),
            completion: pair.completion_address(),
        })
    }

    /// From now on rings by shadow doorbells, or not. While stopped.
    pub fn set_shadows(&self, shadows: Option<&Arc<ShadowDoorbells>>) {
        self.pair.borrow_mut().set_shadows(shadows);
    }

    /// Whether commands go to the device.
    #[must_use]
    pub fn state(&self) -> QueueState {
        *self.state.borrow()
    }

    /// No command goes to the device from now on; they are kept. Completions are still taken.
    pub fn stop(&self) {
        *self.state.borrow_mut() = QueueState::Stopped;
    }

    /// Takes all commands back from the device. Only when it can't work on them any more: after the queue's deletion
    /// has completed, or CSTS.RDY was seen as 0 after CC.EN was cleared, or the device is gone.
    pub fn reclaim(&self, reclaim: Reclaim) {
        let _ = reclaim;
        self.pair.borrow_mut().drain(|_| ());
    }

    /// Commands go to the device from now on, those that were kept first. Before, the device was told of the queue
    /// (again): the rings are made as new here when they were used, so [`Self::reclaim`] comes first then, then
    /// [`Self::reset_rings`], then the Create commands, then this.
    pub fn start(&self) {
        *self.state.borrow_mut() = QueueState::Running;
    }

    /// Makes the rings as new, after [`Self::reclaim`] and before the device is told of them again.
    pub fn reset_rings(&self) {
        self.pair.borrow_mut().restart();
    }

    /// Answers every command that is not on the device with `status`, and all that come from now on. Those on the
    /// device are answered by it, or by [`Self::reclaim`].
    pub fn fail(&self, status: Status) {
        *self.state.borrow_mut() = QueueState::Failed(status);
    }

    /// Takes a function in place of the one before, or the same one with other options: makes the queue's memory and the
    /// registrations anew. Stopped, reclaimed and released. The commands that were kept stay. Blocks.
    ///
    /// # Errors
    /// When memory can't be had or mapped; the queue has no function then, as after [`Self::release`].
    pub fn rebuild(&self, function: Arc<dyn Function>, options: &IoQueueOptions) -> Result<(), DmaError> {
        *self.pair.borrow_mut() = QueuePair::new(function, options.id, options.depth, options.stride_bytes)?;
        Ok(())
    }

    /// Lets go of the function and of all memory that was made or mapped for it: the device is gone, or is being given
    /// up. Stopped and reclaimed. Commands go on being kept, or failed; [`Self::rebuild`] comes before [`Self::start`].
    pub fn release(&self) {}

    /// In place of [`Self::reclaim`] and [`Self::release`], when nothing could say that the device does no DMA any more:
    /// what it may reach (rings, PRP lists, registrations, the buffers of the commands that it has) is never given
    /// back, on purpose. Commands are answered with `status`, reads without their buffers.
    pub fn leak(&self, status: Status) {
        let _ = status;
    }

    /// The command that has been on the device for the longest: its identifier, and since when.
    #[must_use]
    pub fn oldest(&self) -> Option<(u16, Instant)> {
        self.pair.borrow().oldest()
    }

    /// A command that the device is to be asked to abort (Abort, SQID [`QueueAddresses::id`], this CID), because it
    /// was submitted before `before`, or because its submitter gave it up; each is named once.
    #[must_use]
    pub fn abort_candidate(&self, before: Instant) -> Option<u16> {
        let _ = before;
        None
    }

    /// Commands that the device has.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.pair.borrow().outstanding()
    }

    /// Counts of the queue pair.
    #[must_use]
    pub fn statistics(&self) -> QueueStatistics {
        self.pair.borrow().statistics()
    }
}
