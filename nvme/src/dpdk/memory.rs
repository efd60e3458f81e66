//! Memory of the EAL, and where devices find it.
//!
//! Owns blocks of it, and those that were dropped. Invariant: what the EAL has given never goes back to it, but to the next
//! who asks for as much. For when the EAL frees memory that it had mapped for devices in a larger piece (as it does
//! with all that is there when a device is opened), DPDK up to 22.11 at least leaves the devices' mapping as it was, and
//! takes it for the mapping of what comes to be there later: devices would go on using the pages that are gone.
//! Called by `device` for what the driver allocates, and by reactors for their pools, once [`provide_pools`] has been
//! called.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_uint;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use sledge_dpdk_sys as sys;
use sledge_reactor::memory::{self, Backing, PoolMemory};

use super::eal::Eal;
use crate::function::DmaError;

/// Alignment of a pool's memory, which the reactor asks for.
const POOL_ALIGNMENT: usize = 2 << 20;
/// Most that a block is aligned to: a huge page. A block of no more than this lies in one huge page, so it is contiguous
/// for the device, whatever the addresses of devices are.
const LARGEST_ALIGNMENT: usize = 2 << 20;
/// Most that a block's size is rounded up to; larger ones are multiples of it.
const MOST_ROUNDED: usize = 2 << 20;
/// Smallest page that the driver thinks in.
pub(crate) const PAGE: usize = 4096;

/// Whether reactors' pools come from the EAL.
static PROVIDED: Mutex<bool> = Mutex::new(false);

/// Has reactors that start from now on take their pools' memory from the EAL.
///
/// # Errors
/// When the process has other memory for them already.
pub fn provide_pools(eal: &'static Eal) -> io::Result<()> {
    let mut provided = PROVIDED.lock().unwrap_or_else(PoisonError::into_inner);
    if *provided {
        return Ok(());
    }
    let backing = if eal.has_huge_pages() { Backing::HugePages } else { Backing::OrdinaryPages };
    let source = move |bytes| {
        let block = Block::new(eal, bytes, POOL_ALIGNMENT).map_err(|error| {
            io::Error::other(format!("DPDK has no {bytes} bytes for a reactor's pool: {error}"))
        })?;
        // SAFETY: the block is zeroed, aligned, nobody else's, and there until it is dropped.
        Ok(unsafe { PoolMemory::new(block.start(), bytes, backing, block) })
    };
    memory::set_pool_source(Box::new(source))
        .map_err(|_| io::Error::other("reactors have another source of memory already"))?;
    *provided = true;
    Ok(())
}

/// Starts the EAL as [`start`](super::start) does, and has reactors take their pools' memory from it.
///
/// # Errors
/// When either can't be.
pub fn start_with_pools(arguments: Option<&str>) -> io::Result<&'static Eal> {
    let eal = super::start(arguments).map_err(io::Error::other)?;
    provide_pools(eal)?;
    Ok(eal)
}

/// Memory that was dropped, first bytes by alignment and size.
static KEPT: Mutex<BTreeMap<(usize, usize), Vec<Start>>> = Mutex::new(BTreeMap::new());

/// First byte of memory that nobody has.
struct Start(NonNull<u8>);

// SAFETY: it is memory of nobody's, of which only the address is kept.
unsafe impl Send for Start {}

/// Memory of the EAL, zeroed when made. Dropping it keeps it for the next one.
#[derive(Debug)]
pub(crate) struct Block {
    start: NonNull<u8>,
    bytes: usize,
    alignment: usize,
}

// SAFETY: it is memory with one owner; the EAL takes it back from any thread.
unsafe impl Send for Block {}
// SAFETY: it gives out its address only.
unsafe impl Sync for Block {}

impl Block {
    /// At least `bytes` bytes at a multiple of `alignment`, a power of two.
    pub(crate) fn new(_eal: &'static Eal, bytes: usize, alignment: usize) -> io::Result<Block> {
        let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
        // Few sizes, so that what was dropped fits again.
        let bytes = match bytes {
            0..=MOST_ROUNDED => bytes.max(PAGE).next_power_of_two(),
            _ => bytes.checked_next_multiple_of(MOST_ROUNDED).ok_or_else(no_memory)?,
        };
        if let Some(block) = Block::kept(bytes, alignment) {
            // SAFETY: it was a block of this size, and is nobody's but ours now.
            unsafe { block.start.write_bytes(0, block.bytes) };
            return Ok(block);
        }
        let boundary = c_uint::try_from(alignment).map_err(|_| io::Error::other("alignment out of range"))?;
        // SAFETY: the EAL is up, and may be asked by any thread; the type's name is a constant.
        let start = unsafe {
            sys::rte_zmalloc_socket(c"sledge".as_ptr(), bytes, boundary, sys::sledge_socket_id_any())
        };
        // The EAL has no other reason than that there is none left.
        let start = NonNull::new(start.cast()).ok_or_else(no_memory)?;
        Ok(Block { start, bytes, alignment })
    }

    /// The smallest dropped block that fits and is at most half wasted.
    fn kept(bytes: usize, alignment: usize) -> Option<Block> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = (alignment, bytes)..=(alignment, bytes.saturating_mul(2));
        let (&(_, bytes), starts) = kept.range_mut(fitting).find(|(_, starts)| !starts.is_empty())?;
        starts.pop().map(|Start(start)| Block { start, bytes, alignment })
    }

    /// At least `bytes` bytes that are contiguous for devices, and the devices' address of them.
    pub(crate) fn contiguous(eal: &'static Eal, bytes: usize) -> Result<(Block, u64), DmaError> {
        let alignment = bytes.max(PAGE).next_power_of_two().min(LARGEST_ALIGNMENT);
        let block = Block::new(eal, bytes, alignment).map_err(|source| DmaError::Memory { bytes, source })?;
        match Pages::of(block.start, block.bytes) {
            Some(Pages::Contiguous(address)) => Ok((block, address)),
            _ => Err(DmaError::Unsuitable {
                address: block.start.as_ptr().addr(),
                reason: format!(
                    "DPDK has no {bytes} bytes in one piece for a device; give it larger huge pages"
                ),
            }),
        }
    }

    /// First byte.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry((self.alignment, self.bytes)).or_default().push(Start(self.start));
    }
}

/// Devices' addresses of a range of the EAL's memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// One piece, at this address.
    Contiguous(u64),
    /// Pieces of `1 << shift` bytes, counted from the start of the range, each at its address.
    Paged {
        /// How large they are.
        shift: u32,
        /// Where they are.
        addresses: Box<[u64]>,
    },
}

impl Pages {
    /// Where `bytes` bytes from `start` on lie; `None` when they are not all the EAL's.
    pub(crate) fn of(start: NonNull<u8>, bytes: usize) -> Option<Pages> {
        Pages::found(start.as_ptr().addr(), bytes, device_address)
    }

    /// As `of`, where `device_address` tells the address of a byte.
    pub(super) fn found(
        start: usize,
        bytes: usize,
        device_address: impl Fn(usize) -> Option<u64>,
    ) -> Option<Pages> {
        let mut addresses = Vec::new();
        let mut offset = 0;
        let mut contiguous = true;
        while offset < bytes {
            let address = device_address(start + offset)?;
            contiguous &= address == addresses.first().map_or(address, |first| first + offset as u64);
            addresses.push(address);
            offset += PAGE;
        }
        if contiguous {
            return addresses.first().map(|first| Pages::Contiguous(*first));
        }
        // A piece must not lie in two pages.
        start
            .is_multiple_of(PAGE)
            .then(|| Pages::Paged { shift: PAGE.trailing_zeros(), addresses: addresses.into_boxed_slice() })
    }
}

/// The devices' address of a byte of the EAL's memory; `None` for any other memory.
fn device_address(address: usize) -> Option<u64> {
    // SAFETY: finds the page in the EAL's own lists; the address itself is not looked at.
    let page = unsafe { sys::rte_mem_virt2memseg(ptr::without_provenance(address), ptr::null()) };
    // SAFETY: `page`, when there is one, is an entry of the EAL's lists, which stay for good.
    let page = unsafe { page.as_ref() }?;
    // SAFETY: they read fields of that entry.
    let (start, device) = unsafe { (sys::sledge_memseg_start(page), sys::sledge_memseg_iova(page)) };
    let within = (address as u64).checked_sub(start).filter(|within| *within < page.len as u64)?;
    // All ones is the EAL's word for memory that devices can't reach.
    (device != u64::MAX).then(|| device + within)
}
