//! A device's registers, mapped into this process.
//!
//! Invariant: every access is volatile, aligned, inside the mapping and of the size that was asked for; once the
//! registers have vanished, reads give all ones and writes have no effect (see `bus_error`).

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use super::bus_error::Watched;

/// Mapped registers. Dropping it unmaps them.
pub(super) struct Window {
    start: NonNull<u8>,
    bytes: usize,
    mapped_bytes: usize,
    watched: Watched,
}

// SAFETY: registers belong to no thread; access is volatile, of whole words, and the device orders what it gets.
unsafe impl Send for Window {}
// SAFETY: as for Send: two threads that write a register at once do what they would with any device.
unsafe impl Sync for Window {}

impl Window {
    /// Maps `bytes` bytes of registers at `offset` of a device's file.
    ///
    /// # Safety
    /// The file is a device's registers, or nobody's memory: what is written there changes nothing that Rust code of
    /// this process refers to.
    pub(super) unsafe fn map(file: BorrowedFd<'_>, offset: u64, bytes: usize) -> io::Result<Window> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let mapped_bytes = bytes.checked_next_multiple_of(4096).filter(|bytes| *bytes > 0);
        let mapped_bytes = mapped_bytes.ok_or_else(|| io::Error::other("no registers to map"))?;
        // SAFETY: a new mapping at an address of the kernel's choice; the caller vouches for the file.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start =
            NonNull::new(address.cast::<u8>()).ok_or_else(|| io::Error::other("mmap gave the null page"))?;
        match Watched::new(start.as_ptr().addr(), mapped_bytes) {
            Ok(watched) => Ok(Window { start, bytes, mapped_bytes, watched }),
            Err(error) => {
                // SAFETY: mapped above, and nothing refers to it.
                unsafe { libc::munmap(start.as_ptr().cast(), mapped_bytes) };
                Err(error)
            }
        }
    }

    /// Bytes of registers.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the registers have vanished.
    pub(super) fn gone(&self) -> bool {
        self.watched.gone()
    }

    /// The device is gone, though its registers may still answer: from now on they don't, and no write goes there.
    pub(super) fn give_up(&self) {
        if !self.gone() {
            self.watched.give_up();
        }
    }

    /// Reads a register.
    #[inline]
    pub(super) fn read(&self, offset: usize) -> u32 {
        let place = self.place(offset);
        // SAFETY: `place` is inside the mapping and aligned; what any device gives is a `u32`.
        let value = unsafe { place.as_ptr().read_volatile() };
        if self.watched.gone() { u32::MAX } else { u32::from_le(value) }
    }

    /// Writes a register. What was written to memory before it is there for the device when it sees the register.
    #[inline]
    pub(super) fn write(&self, offset: usize, value: u32) {
        let place = self.place(offset);
        order_writes();
        // SAFETY: `place` is inside the mapping and aligned; `map`'s caller vouched for what lies there.
        unsafe { place.as_ptr().write_volatile(value.to_le()) }
    }

    #[inline]
    fn place(&self, offset: usize) -> NonNull<u32> {
        assert!(
            offset.is_multiple_of(4) && offset < self.bytes && self.bytes - offset >= 4,
            "a register inside"
        );
        // SAFETY: the assertion keeps the offset inside the mapping.
        unsafe { self.start.add(offset).cast() }
    }
}

/// Memory before registers: x86-64 keeps that order for uncached registers by itself, and the compiler is told to.
#[inline]
fn order_writes() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier for the outer domain, in which devices are; it changes no register and no memory.
    unsafe {
        std::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.watched.end();
        // SAFETY: mapped by `map` with this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.mapped_bytes) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;

    // Deleting this lets a drive that is pulled out kill the target, with all that its other drives serve.
    #[test]
    fn registers_that_vanish_read_as_all_ones() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 << 10).unwrap();
        // SAFETY: a file that nobody else has.
        let map = || unsafe { Window::map(file.as_fd(), 4096, 8192) }.unwrap();
        let (window, other) = (map(), map());
        window.write(0x1008, 77);
        assert_eq!((window.read(0x1008), other.read(0x1008), window.gone()), (77, 77, false));
        // As a device does: what was mapped is no longer there, and an access to it is SIGBUS.
        file.set_len(0).unwrap();
        window.write(0x1000, 5);
        assert_eq!((window.read(0x1000), window.read(0), window.gone()), (u32::MAX, u32::MAX, true));
        // Another device's registers are another matter, until they are used.
        assert!(!other.gone());
        assert_eq!((other.read(0), other.gone()), (u32::MAX, true));
        drop((window, other));
        file.set_len(16 << 10).unwrap();
        assert_eq!(map().read(0), 0);

        // Neither does a write reach what is there after a device whose removal the bus told.
        let (window, other) = (map(), map());
        window.give_up();
        window.write(0, 9);
        assert_eq!((window.read(0), window.gone(), other.read(0), other.gone()), (u32::MAX, true, 0, false));
    }

    // Deleting this lets a register access go past the mapping, into whatever memory follows.
    #[test]
    fn registers_outside_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        // SAFETY: a file that nobody else has.
        let window = unsafe { Window::map(file.as_fd(), 0, 0x40) }.unwrap();
        window.write(0x3c, 1);
        for offset in [0x40, 0x3e, usize::MAX - 3] {
            let access = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| window.read(offset)));
            assert!(access.is_err(), "{offset:#x}");
        }
    }

    // Deleting this lets the handler swallow errors of memory that is no device's, and turn them into endless loops.
    #[test]
    fn another_bus_error_still_ends_the_process() {
        if std::env::var_os("SLEDGE_TEST_BUS_ERROR").is_some() {
            let file = tempfile::tempfile().unwrap();
            file.set_len(4096).unwrap();
            // SAFETY: a file that nobody else has.
            let _window = unsafe { Window::map(file.as_fd(), 0, 4096) }.unwrap();
            let other = tempfile::tempfile().unwrap();
            // SAFETY: a new mapping of an empty file, of which nothing can be read.
            let lost = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ,
                    libc::MAP_SHARED,
                    other.as_raw_fd(),
                    0,
                )
            };
            // SAFETY: it is mapped; reading it raises the signal that is to end this process.
            let value = unsafe { lost.cast::<u32>().read_volatile() };
            panic!("read {value} where nothing is");
        }
        let name = "pci::window::tests::another_bus_error_still_ends_the_process";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env("SLEDGE_TEST_BUS_ERROR", "1")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(child.signal(), Some(libc::SIGBUS), "{child:?}");
    }
}
