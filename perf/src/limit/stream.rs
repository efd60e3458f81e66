//! One end of one connection: what it received, and what it still has to send.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;

use super::LimitError;
use super::shape::{Kind, Scanner, Shape};

/// Slices that one system call takes (`IOV_MAX`).
const MAX_SLICES: usize = 1024;

/// System calls of one thread, for the report.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Calls {
    /// Receives that gave something.
    pub receives: u64,
    /// Receives that gave nothing.
    pub empty_receives: u64,
    /// Sends.
    pub sends: u64,
}

/// PDUs that are to be sent, in order.
#[derive(Debug)]
pub struct Due {
    /// Kind and count; neighbours of one kind are merged.
    runs: VecDeque<(Kind, usize)>,
    /// Bytes of the first PDU that are gone already.
    gone: usize,
    /// PDUs that are gone as a whole.
    sent: usize,
}

/// One end of a connection. The socket is non-blocking and without delay (TCP_NODELAY).
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    scanner: Scanner,
    due: Due,
    send_most: usize,
}

impl Stream {
    /// One end, which offers the socket at most so many bytes (rounded up to whole PDUs) before it receives again.
    ///
    /// # Errors
    /// When the socket doesn't take its options.
    pub fn new(socket: TcpStream, send_most: usize) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let due = Due { runs: VecDeque::with_capacity(64), gone: 0, sent: 0 };
        Ok(Self { socket, scanner: Scanner::default(), due, send_most })
    }

    /// Receives once and calls `ended` for each PDU that is complete now, with what is to be sent in answer. False
    /// at the end of the stream.
    ///
    /// # Errors
    /// When the connection failed, or the other end is something else.
    pub fn receive(
        &mut self,
        shape: &Shape,
        buffer: &mut [u8],
        calls: &mut Calls,
        mut ended: impl FnMut(Kind, &mut Due),
    ) -> Result<bool, LimitError> {
        let received = match self.socket.read(buffer) {
            Ok(0) => return Ok(false),
            Ok(received) => received,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                calls.empty_receives += 1;
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        };
        calls.receives += 1;
        let due = &mut self.due;
        self.scanner
            .scan(&buffer[..received], shape, |kind| ended(kind, due))
            .map_err(|unknown| LimitError::Stranger(unknown.0))?;
        Ok(true)
    }

    /// What is to be sent with the next [`send`](Self::send).
    pub fn due(&mut self) -> &mut Due {
        &mut self.due
    }

    /// Sends all that is due, or as much as the socket takes or is offered at once, in as few calls as possible.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn send<'a>(
        &mut self,
        shape: &'a Shape,
        slices: &mut Vec<IoSlice<'a>>,
        calls: &mut Calls,
    ) -> Result<(), LimitError> {
        while !self.due.runs.is_empty() {
            slices.clear();
            let offered = self.due.slices(self.send_most, shape, slices);
            calls.sends += 1;
            let sent = match self.socket.write_vectored(slices) {
                Ok(sent) => sent,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(error) => return Err(error.into()),
            };
            self.due.sent(shape, sent);
            if sent < offered || offered >= self.send_most {
                break;
            }
        }
        Ok(())
    }
}

impl Due {
    /// So many more PDUs of one kind.
    pub fn push(&mut self, kind: Kind, count: usize) {
        match self.runs.back_mut() {
            Some((last, more)) if *last == kind => *more += count,
            _ if count > 0 => self.runs.push_back((kind, count)),
            _ => {}
        }
    }

    /// Appends as many slices as one call takes, up to `most` bytes and the rest of that PDU; returns their bytes.
    fn slices<'a>(&self, most: usize, shape: &'a Shape, slices: &mut Vec<IoSlice<'a>>) -> usize {
        let mut bytes = 0;
        let mut skip = self.gone;
        let mut first = self.sent;
        for (kind, count) in &self.runs {
            if slices.len() + 2 > MAX_SLICES || bytes >= most {
                break;
            }
            let count = (*count).min((most - bytes).div_ceil(shape.length(*kind)));
            bytes += shape.slices(*kind, (first, count), skip, slices, MAX_SLICES);
            skip = 0;
            first = first.wrapping_add(count);
        }
        bytes
    }

    /// Takes off what has been sent.
    fn sent(&mut self, shape: &Shape, sent: usize) {
        self.gone += sent;
        while let Some((kind, count)) = self.runs.front_mut() {
            let length = shape.length(*kind);
            let whole = (self.gone / length).min(*count);
            self.gone -= whole * length;
            self.sent = self.sent.wrapping_add(whole);
            *count -= whole;
            if *count > 0 {
                break;
            }
            self.runs.pop_front();
        }
    }
}
