//! The model's admin commands.
//!
//! Owns nothing; every command is answered with the status that Base 5 gives for it. Called by the controller.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U128;

use super::controller::State;
use super::data_pointer::{gather, resolve, scatter};
use super::media::Media;
use super::queue::{CompletionQueue, SubmissionQueue};
use crate::feature::{Feature, NumberOfQueues};
use crate::identify::NamespaceList;
use crate::log_page::{FirmwareSlotLog, HealthLog, LogPage};
use crate::opcode::Admin;
use crate::{Command, Status};

/// Bytes of a memory page: CC.MPS is always 0 here.
pub(super) const PAGE: usize = 4096;

/// The result of a command that has one.
type Answer = Result<u32, Status>;

const INVALID_FIELD: Status = Status::INVALID_FIELD.do_not_retry();

impl State {
    /// Bytes that a command may move at most.
    pub(super) const fn max_transfer_bytes(&self) -> usize {
        match self.options.mdts {
            0 => usize::MAX,
            shift => PAGE << shift,
        }
    }

    fn take_data(&self, command: &Command, bytes: usize) -> Result<Vec<u8>, Status> {
        let mut data = vec![0; bytes];
        if bytes > 0 {
            let pieces = resolve(&self.iommu, command, bytes, PAGE, false)?;
            gather(&self.iommu, &pieces, &mut data)?;
        }
        Ok(data)
    }

    fn give_data(&self, command: &Command, data: &[u8]) -> Answer {
        if data.len() > self.max_transfer_bytes() {
            return Err(INVALID_FIELD);
        }
        let pieces = resolve(&self.iommu, command, data.len(), PAGE, false)?;
        scatter(&self.iommu, &pieces, data)?;
        Ok(0)
    }

    pub(super) fn run_admin(&mut self, command: &Command) {
        let answer = match Admin::from_value(command.opcode) {
            Some(Admin::AsynchronousEventRequest) => return self.request_event(command),
            Some(Admin::Identify) => self.identify(command).and_then(|data| self.give_data(command, &data)),
            Some(Admin::CreateIoCompletionQueue) => self.create_completion_queue(command),
            Some(Admin::CreateIoSubmissionQueue) => self.create_submission_queue(command),
            Some(Admin::DeleteIoSubmissionQueue) => self.delete_submission_queue(command),
            Some(Admin::DeleteIoCompletionQueue) => self.delete_completion_queue(command),
            Some(Admin::SetFeatures) => self.set_feature(command),
            Some(Admin::GetFeatures) => self.get_feature(command),
            Some(Admin::Abort) => self.abort(command),
            Some(Admin::GetLogPage) => self.log_page(command),
            Some(Admin::DoorbellBufferConfig) if self.options.shadow_doorbells => {
                self.configure_shadow(command)
            }
            Some(Admin::FormatNvm) => self.format(command),
            Some(Admin::Sanitize) => {
                self.media.values_mut().for_each(|media| media.format(media.namespace.clone()));
                Ok(0)
            }
            Some(Admin::FirmwareImageDownload) => {
                self.take_data(command, (command.cdw10.get() as usize + 1) * 4).map(|_| 0)
            }
            Some(Admin::FirmwareCommit | Admin::DeviceSelfTest | Admin::KeepAlive) => Ok(0),
            _ => Err(Status::INVALID_OPCODE.do_not_retry()),
        };
        let (status, result) = answer.map_or_else(|status| (status, 0), |result| (Status::SUCCESS, result));
        self.complete(0, command, status, result);
    }

    fn queue_limit(&self) -> u16 {
        let set = self.features.get(&Feature::NumberOfQueues.value());
        set.map_or(self.options.max_io_queues, |&bits| {
            NumberOfQueues::from_bits(bits).submission_minus_one() + 1
        })
    }

    /// Identifier, entries and address of a queue that is to be created.
    fn new_queue(&self, command: &Command, exists: bool) -> Result<(u16, u32, u64), Status> {
        let queue = (command.cdw10.get() & 0xffff) as u16;
        let minus_one = command.cdw10.get() >> 16;
        if queue == 0 || queue > self.queue_limit() || exists {
            return Err(Status::INVALID_QUEUE_IDENTIFIER.do_not_retry());
        }
        if minus_one == 0 || minus_one >= self.options.max_queue_entries {
            return Err(Status::INVALID_QUEUE_SIZE.do_not_retry());
        }
        let contiguous = command.cdw11.get() & 1 != 0;
        let sizes =
            (self.configuration.io_submission_entry_size(), self.configuration.io_completion_entry_size());
        if !contiguous || sizes != (6, 4) {
            return Err(INVALID_FIELD);
        }
        let base = command.dptr.address.get();
        if !base.is_multiple_of(PAGE as u64) {
            return Err(Status::PRP_OFFSET_INVALID.do_not_retry());
        }
        Ok((queue, minus_one + 1, base))
    }

    fn create_completion_queue(&mut self, command: &Command) -> Answer {
        let exists = self.completion.contains_key(&((command.cdw10.get() & 0xffff) as u16));
        let (queue, entries, base) = self.new_queue(command, exists)?;
        self.completion.insert(queue, CompletionQueue::new(base, entries));
        Ok(0)
    }

    fn create_submission_queue(&mut self, command: &Command) -> Answer {
        let exists = self.submission.contains_key(&((command.cdw10.get() & 0xffff) as u16));
        let (queue, entries, base) = self.new_queue(command, exists)?;
        let completion = (command.cdw11.get() >> 16) as u16;
        if completion == 0 || !self.completion.contains_key(&completion) {
            return Err(Status::COMPLETION_QUEUE_INVALID.do_not_retry());
        }
        self.submission.insert(queue, SubmissionQueue::new(base, entries, completion));
        Ok(0)
    }

    fn delete_submission_queue(&mut self, command: &Command) -> Answer {
        let queue = (command.cdw10.get() & 0xffff) as u16;
        if queue == 0 || !self.submission.contains_key(&queue) {
            return Err(Status::INVALID_QUEUE_IDENTIFIER.do_not_retry());
        }
        self.end_queue(queue);
        Ok(0)
    }

    fn delete_completion_queue(&mut self, command: &Command) -> Answer {
        let queue = (command.cdw10.get() & 0xffff) as u16;
        if queue == 0 || !self.completion.contains_key(&queue) {
            return Err(Status::INVALID_QUEUE_IDENTIFIER.do_not_retry());
        }
        if self.submission.values().any(|ring| ring.completion_queue == queue) {
            return Err(Status::INVALID_QUEUE_DELETION.do_not_retry());
        }
        self.completion.remove(&queue);
        Ok(0)
    }

    fn set_feature(&mut self, command: &Command) -> Answer {
        let fid = command.feature_identifier();
        let value = command.feature_value();
        let mut result = 0;
        let mut kept = value;
        match Feature::from_value(fid) {
            Some(Feature::NumberOfQueues) => {
                if self.submission.len() > 1 || self.completion.len() > 1 {
                    return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
                }
                let asked = NumberOfQueues::from_bits(value);
                if asked.submission_minus_one() == u16::MAX || asked.completion_minus_one() == u16::MAX {
                    return Err(INVALID_FIELD);
                }
                // All the queues that there are, whatever was asked, as many drives do.
                result = NumberOfQueues::pairs(self.options.max_io_queues).bits();
                kept = result;
            }
            Some(Feature::VolatileWriteCache) if !self.options.volatile_write_cache => {
                return Err(INVALID_FIELD);
            }
            Some(Feature::HostBehaviorSupport) => drop(self.take_data(command, 512)?),
            Some(Feature::Timestamp) => drop(self.take_data(command, 8)?),
            Some(
                Feature::VolatileWriteCache
                | Feature::Arbitration
                | Feature::PowerManagement
                | Feature::TemperatureThreshold
                | Feature::ErrorRecovery
                | Feature::InterruptCoalescing
                | Feature::InterruptVectorConfiguration
                | Feature::WriteAtomicityNormal
                | Feature::AsyncEventConfiguration
                | Feature::CommandSetProfile,
            ) => {}
            _ => return Err(INVALID_FIELD),
        }
        self.features.insert(fid, kept);
        Ok(result)
    }

    fn get_feature(&self, command: &Command) -> Answer {
        let fid = command.feature_identifier();
        let default = match Feature::from_value(fid) {
            Some(Feature::NumberOfQueues) => NumberOfQueues::pairs(self.options.max_io_queues).bits(),
            Some(Feature::VolatileWriteCache) if self.options.volatile_write_cache => 1,
            Some(Feature::VolatileWriteCache) | None => return Err(INVALID_FIELD),
            Some(_) => 0,
        };
        Ok(self.features.get(&fid).copied().unwrap_or(default))
    }

    fn abort(&mut self, command: &Command) -> Answer {
        const NOT_ABORTED: u32 = 1;
        let (queue, cid) = (command.abort_sqid(), command.abort_cid());
        if self.controls.ignore_aborts {
            return Ok(NOT_ABORTED);
        }
        if queue == 0 && self.abort_request(cid) {
            return Ok(0);
        }
        let aborted = self.take_commands(queue, |command| command.cid.get() == cid);
        for command in &aborted {
            self.complete(queue, command, Status::ABORTED_BY_REQUEST, 0);
        }
        Ok(if aborted.is_empty() { NOT_ABORTED } else { 0 })
    }

    fn log_page(&mut self, command: &Command) -> Answer {
        let lid = command.log_page_identifier();
        let mut page = match LogPage::from_value(lid) {
            Some(LogPage::Error) => {
                self.events.errors.iter().flat_map(|entry| entry.as_bytes().to_vec()).collect()
            }
            Some(LogPage::Health) => self.health_log().as_bytes().to_vec(),
            Some(LogPage::FirmwareSlot) => {
                FirmwareSlotLog::single(&self.options.firmware).as_bytes().to_vec()
            }
            Some(LogPage::ChangedNamespaces) => {
                let changed: Vec<u32> = self.events.changed.iter().copied().collect();
                NamespaceList::changed(changed.into_iter()).as_bytes().to_vec()
            }
            // No sanitize operation in progress; the last one succeeded.
            Some(LogPage::SanitizeStatus) => vec![0xff, 0xff, 1, 0],
            _ => return Err(Status::INVALID_LOG_PAGE.do_not_retry()),
        };
        let length = usize::try_from(command.log_page_bytes()).map_err(|_| INVALID_FIELD)?;
        let offset = usize::try_from(command.log_page_offset()).map_err(|_| INVALID_FIELD)?;
        if offset > page.len().max(PAGE) || length > self.max_transfer_bytes() {
            return Err(INVALID_FIELD);
        }
        page.resize(offset + length, 0);
        self.give_data(command, &page[offset..])?;
        if !command.retain_async_event() {
            self.clear_events(lid);
        }
        Ok(0)
    }

    fn health_log(&self) -> HealthLog {
        let count = |opcode: u8| self.statistics.io_commands.get(&opcode).copied().unwrap_or(0);
        let mut log = HealthLog::new();
        log.critical_warning = self.critical_warning.bits();
        log.composite_temperature.set(300);
        log.available_spare = 100;
        log.available_spare_threshold = 10;
        log.host_read_commands = U128::new(count(2).into());
        log.host_write_commands = U128::new(count(1).into());
        log.error_log_entries = U128::new(self.events.error_count.into());
        log
    }

    fn configure_shadow(&mut self, command: &Command) -> Answer {
        let shadow = command.dptr.address.get();
        let event = u64::from_le_bytes([
            command.dptr.length.as_bytes()[0],
            command.dptr.length.as_bytes()[1],
            command.dptr.length.as_bytes()[2],
            command.dptr.length.as_bytes()[3],
            command.dptr.reserved[0],
            command.dptr.reserved[1],
            command.dptr.reserved[2],
            command.dptr.identifier,
        ]);
        if [shadow, event].iter().any(|address| !address.is_multiple_of(PAGE as u64) || *address == 0) {
            return Err(INVALID_FIELD);
        }
        self.shadow = Some((shadow, event));
        Ok(0)
    }

    fn format(&mut self, command: &Command) -> Answer {
        let dword = command.cdw10.get();
        let index = (dword & 0xf) as usize;
        let &(metadata_bytes, shift) =
            super::identify::FORMATS.get(index).ok_or(Status::INVALID_FORMAT.do_not_retry())?;
        let all = command.nsid.get() == crate::command::BROADCAST_NSID;
        let mut formatted = Vec::new();
        for (&nsid, media) in &mut self.media {
            if !all && nsid != command.nsid.get() {
                continue;
            }
            let mut namespace = media.namespace.clone();
            let bytes = namespace.blocks * u64::from(namespace.block_bytes);
            namespace.block_bytes = 1 << shift;
            namespace.blocks = bytes >> shift;
            namespace.metadata_bytes = metadata_bytes;
            namespace.extended = dword & 1 << 4 != 0;
            namespace.protection = if metadata_bytes == 0 { 0 } else { (dword >> 5 & 0x7) as u8 };
            *media = Media::new(namespace);
            formatted.push(nsid);
        }
        if formatted.is_empty() {
            return Err(Status::INVALID_NAMESPACE_OR_FORMAT.do_not_retry());
        }
        formatted.into_iter().for_each(|nsid| self.namespace_changed(nsid));
        Ok(0)
    }
}
