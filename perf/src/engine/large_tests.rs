//! I/Os that are too large to go at once, on a simulated disk.

use super::tests::{job, on_disk, planned_on};
use crate::job::{Mode, SizeSplit};
use sledge_reactor::sim::DiskFault;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const DISK_BYTES: u64 = 32 * MIB;

// Without it an I/O that goes in parts could count as several, end with the first of them, or lose data of its own.
#[test]
fn parts_count_as_one_io() {
    let mut job = job(Mode::Rw);
    (job.read_sizes, job.write_sizes) = (SizeSplit::one(4 << 20), SizeSplit::one((2 << 20) + 4096));
    (job.verify, job.depth, job.io_count, job.time) = (true, 3, Some(40), Duration::from_secs(60));
    let results = on_disk(DISK_BYTES, job, |disk| {
        disk.set_latency(Duration::from_millis(1)..=Duration::from_millis(9))
    });
    assert_eq!((results.errors, results.first_error), (0, None));
    let (reads, writes) = (&results.reads, &results.writes);
    assert_eq!(reads.latencies.count() + writes.latencies.count(), 40);
    assert_eq!(reads.bytes, reads.latencies.count() * (4 << 20));
    assert_eq!(writes.bytes, writes.latencies.count() * ((2 << 20) + 4096));
    assert!(results.verified > 0);
    // The slowest of four parts, of which each takes 5 ms on average.
    assert!(reads.latencies.quantile(0.5) > 6_500_000, "{}", reads.latencies.quantile(0.5));
}

// Without it the end of a large I/O of which a part failed could be success, or never come.
#[test]
fn a_part_that_fails_fails_its_io() {
    let mut job = job(Mode::Read);
    (job.read_sizes, job.depth) = (SizeSplit::one(8 << 20), 1);
    let results =
        on_disk(DISK_BYTES, job, |disk| disk.fail_range(13 * MIB..13 * MIB + 512, DiskFault::Media));
    let first = results.first_error.unwrap();
    assert!(first.starts_with("read of 16384 blocks from block 16384 failed: "), "{first}");
    assert_eq!(results.errors, 1);
}

// Without it large and small I/Os of one job could take each other's memory, or those without data have parts of some.
#[test]
fn sizes_mix_with_kinds() {
    let mut job = job(Mode::Randrw);
    job.read_sizes = SizeSplit(vec![(512, 50), (3 << 20, 50)]);
    job.write_sizes = SizeSplit(vec![(4096, 70), (5 << 20, 30)]);
    (job.trim_percent, job.zeroes_percent, job.flush_every) = (20, 20, Some(7));
    (job.verify, job.depth, job.io_count, job.time) = (true, 2, Some(100), Duration::from_secs(60));
    let results = on_disk(DISK_BYTES, job, |_| ());
    assert_eq!((results.errors, results.first_error), (0, None));
    let counts =
        [&results.reads, &results.writes, &results.trims, &results.zeroes].map(|of| of.latencies.count());
    assert_eq!(counts.iter().sum::<u64>(), 100);
    assert!(counts.iter().all(|count| *count > 1), "{counts:?}");
    assert_eq!(results.flushes.latencies.count(), counts[1] / 7);
}

// Without it small I/Os could go by the way of large ones, or a depth be limited by what parts take.
#[test]
fn only_large_ios_go_in_parts() {
    let parts = |bytes: u32| {
        let mut job = job(Mode::Randread);
        (job.read_sizes, job.depth) = (SizeSplit::one(bytes), 2);
        planned_on(DISK_BYTES, job).unwrap().parts.map(|parts| (parts.blocks, parts.most))
    };
    assert_eq!([parts(512), parts(1 << 20)], [None, None]);
    assert_eq!([parts((1 << 20) + 512), parts(16 << 20)], [Some((2048, 2)), Some((2048, 16))]);
}
