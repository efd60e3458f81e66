//! The kernel as a reactor's world.
//!
//! Owns the reactor's epoll and, once a disk was opened, its disk engine. One system call a turn while nothing
//! happens; one sleep that ends with a socket, a disk completion, a message or the timeout.

use std::cell::{Cell, OnceCell};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::engine::Engine;
use super::poll::Poll;
use super::socket::{RealListener, RealStream};
use super::wake::RealWaker;
use crate::backend::{Backend, DiskQueueOps, ListenerOps, StreamOps};
use crate::disk::{Disk, DiskOptions};
use crate::time::Instant;

/// The world of a reactor on a thread of its own. Made on that thread.
pub(crate) struct RealBackend {
    poll: Rc<Poll>,
    waker: Arc<RealWaker>,
    engine: OnceCell<Rc<Engine>>,
    random: Cell<u64>,
}

impl RealBackend {
    /// Makes the world of this thread's reactor.
    pub(crate) fn new(waker: Arc<RealWaker>) -> io::Result<RealBackend> {
        let poll = Poll::new()?;
        poll.register_wake(waker.descriptor())?;
        Ok(RealBackend { poll, waker, engine: OnceCell::new(), random: Cell::new(seed()?) })
    }

    /// Whether disk requests in flight may wait for this core, which a reactor that has nothing to do should then leave
    /// to them: a file system ends each write on a kernel thread of the core that the disk interrupts, often this one.
    pub(crate) fn should_give_way(&self) -> bool {
        self.engine.get().is_some_and(|engine| engine.waits_for_threads())
    }

    /// The disk engine, made when it is first asked for: a machine that refuses it still serves memory.
    fn engine(&self) -> io::Result<&Rc<Engine>> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::new(&self.waker)?;
        Ok(self.engine.get_or_init(|| engine))
    }
}

impl Backend for RealBackend {
    fn clock(&self) -> Instant {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is ours to write. The clock exists on every Linux, so the call can't fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
        Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    fn random_u64(&self) -> u64 {
        // SplitMix64 from a seed of the kernel's: fast and well spread; not for secrets.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn collect(&self) -> usize {
        self.waker.rest().begin_turn();
        let Some(engine) = self.engine.get() else { return self.poll.dispatch() };
        let completions = engine.reap();
        if engine.knows_epoll_quiet() {
            return completions;
        }
        completions + self.poll.dispatch()
    }

    fn flush(&self) {
        if let Some(engine) = self.engine.get() {
            engine.flush();
        }
    }

    fn sleep(&self, timeout: Option<Duration>) {
        if !self.waker.rest().try_sleep() {
            return;
        }
        // The turn that follows ends the rest, whatever ended the wait.
        match self.engine.get() {
            None => self.poll.wait(timeout),
            Some(engine) => engine.sleep(&self.poll, timeout),
        }
    }

    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn ListenerOps>> {
        Ok(Box::new(RealListener::bind(&self.poll, address)?))
    }

    fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn StreamOps>> {
        Ok(Box::new(RealStream::connect(&self.poll, address)?))
    }

    fn open_disk(&self, path: &Path, options: &DiskOptions) -> io::Result<Disk> {
        super::file::open_disk(path, options)
    }

    fn disk_queue(&self, disk: &Disk) -> io::Result<Box<dyn DiskQueueOps>> {
        self.engine()?.open_queue(disk)
    }
}

impl Drop for RealBackend {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.get() {
            engine.drain();
        }
    }
}

/// A number that differs from run to run and from reactor to reactor.
fn seed() -> io::Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: `bytes` is ours to write, 8 bytes of it.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got != bytes.len() as isize {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from_ne_bytes(bytes))
}
