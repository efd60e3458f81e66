//! The memory of one reactor that a device reaches: the reactor's pool and its headroom, registered once.
//!
//! Owns the registrations. Invariant: each range of the pool stays mapped in this process, and for the device, as long
//! as this is there; it is dropped when the device can no longer work on what it was told of (see `io_queue`).
//! The data pointers of commands are made from it.

#![allow(unsafe_code)]

use std::sync::Arc;

use sledge_reactor::memory::{self, PoolRange};

use crate::function::{DmaError, Function, Registration};

/// One range. The registration is dropped before what keeps the memory mapped.
#[derive(Debug)]
struct Range {
    registration: Arc<Registration>,
    _memory: PoolRange,
}

/// A reactor's memory as the device sees it.
#[derive(Debug)]
pub struct Reach {
    ranges: Vec<Range>,
}

impl Reach {
    /// Lets the device reach the current reactor's memory. Blocks.
    ///
    /// # Errors
    /// When it can't be mapped.
    ///
    /// # Panics
    /// Outside a reactor.
    pub fn of_current_reactor(function: &dyn Function) -> Result<Self, DmaError> {
        let ranges = memory::pools().into_iter().map(|range| {
            // SAFETY: the range is mapped while `range` lives, which goes with the registration and is dropped after it.
            let registration = unsafe { function.register(range.start(), range.bytes())? };
            Ok(Range { registration, _memory: range })
        });
        Ok(Self { ranges: ranges.collect::<Result<_, DmaError>>()? })
    }

    /// The device's address of a byte of ours, and how many bytes from there on are contiguous for the device; `None`
    /// when the device does not reach it.
    #[inline]
    #[must_use]
    pub fn device_address(&self, address: usize) -> Option<(u64, usize)> {
        self.ranges.iter().find_map(|range| range.registration.device_address(address))
    }
}
