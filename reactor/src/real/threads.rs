//! Blocking threads as the driver of the disk engine, where the kernel refuses io_uring.
//!
//! Owns a few threads per reactor. Invariant: a call is in the queue, with one thread, or in the list of ended
//! ones; the engine keeps its memory until it is reaped. Slower than a ring, but the same in behaviour.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::engine::{Driver, TABLE, Waited};
use super::poll::Poll;
use super::transfer::{Call, CallKind, Slices};
use super::wake::RealWaker;
use crate::backend::Wake;

/// Calls that run at once.
const THREADS: usize = 4;

/// A reactor's blocking threads.
pub(super) struct Threads {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A call was queued, or it is time to end.
    work: Condvar,
    /// A call has ended.
    ended: Condvar,
    waker: Arc<RealWaker>,
}

struct State {
    queue: VecDeque<Job>,
    ended: Vec<(u32, i32)>,
    stop: bool,
}

struct Job {
    index: u32,
    call: Call,
    slices: Slices,
}

// SAFETY: the slices point to memory that the engine sets aside for this call until it is reaped; no other
// thread touches it meanwhile.
unsafe impl Send for Job {}

impl Threads {
    /// Starts the threads.
    pub(super) fn new(waker: Arc<RealWaker>) -> io::Result<Threads> {
        let state =
            State { queue: VecDeque::with_capacity(TABLE), ended: Vec::with_capacity(TABLE), stop: false };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), ended: Condvar::new(), waker });
        let threads = Threads { shared: shared.clone() };
        for _ in 0..THREADS {
            let shared = shared.clone();
            std::thread::Builder::new().name("disk".to_owned()).spawn(move || shared.run())?;
        }
        Ok(threads)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.queue.pop_front() {
                drop(state);
                let result = carry_out(&job);
                state = self.state();
                state.ended.push((job.index, result));
                drop(state);
                self.ended.notify_one();
                self.waker.wake();
                state = self.state();
            } else if state.stop {
                return;
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Makes the call; the result is as io_uring gives it.
fn carry_out(job: &Job) -> i32 {
    let Job { call, slices, .. } = job;
    let offset = call.offset as libc::off_t;
    // SAFETY: the descriptor is open and the slices are valid until the call was reaped, both by the engine's
    // table.
    let result = unsafe {
        match call.kind {
            CallKind::Read(count) => {
                libc::preadv(call.descriptor, slices.as_ptr(), count as libc::c_int, offset)
            }
            CallKind::Write(count, durable) => libc::pwritev2(
                call.descriptor,
                slices.as_ptr(),
                count as libc::c_int,
                offset,
                if durable { libc::RWF_DSYNC } else { 0 },
            ),
            CallKind::Sync => libc::fdatasync(call.descriptor) as isize,
            CallKind::Allocate(mode, len) => {
                libc::fallocate(call.descriptor, mode, offset, len as libc::off_t) as isize
            }
            CallKind::Discard(len) => {
                // _IO(0x12, 119), which libc does not name; takes two u64, offset and length.
                const BLKDISCARD: libc::Ioctl = 0x1277;
                libc::ioctl(call.descriptor, BLKDISCARD, &[call.offset, len]) as isize
            }
        }
    };
    if result < 0 {
        return -io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
    }
    result as i32
}

impl Driver for Threads {
    fn push(&mut self, index: u32, call: &Call, slices: &Slices) {
        self.shared.state().queue.push_back(Job { index, call: *call, slices: *slices });
    }

    fn flush(&mut self) {
        self.shared.work.notify_all();
    }

    fn reap(&mut self, ended: &mut Vec<(u32, i32)>) {
        ended.append(&mut self.shared.state().ended);
    }

    fn sleep(&mut self, poll: &Poll, timeout: Option<Duration>, _waited: Waited) {
        // What ends from now on notifies the waker, which ends the wait.
        if self.shared.state().ended.is_empty() {
            poll.wait(timeout);
        }
    }

    fn wait(&mut self, limit: Duration) {
        let state = self.shared.state();
        if state.ended.is_empty() {
            drop(self.shared.ended.wait_timeout(state, limit));
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.work.notify_all();
    }
}
