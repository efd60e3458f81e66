//! The seam between a reactor and the world: one trait for what the outside gives (time, randomness,
//! sockets, disks, sleep), implemented once by the kernel (`real`) and once by the simulator (`sim`).
//!
//! Invariant: nothing above this crate, and nothing in this crate outside those two modules, reaches the
//! clock, a socket or a disk in any other way. Calls come only from the reactor's own thread.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::disk::{DiskCompletion, DiskRequest};
use crate::time::Instant;

/// Which edges of readiness a socket has seen since they were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// Bytes, an end of stream, a waiting connection or an error can be read.
    pub readable: bool,
    /// Bytes can be written, or a connection attempt has ended.
    pub writable: bool,
}

/// Receives readiness edges of one socket; implemented by `net` (it wakes tasks and fills ready sets).
pub(crate) trait ReadinessSink {
    /// Called on the reactor's thread, never inside a socket call of the same socket.
    fn ready(&self, readiness: Readiness);
}

/// What one reactor needs of its world.
pub(crate) trait Backend {
    /// Reads the clock.
    fn clock(&self) -> Instant;
    /// The next number of the world's random sequence.
    fn random_u64(&self) -> u64;
    /// Collects events without blocking, hands readiness to its sinks and completions to disk queues.
    /// Returns how many events there were.
    fn collect(&self) -> usize;
    /// Submits what has been queued (disk requests) in one system call, if anything was.
    fn flush(&self);
    /// Sleeps until an event, a wake or `timeout`; `None` is without limit. Only called when idle.
    /// The simulator never blocks here: its driver moves the clock instead.
    fn sleep(&self, timeout: Option<Duration>);

    /// Opens a listening socket.
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn ListenerOps>>;
    /// Starts a connection; writability or an error tells how it ended.
    fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn StreamOps>>;
    /// Opens a disk by its path (the simulator: by its name on this node).
    fn open_disk(
        &self,
        path: &std::path::Path,
        options: &crate::disk::DiskOptions,
    ) -> io::Result<crate::disk::Disk>;
    /// Opens this reactor's queue on a disk.
    fn disk_queue(&self, disk: &crate::disk::Disk) -> io::Result<Box<dyn DiskQueueOps>>;
}

/// Ends a reactor's sleep from outside; cheap when it does not sleep.
pub(crate) trait Wake: Send + Sync {
    /// Makes the reactor take a turn soon.
    fn wake(&self);
}

/// A connected stream that no reactor watches yet.
pub(crate) trait DetachedOps: Send {
    /// Registers with the current reactor's backend.
    fn attach(self: Box<Self>) -> io::Result<Box<dyn StreamOps>>;
}

/// A listening socket.
pub(crate) trait ListenerOps {
    /// Where readiness edges go from now on.
    fn watch(&self, sink: Rc<dyn ReadinessSink>) -> io::Result<()>;
    /// Takes a waiting connection; `None` when there is none.
    fn accept(&self) -> io::Result<Option<(Box<dyn DetachedOps>, SocketAddr)>>;
    /// The bound address, with the port that was chosen for port 0.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A stream socket.
pub(crate) trait StreamOps {
    /// Where readiness edges go from now on.
    fn watch(&self, sink: Rc<dyn ReadinessSink>) -> io::Result<()>;
    /// Reads what is there; `None` would block, `Some(0)` is the end.
    fn read(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>>;
    /// Writes what fits; `None` would block.
    fn write(&self, buffers: &[IoSlice<'_>]) -> io::Result<Option<usize>>;
    /// How a connection attempt ended, once writable.
    fn take_error(&self) -> io::Result<Option<io::Error>>;
    /// Ends both directions; the peer sees an end of stream.
    fn shutdown(&self) -> io::Result<()>;
    /// Ends the connection at once, and drops what has not left yet; the peer sees a reset, if anything.
    fn abort(&self);
    /// The peer's address.
    fn peer_addr(&self) -> io::Result<SocketAddr>;
    /// Our own address.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// One reactor's queue on one disk.
pub(crate) trait DiskQueueOps {
    /// Takes a request, or gives it back when the queue is full.
    // The error is the request itself, moved and not boxed: refusing must not allocate.
    #[allow(clippy::result_large_err)]
    fn submit(&mut self, request: DiskRequest) -> Result<(), DiskRequest>;
    /// Appends what has completed.
    fn poll(&mut self, done: &mut Vec<DiskCompletion>);
    /// Requests taken and not yet given back.
    fn outstanding(&self) -> usize;
}
