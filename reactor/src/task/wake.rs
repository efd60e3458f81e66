//! Wakers of tasks, usable from any thread.
//!
//! A wake on the task's own reactor appends to the local queue; one from anywhere else pushes onto a lock-free
//! stack and ends the reactor's sleep. Invariants: `queued` is true from a wake until the executor takes the
//! task, so one task is linked into at most one queue at a time and its `next` pointer has one user; pushing
//! never allocates.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::task::Wake;

use crate::message::Inbox;

/// What the waker of one task points to.
pub(crate) struct TaskWaker {
    /// The task's place in its executor.
    pub(super) index: u32,
    /// Tells whether that place still holds the same task.
    pub(super) generation: u32,
    inbox: Arc<Inbox>,
    queued: AtomicBool,
    /// The next entry of the stack while pushed there.
    next: AtomicPtr<TaskWaker>,
}

impl TaskWaker {
    /// A waker that counts as queued: the executor queues a new task itself.
    pub(super) fn new_queued(index: u32, generation: u32, inbox: Arc<Inbox>) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            index,
            generation,
            inbox,
            queued: AtomicBool::new(true),
            next: AtomicPtr::new(ptr::null_mut()),
        })
    }

    /// From now on a wake queues the task again. Called before the task is polled.
    pub(super) fn taken(&self) {
        // A swap and not a store: it reads the flag that the latest waker set, so what that waker wrote before
        // is visible to the poll that follows, even of a wake that found the flag set and did not queue.
        self.queued.swap(false, Ordering::AcqRel);
    }

    /// Queues the task where its executor finds it. The caller has just set `queued`.
    fn enqueue(self: Arc<Self>) {
        let mut waker = Some(self);
        crate::core::try_with_current(|core| {
            if waker.as_ref().is_some_and(|waker| Arc::ptr_eq(&waker.inbox, core.handle().inbox()))
                && let Some(waker) = waker.take()
            {
                core.executor().push_ready(waker);
            }
        });
        if let Some(waker) = waker {
            let inbox = waker.inbox.clone();
            inbox.push_ready(waker);
        }
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        // When it is queued already, this swap orders our writes before the executor's `taken`.
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.enqueue();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.clone().enqueue();
        }
    }
}

/// A lock-free stack of woken tasks: any thread pushes, the owner takes all at once.
///
/// Since entries leave only all together, there is no ABA problem: a push whose compare-exchange succeeds
/// links to the head as it is at that moment, whatever happened in between.
pub(crate) struct ReadyStack {
    head: AtomicPtr<TaskWaker>,
}

impl ReadyStack {
    /// An empty stack.
    pub(crate) fn new() -> ReadyStack {
        ReadyStack { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Whether nothing is on it, as far as this thread can tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Acquire).is_null()
    }

    /// Pushes a task, which the caller has just marked as queued.
    pub(crate) fn push(&self, waker: Arc<TaskWaker>) {
        let entry = Arc::into_raw(waker).cast_mut();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: `entry` came from `into_raw` just now, and its reference is not given up before the
            // owner takes it off the stack, so it is alive. `queued` makes us the only user of `next`.
            unsafe { (*entry).next.store(head, Ordering::Relaxed) };
            match self.head.compare_exchange_weak(head, entry, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(current) => head = current,
            }
        }
    }

    /// Takes all entries and hands them over, oldest first.
    pub(crate) fn take_all(&self, mut each: impl FnMut(Arc<TaskWaker>)) {
        if self.is_empty() {
            return;
        }
        let mut entry = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        let mut oldest: *mut TaskWaker = ptr::null_mut();
        while !entry.is_null() {
            // SAFETY: entries on the stack hold a reference each and are alive; after the swap they are ours
            // alone, and the acquire made their `next` visible.
            let next = unsafe { (*entry).next.swap(oldest, Ordering::Relaxed) };
            oldest = entry;
            entry = next;
        }
        while !oldest.is_null() {
            // SAFETY: as above; `from_raw` takes over the reference that `push` gave up, once per entry. The
            // next pointer is read before that.
            let waker = unsafe {
                let next = (*oldest).next.swap(ptr::null_mut(), Ordering::Relaxed);
                let waker = Arc::from_raw(oldest);
                oldest = next;
                waker
            };
            each(waker);
        }
    }
}

impl Drop for ReadyStack {
    fn drop(&mut self) {
        self.take_all(drop);
    }
}
