//! The pool: a region cut into chunks of 1 MiB, each serving one size class at a time.
//!
//! Invariants: a set bit in a chunk's map is a free buffer, a clear one is owned by exactly one [`Buffer`] or lies in
//! its class's short stack of recent ones (or lies beyond the class's count); a chunk is on the list of free chunks, on its class's list of chunks with
//! room, or full and on no list. Taking and giving back are a few instructions and never touch the heap.
//! A chunk whose buffers all came back serves another class, so no size starves for ever behind another: when there is
//! no room, the stacks are emptied first. What came back last goes out first, while the caches still have it.

use std::cell::RefCell;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::buffer::Buffer;
use super::region::{Backing, Region};

/// Smallest buffer, and the alignment of all.
pub const MIN_BUFFER_BYTES: usize = 4096;
/// Largest buffer.
pub const MAX_BUFFER_BYTES: usize = 1 << 20;

const MIN_SHIFT: u32 = MIN_BUFFER_BYTES.trailing_zeros();
const CHUNK_SHIFT: u32 = MAX_BUFFER_BYTES.trailing_zeros();
const CLASSES: usize = (CHUNK_SHIFT - MIN_SHIFT + 1) as usize;
/// Words of a chunk's map: one bit for each smallest buffer.
const MAP_WORDS: usize = MAX_BUFFER_BYTES / MIN_BUFFER_BYTES / 64;
/// Buffers of a class that wait apart from the maps at most: what a batch of I/Os takes and gives back.
const RECENT: usize = 64;
/// "No chunk" in the lists of chunks.
const NONE: u32 = u32::MAX;

/// How much memory a reactor's pool has.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Bytes in all, rounded up to whole MiB. Pages other than huge ones are touched as they are first used. An eighth, at least 1 MiB,
    /// is headroom (see [`allocate_from_headroom`](super::allocate_from_headroom)), and at least 1 MiB is not.
    pub total_bytes: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        PoolOptions { total_bytes: 128 << 20 }
    }
}

/// How full a pool is.
#[derive(Clone, Debug)]
pub struct PoolStatistics {
    /// Size of the pool in bytes.
    pub total_bytes: usize,
    /// Bytes in buffers that are out, by size class, not by their asked length.
    pub used_bytes: usize,
    /// Buffers that are out.
    pub used_buffers: u64,
    /// Times a buffer was refused because the pool was dry.
    pub refused: u64,
    /// What backs the memory; of several kinds the least.
    pub backing: Backing,
}

/// Where a pool's buffers lie, kept mapped as long as this is there, even when the reactor is gone: what a device needs
/// that transfers into buffers by itself.
#[derive(Clone, Debug)]
pub struct PoolRange {
    start: NonNull<u8>,
    bytes: usize,
    region: Arc<Region>,
}

// SAFETY: it is an address and a length, and keeps a region, which is Send and Sync, alive; it reads and writes nothing.
unsafe impl Send for PoolRange {}
// SAFETY: as for Send.
unsafe impl Sync for PoolRange {}

impl PoolRange {
    /// First byte, at a multiple of 2 MiB.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes, a multiple of [`MAX_BUFFER_BYTES`].
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What backs the memory.
    pub fn backing(&self) -> Backing {
        self.region.backing()
    }
}

/// A pool of I/O buffers; a cheap handle, all clones of which are the same pool. It stays on its thread.
#[derive(Clone, Debug)]
pub struct Pool {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The region's first byte, so that taking a buffer looks at one place less.
    start: NonNull<u8>,
    region: Arc<Region>,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    chunks: Box<[Chunk]>,
    /// Head of the list of chunks that serve no class.
    free: u32,
    /// For each class, the head of the list of its chunks with room.
    room: [u32; CLASSES],
    /// For each class, offsets of buffers that came back lately, newest last.
    recent: [ArrayVec<usize, RECENT>; CLASSES],
    used_bytes: usize,
    used_buffers: u64,
    refused: u64,
}

#[derive(Clone, Debug)]
struct Chunk {
    map: [u64; MAP_WORDS],
    available: u16,
    class: u8,
    next: u32,
    previous: u32,
}

impl Pool {
    /// Makes a pool on the best memory there is.
    ///
    /// # Errors
    /// When the kernel refuses to map it.
    pub fn new(options: &PoolOptions) -> io::Result<Pool> {
        let chunks = chunk_count(options);
        // A whole number of 2 MiB pages, so that huge pages fit.
        Ok(Pool::over(Region::for_reactor(chunks.next_multiple_of(2) << CHUNK_SHIFT)?, chunks))
    }

    /// Makes a pool on ordinary memory: for the simulator, and tests without a reactor.
    ///
    /// # Errors
    /// When the kernel refuses to map it.
    pub fn ordinary(options: &PoolOptions) -> io::Result<Pool> {
        let chunks = chunk_count(options);
        Ok(Pool::over(Region::map_ordinary(chunks << CHUNK_SHIFT)?, chunks))
    }

    fn over(region: Region, chunks: usize) -> Pool {
        let blank = Chunk { map: [0; MAP_WORDS], available: 0, class: 0, next: NONE, previous: NONE };
        let mut chunks = vec![blank; chunks].into_boxed_slice();
        let last = chunks.len() - 1;
        for (index, chunk) in chunks.iter_mut().enumerate() {
            chunk.next = if index == last { NONE } else { index as u32 + 1 };
        }
        let state = State {
            chunks,
            free: 0,
            room: [NONE; CLASSES],
            recent: std::array::from_fn(|_| ArrayVec::new()),
            used_bytes: 0,
            used_buffers: 0,
            refused: 0,
        };
        let region = Arc::new(region);
        Pool { inner: Rc::new(Inner { start: region.start(), region, state: RefCell::new(state) }) }
    }

    /// Takes a buffer of `len` bytes; `None` when the pool is dry or `len` is over [`MAX_BUFFER_BYTES`].
    /// Its contents are whatever an earlier buffer of this pool left there, or zeros.
    pub fn allocate(&self, len: usize) -> Option<Buffer> {
        if len > MAX_BUFFER_BYTES {
            return None;
        }
        let (offset, class) = self.inner.state.borrow_mut().take(class_of(len))?;
        // SAFETY: `take` returns offsets inside the region only.
        let start = unsafe { self.inner.start.add(offset) };
        Some(Buffer::new(start, len as u32, class, self.clone()))
    }

    /// Where all of its buffers lie: the first byte, at a multiple of [`MAX_BUFFER_BYTES`], and how many follow.
    pub(crate) fn range(&self) -> (NonNull<u8>, usize) {
        (self.inner.start, self.inner.state.borrow().chunks.len() << CHUNK_SHIFT)
    }

    /// As [`Pool::range`], with what keeps the memory there, for a device that shall reach it.
    pub(crate) fn lasting_range(&self) -> PoolRange {
        let (start, bytes) = self.range();
        PoolRange { start, bytes, region: self.inner.region.clone() }
    }

    /// Takes back a buffer's memory; called once, when the buffer is dropped.
    pub(super) fn give_back(&self, start: NonNull<u8>, class: u8) {
        let offset = start.as_ptr() as usize - self.inner.start.as_ptr() as usize;
        self.inner.state.borrow_mut().give(offset, class);
    }

    /// How full the pool is.
    pub fn statistics(&self) -> PoolStatistics {
        let state = self.inner.state.borrow();
        PoolStatistics {
            total_bytes: state.chunks.len() << CHUNK_SHIFT,
            used_bytes: state.used_bytes,
            used_buffers: state.used_buffers,
            refused: state.refused,
            backing: self.inner.region.backing(),
        }
    }
}

impl State {
    /// The offset and class of a free buffer of `class`, or of a larger one when no chunk is left to serve
    /// `class`.
    fn take(&mut self, class: u8) -> Option<(usize, u8)> {
        let taken = match self.recent[class as usize].pop() {
            Some(offset) => (offset, class),
            None => self.take_from_chunks(class)?,
        };
        self.used_buffers += 1;
        self.used_bytes += class_bytes(taken.1);
        Some(taken)
    }

    /// As `take`, from a chunk's map.
    fn take_from_chunks(&mut self, class: u8) -> Option<(usize, u8)> {
        if self.room[class as usize] == NONE && self.free == NONE {
            self.empty_recent();
        }
        let mut class = class;
        let mut index = self.room[class as usize];
        if index == NONE && self.free != NONE {
            index = self.free;
            self.free = self.chunks[index as usize].next;
            self.chunks[index as usize].dedicate(class);
            self.link(index);
        }
        while index == NONE {
            class += 1;
            match self.room.get(class as usize) {
                Some(larger) => index = *larger,
                None => {
                    self.refused += 1;
                    return None;
                }
            }
        }
        let chunk = &mut self.chunks[index as usize];
        let word = chunk.map.iter().position(|word| *word != 0)?;
        let bit = chunk.map[word].trailing_zeros();
        chunk.map[word] &= chunk.map[word] - 1;
        chunk.available -= 1;
        if chunk.available == 0 {
            self.unlink(index);
        }
        let slot = word * 64 + bit as usize;
        Some((((index as usize) << CHUNK_SHIFT) + slot * class_bytes(class), class))
    }

    /// Marks the buffer at `offset` free again.
    fn give(&mut self, offset: usize, class: u8) {
        self.used_buffers -= 1;
        self.used_bytes -= class_bytes(class);
        let recent = &mut self.recent[class as usize];
        debug_assert!(!recent.contains(&offset), "a buffer comes back once");
        if recent.try_push(offset).is_err() {
            self.give_to_chunk(offset, class);
        }
    }

    /// Puts all that came back lately where any class can have it.
    fn empty_recent(&mut self) {
        for class in 0..CLASSES {
            while let Some(offset) = self.recent[class].pop() {
                self.give_to_chunk(offset, class as u8);
            }
        }
    }

    /// Marks the buffer at `offset` free in its chunk.
    fn give_to_chunk(&mut self, offset: usize, class: u8) {
        let index = (offset >> CHUNK_SHIFT) as u32;
        let slot = (offset & (MAX_BUFFER_BYTES - 1)) / class_bytes(class);
        let chunk = &mut self.chunks[index as usize];
        debug_assert_eq!(chunk.class, class, "a chunk changes class only when all its buffers are back");
        debug_assert_eq!(chunk.map[slot / 64] >> (slot % 64) & 1, 0, "a buffer comes back once");
        chunk.map[slot / 64] |= 1 << (slot % 64);
        chunk.available += 1;
        let (available, count) = (chunk.available as usize, slots_of(class));
        if available == 1 {
            self.link(index);
        }
        if available == count {
            self.unlink(index);
            self.chunks[index as usize].next = self.free;
            self.free = index;
        }
    }

    /// Puts a chunk at the head of its class's list of chunks with room.
    fn link(&mut self, index: u32) {
        let class = self.chunks[index as usize].class as usize;
        let head = self.room[class];
        self.chunks[index as usize].previous = NONE;
        self.chunks[index as usize].next = head;
        if head != NONE {
            self.chunks[head as usize].previous = index;
        }
        self.room[class] = index;
    }

    /// Takes a chunk off its class's list of chunks with room.
    fn unlink(&mut self, index: u32) {
        let Chunk { class, next, previous, .. } = self.chunks[index as usize];
        if previous == NONE {
            self.room[class as usize] = next;
        } else {
            self.chunks[previous as usize].next = next;
        }
        if next != NONE {
            self.chunks[next as usize].previous = previous;
        }
    }
}

impl Chunk {
    /// Makes all of a free chunk's memory buffers of `class`.
    fn dedicate(&mut self, class: u8) {
        let slots = slots_of(class);
        self.class = class;
        self.available = slots as u16;
        for (index, word) in self.map.iter_mut().enumerate() {
            let here = slots.saturating_sub(index * 64).min(64);
            *word = if here == 64 { u64::MAX } else { (1 << here) - 1 };
        }
    }
}

fn chunk_count(options: &PoolOptions) -> usize {
    options.total_bytes.div_ceil(MAX_BUFFER_BYTES).max(1)
}

/// The smallest class that holds `len` bytes.
fn class_of(len: usize) -> u8 {
    let shift = len.max(MIN_BUFFER_BYTES).next_power_of_two().trailing_zeros();
    (shift - MIN_SHIFT) as u8
}

/// Bytes of a class's buffers.
pub(super) fn class_bytes(class: u8) -> usize {
    MIN_BUFFER_BYTES << class
}

fn slots_of(class: u8) -> usize {
    MAX_BUFFER_BYTES / class_bytes(class)
}
