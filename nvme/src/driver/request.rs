//! One I/O that a queue has accepted, and the parts that it is done in.
//!
//! Owns what is known of an I/O between acceptance and answer. Invariant: an I/O is answered when no part of it is on
//! the device or to be tried again, it is in no list, and either all of it was issued or some of it failed. The
//! ledger decides that by [`Request::is_over`].

use sledge_reactor::memory::Segments;
use sledge_reactor::time::Instant;

use super::split::Role;
use crate::io::{IoCommand, Operation};
use crate::{Command, Completion, Status};

/// "None" among the numbers of extras.
pub const NO_EXTRA: u32 = u32::MAX;

/// One command of an I/O.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// First block.
    pub slba: u64,
    /// The I/O's number.
    pub request: u32,
    /// Blocks.
    pub blocks: u32,
    /// Where its data begins in the I/O's.
    pub offset: u32,
    /// Which command of the I/O it is.
    pub role: Role,
    /// How often it was tried again.
    pub retries: u8,
}

impl Part {
    /// The part of no request.
    pub const NONE: Self =
        Self { slba: 0, request: u32::MAX, blocks: 0, offset: 0, role: Role::Single, retries: 0 };

    /// All of an I/O as one command.
    #[inline]
    pub fn whole(io: &IoCommand, request: u32) -> Self {
        Self { slba: io.slba, request, blocks: io.blocks, offset: 0, role: Role::Single, retries: 0 }
    }
}

/// What an I/O needs rarely.
#[derive(Debug, Default)]
pub struct Extra {
    /// A command that came ready made, with its metadata.
    pub raw: Option<RawCommand>,
    /// Memory that the device reaches in place of the I/O's own, from byte `bounce_from` of its data on.
    pub bounce: Segments,
    /// See `bounce`.
    pub bounce_from: usize,
}

/// A command that came ready made.
#[derive(Debug)]
pub struct RawCommand {
    /// The command, without identifier and pointers.
    pub command: Command,
    /// Metadata in one contiguous piece; may be empty.
    pub metadata: Segments,
    /// The device's answer.
    pub completion: Completion,
}

/// Where an I/O waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// It does not: all of it was issued, or is being issued.
    No,
    /// For a slot, or for the queue to run.
    Slot,
    /// For memory of the pool.
    Memory,
}

/// An I/O that was accepted.
#[derive(Debug)]
pub struct Request {
    pub io: IoCommand,
    /// The channel that it came by.
    pub channel: u32,
    /// What it needs rarely; [`NO_EXTRA`] for nothing.
    pub extra: u32,
    /// Blocks that were issued, of `blocks`.
    pub issued: u32,
    /// Parts on the device.
    pub in_flight: u32,
    /// Parts to be tried again.
    pub resuming: u32,
    pub waits: Waits,
    /// Nobody waits for it any more, or its submitter wants it aborted: nothing more is issued of it.
    pub given_up: bool,
    /// The first failure.
    pub status: Status,
    /// When it was accepted.
    pub since: Instant,
}

impl Request {
    /// An I/O that was just accepted.
    #[inline]
    pub fn new(io: IoCommand, channel: u32, since: Instant) -> Self {
        Self {
            io,
            channel,
            extra: NO_EXTRA,
            issued: 0,
            in_flight: 0,
            resuming: 0,
            waits: Waits::No,
            given_up: false,
            status: Status::SUCCESS,
            since,
        }
    }

    /// Blocks to issue in all; 1 stands for a command without a range.
    #[inline]
    pub fn blocks(&self) -> u32 {
        if self.io.operation == Operation::Flush { 1 } else { self.io.blocks }
    }

    /// Whether more of it is to be issued.
    #[inline]
    pub fn goes_on(&self) -> bool {
        self.status.is_success() && !self.given_up && self.issued < self.blocks()
    }

    /// Whether it is to be answered.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.in_flight == 0 && self.resuming == 0 && self.waits == Waits::No && !self.goes_on()
    }
}
