//! A lane's queue: an NVMe/TCP queue pair, a way to a drive, or a queue of a local disk, behind one set of functions.

use super::split::{Parts, SplitLink};
use crate::trace::Recorder;
use crate::workload::{Kind, Step};
use sledge_nvme::Status;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvmf::host::QueuePair;
use sledge_reactor::disk::{DiskCompletion, DiskOperation, DiskQueue, DiskRequest, QUEUE_DEPTH};
use sledge_reactor::memory::Segments;

/// A lane's queue.
pub enum Link {
    /// A namespace elsewhere.
    Nvme(QueuePair),
    /// A namespace of a controller in this machine.
    Drive(DriveLink),
    /// A local file or device.
    Disk(DiskLink),
    /// Any of them, for I/Os that go in parts.
    Split(Box<SplitLink>),
    /// Any of them, whose I/Os are written to a file.
    Recorded(Box<RecordedLink>),
}

/// A way to a namespace of a controller in this machine.
pub struct DriveLink {
    channel: Box<dyn Channel>,
    depth: usize,
}

/// A link whose I/Os are written to a file, until that ends.
#[derive(Debug)]
pub struct RecordedLink {
    below: Link,
    recorder: Option<Recorder>,
}

/// A queue of a local disk.
pub struct DiskLink {
    queue: DiskQueue,
    shift: u32,
    ended: Vec<DiskCompletion>,
    /// What the operating system said last: completions only have room for a status.
    error: Option<String>,
}

impl Link {
    /// A queue pair.
    pub fn nvme(pair: QueuePair) -> Self {
        Self::Nvme(pair)
    }

    /// A way to a drive that takes `depth` I/Os at once.
    pub fn channel(channel: Box<dyn Channel>, depth: usize) -> Self {
        Self::Drive(DriveLink { channel, depth })
    }

    /// A queue of a disk with blocks of 2 to the power of `shift` bytes.
    pub fn disk(queue: DiskQueue, shift: u32) -> Self {
        Self::Disk(DiskLink { queue, shift, ended: Vec::with_capacity(QUEUE_DEPTH), error: None })
    }

    /// This link for `depth` I/Os that go in parts; see [`SplitLink::new`].
    pub fn split(self, parts: Parts, shift: u32, depth: usize, memory: Vec<Segments>) -> Self {
        Self::Split(Box::new(SplitLink::new(self, parts, shift, depth, memory)))
    }

    /// This link, with its I/Os written to a file.
    pub fn recorded(self, recorder: Recorder) -> Self {
        Self::Recorded(Box::new(RecordedLink { below: self, recorder: Some(recorder) }))
    }

    /// The file ends, if there is one.
    ///
    /// # Errors
    /// Why it could not be written, in words.
    pub fn end_record(&mut self) -> Result<(), String> {
        match self {
            Self::Recorded(link) => link.recorder.take().map_or(Ok(()), Recorder::end),
            _ => Ok(()),
        }
    }

    /// The memory of an I/O, part by part, where the link has it rather than the lane.
    pub fn memory(&self, token: u64) -> Option<&[Segments]> {
        match self {
            Self::Split(link) => Some(link.memory(token)),
            Self::Recorded(link) => link.below.memory(token),
            _ => None,
        }
    }

    /// The same, to be filled for an I/O of `blocks` blocks.
    pub fn memory_for(&mut self, token: u64, blocks: u32) -> Option<&mut [Segments]> {
        match self {
            Self::Split(link) => Some(link.memory_for(token, blocks)),
            Self::Recorded(link) => link.below.memory_for(token, blocks),
            _ => None,
        }
    }

    /// Most I/Os at once.
    pub fn depth(&self) -> usize {
        match self {
            Self::Split(link) => link.depth(),
            Self::Recorded(link) => link.below.depth(),
            Self::Nvme(pair) => pair.depth(),
            Self::Drive(link) => link.depth,
            Self::Disk(_) => QUEUE_DEPTH,
        }
    }

    /// Takes an I/O. Gives it back, ended, when it is refused.
    #[inline]
    pub fn submit(&mut self, token: u64, step: &Step, fua: bool, data: Segments) -> Option<IoCompletion> {
        match self {
            Self::Nvme(pair) => refused(pair.submit(command(token, step, fua, data))),
            Self::Drive(link) => refused(link.channel.submit(command(token, step, fua, data))),
            Self::Disk(link) => link.submit(token, step, fua, data),
            Self::Split(link) => {
                link.submit(token, step, fua);
                None
            }
            Self::Recorded(link) => {
                if let Some(recorder) = link.recorder.as_mut() {
                    recorder.add(step);
                }
                link.below.submit(token, step, fua, data)
            }
        }
    }

    /// Sends what was submitted.
    #[inline]
    pub fn flush(&mut self) {
        // A disk's requests go to the kernel at the end of the turn, a drive's doorbell is rung when it is polled.
        match self {
            Self::Nvme(pair) => pair.flush(),
            Self::Split(link) => link.flush(),
            Self::Recorded(link) => link.below.flush(),
            Self::Drive(_) | Self::Disk(_) => {}
        }
    }

    /// Appends what has ended.
    #[inline]
    pub fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        match self {
            Self::Nvme(pair) => pair.poll(done),
            Self::Drive(link) => link.channel.poll(done),
            Self::Disk(link) => link.poll(done),
            Self::Split(link) => link.poll(done),
            Self::Recorded(link) => link.below.poll(done),
        }
    }

    /// Whether progress needs another turn though no event will cause one.
    #[inline]
    pub fn needs_polling(&self) -> bool {
        match self {
            Self::Nvme(pair) => pair.needs_polling(),
            Self::Drive(link) => link.channel.needs_polling(),
            Self::Disk(_) => false,
            Self::Split(link) => link.needs_polling(),
            Self::Recorded(link) => link.below.needs_polling(),
        }
    }

    /// What a failed I/O's status means, in words.
    pub fn explain(&self, status: Status) -> String {
        match self {
            Self::Disk(DiskLink { error: Some(error), .. }) => error.clone(),
            Self::Split(link) => link.below().explain(status),
            Self::Recorded(link) => link.below.explain(status),
            _ => status.to_string(),
        }
    }
}

/// A step as a command.
#[inline]
fn command(token: u64, step: &Step, fua: bool, data: Segments) -> IoCommand {
    let operation = match step.kind {
        Kind::Read => Operation::Read,
        Kind::Write => Operation::Write,
        Kind::Trim => Operation::Deallocate,
        Kind::Zeroes => Operation::WriteZeroes { deallocate: false },
        Kind::Flush => Operation::Flush,
    };
    let fua = fua && step.kind == Kind::Write;
    IoCommand { token, operation, slba: step.block, blocks: step.blocks, fua, data }
}

#[inline]
fn refused(submitted: Submitted) -> Option<IoCompletion> {
    match submitted {
        Submitted::Pending => None,
        Submitted::Done(completion) => Some(completion),
    }
}

impl DiskLink {
    fn submit(&mut self, token: u64, step: &Step, fua: bool, data: Segments) -> Option<IoCompletion> {
        let operation = match step.kind {
            Kind::Read => DiskOperation::Read,
            Kind::Write => DiskOperation::Write { durable: fua },
            Kind::Trim => DiskOperation::Discard,
            Kind::Zeroes => DiskOperation::WriteZeroes { deallocate: false },
            Kind::Flush => DiskOperation::Flush,
        };
        let (offset, length) = (step.block << self.shift, u64::from(step.blocks) << self.shift);
        let request = DiskRequest { token, operation, offset, length, segments: data, skip: 0 };
        let refused = self.queue.submit(request).err()?;
        self.error = Some("the disk's queue is full".into());
        Some(IoCompletion { token, status: Status::INTERNAL_ERROR, data: refused.segments })
    }

    fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        self.queue.poll(&mut self.ended);
        for ended in self.ended.drain(..) {
            let status = match ended.result {
                Ok(_) => Status::SUCCESS,
                Err(error) => {
                    self.error = Some(error.to_string());
                    Status::INTERNAL_ERROR
                }
            };
            done.push(IoCompletion { token: ended.token, status, data: ended.segments });
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nvme(pair) => pair.fmt(f),
            Self::Drive(link) => {
                f.debug_struct("DriveLink").field("depth", &link.depth).finish_non_exhaustive()
            }
            Self::Disk(link) => link.queue.fmt(f),
            Self::Split(link) => link.fmt(f),
            Self::Recorded(link) => link.fmt(f),
        }
    }
}
