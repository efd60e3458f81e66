//! Physical addresses of this process's memory, for devices that no IOMMU translates for.
//!
//! Invariant: only memory in huge pages of hugetlbfs has an address here, as the kernel neither swaps nor moves those
//! while they are mapped; ordinary pages, locked ones too, may be moved by compaction at any time, and then a device
//! would write to memory that is someone else's. Called by `reach` for `uio_pci_generic` and `vfio-noiommu`.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use super::hugepages::HUGE_PAGE_BYTES;

const PAGE: usize = 4096;
/// Bit 63 of an entry: the page is in memory. Bits 0 to 54: its number (kernel documentation, pagemap).
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// Why memory has no physical address that lasts.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAddress {
    #[error(
        "it is not in huge pages, and the kernel may move it; without an IOMMU all memory for DMA must be: reserve \
         more (`sledge setup hugepages 1G`) before the target starts"
    )]
    NotHuge,
    #[error("the kernel hides physical addresses: run the target as root (CAP_SYS_ADMIN)")]
    Hidden,
    #[error("the kernel does not tell its physical address: {0}")]
    Unreadable(#[from] io::Error),
}

/// Bytes of the pages that a range's memory lies in, a power of two: 2 MiB or more.
pub(super) fn huge_page_bytes(start: NonNull<u8>, bytes: usize) -> Result<usize, NoAddress> {
    let maps = BufReader::new(File::open("/proc/self/smaps")?);
    page_bytes_of(maps, start.as_ptr().addr(), bytes)?
        .filter(|page| *page as u64 >= HUGE_PAGE_BYTES)
        .ok_or(NoAddress::NotHuge)
}

/// The smallest page of the mappings that hold a range; `None` when a part of it is in none.
fn page_bytes_of(maps: impl BufRead, start: usize, bytes: usize) -> io::Result<Option<usize>> {
    let (mut next, end) = (start, start + bytes);
    let mut smallest: Option<usize> = None;
    let mut here = None;
    for line in maps.lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-') {
            let number = |text| usize::from_str_radix(text, 16).map_err(io::Error::other);
            here = Some((number(from)?, number(to)?));
        } else if first == "KernelPageSize:"
            && let Some((from, to)) = here
            && let Some(kib) = words.next().and_then(|kib| kib.parse::<usize>().ok())
            && from <= next
            && next < to
        {
            smallest = Some(smallest.map_or(kib << 10, |least| least.min(kib << 10)));
            next = to;
            if next >= end {
                return Ok(smallest);
            }
        }
    }
    Ok(None)
}

/// Physical addresses of each page of `page_bytes` bytes of a range, counted from `start`, which is at a multiple of
/// `page_bytes`. The pages are made to be there first.
pub(super) fn addresses(
    start: NonNull<u8>,
    bytes: usize,
    page_bytes: usize,
) -> Result<Box<[u64]>, NoAddress> {
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut found = Vec::with_capacity(bytes.div_ceil(page_bytes));
    for offset in (0..bytes).step_by(page_bytes) {
        // SAFETY: the caller's range is mapped, and `offset` lies inside of it.
        let place = unsafe { start.add(offset) };
        populate(place, page_bytes.min(bytes - offset));
        let mut entry = [0; 8];
        pagemap.read_exact_at(&mut entry, (place.as_ptr().addr() / PAGE * 8) as u64)?;
        let entry = u64::from_ne_bytes(entry);
        if entry & PRESENT == 0 {
            return Err(io::Error::other("the page is not in memory").into());
        }
        match entry & FRAME {
            0 => return Err(NoAddress::Hidden),
            frame => found.push(frame * PAGE as u64 + (place.as_ptr().addr() % PAGE) as u64),
        }
    }
    Ok(found.into_boxed_slice())
}

/// Keeps the huge pages of a range from children of this process: one that shared them would make our next write go to a
/// copy, which the device does not know of.
pub(super) fn keep_from_children(start: NonNull<u8>, bytes: usize, huge_page: usize) -> io::Result<()> {
    let before = start.as_ptr().addr() % huge_page;
    let whole = (before + bytes).next_multiple_of(huge_page);
    // SAFETY: the advice changes nothing but what children get, of pages that hold a part of the caller's range.
    let done = unsafe { libc::madvise(start.as_ptr().sub(before).cast(), whole, libc::MADV_DONTFORK) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel put a page there as for a write, so that a later write does not replace it.
fn populate(place: NonNull<u8>, bytes: usize) {
    // SAFETY: the advice changes no contents, and memory that is not ours to write makes it fail.
    let done = unsafe { libc::madvise(place.as_ptr().cast(), bytes, libc::MADV_POPULATE_WRITE) } == 0;
    if !done {
        // Linux before 5.14. A private page that is read first is not replaced either when it is a huge page that
        // nobody shares. SAFETY: the range is mapped and readable.
        unsafe { place.as_ptr().read_volatile() };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MAPS: &str = "\
200000-600000 rw-p 00000000 00:0f 1 /anon_hugepage (deleted)
Size:               4096 kB
KernelPageSize:     2048 kB
600000-800000 rw-p 00000000 00:0f 1 /anon_hugepage (deleted)
KernelPageSize:     1048576 kB
7f0000000000-7f0000010000 rw-p 00000000 00:00 0
KernelPageSize:        4 kB
7f0000010000-7f0000020000 rw-p 00000000 00:00 0
KernelPageSize:        2048 kB
";

    // Deleting this lets a device be told physical addresses of memory that the kernel will move.
    #[test]
    fn only_huge_pages_keep_their_address() {
        let bytes_of = |start, bytes| page_bytes_of(MAPS.as_bytes(), start, bytes).unwrap();
        assert_eq!(bytes_of(0x20_0000, 0x40_0000), Some(2 << 20));
        assert_eq!(bytes_of(0x40_0000, 0x40_0000), Some(2 << 20));
        assert_eq!(bytes_of(0x60_0000, 0x1000), Some(1 << 30));
        assert_eq!(bytes_of(0x60_0000, 0x20_0001), None);
        assert_eq!(bytes_of(0x7f00_0000_f000, 0x2000), Some(4096));
        let ordinary = [0u8; 64];
        let refused = huge_page_bytes(NonNull::from(&ordinary[0]), 64).unwrap_err();
        assert!(refused.to_string().contains("sledge setup hugepages"), "{refused}");
    }

    // Deleting this lets the entries of the page map be read at the wrong place, or hidden addresses be taken for 0.
    #[test]
    fn the_page_map_is_read_where_the_memory_is() {
        let memory =
            sledge_reactor::memory::map_anonymous(4 * PAGE, libc::PROT_READ | libc::PROT_WRITE, 0).unwrap();
        match addresses(memory, 4 * PAGE, PAGE) {
            Ok(pages) => {
                let mut different = pages.to_vec();
                different.sort_unstable();
                different.dedup();
                assert_eq!(different.len(), 4);
                assert!(pages.iter().all(|page| *page > 0 && page.is_multiple_of(PAGE as u64)));
            }
            Err(NoAddress::Hidden) => {}
            Err(other) => panic!("{other}"),
        }
        // SAFETY: it was mapped above with this length, and nothing refers to it.
        unsafe { libc::munmap(memory.as_ptr().cast(), 4 * PAGE) };
    }
}
