//! One mapping of memory, from which a pool is carved.
//!
//! Owns the mapping, or keeps the memory that a [`PoolSource`](super::PoolSource) gave; lets go of it when dropped.
//! Only `pool` uses it, and whoever registers a pool's memory with a device keeps it alive through
//! [`PoolRange`](super::PoolRange).

use std::io;
use std::ptr::NonNull;

use super::source::{self, PoolMemory};

/// Alignment of a region's start: one x86-64 huge page, so that transparent huge pages can back it too.
pub(super) const REGION_ALIGNMENT: usize = 2 << 20;

/// What backs a pool's memory, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backing {
    /// Reserved huge pages; never swapped or moved.
    HugePages,
    /// Ordinary pages locked in memory as they are first touched.
    LockedPages,
    /// Ordinary pages, which the kernel may swap.
    OrdinaryPages,
}

impl std::fmt::Display for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Backing::HugePages => "huge pages",
            Backing::LockedPages => "locked pages",
            Backing::OrdinaryPages => "ordinary pages",
        })
    }
}

/// A private anonymous mapping, zeroed by the kernel, or initialised memory from elsewhere.
#[derive(Debug)]
pub(crate) struct Region {
    owner: Owner,
    start: NonNull<u8>,
    len: usize,
    backing: Backing,
}

/// Who keeps a region's memory.
#[derive(Debug)]
enum Owner {
    /// We do.
    Mapping { start: NonNull<u8>, len: usize },
    /// A source of memory does, as long as this is there.
    Source { _memory: PoolMemory },
}

// SAFETY: a region is memory and who owns it; nothing in it is bound to a thread. It gives out its address only: the
// pool, which stays on its thread, makes references to what is there.
unsafe impl Send for Region {}
// SAFETY: as for Send; a shared region can only be asked for its address and length.
unsafe impl Sync for Region {}

impl Region {
    /// `len` bytes for a reactor's pool: from the source that the process has set, else as [`Region::map_best`].
    pub(crate) fn for_reactor(len: usize) -> io::Result<Region> {
        let Some(memory) = source::take(len)? else { return Region::map_best(len) };
        let (start, backing) = (memory.start(), memory.backing());
        Ok(Region { owner: Owner::Source { _memory: memory }, start, len, backing })
    }

    /// Maps `len` bytes (a multiple of 2 MiB is used whole) backed by the best there is: huge pages, else
    /// locked pages, else ordinary ones.
    pub(crate) fn map_best(len: usize) -> io::Result<Region> {
        if len.is_multiple_of(REGION_ALIGNMENT)
            && let Some(region) = Region::map_huge(len)
        {
            return Ok(region);
        }
        let mut region = Region::map_ordinary(len)?;
        // SAFETY: `start..start+len` lies inside the mapping that `region` owns; advice and locking change no
        // contents.
        let locked = unsafe {
            libc::madvise(region.start.as_ptr().cast(), region.len, libc::MADV_HUGEPAGE);
            libc::mlock2(region.start.as_ptr().cast(), region.len, libc::MLOCK_ONFAULT as _) == 0
        };
        if locked {
            region.backing = Backing::LockedPages;
        }
        Ok(region)
    }

    /// Maps `len` bytes, a multiple of 2 MiB, of reserved huge pages; `None` when there are not so many.
    fn map_huge(len: usize) -> Option<Region> {
        // Of 2 MiB by name: the machine's default may be 1 GiB, of which this would be an odd part.
        let start = map(len, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB).ok()?;
        let owner = Owner::Mapping { start, len };
        let region = Region { owner, start, len, backing: Backing::HugePages };
        // Taken now: a control group that allows fewer pages than were set aside says so only when they are touched, and
        // then by a signal. Before Linux 5.14 the kernel does not know this request, and they are touched later.
        // SAFETY: the range is the mapping that was made just now; the request writes zeroes over zeroes.
        let result = unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) };
        let unknown = || io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
        (result == 0 || unknown()).then_some(region)
    }

    /// Maps `len` bytes of ordinary pages.
    pub(crate) fn map_ordinary(len: usize) -> io::Result<Region> {
        let mapping_len = len
            .checked_add(REGION_ALIGNMENT)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "pool size overflows"))?;
        let mapping = map(mapping_len, 0)?;
        let pad = mapping.as_ptr().align_offset(REGION_ALIGNMENT);
        // SAFETY: `pad` is below REGION_ALIGNMENT, so the result lies inside the mapping.
        let start = unsafe { mapping.add(pad) };
        let owner = Owner::Mapping { start: mapping, len: mapping_len };
        Ok(Region { owner, start, len, backing: Backing::OrdinaryPages })
    }

    /// First byte, aligned to 2 MiB.
    pub(crate) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// What backs it.
    pub(crate) fn backing(&self) -> Backing {
        self.backing
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let Owner::Mapping { start, len } = self.owner else { return };
        // SAFETY: the mapping was made by `map` with this length, and no buffer outlives the region: each
        // holds a reference to the pool that owns it.
        unsafe {
            libc::munmap(start.as_ptr().cast(), len);
        }
    }
}

/// A new private anonymous mapping of `len` bytes of zeroes, which is the caller's to unmap. `protection` is `PROT_READ`,
/// with or without `PROT_WRITE`; `flags` are `MAP_` flags besides, such as `MAP_HUGETLB` or `MAP_POPULATE`.
///
/// # Errors
/// The kernel's, when it refuses.
pub fn map_anonymous(len: usize, protection: libc::c_int, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags & !libc::MAP_FIXED;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned the null page"))
}

/// Memory to read and write.
fn map(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    map_anonymous(len, libc::PROT_READ | libc::PROT_WRITE, flags)
}
