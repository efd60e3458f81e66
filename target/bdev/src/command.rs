//! What the channels of all devices do with a command before and after their own work: checks, data access, and
//! the time limit of waiting. Stateless.

use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::io::{Geometry, IoCommand, Operation};
use sledge_reactor::memory::{self, MAX_BUFFER_BYTES, MAX_SEGMENTS, Segments};
use sledge_reactor::time::Instant;

/// Most commands that one channel keeps, waiting or under way. Beyond it they are refused, to be retried.
pub(crate) const MAX_OUTSTANDING: usize = 4096;

/// How long a command waits for a range or for memory before it is refused, to be retried. Well below the 30 s
/// after which Linux hosts give a command up. Reached only when somebody sits on the range: a host that takes a
/// read's data off its socket too slowly, or a device below that does not answer.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(10);

/// The status of a command that is refused for want of room or patience: the host retries it (Base 3.3.3.2.1.1).
pub(crate) const BUSY: Status = Status::COMMAND_INTERRUPTED;

/// Whether a command has waited too long.
pub(crate) fn has_waited_out(started: Instant) -> bool {
    sledge_reactor::time::now() - started > MAX_WAIT
}

/// Checks range and data of a command.
pub(crate) fn check(io: &IoCommand, geometry: &Geometry) -> Result<(), Status> {
    if io.operation == Operation::Flush {
        return Ok(());
    }
    if io.blocks == 0 {
        return Err(Status::INVALID_FIELD.do_not_retry());
    }
    geometry.check(io.slba, u64::from(io.blocks))?;
    let given = io.data.len_bytes() as u64;
    let wanted = io.operation.data_bytes(io.blocks, geometry.block_bytes);
    if given == wanted || given == 0 && io.operation == Operation::Read {
        Ok(())
    } else {
        Err(Status::SGL_DATA_LENGTH_INVALID.do_not_retry())
    }
}

/// First byte and number of bytes of a checked command's range; nothing for a flush.
pub(crate) fn byte_range(io: &IoCommand, geometry: &Geometry) -> (u64, u64) {
    match io.operation {
        Operation::Flush => (0, 0),
        _ => (io.slba << geometry.block_shift(), u64::from(io.blocks) << geometry.block_shift()),
    }
}

/// Memory for `len` bytes; `None` when the pool is dry.
///
/// # Errors
/// It is more than one I/O's data can have.
pub(crate) fn allocate(len: u64) -> Result<Option<Segments>, Status> {
    let mut left = len as usize;
    if left > MAX_SEGMENTS * MAX_BUFFER_BYTES {
        return Err(Status::INVALID_FIELD.do_not_retry());
    }
    let mut segments = Segments::new();
    while left > 0 {
        let part = left.min(MAX_BUFFER_BYTES);
        let Some(buffer) = memory::allocate(part) else { return Ok(None) };
        // Checked above: it never takes more than `MAX_SEGMENTS`.
        if segments.push(buffer).is_err() {
            return Err(Status::INTERNAL_ERROR);
        }
        left -= part;
    }
    Ok(Some(segments))
}

/// Calls `visit` with each contiguous part of `segments` in the bytes `skip..skip + len`, and that part's offset
/// from `skip`; ends early when it returns false.
pub(crate) fn visit(
    segments: &Segments,
    mut skip: usize,
    len: usize,
    mut visit: impl FnMut(usize, &[u8]) -> bool,
) -> bool {
    let mut passed = 0;
    for segment in segments.iter() {
        let bytes = segment.as_slice();
        if skip >= bytes.len() {
            skip -= bytes.len();
            continue;
        }
        let part = (bytes.len() - skip).min(len - passed);
        if part == 0 {
            break;
        }
        if !visit(passed, &bytes[skip..skip + part]) {
            return false;
        }
        passed += part;
        skip = 0;
    }
    true
}

/// Whether `segments` from byte `skip` on begins with `bytes`.
pub(crate) fn equals(segments: &Segments, skip: usize, bytes: &[u8]) -> bool {
    visit(segments, skip, bytes.len(), |at, part| part == &bytes[at..at + part.len()])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use sledge_reactor::memory::{Pool, PoolOptions};

    use super::*;

    // Deleting this lets a device trust a length or range that the command does not have.
    #[test]
    fn commands_are_checked() {
        let geometry = Geometry::new(8, 512);
        let pool = Pool::ordinary(&PoolOptions { total_bytes: 1 << 20 }).unwrap();
        let with = |operation, slba, blocks, bytes: usize| {
            let mut io = IoCommand::new(0, operation, slba, blocks);
            if bytes > 0 {
                io.data = pool.allocate(bytes).unwrap().into();
            }
            check(&io, &geometry)
        };
        assert_eq!(with(Operation::Read, 0, 8, 0), Ok(()));
        assert_eq!(with(Operation::Read, 0, 8, 4096), Ok(()));
        assert!(with(Operation::Read, 0, 8, 512).is_err());
        assert!(with(Operation::Write, 0, 8, 0).is_err());
        assert_eq!(with(Operation::CompareAndWrite, 7, 1, 1024), Ok(()));
        assert!(with(Operation::CompareAndWrite, 7, 1, 512).is_err());
        assert!(with(Operation::Write, 7, 2, 1024).unwrap_err().is(Status::LBA_OUT_OF_RANGE));
        assert!(with(Operation::Deallocate, u64::MAX, 2, 0).is_err());
        assert!(with(Operation::Deallocate, 0, 0, 0).unwrap_err().is(Status::INVALID_FIELD));
        assert_eq!(with(Operation::Flush, u64::MAX, 0, 0), Ok(()));
    }

    // Deleting this lets a compare look at the wrong bytes when data comes in parts.
    #[test]
    fn parts_are_compared_where_they_lie() {
        let pool = Pool::ordinary(&PoolOptions { total_bytes: 1 << 20 }).unwrap();
        let mut data = Segments::new();
        for (len, byte) in [(3, b'a'), (5, b'b'), (2, b'c')] {
            let mut buffer = pool.allocate(len).unwrap();
            buffer.fill(byte);
            data.push(buffer).unwrap();
        }
        assert!(equals(&data, 0, b"aaabbbbbcc") && equals(&data, 2, b"abbbbbc") && equals(&data, 8, b"cc"));
        assert!(!equals(&data, 2, b"bb") && !equals(&data, 0, b"aaabbbbbca"));
    }
}
