//! Huge pages that the kernel has set aside: what the reactors' memory and the driver's queues lie in at best.

use std::path::PathBuf;

use super::system::{FileError, System, names, number};

/// Bytes of the huge pages that are used: the smallest of x86-64 and aarch64.
pub const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// Huge pages of 2 MiB, of the machine or of one NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugePages {
    /// How many there are.
    pub total: u64,
    /// How many of them nobody has.
    pub free: u64,
}

/// Why huge pages can't be had.
#[derive(Debug, thiserror::Error)]
pub enum HugePagesError {
    /// This kernel has none of this size.
    #[error("this kernel has no huge pages of 2 MiB{}", at(*.node))]
    None {
        /// The NUMA node that was asked about.
        node: Option<u32>,
    },
    /// Fewer than were asked for.
    #[error(
        "the kernel has no more than {got} huge pages of 2 MiB, not {wanted}: its memory is full or in pieces; free \
         memory, `echo 1 > /proc/sys/vm/compact_memory` and try again, or boot with hugepages={wanted}"
    )]
    TooFew {
        /// How many were asked for.
        wanted: u64,
        /// How many could be had.
        got: u64,
    },
    /// A file of the kernel's.
    #[error(transparent)]
    File(#[from] FileError),
}

fn at(node: Option<u32>) -> String {
    node.map_or(String::new(), |node| format!(" at NUMA node {node}"))
}

fn folder(system: &System, node: Option<u32>) -> PathBuf {
    match node {
        None => system.path("/sys/kernel/mm/hugepages/hugepages-2048kB"),
        Some(node) => system.path(&format!("/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB")),
    }
}

/// The huge pages of the machine, or of a NUMA node; `None` when the kernel has none of this size.
#[must_use]
pub fn status(system: &System, node: Option<u32>) -> Option<HugePages> {
    let folder = folder(system, node);
    let count = |name: &str| number(&folder.join(name)).map(i64::unsigned_abs);
    Some(HugePages { total: count("nr_hugepages")?, free: count("free_hugepages")? })
}

/// The machine's NUMA nodes.
#[must_use]
pub fn nodes(system: &System) -> Vec<u32> {
    let all = names(&system.path("/sys/devices/system/node"));
    let mut nodes: Vec<u32> = all.iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect();
    nodes.sort_unstable();
    nodes
}

/// Has the kernel set aside `wanted` huge pages in all, until the next boot.
///
/// # Errors
/// When there can't be as many; then there are as many as before.
pub fn reserve(system: &System, node: Option<u32>, wanted: u64) -> Result<HugePages, HugePagesError> {
    let before = status(system, node).ok_or(HugePagesError::None { node })?;
    let file = folder(system, node).join("nr_hugepages");
    if before.total != wanted {
        system.write(&file, &wanted.to_string())?;
    }
    let after = status(system, node).ok_or(HugePagesError::None { node })?;
    if after.total < wanted {
        system.write(&file, &before.total.to_string())?;
        return Err(HugePagesError::TooFew { wanted, got: after.total });
    }
    Ok(after)
}
