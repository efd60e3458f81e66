//! A listening socket on one reactor.
//!
//! Invariant: the latch is true whenever a connection might wait; only an accept that would block clears it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::stream::DetachedStream;
use crate::backend::{ListenerOps, Readiness, ReadinessSink};

/// A listening socket. It stays on its reactor; dropping it closes it.
pub struct TcpListener {
    ops: Box<dyn ListenerOps>,
    latch: Rc<Latch>,
}

struct Latch {
    ready: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl ReadinessSink for Latch {
    fn ready(&self, readiness: Readiness) {
        if readiness.readable {
            self.ready.set(true);
            let waiter = self.waiter.borrow_mut().take();
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }
}

impl TcpListener {
    /// Listens on `address`, with address reuse, IPv6 alone for an IPv6 address, and a backlog of 1024. Port 0
    /// lets the system choose.
    ///
    /// # Errors
    /// What the operating system says, for instance that the address is in use.
    ///
    /// # Panics
    /// Outside a reactor.
    pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        let ops = crate::core::with_current(|core| core.backend().clone()).listen(address)?;
        let latch = Rc::new(Latch { ready: Cell::new(true), waiter: RefCell::default() });
        ops.watch(latch.clone())?;
        Ok(TcpListener { ops, latch })
    }

    /// The bound address, with the port that was chosen.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.ops.local_addr()
    }

    /// Takes a waiting connection; `None` when there is none now.
    ///
    /// # Errors
    /// What the operating system says, for instance that too many files are open. The connection then still
    /// waits: pause before the next attempt.
    pub fn try_accept(&self) -> io::Result<Option<(DetachedStream, SocketAddr)>> {
        if !self.latch.ready.get() {
            return Ok(None);
        }
        match self.ops.accept()? {
            Some((ops, peer)) => Ok(Some((DetachedStream::new(ops), peer))),
            None => {
                self.latch.ready.set(false);
                Ok(None)
            }
        }
    }

    /// Waits for a connection and takes it. One waiter at a time: the latest is woken.
    ///
    /// # Errors
    /// As [`TcpListener::try_accept`].
    pub fn accept(&self) -> Accept<'_> {
        Accept { listener: self }
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("local_addr", &self.local_addr()).finish_non_exhaustive()
    }
}

/// Future of [`TcpListener::accept`].
#[derive(Debug)]
#[must_use = "accepting does nothing unless awaited"]
pub struct Accept<'a> {
    listener: &'a TcpListener,
}

impl Future for Accept<'_> {
    type Output = io::Result<(DetachedStream, SocketAddr)>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.listener.try_accept() {
            Ok(Some(accepted)) => Poll::Ready(Ok(accepted)),
            Err(error) => Poll::Ready(Err(error)),
            Ok(None) => {
                let old = self.listener.latch.waiter.replace(Some(context.waker().clone()));
                drop(old);
                Poll::Pending
            }
        }
    }
}
