//! The memory of one reactor: a pool for everything, and a headroom for what others can't do without.
//!
//! Invariant: memory of the headroom goes only to who asks for it by name, so whoever waits for the pool can't
//! stand in front of the work that would give memory back to it. Owned by the reactor's core.

use std::io;
use std::ptr::NonNull;

use super::buffer::Buffer;
use super::pool::{MAX_BUFFER_BYTES, Pool, PoolOptions, PoolRange, PoolStatistics};
use super::region::Backing;

/// The part of a reactor's memory that is headroom: one in this many bytes, and at least one largest buffer.
const HEADROOM_SHARE: usize = 8;

/// The memory of one reactor.
pub(crate) struct ReactorMemory {
    pool: Pool,
    headroom: Pool,
}

impl ReactorMemory {
    /// Maps it on the best memory there is.
    ///
    /// # Errors
    /// When the kernel refuses to map it.
    pub fn new(options: &PoolOptions) -> io::Result<ReactorMemory> {
        Self::map(options, Pool::new)
    }

    /// Maps ordinary memory: for the simulator.
    ///
    /// # Errors
    /// When the kernel refuses to map it.
    pub fn ordinary(options: &PoolOptions) -> io::Result<ReactorMemory> {
        Self::map(options, Pool::ordinary)
    }

    fn map(options: &PoolOptions, pool: fn(&PoolOptions) -> io::Result<Pool>) -> io::Result<ReactorMemory> {
        let headroom = (options.total_bytes / HEADROOM_SHARE).max(MAX_BUFFER_BYTES);
        let rest = options.total_bytes.saturating_sub(headroom).max(MAX_BUFFER_BYTES);
        Ok(ReactorMemory {
            pool: pool(&PoolOptions { total_bytes: rest })?,
            headroom: pool(&PoolOptions { total_bytes: headroom })?,
        })
    }

    /// Takes a buffer out of the pool.
    pub fn allocate(&self, len: usize) -> Option<Buffer> {
        self.pool.allocate(len)
    }

    /// Takes a buffer out of the headroom.
    pub fn allocate_from_headroom(&self, len: usize) -> Option<Buffer> {
        self.headroom.allocate(len)
    }

    /// Where all of its buffers lie, as [`Pool::range`] tells.
    pub fn ranges(&self) -> [(NonNull<u8>, usize); 2] {
        [self.pool.range(), self.headroom.range()]
    }

    /// As [`ReactorMemory::ranges`], with what keeps the memory there.
    pub fn lasting_ranges(&self) -> [PoolRange; 2] {
        [self.pool.lasting_range(), self.headroom.lasting_range()]
    }

    /// What backs how many bytes of each.
    pub fn backings(&self) -> [(Backing, usize); 2] {
        [&self.pool, &self.headroom].map(|pool| {
            let PoolStatistics { backing, total_bytes, .. } = pool.statistics();
            (backing, total_bytes)
        })
    }

    /// How full both are together, and the lesser of what backs them.
    pub fn statistics(&self) -> PoolStatistics {
        let (pool, headroom) = (self.pool.statistics(), self.headroom.statistics());
        PoolStatistics {
            total_bytes: pool.total_bytes + headroom.total_bytes,
            used_bytes: pool.used_bytes + headroom.used_bytes,
            used_buffers: pool.used_buffers + headroom.used_buffers,
            refused: pool.refused + headroom.refused,
            // One may have got the last huge pages, or all that may be locked.
            backing: pool.backing.max(headroom.backing),
        }
    }
}
