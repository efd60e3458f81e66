//! What needs no turn of a reactor: digests and the buffer pool.

use super::reactor::on_reactor;
use super::{Case, Failure};
use crate::measure::sections;
use sledge_nvmf::digest::{RunningDigest, digest};
use sledge_reactor::memory::{Buffer, allocate};
use std::hint::black_box;

/// Digests in a section.
const DIGESTS: u64 = 64;
/// Buffers in a section.
const BUFFERS: u64 = 1024;
/// Buffers held at once.
const HELD: u64 = 32;

pub fn cases() -> [Case; 6] {
    let digest = |name, run| Case { name, operations: DIGESTS, run };
    let buffer = |name, run| Case { name, operations: BUFFERS, run };
    [
        digest("crc/512", || crc(512)),
        digest("crc/4k", || crc(4096)),
        digest("crc/128k", || crc(128 * 1024)),
        digest("crc/4k-in-two-runs", crc_in_runs),
        buffer("pool/allocate-and-free-4k", || pool(4096)),
        buffer("pool/allocate-and-free-128k", || pool(128 * 1024)),
    ]
}

fn crc(bytes: usize) -> Result<(), Failure> {
    let data: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
    sections(|| {
        for _ in 0..DIGESTS {
            black_box(digest(black_box(&data)));
        }
    });
    Ok(())
}

fn crc_in_runs() -> Result<(), Failure> {
    let data: Vec<u8> = (0..4096usize).map(|at| at as u8).collect();
    sections(|| {
        for _ in 0..DIGESTS {
            let (front, back) = black_box(&data).split_at(1000);
            let mut running = RunningDigest::new();
            running.update(front);
            running.update(back);
            black_box(running.value());
        }
    });
    Ok(())
}

fn pool(bytes: usize) -> Result<(), Failure> {
    on_reactor(move || async move {
        let mut held: Vec<Buffer> = Vec::with_capacity(HELD as usize);
        let mut dry = false;
        sections(|| {
            for _ in 0..BUFFERS / HELD {
                for _ in 0..HELD {
                    match allocate(black_box(bytes)) {
                        Some(buffer) => held.push(buffer),
                        None => dry = true,
                    }
                }
                held.clear();
            }
        });
        if dry { Err("the pool is dry".into()) } else { Ok(()) }
    })
}
