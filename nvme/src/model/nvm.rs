//! The model's I/O commands.
//!
//! Owns nothing; every command is answered with the status that NVM 3.2 gives for it. Called by the controller.

use zerocopy::IntoBytes;

use super::admin::PAGE;
use super::controller::{State, Work};
use super::data_pointer::{gather, resolve, scatter};
use super::identify::COMPARE_AND_WRITE_MINUS_ONE;
use super::media::Media;
use super::protection::{Protection, Tags};
use crate::command::{BROADCAST_NSID, DatasetRange, MAX_DATASET_RANGES};
use crate::feature::Feature;
use crate::identify::CommandSet;
use crate::opcode::Nvm;
use crate::{Command, Status};

const INVALID_FIELD: Status = Status::INVALID_FIELD.do_not_retry();

impl State {
    pub(super) fn run_io(&mut self, work: &Work) {
        let Some(second) = work.second else {
            self.count_crossing(&work.command);
            let status = self.io(&work.command).err().unwrap_or(Status::SUCCESS);
            return self.complete(work.queue, &work.command, status, 0);
        };
        let first = self.check_pair(&work.command, &second).and_then(|()| self.io(&work.command));
        let other = match first {
            Ok(()) => self.io(&second),
            Err(_) => Err(Status::ABORTED_FAILED_FUSED),
        };
        self.complete(work.queue, &work.command, first.err().unwrap_or(Status::SUCCESS), 0);
        self.complete(work.queue, &second, other.err().unwrap_or(Status::SUCCESS), 0);
    }

    fn count_crossing(&mut self, command: &Command) {
        let media = self.media.get(&command.nsid.get());
        let boundary = media.map_or(0, |media| u64::from(media.namespace.optimal_boundary));
        let moves = matches!(Nvm::from_value(command.opcode), Some(Nvm::Read | Nvm::Write | Nvm::Compare));
        if moves && boundary > 0 && command.slba() % boundary + u64::from(command.blocks()) > boundary {
            self.statistics.boundary_crossings += 1;
        }
    }

    /// Whether two commands are a Compare and Write (NVM 2.1.3).
    fn check_pair(&self, first: &Command, second: &Command) -> Result<(), Status> {
        let opcodes = (Nvm::from_value(first.opcode), Nvm::from_value(second.opcode));
        let same =
            (first.nsid, first.slba(), first.blocks()) == (second.nsid, second.slba(), second.blocks());
        if !self.options.compare_and_write || opcodes != (Some(Nvm::Compare), Some(Nvm::Write)) || !same {
            return Err(INVALID_FIELD);
        }
        if first.blocks() > u32::from(COMPARE_AND_WRITE_MINUS_ONE) + 1 {
            return Err(Status::ATOMIC_WRITE_UNIT_EXCEEDED.do_not_retry());
        }
        Ok(())
    }

    fn io(&mut self, command: &Command) -> Result<(), Status> {
        let opcode = Nvm::from_value(command.opcode).filter(|opcode| match opcode {
            Nvm::Flush | Nvm::Read | Nvm::Write => true,
            Nvm::Compare => self.options.compare,
            Nvm::WriteZeroes => self.options.write_zeroes,
            Nvm::DatasetManagement => self.options.dataset_management,
            Nvm::Verify => self.options.verify,
            _ => false,
        });
        let opcode = opcode.ok_or(Status::INVALID_OPCODE.do_not_retry())?;
        let nsid = command.nsid.get();
        if opcode == Nvm::Flush && nsid == BROADCAST_NSID {
            self.media.values_mut().for_each(Media::flush);
            return Ok(());
        }
        if !self.is_active(nsid) {
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT.do_not_retry());
        }
        let durable = self.is_durable(command);
        let limit = self.max_transfer_bytes();
        let sgl = self.options.sgl;
        // Taken out, so that the rest of the controller can be used at the same time.
        let Some(mut media) = self.media.remove(&nsid) else { return Err(INVALID_FIELD) };
        if media.namespace.command_set != CommandSet::Nvm {
            self.violation(format!("I/O to namespace {nsid}, which is not of the NVM command set"));
        }
        let result = match opcode {
            Nvm::Flush => {
                media.flush();
                Ok(())
            }
            Nvm::DatasetManagement => self.dataset_management(&mut media, command, durable),
            _ => self.on_blocks(&mut media, opcode, command, durable, limit, sgl),
        };
        self.media.insert(nsid, media);
        result
    }

    fn is_durable(&self, command: &Command) -> bool {
        let enabled = self.features.get(&Feature::VolatileWriteCache.value()) != Some(&0);
        command.fua() || !self.options.volatile_write_cache || !enabled
    }

    fn on_blocks(
        &self,
        media: &mut Media,
        opcode: Nvm,
        command: &Command,
        durable: bool,
        limit: usize,
        sgl: bool,
    ) -> Result<(), Status> {
        let (slba, blocks) = (command.slba(), u64::from(command.blocks()));
        let end = slba.checked_add(blocks).filter(|&end| end <= media.namespace.blocks);
        let end = end.ok_or(Status::LBA_OUT_OF_RANGE.do_not_retry())?;
        let protection = Protection::of(&media.namespace, command)?;
        match opcode {
            Nvm::WriteZeroes => {
                let zeroes = vec![0; media.stored_bytes()];
                for lba in slba..end {
                    if command.deallocate() || !protection.generates() {
                        media.set(lba, None, durable);
                    } else {
                        let mut block = zeroes.clone();
                        protection.generate(&mut block, Tags::of(command, lba));
                        media.set(lba, Some(&block), durable);
                    }
                }
                return Ok(());
            }
            Nvm::Verify => {
                let mut block = vec![0; media.stored_bytes()];
                for lba in slba..end {
                    load(media, lba, &mut block);
                    protection.check(&block, Tags::of(command, lba))?;
                }
                return Ok(());
            }
            _ => {}
        }

        let data = media.namespace.block_bytes as usize;
        let stored = media.stored_bytes();
        // Which parts of a block move by the data pointer and by the metadata pointer.
        let with_metadata = stored > data && !protection.generates();
        let moved = if with_metadata && media.namespace.extended { stored } else { data };
        let apart = if with_metadata && !media.namespace.extended { stored - data } else { 0 };
        let count = blocks as usize;
        if count * moved > limit {
            return Err(INVALID_FIELD);
        }
        let pieces = resolve(&self.iommu, command, count * moved, PAGE, sgl)?;
        let metadata_at = command.mptr.get();
        if apart > 0 && !metadata_at.is_multiple_of(4) {
            return Err(INVALID_FIELD);
        }
        let metadata_pieces = [(metadata_at, count * apart)];
        let mut bytes = vec![0; count * moved];
        let mut metadata = vec![0; count * apart];
        let mut block = vec![0; stored];
        if opcode == Nvm::Read {
            for (index, lba) in (slba..end).enumerate() {
                load(media, lba, &mut block);
                protection.check(&block, Tags::of(command, lba))?;
                bytes[index * moved..][..moved].copy_from_slice(&block[..moved]);
                metadata[index * apart..][..apart].copy_from_slice(&block[stored - apart..]);
            }
            scatter(&self.iommu, &pieces, &bytes)?;
            return if apart > 0 { scatter(&self.iommu, &metadata_pieces, &metadata) } else { Ok(()) };
        }
        gather(&self.iommu, &pieces, &mut bytes)?;
        if apart > 0 {
            gather(&self.iommu, &metadata_pieces, &mut metadata)?;
        }
        let mut held = vec![0; stored];
        for check_only in [true, false] {
            for (index, lba) in (slba..end).enumerate() {
                block[..moved].copy_from_slice(&bytes[index * moved..][..moved]);
                block[stored - apart..].copy_from_slice(&metadata[index * apart..][..apart]);
                let tags = Tags::of(command, lba);
                if protection.generates() {
                    protection.generate(&mut block, tags);
                } else {
                    protection.check(&block, tags)?;
                }
                if opcode == Nvm::Compare {
                    load(media, lba, &mut held);
                    if held[..data] != block[..data] {
                        return Err(Status::COMPARE_FAILURE);
                    }
                } else if !check_only {
                    media.set(lba, Some(&block), durable);
                }
            }
        }
        Ok(())
    }

    fn dataset_management(&self, media: &mut Media, command: &Command, durable: bool) -> Result<(), Status> {
        let count = command.dataset_ranges().min(MAX_DATASET_RANGES);
        let mut ranges = vec![DatasetRange::default(); count];
        let pieces =
            resolve(&self.iommu, command, count * size_of::<DatasetRange>(), PAGE, self.options.sgl)?;
        gather(&self.iommu, &pieces, ranges.as_mut_bytes())?;
        if !command.dataset_deallocate() {
            return Ok(());
        }
        let within = |range: &DatasetRange| {
            let end = range.slba.get().checked_add(range.blocks.get().into());
            end.is_some_and(|end| end <= media.namespace.blocks)
        };
        if !ranges.iter().all(within) {
            return Err(Status::LBA_OUT_OF_RANGE.do_not_retry());
        }
        for range in &ranges {
            for lba in range.slba.get()..range.slba.get() + u64::from(range.blocks.get()) {
                media.set(lba, None, durable);
            }
        }
        Ok(())
    }
}

/// A block as a read finds it: one that was never written, or deallocated, is zeroes with metadata that is not checked.
fn load(media: &Media, lba: u64, to: &mut [u8]) {
    if let Some(block) = media.block(lba) {
        to.copy_from_slice(block);
    } else {
        let data = media.namespace.block_bytes as usize;
        to[..data].fill(0);
        to[data..].fill(if media.namespace.protection == 0 { 0 } else { 0xff });
    }
}
