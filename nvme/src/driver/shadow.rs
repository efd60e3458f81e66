//! Shadow doorbells: doorbells in memory, for controllers that a write to a register is dear for (Doorbell Buffer
//! Config, Base 5.8).
//!
//! Owns the two pages that all queues of a controller share. Invariant: each queue's owner alone writes the queue's two
//! shadow doorbells; the controller alone writes the EventIdx beside them. Made by the control path; the queue pairs
//! ring by it. The Admin queue has none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::function::{DmaError, DmaMemory, Function};

/// Bytes of each of the two buffers: one memory page (Base 5.8, with CC.MPS of 4096 bytes).
const BUFFER_BYTES: usize = 4096;

/// The Shadow Doorbell buffer and the EventIdx buffer of a controller.
#[derive(Debug)]
pub struct ShadowDoorbells {
    doorbells: DmaMemory,
    events: DmaMemory,
    stride_bytes: usize,
}

impl ShadowDoorbells {
    /// Zeroed buffers for a controller whose doorbells lie `stride_bytes` apart.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn new(function: &dyn Function, stride_bytes: usize) -> Result<Arc<Self>, DmaError> {
        let (doorbells, events) = (function.allocate(BUFFER_BYTES)?, function.allocate(BUFFER_BYTES)?);
        Ok(Arc::new(Self { doorbells, events, stride_bytes }))
    }

    /// PRP Entry 1 of Doorbell Buffer Config: the Shadow Doorbell buffer.
    #[must_use]
    pub fn doorbells_address(&self) -> u64 {
        self.doorbells.device_address(0)
    }

    /// PRP Entry 2 of Doorbell Buffer Config: the EventIdx buffer.
    #[must_use]
    pub fn events_address(&self) -> u64 {
        self.events.device_address(0)
    }

    /// Zeroes both, before Doorbell Buffer Config is sent again after a reset; no queue may be in use.
    pub fn clear(&self) {
        for offset in (0..BUFFER_BYTES).step_by(4) {
            self.doorbells.atomic_u32(offset).store(0, Ordering::Relaxed);
            self.events.atomic_u32(offset).store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }

    /// The shadow of the doorbell that is number `index` from the first (2 × queue, plus 1 for the completion queue's);
    /// `None` when the page does not hold it, and the queue rings by register only.
    #[must_use]
    pub fn doorbell(self: &Arc<Self>, index: usize) -> Option<ShadowDoorbell> {
        let offset = index * self.stride_bytes;
        (offset + 4 <= BUFFER_BYTES).then(|| ShadowDoorbell { buffers: self.clone(), offset })
    }
}

/// One doorbell's shadow.
#[derive(Debug)]
pub struct ShadowDoorbell {
    buffers: Arc<ShadowDoorbells>,
    offset: usize,
}

impl ShadowDoorbell {
    /// Tells the controller the new value. True: it has to be told by the register, too.
    #[inline]
    pub fn ring(&self, value: u16) -> bool {
        let doorbell: &AtomicU32 = self.buffers.doorbells.atomic_u32(self.offset);
        let before = doorbell.load(Ordering::Relaxed) as u16;
        // What the doorbell tells of, entries of a queue, is there before the doorbell says so.
        doorbell.store(u32::from(value), Ordering::Release);
        // The controller writes EventIdx and then looks at the doorbell once more; we do it the other way round.
        // Whichever comes second sees the other's write, if neither of the two is put off past the fence.
        fence(Ordering::SeqCst);
        let event = self.buffers.events.atomic_u32(self.offset).load(Ordering::Acquire) as u16;
        passes(event, before, value)
    }

    /// Makes it as new, with the queue that it is of: the controller must not know that queue.
    pub fn reset(&self) {
        self.buffers.doorbells.atomic_u32(self.offset).store(0, Ordering::Relaxed);
        self.buffers.events.atomic_u32(self.offset).store(0, Ordering::Release);
    }
}

/// Whether a doorbell on its way from `before` to `value` passes the value `event` that the controller waits at: it
/// sleeps with the entry at `event` not yet there, so it is to be woken when that entry is the first of the new ones
/// or among them. All in a ring's indices, and modulo 2^16 across the ring's end.
const fn passes(event: u16, before: u16, value: u16) -> bool {
    value.wrapping_sub(event).wrapping_sub(1) < value.wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a sleeping controller not be woken (the queue hangs), or be woken for each command.
    #[test]
    fn the_register_is_written_when_the_event_index_is_passed() {
        assert!(passes(0, 0, 1), "it waits for the first entry");
        assert!(passes(3, 3, 10) && passes(9, 3, 10) && passes(5, 3, 10));
        assert!(!passes(10, 3, 10), "it has been told of less than it waits for");
        assert!(!passes(2, 3, 10), "it has been told already");
        // Across the end of a ring of 16.
        assert!(passes(14, 14, 2) && passes(15, 14, 2) && passes(0, 14, 2) && passes(1, 14, 2));
        assert!(!passes(2, 14, 2) && !passes(7, 14, 2) && !passes(13, 14, 2));
    }
}
