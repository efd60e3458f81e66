//! A region of zeroes, lent out to whoever reads or writes zeroes, so that nobody fills buffers with them.
//!
//! One for the process: a read-only mapping, all of whose pages are the kernel's page of zeroes.

use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::OnceLock;

use sledge_reactor::memory::{LendOwner, Lent, MAX_SEGMENTS, Segments, map_anonymous};

/// Bytes of the region: the longest single loan.
pub(crate) const ZERO_BYTES: usize = 1 << 20;

struct Region(NonNull<u8>);

// SAFETY: the region is read-only memory that is never unmapped.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

static REGION: OnceLock<Region> = OnceLock::new();

/// Lends zeroes; each channel makes its own.
#[derive(Clone)]
pub(crate) struct Zeroes {
    start: NonNull<u8>,
    owner: Rc<dyn LendOwner>,
}

struct Nobody;

impl LendOwner for Nobody {
    fn give_back(&self, _key: u64, _len: usize) {}
}

impl Zeroes {
    /// A lender of the process's region, which is mapped when first asked for.
    pub(crate) fn open() -> io::Result<Zeroes> {
        let start = match REGION.get() {
            Some(region) => region.0,
            None => {
                let mapped = map_anonymous(ZERO_BYTES, libc::PROT_READ, libc::MAP_POPULATE)?;
                // When two come first at once, one mapping too many stays; it has no memory of its own.
                REGION.get_or_init(|| Region(mapped)).0
            }
        };
        Ok(Zeroes { start, owner: Rc::new(Nobody) })
    }

    /// Lends `len` zeroes, at most [`ZERO_BYTES`].
    pub(crate) fn lend(&self, len: usize) -> Lent {
        let len = len.min(ZERO_BYTES);
        // SAFETY: the region has `ZERO_BYTES` initialised bytes, is read-only and is never unmapped.
        unsafe { Lent::new(self.start, len, self.owner.clone(), 0) }
    }

    /// Lends `len` zeroes in several segments; `None` when they don't fit into one I/O's data.
    pub(crate) fn lend_all(&self, len: usize) -> Option<Segments> {
        if len > MAX_SEGMENTS * ZERO_BYTES {
            return None;
        }
        let mut segments = Segments::from(self.lend(len));
        let mut left = len.saturating_sub(ZERO_BYTES);
        while left > 0 {
            let part = self.lend(left);
            left -= part.len();
            segments.push(part).ok()?;
        }
        Some(segments)
    }

    /// The region.
    pub(crate) fn bytes(&self) -> &'static [u8] {
        // SAFETY: as in `lend`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), ZERO_BYTES) }
    }
}
