//! Pool memory from elsewhere: an environment that brings memory of its own, which devices reach already.
//!
//! Owns the process's one source. Invariant: it is set once, before the reactors start, so all pools of a process come
//! from one place. Called by `region` for each pool of a reactor; the simulator's pools never come from it.

use std::any::Any;
use std::io;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::region::{Backing, REGION_ALIGNMENT};

/// Gives memory for a pool: at least as many bytes as asked for, a multiple of 2 MiB.
pub type PoolSource = dyn Fn(usize) -> io::Result<PoolMemory> + Send + Sync;

static SOURCE: OnceLock<Box<PoolSource>> = OnceLock::new();

/// Has the pools of all reactors that start from now on get their memory from `source`.
///
/// # Errors
/// Gives the source back when the process has one.
pub fn set_pool_source(source: Box<PoolSource>) -> Result<(), Box<PoolSource>> {
    SOURCE.set(source)
}

/// `bytes` bytes from the process's source; `None` when it has none.
///
/// # Errors
/// The source's.
pub(super) fn take(bytes: usize) -> io::Result<Option<PoolMemory>> {
    let Some(source) = SOURCE.get() else { return Ok(None) };
    let memory = source(bytes)?;
    if memory.bytes < bytes {
        return Err(io::Error::other(format!("{} bytes of pool memory for {bytes}", memory.bytes)));
    }
    Ok(Some(memory))
}

/// Memory for a pool. Dropping it gives it back.
#[derive(Debug)]
pub struct PoolMemory {
    start: NonNull<u8>,
    bytes: usize,
    backing: Backing,
    _keep: Box<dyn Keep>,
}

/// Whatever keeps memory there.
trait Keep: Any + Send + Sync {}
impl<T: Any + Send + Sync> Keep for T {}

impl std::fmt::Debug for dyn Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

// SAFETY: it is memory with one owner, which gives out only its address; what keeps it there is Send and Sync.
unsafe impl Send for PoolMemory {}
// SAFETY: as for Send.
unsafe impl Sync for PoolMemory {}

impl PoolMemory {
    /// Wraps memory that is there until `keep` is dropped.
    ///
    /// # Safety
    /// `start` is valid for reads and writes of `bytes` bytes, which are initialised and nobody else's, until `keep` is
    /// dropped.
    ///
    /// # Panics
    /// When `start` is no multiple of 2 MiB.
    pub unsafe fn new(
        start: NonNull<u8>,
        bytes: usize,
        backing: Backing,
        keep: impl Any + Send + Sync,
    ) -> PoolMemory {
        assert!(start.as_ptr().addr().is_multiple_of(REGION_ALIGNMENT), "pool memory begins at 2 MiB");
        PoolMemory { start, bytes, backing, _keep: Box::new(keep) }
    }

    /// First byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// What backs it.
    pub(super) fn backing(&self) -> Backing {
        self.backing
    }
}
