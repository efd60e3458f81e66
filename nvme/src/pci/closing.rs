//! Closes a function on a thread of its own.
//!
//! The kernel resets a function that is closed, and when it is gone waits for it for up to a minute: whoever lets go of
//! one, a reactor as a rule, must not wait with it. Invariants: DMA is off before a drop has returned, so a device can't
//! write to memory that its driver no longer holds; the thread only closes, and changes nothing of the function, which
//! may be open again by then.

#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread;

use super::pci_function::PciFunction;
use crate::function::{DmaError, DmaMemory, Function, Presence, Registration};

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
        let closing = thread::Builder::new().name("nvme-close".into());
        // Without a thread it is closed here: what should have moved to it is dropped.
        let _ = closing.spawn(move || drop(function));
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
