//! An I/O queue pair on one namespace: the in-process I/O form in, NVMe/TCP out.
//!
//! Owns the queue, the commands that found no room in it, and the task that brings it back. Invariant: every command
//! ends exactly once, also when the connection, the controller or the whole queue pair is lost. Nothing is allocated
//! for a command. It stays on its reactor; whoever submits also polls.

use super::controller::Controller;
use super::error::{HostError, Loss};
use super::open::{Opening, open_queue};
use super::options::{ConnectOptions, OnLoss};
use super::payload::Payload;
use super::queue::{Order, Queue, QueueState};
use super::shared::{GIVEN_UP, Parameters, Shared};
use super::slot::Direction;
use sledge_nvme::command::{DatasetRange, Fuse};
use sledge_nvme::io::{Channel, Geometry, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvme::{Command, Status};
use sledge_reactor::memory::{Segment, Segments, allocate};
use sledge_reactor::net::TcpStream;
use sledge_reactor::task::{JoinHandle, spawn_local};
use sledge_reactor::time::{now, sleep};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;
use zerocopy::IntoBytes;

/// How often a queue pair looks whether its connection or controller was lost while its reactor sleeps.
const TICK: Duration = Duration::from_millis(50);
/// Pause after the controller, which is connected, has refused a queue.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Commands kept when the queue is full, as a multiple of its depth.
const OVERFLOW: usize = 4;
/// Most blocks of one command (NLB is 16 bits).
const MAX_BLOCKS: u32 = 1 << 16;

/// Opens queue pairs of a controller. May be sent to the reactor that shall have one.
#[derive(Clone, Debug)]
pub struct QueueConnector {
    pub(super) shared: Arc<Shared>,
    pub(super) options: Arc<ConnectOptions>,
}

/// How a queue pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePairState {
    /// Connected.
    Live,
    /// Lost; it comes back with its controller.
    Reconnecting,
    /// It won't come back: the controller was shut down, dropped or given up.
    Ended,
}

/// A queue identifier, until it is dropped.
struct TakenId {
    shared: Arc<Shared>,
    qid: u16,
}

impl Drop for TakenId {
    fn drop(&mut self) {
        self.shared.release_queue_id(self.qid);
    }
}

struct Inner {
    connector: QueueConnector,
    /// Of `qid`; none once the queue pair has ended with its controller.
    taken: Option<TakenId>,
    qid: u16,
    nsid: u32,
    geometry: Geometry,
    parameters: Parameters,
    /// Epoch of the controller that the queue belongs to.
    epoch: u64,
    state: QueuePairState,
    queue: Queue<TcpStream>,
    overflow: VecDeque<IoCommand>,
    /// The controller may still have commands of the connection that was lost last.
    lost_silently: bool,
    /// Commands that ended with no queue to give them back: they had not been sent, or their queue was replaced.
    stranded: Vec<IoCompletion>,
}

/// An I/O queue pair.
pub struct QueuePair {
    inner: Rc<RefCell<Inner>>,
    keeper: JoinHandle<()>,
}

impl QueueConnector {
    /// Opens a queue pair on the current reactor for a namespace whose size is known.
    ///
    /// # Errors
    /// What kept it from opening; [`HostError::Option`] when all queues that the controller granted are in use.
    pub async fn open(&self, nsid: u32, geometry: Geometry) -> Result<QueuePair, HostError> {
        let epoch = self.shared.epoch();
        if epoch == GIVEN_UP || !epoch.is_multiple_of(2) || self.shared.is_ending() {
            return Err(Loss::ControllerLost.into());
        }
        let Some(qid) = self.shared.take_queue_id() else {
            let granted = self.shared.parameters().queues;
            return Err(HostError::Option(format!("all {granted} I/O queues of the controller are in use")));
        };
        // Whoever waits may give up meanwhile.
        let taken = TakenId { shared: self.shared.clone(), qid };
        let parameters = self.shared.parameters();
        let queue = self.open_queue(qid, &parameters).await?;
        let inner = Inner {
            connector: self.clone(),
            taken: Some(taken),
            qid,
            nsid,
            geometry,
            parameters,
            epoch,
            state: QueuePairState::Live,
            overflow: VecDeque::with_capacity(queue.slots.depth() * OVERFLOW),
            lost_silently: false,
            stranded: Vec::new(),
            queue,
        };
        let inner = Rc::new(RefCell::new(inner));
        let keeper = spawn_local(keep(Rc::downgrade(&inner)));
        Ok(QueuePair { inner, keeper })
    }

    async fn open_queue(&self, qid: u16, parameters: &Parameters) -> Result<Queue<TcpStream>, HostError> {
        // One entry of a queue always stays free.
        let most = parameters.max_entries.saturating_sub(1).max(1);
        let opening = Opening {
            qid,
            cntlid: parameters.cntlid,
            depth: self.options.queue_depth.min(most.min(u32::from(u16::MAX)) as u16),
            in_capsule_bytes: parameters.in_capsule_bytes,
        };
        Ok(open_queue(&self.options, opening).await?.0)
    }
}

impl QueuePair {
    /// Opens a queue pair on the current reactor for a namespace, asking the controller for its size.
    ///
    /// # Errors
    /// As [`Controller::geometry`] and [`QueueConnector::open`].
    pub async fn open(controller: &Controller, nsid: u32) -> Result<Self, HostError> {
        let geometry = controller.geometry(nsid).await?;
        controller.connector().open(nsid, geometry).await
    }

    /// Size and block size of the namespace.
    pub fn geometry(&self) -> Geometry {
        self.inner.borrow().geometry
    }

    /// Most bytes of one command's data (MDTS); none is unlimited.
    pub fn max_transfer_bytes(&self) -> Option<u64> {
        self.inner.borrow().parameters.max_transfer_bytes
    }

    /// Most commands outstanding at the controller; more wait here.
    pub fn depth(&self) -> usize {
        self.inner.borrow().queue.slots.depth()
    }

    /// How it is.
    pub fn state(&self) -> QueuePairState {
        self.inner.borrow().state
    }

    /// Which connection of its controller it is part of, see [`Controller::incarnation`]; meaningless unless live.
    pub fn incarnation(&self) -> u64 {
        self.inner.borrow().epoch
    }

    /// Whether the controller may still be at work on commands of the connection that was lost last, rather than having
    /// closed or reset it. They might then take effect after anything that is done elsewhere.
    pub fn lost_silently(&self) -> bool {
        self.inner.borrow().lost_silently
    }

    /// Queue identifier.
    pub fn qid(&self) -> u16 {
        self.inner.borrow().qid
    }

    /// Sends what was submitted now, rather than with the next poll.
    pub fn flush(&mut self) {
        self.inner.borrow_mut().queue.flush();
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        self.keeper.abort();
        let mut inner = self.inner.borrow_mut();
        inner.queue.close(Loss::Disconnected);
        inner.state = QueuePairState::Ended;
        drop(inner.taken.take());
    }
}

impl Channel for QueuePair {
    fn submit(&mut self, io: IoCommand) -> Submitted {
        self.inner.borrow_mut().submit(io)
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        self.inner.borrow_mut().poll(done);
    }

    fn outstanding(&self) -> usize {
        let inner = self.inner.borrow();
        // A fused pair takes two slots: it counts as two here, which is enough to know whether anything is left.
        inner.queue.outstanding() + inner.stranded.len() + inner.overflow.len()
    }

    fn needs_polling(&self) -> bool {
        let inner = self.inner.borrow();
        inner.queue.has_work()
            || !inner.stranded.is_empty()
            || (!inner.overflow.is_empty() && inner.queue.slots.available() > 1)
    }

    fn abort(&mut self, token: u64) -> bool {
        let mut inner = self.inner.borrow_mut();
        let Some(at) = inner.overflow.iter().position(|io| io.token == token) else {
            return inner.queue.abort_queued(token);
        };
        if let Some(io) = inner.overflow.remove(at) {
            inner.stranded.push(io.complete(Status::ABORTED_BY_REQUEST));
        }
        true
    }
}

impl Inner {
    fn submit(&mut self, mut io: IoCommand) -> Submitted {
        if let Err(status) = self.check(&mut io) {
            return Submitted::Done(io.complete(status));
        }
        match self.state {
            QueuePairState::Live => {}
            QueuePairState::Reconnecting if self.connector.options.on_loss == OnLoss::Resubmit => {}
            QueuePairState::Reconnecting | QueuePairState::Ended => {
                return Submitted::Done(io.complete(Status::HOST_PATHING_ERROR));
            }
        }
        if self.overflow.is_empty() && self.state == QueuePairState::Live && self.start(&mut io) {
            return Submitted::Pending;
        }
        if self.overflow.len() == self.overflow.capacity() {
            // The submitter goes far beyond the depth: it may come again.
            return Submitted::Done(io.complete(Status::COMMAND_INTERRUPTED));
        }
        self.overflow.push_back(io);
        Submitted::Pending
    }

    /// Refuses what can't be sent, and gives a read its memory.
    fn check(&self, io: &mut IoCommand) -> Result<(), Status> {
        if io.operation != Operation::Flush {
            self.geometry.check(io.slba, u64::from(io.blocks))?;
            let unlimited = io.operation == Operation::Deallocate;
            if io.blocks == 0 || (io.blocks > MAX_BLOCKS && !unlimited) {
                return Err(Status::INVALID_FIELD.do_not_retry());
            }
        }
        let bytes = io.operation.data_bytes(io.blocks, self.geometry.block_bytes);
        // MDTS is for each command, of which a compare-and-write is two.
        let one = if io.operation == Operation::CompareAndWrite { bytes / 2 } else { bytes };
        if self.parameters.max_transfer_bytes.is_some_and(|most| one > most) {
            return Err(Status::INVALID_FIELD.do_not_retry());
        }
        if io.operation == Operation::Read && io.data.is_empty() {
            let memory = allocate(bytes as usize).ok_or(Status::COMMAND_INTERRUPTED)?;
            io.data = Segments::from(memory);
        }
        if io.data.len_bytes() as u64 != bytes {
            return Err(Status::INVALID_FIELD.do_not_retry());
        }
        let lent = |segment: &Segment| matches!(segment, Segment::Lent(_));
        if io.operation == Operation::Read && io.data.iter().any(lent) {
            return Err(Status::INVALID_FIELD.do_not_retry());
        }
        Ok(())
    }

    /// Puts a command into the queue; false, with the command as it was, when that is full.
    fn start(&mut self, io: &mut IoCommand) -> bool {
        let (nsid, slba, blocks) = (self.nsid, io.slba, io.blocks);
        let (command, direction) = match io.operation {
            Operation::Read => (Command::read(nsid, slba, blocks), Direction::In),
            Operation::Write => (Command::write(nsid, slba, blocks), Direction::Out),
            Operation::Compare => (Command::compare(nsid, slba, blocks), Direction::Out),
            Operation::CompareAndWrite => (Command::write(nsid, slba, blocks), Direction::Out),
            Operation::Flush => (Command::flush(nsid), Direction::None),
            Operation::WriteZeroes { deallocate } => {
                (Command::write_zeroes(nsid, slba, blocks, deallocate), Direction::None)
            }
            Operation::Verify => (Command::verify(nsid, slba, blocks), Direction::None),
            Operation::Deallocate => (Command::deallocate_ranges(nsid, 1), Direction::Out),
        };
        let mut order = Order { token: io.token, command, direction, unhurried: false };
        let fua =
            io.fua && !matches!(io.operation, Operation::Flush | Operation::Verify | Operation::Deallocate);
        if fua {
            order.command = order.command.with_fua();
        }
        if io.operation == Operation::CompareAndWrite {
            let split = io.data.len_bytes() as u32 / 2;
            let first = Command::compare(nsid, slba, blocks).with_fuse(Fuse::First);
            order.command = order.command.with_fuse(Fuse::Second);
            let payload = || Payload::Segments(std::mem::take(&mut io.data));
            return self.queue.submit_pair(first, &order, split, payload);
        }
        let payload = || match io.operation {
            Operation::Deallocate => {
                let mut range = [0; 16];
                range.copy_from_slice(DatasetRange::new(slba, blocks).as_bytes());
                Payload::Range(range)
            }
            _ => Payload::Segments(std::mem::take(&mut io.data)),
        };
        self.queue.submit(&order, payload).is_some()
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        if self.state == QueuePairState::Live {
            self.queue.turn();
            if self.connector.shared.epoch() != self.epoch {
                self.queue.close(Loss::ControllerLost);
            }
            if self.queue.state == QueueState::Closed {
                self.on_lost();
            }
        }
        if !self.stranded.is_empty() {
            done.append(&mut self.stranded);
        }
        give_back(&mut self.queue, done);
        while self.state == QueuePairState::Live
            && let Some(mut io) = self.overflow.pop_front()
        {
            if !self.start(&mut io) {
                self.overflow.push_front(io);
                break;
            }
        }
    }

    /// The connection is gone.
    fn on_lost(&mut self) {
        if let Some(loss) = self.queue.loss() {
            tracing::debug!(qid = self.qid, %loss, "lost a queue pair");
        }
        self.state = QueuePairState::Reconnecting;
        let own = self.queue.loss().is_none_or(Loss::is_silent);
        self.connector.shared.fail(self.epoch, own);
        // Closed because another queue was lost: the cause is that one's.
        let follows = matches!(self.queue.loss(), Some(Loss::ControllerLost));
        // Or after the controller was left: that it closes its connections then says nothing of its commands.
        let left = self.connector.shared.epoch() == GIVEN_UP;
        self.lost_silently = !follows && own || (follows || left) && self.connector.shared.lost_silently();
        if self.connector.options.on_loss == OnLoss::Fail {
            self.fail_all();
        }
    }

    fn fail_all(&mut self) {
        self.queue.fail_outstanding(Status::HOST_PATHING_ERROR);
        give_back(&mut self.queue, &mut self.stranded);
        while let Some(io) = self.overflow.pop_front() {
            self.stranded.push(io.complete(Status::HOST_PATHING_ERROR));
        }
    }

    /// The connection is back.
    fn on_restored(&mut self, mut queue: Queue<TcpStream>, parameters: Parameters, epoch: u64) {
        queue.adopt(&mut self.queue, Status::HOST_PATHING_ERROR);
        give_back(&mut self.queue, &mut self.stranded);
        self.queue = queue;
        (self.parameters, self.epoch) = (parameters, epoch);
        self.state = QueuePairState::Live;
    }

    /// Whether it has no commands.
    fn is_idle(&self) -> bool {
        self.queue.outstanding() == 0 && self.overflow.is_empty()
    }

    /// The controller won't come back.
    fn on_ended(&mut self) {
        if self.state == QueuePairState::Live {
            self.lost_silently = self.connector.shared.lost_silently();
        }
        self.queue.close(Loss::ControllerLost);
        self.fail_all();
        self.state = QueuePairState::Ended;
    }
}

/// The queue pair's task: notices what happens while nobody polls, and brings the connection back.
async fn keep(weak: Weak<RefCell<Inner>>) {
    loop {
        sleep(TICK).await;
        let Some(inner) = weak.upgrade() else { return };
        let (connector, qid, lost) = {
            let mut inner = inner.borrow_mut();
            let epoch = inner.connector.shared.epoch();
            if epoch == GIVEN_UP {
                inner.on_ended();
                return;
            }
            if inner.connector.shared.is_ending() && inner.is_idle() {
                inner.on_ended();
                drop(inner.taken.take());
                return;
            }
            if inner.state == QueuePairState::Live {
                let limit = inner.connector.options.command_timeout;
                if inner.queue.is_overdue(now(), limit) {
                    inner.queue.close(Loss::CommandTimeout);
                } else if epoch != inner.epoch {
                    inner.queue.close(Loss::ControllerLost);
                }
                if inner.queue.state == QueueState::Closed {
                    inner.on_lost();
                }
            }
            (inner.connector.clone(), inner.qid, inner.state == QueuePairState::Reconnecting)
        };
        drop(inner);
        let epoch = connector.shared.epoch();
        if !lost || epoch == GIVEN_UP || !epoch.is_multiple_of(2) {
            continue;
        }
        // The controller is back.
        let parameters = connector.shared.parameters();
        match connector.open_queue(qid, &parameters).await {
            Ok(queue) => {
                let Some(inner) = weak.upgrade() else { return };
                inner.borrow_mut().on_restored(queue, parameters, epoch);
            }
            // It may grant fewer queues than before: no reason to take them all down. Were it gone, its admin queue would
            // know soon.
            Err(HostError::Refused { status, .. }) => {
                tracing::debug!(qid, %status, "the controller refuses a queue pair");
                if status.is_do_not_retry() {
                    sleep(REFUSED_PAUSE).await;
                }
            }
            Err(error) => {
                tracing::debug!(qid, %error, "reopening a queue pair failed");
                connector.shared.fail(epoch, true);
            }
        }
    }
}

/// Moves what ended in a queue to `done`.
fn give_back(queue: &mut Queue<TcpStream>, done: &mut Vec<IoCompletion>) {
    queue.collect(|token, completion, payload| {
        done.push(IoCompletion { token, status: completion.status(), data: payload.into_segments() });
    });
}

impl std::fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let inner = self.inner.borrow();
        f.debug_struct("QueuePair")
            .field("qid", &inner.qid)
            .field("nsid", &inner.nsid)
            .field("state", &inner.state)
            .finish_non_exhaustive()
    }
}
