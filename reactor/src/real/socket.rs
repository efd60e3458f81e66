//! TCP sockets of the kernel.
//!
//! Invariant: a socket is in its reactor's epoll from its making or attaching until it is dropped.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::poll::{Poll, Watch};
use crate::backend::{DetachedOps, ListenerOps, ReadinessSink, StreamOps};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Slices that one system call takes (`IOV_MAX`).
const MAX_SLICES: usize = 1024;

fn new_socket(address: &SocketAddr) -> io::Result<Socket> {
    // Non-blocking and close-on-exec from the start.
    Socket::new(Domain::for_address(*address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
}

fn to_address(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::other("not an internet address"))
}

/// A listening socket.
pub(super) struct RealListener {
    socket: Socket,
    poll: Rc<Poll>,
    watch: Rc<Watch>,
}

impl RealListener {
    /// Binds and listens.
    pub(super) fn bind(poll: &Rc<Poll>, address: SocketAddr) -> io::Result<RealListener> {
        let socket = new_socket(&address)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let watch = poll.register(socket.as_raw_fd())?;
        Ok(RealListener { socket, poll: poll.clone(), watch })
    }
}

impl ListenerOps for RealListener {
    fn watch(&self, sink: Rc<dyn ReadinessSink>) -> io::Result<()> {
        self.watch.set_sink(sink);
        Ok(())
    }

    fn accept(&self) -> io::Result<Option<(Box<dyn DetachedOps>, SocketAddr)>> {
        loop {
            match self.socket.accept() {
                Ok((socket, peer)) => {
                    socket.set_nonblocking(true)?;
                    return Ok(Some((Box::new(RealDetached { socket }), to_address(peer)?)));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // The peer of one connection gave up while it waited; the next may be sound.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        to_address(self.socket.local_addr()?)
    }
}

impl Drop for RealListener {
    fn drop(&mut self) {
        self.poll.forget(&self.watch);
    }
}

/// An accepted socket that no reactor watches yet.
struct RealDetached {
    socket: Socket,
}

impl DetachedOps for RealDetached {
    fn attach(self: Box<Self>) -> io::Result<Box<dyn StreamOps>> {
        Ok(Box::new(RealStream::new(&Poll::current()?, self.socket)?))
    }
}

/// A stream socket.
pub(super) struct RealStream {
    socket: Socket,
    poll: Rc<Poll>,
    watch: Rc<Watch>,
}

impl RealStream {
    fn new(poll: &Rc<Poll>, socket: Socket) -> io::Result<RealStream> {
        socket.set_tcp_nodelay(true)?;
        let watch = poll.register(socket.as_raw_fd())?;
        Ok(RealStream { socket, poll: poll.clone(), watch })
    }

    /// Starts a connection.
    pub(super) fn connect(poll: &Rc<Poll>, address: SocketAddr) -> io::Result<RealStream> {
        let socket = new_socket(&address)?;
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        RealStream::new(poll, socket)
    }
}

impl StreamOps for RealStream {
    fn watch(&self, sink: Rc<dyn ReadinessSink>) -> io::Result<()> {
        self.watch.set_sink(sink);
        Ok(())
    }

    fn read(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        if !self.watch.readable.get() && !self.watch.ended.get() {
            return Ok(None);
        }
        let count = buffers.len().min(MAX_SLICES);
        let buffers = &mut buffers[..count];
        let room: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        debug_assert!(room > 0, "a read without room can't tell the end of the stream from nothing");
        loop {
            // SAFETY: IoSliceMut has the layout of iovec, by its documentation, and each describes memory that
            // is ours to write for the time of the call.
            let read = unsafe {
                libc::readv(
                    self.socket.as_raw_fd(),
                    buffers.as_mut_ptr().cast::<libc::iovec>(),
                    count as libc::c_int,
                )
            };
            if read >= 0 {
                let read = read as usize;
                // Less than there was room for: the socket is drained, and what comes later makes an edge. That
                // saves the read which would only find so. Not so once the peer has ended: its edge is past.
                if read < room {
                    self.watch.readable.set(false);
                }
                self.poll.read_hit(&self.watch);
                return Ok(Some(read));
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => {
                    self.watch.read_miss();
                    return Ok(None);
                }
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            }
        }
    }

    fn write(&self, buffers: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        let buffers = &buffers[..buffers.len().min(MAX_SLICES)];
        loop {
            // MSG_NOSIGNAL: a peer that is gone is an error here, not a signal to the process.
            match self.socket.send_vectored_with_flags(buffers, libc::MSG_NOSIGNAL) {
                Ok(written) => return Ok(Some(written)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.poll.ask_for_room(&self.watch)?;
                        return Ok(None);
                    }
                    io::ErrorKind::Interrupted => {}
                    _ => return Err(error),
                },
            }
        }
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    fn shutdown(&self) -> io::Result<()> {
        self.socket.shutdown(std::net::Shutdown::Both)
    }

    fn abort(&self) {
        // Should the rest fail, closing the socket still sends nothing more but a reset.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
        let nobody = libc::sockaddr { sa_family: libc::AF_UNSPEC as libc::sa_family_t, sa_data: [0; 14] };
        let length = size_of::<libc::sockaddr>() as libc::socklen_t;
        // SAFETY: the address is one of that length, read during the call. To connect to none dissolves a connection and
        // empties its queues.
        let dissolved = unsafe { libc::connect(self.socket.as_raw_fd(), &raw const nobody, length) };
        if dissolved != 0 {
            let _ = self.shutdown();
        }
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        to_address(self.socket.peer_addr()?)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        to_address(self.socket.local_addr()?)
    }
}

impl Drop for RealStream {
    fn drop(&mut self) {
        self.poll.forget(&self.watch);
    }
}
