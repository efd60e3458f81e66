//! io_uring as the driver of the disk engine: one ring per reactor, submitted once a turn, reaped from shared
//! memory.
//!
//! Invariants: at most [`TABLE`] calls and one wait for the epoll are in the ring, so its completion queue never
//! overflows; while that wait lasts, the epoll has no events.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use super::engine::{Driver, TABLE, Waited};
use super::patience::{MOST_WAIT_US, Patience, Slept};
use super::poll::Poll;
use super::registered::{Range, Registered};
use super::transfer::{Call, CallKind, Slices};

/// Submissions collected before the kernel is asked in the middle of a turn.
const SUBMISSIONS: u32 = 256;

/// Calls that are started together in the middle of a turn: a disk that has nothing to do begins with the first ones
/// while the others are prepared. It need not be told again while it is at work, so further calls cost little.
const STARTED_AT_ONCE: usize = 4;

/// What tells the end of the wait for the epoll from the ends of calls.
const EPOLL: u64 = u64::MAX;

/// `_IO(0x12, 0)`: a block device's discard, Linux 6.12.
const BLOCK_URING_CMD_DISCARD: u32 = 0x1200;

/// The submission of a call on a file; a macro, since the crate's trait of what is a file has no name.
macro_rules! entry {
    ($file:expr, $call:expr, $slices:expr, $buffer:expr) => {{
        let (file, call, slices) = ($file, $call, $slices);
        let (start, len) = (slices[0].iov_base.cast::<u8>(), slices[0].iov_len as u32);
        match (call.kind, $buffer) {
            (CallKind::Read(_), Some(buffer)) => {
                opcode::ReadFixed::new(file, start, len, buffer).offset(call.offset).build()
            }
            (CallKind::Write(_, durable), Some(buffer)) => opcode::WriteFixed::new(file, start, len, buffer)
                .offset(call.offset)
                .rw_flags(write_flags(durable))
                .build(),
            (CallKind::Read(1), None) => opcode::Read::new(file, start, len).offset(call.offset).build(),
            (CallKind::Read(count), None) => {
                opcode::Readv::new(file, slices.as_ptr(), count as u32).offset(call.offset).build()
            }
            (CallKind::Write(1, durable), None) => opcode::Write::new(file, start, len)
                .offset(call.offset)
                .rw_flags(write_flags(durable))
                .build(),
            (CallKind::Write(count, durable), None) => {
                opcode::Writev::new(file, slices.as_ptr(), count as u32)
                    .offset(call.offset)
                    .rw_flags(write_flags(durable))
                    .build()
            }
            (CallKind::Sync, _) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            (CallKind::Allocate(mode, len), _) => {
                opcode::Fallocate::new(file, len).offset(call.offset).mode(mode).build()
            }
            (CallKind::Discard(len), _) => opcode::UringCmd16::new(file, BLOCK_URING_CMD_DISCARD)
                .addr(Some(call.offset))
                .cmd(discard_command(len))
                .build(),
        }
    }};
}

/// A reactor's io_uring.
pub(super) struct Ring {
    uring: IoUring,
    registered: Registered,
    /// Whether the kernel has been asked to tell when the epoll has events, and has not yet.
    watches_epoll: bool,
    /// Calls taken since the kernel was told of some.
    unstarted: usize,
    patience: Patience,
}

impl Ring {
    /// Makes a ring on the thread that will use it. Transfers to and from `memory` are faster than others.
    pub(super) fn new(memory: &[Range]) -> io::Result<Ring> {
        let uring = build()?;
        let registered = Registered::new(&uring.submitter(), memory);
        Ok(Ring { uring, registered, watches_epoll: false, unstarted: 0, patience: Patience::new() })
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
        builder.setup_cqsize(TABLE as u32 + 1).dontfork();
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
            // Linux 5.11: waits may be limited.
            Ok(uring) if uring.params().is_feature_ext_arg() => return Ok(uring),
            Ok(_) => return Err(io::ErrorKind::Unsupported.into()),
            Err(refused) if refused.raw_os_error() == Some(libc::EINVAL) => error = Some(refused),
            Err(refused) => return Err(refused),
        }
    }
    Err(error.unwrap_or_else(|| io::ErrorKind::Unsupported.into()))
}

impl Driver for Ring {
    fn push(&mut self, index: u32, call: &Call, slices: &Slices) {
        let first = slices[0];
        let buffer = match call.kind {
            CallKind::Read(1) | CallKind::Write(1, _) => {
                self.registered.buffer(&self.uring.submitter(), first.iov_base.cast(), first.iov_len)
            }
            _ => None,
        };
        let entry = match call.place {
            Some(place) => entry!(types::Fixed(place), call, slices, buffer),
            None => entry!(types::Fd(call.descriptor), call, slices, buffer),
        };
        self.push_entry(&entry.user_data(u64::from(index)));
        self.unstarted += 1;
        if self.unstarted >= STARTED_AT_ONCE {
            self.flush();
        }
    }

    fn open_file(&mut self, descriptor: RawFd) -> Option<u32> {
        self.registered.open_file(&self.uring.submitter(), descriptor)
    }

    fn close_file(&mut self, place: u32) {
        self.registered.close_file(&self.uring.submitter(), place);
    }

    fn flush(&mut self) {
        self.unstarted = 0;
        if self.uring.submission().is_empty() {
            return;
        }
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
            match entry.user_data() {
                EPOLL => self.watches_epoll = false,
                index => ended.push((index as u32, entry.result())),
            }
        }
    }

    fn sleep(&mut self, poll: &Poll, timeout: Option<Duration>, waited: Waited) {
        if !self.watches_epoll {
            self.watches_epoll = true;
            let readable = opcode::PollAdd::new(types::Fd(poll.descriptor()), libc::POLLIN as u32);
            self.push_entry(&readable.build().user_data(EPOLL));
        }
        // A timer that is due sooner is not kept waiting.
        let soon = timeout.is_some_and(|timeout| timeout.as_micros() < u128::from(MOST_WAIT_US));
        // Linux 6.12.
        let patient = waited.on_threads && !soon && self.uring.params().is_feature_min_timeout();
        let wanted = if patient { self.patience.wanted(waited.in_flight) } else { 1 };
        let mut arguments = types::SubmitArgs::new();
        if wanted > 1 {
            arguments = arguments.min_wait_usec(MOST_WAIT_US);
        }
        let limit = timeout.map(types::Timespec::from);
        // An error is a timeout or a signal. Whatever has ended before ends this wait at once, if it is enough.
        let _ = match &limit {
            Some(limit) => self.uring.submitter().submit_with_args(wanted, &arguments.timespec(limit)),
            None => self.uring.submitter().submit_with_args(wanted, &arguments),
        };
        if patient {
            let came = self.uring.completion().len();
            self.patience.learn(Slept { wanted, came });
        }
    }

    fn knows_epoll_quiet(&mut self) -> bool {
        self.watches_epoll && self.uring.submission().is_empty()
    }

    fn wait(&mut self, limit: Duration) {
        let limit = types::Timespec::from(limit);
        let arguments = types::SubmitArgs::new().timespec(&limit);
        // An error is a timeout or a signal: the caller looks and decides.
        let _ = self.uring.submitter().submit_with_args(1, &arguments);
    }
}

/// What a discard has beside its offset: the length, where a submission's third address is.
fn discard_command(len: u64) -> [u8; 16] {
    let mut command = [0; 16];
    command[..8].copy_from_slice(&len.to_ne_bytes());
    command
}

fn write_flags(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}
