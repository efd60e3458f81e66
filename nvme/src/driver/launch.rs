//! From a part of an I/O to a command on the device: its data pointer, and memory in place of what the device does not
//! reach.
//!
//! Owns nothing; it is the engine's. Invariant: a command is made for the slot that it will be in, right before it is
//! put there, so that a slot's list is the one of its command.

use sledge_reactor::memory::{self, MAX_BUFFER_BYTES, MAX_SEGMENTS, Segment, Segments};
use sledge_reactor::time;
use zerocopy::little_endian::U64;

use super::data_pointer::{Indescribable, PAGE_BYTES};
use super::engine::{Context, Device, Engine};
use super::request::{NO_EXTRA, Part};
use super::split::{self, Payload, Role};
use crate::command::DatasetRange;
use crate::io::Operation;
use crate::{Command, Status};

/// Why a part can't be put on the device.
pub enum Obstacle {
    /// The pool is dry.
    Memory,
    /// It will never be possible.
    Never(Status),
}

impl Engine {
    /// Puts a part on the device, a fused pair as two commands that lie side by side and are told of at once. There are
    /// slots enough.
    #[inline]
    pub fn launch(&mut self, part: Part, memory: bool) -> Result<(), Obstacle> {
        if part.role == Role::Single {
            let command = self.prepare(part, memory)?;
            return self.put(command, part);
        }
        let second = Part { role: Role::FusedWrite, ..part };
        // Both are known to be describable before the first is put. The write is described again in its own slot.
        self.prepare(second, memory)?;
        let compare = self.prepare(part, memory)?;
        self.put(compare, part)?;
        let write = self.prepare(second, memory)?;
        self.put(write, second)
    }

    #[inline]
    fn put(&mut self, command: Command, part: Part) -> Result<(), Obstacle> {
        // The caller saw to it that there are slots.
        let internal = Obstacle::Never(Status::INTERNAL_ERROR);
        let Some(device) = &mut self.device else { return Err(internal) };
        match device.port.submit(command, Context::own(part), time::now()) {
            Ok(_) => {
                if let Some(request) = self.ledger.requests.get_mut(part.request) {
                    request.in_flight += 1;
                }
                Ok(())
            }
            Err(_) => Err(internal),
        }
    }

    /// Makes a part's command for the slot that comes next.
    #[inline]
    fn prepare(&mut self, part: Part, memory: bool) -> Result<Command, Obstacle> {
        let internal = Obstacle::Never(Status::INTERNAL_ERROR);
        let Some(device) = &mut self.device else { return Err(internal) };
        let Some(slot) = device.port.next_slot() else { return Err(internal) };
        let Some(request) = self.ledger.requests.get(part.request) else { return Err(internal) };
        let Some(channel) = self.ledger.channels.get(request.channel) else { return Err(internal) };
        if request.extra != NO_EXTRA {
            return self.prepare_with_extra(slot, part, memory);
        }
        let (mut command, payload) =
            split::command(&request.io, &channel.shape, part.role, part.slba, part.blocks);
        let bytes = part.blocks as usize * channel.shape.geometry.block_bytes as usize;
        match payload {
            Payload::Data => {
                let half = if part.role == Role::FusedWrite { bytes } else { 0 };
                let span = (&request.io.data, part.offset as usize + half, bytes);
                let device = &mut **device;
                match device.lists.describe(slot, &mut command, &device.reach, span, device.sgl) {
                    Ok(()) => Ok(command),
                    Err(_) => self.prepare_with_extra(slot, part, memory),
                }
            }
            Payload::None => {
                command.flags &= 0x3;
                Ok(command)
            }
            Payload::Zeroes | Payload::Sink => {
                let page = if payload == Payload::Zeroes { 0 } else { PAGE_BYTES };
                let page = device.spare.device_address(page);
                device.lists.repeat(slot, &mut command, page, bytes);
                Ok(command)
            }
            Payload::Range => {
                let range = DatasetRange::new(part.slba, part.blocks);
                device.lists.dataset_range(slot, &mut command, range);
                Ok(command)
            }
        }
    }

    /// As `prepare`, for commands that came ready made and for data that the device does not reach where it lies.
    #[cold]
    fn prepare_with_extra(&mut self, slot: u16, part: Part, memory: bool) -> Result<Command, Obstacle> {
        let internal = Obstacle::Never(Status::INTERNAL_ERROR);
        let Some(device) = &mut self.device else { return Err(internal) };
        let Device { lists, reach, sgl, .. } = &mut **device;
        let sgl = *sgl;
        let Some(extra) = self.ledger.extra_or_new(part.request) else { return Err(internal) };
        let metadata = extra.raw.as_ref().map(|raw| {
            let pointer = match raw.metadata.get(0) {
                Some(metadata) => reach
                    .device_address(metadata.as_slice().as_ptr().addr())
                    .filter(|(_, contiguous)| raw.metadata.count() == 1 && *contiguous >= metadata.len())
                    .map(|(address, _)| address),
                None => Some(0),
            };
            (raw.command, pointer)
        });
        let Some(request) = self.ledger.requests.get(part.request) else { return Err(internal) };
        if let Some((mut command, pointer)) = metadata {
            let Some(pointer) = pointer else { return Err(unreachable_data()) };
            command.mptr = U64::new(pointer);
            let bytes = request.io.data.len_bytes();
            if bytes == 0 {
                command.flags &= 0x3;
                return Ok(command);
            }
            let span = (&request.io.data, 0, bytes);
            return match lists.describe(slot, &mut command, reach, span, sgl) {
                Ok(()) => Ok(command),
                Err(_) => Err(unreachable_data()),
            };
        }
        let Some(channel) = self.ledger.channels.get(request.channel) else { return Err(internal) };
        let (mut command, _) = split::command(&request.io, &channel.shape, part.role, part.slba, part.blocks);
        let bytes = part.blocks as usize * channel.shape.geometry.block_bytes as usize;
        let half = if part.role == Role::FusedWrite { bytes } else { 0 };
        let offset = part.offset as usize + half;
        // Once part of the data has another place, all behind it has, and is taken from there in the end.
        let bounced = self.ledger.extras.get(request.extra);
        if !bounced.is_some_and(|extra| !extra.bounce.is_empty() && extra.bounce_from <= offset) {
            match lists.describe(slot, &mut command, reach, (&request.io.data, offset, bytes), sgl) {
                Ok(()) => return Ok(command),
                Err(Indescribable::Short) => {
                    return Err(Obstacle::Never(Status::SGL_DATA_LENGTH_INVALID.do_not_retry()));
                }
                Err(Indescribable::Unreachable | Indescribable::Shape) => {}
            }
            self.bounce(part.request, offset, memory)?;
        }
        let Some(request) = self.ledger.requests.get(part.request) else { return Err(internal) };
        let Some(extra) = self.ledger.extras.get(request.extra) else { return Err(internal) };
        let Some(device) = self.device.as_deref_mut() else { return Err(internal) };
        let span = (&extra.bounce, offset - extra.bounce_from, bytes);
        match device.lists.describe(slot, &mut command, &device.reach, span, device.sgl) {
            Ok(()) => Ok(command),
            Err(_) => Err(internal),
        }
    }

    /// Sees to it that a request's data from byte `from` on has a place that the device reaches, and what is to be
    /// written lies there. The only copy that there is: of memory that belongs to another device or lies so oddly that
    /// no data pointer says it. To register such memory for one command would cost more than to copy it.
    fn bounce(&mut self, index: u32, from: usize, memory: bool) -> Result<(), Obstacle> {
        let internal = Obstacle::Never(Status::INTERNAL_ERROR);
        let Some(request) = self.ledger.requests.get(index) else { return Err(internal) };
        let Some(extra) = self.ledger.extras.get_mut(request.extra) else { return Err(internal) };
        if !extra.bounce.is_empty() && extra.bounce_from <= from {
            return Ok(());
        }
        if request.in_flight > 0 && !extra.bounce.is_empty() {
            return Err(internal);
        }
        let data = &request.io.data;
        let reads = request.io.operation == Operation::Read;
        if reads && data.iter().any(|segment| matches!(segment, Segment::Lent(_))) {
            return Err(unreachable_data());
        }
        let mut allowed = memory;
        let taken = take_memory(data.len_bytes() - from, &mut allowed).map_err(Obstacle::Never)?;
        let Some(mut bounce) = taken else { return Err(Obstacle::Memory) };
        if !reads {
            let mut at = from;
            for segment in bounce.iter_mut() {
                if let Some(bytes) = segment.as_mut_slice() {
                    at += data.copy_to(at, bytes);
                }
            }
        }
        (extra.bounce, extra.bounce_from) = (bounce, from);
        Ok(())
    }
}

/// The status of a command whose data can't be reached by the device and can't be copied either.
fn unreachable_data() -> Obstacle {
    Obstacle::Never(Status::DATA_TRANSFER_ERROR.do_not_retry())
}

/// Memory for `bytes` bytes out of the pool; `None`, and `allowed` false, when it is dry or was before.
///
/// # Errors
/// It is more than one I/O's data can have.
pub fn take_memory(bytes: usize, allowed: &mut bool) -> Result<Option<Segments>, Status> {
    if bytes > MAX_SEGMENTS * MAX_BUFFER_BYTES {
        return Err(Status::INVALID_FIELD.do_not_retry());
    }
    if !*allowed {
        return Ok(None);
    }
    let mut segments = Segments::new();
    let mut left = bytes;
    while left > 0 {
        let part = left.min(MAX_BUFFER_BYTES);
        let Some(buffer) = memory::allocate(part) else {
            *allowed = false;
            return Ok(None);
        };
        // Checked above: it never takes more than `MAX_SEGMENTS`.
        if segments.push(buffer).is_err() {
            return Err(Status::INTERNAL_ERROR);
        }
        left -= part;
    }
    Ok(Some(segments))
}
