//! The inside of an I/O queue: what was accepted becomes commands, what the device answers becomes completions.
//!
//! Owns the queue pair, the lists of its slots, the registered memory and the ledger. Invariant: data, lists and the
//! ring that a command on the device points to are kept as they are until the device has answered the command, or can't
//! reach memory any more ([`Engine::reclaim`]); when it is over before, they are left behind ([`Engine::leak`]).
//! One a reactor and controller; `io_queue` wraps it.

use std::sync::Arc;
use std::time::Duration;

use sledge_reactor::memory::Segments;
use sledge_reactor::time::{self, Instant};

use super::data_pointer::{Indescribable, Lists, PAGE_BYTES};
use super::io_queue::{IoQueueOptions, QueueState, Reclaim};
use super::launch::{Obstacle, take_memory};
use super::leak::Leaky;
use super::ledger::{Cause, LOST, Ledger, Out, RawIo};
use super::lender::{Borrower, Lane, Lent, Outcome, Port};
use super::queue_pair::{QueuePair, QueueStatistics};
use super::reach::Reach;
use super::request::{Part, Request, Waits};
use super::slab::Slab;
use super::split::{self, Role};
use crate::function::{DmaError, DmaMemory, Function};
use crate::io::{IoCommand, IoCompletion, Operation, Submitted};
use crate::{Command, Completion, Status};

/// How long an I/O waits for memory before it is refused, to be retried. Well below the 30 s after which Linux hosts
/// give a command up.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Most reactors that submit through one.
const MAX_LANES: usize = 1024;
/// The status of an I/O that is refused for want of room or patience: the host retries it (Base 3.3.3.2.1.1).
pub const BUSY: Status = Status::COMMAND_INTERRUPTED;

/// Whose a command on the device is.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// What it does of which request, when it is of this reactor.
    pub part: Part,
    /// The lane that it came by, and its name there, when it is of another reactor.
    lane: u32,
    cid: u16,
    /// Whether the control path was asked to abort it.
    named: bool,
}

/// No lane.
const OWN: u32 = u32::MAX;

impl Context {
    /// A command of this reactor.
    #[inline]
    pub const fn own(part: Part) -> Self {
        Self { part, lane: OWN, cid: 0, named: false }
    }

    /// A command of a reactor that has no queue pair.
    pub const fn of_borrower(lane: u32, cid: u16) -> Self {
        Self { part: Part::NONE, lane, cid, named: false }
    }
}

/// How far an I/O was issued.
enum Issued {
    /// As far as it ever will be.
    All,
    /// More is to be issued when there is this.
    Until(Waits),
}

/// What an I/O queue has of its device: all memory that the device may reach but the data itself.
#[derive(Debug)]
pub struct Device {
    pub port: Port,
    pub lists: Lists,
    pub reach: Reach,
    /// A page of zeroes, and one that nobody reads.
    pub spare: DmaMemory,
    pub sgl: bool,
}

impl Device {
    /// Makes and registers the memory of a queue. Blocks.
    ///
    /// # Errors
    /// When memory can't be had or mapped.
    pub fn new(
        function: Arc<dyn Function>,
        options: &IoQueueOptions,
        lane: Option<Lane>,
    ) -> Result<Self, DmaError> {
        let reach = Reach::of_current_reactor(&*function)?;
        let spare = function.allocate(2 * PAGE_BYTES)?;
        let port = match lane {
            Some(lane) => Port::Borrowed(Borrower::new(lane)),
            None => {
                let function = function.clone();
                Port::Own(QueuePair::new(function, options.id, options.depth, options.stride_bytes)?)
            }
        };
        // All slots are free.
        let lists = Lists::new(&*function, port.free() as u16)?;
        Ok(Self { port, lists, reach, spare, sgl: options.sgl })
    }

    /// Makes the command for a slot point to a span of data: segments, bytes to skip, bytes.
    ///
    /// # Errors
    /// When the data can't be described.
    #[inline]
    pub fn describe(
        &mut self,
        slot: u16,
        command: &mut Command,
        span: (&Segments, usize, usize),
    ) -> Result<(), Indescribable> {
        self.lists.describe(slot, command, &self.reach, span, self.sgl)
    }
}

/// One reactor's I/O queue.
#[derive(Debug)]
pub struct Engine {
    /// Absent while the device is gone or given up.
    pub device: Option<Leaky<Device>>,
    pub ledger: Ledger,
    /// Reactors that submit through this one's queue pair.
    pub lanes: Slab<Lent>,
    pub state: QueueState,
    /// Counts of queue pairs that are gone.
    past: QueueStatistics,
}

impl Engine {
    pub fn new(device: Device, ledger: Ledger) -> Self {
        let lanes = Slab::new(MAX_LANES);
        let (state, past) = (QueueState::Stopped, QueueStatistics::default());
        Self { device: Some(Leaky::new(device)), ledger, lanes, state, past }
    }

    /// Commands that the device has.
    #[inline]
    pub fn on_device(&self) -> usize {
        self.device.as_ref().map_or(0, |device| device.port.outstanding())
    }

    /// Counts of the queue pair, and of those before it.
    pub fn queue_statistics(&self) -> QueueStatistics {
        let mut sum = self.past;
        sum += self.device.as_ref().map_or(QueueStatistics::default(), |device| device.port.statistics());
        sum
    }

    /// Slots for commands that could go to the device.
    #[inline]
    fn free(&self) -> usize {
        self.device.as_ref().map_or(0, |device| device.port.free())
    }

    /// Takes an I/O of a channel.
    #[inline]
    pub fn submit(&mut self, channel: u32, mut io: IoCommand) -> Submitted {
        let Some(shape) = self.ledger.channels.get(channel).map(|channel| &channel.shape) else {
            return Submitted::Done(io.complete(Status::INTERNAL_ERROR));
        };
        if let Err(status) = split::check(&io, shape) {
            return Submitted::Done(io.complete(status));
        }
        let now = time::now();
        // Nearly always: it is one transfer, nothing waits, and there are a slot and memory.
        if self.nothing_waits()
            && matches!(io.operation, Operation::Read | Operation::Write)
            && let Some(device) = self.device.as_deref_mut()
            && let Some(slot) = device.port.next_slot()
            && split::part_blocks(io.operation, shape, io.slba, io.blocks) == io.blocks
            && let Some(mut command) = split::transfer(&mut io, shape)
            && device.describe(slot, &mut command, (&io.data, 0, split::bytes(&io, shape))).is_ok()
            && let Some(index) = self.ledger.requests.reserve()
        {
            let part = Part::whole(&io, index);
            let request = Request { issued: io.blocks, in_flight: 1, ..Request::new(io, channel, now) };
            self.ledger.requests.fill(index, request);
            if let Some(channel) = self.ledger.channels.get_mut(channel) {
                channel.outstanding += 1;
            }
            let put = device.port.submit(command, Context::own(part), now);
            debug_assert!(put.is_ok(), "there was a slot");
            return Submitted::Pending;
        }
        self.submit_later(channel, io, now)
    }

    /// As `submit`, for what is checked and takes more than one command that goes to the device at once.
    #[inline(never)]
    fn submit_later(&mut self, channel: u32, io: IoCommand, now: Instant) -> Submitted {
        let cached = self.ledger.channels.get(channel).is_some_and(|channel| channel.shape.volatile_cache);
        if io.operation == Operation::Flush && !cached {
            // What has completed is durable.
            return Submitted::Done(io.complete(Status::SUCCESS));
        }
        if io.operation == Operation::Flush && self.ledger.take_lost(channel) {
            return Submitted::Done(io.complete(LOST));
        }
        if let QueueState::Failed(status) = self.state {
            return Submitted::Done(io.complete(status));
        }
        match self.ledger.accept(channel, io, now) {
            Ok(index) => {
                self.begin(index);
                Submitted::Pending
            }
            Err(io) => Submitted::Done(io.complete(BUSY)),
        }
    }

    /// Whether an I/O may go to the device before all others.
    #[inline]
    fn nothing_waits(&self) -> bool {
        self.state == QueueState::Running && self.ledger.waiting.is_empty() && self.ledger.hungry.is_empty()
    }

    /// Takes a command of a channel that is ready but for identifier and pointers.
    pub fn submit_raw(&mut self, channel: u32, raw: RawIo) {
        let refused = match self.state {
            QueueState::Failed(status) => Some(status),
            QueueState::Running | QueueState::Stopped => None,
        };
        if let Some(index) = self.ledger.accept_raw(channel, raw, refused, time::now()) {
            self.begin(index);
        }
    }

    /// Issues an accepted I/O as far as that goes now.
    #[inline]
    fn begin(&mut self, index: u32) {
        if self.state != QueueState::Running || !self.ledger.waiting.is_empty() {
            self.ledger.wait(index, Waits::Slot);
            return;
        }
        let mut memory = self.ledger.hungry.is_empty();
        if let Issued::Until(waits) = self.issue(index, &mut memory, &mut None) {
            self.ledger.wait(index, waits);
        }
    }

    /// One turn: takes what the device has answered, issues what waits, and rings.
    #[inline]
    pub fn turn(&mut self, out: &mut Out<'_>) {
        self.reap(out);
        if !(self.ledger.waiting.is_empty() && self.ledger.hungry.is_empty() && self.ledger.resume.is_empty())
        {
            self.pump(out);
        }
        if self.lanes.len() > 0 {
            self.serve_lanes();
        }
        if self.state == QueueState::Running
            && let Some(device) = &mut self.device
        {
            device.port.ring();
        }
    }

    /// No command goes to the device from now on, and no doorbell is rung: the device may be disabled any moment.
    pub fn stop(&mut self) {
        if self.state == QueueState::Running
            && let Some(device) = &mut self.device
        {
            device.port.ring_all();
        }
        self.state = QueueState::Stopped;
    }

    /// Moves what has ended of a channel.
    #[inline]
    pub fn collect(&mut self, channel: u32, done: &mut Vec<IoCompletion>) {
        if let Some(channel) = self.ledger.channels.get_mut(channel)
            && !channel.done.is_empty()
        {
            done.append(&mut channel.done);
        }
    }

    #[inline]
    fn reap(&mut self, out: &mut Out<'_>) {
        let Some(device) = &mut self.device else { return };
        let ledger = &mut self.ledger;
        let now = time::now();
        let lanes = &mut self.lanes;
        match &mut device.port {
            Port::Own(pair) => {
                // There can't be more; a device that writes without end does not keep the reactor.
                pair.reap(pair.slots().into(), |context, completion| {
                    if context.lane == OWN {
                        ledger.part_ended(context.part, &completion, Cause::Device, now, out);
                    } else if let Some(lane) = lanes.get_mut(context.lane) {
                        lane.answer(context.cid, Outcome::Completed(completion));
                    }
                });
            }
            Port::Borrowed(borrower) => {
                let mut left = false;
                borrower.reap(|context, outcome| {
                    let (answer, cause) = match outcome {
                        Outcome::Completed(completion) => (completion, Cause::Device),
                        Outcome::Reclaimed(status) => (Completion::new(0, status), Cause::Reclaimed),
                        Outcome::Final(status) => (Completion::new(0, status), Cause::Final),
                        Outcome::Left(status) => {
                            ledger.leave_data(context.part.request);
                            left = true;
                            (Completion::new(0, status), Cause::Final)
                        }
                    };
                    ledger.part_ended(context.part, &answer, cause, now, out);
                });
                if left {
                    // The lists, too, are the device's for ever.
                    device.leak();
                }
            }
        }
    }

    /// Issues what waits, as far as that goes.
    fn pump(&mut self, out: &mut Out<'_>) {
        if self.state != QueueState::Running {
            return;
        }
        self.pump_resume(out);
        let mut memory = true;
        for _ in 0..self.ledger.hungry.len() {
            if self.free() == 0 || !memory {
                break;
            }
            if let Some(index) = self.ledger.hungry.pop_front() {
                self.advance(index, &mut memory, out);
            }
        }
        memory &= self.ledger.hungry.is_empty();
        for _ in 0..self.ledger.waiting.len() {
            if self.free() == 0 {
                break;
            }
            let Some(index) = self.ledger.waiting.pop_front() else { break };
            self.advance(index, &mut memory, out);
            if self.ledger.waiting.front() == Some(&index) {
                // A pair that needs two slots.
                break;
            }
        }
    }

    /// Goes on with a request that was just taken out of a list; puts it back at the front of the list that it is to
    /// wait in.
    fn advance(&mut self, index: u32, memory: &mut bool, out: &mut Out<'_>) {
        let Some(request) = self.ledger.requests.get_mut(index) else { return };
        let was = std::mem::replace(&mut request.waits, Waits::No);
        let waited_out = time::now() - request.since > MAX_WAIT;
        match self.issue(index, memory, out) {
            Issued::All => {}
            Issued::Until(Waits::Memory) if waited_out => self.ledger.fail(index, BUSY, out),
            Issued::Until(waits) => {
                let list =
                    if waits == Waits::Memory { &mut self.ledger.hungry } else { &mut self.ledger.waiting };
                if was == waits {
                    list.push_front(index)
                } else {
                    list.push_back(index)
                }
                if let Some(request) = self.ledger.requests.get_mut(index) {
                    if was != waits {
                        request.since = time::now();
                    }
                    request.waits = waits;
                }
            }
        }
    }

    /// Tries again what is due.
    fn pump_resume(&mut self, out: &mut Out<'_>) {
        let now = time::now();
        for _ in 0..self.ledger.resume.len() {
            let Some(resume) = self.ledger.resume.pop_front() else { break };
            let part = resume.part;
            let needed = if part.role == Role::Single { 1 } else { 2 };
            if resume.not_before > now || self.free() < needed {
                self.ledger.resume.push_back(resume);
                continue;
            }
            let Some(request) = self.ledger.requests.get_mut(part.request) else { continue };
            request.resuming -= 1;
            match self.launch(part, true) {
                Ok(()) => {}
                Err(Obstacle::Memory) => {
                    if let Some(request) = self.ledger.requests.get_mut(part.request) {
                        request.resuming += 1;
                    }
                    self.ledger.resume.push_back(resume);
                }
                Err(Obstacle::Never(status)) => self.ledger.fail(part.request, status, out),
            }
        }
    }

    /// Issues as much of a request as possible now. `memory` is whether it may take memory; it becomes false when the
    /// pool is dry.
    #[inline]
    fn issue(&mut self, index: u32, memory: &mut bool, out: &mut Out<'_>) -> Issued {
        loop {
            let free = self.free();
            let Some(request) = self.ledger.requests.get_mut(index) else { return Issued::All };
            if !request.goes_on() {
                if request.is_over() {
                    self.ledger.finish(index, out);
                }
                return Issued::All;
            }
            let Some(channel) = self.ledger.channels.get(request.channel) else { return Issued::All };
            let role = match request.io.operation {
                Operation::CompareAndWrite => Role::FusedCompare,
                _ => Role::Single,
            };
            if free < if role == Role::Single { 1 } else { 2 } {
                if role != Role::Single && self.device.as_ref().is_some_and(|device| device.port.slots() < 2)
                {
                    // A queue of two entries never has room for a pair.
                    self.ledger.fail(index, Status::INVALID_OPCODE.do_not_retry(), out);
                    return Issued::All;
                }
                return Issued::Until(Waits::Slot);
            }
            let shape = &channel.shape;
            let block_bytes = shape.geometry.block_bytes;
            if request.io.operation == Operation::Read && request.io.data.is_empty() {
                let bytes = request.io.blocks as usize * block_bytes as usize;
                match take_memory(bytes, memory) {
                    Ok(Some(data)) => request.io.data = data,
                    Ok(None) => return Issued::Until(Waits::Memory),
                    Err(status) => {
                        self.ledger.fail(index, status, out);
                        return Issued::All;
                    }
                }
            }
            let slba = request.io.slba + u64::from(request.issued);
            let left = request.blocks() - request.issued;
            let part = Part {
                slba,
                request: index,
                blocks: split::part_blocks(request.io.operation, shape, slba, left),
                // Data is at most `MAX_SEGMENTS` largest buffers; what has none may be longer, and never looks here.
                offset: request.issued.wrapping_mul(block_bytes),
                role,
                retries: 0,
            };
            match self.launch(part, *memory) {
                Ok(()) => {
                    if let Some(request) = self.ledger.requests.get_mut(index) {
                        request.issued += part.blocks;
                    }
                }
                Err(Obstacle::Memory) => {
                    *memory = false;
                    return Issued::Until(Waits::Memory);
                }
                Err(Obstacle::Never(status)) => {
                    self.ledger.fail(index, status, out);
                    return Issued::All;
                }
            }
        }
    }

    /// Takes all commands back from the device, which can't work on them or reach memory any more.
    pub fn reclaim(&mut self, reclaim: Reclaim) {
        let now = time::now();
        let (status, cause) = match reclaim {
            Reclaim::Retry => (Status::ABORTED_SQ_DELETION, Cause::Reclaimed),
            Reclaim::Fail(status) => (status, Cause::Final),
        };
        let answer = Completion::new(0, status);
        let ledger = &mut self.ledger;
        let lanes = &mut self.lanes;
        match self.device.as_deref_mut().map(|device| &mut device.port) {
            Some(Port::Own(pair)) => {
                let outcome = match reclaim {
                    Reclaim::Retry => Outcome::Reclaimed(status),
                    Reclaim::Fail(status) => Outcome::Final(status),
                };
                pair.drain(|context| {
                    if context.lane == OWN {
                        ledger.part_ended(context.part, &answer, cause, now, &mut None);
                    } else if let Some(lane) = lanes.get_mut(context.lane) {
                        lane.answer(context.cid, outcome);
                    }
                });
                lanes.iter_mut().for_each(|(_, lane)| lane.give_back_half(outcome));
            }
            Some(Port::Borrowed(borrower)) => {
                // Those that the lender has come by the lane, after the lender's own reclaiming.
                borrower.take_back(|context| ledger.part_ended(context.part, &answer, cause, now, &mut None));
                self.reap(&mut None);
            }
            None => {}
        }
    }

    /// Makes or registers all memory anew, for another function or with other options.
    ///
    /// # Errors
    /// When memory can't be had or mapped.
    pub fn rebuild(
        &mut self,
        function: Arc<dyn Function>,
        options: &IoQueueOptions,
        lane: Option<Lane>,
    ) -> Result<(), DmaError> {
        self.release();
        self.device = Some(Leaky::new(Device::new(function, options, lane)?));
        Ok(())
    }

    /// Gives back all memory that was made or registered; leaves it behind instead if the device has commands.
    pub fn release(&mut self) {
        if self.on_device() > 0 {
            self.leak(Status::ABORTED_SQ_DELETION);
        }
        self.state = if self.state == QueueState::Running { QueueState::Stopped } else { self.state };
        self.past = self.queue_statistics();
        self.device = None;
    }

    /// Leaves all that the device may reach behind, for ever, and answers what it has with `status`.
    pub fn leak(&mut self, status: Status) {
        self.state = if self.state == QueueState::Running { QueueState::Stopped } else { self.state };
        self.past = self.queue_statistics();
        let Some(mut device) = self.device.take() else { return };
        let (now, answer) = (time::now(), Completion::new(0, status));
        let ledger = &mut self.ledger;
        let lanes = &mut self.lanes;
        device.port.drain(|context| {
            if context.lane == OWN {
                ledger.leave_data(context.part.request);
                ledger.part_ended(context.part, &answer, Cause::Final, now, &mut None);
            } else if let Some(lane) = lanes.get_mut(context.lane) {
                lane.answer(context.cid, Outcome::Left(status));
            }
        });
        device.leak();
    }

    /// Commands go to the device from now on.
    pub fn start(&mut self) {
        if self.device.is_none() {
            debug_assert!(false, "a queue without a device is rebuilt before it starts");
            return;
        };
        self.state = QueueState::Running;
        self.turn(&mut None);
    }

    /// Answers what is not on the device, and all that comes.
    pub fn fail(&mut self, status: Status) {
        self.stop();
        self.state = QueueState::Failed(status);
        self.ledger.fail_all(status);
    }

    /// Gives up a channel's I/O. True: it will never touch the device.
    pub fn abort(&mut self, channel: u32, token: u64) -> bool {
        let found = self.ledger.find(channel, token);
        found.is_some_and(|index| self.ledger.give_up(index, Status::ABORTED_BY_REQUEST))
    }

    /// See `IoQueue::abort_candidate`.
    pub fn abort_candidate(&mut self, before: Instant) -> Option<u16> {
        let pair = self.device.as_mut()?.port.own_mut()?;
        let requests = &self.ledger.requests;
        let given_up = |part: &Part| requests.get(part.request).is_some_and(|request| request.given_up);
        let (cid, _, _) = pair
            .under_way()
            .filter(|(_, since, context)| !context.named && (*since < before || given_up(&context.part)))
            .min_by_key(|(_, since, _)| *since)?;
        if let Some(context) = pair.context_mut(cid) {
            context.named = true;
        }
        Some(cid)
    }
}
