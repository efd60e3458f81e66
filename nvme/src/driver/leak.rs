//! A value that can be left behind for ever instead of being dropped.
//!
//! Owns the value. Invariant: it is dropped with the holder unless [`Leaky::leak`] was called. For memory that a device
//! may still write to when its owner ends: such memory must not be given back to anybody.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

/// Holds a value.
#[derive(Debug)]
pub struct Leaky<T> {
    value: ManuallyDrop<T>,
    leaks: bool,
}

impl<T> Leaky<T> {
    /// Holds a value, which is dropped with it.
    pub const fn new(value: T) -> Self {
        Self { value: ManuallyDrop::new(value), leaks: false }
    }

    /// The value will not be dropped.
    pub fn leak(&mut self) {
        self.leaks = true;
    }
}

impl<T> Deref for Leaky<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Leaky<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for Leaky<T> {
    fn drop(&mut self) {
        if !self.leaks {
            // SAFETY: dropped once, here, and not used afterwards: the holder ends.
            unsafe { ManuallyDrop::drop(&mut self.value) }
        }
    }
}
