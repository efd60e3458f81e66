//! A set of keys of streams that became ready: how one poller serves many streams.
//!
//! Invariant: a key is in the list exactly when its bit is set, so the list is bounded by the number of keys.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Collects the keys of streams that became ready. A cheap handle; it stays on its reactor.
#[derive(Clone, Default)]
pub struct ReadySet {
    inner: Rc<RefCell<Inner>>,
}

#[derive(Default)]
struct Inner {
    keys: Vec<u32>,
    /// One bit for each key up to the largest seen.
    listed: Vec<u64>,
}

impl ReadySet {
    /// An empty set.
    pub fn new() -> ReadySet {
        ReadySet::default()
    }

    /// Adds a key, if it is not there. Keys should be small (indices of a slab): the set keeps a bit for each
    /// up to the largest.
    pub fn push(&self, key: u32) {
        let mut inner = self.inner.borrow_mut();
        let (word, bit) = (key as usize / 64, 1u64 << (key % 64));
        if word >= inner.listed.len() {
            inner.listed.resize(word + 1, 0);
        }
        if inner.listed[word] & bit == 0 {
            inner.listed[word] |= bit;
            inner.keys.push(key);
        }
    }

    /// Moves all keys to the end of `keys`, in the order in which they were added.
    pub fn take(&self, keys: &mut Vec<u32>) {
        let mut inner = self.inner.borrow_mut();
        let Inner { keys: listed_keys, listed } = &mut *inner;
        for key in listed_keys.iter() {
            listed[*key as usize / 64] &= !(1 << (key % 64));
        }
        keys.append(listed_keys);
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.inner.borrow().keys.is_empty()
    }
}

impl fmt::Debug for ReadySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadySet").field("keys", &self.inner.borrow().keys).finish_non_exhaustive()
    }
}
