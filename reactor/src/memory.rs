//! Memory for I/O: a fixed pool of aligned buffers per reactor, memory borrowed from a device, and the short
//! lists of both that travel with an I/O.
//!
//! Invariant: a byte of pool memory has at most one owner. Nothing here allocates from the heap after a pool
//! was made. Called by everything that moves data; the pool itself belongs to one reactor.

mod buffer;
mod lent;
mod pool;
mod reactor_memory;
mod region;
mod segments;
mod source;

pub use buffer::Buffer;
pub use lent::{LendOwner, Lent};
pub use pool::{MAX_BUFFER_BYTES, MIN_BUFFER_BYTES, Pool, PoolOptions, PoolRange, PoolStatistics};
pub(crate) use reactor_memory::ReactorMemory;
pub use region::{Backing, map_anonymous};
pub use segments::{Full, MAX_SEGMENTS, Segment, Segments};
pub use source::{PoolMemory, PoolSource, set_pool_source};

/// Takes a buffer of `len` bytes from the current reactor's pool; `None` when the pool is dry or `len` is
/// over [`MAX_BUFFER_BYTES`].
///
/// # Panics
/// Outside a reactor.
pub fn allocate(len: usize) -> Option<Buffer> {
    crate::core::peek_current(|core| core.memory().allocate(len))
}

/// Takes a buffer of `len` bytes out of the eighth of the current reactor's memory that [`allocate`] leaves alone;
/// `None` when that is dry, too. For what must go on while the pool is dry because all that is in the pool waits
/// behind it: the next bytes of a stream, say. Whoever takes it must give it back without waiting for the pool.
///
/// # Panics
/// Outside a reactor.
pub fn allocate_from_headroom(len: usize) -> Option<Buffer> {
    crate::core::with_current(|core| core.memory().allocate_from_headroom(len))
}

/// Where the current reactor's buffers lie, those of [`allocate`] and those of [`allocate_from_headroom`], each range
/// kept mapped as long as it is held: for a device that transfers into buffers by itself.
///
/// # Panics
/// Outside a reactor.
pub fn pools() -> [PoolRange; 2] {
    crate::core::with_current(|core| core.memory().lasting_ranges())
}

/// How full the current reactor's memory is, with its headroom.
///
/// # Panics
/// Outside a reactor.
pub fn statistics() -> PoolStatistics {
    crate::core::with_current(|core| core.memory().statistics())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
