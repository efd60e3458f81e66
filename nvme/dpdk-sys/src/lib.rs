//! Bindings to what the NVMe driver needs of DPDK's environment abstraction layer (EAL): its start, memory zones,
//! device addresses, and VFIO.
//!
//! Made by bindgen from the headers of the system's `libdpdk` when built with the feature `bindings`, and linked to
//! its `librte_eal`; empty without it, so that the workspace builds where there is no DPDK. Owns nothing. The only
//! caller is `sledge-nvme`, with its feature `dpdk`.

#![no_std]
#![cfg_attr(
    feature = "bindings",
    allow(unsafe_code, missing_docs, non_camel_case_types, non_upper_case_globals)
)]

#[cfg(feature = "bindings")]
#[allow(
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    unnecessary_transmutes,
    non_snake_case
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

#[cfg(feature = "bindings")]
pub use bindings::*;
