//! The admin queue: commands as futures, and asynchronous events.
//!
//! Invariant: each command's future gets its own answer, the loss of the connection, or a time-out; a future that is
//! dropped leaves no trace once its answer has come. A poller of the current reactor drives it.

use super::error::{HostError, Loss};
use super::payload::Payload;
use super::queue::{Order, Queue, QueueState};
use super::slot::Direction;
use super::wait::{Signal, within};
use sledge_nvme::async_event::EventResult;
use sledge_nvme::{Command, Completion, Status};
use sledge_reactor::net::TcpStream;
use sledge_reactor::poller::{Poller, PollerHandle, Turn, register_poller};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Commands outstanding on an admin queue.
pub(super) const ADMIN_DEPTH: u16 = 31;
/// Events kept for a reader that does not come.
const MAX_EVENTS: usize = 64;

/// Data of an admin command.
#[derive(Debug)]
pub enum AdminData {
    /// None.
    None,
    /// To the controller.
    Out(Vec<u8>),
    /// From the controller, this many bytes.
    In(usize),
}

/// The answer to an admin command.
#[derive(Debug)]
pub struct AdminReply {
    /// The completion queue entry; its status is success.
    pub completion: Completion,
    /// Data from the controller.
    pub data: Vec<u8>,
}

/// A command that a future waits for.
#[derive(Debug, Default)]
struct Waiter {
    answer: Option<(Completion, Payload)>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Inner {
    queue: Queue<TcpStream>,
    next_token: u64,
    waiters: BTreeMap<u64, Waiter>,
    /// Asynchronous Event Requests outstanding, by token.
    requests: Vec<u64>,
    events: VecDeque<EventResult>,
}

/// An admin queue on its connection.
pub(super) struct Admin {
    inner: RefCell<Inner>,
    /// Set when the connection is lost.
    pub(super) lost: Rc<Signal>,
    /// Set when an event came.
    pub(super) event: Rc<Signal>,
    poller: RefCell<Option<PollerHandle>>,
}

struct AdminPoller {
    admin: Weak<Admin>,
}

impl Poller for AdminPoller {
    fn name(&self) -> &'static str {
        "nvmf-host-admin"
    }

    fn poll(&mut self) -> Turn {
        match self.admin.upgrade() {
            Some(admin) => admin.turn(),
            None => Turn::Idle,
        }
    }
}

impl Admin {
    /// Takes an open queue and has the current reactor drive it.
    pub(super) fn start(queue: Queue<TcpStream>, lost: Rc<Signal>, event: Rc<Signal>) -> Rc<Self> {
        let inner = Inner {
            queue,
            next_token: 0,
            waiters: BTreeMap::new(),
            requests: Vec::new(),
            events: VecDeque::new(),
        };
        let admin = Rc::new(Self { inner: RefCell::new(inner), lost, event, poller: RefCell::new(None) });
        let poller = register_poller(AdminPoller { admin: Rc::downgrade(&admin) });
        *admin.poller.borrow_mut() = Some(poller);
        admin
    }

    /// Why the connection ended, once it did.
    pub(super) fn loss(&self) -> Option<Loss> {
        self.inner.borrow().queue.loss().cloned()
    }

    /// Ends the connection; commands in flight get `loss`.
    pub(super) fn close(&self, loss: Loss) {
        self.inner.borrow_mut().queue.close(loss);
        self.turn();
    }

    fn turn(&self) -> Turn {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let closed_before = inner.queue.state == QueueState::Closed;
        if closed_before && inner.queue.outstanding() == 0 {
            return Turn::Idle;
        }
        let moved = inner.queue.turn();
        let closed = inner.queue.state == QueueState::Closed;
        if moved == 0 && !closed && !inner.queue.has_work() {
            // Nearly always so.
            return Turn::Idle;
        }
        if closed {
            inner.queue.fail_outstanding(Status::HOST_PATHING_ERROR);
        }
        let (mut finished, mut rearm) = (0, 0);
        let (queue, requests, waiters) = (&mut inner.queue, &mut inner.requests, &mut inner.waiters);
        queue.collect(|token, completion, payload| {
            finished += 1;
            if let Some(at) = requests.iter().position(|request| *request == token) {
                requests.swap_remove(at);
                if completion.status().is_success() {
                    if inner.events.len() == MAX_EVENTS {
                        inner.events.pop_front();
                    }
                    inner.events.push_back(EventResult::from_bits(completion.result.get()));
                    rearm += 1;
                    self.event.set();
                }
            } else if let Some(waiter) = waiters.get_mut(&token) {
                waiter.answer = Some((completion, payload));
                if let Some(waker) = waiter.waker.take() {
                    waker.wake();
                }
            }
        });
        if closed {
            self.lost.set();
        } else {
            inner.request_events(rearm);
        }
        match (moved > 0 || finished > 0, inner.queue.has_work()) {
            (true, _) => Turn::Worked(finished),
            (false, true) => Turn::KeepPolling,
            (false, false) => Turn::Idle,
        }
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// [`HostError::Command`] when the status is not success, and what else can happen to a connection.
    pub(super) async fn execute(
        &self,
        what: &'static str,
        limit: Duration,
        command: Command,
        data: AdminData,
    ) -> Result<AdminReply, HostError> {
        let token = self.inner.borrow_mut().submit(command, data)?;
        let guard = Guard { admin: self, token };
        let answer = poll_fn(|context| guard.poll(context.waker()));
        let result = within(what, limit, answer).await;
        let (completion, payload) = match result {
            Ok(answer) => answer,
            Err(error) => {
                // The connection is no good: an admin command takes milliseconds.
                self.close(Loss::CommandTimeout);
                return Err(error);
            }
        };
        if let Some(loss) = self.loss()
            && completion.status().is(Status::HOST_PATHING_ERROR)
        {
            return Err(loss.into());
        }
        let status = completion.status();
        if !status.is_success() {
            return Err(HostError::Command { what, status });
        }
        let data = match payload {
            Payload::Owned(data) => data,
            Payload::None | Payload::Segments(_) | Payload::Range(_) => Vec::new(),
        };
        Ok(AdminReply { completion, data })
    }

    /// Keeps `count` Asynchronous Event Requests outstanding from now on.
    pub(super) fn arm_events(&self, count: usize) {
        self.inner.borrow_mut().request_events(count);
    }

    /// The oldest event that nobody has read.
    pub(super) fn take_event(&self) -> Option<EventResult> {
        self.inner.borrow_mut().events.pop_front()
    }
}

impl Inner {
    fn submit(&mut self, command: Command, data: AdminData) -> Result<u64, HostError> {
        let (direction, payload) = match data {
            AdminData::None => (Direction::None, Payload::None),
            AdminData::Out(bytes) => (Direction::Out, Payload::Owned(bytes)),
            AdminData::In(length) => (Direction::In, Payload::Owned(vec![0; length])),
        };
        // One slot is for Keep Alive: commands that take long must not cost the connection.
        let is_keep_alive = command.opcode == sledge_nvme::opcode::Admin::KeepAlive.value();
        if self.queue.loss().is_none() && self.queue.slots.available() < 2 && !is_keep_alive {
            return Err(HostError::QueueFull);
        }
        let token = self.next_token;
        self.next_token += 1;
        let order = Order { token, command, direction, unhurried: false };
        if self.queue.submit(&order, || payload).is_none() {
            return Err(match self.queue.loss() {
                Some(loss) => loss.clone().into(),
                None => HostError::QueueFull,
            });
        }
        self.waiters.insert(token, Waiter::default());
        Ok(token)
    }

    fn request_events(&mut self, count: usize) {
        for _ in 0..count {
            let token = self.next_token;
            self.next_token += 1;
            let command = Command::async_event_request();
            let order = Order { token, command, direction: Direction::None, unhurried: true };
            if self.queue.submit(&order, || Payload::None).is_none() {
                return;
            }
            self.requests.push(token);
        }
    }
}

/// Forgets the waiter when its future ends, however it ends.
struct Guard<'a> {
    admin: &'a Admin,
    token: u64,
}

impl Guard<'_> {
    fn poll(&self, waker: &Waker) -> Poll<(Completion, Payload)> {
        let mut inner = self.admin.inner.borrow_mut();
        match inner.waiters.get_mut(&self.token) {
            Some(waiter) => match waiter.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    waiter.waker = Some(waker.clone());
                    Poll::Pending
                }
            },
            None => Poll::Pending,
        }
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.admin.inner.borrow_mut().waiters.remove(&self.token);
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}
