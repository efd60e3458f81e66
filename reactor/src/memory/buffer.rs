//! A buffer out of a pool.
//!
//! Owns its bytes alone from `allocate` to drop, when they go back to the pool, even if the reactor is gone.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::pool::{Pool, class_bytes};

/// Contiguous memory out of a pool, aligned to at least 4096 bytes. It stays on its reactor's thread.
pub struct Buffer {
    start: NonNull<u8>,
    len: u32,
    class: u8,
    pool: Pool,
}

impl Buffer {
    /// Wraps memory that the pool has just marked as taken.
    pub(super) fn new(start: NonNull<u8>, len: u32, class: u8, pool: Pool) -> Buffer {
        Buffer { start, len, class, pool }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that the buffer could hold.
    pub fn capacity(&self) -> usize {
        class_bytes(self.class)
    }

    /// Shortens the buffer to `len` bytes; does nothing when it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len.min(u32::MAX as usize) as u32);
    }

    /// Sets the length to `len`, or to the capacity when that is less; bytes gained have unspecified contents.
    pub fn resize(&mut self, len: usize) {
        self.len = len.min(self.capacity()) as u32;
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the pool gave this memory, at least `capacity() >= len` bytes of it, to this buffer alone;
        // it was zeroed when mapped, so every byte is initialised, and it stays mapped while `pool` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the slice the only way to this memory.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len as usize) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give_back(self.start, self.class);
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).field("capacity", &self.capacity()).finish()
    }
}
