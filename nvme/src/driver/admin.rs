//! The admin queue: commands as futures, and asynchronous events.
//!
//! Owns the queue pair, the memory of the data of its commands, and the events that came. Invariant: each command's future
//! gets its own answer, or why there is none; memory that a command's data pointer names stays until the command has
//! completed or the controller does no DMA, whatever became of the future. Lives on the owner's reactor, which polls it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use sledge_reactor::poller::{Poller, PollerHandle, Turn, register_poller};
use sledge_reactor::time::{Instant, now};

use super::admin_memory::{AdminMemory, MAX_BYTES, SparePages};
use super::error::DriverError;
use super::queue_pair::QueuePair;
use super::statistics::Counters;
use super::wait::{Signal, within};
use crate::async_event::EventResult;
use crate::command::Command;
use crate::completion::Completion;
use crate::function::{DmaError, Function};

/// Entries of the admin queues. AQA has room for 4,096; nobody needs so many.
const DEPTH: u16 = 64;
/// Slots that users do not get: escalation must always find one.
const RESERVED: usize = 16;
/// Events kept until the keeper looks at them.
const MAX_EVENTS: usize = 64;
/// How long after a submission the reactor keeps polling for the answer; later, the keeper's timer does.
const HOT: Duration = Duration::from_millis(5);

/// Data of a command of the admin queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminBuffer {
    /// None.
    None,
    /// To the controller.
    Out(Vec<u8>),
    /// From the controller, this many bytes.
    In(usize),
}

/// Why commands are not taken, and those that waited got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// The controller is being reset.
    Reset,
    /// The device is gone.
    Removed,
    /// The controller is being let go of.
    Detached,
}

impl From<Closed> for DriverError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Reset => Self::Reset,
            Closed::Removed => Self::Removed,
            Closed::Detached => Self::Detached,
        }
    }
}

/// An answer, or why there is none.
type Given = Result<(Completion, Vec<u8>), Closed>;

/// Where a command's answer goes.
#[derive(Debug, Default)]
struct Answer {
    given: RefCell<Option<Given>>,
    waker: RefCell<Option<Waker>>,
}

impl Answer {
    /// The first answer counts.
    fn give(&self, answer: Given) {
        self.given.borrow_mut().get_or_insert(answer);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A command under way.
#[derive(Debug)]
enum Slot {
    /// Somebody waits, or has waited.
    Command { answer: Weak<Answer>, memory: Option<AdminMemory>, reads: bool },
    /// An Asynchronous Event Request.
    Event,
}

struct Inner {
    pair: Option<QueuePair<Slot>>,
    function: Option<Arc<dyn Function>>,
    spare: SparePages,
    closed: Option<Closed>,
    hot_until: Instant,
    /// Commands under way that are no event requests.
    commands: usize,
    events: VecDeque<EventResult>,
}

/// See the module.
pub(super) struct Admin {
    inner: RefCell<Inner>,
    /// An event came.
    pub(super) event: Signal,
    lost_events: Cell<u64>,
    counters: Arc<Counters>,
    poller: RefCell<Option<PollerHandle>>,
}

struct AdminPoller {
    admin: Weak<Admin>,
}

impl Poller for AdminPoller {
    fn name(&self) -> &'static str {
        "nvme-admin"
    }

    fn poll(&mut self) -> Turn {
        let Some(admin) = self.admin.upgrade() else { return Turn::Idle };
        if admin.inner.borrow().commands == 0 {
            // Events can wait for the keeper's timer.
            return Turn::Idle;
        }
        match admin.turn() {
            0 if now() < admin.inner.borrow().hot_until => Turn::KeepPolling,
            0 => Turn::Idle,
            reaped => Turn::Worked(reaped),
        }
    }
}

impl Admin {
    /// An admin queue of the current reactor, closed and without memory.
    pub(super) fn new(counters: Arc<Counters>) -> Rc<Self> {
        let inner = Inner {
            pair: None,
            function: None,
            spare: SparePages::default(),
            closed: Some(Closed::Reset),
            hot_until: Instant::default(),
            commands: 0,
            events: VecDeque::new(),
        };
        let admin = Rc::new(Self {
            inner: RefCell::new(inner),
            event: Signal::default(),
            lost_events: Cell::new(0),
            counters,
            poller: RefCell::new(None),
        });
        let poller = register_poller(AdminPoller { admin: Rc::downgrade(&admin) });
        *admin.poller.borrow_mut() = Some(poller);
        admin
    }

    /// Makes the queues as new, in memory of `function`. Returns their entries and the device's addresses of the
    /// submission and the completion queue. Only while the controller does no DMA.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn restart(
        &self,
        function: &Arc<dyn Function>,
        max_entries: u32,
        stride_bytes: usize,
    ) -> Result<(u16, u64, u64), DmaError> {
        self.drain();
        let depth = u16::try_from(max_entries).unwrap_or(u16::MAX).min(DEPTH);
        let mut inner = self.inner.borrow_mut();
        let same = inner.function.as_ref().is_some_and(|old| Arc::ptr_eq(old, function));
        match &mut inner.pair {
            Some(pair) if same && pair.depth() == depth => pair.restart(),
            _ => {
                inner.spare.clear();
                inner.pair = None;
                inner.pair = Some(QueuePair::new(function.clone(), 0, depth, stride_bytes)?);
                inner.function = Some(function.clone());
            }
        }
        inner.events.clear();
        let Some(pair) = &inner.pair else { unreachable!("made above") };
        Ok((pair.depth(), pair.submission_address(), pair.completion_address()))
    }

    /// Takes commands from now on.
    pub(super) fn open(&self) {
        self.inner.borrow_mut().closed = None;
    }

    /// Takes no more commands; those that wait for an answer get `closed`. Their memory stays.
    pub(super) fn close(&self, closed: Closed) {
        let mut inner = self.inner.borrow_mut();
        inner.closed = Some(closed);
        let Some(pair) = &inner.pair else { return };
        let waiting: Vec<_> = pair
            .under_way()
            .filter_map(|(_, _, slot)| match slot {
                Slot::Command { answer, .. } => answer.upgrade(),
                Slot::Event => None,
            })
            .collect();
        drop(inner);
        for answer in waiting {
            answer.give(Err(closed));
        }
    }

    /// Empties the queue; who still waits gets the reason it was closed for. Only while the controller does no DMA.
    pub(super) fn drain(&self) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let closed = inner.closed.unwrap_or(Closed::Reset);
        inner.commands = 0;
        let Some(pair) = &mut inner.pair else { return };
        pair.drain(|slot| {
            if let Slot::Command { answer, memory, .. } = slot {
                if let Some(memory) = memory {
                    inner.spare.give_back(memory);
                }
                if let Some(answer) = answer.upgrade() {
                    answer.give(Err(closed));
                }
            }
        });
    }

    /// Gives all memory back and lets go of the function. Only while the controller does no DMA.
    pub(super) fn release(&self) {
        self.drain();
        let mut inner = self.inner.borrow_mut();
        inner.spare.clear();
        (inner.pair, inner.function) = (None, None);
    }

    /// Lets go of all memory without ever giving it back: the controller may still write to it.
    pub(super) fn leak(&self) {
        let mut inner = self.inner.borrow_mut();
        let closed = inner.closed.unwrap_or(Closed::Reset);
        inner.commands = 0;
        inner.function = None;
        let Some(mut pair) = inner.pair.take() else { return };
        drop(inner);
        pair.drain(|slot| {
            if let Slot::Command { answer, memory, .. } = slot {
                std::mem::forget(memory);
                if let Some(answer) = answer.upgrade() {
                    answer.give(Err(closed));
                }
            }
        });
        std::mem::forget(pair);
    }

    /// Takes what has completed. Returns how many.
    pub(super) fn turn(&self) -> u32 {
        let mut rearm = 0;
        let mut events = 0;
        let mut borrowed = self.inner.borrow_mut();
        let inner = &mut *borrowed;
        let Some(pair) = &mut inner.pair else { return 0 };
        let (spare, commands, queue) = (&mut inner.spare, &mut inner.commands, &mut inner.events);
        let reaped = pair.reap(usize::from(DEPTH), |slot, completion| match slot {
            Slot::Command { answer, memory, reads } => {
                *commands -= 1;
                self.counters.admin_commands.add();
                if !completion.status().is_success() {
                    self.counters.admin_errors.add();
                }
                let mut data = Vec::new();
                if let Some(memory) = memory {
                    if reads && completion.status().is_success() {
                        data = memory.contents();
                    }
                    spare.give_back(memory);
                }
                if let Some(answer) = answer.upgrade() {
                    answer.give(Ok((completion, data)));
                }
            }
            Slot::Event if completion.status().is_success() => {
                self.counters.events.add();
                events += 1;
                rearm += 1;
                if queue.len() == MAX_EVENTS {
                    queue.pop_front();
                    self.lost_events.set(self.lost_events.get() + 1);
                }
                queue.push_back(EventResult::from_bits(completion.result.get()));
            }
            // More than it takes: one less from now on.
            Slot::Event => {}
        });
        if inner.closed.is_none() {
            inner.request_events(rearm);
        }
        if let Some(pair) = &mut inner.pair {
            pair.ring();
        }
        drop(borrowed);
        if events > 0 {
            self.event.set();
        }
        u32::try_from(reaped).unwrap_or(u32::MAX)
    }

    /// Keeps `count` Asynchronous Event Requests with the controller from now on.
    pub(super) fn arm_events(&self, count: usize) {
        let mut inner = self.inner.borrow_mut();
        inner.request_events(count);
        if let Some(pair) = &mut inner.pair {
            pair.ring();
        }
    }

    /// The oldest event that nobody has looked at.
    pub(super) fn take_event(&self) -> Option<EventResult> {
        self.inner.borrow_mut().events.pop_front()
    }

    /// Sends a command and waits for its answer, whatever its status.
    ///
    /// # Errors
    /// When it can't be sent, is not answered in time, or the queue is closed meanwhile.
    pub(super) async fn execute(
        &self,
        what: &'static str,
        limit: Duration,
        command: Command,
        buffer: AdminBuffer,
    ) -> Result<(Completion, Vec<u8>), DriverError> {
        let answer = self.submit(command, buffer)?;
        let given = poll_fn(|context| match answer.given.borrow_mut().take() {
            Some(given) => Poll::Ready(given),
            None => {
                *answer.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        });
        match within(limit, given).await {
            Some(given) => Ok(given?),
            None => Err(DriverError::Timeout { what, limit }),
        }
    }

    /// The same, with a status other than success as an error.
    ///
    /// # Errors
    /// As [`Admin::execute`], and [`DriverError::Command`].
    pub(super) async fn run(
        &self,
        what: &'static str,
        limit: Duration,
        command: Command,
        buffer: AdminBuffer,
    ) -> Result<(Completion, Vec<u8>), DriverError> {
        let (completion, data) = self.execute(what, limit, command, buffer).await?;
        match completion.status() {
            status if status.is_success() => Ok((completion, data)),
            status => Err(DriverError::Command { what, status }),
        }
    }

    fn submit(&self, command: Command, buffer: AdminBuffer) -> Result<Rc<Answer>, DriverError> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        if let Some(closed) = inner.closed {
            return Err(closed.into());
        }
        let (Some(pair), Some(function)) = (&mut inner.pair, &inner.function) else {
            return Err(DriverError::Reset);
        };
        if pair.free() == 0 {
            return Err(DriverError::QueueFull);
        }
        let bytes = match &buffer {
            AdminBuffer::None => 0,
            AdminBuffer::Out(bytes) => bytes.len(),
            AdminBuffer::In(bytes) => *bytes,
        };
        if bytes > MAX_BYTES {
            return Err(DriverError::Option(format!(
                "admin commands have at most {MAX_BYTES} bytes of data"
            )));
        }
        let mut command = command;
        let mut memory = None;
        if buffer != AdminBuffer::None {
            let mut taken = inner.spare.take(&**function, bytes)?;
            if let AdminBuffer::Out(bytes) = &buffer {
                taken.fill(bytes);
            }
            command = taken.describe(command);
            memory = Some(taken);
        }
        let answer = Rc::new(Answer::default());
        let reads = matches!(buffer, AdminBuffer::In(_));
        let slot = Slot::Command { answer: Rc::downgrade(&answer), memory, reads };
        if pair.submit(command, slot, now()).is_err() {
            return Err(DriverError::QueueFull);
        }
        pair.ring();
        inner.commands += 1;
        inner.hot_until = now() + HOT;
        Ok(answer)
    }

    /// Whether users' commands are taken: room is left for the driver's own.
    pub(super) fn has_room(&self) -> bool {
        self.inner
            .borrow()
            .pair
            .as_ref()
            .is_some_and(|pair| pair.free() > RESERVED.min(usize::from(pair.slots()) / 2))
    }
}

impl Inner {
    fn request_events(&mut self, count: usize) {
        let Some(pair) = &mut self.pair else { return };
        for _ in 0..count {
            let command = Command::async_event_request().with_prps(0, 0);
            if pair.submit(command, Slot::Event, now()).is_err() {
                return;
            }
        }
    }
}
