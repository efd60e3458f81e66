//! A TCP connection on one reactor.
//!
//! Invariant: a latch is true whenever a call might succeed; it is cleared only by a call that would block,
//! and set only by the backend's edges. Waiters are woken when it is set.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::ready_set::ReadySet;
use crate::backend::{DetachedOps, Readiness, ReadinessSink, StreamOps};

/// An accepted connection that belongs to no reactor yet; it may be sent to one.
pub struct DetachedStream {
    ops: Box<dyn DetachedOps>,
}

impl DetachedStream {
    /// Wraps what the backend accepted.
    pub(super) fn new(ops: Box<dyn DetachedOps>) -> DetachedStream {
        DetachedStream { ops }
    }

    /// Registers the connection with the current reactor.
    ///
    /// # Errors
    /// What the operating system says, for instance that too many files are open.
    ///
    /// # Panics
    /// Outside a reactor.
    pub fn attach(self) -> io::Result<TcpStream> {
        // Asked first, so that a call outside a reactor says so.
        crate::core::with_current(|_| ());
        TcpStream::watch(self.ops.attach()?)
    }
}

impl fmt::Debug for DetachedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedStream").finish_non_exhaustive()
    }
}

/// A TCP connection. It stays on its reactor; dropping it closes it. Nagle's algorithm is off.
pub struct TcpStream {
    ops: Box<dyn StreamOps>,
    latches: Rc<Latches>,
}

/// Readiness of one stream, and who wants to know.
struct Latches {
    readable: Cell<bool>,
    writable: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
    notify: RefCell<Option<(ReadySet, u32)>>,
}

impl ReadinessSink for Latches {
    fn ready(&self, readiness: Readiness) {
        if readiness.readable {
            self.readable.set(true);
            wake(&self.reader);
        }
        if readiness.writable {
            self.writable.set(true);
            wake(&self.writer);
        }
        if let Some((set, key)) = &*self.notify.borrow() {
            set.push(*key);
        }
    }
}

fn wake(waiter: &RefCell<Option<Waker>>) {
    let waiter = waiter.borrow_mut().take();
    if let Some(waiter) = waiter {
        waiter.wake();
    }
}

impl TcpStream {
    /// Connects to `address`.
    ///
    /// # Errors
    /// What the operating system says, for instance that the connection was refused.
    ///
    /// # Panics
    /// Outside a reactor.
    pub async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
        let ops = crate::core::with_current(|core| core.backend().clone()).connect(address)?;
        let stream = TcpStream::watch(ops)?;
        // A connection attempt has ended once the socket is writable, and not before.
        stream.latches.writable.set(false);
        stream.writable().await;
        match stream.ops.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn watch(ops: Box<dyn StreamOps>) -> io::Result<TcpStream> {
        // True until a call finds otherwise: there may have been edges before anybody watched.
        let latches = Rc::new(Latches {
            readable: Cell::new(true),
            writable: Cell::new(true),
            reader: RefCell::default(),
            writer: RefCell::default(),
            notify: RefCell::default(),
        });
        ops.watch(latches.clone())?;
        Ok(TcpStream { ops, latches })
    }

    /// Reads what has arrived. `None`: nothing now, and an edge will tell. `Some(0)`: the end of the stream.
    ///
    /// # Errors
    /// What ended the connection, for instance a reset.
    pub fn try_read(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        if !self.latches.readable.get() {
            return Ok(None);
        }
        let read = self.ops.read(buffers)?;
        if read.is_none() {
            self.latches.readable.set(false);
        }
        Ok(read)
    }

    /// Writes what fits. `None`: nothing fits now, and an edge will tell.
    ///
    /// # Errors
    /// What ended the connection, for instance a reset.
    pub fn try_write(&self, buffers: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        if !self.latches.writable.get() {
            return Ok(None);
        }
        let written = self.ops.write(buffers)?;
        if written.is_none() {
            self.latches.writable.set(false);
        }
        Ok(written)
    }

    /// Waits until reading may succeed; it may still find nothing. One waiter at a time: the latest is woken.
    pub fn readable(&self) -> Ready<'_> {
        Ready { latch: &self.latches.readable, waiter: &self.latches.reader }
    }

    /// Waits until writing may succeed; it may still find no room. One waiter at a time: the latest is woken.
    pub fn writable(&self) -> Ready<'_> {
        Ready { latch: &self.latches.writable, waiter: &self.latches.writer }
    }

    /// From now on every edge of readiness adds `key` to `set`. It is added once now, too, since edges may have
    /// come before.
    pub fn notify(&self, set: &ReadySet, key: u32) {
        *self.latches.notify.borrow_mut() = Some((set.clone(), key));
        set.push(key);
    }

    /// Ends both directions: the peer sees an end of stream, and so do we.
    ///
    /// # Errors
    /// What the operating system says, for instance that the connection has ended already.
    pub fn shutdown(&self) -> io::Result<()> {
        self.ops.shutdown()
    }

    /// Ends the connection at once. What was written and has not left yet never will, unlike after
    /// [`TcpStream::shutdown`] and a drop, after which the system goes on sending it for minutes. The peer sees a reset, or
    /// nothing if it can't be reached.
    pub fn abort(&self) {
        self.ops.abort();
    }

    /// The peer's address.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.ops.peer_addr()
    }

    /// Our own address.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.ops.local_addr()
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("readable", &self.latches.readable.get())
            .field("writable", &self.latches.writable.get())
            .finish_non_exhaustive()
    }
}

/// Future of [`TcpStream::readable`] and [`TcpStream::writable`].
#[must_use = "waiting does nothing unless awaited"]
pub struct Ready<'a> {
    latch: &'a Cell<bool>,
    waiter: &'a RefCell<Option<Waker>>,
}

impl Future for Ready<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.latch.get() {
            return Poll::Ready(());
        }
        let old = self.waiter.replace(Some(context.waker().clone()));
        drop(old);
        Poll::Pending
    }
}

impl fmt::Debug for Ready<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("latch", &self.latch.get()).finish_non_exhaustive()
    }
}
