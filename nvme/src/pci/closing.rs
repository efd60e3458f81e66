//! Closes a function on a thread of its own.
//!
//! The kernel resets a function that is closed, and when it is gone waits for it for up to a minute: whoever lets go of
//! one, a reactor as a rule, must not wait with it. Invariants: DMA is off before a drop has returned, so a device can't
//! write to memory that its driver no longer holds; the thread only closes, and changes nothing of the function; who
//! opens the same address again waits until it is closed ([`wait`]), so nobody finds it busy with ourselves.

#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::pci_function::PciFunction;
use crate::function::{DmaError, DmaMemory, Function, Presence, Registration};

/// How long an opener waits for the same function to be closed. One that is gone takes longer, and is not opened again
/// before the kernel has let go of it anyway.
pub(super) const MOST_WAIT: Duration = Duration::from_secs(10);

/// Addresses of the functions that are being closed.
static UNDER_WAY: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// One of them was closed.
static CLOSED: Condvar = Condvar::new();

fn under_way() -> MutexGuard<'static, Vec<String>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no function of this address is being closed, at most so long. Whether that is so.
pub(super) fn wait(address: &str, most: Duration) -> bool {
    let end = Instant::now() + most;
    let mut list = under_way();
    while list.iter().any(|closing| closing == address) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        list = CLOSED.wait_timeout(list, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

/// An address in the list, as long as it is there.
struct Mark(String);

impl Mark {
    fn new(address: &str) -> Mark {
        under_way().push(address.to_owned());
        Mark(address.to_owned())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut list = under_way();
        if let Some(place) = list.iter().position(|closing| *closing == self.0) {
            list.swap_remove(place);
        }
        CLOSED.notify_all();
    }
}

/// A function on its way to be closed. In this order: first it is closed, then it is off the list.
struct Leaving {
    _function: PciFunction,
    _mark: Mark,
}

/// A function that is closed elsewhere when it is dropped.
pub(super) struct Closing(ManuallyDrop<PciFunction>);

impl Closing {
    pub(super) fn new(function: PciFunction) -> Closing {
        Closing(ManuallyDrop::new(function))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        // Here and not in the thread, which would do it to whoever opens the function next. Fails when the device is gone,
        // and then it does no DMA either.
        let _ = self.0.set_bus_master(false);
        // SAFETY: it is taken once, as a value is dropped once, and not used afterwards.
        let function = unsafe { ManuallyDrop::take(&mut self.0) };
        let leaving = Leaving { _mark: Mark::new(function.address()), _function: function };
        let closing = thread::Builder::new().name("nvme-close".into());
        // Without a thread it is closed here: what should have moved to it is dropped.
        let _ = closing.spawn(move || drop(leaving));
    }
}

impl Function for Closing {
    fn address(&self) -> &str {
        self.0.address()
    }

    fn environment(&self) -> &'static str {
        self.0.environment()
    }

    fn register_bytes(&self) -> usize {
        self.0.register_bytes()
    }

    fn read_u32(&self, offset: usize) -> u32 {
        self.0.read_u32(offset)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.0.write_u32(offset, value);
    }

    fn read_u64(&self, offset: usize) -> u64 {
        self.0.read_u64(offset)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        self.0.write_u64(offset, value);
    }

    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError> {
        self.0.allocate(bytes)
    }

    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Arc<Registration>, DmaError> {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.0.register(start, bytes) }
    }

    fn set_bus_master(&self, on: bool) -> io::Result<()> {
        self.0.set_bus_master(on)
    }

    fn reset(&self) -> io::Result<bool> {
        self.0.reset()
    }

    fn presence(&self) -> Presence {
        self.0.presence()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without it a controller that is attached right after it was detached is found in use, by ourselves.
    #[test]
    fn who_opens_waits_for_who_closes() {
        let (first, again) = (Mark::new("0000:7f:00.0"), Mark::new("0000:7f:00.0"));
        assert!(wait("0000:7f:00.1", Duration::ZERO), "another function's closing is nobody's business");
        assert!(!wait("0000:7f:00.0", Duration::ZERO));
        drop(first);
        assert!(!wait("0000:7f:00.0", Duration::ZERO), "it was opened and let go of twice");
        let waiting = thread::spawn(|| wait("0000:7f:00.0", Duration::from_secs(60)));
        drop(again);
        assert!(waiting.join().is_ok_and(|closed| closed));
    }
}
