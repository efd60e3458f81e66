//! A process whose reactors live on DPDK's memory: the EAL on ordinary memory, without devices.

#![cfg(feature = "dpdk")]
#![allow(clippy::unwrap_used)]

use sledge_nvme::dpdk;
use sledge_reactor::memory::{Backing, Pool, PoolOptions};

fn eal() -> &'static dpdk::Eal {
    dpdk::start(Some("--no-huge --no-shconf --no-pci --no-telemetry -m 64 --log-level=lib.eal:warning"))
        .unwrap()
}

// Without it reactors would take memory of their own, and a site's huge pages be needed twice.
#[test]
fn pools_lie_in_its_memory() {
    dpdk::provide_pools(eal()).unwrap();
    let pool = Pool::new(&PoolOptions { total_bytes: 4 << 20 }).unwrap();
    let mut buffer = pool.allocate(8192).unwrap();
    assert!(buffer.iter().all(|byte| *byte == 0));
    buffer.fill(7);
    assert_eq!(pool.statistics().backing, Backing::OrdinaryPages);
    // It may be asked for more than once.
    dpdk::provide_pools(eal()).unwrap();
    // More than there is: an error, and nothing else.
    assert!(Pool::new(&PoolOptions { total_bytes: 1 << 30 }).is_err());
}
