//! A reactor's memory on reserved huge pages, when there are none left, and when little may be locked: one test,
//! alone in its process, whose limit and user it changes.
#![allow(clippy::unwrap_used)]

use sledge_reactor::memory::{Backing, pools, statistics};
use sledge_reactor::{
    CoreList, Disk, DiskOperation, DiskOptions, DiskQueue, DiskRequest, PoolOptions, ReactorOptions,
    Reactors, Wait, allocate, yield_now,
};

const MIB: usize = 1 << 20;

/// MiB of huge pages that nobody has or was promised.
fn huge_pages_left() -> usize {
    let folder = "/sys/kernel/mm/hugepages/hugepages-2048kB";
    let count = |name| std::fs::read_to_string(format!("{folder}/{name}")).ok()?.trim().parse().ok();
    let left: Option<usize> = count("free_hugepages")
        .zip(count("resv_hugepages"))
        .map(|(free, promised): (usize, usize)| free.saturating_sub(promised));
    left.unwrap_or(0) * 2
}

/// The line of `/proc/self/smaps` that begins with `word`, of the mapping that has this address.
fn mapped(address: usize, word: &str) -> String {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let is_there = |line: &str| {
        let ends = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let ends =
            ends.map(|(start, end)| (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)));
        matches!(ends, Some((Ok(start), Ok(end))) if (start..end).contains(&address))
    };
    let mut lines = maps.lines().skip_while(|line| !is_there(line));
    lines.find(|line| line.starts_with(word)).unwrap().to_owned()
}

/// Starts a reactor with so much memory, checks that all of it is what it is said to be and good for disks, and gives
/// what backs its two parts.
fn backings_of(disk: &Disk, total_mib: usize) -> [Backing; 2] {
    let reactors = Reactors::start(ReactorOptions {
        cores: CoreList::floating(1),
        wait: Wait::default(),
        pool: PoolOptions { total_bytes: total_mib * MIB },
    })
    .unwrap();
    let disk = disk.clone();
    let backings = reactors.handles()[0].spawn(move || async move {
        let parts = pools();
        let backings = parts.each_ref().map(|part| part.backing());
        assert_eq!(statistics().backing, *backings.iter().max().unwrap());
        let mut buffer = allocate(MIB).unwrap();
        buffer.fill(0x5a);
        for (part, backing) in parts.iter().zip(backings) {
            let address = part.start().addr().get();
            let size = mapped(address, "KernelPageSize:");
            let locked = mapped(address, "VmFlags:").split(' ').any(|flag| flag == "lo");
            match backing {
                Backing::HugePages => assert!(size.contains(" 2048 kB"), "{size}"),
                Backing::LockedPages => assert!(size.contains(" 4 kB") && locked, "{size} {locked}"),
                Backing::OrdinaryPages => assert!(size.contains(" 4 kB") && !locked, "{size} {locked}"),
            }
        }
        // Through the ring, which registers what it may.
        let mut queue = DiskQueue::open(&disk).unwrap();
        let mut done = Vec::new();
        for (token, operation) in [(1, DiskOperation::Write { durable: true }), (2, DiskOperation::Read)] {
            let segments = buffer.into();
            let length = MIB as u64;
            queue.submit(DiskRequest { token, operation, offset: 0, length, segments, skip: 0 }).unwrap();
            while done.is_empty() {
                yield_now().await;
                queue.poll(&mut done);
            }
            let end = done.remove(0);
            assert_eq!(end.result.unwrap(), MIB);
            let mut segments = end.segments;
            let sledge_reactor::Segment::Buffer(back) = segments.pop().unwrap() else { unreachable!() };
            buffer = back;
            assert!(buffer.iter().all(|byte| *byte == 0x5a));
            if token == 1 {
                buffer.fill(0);
            }
        }
        backings
    });
    let backings = backings.wait_blocking().unwrap();
    reactors.stop();
    backings
}

// Without it: huge pages could be reserved in vain; or be short and end the process; or memory that a user may not
// lock could keep the reactors from starting, or be called locked.
#[test]
fn memory_is_the_best_there_is() {
    use Backing::*;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let options = DiskOptions { create_bytes: Some(MIB as u64), ..DiskOptions::default() };
    let disk = Disk::open(folder.path().join("disk"), options).unwrap();
    let left = huge_pages_left();
    if left >= 16 {
        assert_eq!(backings_of(&disk, 16), [HugePages, HugePages]);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let kept = status.lines().find(|line| line.starts_with("HugetlbPages:")).unwrap();
        assert!(kept.ends_with(" 0 kB"), "{kept}");
    } else {
        println!("left out: huge pages ({left} MiB are free; `sledge setup hugepages 64M` reserves some)");
    }
    // Seven eighths are more than what is left, and an eighth is less.
    let too_much = (left + 16) * 8 / 7;
    let rest = if left >= too_much.div_ceil(8) + 2 { HugePages } else { LockedPages };
    // SAFETY: plain calls, of which the limit's structure is ours to write.
    let (is_root, limit) = unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        assert_eq!(libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit), 0);
        (libc::geteuid() == 0, limit)
    };
    if is_root || limit.rlim_cur >= 2 * (too_much * MIB) as u64 {
        assert_eq!(backings_of(&disk, too_much), [LockedPages, rest]);
    } else {
        println!("left out: locked memory (ulimit -l is {} KiB)", limit.rlim_cur >> 10);
    }
    // As an ordinary user, who may lock nothing.
    let nothing = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: changes this process's limit, and its user on all threads; nothing else runs in it.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &nothing), 0);
        // The effective user alone, so that the folder can be removed in the end; privileges go all the same.
        assert!(!is_root || libc::seteuid(65_534) == 0);
    }
    let rest = if rest == HugePages { HugePages } else { OrdinaryPages };
    assert_eq!(backings_of(&disk, too_much), [OrdinaryPages, rest]);
    // SAFETY: as above.
    assert!(!is_root || unsafe { libc::seteuid(0) } == 0);
}
