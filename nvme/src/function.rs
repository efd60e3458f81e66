//! One PCI function that holds an NVMe controller, as the driver sees it: registers, and memory that the device
//! reaches.
//!
//! Owns the trait [`Function`], which each environment implements once (VFIO, `uio_pci_generic`, DPDK, and the model
//! controller of the tests), and what it hands out: [`DmaMemory`] and [`Registration`]. Invariant: a device address
//! that was handed out stays valid for the device until its `DmaMemory` or `Registration` is dropped; whoever holds
//! one drops it only when the device can no longer use it. Called by `driver` only.

#![allow(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Registers and DMA of one PCI function. Register access is uncached, in program order, little-endian and aligned.
pub trait Function: Send + Sync {
    /// What to call it in logs and errors: the PCI address, such as `0000:00:04.0`.
    fn address(&self) -> &str;

    /// The environment, as users name it: `vfio`, `uio_pci_generic`, `vfio-noiommu`, `dpdk`, `model`.
    fn environment(&self) -> &'static str;

    /// Bytes of registers (BAR 0) that can be reached.
    fn register_bytes(&self) -> usize;

    /// Reads a register; all ones when the device is gone.
    fn read_u32(&self, offset: usize) -> u32;

    /// Writes a register; without effect when the device is gone. Writes to memory before it are visible to the
    /// device when the register is.
    fn write_u32(&self, offset: usize, value: u32);

    /// Reads an 8-byte register, in two halves where the platform needs that; all ones when the device is gone.
    fn read_u64(&self, offset: usize) -> u64;

    /// Writes an 8-byte register, in two halves (low first) where the platform needs that.
    fn write_u64(&self, offset: usize, value: u64);

    /// Zeroed memory of at least `bytes` bytes that the device can read and write: queues, PRP lists, data of admin
    /// commands. Aligned to 4096 bytes. Blocks; not for the data path.
    ///
    /// # Errors
    /// When there is no memory, or it can't be mapped.
    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError>;

    /// Lets the device reach memory that exists already, such as a reactor's pool. The same range may be registered
    /// more than once: the mapping lasts until the last registration is dropped. Blocks.
    ///
    /// # Safety
    /// The memory stays mapped in this process until the registration is dropped.
    ///
    /// # Errors
    /// When it can't be mapped.
    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Arc<Registration>, DmaError>;

    /// Lets the device start DMA, or stops it at the PCI command register.
    ///
    /// # Errors
    /// The kernel's.
    fn set_bus_master(&self, on: bool) -> io::Result<()>;

    /// Resets the function (function-level reset), the last resort. False: there is no such reset here.
    ///
    /// # Errors
    /// The kernel's, when the reset failed.
    fn reset(&self) -> io::Result<bool>;

    /// How the device is doing, as the bus tells. Cheap enough to ask some times a second.
    fn presence(&self) -> Presence;
}

/// Whether a device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Present,
    /// The system asks for it back (orderly removal): it still answers, and is to be let go of soon.
    Leaving,
    /// It is gone.
    Gone,
}

/// Why memory could not be had for DMA.
#[derive(Debug, thiserror::Error)]
pub enum DmaError {
    /// There is no memory.
    #[error("can't get {bytes} bytes of memory for DMA: {source}; reserve huge pages, or raise `ulimit -l`")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// Why.
        source: io::Error,
    },
    /// The mapping was refused.
    #[error(
        "can't map {bytes} bytes at {address:#x} for DMA: {source}; raise `ulimit -l`, or give the target less memory"
    )]
    Map {
        /// First byte in this process.
        address: usize,
        /// Bytes.
        bytes: usize,
        /// Why.
        source: io::Error,
    },
    /// The environment can't reach memory of this kind.
    #[error("memory at {address:#x} can't be used for DMA: {reason}")]
    Unsuitable {
        /// First byte in this process.
        address: usize,
        /// Why, and what would be right.
        reason: String,
    },
}

/// A range of memory that the device reaches, and the device's addresses of it. Dropping it ends that.
pub struct Registration {
    start: usize,
    bytes: usize,
    /// Device addresses are contiguous within `1 << page_shift` bytes, counted from `start`.
    page_shift: u32,
    pages: Box<[u64]>,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Registration {
    /// A range that is contiguous for the device, too. Dropping `keep` unmaps it.
    #[must_use]
    pub fn contiguous(
        start: usize,
        bytes: usize,
        device_address: u64,
        keep: Box<dyn Any + Send + Sync>,
    ) -> Self {
        Self { start, bytes, page_shift: usize::BITS - 1, pages: Box::new([device_address]), _keep: keep }
    }

    /// A range whose pages of `1 << page_shift` bytes, counted from `start`, lie at `pages` for the device.
    ///
    /// # Panics
    /// When there are not exactly as many pages as the range needs.
    #[must_use]
    pub fn paged(
        start: usize,
        bytes: usize,
        page_shift: u32,
        pages: Box<[u64]>,
        keep: Box<dyn Any + Send + Sync>,
    ) -> Self {
        assert_eq!(pages.len(), bytes.div_ceil(1 << page_shift), "a device address for each page");
        Self { start, bytes, page_shift, pages, _keep: keep }
    }

    /// First byte in this process.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device's address of a byte, and how many bytes from there on are contiguous for the device; `None` for a
    /// byte outside.
    #[inline]
    #[must_use]
    pub fn device_address(&self, address: usize) -> Option<(u64, usize)> {
        let offset = address.checked_sub(self.start)?;
        if offset >= self.bytes {
            return None;
        }
        let within = offset & ((1 << self.page_shift) - 1);
        let page = self.pages.get(offset >> self.page_shift)?;
        let contiguous = ((1 << self.page_shift) - within).min(self.bytes - offset);
        Some((page + within as u64, contiguous))
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registration({:#x}, {} bytes, {} pages)", self.start, self.bytes, self.pages.len())
    }
}

/// Memory that is there for the device: zeroed when made, aligned to 4096 bytes, contiguous for the device.
///
/// The device may change it at any time, so it is read and written by volatile access only; there is no slice.
pub struct DmaMemory {
    start: NonNull<u8>,
    bytes: usize,
    device_address: u64,
    _keep: Box<dyn Any + Send + Sync>,
}

// SAFETY: it is memory with one owner; nothing in it is bound to a thread, and `keep` is Send and Sync.
unsafe impl Send for DmaMemory {}
// SAFETY: through a shared reference it can only be read, volatile; the device is the other writer, and whoever shares it
// between threads reads what is there, torn at most between words.
unsafe impl Sync for DmaMemory {}

impl DmaMemory {
    /// Wraps memory.
    ///
    /// # Safety
    /// `start` is aligned to 4096 bytes, valid for reads and writes of `bytes` bytes, which are initialised and nobody
    /// else's in this process, until `keep` is dropped; the device reaches them at `device_address` as long.
    #[must_use]
    pub unsafe fn new(
        start: NonNull<u8>,
        bytes: usize,
        device_address: u64,
        keep: Box<dyn Any + Send + Sync>,
    ) -> Self {
        assert!(start.as_ptr().addr().is_multiple_of(4096), "memory for DMA begins at a page");
        Self { start, bytes, device_address, _keep: keep }
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device's address of a byte.
    ///
    /// # Panics
    /// When the byte is outside.
    #[must_use]
    pub fn device_address(&self, offset: usize) -> u64 {
        assert!(offset <= self.bytes, "an address inside of the memory");
        self.device_address + offset as u64
    }

    /// Reads a value that any bit pattern makes valid.
    ///
    /// # Panics
    /// When it lies outside, or is not aligned.
    #[inline]
    #[must_use]
    pub fn read<T: zerocopy::FromBytes + Copy>(&self, offset: usize) -> T {
        let place = self.place::<T>(offset);
        // SAFETY: `place` checked that the value lies inside and is aligned; any bit pattern is a `T`; volatile because
        // the device writes, too.
        unsafe { place.as_ptr().read_volatile() }
    }

    /// Writes a value.
    ///
    /// # Panics
    /// When it lies outside, or is not aligned.
    #[inline]
    pub fn write<T: zerocopy::IntoBytes + Copy>(&mut self, offset: usize, value: T) {
        let place = self.place::<T>(offset);
        // SAFETY: as in `read`; `&mut self` makes us the only writer besides the device.
        unsafe { place.as_ptr().write_volatile(value) }
    }

    /// A word that several threads of ours and the device may read and write at once: shadow doorbells.
    ///
    /// # Panics
    /// When it lies outside, or is not aligned.
    #[inline]
    #[must_use]
    pub fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        let place = self.place::<AtomicU32>(offset);
        // SAFETY: `place` checked that the word lies inside and is aligned; it stays mapped while `self` is borrowed, and
        // an `AtomicU32` may be changed by others at any time.
        unsafe { place.as_ref() }
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// When they lie outside.
    pub fn copy_to(&self, offset: usize, bytes: &mut [u8]) {
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = self.read::<u8>(offset + index);
        }
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// When they lie outside.
    pub fn copy_from(&mut self, offset: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.write::<u8>(offset + index, *byte);
        }
    }

    /// Makes all bytes zero.
    pub fn clear(&mut self) {
        for offset in 0..self.bytes {
            self.write::<u8>(offset, 0);
        }
    }

    #[inline]
    fn place<T>(&self, offset: usize) -> NonNull<T> {
        let end = offset.checked_add(size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.bytes), "access inside of the memory");
        assert!(offset.is_multiple_of(align_of::<T>()), "aligned access");
        // SAFETY: the assertions keep `offset` inside the memory that `new` was promised.
        unsafe { self.start.add(offset).cast() }
    }
}

impl fmt::Debug for DmaMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DmaMemory({} bytes at {:#x} for the device)", self.bytes, self.device_address)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets a device be told an address in another page than the byte lies in.
    #[test]
    fn addresses_follow_the_pages() {
        let paged =
            Registration::paged(0x10_0000, 0x2800, 12, Box::new([0x7000, 0x3000, 0x9000]), Box::new(()));
        assert_eq!(paged.device_address(0x10_0000), Some((0x7000, 0x1000)));
        assert_eq!(paged.device_address(0x10_1ff0), Some((0x3ff0, 0x10)));
        assert_eq!(paged.device_address(0x10_2000), Some((0x9000, 0x800)));
        assert_eq!((paged.device_address(0x10_2800), paged.device_address(0xf_ffff)), (None, None));
        let whole = Registration::contiguous(0x10_0000, 0x2800, 0x7000, Box::new(()));
        assert_eq!(whole.device_address(0x10_1000), Some((0x8000, 0x1800)));
    }
}
