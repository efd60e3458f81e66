//! The executor: a slab of tasks and the queue of those that are ready.
//!
//! Invariants: a place's generation changes whenever its task ends, so a late wake finds nothing; a future is
//! out of its place while it is polled or dropped, so both may spawn, wake and abort anything.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::join::{JoinHandle, ResultSlot};
use super::wake::TaskWaker;
use crate::message::Inbox;

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// One reactor's tasks.
pub(crate) struct Executor {
    tasks: Rc<Tasks>,
    inbox: Arc<Inbox>,
    ready: RefCell<VecDeque<Arc<TaskWaker>>>,
}

/// The slab.
pub(super) struct Tasks {
    state: RefCell<Slab>,
}

struct Slab {
    places: Vec<Place>,
    free: Vec<u32>,
    closed: bool,
}

struct Place {
    generation: u32,
    taken: bool,
    /// Absent while the place is free or its future is being polled.
    future: Option<LocalFuture>,
    /// Absent likewise.
    waker: Option<Waker>,
}

impl Executor {
    /// An executor whose wakers end the sleep of the inbox's reactor.
    pub(crate) fn new(inbox: Arc<Inbox>) -> Executor {
        let slab = Slab { places: Vec::new(), free: Vec::new(), closed: false };
        Executor {
            tasks: Rc::new(Tasks { state: RefCell::new(slab) }),
            inbox,
            ready: RefCell::new(VecDeque::new()),
        }
    }

    /// Adds a task and makes it ready. While the reactor ends, the future is dropped instead.
    pub(crate) fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> JoinHandle<T> {
        let slot = ResultSlot::new();
        let result = slot.clone();
        let future: LocalFuture = Box::pin(async move {
            let value = future.await;
            result.finish(value);
        });
        let mut slab = self.tasks.state.borrow_mut();
        if slab.closed {
            drop(slab);
            drop(future);
            return JoinHandle::new(slot, Rc::downgrade(&self.tasks), u32::MAX, 0);
        }
        let index = match slab.free.pop() {
            Some(index) => index,
            None => {
                slab.places.push(Place { generation: 0, taken: false, future: None, waker: None });
                (slab.places.len() - 1) as u32
            }
        };
        let place = &mut slab.places[index as usize];
        let generation = place.generation;
        let waker = TaskWaker::new_queued(index, generation, self.inbox.clone());
        place.taken = true;
        place.future = Some(future);
        place.waker = Some(Waker::from(waker.clone()));
        drop(slab);
        self.push_ready(waker);
        JoinHandle::new(slot, Rc::downgrade(&self.tasks), index, generation)
    }

    /// Queues a task that was woken on its own reactor.
    pub(super) fn push_ready(&self, waker: Arc<TaskWaker>) {
        self.ready.borrow_mut().push_back(waker);
    }

    /// Whether a task is ready on this thread. Wakes from outside end the sleep by themselves.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty() || !self.inbox.ready().is_empty()
    }

    /// Polls the tasks that are ready now, `limit` at most; those that become ready meanwhile wait for the next
    /// turn. Returns how many were polled.
    pub(crate) fn run(&self, limit: usize) -> u32 {
        self.inbox.ready().take_all(|waker| self.push_ready(waker));
        let count = self.ready.borrow().len().min(limit);
        let mut polled = 0;
        for _ in 0..count {
            let Some(waker) = self.ready.borrow_mut().pop_front() else { break };
            waker.taken();
            polled += u32::from(self.tasks.poll(waker.index, waker.generation));
        }
        polled
    }

    /// Number of tasks alive.
    pub(crate) fn len(&self) -> usize {
        let slab = self.tasks.state.borrow();
        slab.places.len() - slab.free.len()
    }

    /// Drops all tasks, and refuses those spawned from now on.
    pub(crate) fn close(&self) {
        self.tasks.state.borrow_mut().closed = true;
        // None can be added from now on, so one pass finds all.
        let places = self.tasks.state.borrow().places.len() as u32;
        for index in 0..places {
            let ended = self.tasks.state.borrow_mut().end(index);
            // Outside the borrow: a future's drop may abort and wake others.
            drop(ended);
        }
        let ready = std::mem::take(&mut *self.ready.borrow_mut());
        drop(ready);
    }
}

impl Tasks {
    /// Polls one task, if it is still there. Returns whether it was.
    fn poll(&self, index: u32, generation: u32) -> bool {
        let (mut future, waker) = {
            let mut slab = self.state.borrow_mut();
            let place = &mut slab.places[index as usize];
            if place.generation != generation {
                return false;
            }
            match (place.future.take(), place.waker.take()) {
                (Some(future), Some(waker)) => (future, waker),
                _ => return false,
            }
        };
        let finished = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut slab = self.state.borrow_mut();
        let place = &mut slab.places[index as usize];
        let mut ended = None;
        if place.generation != generation {
            // Aborted by itself: the place belongs to nobody or to another task.
        } else if finished {
            ended = slab.end(index);
        } else {
            place.future = Some(future);
            place.waker = Some(waker);
            return true;
        }
        drop(slab);
        // Outside the borrow: the future's drop may abort and wake others.
        drop(ended);
        drop(future);
        true
    }

    /// Ends a task before its time.
    pub(super) fn abort(&self, index: u32, generation: u32) {
        let mut slab = self.state.borrow_mut();
        let alive = slab.places.get(index as usize).is_some_and(|place| place.generation == generation);
        if !alive {
            return;
        }
        let ended = slab.end(index);
        drop(slab);
        drop(ended);
    }
}

impl Slab {
    /// Frees a place, if it is taken; returns what must be dropped outside the borrow.
    fn end(&mut self, index: u32) -> Option<(Option<LocalFuture>, Option<Waker>)> {
        let place = &mut self.places[index as usize];
        if !place.taken {
            return None;
        }
        place.taken = false;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        Some((place.future.take(), place.waker.take()))
    }
}
