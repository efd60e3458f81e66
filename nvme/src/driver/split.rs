//! From an I/O to commands: where it is cut, and what each command says.
//!
//! Stateless. Invariant: the parts of a range are disjoint, in order, and none exceeds the namespace's limits or crosses
//! its boundary. Called by the I/O queue; the commands lack data pointer and identifier, which the slot gives.

use sledge_reactor::memory::{self, Segment, Segments};
use zerocopy::little_endian::U32;

use super::shape::{NamespaceShape, Protection};
use crate::Command;
use crate::Status;
use crate::command::Fuse;
use crate::io::{IoCommand, Operation};
use crate::opcode::Nvm;

/// PRACT, and PRCHK of guard and reference tag, in dword 12 (NVM 5.2, "Protection Information Field").
const PROTECT: u32 = 1 << 29;
const CHECK_GUARD: u32 = 1 << 28;
const CHECK_REFERENCE: u32 = 1 << 26;

/// What a command's data pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    None,
    /// The I/O's data, from the part's offset on.
    Data,
    /// Zeroes.
    Zeroes,
    /// Memory that nobody reads.
    Sink,
    /// The part as a dataset range.
    Range,
}

/// Which command of an I/O a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One that stands for itself.
    Single,
    /// The Compare of a fused pair.
    FusedCompare,
    /// The Write of a fused pair.
    FusedWrite,
}

/// Checks range, data and kind of an I/O.
///
/// # Errors
/// What the I/O is to be answered with.
#[inline]
pub fn check(io: &IoCommand, shape: &NamespaceShape) -> Result<(), Status> {
    if io.operation == Operation::Flush {
        return Ok(());
    }
    if io.blocks == 0 {
        return Err(Status::INVALID_FIELD.do_not_retry());
    }
    shape.geometry.check(io.slba, u64::from(io.blocks))?;
    let given = len_bytes(&io.data);
    let wanted = io.operation.data_bytes(io.blocks, shape.geometry.block_bytes);
    if given != wanted && !(given == 0 && io.operation == Operation::Read) {
        return Err(Status::SGL_DATA_LENGTH_INVALID.do_not_retry());
    }
    match io.operation {
        // What is lent may be read only.
        Operation::Read if given > 0 && io.data.iter().any(|segment| matches!(segment, Segment::Lent(_))) => {
            Err(Status::INVALID_FIELD.do_not_retry())
        }
        Operation::Read | Operation::Write => Ok(()),
        operation if !shape.supports(operation) => Err(Status::INVALID_OPCODE.do_not_retry()),
        Operation::CompareAndWrite => shape.check_fused(io.slba, io.blocks),
        _ => Ok(()),
    }
}

/// As `Segments::len_bytes`, quick for one segment.
#[inline]
fn len_bytes(data: &Segments) -> u64 {
    match (data.count(), data.get(0)) {
        (1, Some(segment)) => segment.len() as u64,
        _ => data.len_bytes() as u64,
    }
}

/// Bytes of an I/O's range.
#[inline]
pub fn bytes(io: &IoCommand, shape: &NamespaceShape) -> usize {
    io.blocks as usize * shape.geometry.block_bytes as usize
}

/// The command of a read or write that is one command, with memory for a read that has none; `None` when there is no
/// memory, or it takes more than one buffer.
#[inline(always)]
pub fn transfer(io: &mut IoCommand, shape: &NamespaceShape) -> Option<Command> {
    if io.data.is_empty() {
        io.data = memory::allocate(bytes(io, shape))?.into();
    }
    let opcode = if io.operation == Operation::Read { Nvm::Read } else { Nvm::Write };
    let command = Command::on_blocks(opcode, shape.nsid, io.slba, io.blocks);
    let command = if io.fua { command.with_fua() } else { command };
    Some(protect(command, shape.protection, PROTECT))
}

/// Blocks of the command for a range that begins at `slba` and has `left` blocks: all of them if that is allowed.
#[inline(always)]
pub fn part_blocks(operation: Operation, shape: &NamespaceShape, slba: u64, left: u32) -> u32 {
    let (limit, boundary) = match operation {
        Operation::Read | Operation::Write | Operation::Compare => {
            (shape.max_transfer_blocks, shape.boundary_blocks)
        }
        Operation::WriteZeroes { .. } if shape.max_zeroes_blocks > 0 => (shape.max_zeroes_blocks, 0),
        Operation::Verify if shape.max_verify_blocks > 0 => (shape.max_verify_blocks, 0),
        Operation::WriteZeroes { .. } | Operation::Verify => (shape.max_transfer_blocks, 0),
        Operation::Deallocate => (shape.max_deallocate_blocks, 0),
        Operation::Flush | Operation::CompareAndWrite => (left, 0),
    };
    let until_boundary = match u64::from(boundary) {
        0 => u32::MAX,
        boundary => (boundary - slba % boundary) as u32,
    };
    left.min(limit).min(until_boundary)
}

/// The command for a part of an I/O.
#[inline]
pub fn command(
    io: &IoCommand,
    shape: &NamespaceShape,
    role: Role,
    slba: u64,
    blocks: u32,
) -> (Command, Payload) {
    let nsid = shape.nsid;
    let (command, payload) = match io.operation {
        Operation::Read => (Command::read(nsid, slba, blocks), Payload::Data),
        Operation::Write => (Command::write(nsid, slba, blocks), Payload::Data),
        Operation::Compare => (Command::compare(nsid, slba, blocks), Payload::Data),
        Operation::CompareAndWrite => {
            let (opcode, fuse) = match role {
                Role::FusedWrite => (Nvm::Write, Fuse::Second),
                Role::FusedCompare | Role::Single => (Nvm::Compare, Fuse::First),
            };
            (Command::on_blocks(opcode, nsid, slba, blocks).with_fuse(fuse), Payload::Data)
        }
        Operation::WriteZeroes { deallocate } if shape.max_zeroes_blocks > 0 => {
            let deallocate = deallocate && shape.zeroes_deallocate;
            (Command::write_zeroes(nsid, slba, blocks, deallocate), Payload::None)
        }
        Operation::WriteZeroes { .. } => (Command::write(nsid, slba, blocks), Payload::Zeroes),
        Operation::Verify if shape.max_verify_blocks > 0 => {
            return (protect(Command::verify(nsid, slba, blocks), shape.protection, 0), Payload::None);
        }
        Operation::Verify => (Command::read(nsid, slba, blocks), Payload::Sink),
        Operation::Flush => return (Command::flush(nsid), Payload::None),
        Operation::Deallocate => return (Command::deallocate_ranges(nsid, 1), Payload::Range),
    };
    let fua = io.fua && role != Role::FusedCompare;
    let command = if fua { command.with_fua() } else { command };
    (protect(command, shape.protection, PROTECT), payload)
}

/// Lets the controller make or check protection information; `action` is whether it also adds or strips it.
#[inline(always)]
fn protect(mut command: Command, protection: Protection, action: u32) -> Command {
    let check = match protection {
        Protection::None => return command,
        Protection::GuardAndReference => CHECK_GUARD | CHECK_REFERENCE,
        Protection::Guard => CHECK_GUARD,
    };
    command.cdw12 = U32::new(command.cdw12.get() | action | check);
    // The reference tag of the first block: the lower half of its address.
    command.cdw14 = command.cdw10;
    command
}

/// Whether a command that failed so may succeed when it is tried again as it is.
#[must_use]
pub fn is_transient(status: Status) -> bool {
    const TRANSIENT: [Status; 8] = [
        Status::COMMAND_INTERRUPTED,
        Status::NAMESPACE_NOT_READY,
        Status::TRANSIENT_TRANSPORT_ERROR,
        Status::INTERNAL_ERROR,
        Status::DATA_TRANSFER_ERROR,
        Status::ABORTED_BY_REQUEST,
        Status::ABORTED_SQ_DELETION,
        Status::COMMAND_ID_CONFLICT,
    ];
    !status.is_do_not_retry() && TRANSIENT.iter().any(|known| status.is(*known))
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::identify::{ControllerData, NamespaceData};

    fn shape() -> NamespaceShape {
        let Ok(shape) =
            NamespaceShape::new(3, &ControllerData::new_zeroed(), None, &NamespaceData::new(100_000, 9))
        else {
            unreachable!("a namespace without anything special is served")
        };
        shape
    }

    // Deleting this lets a range lose blocks at a cut, do them twice, or pass a limit.
    #[test]
    fn ranges_are_cut_at_limits_and_boundaries() {
        let mut shape = shape();
        (shape.max_transfer_blocks, shape.boundary_blocks) = (16, 24);
        let cut = |operation, mut slba: u64, mut left: u32| {
            let mut parts = Vec::new();
            while left > 0 {
                let blocks = part_blocks(operation, &shape, slba, left);
                parts.push((slba, blocks));
                (slba, left) = (slba + u64::from(blocks), left - blocks);
            }
            parts
        };
        assert_eq!(cut(Operation::Read, 20, 60), [(20, 4), (24, 16), (40, 8), (48, 16), (64, 8), (72, 8)]);
        assert_eq!(cut(Operation::Write, 0, 16), [(0, 16)]);
        // Zeroes are written here, with the transfers' limit; no boundary matters to a sink.
        assert_eq!(cut(Operation::Verify, 20, 20), [(20, 16), (36, 4)]);
        shape.max_zeroes_blocks = 0x1_0000;
        shape.max_deallocate_blocks = 50_000;
        let zeroes = Operation::WriteZeroes { deallocate: false };
        assert_eq!(part_blocks(zeroes, &shape, 1, 70_000), 65_536);
        assert_eq!(part_blocks(Operation::Deallocate, &shape, 1, 70_000), 50_000);
    }

    // Deleting this lets a durable write lose its durability, or a compare of a fused pair claim it.
    #[test]
    fn commands_say_what_the_io_wants() {
        let mut shape = shape();
        let mut io = IoCommand::new(0, Operation::CompareAndWrite, 5, 1);
        io.fua = true;
        let (first, _) = command(&io, &shape, Role::FusedCompare, 5, 1);
        let (second, payload) = command(&io, &shape, Role::FusedWrite, 5, 1);
        assert_eq!(
            (first.opcode, first.fuse(), first.fua()),
            (Nvm::Compare.value(), Some(Fuse::First), false)
        );
        assert_eq!(
            (second.opcode, second.fuse(), second.fua()),
            (Nvm::Write.value(), Some(Fuse::Second), true)
        );
        assert_eq!((payload, second.nsid.get(), second.slba()), (Payload::Data, 3, 5));

        io.operation = Operation::WriteZeroes { deallocate: true };
        let (zeroes, payload) = command(&io, &shape, Role::Single, 5, 1);
        assert_eq!((zeroes.opcode, payload), (Nvm::Write.value(), Payload::Zeroes));
        (shape.max_zeroes_blocks, shape.protection) = (8, Protection::GuardAndReference);
        let (zeroes, payload) = command(&io, &shape, Role::Single, 5, 1);
        assert_eq!((zeroes.opcode, payload), (Nvm::WriteZeroes.value(), Payload::None));
        assert!(!zeroes.deallocate() && zeroes.fua());
        assert_eq!((zeroes.prinfo(), zeroes.reference_tag()), (0b1101, 5));
    }

    // Deleting this lets a failure that would come again be tried for ever, or one that would pass reach the host.
    #[test]
    fn only_what_passes_is_tried_again() {
        assert!(is_transient(Status::NAMESPACE_NOT_READY.with_retry_delay(1)));
        assert!(!is_transient(Status::COMMAND_INTERRUPTED.do_not_retry()));
        assert!(!is_transient(Status::UNRECOVERED_READ_ERROR) && !is_transient(Status::COMPARE_FAILURE));
    }
}
