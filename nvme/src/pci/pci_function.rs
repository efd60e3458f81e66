//! One opened PCI function, whatever opened it.
//!
//! Invariant: DMA is off when it is opened; [`super::closing`] switches it off again when it is let go of, so a device
//! can't write to memory that its driver no longer holds.

#![allow(unsafe_code)]

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;

use super::config_space::ConfigSpace;
use super::window::Window;
use crate::function::{DmaError, DmaMemory, Function, Presence, Registration};

/// What an environment does in its own way.
pub(super) trait Control: Send + Sync {
    /// Resets the function; false when it can't be.
    fn reset(&self) -> io::Result<bool>;

    /// Whether the system asks for the function back.
    fn leaving(&self) -> bool;
}

/// Memory that a function reaches.
pub(super) trait Memory: Send + Sync {
    /// Zeroed memory of at least `bytes` bytes, as [`Function::allocate`] gives it.
    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError>;

    /// Lets the function reach memory that is there.
    ///
    /// # Safety
    /// The memory stays mapped in this process until the registration is dropped.
    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Registration, DmaError>;
}

/// A function's folder in sysfs.
pub(super) struct Place {
    folder: PathBuf,
    /// The folder's number: a function that comes to the same place later has another one.
    number: u64,
}

impl Place {
    /// Remembers a folder.
    pub(super) fn of(folder: PathBuf) -> io::Result<Place> {
        let number = folder.metadata()?.ino();
        Ok(Place { folder, number })
    }

    /// Whether it is still that folder.
    pub(super) fn is_there(&self) -> bool {
        self.folder.metadata().is_ok_and(|now| now.ino() == self.number)
    }
}

/// An opened function.
pub(super) struct PciFunction {
    pub(super) address: String,
    pub(super) environment: &'static str,
    /// Its folder in sysfs, which goes when it goes.
    pub(super) place: Place,
    pub(super) registers: Window,
    pub(super) config: ConfigSpace,
    pub(super) memory: Box<dyn Memory>,
    /// Last, as dropping it closes the device.
    pub(super) control: Box<dyn Control>,
}

impl Function for PciFunction {
    fn address(&self) -> &str {
        &self.address
    }

    fn environment(&self) -> &'static str {
        self.environment
    }

    fn register_bytes(&self) -> usize {
        self.registers.bytes()
    }

    fn read_u32(&self, offset: usize) -> u32 {
        self.registers.read(offset)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.registers.write(offset, value);
    }

    /// In halves: not every controller takes eight bytes at once.
    fn read_u64(&self, offset: usize) -> u64 {
        let low = self.registers.read(offset);
        u64::from(self.registers.read(offset + 4)) << 32 | u64::from(low)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        self.registers.write(offset, value as u32);
        self.registers.write(offset + 4, (value >> 32) as u32);
    }

    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError> {
        self.memory.allocate(bytes)
    }

    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Arc<Registration>, DmaError> {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.memory.register(start, bytes) }.map(Arc::new)
    }

    fn set_bus_master(&self, on: bool) -> io::Result<()> {
        self.config.set_bus_master(on)
    }

    fn reset(&self) -> io::Result<bool> {
        self.control.reset()
    }

    fn presence(&self) -> Presence {
        if self.registers.gone() || !self.place.is_there() || !self.config.answers() {
            self.registers.give_up();
            Presence::Gone
        } else if self.control.leaving() {
            Presence::Leaving
        } else {
            Presence::Present
        }
    }
}
