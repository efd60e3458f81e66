//! The simulated disks of all nodes and the requests that they work on.
//!
//! Invariant: a request takes effect at one moment, between its submission and its completion, in an order
//! that the seed decides; what a crash finds in flight takes effect in part. Memory of requests is never
//! dropped here (its owner may reach back into the world) but goes to `garbage`. Called by the disk queues
//! of the simulated backend, by the world when a request is due, and by [`super::SimulatedDisk`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::clockwork::{Clockwork, Event, NodeId, ReactorId, RequestId};
use super::medium::{Content, Medium};
use super::random::hash_bytes;
use crate::disk::{DiskCompletion, DiskOperation, DiskRequest, QUEUE_DEPTH};
use crate::memory::Segments;

/// A disk's place in the world's list.
pub(super) type DiskNumber = usize;

/// A queue; never used again in the same world.
pub(super) type QueueNumber = u64;

/// What an injected error looks like to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// `EIO`: the medium fails.
    Media,
    /// `ENOSPC`: there is no space; only requests that write are refused.
    Full,
}

impl DiskFault {
    fn applies(self, operation: DiskOperation) -> bool {
        match self {
            DiskFault::Media => true,
            DiskFault::Full => {
                matches!(operation, DiskOperation::Write { .. } | DiskOperation::WriteZeroes { .. })
            }
        }
    }

    fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            DiskFault::Media => libc::EIO,
            DiskFault::Full => libc::ENOSPC,
        })
    }
}

/// What a disk has done since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Reads that succeeded.
    pub reads: u64,
    /// Writes that succeeded, zeroing included.
    pub writes: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Discards that succeeded.
    pub discards: u64,
    /// Requests that failed, for whatever reason.
    pub errors: u64,
}

/// One disk.
#[derive(Debug)]
pub(super) struct DiskState {
    /// What it holds.
    pub medium: Medium,
    /// Whether a completed write may be lost until a flush.
    pub volatile_cache: bool,
    /// How long a request takes; `None` is the world's default.
    pub latency: Option<RangeInclusive<Duration>>,
    /// How many of a million requests fail.
    pub errors_per_million: u32,
    /// How many of the next requests fail.
    pub fail_next: Option<(u32, DiskFault)>,
    /// Bytes at which requests fail.
    pub fail_ranges: Vec<(Range<u64>, DiskFault)>,
    /// Whether requests stay where they are.
    pub stuck: bool,
    /// What it has done.
    pub counters: DiskCounters,
    held: Vec<RequestId>,
}

/// One reactor's queue on a disk.
#[derive(Debug)]
struct Queue {
    reactor: ReactorId,
    disk: DiskNumber,
    read_only: bool,
    outstanding: usize,
    done: Vec<DiskCompletion>,
}

/// A request in flight.
#[derive(Debug)]
struct InService {
    node: NodeId,
    disk: DiskNumber,
    queue: QueueNumber,
    read_only: bool,
    /// For a flush: what it makes durable.
    barrier: u64,
    request: DiskRequest,
}

/// See the module.
#[derive(Default)]
pub(super) struct Disks {
    /// Memory to drop once nobody borrows the world.
    pub garbage: Vec<Segments>,
    names: BTreeMap<(NodeId, String), DiskNumber>,
    disks: Vec<DiskState>,
    queues: BTreeMap<QueueNumber, Queue>,
    in_service: BTreeMap<RequestId, InService>,
    next_number: u64,
}

impl Disks {
    /// Creates a disk; an existing one keeps its size and content.
    pub(super) fn create(
        &mut self,
        node: NodeId,
        name: &str,
        len_bytes: u64,
        block_bytes: u32,
    ) -> DiskNumber {
        let next = self.disks.len();
        let number = *self.names.entry((node, name.to_owned())).or_insert(next);
        if number == next {
            self.disks.push(DiskState {
                medium: Medium::new(len_bytes, block_bytes),
                volatile_cache: true,
                latency: None,
                errors_per_million: 0,
                fail_next: None,
                fail_ranges: Vec::new(),
                stuck: false,
                counters: DiskCounters::default(),
                held: Vec::new(),
            });
        }
        number
    }

    /// Finds a node's disk.
    pub(super) fn find(&self, node: NodeId, name: &str) -> Option<DiskNumber> {
        self.names.get(&(node, name.to_owned())).copied()
    }

    /// A disk by its number.
    pub(super) fn state(&mut self, disk: DiskNumber) -> &mut DiskState {
        &mut self.disks[disk]
    }

    /// Opens a reactor's queue.
    pub(super) fn open_queue(
        &mut self,
        reactor: ReactorId,
        disk: DiskNumber,
        read_only: bool,
    ) -> QueueNumber {
        self.next_number += 1;
        let queue = Queue { reactor, disk, read_only, outstanding: 0, done: Vec::new() };
        self.queues.insert(self.next_number, queue);
        self.next_number
    }

    /// Closes a queue; requests in flight still take effect.
    pub(super) fn close_queue(&mut self, number: QueueNumber) {
        if let Some(queue) = self.queues.remove(&number) {
            self.garbage.extend(queue.done.into_iter().map(|completion| completion.segments));
        }
    }

    /// Takes a request, unless the queue is full or gone.
    // The error is the request itself, moved and not boxed, as in the trait that this serves.
    #[allow(clippy::result_large_err)]
    pub(super) fn submit(
        &mut self,
        clockwork: &mut Clockwork,
        number: QueueNumber,
        request: DiskRequest,
    ) -> Result<(), DiskRequest> {
        let Some(queue) = self.queues.get_mut(&number) else { return Err(request) };
        if queue.outstanding >= QUEUE_DEPTH {
            return Err(request);
        }
        queue.outstanding += 1;
        self.next_number += 1;
        let id = self.next_number;
        let disk = &self.disks[queue.disk];
        clockwork.note("disk-submit", id, request.offset);
        let at = clockwork.now + service_time(disk, clockwork);
        clockwork.schedule(at, Event::Disk(id));
        let in_service = InService {
            node: queue.reactor.node,
            disk: queue.disk,
            queue: number,
            read_only: queue.read_only,
            barrier: disk.medium.latest_write(),
            request,
        };
        self.in_service.insert(id, in_service);
        Ok(())
    }

    /// Hands over what a queue has completed.
    pub(super) fn poll(&mut self, number: QueueNumber, done: &mut Vec<DiskCompletion>) {
        if let Some(queue) = self.queues.get_mut(&number) {
            queue.outstanding -= queue.done.len();
            done.append(&mut queue.done);
        }
    }

    /// Requests that a queue has not given back.
    pub(super) fn outstanding(&self, number: QueueNumber) -> usize {
        self.queues.get(&number).map_or(0, |queue| queue.outstanding)
    }

    /// A request's time has come: it takes effect, unless the disk is stuck.
    pub(super) fn serve(&mut self, clockwork: &mut Clockwork, id: RequestId) {
        let Some(in_service) = self.in_service.get(&id) else { return };
        let disk = &mut self.disks[in_service.disk];
        if disk.stuck {
            disk.held.push(id);
            return;
        }
        let Some(mut in_service) = self.in_service.remove(&id) else { return };
        let result = serve(disk, clockwork, &mut in_service);
        let counters = &mut disk.counters;
        let request = in_service.request;
        *match (&result, request.operation) {
            (Err(_), _) => &mut counters.errors,
            (Ok(_), DiskOperation::Read) => &mut counters.reads,
            (Ok(_), DiskOperation::Write { .. } | DiskOperation::WriteZeroes { .. }) => &mut counters.writes,
            (Ok(_), DiskOperation::Flush) => &mut counters.flushes,
            (Ok(_), DiskOperation::Discard) => &mut counters.discards,
        } += 1;
        let bytes = request.segments.iter().fold(0u64, |hash, part| hash ^ hash_bytes(part.as_slice()));
        let hashed = if result.is_ok() && request.operation == DiskOperation::Read { bytes } else { 0 };
        clockwork.note(if result.is_ok() { "disk-done" } else { "disk-error" }, id, hashed);
        let DiskRequest { token, operation, segments, .. } = request;
        let Some(queue) = self.queues.get_mut(&in_service.queue) else {
            self.garbage.push(segments);
            return;
        };
        queue.done.push(DiskCompletion { token, operation, segments, result });
        if let Some(inbox) = clockwork.inbox(queue.reactor) {
            inbox.completions += 1;
        }
    }

    /// Lets a stuck disk go on.
    pub(super) fn release(&mut self, clockwork: &mut Clockwork, disk: DiskNumber) {
        let disk = &mut self.disks[disk];
        disk.stuck = false;
        for id in std::mem::take(&mut disk.held) {
            let at = clockwork.now + service_time(disk, clockwork);
            clockwork.schedule(at, Event::Disk(id));
        }
    }

    /// A node dies: its requests take effect in part, and what its disks had not made durable survives, is
    /// lost or is torn.
    pub(super) fn crash(&mut self, clockwork: &mut Clockwork, node: NodeId) {
        let dead: Vec<QueueNumber> =
            self.queues.iter().filter(|(_, queue)| queue.reactor.node == node).map(|(id, _)| *id).collect();
        for queue in dead {
            self.close_queue(queue);
        }
        let cut: Vec<RequestId> =
            self.in_service.iter().filter(|(_, request)| request.node == node).map(|(id, _)| *id).collect();
        for id in cut {
            let Some(in_service) = self.in_service.remove(&id) else { continue };
            let disk = &mut self.disks[in_service.disk];
            if !in_service.read_only && check(&disk.medium, &in_service.request).is_ok() {
                let durable = !disk.volatile_cache;
                apply(&mut disk.medium, clockwork, &in_service.request, durable, true);
            }
            self.garbage.push(in_service.request.segments);
        }
        for ((owner, _), number) in &self.names {
            if *owner == node {
                let disk = &mut self.disks[*number];
                disk.held.clear();
                let lost = disk.medium.cut_power(&mut clockwork.disk_random);
                clockwork.note("power-cut", *number as u64, lost);
            }
        }
    }
}

/// Draws how long the next request takes.
fn service_time(disk: &DiskState, clockwork: &mut Clockwork) -> u64 {
    let range = disk.latency.clone().unwrap_or_else(|| clockwork.config.disk_latency.clone());
    clockwork.disk_random.nanos(&range)
}

/// Lets a request take effect.
fn serve(disk: &mut DiskState, clockwork: &mut Clockwork, service: &mut InService) -> io::Result<usize> {
    let request = &mut service.request;
    check(&disk.medium, request)?;
    let writes = matches!(
        request.operation,
        DiskOperation::Write { .. } | DiskOperation::WriteZeroes { .. } | DiskOperation::Discard
    );
    if writes && service.read_only {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    if let Some(fault) = drawn_fault(disk, clockwork, request) {
        if writes && fault == DiskFault::Media {
            apply(&mut disk.medium, clockwork, request, false, true);
        }
        return Err(fault.error());
    }
    match request.operation {
        DiskOperation::Read => {
            let block_bytes = u64::from(disk.medium.block_bytes());
            for at in (0..request.length).step_by(block_bytes as usize) {
                let data = disk.medium.read((request.offset + at) / block_bytes);
                if request.segments.copy_from(request.skip + at as usize, data) != data.len() {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            }
        }
        DiskOperation::Flush => disk.medium.sync(service.barrier),
        DiskOperation::Write { durable } => {
            let durable = durable || !disk.volatile_cache;
            apply(&mut disk.medium, clockwork, request, durable, false);
        }
        DiskOperation::Discard | DiskOperation::WriteZeroes { .. } => {
            apply(&mut disk.medium, clockwork, request, !disk.volatile_cache, false);
        }
    }
    Ok(if request.operation == DiskOperation::Flush { 0 } else { request.length as usize })
}

/// Refuses what no disk could do.
fn check(medium: &Medium, request: &DiskRequest) -> io::Result<()> {
    if request.operation == DiskOperation::Flush {
        return Ok(());
    }
    let block_bytes = u64::from(medium.block_bytes());
    if !request.offset.is_multiple_of(block_bytes) || !request.length.is_multiple_of(block_bytes) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let end = request.offset.checked_add(request.length).ok_or(io::ErrorKind::UnexpectedEof)?;
    if end > medium.len_bytes() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let moves = matches!(request.operation, DiskOperation::Read | DiskOperation::Write { .. });
    let room = request.segments.len_bytes().saturating_sub(request.skip) as u64;
    if moves && room < request.length {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(())
}

/// Decides whether a request meets an injected error.
fn drawn_fault(disk: &mut DiskState, clockwork: &mut Clockwork, request: &DiskRequest) -> Option<DiskFault> {
    let operation = request.operation;
    if let Some((left, fault)) = &mut disk.fail_next
        && fault.applies(operation)
    {
        let fault = *fault;
        *left -= 1;
        if *left == 0 {
            disk.fail_next = None;
        }
        return Some(fault);
    }
    let range = request.offset..request.offset.saturating_add(request.length);
    let meets = |bad: &Range<u64>| bad.start < range.end && range.start < bad.end;
    let bad = disk.fail_ranges.iter().find(|(bad, fault)| fault.applies(operation) && meets(bad));
    if let (Some((_, fault)), true) = (bad, operation != DiskOperation::Flush) {
        return Some(*fault);
    }
    clockwork.disk_random.chance(disk.errors_per_million).then_some(DiskFault::Media)
}

/// Changes the medium as a request wants, or, `partly`, some of its blocks, by seed.
fn apply(medium: &mut Medium, clockwork: &mut Clockwork, request: &DiskRequest, durable: bool, partly: bool) {
    let block_bytes = u64::from(medium.block_bytes());
    let most = if partly { clockwork.disk_random.below(1_000_001) as u32 } else { 1_000_000 };
    let blocks = match request.operation {
        DiskOperation::Read | DiskOperation::Flush => return,
        _ => request.length / block_bytes,
    };
    for block in 0..blocks {
        if partly && !clockwork.disk_random.chance(most) {
            continue;
        }
        let content = match request.operation {
            DiskOperation::Write { .. } => {
                let mut data = vec![0; block_bytes as usize].into_boxed_slice();
                request.segments.copy_to(request.skip + (block * block_bytes) as usize, &mut data);
                Content::Data(data)
            }
            DiskOperation::Discard => Content::Hole,
            _ => Content::Zeroes,
        };
        medium.write(request.offset / block_bytes + block, content, durable);
    }
}

impl fmt::Debug for Disks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Disks")
            .field("names", &self.names)
            .field("in_service", &self.in_service.len())
            .finish_non_exhaustive()
    }
}
