//! The data of one I/O: a short list of buffers and loans.
//!
//! Invariant: there is a rest only behind a first, and it is never empty. Nearly all I/Os have one segment, which is kept
//! inline, so that they touch no heap and moving a list is cheap: it moves several times with each I/O. More segments
//! lie on the heap.

use arrayvec::ArrayVec;

use super::buffer::Buffer;
use super::lent::Lent;

/// Most segments that one I/O's data may have.
pub const MAX_SEGMENTS: usize = 4;

/// One contiguous part of an I/O's data.
#[derive(Debug)]
pub enum Segment {
    /// Our own memory.
    Buffer(Buffer),
    /// A device's memory, to be read only.
    Lent(Lent),
}

impl Segment {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Segment::Buffer(buffer) => buffer,
            Segment::Lent(lent) => lent,
        }
    }

    /// The bytes for writing; `None` for a loan.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        match self {
            Segment::Buffer(buffer) => Some(buffer),
            Segment::Lent(_) => None,
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Segment::Buffer(buffer) => buffer.len(),
            Segment::Lent(lent) => lent.len(),
        }
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<Buffer> for Segment {
    fn from(buffer: Buffer) -> Self {
        Segment::Buffer(buffer)
    }
}

impl From<Lent> for Segment {
    fn from(lent: Lent) -> Self {
        Segment::Lent(lent)
    }
}

/// A list already has [`MAX_SEGMENTS`]; carries the segment that did not fit.
#[derive(Debug, thiserror::Error)]
#[error("an I/O has at most {MAX_SEGMENTS} segments")]
pub struct Full(
    /// The segment that did not fit.
    pub Segment,
);

/// The data of one I/O: at most [`MAX_SEGMENTS`] segments, one after the other.
#[derive(Debug, Default)]
pub struct Segments {
    first: Option<Segment>,
    rest: Option<Box<Rest>>,
}

type Rest = ArrayVec<Segment, { MAX_SEGMENTS - 1 }>;

impl Segments {
    /// No data.
    pub const EMPTY: Segments = Segments { first: None, rest: None };

    /// No data.
    pub const fn new() -> Segments {
        Segments::EMPTY
    }

    /// Replaces what is there. An assignment that is quick when nothing is, as nearly always: there is no call to drop
    /// it then.
    #[inline]
    pub fn put(&mut self, data: Segments) {
        if self.is_empty() {
            // SAFETY: the reference is valid for writing, and an empty list owns nothing that would have to be dropped:
            // it has no first segment, and no rest without one.
            unsafe { std::ptr::write(self, data) };
        } else {
            *self = data;
        }
    }

    fn rest(&self) -> &[Segment] {
        self.rest.as_ref().map_or(&[], |rest| rest.as_slice())
    }

    /// Appends a segment.
    ///
    /// # Errors
    /// Gives the segment back when the list is full.
    pub fn push(&mut self, segment: impl Into<Segment>) -> Result<(), Full> {
        let segment = segment.into();
        if self.first.is_none() {
            self.first = Some(segment);
            return Ok(());
        }
        let rest = self.rest.get_or_insert_default();
        rest.try_push(segment).map_err(|full| Full(full.element()))
    }

    /// Removes and returns the last segment.
    pub fn pop(&mut self) -> Option<Segment> {
        let Some(rest) = &mut self.rest else { return self.first.take() };
        let last = rest.pop();
        if rest.is_empty() {
            self.rest = None;
        }
        last
    }

    /// Number of segments.
    pub fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest().len()
    }

    /// Whether there is no segment.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Bytes of all segments together.
    pub fn len_bytes(&self) -> usize {
        self.iter().map(Segment::len).sum()
    }

    /// The segment at `index`.
    pub fn get(&self, index: usize) -> Option<&Segment> {
        match index.checked_sub(1) {
            None => self.first.as_ref(),
            Some(index) => self.rest().get(index),
        }
    }

    /// The segments in order.
    pub fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.first.iter().chain(self.rest())
    }

    /// The segments in order, for writing.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Segment> {
        self.first.iter_mut().chain(self.rest.iter_mut().flat_map(|rest| rest.iter_mut()))
    }

    /// Copies `bytes` into the segments, starting `offset` bytes in. Returns how many were copied: fewer than
    /// given when the data ends, or at a loan, which can't be written.
    pub fn copy_from(&mut self, offset: usize, bytes: &[u8]) -> usize {
        let (mut skip, mut copied) = (offset, 0);
        for segment in self.iter_mut() {
            let len = segment.len();
            if skip >= len {
                skip -= len;
                continue;
            }
            if copied == bytes.len() {
                break;
            }
            let Some(place) = segment.as_mut_slice() else { break };
            let part = (len - skip).min(bytes.len() - copied);
            place[skip..skip + part].copy_from_slice(&bytes[copied..copied + part]);
            copied += part;
            skip = 0;
        }
        copied
    }

    /// Copies out of the segments into `bytes`, starting `offset` bytes in. Returns how many were copied:
    /// fewer than asked for when the data ends.
    pub fn copy_to(&self, offset: usize, bytes: &mut [u8]) -> usize {
        let (mut skip, mut copied) = (offset, 0);
        for segment in self.iter() {
            let len = segment.len();
            if skip >= len {
                skip -= len;
                continue;
            }
            let part = (len - skip).min(bytes.len() - copied);
            bytes[copied..copied + part].copy_from_slice(&segment.as_slice()[skip..skip + part]);
            copied += part;
            skip = 0;
        }
        copied
    }
}

impl From<Buffer> for Segments {
    fn from(buffer: Buffer) -> Self {
        Segments::from(Segment::Buffer(buffer))
    }
}

impl From<Lent> for Segments {
    fn from(lent: Lent) -> Self {
        Segments::from(Segment::Lent(lent))
    }
}

impl From<Segment> for Segments {
    fn from(segment: Segment) -> Self {
        Segments { first: Some(segment), rest: None }
    }
}
