//! Data pointers: where a command's data lies, as PRP entries or SGL descriptors (Base 4.1).
//!
//! Owns a page for each slot of a queue, for the PRP list, the SGL segment or the dataset ranges of the command in that
//! slot. Invariant: a slot's page is written only while the slot is free, that is, before the command in it is
//! submitted and after the device has answered the one before; so the device never reads a list that changes.
//! Data is described where it lies and never copied here. Called by the I/O queue for each command.

use sledge_reactor::memory::Segments;
use zerocopy::little_endian::{U32, U64};

use super::reach::Reach;
use crate::Command;
use crate::command::{DataPointerKind, DatasetRange};
use crate::function::{DmaError, DmaMemory, Function};
use crate::sgl::{Descriptor, descriptor_type};

/// Bytes of a memory page (CC.MPS of 0) and of each slot's list.
pub const PAGE_BYTES: usize = 4096;
/// Entries of a PRP list of one page.
const LIST_ENTRIES: usize = PAGE_BYTES / 8;
/// Descriptors of an SGL segment of one page.
const SEGMENT_DESCRIPTORS: usize = PAGE_BYTES / 16;
/// Most bytes of data that one command's pointer describes whatever its offset in a page: as many pages as there are
/// entries in a list, and the first entry.
pub const MAX_DATA_BYTES: usize = LIST_ENTRIES * PAGE_BYTES;

/// Why data can't be described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indescribable {
    /// The device does not reach some of it.
    Unreachable,
    /// It lies at addresses that the controller's kinds of pointer can't say.
    Shape,
    /// The segments are shorter than the command's data.
    Short,
}

/// The lists of a queue's slots.
#[derive(Debug)]
pub struct Lists {
    pages: DmaMemory,
}

impl Lists {
    /// A page for each of `slots` slots. Blocks.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(function: &dyn Function, slots: u16) -> Result<Self, DmaError> {
        Ok(Self { pages: function.allocate(usize::from(slots) * PAGE_BYTES)? })
    }

    /// Makes `command` point to `bytes` bytes of `data` from byte `skip` on. `sgl`: the controller takes SGLs.
    ///
    /// One or two pages are said by PRP entries in the command itself. Of more, an SGL says by one descriptor in the
    /// command what a PRP list says by one entry a page, which we would write and the controller would have to fetch.
    ///
    /// # Errors
    /// When the data can't be described. The command is as it was then.
    #[inline(always)]
    pub fn describe(
        &mut self,
        slot: u16,
        command: &mut Command,
        reach: &Reach,
        (data, skip, bytes): (&Segments, usize, usize),
        sgl: bool,
    ) -> Result<(), Indescribable> {
        // Nearly all data: one segment, within one page or two.
        if let Some(segment) = data.get(0)
            && skip + bytes <= segment.len()
        {
            let start = segment.as_slice().as_ptr().addr() + skip;
            let (address, contiguous) = reach.device_address(start).ok_or(Indescribable::Unreachable)?;
            let in_first = PAGE_BYTES - (address as usize & (PAGE_BYTES - 1));
            if contiguous >= bytes && bytes <= in_first + PAGE_BYTES && address & 3 == 0 {
                let second = if bytes > in_first { address + in_first as u64 } else { 0 };
                point(command, prp(address, second), DataPointerKind::Prp);
                return Ok(());
            }
        }
        self.describe_any(slot, command, reach, (data, skip, bytes), sgl)
    }

    /// As `describe`, for data in many pages or segments.
    fn describe_any(
        &mut self,
        slot: u16,
        command: &mut Command,
        reach: &Reach,
        span: (&Segments, usize, usize),
        sgl: bool,
    ) -> Result<(), Indescribable> {
        if sgl && self.by_sgl(slot, command, reach, span).is_ok() {
            return Ok(());
        }
        self.by_prp(slot, command, reach, span)
    }

    fn by_prp(
        &mut self,
        slot: u16,
        command: &mut Command,
        reach: &Reach,
        span: (&Segments, usize, usize),
    ) -> Result<(), Indescribable> {
        let mut entries = Entries::default();
        let mut end = 0;
        runs(reach, span, |address, bytes| {
            // Only the first entry may begin inside of a page, and only the last may end inside of one (Base 4.1.1).
            let seam = (end | address) as usize & (PAGE_BYTES - 1) != 0;
            if address & 3 != 0 || entries.count > 0 && seam {
                return Err(Indescribable::Shape);
            }
            end = address + bytes as u64;
            let mut page = address;
            while page < end {
                self.add(slot, &mut entries, page)?;
                page = (page | (PAGE_BYTES as u64 - 1)) + 1;
            }
            Ok(())
        })?;
        self.finish(slot, command, &entries);
        Ok(())
    }

    /// Makes `command` point `bytes` bytes long to one page, again and again: what is read from it is written as often,
    /// what is written to it is lost.
    pub fn repeat(&mut self, slot: u16, command: &mut Command, page: u64, bytes: usize) {
        let mut entries = Entries::default();
        for _ in 0..bytes.div_ceil(PAGE_BYTES).min(LIST_ENTRIES) {
            // Within the list: bounded above.
            let _ = self.add(slot, &mut entries, page);
        }
        self.finish(slot, command, &entries);
    }

    /// Makes `command`, a Dataset Management of one range, point to that range.
    pub fn dataset_range(&mut self, slot: u16, command: &mut Command, range: DatasetRange) {
        let offset = usize::from(slot) * PAGE_BYTES;
        self.pages.write(offset, range);
        point(command, prp(self.pages.device_address(offset), 0), DataPointerKind::Prp);
    }

    /// Appends a PRP entry.
    fn add(&mut self, slot: u16, entries: &mut Entries, page: u64) -> Result<(), Indescribable> {
        let list = usize::from(slot) * PAGE_BYTES;
        match entries.count {
            0 => entries.first = page,
            1 => entries.second = page,
            count if count > LIST_ENTRIES => return Err(Indescribable::Shape),
            count => {
                if count == 2 {
                    self.pages.write(list, entries.second.to_le());
                }
                self.pages.write(list + (count - 1) * 8, page.to_le());
            }
        }
        entries.count += 1;
        Ok(())
    }

    fn finish(&self, slot: u16, command: &mut Command, entries: &Entries) {
        let list = self.pages.device_address(usize::from(slot) * PAGE_BYTES);
        let second = if entries.count > 2 { list } else { entries.second };
        point(command, prp(entries.first, second), DataPointerKind::Prp);
    }

    fn by_sgl(
        &mut self,
        slot: u16,
        command: &mut Command,
        reach: &Reach,
        span: (&Segments, usize, usize),
    ) -> Result<(), Indescribable> {
        let list = usize::from(slot) * PAGE_BYTES;
        let mut last = Descriptor::default();
        let mut count = 0;
        runs(reach, span, |address, bytes| {
            // Dwords, for controllers that want them (SGLS bits 1:0 of 10b).
            if (address as usize | bytes) & 3 != 0 || count == SEGMENT_DESCRIPTORS {
                return Err(Indescribable::Shape);
            }
            // At most `MAX_DATA_BYTES`.
            last = Descriptor::data_block(address, bytes as u32);
            self.pages.write(list + count * 16, last);
            count += 1;
            Ok(())
        })?;
        if count > 1 {
            last = Descriptor {
                address: U64::new(self.pages.device_address(list)),
                length: U32::new(count as u32 * 16),
                reserved: [0; 3],
                identifier: descriptor_type::LAST_SEGMENT << 4,
            };
        }
        point(command, last, DataPointerKind::SglContiguousMetadata);
        Ok(())
    }
}

/// PRP entries as they come.
#[derive(Default)]
struct Entries {
    first: u64,
    second: u64,
    count: usize,
}

/// Calls `visit` with each part of the data that is contiguous for the device, merged as far as that goes.
fn runs(
    reach: &Reach,
    (data, mut skip, mut left): (&Segments, usize, usize),
    mut visit: impl FnMut(u64, usize) -> Result<(), Indescribable>,
) -> Result<(), Indescribable> {
    let mut run: Option<(u64, usize)> = None;
    for segment in data.iter() {
        let bytes = segment.as_slice();
        if skip >= bytes.len() {
            skip -= bytes.len();
            continue;
        }
        let mut start = bytes.as_ptr().addr() + skip;
        let mut here = (bytes.len() - skip).min(left);
        skip = 0;
        left -= here;
        while here > 0 {
            let (address, contiguous) = reach.device_address(start).ok_or(Indescribable::Unreachable)?;
            let part = contiguous.min(here);
            run = match run {
                Some((first, bytes)) if first + bytes as u64 == address => Some((first, bytes + part)),
                before => {
                    if let Some((first, bytes)) = before {
                        visit(first, bytes)?;
                    }
                    Some((address, part))
                }
            };
            start += part;
            here -= part;
        }
        if left == 0 {
            break;
        }
    }
    match run {
        Some((first, bytes)) if left == 0 => visit(first, bytes),
        _ => Err(Indescribable::Short),
    }
}

/// PRP Entry 1 and 2 in the place of the data pointer.
#[inline]
fn prp(first: u64, second: u64) -> Descriptor {
    zerocopy::transmute!([U64::new(first), U64::new(second)])
}

#[inline]
fn point(command: &mut Command, pointer: Descriptor, kind: DataPointerKind) {
    command.dptr = pointer;
    command.flags = command.flags & 0x3f | kind.value() << 6;
}
