//! What a test does to a model controller: faults, held commands, events, removal; and what it can count.
//!
//! Owns the switches. Invariant: with none of them touched, the model is a controller that follows the specification.
//! Tests call these from any thread, between the host's own calls.

use std::collections::BTreeMap;

use super::Model;
use super::function::DmaFault;
use crate::async_event::EventResult;
use crate::function::Presence;
use crate::{Command, Status};

/// Chooses commands by submission queue (0: admin) and content.
pub type Predicate = Box<dyn FnMut(u16, &Command) -> bool + Send>;

/// The switches.
pub(super) struct Controls {
    pub automatic: bool,
    pub hold: Option<Predicate>,
    pub failures: Vec<Failure>,
    /// Completions that are to be posted twice.
    pub duplicates: usize,
    pub ignore_aborts: bool,
    pub reorder: Option<u64>,
    pub most_per_step: usize,
    pub presence: Presence,
    /// Allocations that succeed before one fails.
    pub allocation_failure: Option<usize>,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            automatic: true,
            hold: None,
            failures: Vec::new(),
            duplicates: 0,
            ignore_aborts: false,
            reorder: None,
            most_per_step: usize::MAX,
            presence: Presence::Present,
            allocation_failure: None,
        }
    }
}

/// Commands that are to fail without being executed.
pub(super) struct Failure {
    pub which: Predicate,
    pub left: usize,
    pub status: Status,
}

/// What the model has counted since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelStatistics {
    /// Writes of submission queue doorbell registers of I/O queues.
    pub submission_doorbells: u64,
    /// Writes of completion queue doorbell registers of I/O queues.
    pub completion_doorbells: u64,
    /// Writes of the admin queues' doorbell registers.
    pub admin_doorbells: u64,
    /// Admin commands fetched, by opcode.
    pub admin_commands: BTreeMap<u8, u64>,
    /// I/O commands fetched, by opcode.
    pub io_commands: BTreeMap<u8, u64>,
    /// Reads, writes and compares, other than of fused pairs, that cross an optimal I/O boundary (NOIOB).
    pub boundary_crossings: u64,
    /// Completions posted to I/O queues.
    pub io_completions: u64,
    /// Times that CC.EN went from 0 to 1.
    pub enables: u64,
    /// Normal shutdowns that were announced in CC.SHN.
    pub shutdowns: u64,
    /// Function-level resets.
    pub function_resets: u64,
}

/// When commands run, and in which order.
impl Model {
    /// Whether commands run at once when their doorbell is rung (so at first), or only in [`Model::step`].
    pub fn automatic(&self, on: bool) {
        self.lock().controls.automatic = on;
        if on {
            self.step();
        }
    }

    /// Looks at the doorbells and runs what is there. False when there was nothing to do.
    pub fn step(&self) -> bool {
        self.lock().step()
    }

    /// Lets the commands of a step run in an order that the seed decides; `None`: in that of submission.
    pub fn reorder(&self, seed: Option<u64>) {
        // Zero is the one state that the generator does not leave.
        self.lock().controls.reorder = seed.map(|seed| seed | 1 << 63);
    }

    /// Lets at most so many commands run in one step.
    pub fn most_per_step(&self, commands: usize) {
        self.lock().controls.most_per_step = commands;
    }

    /// Commands that the predicate chooses are taken from their queue, and then wait until they are released. Replaces
    /// the predicate before it; what that one holds stays held. A fused pair is asked for by its first command.
    pub fn hold(&self, which: impl FnMut(u16, &Command) -> bool + Send + 'static) {
        self.lock().controls.hold = Some(Box::new(which));
    }

    /// No more commands are held; those that are stay so.
    pub fn hold_none(&self) {
        self.lock().controls.hold = None;
    }

    /// The commands that are held, with their submission queues, in order of arrival.
    #[must_use]
    pub fn held(&self) -> Vec<(u16, Command)> {
        self.lock().held.iter().map(|work| (work.queue, work.command)).collect()
    }

    /// Runs and completes a held command. False when there are not so many.
    pub fn release(&self, index: usize) -> bool {
        self.lock().release(index)
    }

    /// Runs and completes all held commands.
    pub fn release_all(&self) {
        while self.release(0) {}
    }

    /// Forgets a held command: it never completes. False when there are not so many.
    pub fn forget(&self, index: usize) -> bool {
        let held = &mut self.lock().held;
        index < held.len() && (held.remove(index), true).1
    }
}

/// Faults.
impl Model {
    /// The next I/O command fails with a status, without being executed.
    pub fn fail_next(&self, status: Status) {
        self.fail(1, status, |queue, _| queue != 0);
    }

    /// The next `count` commands that the predicate chooses fail with a status, without being executed.
    pub fn fail(
        &self,
        count: usize,
        status: Status,
        which: impl FnMut(u16, &Command) -> bool + Send + 'static,
    ) {
        if count > 0 {
            let failure = Failure { which: Box::new(which), left: count, status };
            self.lock().controls.failures.push(failure);
        }
    }

    /// No more commands fail that were not to fail by themselves.
    pub fn fail_none(&self) {
        self.lock().controls.failures.clear();
    }

    /// The next `count` completions of I/O commands are posted twice.
    pub fn duplicate(&self, count: usize) {
        self.lock().controls.duplicates = count;
    }

    /// Posts a completion for any command identifier to the completion queue of a submission queue. False when there
    /// is no such queue.
    pub fn inject_completion(&self, queue: u16, cid: u16, status: Status) -> bool {
        self.lock().inject(queue, cid, status)
    }

    /// Whether Abort answers that it did not abort, and does not.
    pub fn ignore_aborts(&self, on: bool) {
        self.lock().controls.ignore_aborts = on;
    }

    /// CSTS.CFS: the controller stops until it is reset. A reset clears it.
    pub fn set_fatal(&self) {
        self.lock().set_fatal();
    }

    /// How CSTS.RDY follows CC.EN from now on.
    pub fn set_readiness(&self, enabling: super::Readiness, disabling: super::Readiness) {
        let options = &mut self.lock().options;
        (options.enabling, options.disabling) = (enabling, disabling);
    }

    /// Takes the device away: registers read all ones, nothing runs, what it had is lost except what is durable.
    /// Presence is gone, too, unless [`Model::set_presence`] says otherwise afterwards.
    pub fn remove(&self) {
        let mut state = self.lock();
        state.lose_power();
        state.gone = true;
        state.controls.presence = Presence::Gone;
    }

    /// Brings the device back, as after power-on.
    pub fn insert(&self) {
        let mut state = self.lock();
        state.gone = false;
        state.controls.presence = Presence::Present;
    }

    /// What the bus says of the device.
    pub fn set_presence(&self, presence: Presence) {
        self.lock().controls.presence = presence;
    }

    /// Power fails and comes back: queues are gone, and what was not durable.
    pub fn cycle_power(&self) {
        self.lock().lose_power();
    }

    /// After `successes` more of them, one allocation or registration fails.
    pub fn fail_allocation(&self, successes: usize) {
        self.lock().controls.allocation_failure = Some(successes);
    }

    pub(super) fn take_allocation_failure(&self) -> bool {
        let left = &mut self.lock().controls.allocation_failure;
        match left {
            Some(0) => left.take().is_some(),
            Some(more) => {
                *more -= 1;
                false
            }
            None => false,
        }
    }
}

/// What happens to a controller by itself.
impl Model {
    /// Raises an asynchronous event, which is reported when the host has enabled it and a request is there.
    pub fn raise(&self, event: EventResult) {
        self.lock().raise(event);
    }

    /// Adds a namespace, or replaces one, and raises the notice.
    pub fn set_namespace(&self, namespace: super::ModelNamespace) {
        self.lock().set_namespace(namespace);
    }

    /// Takes a namespace away, and raises the notice. False when there is no such.
    pub fn remove_namespace(&self, nsid: u32) -> bool {
        self.lock().remove_namespace(nsid)
    }

    /// Sets the critical warnings of the health log, without an event.
    pub fn set_critical_warning(&self, warning: crate::log_page::CriticalWarning) {
        self.lock().critical_warning = warning;
    }
}

/// What was seen.
impl Model {
    /// Accesses to memory that the device may not make: each is a bug of the driver.
    #[must_use]
    pub fn faults(&self) -> Vec<DmaFault> {
        self.iommu.faults()
    }

    /// What else the host did against the specification: each is a bug of the driver.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Bytes of memory that are mapped for the device now.
    #[must_use]
    pub fn mapped_bytes(&self) -> usize {
        self.iommu.mapped_bytes()
    }

    /// Counts.
    #[must_use]
    pub fn statistics(&self) -> ModelStatistics {
        self.lock().statistics.clone()
    }

    /// A block and its metadata as the next read would find them; zeroes when it was never written.
    ///
    /// # Panics
    /// When there is no such namespace.
    #[must_use]
    pub fn content(&self, nsid: u32, lba: u64) -> Vec<u8> {
        let state = self.lock();
        let media = state.media.get(&nsid).unwrap_or_else(|| panic!("the model has no namespace {nsid}"));
        media.block(lba).map_or_else(|| vec![0; media.stored_bytes()], <[u8]>::to_vec)
    }

    /// I/O submission queues that exist now.
    #[must_use]
    pub fn io_queues(&self) -> Vec<u16> {
        self.lock().submission.keys().copied().filter(|&queue| queue != 0).collect()
    }
}
