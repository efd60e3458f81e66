//! The EAL on ordinary memory, without devices: what any machine can run.

#![allow(unsafe_code)]

use std::mem;
use std::ptr::NonNull;

use super::arguments::{choose, without_huge_pages};
use super::eal::{Eal, IovaMode, start};
use super::memory::{Block, Pages};

/// All tests of a process share its one EAL, so each may be the one that starts it.
fn eal() -> &'static Eal {
    let before = own_cpus();
    let eal = start(Some(
        "--no-huge --no-shconf --no-pci --no-telemetry -m 64 --lcores 0@0 --log-level=lib.eal:warning",
    ))
    .unwrap();
    assert_eq!(own_cpus(), before, "the thread that starts the EAL stays where it was");
    eal
}

fn own_cpus() -> Vec<usize> {
    // SAFETY: a set of CPUs may be all zeroes, is written whole, and is asked for CPUs that it has room for.
    unsafe {
        let mut cpus: libc::cpu_set_t = mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw mut cpus), 0);
        (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &cpus)).collect()
    }
}

// Without it the EAL could pin the thread that opens the first device to one core for good.
#[test]
fn the_thread_that_starts_it_stays_where_it_was() {
    let before = own_cpus();
    let eal = eal();
    assert_eq!(own_cpus(), before);
    assert_eq!(eal.iova_mode(), IovaMode::Virtual);
    assert!(!eal.has_huge_pages());
    // Asked again, it is the same one, whatever the arguments.
    assert!(std::ptr::eq(eal, start(Some("--no-such-argument")).unwrap()));
}

// Without it a queue could lie in two pieces for the device, or begin in the middle of a page.
#[test]
fn blocks_are_zeroed_aligned_and_in_one_piece() {
    for bytes in [1, 4096, 5000, 64 << 10, 3 << 20] {
        let (block, address) = Block::contiguous(eal(), bytes).unwrap();
        assert!(block.start().as_ptr().addr().is_multiple_of(4096));
        assert!(block.bytes() >= bytes);
        assert_eq!(address, block.start().as_ptr().addr() as u64);
        // SAFETY: the block is there, this long, and nobody else's.
        let memory = unsafe { std::slice::from_raw_parts_mut(block.start().as_ptr(), block.bytes()) };
        assert!(memory.iter().all(|byte| *byte == 0));
        // The next block may have this memory.
        memory.fill(0xff);
    }
}

// Without it memory that the EAL does not know would be taken for mapped, and the device would be told nonsense.
#[test]
fn only_its_own_memory_has_addresses() {
    let block = Block::new(eal(), 1 << 20, 4096).unwrap();
    assert_eq!(
        Pages::of(block.start(), block.bytes()),
        Some(Pages::Contiguous(block.start().as_ptr().addr() as u64))
    );
    let own = vec![0u8; 8192];
    assert_eq!(Pages::of(NonNull::from(&own[0]), own.len()), None);
}

// Without it a process could run out of the EAL's memory by asking for it and giving it back; or the EAL could have it
// back, and leave devices writing to pages that are gone.
#[test]
fn dropped_memory_waits_for_the_next_to_ask() {
    let eal = eal();
    let block = Block::new(eal, 16 << 20, 4096).unwrap();
    let start = block.start();
    // SAFETY: the block is there, and nobody else's.
    unsafe { start.write_bytes(0x5a, 16 << 20) };
    std::thread::scope(|scope| scope.spawn(move || drop(block)).join().unwrap());
    // No other test asks for as much.
    let block = Block::new(eal, (16 << 20) - 1, 4096).unwrap();
    assert_eq!(block.start(), start);
    // SAFETY: as above.
    let memory = unsafe { std::slice::from_raw_parts(start.as_ptr(), block.bytes()) };
    assert!(memory.iter().all(|byte| *byte == 0));
    for bytes in [1 << 30, usize::MAX] {
        let error = Block::new(eal, bytes, 4096).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM), "{error}");
    }
}

// Without it a device that is given physical addresses could be told one page's address for the next one's bytes.
#[test]
fn pages_apart_are_told_apart() {
    // Two pages of 8 KiB side by side in this process, and apart for devices.
    let device = |address: usize| match address {
        0x4000..0x6000 => Some(0x10_0000 + address as u64),
        0x6000..0x8000 => Some(0x70_0000 + address as u64),
        _ => None,
    };
    let addresses = Box::new([0x10_4000, 0x10_5000, 0x70_6000]);
    assert_eq!(Pages::found(0x4000, 0x2800, device), Some(Pages::Paged { shift: 12, addresses }));
    assert_eq!(Pages::found(0x5000, 0x1000, device), Some(Pages::Contiguous(0x10_5000)));
    // Pieces are counted from the first byte, so these would lie in two pages each.
    assert_eq!(Pages::found(0x4800, 0x2800, device), None);
    assert_eq!(Pages::found(0x7000, 0x2000, device), None);
}

// Without it the defaults could come back beside what a site asks for, and the EAL would refuse both.
#[test]
fn arguments_are_the_sites_or_ours() {
    let ours = choose(None, None, 3);
    assert!(ours.contains(&"--in-memory".to_owned()) && ours.contains(&"--lcores=0@3".to_owned()));
    assert_eq!(choose(None, Some("  "), 3), ours);
    let site = choose(None, Some(" --file-prefix=site  -m 64\n"), 3);
    assert_eq!(site, ["--file-prefix=site", "-m", "64"]);
    assert_eq!(choose(Some("--no-huge"), Some("-m 64"), 0), ["--no-huge"]);
    assert!(without_huge_pages(&choose(Some("--no-huge"), None, 0)) && !without_huge_pages(&ours));
}
