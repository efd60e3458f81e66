//! The controller: registers, doorbells, and commands on their way from a submission queue to a completion queue.
//!
//! Owns all of the model's state but the mappings. Invariant: each command that was fetched is in exactly one place
//! (runnable, held, forgotten, an outstanding event request) until it completes or its queue ends. Called under the
//! model's lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sledge_reactor::Instant;

use super::controls::{Controls, ModelStatistics};
use super::events::Events;
use super::function::Iommu;
use super::media::Media;
use super::options::{ModelOptions, Readiness};
use super::queue::{CompletionQueue, SubmissionQueue};
use crate::async_event::{ErrorEvent, EventResult};
use crate::command::Fuse;
use crate::identify::CommandSet;
use crate::log_page::CriticalWarning;
use crate::property::{
    AdminQueueAttributes, Capabilities, Configuration, ControllerStatus, ReadyTimeouts, ShutdownNotification,
    ShutdownStatus,
};
use crate::{Command, Completion, Status};

/// Offset of the first doorbell (PCIe Transport 1.0, 3.1.2).
pub(super) const DOORBELLS: usize = 0x1000;
/// What NSSR wants to read: "NVMe".
const SUBSYSTEM_RESET: u32 = 0x4e56_4d65;

/// A command that was fetched, with the other half when it is fused.
pub(super) struct Work {
    pub queue: u16,
    pub command: Command,
    pub second: Option<Command>,
}

/// A change of CSTS.RDY that is to come.
enum Change {
    Reads(u32),
    At(Instant),
    Never,
}

/// The controller.
pub(super) struct State {
    pub iommu: Arc<Iommu>,
    pub options: ModelOptions,
    pub controls: Controls,
    pub statistics: ModelStatistics,
    pub violations: Vec<String>,
    pub gone: bool,
    pub configuration: Configuration,
    status: ControllerStatus,
    change: Option<(bool, Change)>,
    admin_attributes: AdminQueueAttributes,
    admin_submission: u64,
    admin_completion: u64,
    pub submission: BTreeMap<u16, SubmissionQueue>,
    pub completion: BTreeMap<u16, CompletionQueue>,
    runnable: VecDeque<Work>,
    pub held: Vec<Work>,
    in_flight: BTreeSet<(u16, u16)>,
    /// Shadow doorbells and event indexes.
    pub shadow: Option<(u64, u64)>,
    pub media: BTreeMap<u32, Media>,
    pub events: Events,
    pub features: BTreeMap<u8, u32>,
    pub critical_warning: CriticalWarning,
}

impl State {
    pub(super) fn new(iommu: Arc<Iommu>, options: ModelOptions) -> Self {
        let media = options.namespaces.iter().map(|space| (space.nsid, Media::new(space.clone()))).collect();
        Self {
            iommu,
            options,
            controls: Controls::default(),
            statistics: ModelStatistics::default(),
            violations: Vec::new(),
            gone: false,
            configuration: Configuration::default(),
            status: ControllerStatus::default(),
            change: None,
            admin_attributes: AdminQueueAttributes::default(),
            admin_submission: 0,
            admin_completion: 0,
            submission: BTreeMap::new(),
            completion: BTreeMap::new(),
            runnable: VecDeque::new(),
            held: Vec::new(),
            in_flight: BTreeSet::new(),
            shadow: None,
            media,
            events: Events::default(),
            features: BTreeMap::new(),
            critical_warning: CriticalWarning::default(),
        }
    }

    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// Whether a namespace of a command set is of use to the host, as it has enabled the controller.
    pub(super) fn is_active(&self, nsid: u32) -> bool {
        let set = self.media.get(&nsid).map(|media| media.namespace.command_set);
        set == Some(CommandSet::Nvm) || set.is_some() && self.configuration.command_set() == 6
    }

    fn has_other_command_sets(&self) -> bool {
        self.media.values().any(|media| media.namespace.command_set != CommandSet::Nvm)
    }

    fn capabilities(&self) -> Capabilities {
        let entries = self.options.max_queue_entries.clamp(2, 0x1_0000);
        Capabilities::default()
            .with_max_queue_entries_minus_one((entries - 1) as u16)
            .with_contiguous_queues_required(true)
            .with_timeout_500ms(self.options.timeout_500ms)
            .with_doorbell_stride(self.options.doorbell_stride)
            .with_subsystem_reset_supported(true)
            .with_nvm_command_set(true)
            .with_io_command_sets(self.has_other_command_sets())
            .with_ready_with_media(self.options.ready_timeout_500ms.is_some())
    }

    /// The 8 bytes of registers at an offset.
    pub(super) fn read(&mut self, offset: usize) -> u64 {
        if self.gone {
            return u64::MAX;
        }
        let halves = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        match offset {
            0x00 => self.capabilities().bits(),
            0x08 => halves(self.options.version.bits(), 0),
            0x10 => halves(0, self.configuration.bits()),
            0x18 => {
                self.settle(true);
                halves(0, self.status.bits())
            }
            0x20 => halves(0, self.admin_attributes.bits()),
            0x28 => self.admin_submission,
            0x30 => self.admin_completion,
            0x68 => {
                let timeout = self.options.ready_timeout_500ms.unwrap_or(0);
                halves(ReadyTimeouts::default().with_with_media_500ms(timeout).bits(), 0)
            }
            _ => 0,
        }
    }

    /// Writes 4 bytes of registers.
    pub(super) fn write(&mut self, offset: usize, value: u32) {
        if self.gone {
            return;
        }
        let put = |register: &mut u64, high: bool| {
            let shift = if high { 32 } else { 0 };
            *register = *register & !(0xffff_ffff << shift) | u64::from(value) << shift;
        };
        if matches!(offset, 0x24..0x38) && self.configuration.enable() {
            self.violation(format!("admin queue register {offset:#x} written while enabled"));
        }
        match offset {
            // INTMS and INTMC: nothing interrupts here.
            0x0c | 0x10 => {}
            0x14 => self.configure(Configuration::from_bits(value)),
            0x1c => {
                if ControllerStatus::from_bits(value).subsystem_reset_occurred() {
                    self.status = self.status.with_subsystem_reset_occurred(false);
                }
            }
            0x20 if value == SUBSYSTEM_RESET => {
                self.reset();
                self.status = self.status.with_subsystem_reset_occurred(true);
            }
            0x24 => self.admin_attributes = AdminQueueAttributes::from_bits(value),
            0x28 | 0x2c => put(&mut self.admin_submission, offset == 0x2c),
            0x30 | 0x34 => put(&mut self.admin_completion, offset == 0x34),
            DOORBELLS.. => self.ring(offset - DOORBELLS, value),
            _ => self.violation(format!("register {offset:#x} written")),
        }
    }

    fn configure(&mut self, new: Configuration) {
        let old = std::mem::replace(&mut self.configuration, new);
        match (old.enable(), new.enable()) {
            (false, true) => {
                if self.status.ready() {
                    self.violation("enabled while CSTS.RDY was still set");
                }
                self.statistics.enables += 1;
                self.enable();
            }
            (true, false) => {
                // Until it is not ready any more it goes on with what it has.
                self.status = self.status.with_fatal(false).with_shutdown(ShutdownStatus::Normal);
                self.change_ready(false);
            }
            (true, true) if old.with_shutdown_value(0).bits() != new.with_shutdown_value(0).bits() => {
                self.violation("CC changed while enabled");
            }
            _ => {}
        }
        if old.shutdown_value() == 0 && new.shutdown() == Some(ShutdownNotification::Normal) {
            self.statistics.shutdowns += 1;
            self.media.values_mut().for_each(Media::flush);
            self.status = self.status.with_shutdown(ShutdownStatus::Complete);
        }
    }

    /// Takes the admin queues into use; fatal when they, or the configuration, can't be used.
    fn enable(&mut self) {
        self.stop();
        let entries = |minus_one: u16| u32::from(minus_one) + 1;
        let submission = entries(self.admin_attributes.submission_entries_minus_one());
        let completion = entries(self.admin_attributes.completion_entries_minus_one());
        let page = 1 << 12;
        let fits = submission >= 2
            && completion >= 2
            && self.admin_submission.is_multiple_of(page)
            && self.admin_completion.is_multiple_of(page)
            && self.configuration.memory_page_size() == 0
            && self.configuration.arbitration() == 0;
        let command_set = match self.configuration.command_set() {
            0 => true,
            6 => self.has_other_command_sets(),
            _ => false,
        };
        if !fits || !command_set {
            self.violation("enabled with a configuration or admin queues that can't be");
            return self.set_fatal();
        }
        self.submission.insert(0, SubmissionQueue::new(self.admin_submission, submission, 0));
        self.completion.insert(0, CompletionQueue::new(self.admin_completion, completion));
        self.change_ready(true);
    }

    fn change_ready(&mut self, ready: bool) {
        let how = if ready { self.options.enabling } else { self.options.disabling };
        let change = match how {
            Readiness::AtOnce => Change::Reads(0),
            Readiness::AfterReads(reads) => Change::Reads(reads),
            Readiness::After(duration) => Change::At(sledge_reactor::precise_now() + duration),
            Readiness::Never => Change::Never,
        };
        self.change = Some((ready, change));
        self.settle(false);
    }

    /// Lets CSTS.RDY change, if it is time to. `read`: because it is being read.
    fn settle(&mut self, read: bool) {
        let due = match &mut self.change {
            Some((_, Change::Reads(left))) => {
                *left = left.saturating_sub(read.into());
                *left == 0
            }
            Some((_, Change::At(when))) => sledge_reactor::precise_now() >= *when,
            Some((_, Change::Never)) | None => false,
        };
        if due && let Some((ready, _)) = self.change.take() {
            self.status = self.status.with_ready(ready);
            if !ready {
                self.stop();
            }
        }
    }

    /// Ends all queues with what is in them.
    fn stop(&mut self) {
        self.submission.clear();
        self.completion.clear();
        self.runnable.clear();
        self.held.clear();
        self.in_flight.clear();
        self.shadow = None;
        self.events = Events::default();
        self.features.clear();
        self.change = None;
    }

    /// A reset that loses the registers.
    pub(super) fn reset(&mut self) {
        self.stop();
        self.configuration = Configuration::default();
        self.status = ControllerStatus::default();
        self.admin_attributes = AdminQueueAttributes::default();
        (self.admin_submission, self.admin_completion) = (0, 0);
    }

    pub(super) fn lose_power(&mut self) {
        self.reset();
        self.media.values_mut().for_each(Media::lose_power);
        self.iommu.set_bus_master(false);
    }

    pub(super) fn set_fatal(&mut self) {
        self.status = self.status.with_fatal(true);
    }

    fn is_running(&self) -> bool {
        self.status.ready() && !self.status.fatal() && !self.gone && self.status.shutdown_value() == 0
    }

    fn ring(&mut self, offset: usize, value: u32) {
        let stride = 4 << self.options.doorbell_stride;
        let (index, queue) = (offset / stride, (offset / stride / 2) as u16);
        let is_completion = index % 2 == 1;
        match (queue, is_completion) {
            (0, _) => self.statistics.admin_doorbells += 1,
            (_, false) => self.statistics.submission_doorbells += 1,
            (_, true) => self.statistics.completion_doorbells += 1,
        }
        if !self.status.ready() || !self.configuration.enable() {
            return self.violation(format!("doorbell of queue {queue} rung while not ready"));
        }
        let known = offset.is_multiple_of(stride)
            && if is_completion {
                self.completion.contains_key(&queue)
            } else {
                self.submission.contains_key(&queue)
            };
        if !known {
            self.violation(format!("doorbell at {offset:#x} rung, which no queue has"));
            return self.raise(EventResult::error(ErrorEvent::InvalidDoorbellRegister));
        }
        self.take_doorbell(queue, is_completion, value);
        if self.controls.automatic {
            while self.step() {}
        }
    }

    /// Takes a value of a doorbell, from its register or its shadow.
    fn take_doorbell(&mut self, queue: u16, is_completion: bool, value: u32) {
        let fits = if is_completion {
            let Some(queue) = self.completion.get_mut(&queue) else { return };
            let fits = queue.may_consume(value);
            if fits {
                queue.head = value;
            }
            fits
        } else {
            let Some(queue) = self.submission.get_mut(&queue) else { return };
            let fits = value < queue.entries;
            if fits {
                queue.tail = value;
            }
            fits
        };
        if !fits {
            let which = if is_completion { "completion" } else { "submission" };
            self.violation(format!("{which} queue {queue} rung with {value}, which is out of range"));
            self.raise(EventResult::error(ErrorEvent::InvalidDoorbellValue));
        }
    }

    /// Reads the shadow doorbells of the I/O queues, and tells up to where they were read.
    fn read_shadow(&mut self) {
        let Some((shadow, event)) = self.shadow else { return };
        let stride = 4_u64 << self.options.doorbell_stride;
        let submission = self.submission.keys().map(|&queue| (queue, false));
        let completion = self.completion.keys().map(|&queue| (queue, true));
        let all: Vec<_> = submission.chain(completion).filter(|&(queue, _)| queue != 0).collect();
        for (queue, is_completion) in all {
            let place = (u64::from(queue) * 2 + u64::from(is_completion)) * stride;
            let mut bytes = [0; 4];
            if self.iommu.read(shadow + place, &mut bytes).is_err() {
                return self.set_fatal();
            }
            self.take_doorbell(queue, is_completion, u32::from_le_bytes(bytes));
            if self.iommu.write(event + place, &bytes).is_err() {
                return self.set_fatal();
            }
        }
    }

    /// Looks at the doorbells and runs what is there.
    pub(super) fn step(&mut self) -> bool {
        if !self.is_running() {
            return false;
        }
        self.read_shadow();
        let mut worked = self.post();
        worked |= self.fetch();
        for _ in 0..self.controls.most_per_step {
            let Some(work) = self.next_runnable() else { break };
            self.run(work);
            worked = true;
        }
        worked
    }

    fn next_runnable(&mut self) -> Option<Work> {
        let Some(seed) = &mut self.controls.reorder else { return self.runnable.pop_front() };
        // Xorshift: any sequence will do that a seed replays.
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        let index = (*seed >> 11) as usize % self.runnable.len().max(1);
        self.runnable.remove(index)
    }

    fn fetch(&mut self) -> bool {
        let mut fetched = false;
        let queues: Vec<u16> = self.submission.keys().copied().collect();
        for queue in queues {
            while let Some(ring) = self.submission.get_mut(&queue) {
                match ring.fetch(&self.iommu) {
                    Ok(Some(command)) => self.accept(queue, command),
                    Ok(None) => break,
                    Err(_) => self.set_fatal(),
                }
                fetched = true;
                if self.status.fatal() {
                    return fetched;
                }
            }
        }
        fetched
    }

    /// Takes a command from its queue: to be run, to be held, or to wait for its other half.
    fn accept(&mut self, queue: u16, command: Command) {
        let counts =
            if queue == 0 { &mut self.statistics.admin_commands } else { &mut self.statistics.io_commands };
        *counts.entry(command.opcode).or_default() += 1;
        let cid = command.cid.get();
        if !self.in_flight.insert((queue, cid)) {
            self.violation(format!("command identifier {cid:#x} of queue {queue} used while in flight"));
            self.answer(queue, Completion::new(cid, Status::COMMAND_ID_CONFLICT));
            return;
        }
        let Some(ring) = self.submission.get_mut(&queue) else { return };
        let more = ring.head != ring.tail;
        let waiting = ring.fused.take();
        let missing = Status::ABORTED_MISSING_FUSED;
        match (waiting, command.fuse()) {
            (None, Some(Fuse::Normal)) => self.dispatch(Work { queue, command, second: None }),
            (None, Some(Fuse::First)) if more => ring.fused = Some(command),
            (Some(first), Some(Fuse::Second)) => {
                self.dispatch(Work { queue, command: first, second: Some(command) });
            }
            (first, _) => {
                if let Some(first) = first {
                    self.complete(queue, &first, missing, 0);
                }
                self.violation(format!(
                    "command {cid:#x} of queue {queue} lacks the other half of its fused pair"
                ));
                self.complete(queue, &command, missing, 0);
            }
        }
    }

    fn dispatch(&mut self, work: Work) {
        let held = self.controls.hold.as_mut().is_some_and(|hold| hold(work.queue, &work.command));
        if held {
            self.held.push(work);
        } else {
            self.runnable.push_back(work);
        }
    }

    pub(super) fn release(&mut self, index: usize) -> bool {
        if index >= self.held.len() {
            return false;
        }
        let work = self.held.remove(index);
        if self.is_running() {
            self.run(work);
        }
        true
    }

    fn run(&mut self, work: Work) {
        if let Some(status) = self.planned_failure(&work) {
            self.complete(work.queue, &work.command, status, 0);
            if let Some(second) = work.second {
                self.complete(work.queue, &second, Status::ABORTED_FAILED_FUSED, 0);
            }
        } else if work.queue == 0 {
            self.run_admin(&work.command);
        } else {
            self.run_io(&work);
        }
    }

    fn planned_failure(&mut self, work: &Work) -> Option<Status> {
        let failures = &mut self.controls.failures;
        let index = failures.iter_mut().position(|failure| (failure.which)(work.queue, &work.command))?;
        let failure = &mut failures[index];
        failure.left -= 1;
        let (status, left) = (failure.status, failure.left);
        if left == 0 {
            failures.remove(index);
        }
        Some(status)
    }

    /// Completes a command that was fetched.
    pub(super) fn complete(&mut self, queue: u16, command: &Command, status: Status, result: u32) {
        let cid = command.cid.get();
        self.in_flight.remove(&(queue, cid));
        if !status.is_success() {
            self.log_error(queue, command, status);
        }
        let completion = Completion::new(cid, status).with_result(result);
        self.answer(queue, completion);
        if queue != 0 && self.controls.duplicates > 0 {
            self.controls.duplicates -= 1;
            self.answer(queue, completion);
        }
    }

    pub(super) fn inject(&mut self, queue: u16, cid: u16, status: Status) -> bool {
        let known = self.submission.contains_key(&queue);
        self.answer(queue, Completion::new(cid, status));
        known
    }

    fn answer(&mut self, queue: u16, mut completion: Completion) {
        let Some(target) = self.submission.get(&queue).map(|ring| ring.completion_queue) else { return };
        completion.sqid.set(queue);
        if let Some(ring) = self.completion.get_mut(&target) {
            ring.push(completion);
        }
        self.post();
    }

    fn post(&mut self) -> bool {
        let mut posted = false;
        for (&id, ring) in &mut self.completion {
            let head_of =
                |queue| self.submission.get(&queue).map_or(0, |ring: &SubmissionQueue| ring.head as u16);
            match ring.post(&self.iommu, head_of) {
                Ok(count) => {
                    posted |= count > 0;
                    if id != 0 {
                        self.statistics.io_completions += count as u64;
                    }
                }
                Err(_) => self.status = self.status.with_fatal(true),
            }
        }
        posted
    }

    /// The commands of a queue that were fetched and have not completed are taken out of where they are.
    pub(super) fn take_commands(
        &mut self,
        queue: u16,
        mut which: impl FnMut(&Command) -> bool,
    ) -> Vec<Command> {
        let mut taken = Vec::new();
        let mut take = |work: &Work| {
            let found =
                work.queue == queue && (which(&work.command) || work.second.as_ref().is_some_and(&mut which));
            if found {
                taken.push(work.command);
                taken.extend(work.second);
            }
            !found
        };
        self.runnable.retain(&mut take);
        self.held.retain(&mut take);
        taken
    }

    /// Ends a submission queue: what it holds is aborted.
    pub(super) fn end_queue(&mut self, queue: u16) {
        for command in self.take_commands(queue, |_| true) {
            self.complete(queue, &command, Status::ABORTED_SQ_DELETION, 0);
        }
        self.submission.remove(&queue);
        self.in_flight.retain(|&(of, _)| of != queue);
    }
}
