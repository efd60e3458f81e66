//! Where a command's data lies in the host's memory: PRPs and SGLs, taken apart.
//!
//! Owns nothing. Invariant: what comes out is exactly as many bytes as the command moves, or a status that says which
//! rule of Base 4.1.1 (PRP) or 4.1.2 (SGL) the host broke. Called for each command with data.

use zerocopy::{FromBytes, IntoBytes};

use super::function::Iommu;
use crate::command::DataPointerKind;
use crate::sgl::{Descriptor, Sgl};
use crate::{Command, Status};

/// A piece of the host's memory.
pub(super) type Piece = (u64, usize);

/// Most SGL segments of a command, so that a loop of them ends.
const MAX_SEGMENTS: usize = 1024;

/// The pieces of a command's `bytes` bytes of data, in order. `sgl`: whether the command may use SGLs.
pub(super) fn resolve(
    iommu: &Iommu,
    command: &Command,
    bytes: usize,
    page: usize,
    sgl: bool,
) -> Result<Vec<Piece>, Status> {
    match command.data_pointer_kind() {
        Some(DataPointerKind::Prp) => {
            let (first, second) = prps(command);
            prp(iommu, first, second, bytes, page as u64)
        }
        Some(_) if sgl => segments(iommu, command.dptr, bytes),
        _ => Err(Status::INVALID_FIELD.do_not_retry()),
    }
}

/// PRP entries 1 and 2.
fn prps(command: &Command) -> (u64, u64) {
    let pair = <[zerocopy::little_endian::U64; 2]>::read_from_bytes(command.dptr.as_bytes());
    pair.map_or((0, 0), |[first, second]| (first.get(), second.get()))
}

fn prp(iommu: &Iommu, first: u64, second: u64, bytes: usize, page: u64) -> Result<Vec<Piece>, Status> {
    let bad_offset = Status::PRP_OFFSET_INVALID.do_not_retry();
    if !first.is_multiple_of(4) {
        return Err(bad_offset);
    }
    let mut pieces = Vec::new();
    let mut left = bytes as u64;
    let mut take = |address: u64, left: &mut u64| {
        let length = (page - address % page).min(*left);
        pieces.push((address, length as usize));
        *left -= length;
    };
    take(first, &mut left);
    if left == 0 {
        return Ok(pieces);
    }
    if left <= page {
        if !second.is_multiple_of(page) {
            return Err(bad_offset);
        }
        take(second, &mut left);
        return Ok(pieces);
    }
    // A list: it may begin anywhere in its page at a multiple of 8; the lists that follow begin their pages.
    if !second.is_multiple_of(8) {
        return Err(bad_offset);
    }
    let mut at = second;
    while left > 0 {
        let entry = read_u64(iommu, at)?;
        if !entry.is_multiple_of(page) {
            return Err(bad_offset);
        }
        let last_of_list = (at + 8).is_multiple_of(page);
        if last_of_list && left > page {
            at = entry;
        } else {
            take(entry, &mut left);
            at += 8;
        }
    }
    Ok(pieces)
}

fn read_u64(iommu: &Iommu, address: u64) -> Result<u64, Status> {
    let mut bytes = [0; 8];
    iommu.read(address, &mut bytes).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
    Ok(u64::from_le_bytes(bytes))
}

fn segments(iommu: &Iommu, first: Descriptor, bytes: usize) -> Result<Vec<Piece>, Status> {
    let mut pieces = Vec::new();
    let mut left = bytes;
    let mut list = vec![first];
    for _ in 0..MAX_SEGMENTS {
        let mut next = None;
        let count = list.len();
        for (index, descriptor) in list.iter().enumerate() {
            match descriptor.decode() {
                Sgl::DataBlock { address, length } => {
                    let length = length as usize;
                    left = left.checked_sub(length).ok_or(Status::SGL_DATA_LENGTH_INVALID.do_not_retry())?;
                    pieces.push((address, length));
                }
                Sgl::Segment { address, length, in_capsule: false }
                | Sgl::LastSegment { address, length, in_capsule: false }
                    if index + 1 == count && length != 0 && length.is_multiple_of(16) =>
                {
                    next = Some((address, length as usize));
                }
                Sgl::Segment { .. } | Sgl::LastSegment { .. } => {
                    return Err(Status::SGL_INVALID_SEGMENT_DESCRIPTOR.do_not_retry());
                }
                _ => return Err(Status::SGL_DESCRIPTOR_TYPE_INVALID.do_not_retry()),
            }
        }
        let Some((address, length)) = next else {
            let status = Status::SGL_DATA_LENGTH_INVALID.do_not_retry();
            return if left == 0 { Ok(pieces) } else { Err(status) };
        };
        list = vec![Descriptor::default(); length / 16];
        iommu.read(address, list.as_mut_bytes()).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
    }
    Err(Status::SGL_INVALID_DESCRIPTOR_COUNT.do_not_retry())
}

/// Copies the host's data into `to`.
pub(super) fn gather(iommu: &Iommu, pieces: &[Piece], mut to: &mut [u8]) -> Result<(), Status> {
    for &(address, length) in pieces {
        let (piece, rest) = to.split_at_mut(length.min(to.len()));
        iommu.read(address, piece).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        to = rest;
    }
    Ok(())
}

/// Copies `from` to the host.
pub(super) fn scatter(iommu: &Iommu, pieces: &[Piece], mut from: &[u8]) -> Result<(), Status> {
    for &(address, length) in pieces {
        let (piece, rest) = from.split_at(length.min(from.len()));
        iommu.write(address, piece).map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        from = rest;
    }
    Ok(())
}
