//! The disk engine of one reactor: a fixed table of requests in flight, and the driver that carries them out.
//!
//! Owns every request from submission to completion. Invariants: a place of the table is in place (the table
//! never moves or grows) from the moment its call was handed to the driver until the driver reports it, so the
//! kernel never sees memory that was given back; nothing is allocated per request. Called by the backend
//! (`reap`, `flush`, sleep) and by queues (`submit`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::file::{KernelThreads, RealFile};
use super::poll::Poll;
use super::registered::Range;
use super::ring::Ring;
use super::threads::Threads;
use super::transfer::{Call, NO_SLICES, Next, Slices, Transfer};
use super::wake::RealWaker;
use crate::backend::DiskQueueOps;
use crate::disk::{Disk, DiskCompletion, DiskRequest, QUEUE_DEPTH};

/// Requests in flight on one reactor, over all its queues.
pub(super) const TABLE: usize = 2048;
/// How long the reactor's end waits for requests in flight.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// What a sleeping reactor waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    /// Calls in flight.
    pub in_flight: usize,
    /// Whether threads of the kernel have a part in some of them, perhaps on this core.
    pub on_threads: bool,
}

/// Carries out calls: the kernel's ring, or blocking threads where the ring is refused.
pub(super) trait Driver {
    /// Takes a call for the place `index`, whose slices stay in place until it is reported. At most [`TABLE`]
    /// are taken at once.
    fn push(&mut self, index: u32, call: &Call, slices: &Slices);
    /// Makes a file, open until `close_file`, faster to use; `None` when there is no such way. Gives its place, for
    /// [`Call::place`].
    fn open_file(&mut self, _descriptor: RawFd) -> Option<u32> {
        None
    }
    /// Ends what `open_file` began. No call has this place any more.
    fn close_file(&mut self, _place: u32) {}
    /// Starts what was pushed.
    fn flush(&mut self);
    /// Appends (index, result) of calls that have ended; a negative result is `-errno`.
    fn reap(&mut self, ended: &mut Vec<(u32, i32)>);
    /// Waits until something has ended, or the epoll has events, or for `timeout`.
    fn sleep(&mut self, poll: &Poll, timeout: Option<Duration>, waited: Waited);
    /// Whether the epoll had no events at the latest `reap`; false when that is not known.
    fn knows_epoll_quiet(&mut self) -> bool {
        false
    }
    /// Blocks until something has ended, or for `limit`. Only for the reactor's end.
    fn wait(&mut self, limit: Duration);
}

/// One reactor's disk engine.
pub(super) struct Engine {
    inner: RefCell<Inner>,
    in_flight: Cell<usize>,
    /// Of those, the ones that threads of the kernel have a part in.
    with_threads: Cell<usize>,
    unflushed: Cell<bool>,
    finished: RefCell<Vec<(Transfer, io::Result<usize>)>>,
}

struct Inner {
    driver: Box<dyn Driver>,
    table: Box<[Place]>,
    free: Vec<u32>,
    ended: Vec<(u32, i32)>,
}

struct Place {
    transfer: Option<Transfer>,
    slices: Slices,
}

impl Engine {
    /// Makes the engine of this thread's reactor.
    pub(super) fn new(waker: &Arc<RealWaker>) -> io::Result<Rc<Engine>> {
        let memory = crate::core::try_with_current(|core| core.memory().ranges());
        let memory = memory.map(|ranges| ranges.map(|(start, len)| Range { start, len }));
        let memory = memory.as_ref().map_or(&[][..], |ranges| ranges);
        let driver: Box<dyn Driver> = match Ring::new(memory) {
            Ok(ring) => Box::new(ring),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "the kernel refuses io_uring (sysctl kernel.io_uring_disabled, the container's seccomp profile, or \
                     too little memory that may be locked: ulimit -l); disks go through blocking threads, slower"
                );
                Box::new(Threads::new(waker.clone())?)
            }
        };
        Ok(Engine::over(driver))
    }

    /// An engine over a driver.
    pub(super) fn over(driver: Box<dyn Driver>) -> Rc<Engine> {
        let table = (0..TABLE).map(|_| Place { transfer: None, slices: NO_SLICES }).collect();
        let inner = Inner {
            driver,
            table,
            free: (0..TABLE as u32).rev().collect(),
            ended: Vec::with_capacity(TABLE),
        };
        Rc::new(Engine {
            inner: RefCell::new(inner),
            in_flight: Cell::new(0),
            with_threads: Cell::new(0),
            unflushed: Cell::new(false),
            finished: RefCell::new(Vec::with_capacity(TABLE)),
        })
    }

    /// Opens a queue on a disk.
    pub(super) fn open_queue(self: &Rc<Self>, disk: &Disk) -> io::Result<Box<dyn DiskQueueOps>> {
        let Some(file) = disk.medium::<Arc<RealFile>>() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the disk belongs to another world"));
        };
        let shared = QueueShared {
            file: file.clone(),
            place: self.inner.borrow_mut().driver.open_file(file.descriptor()),
            engine: Rc::downgrade(self),
            outstanding: Cell::new(0),
            done: RefCell::new(Vec::with_capacity(64)),
        };
        Ok(Box::new(RealQueue {
            engine: self.clone(),
            shared: Rc::new(shared),
            len_bytes: disk.len_bytes(),
            read_only: disk.is_read_only(),
        }))
    }

    #[allow(clippy::result_large_err)]
    fn submit(&self, request: DiskRequest, queue: &Rc<QueueShared>) -> Result<(), DiskRequest> {
        let mut inner = self.inner.borrow_mut();
        let Some(index) = inner.free.pop() else { return Err(request) };
        let Inner { driver, table, .. } = &mut *inner;
        let place = &mut table[index as usize];
        let transfer = place.transfer.insert(Transfer::new(request, queue.clone()));
        if transfer.needs_threads() {
            self.with_threads.set(self.with_threads.get() + 1);
        }
        let call = transfer.call(&mut place.slices);
        driver.push(index, &call, &place.slices);
        self.in_flight.set(self.in_flight.get() + 1);
        self.unflushed.set(true);
        Ok(())
    }

    /// Hands what has ended to its queues; returns how many requests ended.
    pub(super) fn reap(&self) -> usize {
        if self.in_flight.get() == 0 {
            return 0;
        }
        let mut finished = self.finished.take();
        {
            let mut inner = self.inner.borrow_mut();
            let Inner { driver, table, free, ended } = &mut *inner;
            driver.reap(ended);
            for (index, result) in ended.drain(..) {
                let place = &mut table[index as usize];
                let Some(transfer) = &mut place.transfer else { continue };
                match transfer.advance(result) {
                    Next::Again => {
                        let call = transfer.call(&mut place.slices);
                        driver.push(index, &call, &place.slices);
                        self.unflushed.set(true);
                    }
                    Next::Finished(result) => {
                        if let Some(transfer) = place.transfer.take() {
                            if transfer.needs_threads() {
                                self.with_threads.set(self.with_threads.get() - 1);
                            }
                            finished.push((transfer, result));
                        }
                        free.push(index);
                    }
                }
            }
        }
        let count = finished.len();
        self.in_flight.set(self.in_flight.get() - count);
        // Outside the borrow: memory of a dropped queue goes back to owners that may submit again.
        for (transfer, result) in finished.drain(..) {
            transfer.deliver(result);
        }
        self.finished.replace(finished);
        count
    }

    /// Starts what was submitted.
    pub(super) fn flush(&self) {
        if self.unflushed.take() {
            self.inner.borrow_mut().driver.flush();
        }
    }

    /// Whether requests in flight may wait for this core.
    pub(super) fn waits_for_threads(&self) -> bool {
        self.with_threads.get() > 0
    }

    /// Waits until a request has ended, or the epoll has events, or for `timeout`.
    pub(super) fn sleep(&self, poll: &Poll, timeout: Option<Duration>) {
        if self.in_flight.get() == 0 {
            poll.wait(timeout);
        } else {
            let waited = Waited { in_flight: self.in_flight.get(), on_threads: self.waits_for_threads() };
            self.inner.borrow_mut().driver.sleep(poll, timeout, waited);
        }
    }

    /// Whether the epoll had no events at the latest `reap`, so that it need not be asked; false when that is not
    /// known.
    pub(super) fn knows_epoll_quiet(&self) -> bool {
        self.in_flight.get() > 0 && self.inner.borrow_mut().driver.knows_epoll_quiet()
    }

    /// Waits, at the reactor's end, until nothing is in flight.
    pub(super) fn drain(self: &Rc<Self>) {
        let start = std::time::Instant::now();
        self.unflushed.set(true);
        loop {
            self.flush();
            self.reap();
            if self.in_flight.get() == 0 {
                return;
            }
            let Some(left) = DRAIN_LIMIT.checked_sub(start.elapsed()) else { break };
            self.inner.borrow_mut().driver.wait(left);
        }
        tracing::error!(
            requests = self.in_flight.get(),
            "a disk does not answer at the reactor's end; the memory of its requests is left to it"
        );
        // The kernel may still write there: never unmap or reuse it.
        std::mem::forget(self.clone());
    }
}

/// What a queue shares with its requests in flight.
pub(super) struct QueueShared {
    file: Arc<RealFile>,
    /// The file's place with the driver.
    place: Option<u32>,
    engine: Weak<Engine>,
    outstanding: Cell<usize>,
    done: RefCell<Vec<DiskCompletion>>,
}

impl QueueShared {
    /// The open file.
    pub(super) fn descriptor(&self) -> RawFd {
        self.file.descriptor()
    }

    /// The file's place with the driver, if it has one.
    pub(super) fn place(&self) -> Option<u32> {
        self.place
    }

    /// Which transfers threads of the kernel have a part in.
    pub(super) fn threads(&self) -> KernelThreads {
        self.file.threads()
    }

    /// Whether it is on a block device rather than a file.
    pub(super) fn is_on_block_device(&self) -> bool {
        self.file.is_block_device()
    }

    /// Length in bytes at this moment; 0 when it can't be told. For what has failed.
    #[cold]
    pub(super) fn len_now(&self) -> u64 {
        self.file.measure().map_or(0, |(len_bytes, _)| len_bytes)
    }

    /// Keeps a completion for `poll`.
    pub(super) fn deliver(&self, completion: DiskCompletion) {
        self.done.borrow_mut().push(completion);
    }
}

impl Drop for QueueShared {
    fn drop(&mut self) {
        // Without an engine its driver is gone, and all of its places.
        if let (Some(place), Some(engine)) = (self.place, self.engine.upgrade()) {
            engine.inner.borrow_mut().driver.close_file(place);
        }
    }
}

impl fmt::Debug for QueueShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueShared").field("outstanding", &self.outstanding.get()).finish_non_exhaustive()
    }
}

/// One reactor's queue on one file or block device.
struct RealQueue {
    engine: Rc<Engine>,
    shared: Rc<QueueShared>,
    len_bytes: u64,
    read_only: bool,
}

impl DiskQueueOps for RealQueue {
    fn submit(&mut self, request: DiskRequest) -> Result<(), DiskRequest> {
        if self.shared.outstanding.get() >= QUEUE_DEPTH {
            return Err(request);
        }
        let nothing_to_do = request.length == 0 && request.operation != crate::disk::DiskOperation::Flush;
        match Transfer::check(&request, self.len_bytes, self.read_only) {
            Ok(()) if !nothing_to_do => self.engine.submit(request, &self.shared)?,
            // Found by the next `poll`: whoever submits has done work, so another turn follows.
            checked => Transfer::new(request, self.shared.clone()).deliver(checked.map(|()| 0)),
        }
        self.shared.outstanding.set(self.shared.outstanding.get() + 1);
        Ok(())
    }

    fn poll(&mut self, done: &mut Vec<DiskCompletion>) {
        let mut completed = self.shared.done.borrow_mut();
        self.shared.outstanding.set(self.shared.outstanding.get() - completed.len());
        done.append(&mut completed);
    }

    fn outstanding(&self) -> usize {
        self.shared.outstanding.get()
    }
}
