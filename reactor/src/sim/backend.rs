//! The world as one simulated reactor sees it: the implementation of the reactor's backend.
//!
//! Invariant: a reactor whose node has crashed reaches nothing: its sockets and queues answer with errors.
//! Called by the reactor core, by sockets and by disk queues.

use std::cell::RefCell;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clockwork::{ReactorId, SocketId};
use super::disks::{DiskNumber, QueueNumber};
use super::random::Random;
use super::world::{Running, World};
use crate::backend::{Backend, DetachedOps, DiskQueueOps, ListenerOps, ReadinessSink, StreamOps, Wake};
use crate::disk::{Disk, DiskCompletion, DiskOptions, DiskParts, DiskRequest};
use crate::time::Instant;

/// The block size of a disk that a program creates by opening it.
pub(super) const CREATED_BLOCK_BYTES: u32 = 512;

/// Whether somebody wants a reactor to take a turn.
#[derive(Debug, Default)]
pub(super) struct WakeFlag {
    wanted: AtomicBool,
}

impl WakeFlag {
    /// True once after any number of wakes.
    pub(super) fn take(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// True after a wake.
    pub(super) fn is_set(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }
}

impl Wake for WakeFlag {
    fn wake(&self) {
        self.wanted.store(true, Ordering::Release);
    }
}

/// See the module.
pub(super) struct SimulatedBackend {
    world: Rc<World>,
    reactor: ReactorId,
    random: RefCell<Random>,
}

impl SimulatedBackend {
    /// The backend of a new reactor.
    pub(super) fn new(world: Rc<World>, reactor: ReactorId) -> SimulatedBackend {
        world.with(|state| state.clockwork.open_inbox(reactor));
        let random = RefCell::new(Random::new(world.seed(), (1 << 56) | reactor.number()));
        SimulatedBackend { world, reactor, random }
    }

    fn check_alive(&self) -> io::Result<()> {
        let alive = self.world.with(|state| state.clockwork.inbox(self.reactor).is_some());
        if alive { Ok(()) } else { Err(io::ErrorKind::NetworkDown.into()) }
    }
}

impl Backend for SimulatedBackend {
    fn clock(&self) -> Instant {
        Instant::from_nanos(self.world.with(|state| state.clockwork.now))
    }

    fn random_u64(&self) -> u64 {
        self.random.borrow_mut().next_u64()
    }

    fn collect(&self) -> usize {
        let (ready, completions) = self.world.with(|state| {
            let clockwork = &mut state.clockwork;
            let Some(inbox) = clockwork.inbox(self.reactor) else { return (Vec::new(), 0) };
            let inbox = std::mem::take(inbox);
            let sink = |(socket, readiness)| Some((state.network.sink(socket)?, readiness));
            let mut ready: Vec<_> = inbox.ready.into_iter().filter_map(sink).collect();
            clockwork.schedule_random.shuffle(&mut ready);
            (ready, inbox.completions)
        });
        let count = ready.len() + completions;
        for (sink, readiness) in ready {
            sink.ready(readiness);
        }
        count
    }

    fn flush(&self) {}

    fn sleep(&self, _timeout: Option<Duration>) {}

    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn ListenerOps>> {
        self.check_alive()?;
        let socket =
            self.world.with(|state| state.network.listen(&mut state.clockwork, self.reactor, address))?;
        Ok(Box::new(SimulatedListener { world: self.world.clone(), socket }))
    }

    fn connect(&self, address: SocketAddr) -> io::Result<Box<dyn StreamOps>> {
        self.check_alive()?;
        let socket =
            self.world.with(|state| state.network.connect(&mut state.clockwork, self.reactor, address))?;
        Ok(Box::new(SimulatedStream { world: self.world.clone(), socket }))
    }

    fn open_disk(&self, path: &Path, options: &DiskOptions) -> io::Result<Disk> {
        let name = path.to_string_lossy();
        let node = self.reactor.node;
        self.world.with(|state| {
            let number = match (state.disks.find(node, &name), options.create_bytes) {
                (Some(number), _) => number,
                (None, Some(len)) => state.disks.create(node, &name, len, CREATED_BLOCK_BYTES),
                (None, None) => return Err(io::ErrorKind::NotFound.into()),
            };
            let medium = &state.disks.state(number).medium;
            Ok(Disk::from_parts(DiskParts {
                len_bytes: medium.len_bytes(),
                block_bytes: medium.block_bytes(),
                is_block_device: false,
                discarded_reads_zeroes: true,
                read_only: options.read_only,
                medium: Box::new(OpenedDisk { world: self.world.id(), number }),
            }))
        })
    }

    fn disk_queue(&self, disk: &Disk) -> io::Result<Box<dyn DiskQueueOps>> {
        self.check_alive()?;
        let opened = disk.medium::<OpenedDisk>().filter(|opened| opened.world == self.world.id());
        let Some(opened) = opened else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "this disk belongs to another world"));
        };
        let read_only = disk.is_read_only();
        let queue = self.world.with(|state| state.disks.open_queue(self.reactor, opened.number, read_only));
        Ok(Box::new(SimulatedQueue { world: self.world.clone(), queue }))
    }
}

/// What an open [`Disk`] remembers: plain numbers, so that any thread may hold it.
struct OpenedDisk {
    world: u64,
    number: DiskNumber,
}

/// A listening socket.
struct SimulatedListener {
    world: Rc<World>,
    socket: SocketId,
}

impl ListenerOps for SimulatedListener {
    fn watch(&self, sink: Rc<dyn ReadinessSink>) -> io::Result<()> {
        self.world.with(|state| state.network.watch_listener(&mut state.clockwork, self.socket, sink))
    }

    fn accept(&self) -> io::Result<Option<(Box<dyn DetachedOps>, SocketAddr)>> {
        let accepted = self.world.with(|state| state.network.accept(&mut state.clockwork, self.socket))?;
        let Some((socket, peer)) = accepted else { return Ok(None) };
        let detached = SimulatedDetached { world: self.world.id(), socket: Some(socket) };
        Ok(Some((Box::new(detached), peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.world.with(|state| {
            let listener = state.network.listeners.get(&self.socket).ok_or(io::ErrorKind::NotConnected)?;
            Ok(listener.address)
        })
    }
}

impl Drop for SimulatedListener {
    fn drop(&mut self) {
        self.world.with(|state| state.network.close_listener(&mut state.clockwork, self.socket));
    }
}

/// An accepted connection on its way to a reactor: plain numbers, so that it can be sent.
struct SimulatedDetached {
    world: u64,
    socket: Option<SocketId>,
}

impl DetachedOps for SimulatedDetached {
    fn attach(mut self: Box<Self>) -> io::Result<Box<dyn StreamOps>> {
        let reactor = Running::current().ok_or(io::ErrorKind::InvalidInput)?;
        let world = World::find(self.world).ok_or(io::ErrorKind::NotConnected)?;
        let socket = self.socket.ok_or(io::ErrorKind::NotConnected)?;
        world.with(|state| state.network.attach(socket, reactor))?;
        self.socket = None;
        Ok(Box::new(SimulatedStream { world, socket }))
    }
}

impl Drop for SimulatedDetached {
    fn drop(&mut self) {
        if let (Some(socket), Some(world)) = (self.socket, World::find(self.world)) {
            world.with(|state| state.network.close(&mut state.clockwork, socket));
        }
    }
}

/// One end of a connection.
struct SimulatedStream {
    world: Rc<World>,
    socket: SocketId,
}

impl SimulatedStream {
    fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        self.world.with(|state| {
            let endpoint = state.network.endpoints.get(&self.socket).ok_or(io::ErrorKind::NotConnected)?;
            Ok((endpoint.local, endpoint.remote))
        })
    }
}

impl StreamOps for SimulatedStream {
    fn watch(&self, sink: Rc<dyn ReadinessSink>) -> io::Result<()> {
        self.world.with(|state| state.network.watch(&mut state.clockwork, self.socket, sink))
    }

    fn read(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        self.world.with(|state| state.network.read(&mut state.clockwork, self.socket, buffers))
    }

    fn write(&self, buffers: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        self.world.with(|state| state.network.write(&mut state.clockwork, self.socket, buffers))
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.world.with(|state| state.network.take_error(self.socket))
    }

    fn shutdown(&self) -> io::Result<()> {
        self.world.with(|state| state.network.shutdown(&mut state.clockwork, self.socket))
    }

    fn abort(&self) {
        self.world.with(|state| state.network.abort(&mut state.clockwork, self.socket));
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addresses()?.1)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addresses()?.0)
    }
}

impl Drop for SimulatedStream {
    fn drop(&mut self) {
        self.world.with(|state| state.network.close(&mut state.clockwork, self.socket));
    }
}

/// A queue on a disk.
struct SimulatedQueue {
    world: Rc<World>,
    queue: QueueNumber,
}

impl DiskQueueOps for SimulatedQueue {
    // As in the trait: the request is moved back, not boxed.
    #[allow(clippy::result_large_err)]
    fn submit(&mut self, request: DiskRequest) -> Result<(), DiskRequest> {
        self.world.with(|state| state.disks.submit(&mut state.clockwork, self.queue, request))
    }

    fn poll(&mut self, done: &mut Vec<DiskCompletion>) {
        self.world.with(|state| state.disks.poll(self.queue, done));
    }

    fn outstanding(&self) -> usize {
        self.world.with(|state| state.disks.outstanding(self.queue))
    }
}

impl Drop for SimulatedQueue {
    fn drop(&mut self) {
        self.world.with(|state| state.disks.close_queue(self.queue));
    }
}
