//! What the EAL is started with.
//!
//! Owns the defaults and the variable [`VARIABLE`]. Invariant: with the defaults, the EAL starts no threads for work, opens
//! no sockets, leaves no files and touches no device. Called by `eal`.

use std::fs;

/// The environment variable with arguments for the EAL, separated by spaces, in place of the defaults.
pub const VARIABLE: &str = "SLEDGE_DPDK_ARGS";

/// Where the kernel tells of its huge pages, a folder a size.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";

/// The arguments: `given`, else those of the variable, else the defaults with `cpu` for the EAL's main thread.
pub(super) fn choose(given: Option<&str>, variable: Option<&str>, cpu: usize) -> Vec<String> {
    if let Some(text) = given.or(variable).filter(|text| !text.trim().is_empty()) {
        return text.split_whitespace().map(str::to_owned).collect();
    }
    vec![
        // Memory that no other process sees, and that is gone with this one: no files in hugetlbfs, none in /run.
        "--in-memory".to_owned(),
        // One main thread, which has ended when the EAL is up, and no threads for work.
        format!("--lcores=0@{cpu}"),
        "--no-pci".to_owned(),
        "--no-telemetry".to_owned(),
        "--log-level=lib.eal:error".to_owned(),
    ]
}

/// Whether the EAL is told to do without huge pages.
pub(super) fn without_huge_pages(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument == "--no-huge")
}

/// Huge pages that are free, of all sizes; `None` when the kernel doesn't tell.
pub(super) fn free_huge_pages() -> Option<u64> {
    let mut free = 0;
    for folder in fs::read_dir(HUGE_PAGES).ok()? {
        let text = fs::read_to_string(folder.ok()?.path().join("free_hugepages")).ok()?;
        free += text.trim().parse::<u64>().ok()?;
    }
    Some(free)
}
