//! A queue pair whose commands are futures, with a check that each is answered once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use sledge_nvme::Status;
use sledge_nvme::io::{Channel, Geometry, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvmf::host::QueuePair;
use sledge_reactor::memory::Segments;
use sledge_reactor::poller::{Poller, PollerHandle, Turn, register_poller};

/// A command that a future waits for.
#[derive(Default)]
struct Waiter {
    answer: Option<IoCompletion>,
    waker: Option<Waker>,
}

struct Inner {
    pair: RefCell<QueuePair>,
    waiters: RefCell<BTreeMap<u64, Waiter>>,
    next: Cell<u64>,
}

/// A queue pair with a poller.
pub struct Queue {
    inner: Rc<Inner>,
    _poller: PollerHandle,
}

struct QueuePoller {
    inner: Rc<Inner>,
    done: Vec<IoCompletion>,
}

impl Poller for QueuePoller {
    fn name(&self) -> &'static str {
        "test-queue"
    }

    fn poll(&mut self) -> Turn {
        self.inner.pair.borrow_mut().poll(&mut self.done);
        let work = self.done.len() as u32;
        for completion in self.done.drain(..) {
            let mut waiters = self.inner.waiters.borrow_mut();
            let token = completion.token;
            let waiter =
                waiters.get_mut(&token).unwrap_or_else(|| panic!("command {token} is answered twice"));
            assert!(waiter.answer.is_none(), "command {token} is answered twice");
            waiter.answer = Some(completion);
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
        match work {
            0 if self.inner.pair.borrow().needs_polling() => Turn::KeepPolling,
            0 => Turn::Idle,
            work => Turn::Worked(work),
        }
    }
}

impl Queue {
    /// Starts to poll a queue pair.
    pub fn new(pair: QueuePair) -> Rc<Queue> {
        let inner =
            Rc::new(Inner { pair: RefCell::new(pair), waiters: RefCell::default(), next: Cell::new(1) });
        let poller = register_poller(QueuePoller { inner: inner.clone(), done: Vec::new() });
        Rc::new(Queue { inner, _poller: poller })
    }

    /// Size of the namespace.
    pub fn geometry(&self) -> Geometry {
        self.inner.pair.borrow().geometry()
    }

    /// Most blocks of one command.
    pub fn max_blocks(&self) -> u32 {
        let pair = self.inner.pair.borrow();
        (pair.max_transfer_bytes().unwrap_or(1 << 20) / u64::from(pair.geometry().block_bytes)) as u32
    }

    /// How the queue pair is.
    pub fn state(&self) -> sledge_nvmf::host::QueuePairState {
        self.inner.pair.borrow().state()
    }

    /// Queue identifier.
    pub fn qid(&self) -> u16 {
        self.inner.pair.borrow().qid()
    }

    /// One command; data is given in the memory of the reactor's pool, however many segments that takes.
    pub async fn io(
        &self,
        operation: Operation,
        slba: u64,
        blocks: u32,
        fua: bool,
        data: &[u8],
    ) -> (Status, Vec<u8>) {
        let completion = self.submit(operation, slba, blocks, fua, segments(data)).await;
        let mut bytes = vec![0; completion.data.len_bytes()];
        completion.data.copy_to(0, &mut bytes);
        (completion.status, bytes)
    }

    /// One command.
    pub async fn submit(
        &self,
        operation: Operation,
        slba: u64,
        blocks: u32,
        fua: bool,
        data: Segments,
    ) -> IoCompletion {
        let token = self.inner.next.replace(self.inner.next.get() + 1);
        self.inner.waiters.borrow_mut().insert(token, Waiter::default());
        let io = IoCommand { token, operation, slba, blocks, fua, data };
        let submitted = self.inner.pair.borrow_mut().submit(io);
        match submitted {
            Submitted::Done(completion) => {
                self.inner.waiters.borrow_mut().remove(&token);
                return completion;
            }
            Submitted::Pending => self.inner.pair.borrow_mut().flush(),
        }
        poll_fn(|context| {
            let mut waiters = self.inner.waiters.borrow_mut();
            let waiter = waiters.get_mut(&token).unwrap();
            if waiter.answer.is_none() {
                waiter.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(waiters.remove(&token).and_then(|waiter| waiter.answer).unwrap())
        })
        .await
    }

    /// Reads; panics when that fails.
    pub async fn read(&self, slba: u64, blocks: u32) -> Vec<u8> {
        let (status, data) = self.io(Operation::Read, slba, blocks, false, &[]).await;
        assert!(status.is_success(), "read of {blocks} at {slba}: {status}");
        data
    }

    /// Writes; panics when that fails.
    pub async fn write(&self, slba: u64, data: &[u8]) {
        let blocks = data.len() as u32 / self.geometry().block_bytes;
        let (status, _) = self.io(Operation::Write, slba, blocks, false, data).await;
        assert!(status.is_success(), "write of {blocks} at {slba}: {status}");
    }
}

/// Data in buffers of the pool.
pub fn segments(data: &[u8]) -> Segments {
    let mut segments = Segments::new();
    if !data.is_empty() {
        let mut buffer = sledge_reactor::memory::allocate(data.len()).expect("the host's pool is dry");
        buffer.truncate(data.len());
        buffer.copy_from_slice(data);
        segments.push(buffer).unwrap();
    }
    segments
}
