//! io_uring as the driver of the disk engine: one ring per reactor, submitted once a turn, reaped from shared
//! memory.
//!
//! Invariant: at most [`TABLE`] calls are in the ring, so its completion queue never overflows.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use super::engine::{Driver, TABLE};
use super::transfer::{Call, CallKind, Slices};

/// Submissions collected before the kernel is asked in the middle of a turn.
const SUBMISSIONS: u32 = 256;

/// Completions signal the event only while the reactor sleeps. Elsewhere than on x86-64 they always do: turning
/// the signal on needs the kernel to look at the switch after it published the completion, with a full barrier
/// in between, which is plain to see only where atomic operations are barriers.
const QUIET_WHILE_AWAKE: bool = cfg!(target_arch = "x86_64");

/// A reactor's io_uring.
pub(super) struct Ring {
    uring: IoUring,
}

impl Ring {
    /// Makes a ring on the thread that will use it. Completions signal the eventfd `event` while the reactor
    /// sleeps.
    pub(super) fn new(event: RawFd) -> io::Result<Ring> {
        let uring = build()?;
        uring.submitter().register_eventfd(event)?;
        let mut ring = Ring { uring };
        ring.after_sleep();
        Ok(ring)
    }

    fn push_entry(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: the entry points to slices and memory of a place in the engine's table, which stays until
            // the completion is reaped; the descriptor is open as long as that place's queue is held there.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return;
            }
            // Full: hand over what is there. The kernel copies entries, so this makes room.
            self.flush();
        }
    }
}

/// The best kind of ring that this kernel has.
fn build() -> io::Result<IoUring> {
    let base = || {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(TABLE as u32).dontfork();
        builder
    };
    // Linux 6.1: completion work runs only when this thread asks for it, never in the middle of a turn.
    let mut deferred = base();
    deferred.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    // Linux 5.19: it runs with this thread's next system call, without an interrupt.
    let mut cooperative = base();
    cooperative.setup_coop_taskrun().setup_taskrun_flag();
    let mut error = None;
    for builder in [deferred, cooperative, base()] {
        match builder.build(SUBMISSIONS) {
            Ok(uring) => return Ok(uring),
            Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => error = Some(refused),
            Err(refused) => return Err(refused),
        }
    }
    Err(error.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
}

impl Driver for Ring {
    fn push(&mut self, index: u32, call: &Call, slices: &Slices) {
        let descriptor = types::Fd(call.descriptor);
        let first = slices[0];
        let entry = match call.kind {
            CallKind::Read(1) => opcode::Read::new(descriptor, first.iov_base.cast(), first.iov_len as u32)
                .offset(call.offset)
                .build(),
            CallKind::Read(count) => {
                opcode::Readv::new(descriptor, slices.as_ptr(), count as u32).offset(call.offset).build()
            }
            CallKind::Write(1, durable) => {
                opcode::Write::new(descriptor, first.iov_base.cast(), first.iov_len as u32)
                    .offset(call.offset)
                    .rw_flags(write_flags(durable))
                    .build()
            }
            CallKind::Write(count, durable) => opcode::Writev::new(descriptor, slices.as_ptr(), count as u32)
                .offset(call.offset)
                .rw_flags(write_flags(durable))
                .build(),
            CallKind::Sync => opcode::Fsync::new(descriptor).flags(types::FsyncFlags::DATASYNC).build(),
            CallKind::Allocate(mode, len) => {
                opcode::Fallocate::new(descriptor, len).offset(call.offset).mode(mode).build()
            }
        };
        self.push_entry(&entry.user_data(u64::from(index)));
    }

    fn flush(&mut self) {
        loop {
            match self.uring.submit() {
                Ok(_) if self.uring.submission().is_empty() => return,
                Ok(_) => {}
                // Not taken for now, or interrupted: once more. The kernel frees what it lacks by itself.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => {}
                Err(error) => {
                    // Nothing that this code submits is refused as a whole: the ring itself is broken, and with
                    // it every request. There is no state to go on from.
                    panic!("io_uring takes no submissions any more: {error}");
                }
            }
        }
    }

    fn reap(&mut self, ended: &mut Vec<(u32, i32)>) {
        let wants_entering = {
            let submission = self.uring.submission();
            submission.taskrun() || submission.cq_overflow()
        };
        if wants_entering {
            // Runs the completion work that waits for this thread. An error leaves it for the next turn.
            let _ = self.uring.submit();
        }
        for entry in self.uring.completion() {
            ended.push((entry.user_data() as u32, entry.result()));
        }
    }

    fn before_sleep(&mut self) -> bool {
        self.uring.completion().enable_eventfd();
        // Between the switch and the look: a completion that does not see the switch is seen here.
        fence(Ordering::SeqCst);
        let submission = self.uring.submission();
        let nothing_waits = !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        nothing_waits && self.uring.completion().is_empty()
    }

    fn after_sleep(&mut self) {
        if QUIET_WHILE_AWAKE {
            self.uring.completion().disable_eventfd();
        }
    }

    fn wait(&mut self, limit: Duration) {
        let limit = types::Timespec::from(limit);
        let arguments = types::SubmitArgs::new().timespec(&limit);
        // An error is a timeout or a signal: the caller looks and decides.
        let _ = self.uring.submitter().submit_with_args(1, &arguments);
    }
}

fn write_flags(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}
