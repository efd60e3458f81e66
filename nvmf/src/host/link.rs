//! The byte stream under a queue, so that the protocol can be tested without sockets.

use sledge_reactor::net::TcpStream;
use std::io::{self, IoSlice, IoSliceMut};

/// A stream that never blocks. Called by [`super::queue::Queue`] only.
pub(super) trait Link {
    /// Reads what is there; none when that is nothing, zero at the end of the stream.
    fn read(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>>;
    /// Writes what fits; none when that is nothing.
    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<Option<usize>>;
    /// Ends both directions, so that the peer notices, behind what was written.
    fn close(&mut self);
    /// Ends the connection at once: what was written and has not left yet never will.
    fn abort(&mut self);
}

impl Link for TcpStream {
    fn read(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        self.try_read(into)
    }

    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        self.try_write(from)
    }

    fn close(&mut self) {
        // It fails when the connection has ended already, which is as good.
        let _ = self.shutdown();
    }

    fn abort(&mut self) {
        TcpStream::abort(self);
    }
}
