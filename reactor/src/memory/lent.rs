//! Memory that a device lends for a while, so that a read from a memory device copies nothing.
//!
//! Invariant: the owner keeps the bytes in place and unchanged until [`LendOwner::give_back`].

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

/// Whoever lends memory.
pub trait LendOwner {
    /// The loan `key` of `len` bytes has ended. Called once a loan, on the reactor's thread.
    fn give_back(&self, key: u64, len: usize);
}

/// Borrowed, read-only device memory; dropping it tells the owner.
pub struct Lent {
    start: NonNull<u8>,
    len: usize,
    key: u64,
    owner: Rc<dyn LendOwner>,
}

impl Lent {
    /// Wraps `len` bytes at `start`.
    ///
    /// # Safety
    /// `start` is valid for reads of `len` initialised bytes, and they stay there and unchanged, until
    /// `owner.give_back(key, len)` is called.
    pub unsafe fn new(start: NonNull<u8>, len: usize, owner: Rc<dyn LendOwner>, key: u64) -> Lent {
        Lent { start, len, key, owner }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the caller of `new` promised that these bytes are readable and stay unchanged until
        // `give_back`, which only our drop calls.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.owner.give_back(self.key, self.len);
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("len", &self.len).field("key", &self.key).finish()
    }
}
