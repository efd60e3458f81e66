//! Kernel block devices and file systems that lack something: loop devices and mounts, which only root can make. Where
//! they can't be made the tests say what they left out; the drive lab has block devices on any machine.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{command, on_reactor, read, run, segments, write};
use sledge_bdev::uring::{UringDevice, UringOptions};
use sledge_bdev::{BlockDevice, DeviceError};
use sledge_nvme::Status;
use sledge_nvme::io::{IoCommand, Operation};
use sledge_reactor::memory::Segments;

const MIB: u64 = 1 << 20;

/// Runs a program of the system; what it prints, if it succeeds.
fn system(words: &[&str]) -> Option<String> {
    let mut program = Command::new(words[0]);
    program.args(&words[1..]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").stderr(Stdio::null());
    let done = program.output().ok().filter(|done| done.status.success())?;
    Some(String::from_utf8(done.stdout).unwrap().trim().to_owned())
}

/// A loop device over a file, or a mounted file system; undone when dropped.
struct Made {
    path: PathBuf,
    undo: &'static [&'static str],
    _folder: Option<tempfile::TempDir>,
}

impl Made {
    fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let mut words = self.undo.to_vec();
        words.push(self.text());
        system(&words);
    }
}

/// A loop device with such blocks over a new file, and the file.
fn loop_device(bytes: u64, block: u32) -> Option<(Made, PathBuf)> {
    let folder = common::folder();
    let file = folder.path().join("backing");
    std::fs::File::create(&file).unwrap().set_len(bytes).unwrap();
    let block = block.to_string();
    let path = system(&["losetup", "-f", "--show", "-b", &block, file.to_str().unwrap()]);
    let Some(path) = path else {
        println!("left out: no loop device is to be had (needs root)");
        return None;
    };
    Some((Made { path: path.into(), undo: &["losetup", "-d"], _folder: Some(folder) }, file))
}

fn mounted(kind: &str, options: &str) -> Option<Made> {
    let folder = common::folder();
    let path = folder.path().to_owned();
    if system(&["mount", "-t", kind, "-o", options, "none", path.to_str().unwrap()]).is_none() {
        println!("left out: {kind} can't be mounted (needs root)");
        return None;
    }
    // Lazily: a file that another thread is about to close must not leave the mount behind.
    Some(Made { path, undo: &["umount", "--lazy"], _folder: Some(folder) })
}

fn open(path: &Path, create_bytes: Option<u64>) -> Result<Arc<UringDevice>, DeviceError> {
    let filename = path.to_owned();
    let options = UringOptions { name: "U".to_owned(), filename, block_size: None, uuid: None, create_bytes };
    UringDevice::open(options).map(Arc::new)
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| ((at + seed) * 131 % 253) as u8).collect()
}

async fn clear(
    channel: &mut dyn sledge_nvme::io::Channel,
    operation: Operation,
    slba: u64,
    blocks: u32,
) -> Status {
    run(channel, command(operation, slba, blocks, Segments::EMPTY)).await.status
}

// Deleting this lets blocks of a kernel's device come back from elsewhere, or stay in a cache after a flush, or be kept
// after a deallocation.
#[test]
fn a_block_device_keeps_flushes_and_frees() {
    for block in [512u32, 4096] {
        let Some((device, file)) = loop_device(16 * MIB, block) else { return };
        let bdev = open(&device.path, None).unwrap();
        assert_eq!(bdev.geometry().block_bytes, block);
        assert_eq!(bdev.geometry().bytes(), 16 * MIB);
        assert!(!bdev.deallocated_reads_zeroes() && bdev.volatile_write_cache());
        let name = device.text().to_owned();
        on_reactor(move || async move {
            let mut channel = bdev.open_channel().unwrap();
            let channel = channel.as_mut();
            let a_mib = (MIB / u64::from(block)) as u32;
            for (seed, (slba, bytes)) in
                [(0, block as usize), (3, 17 * block as usize), (u64::from(a_mib), MIB as usize)]
                    .into_iter()
                    .enumerate()
            {
                let data = pattern(seed as u64, bytes);
                assert_eq!(write(channel, slba, &data, block).await, Status::SUCCESS);
                assert_eq!(read(channel, slba, bytes as u32 / block).await, (Status::SUCCESS, data));
            }
            // From memory that the device can't reach as it lies.
            let mut io = command(Operation::Write, 40, 2, segments(&pattern(9, 2 * block as usize), &[100]));
            io.fua = true;
            assert_eq!(run(channel, io).await.status, Status::SUCCESS);
            assert_eq!(read(channel, 40, 2).await.1, pattern(9, 2 * block as usize));
            assert_eq!(clear(channel, Operation::Flush, 0, 0).await, Status::SUCCESS);
            // Past the kernel's cache of the device and into the file.
            let behind = std::fs::read(&file).unwrap();
            assert_eq!(behind[MIB as usize..2 * MIB as usize], pattern(2, MIB as usize));

            for slba in (4..12).map(|mib| mib * u64::from(a_mib)) {
                assert_eq!(write(channel, slba, &pattern(slba, MIB as usize), block).await, Status::SUCCESS);
            }
            assert_eq!(clear(channel, Operation::Flush, 0, 0).await, Status::SUCCESS);
            let used = || std::fs::metadata(&file).unwrap().blocks() * 512;
            let before = used();
            assert_eq!(
                clear(channel, Operation::Deallocate, 4 * u64::from(a_mib), 4 * a_mib).await,
                Status::SUCCESS
            );
            assert!(used() + 3 * MIB < before, "{name}: {before} bytes, then {}", used());
            // A block less at each end: what is not whole pages is zeroed, too.
            let zeroes = Operation::WriteZeroes { deallocate: false };
            assert_eq!(
                clear(channel, zeroes, 8 * u64::from(a_mib) + 1, 2 * a_mib - 2).await,
                Status::SUCCESS
            );
            let (status, found) = read(channel, 8 * u64::from(a_mib), a_mib).await;
            assert_eq!(status, Status::SUCCESS);
            assert_eq!(found[..block as usize], pattern(8 * u64::from(a_mib), block as usize));
            assert!(found[block as usize..].iter().all(|byte| *byte == 0));
            let last = read(channel, 10 * u64::from(a_mib) - 1, 1).await.1;
            assert_eq!(
                last,
                pattern(9 * u64::from(a_mib), MIB as usize)[(MIB - u64::from(block)) as usize..]
            );
            // Space is only given back by who is asked to.
            let before = used();
            let zeroes = Operation::WriteZeroes { deallocate: true };
            assert_eq!(clear(channel, zeroes, 10 * u64::from(a_mib), a_mib).await, Status::SUCCESS);
            assert!(used() + MIB / 2 < before, "{name}: {before} bytes, then {}", used());
            assert_eq!(read(channel, 10 * u64::from(a_mib), a_mib).await.1, vec![0; MIB as usize]);
        });
    }
}

// Deleting this lets a device be served that is mounted, which destroys its file system, or be served twice.
#[test]
fn a_block_device_in_use_is_refused() {
    let Some((device, file)) = loop_device(16 * MIB, 512) else { return };
    let busy = |opened: Result<_, DeviceError>| {
        let error = opened.err().unwrap();
        assert!(error.errno() == libc::EBUSY && error.to_string().contains("in use: mounted"), "{error}");
    };
    let first = open(&device.path, None).unwrap();
    busy(open(&device.path, None));
    // What has it already sees it grow.
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(24 * MIB).unwrap();
    system(&["losetup", "-c", device.text()]).unwrap();
    drop(first.rescan().unwrap());
    assert_eq!(first.geometry().bytes(), 24 * MIB);
    drop(first);
    if system(&["mkfs.ext4", "-q", "-F", device.text()]).is_none() {
        println!("left out in part: no mkfs.ext4");
        return;
    }
    let folder = common::folder();
    let place = folder.path().to_owned();
    system(&["mount", device.text(), place.to_str().unwrap()]).unwrap();
    let mount = Made { path: place, undo: &["umount"], _folder: None };
    busy(open(&device.path, None));
    drop(mount);
    drop(open(&device.path, None).unwrap());
}

// Deleting this lets a device that has become smaller look like one that keeps what it is given, or end the target.
#[test]
fn a_block_device_that_shrinks_gives_errors() {
    let Some((device, file)) = loop_device(16 * MIB, 512) else { return };
    let bdev = open(&device.path, None).unwrap();
    let name = device.text().to_owned();
    on_reactor(move || async move {
        let mut channel = bdev.open_channel().unwrap();
        let channel = channel.as_mut();
        assert_eq!(write(channel, 30_000, &[1; 4096], 512).await, Status::SUCCESS);
        std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(8 * MIB + 512).unwrap();
        system(&["losetup", "-c", &name]).unwrap();
        assert_eq!(read(channel, 30_000, 8).await.0.without_flags(), Status::UNRECOVERED_READ_ERROR);
        // Across the new end: not even in part a success.
        assert_eq!(read(channel, 16_380, 8).await.0.without_flags(), Status::UNRECOVERED_READ_ERROR);
        for slba in [30_000, 16_380] {
            // The device as such says "no space", which a host would take for a full one.
            assert_eq!(write(channel, slba, &[2; 4096], 512).await.without_flags(), Status::WRITE_FAULT);
        }
        for operation in
            [Operation::WriteZeroes { deallocate: false }, Operation::WriteZeroes { deallocate: true }]
        {
            assert!(!clear(channel, operation, 30_000, 8).await.is_success());
        }
        assert_eq!(write(channel, 100, &[3; 4096], 512).await, Status::SUCCESS);
        assert_eq!(read(channel, 100, 8).await, (Status::SUCCESS, vec![3; 4096]));
        let reason = bdev.rescan().err().unwrap().to_string();
        assert!(reason.contains("can only grow"), "{reason}");
    });
}

/// All commands, on a file system that may lack direct I/O and ways to free and zero.
async fn serves(bdev: &UringDevice) {
    let mut channel = bdev.open_channel().unwrap();
    let channel = channel.as_mut();
    let block = bdev.geometry().block_bytes;
    let blocks = MIB as u32 / 2 / block;
    let data = pattern(5, MIB as usize / 2);
    let everything = [
        Operation::WriteZeroes { deallocate: false },
        Operation::WriteZeroes { deallocate: true },
        Operation::Deallocate,
    ];
    for operation in everything {
        assert_eq!(write(channel, 0, &data, block).await, Status::SUCCESS);
        assert_eq!(clear(channel, Operation::Flush, 0, 0).await, Status::SUCCESS);
        let mut io = command(Operation::Write, 1, 1, segments(&data[..block as usize], &[]));
        io.fua = true;
        assert_eq!(run(channel, io).await.status, Status::SUCCESS);
        let mut io = IoCommand::new(1, operation, 2, blocks - 2);
        io.fua = true;
        assert_eq!(run(channel, io).await.status, Status::SUCCESS);
        let found = read(channel, 0, blocks).await.1;
        assert_eq!(found[..block as usize], data[..block as usize]);
        if operation != Operation::Deallocate || bdev.deallocated_reads_zeroes() {
            assert!(found[2 * block as usize..].iter().all(|byte| *byte == 0), "{operation:?}");
        }
    }
}

// Deleting this lets a host be promised zeroes by a file system that can't free, or be refused to zero on it.
#[test]
fn a_file_system_without_holes_or_direct_io_serves() {
    let Some(mount) = mounted("ramfs", "mode=700") else { return };
    let bdev = open(&mount.path.join("disk"), Some(MIB)).unwrap();
    assert!(!bdev.deallocated_reads_zeroes(), "ramfs frees nothing");
    on_reactor(move || async move { serves(&bdev).await });
}

// Deleting this lets a full file system lose data, or serve no more when there is room again.
#[test]
fn a_full_file_system_is_a_capacity_status() {
    let Some(mount) = mounted("tmpfs", "size=2m") else { return };
    let bdev = open(&mount.path.join("disk"), Some(8 * MIB)).unwrap();
    assert!(bdev.deallocated_reads_zeroes());
    on_reactor(move || async move {
        serves(&bdev).await;
        let mut channel = bdev.open_channel().unwrap();
        let channel = channel.as_mut();
        let block = bdev.geometry().block_bytes;
        let blocks = MIB as u32 / block;
        let data = pattern(1, MIB as usize);
        let mut status = Status::SUCCESS;
        let mut written = 0;
        for mib in 0..3 {
            status = write(channel, mib * u64::from(blocks), &data, block).await;
            written += u64::from(status.is_success());
        }
        assert!(status.is(Status::CAPACITY_EXCEEDED) && status.is_do_not_retry(), "{status}");
        assert!(written >= 1);
        assert_eq!(read(channel, 0, blocks).await, (Status::SUCCESS, data.clone()));
        assert_eq!(clear(channel, Operation::Deallocate, 0, 3 * blocks).await, Status::SUCCESS);
        assert_eq!(write(channel, 2 * u64::from(blocks), &data, block).await, Status::SUCCESS);
        assert_eq!(read(channel, 2 * u64::from(blocks), blocks).await, (Status::SUCCESS, data));
    });
}
