//! Commands that move more than a controller takes at once, and flushes that several controllers are to do: several
//! pieces, with one answer.
//!
//! Invariant: a large command is answered once, when its last piece has ended, with the status of the first piece (by
//! range) that failed. Its data is copied to and from the pieces, as a buffer has one owner: this is for controllers
//! with a small limit, not the usual way.

use sledge_nvme::Status;
use sledge_nvme::io::{IoCommand, IoCompletion, Operation};
use sledge_reactor::memory::{self, Segments};
use sledge_reactor::time::Instant;

/// A command that was cut.
pub(crate) struct Whole {
    pub(crate) token: u64,
    pub(crate) operation: Operation,
    pub(crate) bytes: u64,
    pub(crate) started: Instant,
    data: Segments,
    left: u32,
    /// Offset and status of the first piece that failed.
    failed: Option<(u64, Status)>,
}

/// A piece of a command.
pub(crate) struct Piece {
    /// Where its data begins in the whole's.
    pub(crate) offset: u64,
    pub(crate) io: IoCommand,
}

/// Cuts a command into pieces of at most `limit` bytes. None for a command that is small enough, or moves no data, or
/// can't be cut.
///
/// # Errors
/// Gives the command back when there is no memory for the pieces.
pub(crate) fn cut(
    mut io: IoCommand,
    limit: u64,
    block_bytes: u32,
    started: Instant,
) -> Result<Result<(Whole, Vec<Piece>), IoCommand>, IoCommand> {
    let bytes = io.operation.data_bytes(io.blocks, block_bytes);
    let can = matches!(io.operation, Operation::Read | Operation::Write | Operation::Compare);
    let piece_blocks = (limit / u64::from(block_bytes)) as u32;
    if bytes <= limit || !can || piece_blocks == 0 {
        return Ok(Err(io));
    }
    if io.data.is_empty() {
        match crate::command::allocate(bytes) {
            Ok(Some(data)) => io.data = data,
            _ => return Err(io),
        }
    }
    let mut pieces = Vec::with_capacity(bytes.div_ceil(limit) as usize);
    let mut done = 0;
    while done < io.blocks {
        let blocks = piece_blocks.min(io.blocks - done);
        let offset = u64::from(done) * u64::from(block_bytes);
        let mut piece = IoCommand::new(0, io.operation, io.slba + u64::from(done), blocks);
        piece.fua = io.fua;
        if io.operation != Operation::Read {
            let Some(mut buffer) = memory::allocate((blocks * block_bytes) as usize) else { return Err(io) };
            io.data.copy_to(offset as usize, &mut buffer);
            piece.data = Segments::from(buffer);
        }
        pieces.push(Piece { offset, io: piece });
        done += blocks;
    }
    let whole = Whole {
        token: io.token,
        operation: io.operation,
        bytes,
        started,
        data: io.data,
        left: pieces.len() as u32,
        failed: None,
    };
    Ok(Ok((whole, pieces)))
}

impl Whole {
    /// A command without data, which so many pieces do.
    pub(crate) fn of_pieces(io: &IoCommand, pieces: u32, started: Instant) -> Self {
        let (token, operation) = (io.token, io.operation);
        Self { token, operation, bytes: 0, started, data: Segments::new(), left: pieces, failed: None }
    }

    /// A piece has ended; the whole's end, if it was the last.
    pub(crate) fn ended(&mut self, offset: u64, status: Status, data: &Segments) -> Option<IoCompletion> {
        if !status.is_success() {
            if self.failed.is_none_or(|(first, _)| offset < first) {
                self.failed = Some((offset, status));
            }
        } else if self.operation == Operation::Read {
            let mut at = offset as usize;
            for segment in data.iter() {
                self.data.copy_from(at, segment.as_slice());
                at += segment.len();
            }
        }
        self.left -= 1;
        (self.left == 0).then(|| IoCompletion {
            token: self.token,
            status: self.failed.map_or(Status::SUCCESS, |(_, status)| status),
            data: std::mem::take(&mut self.data),
        })
    }
}
