//! Files that are not what a disk would be: of odd length, sparse, cut while they are served.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use common::{on_reactor, read, write};
use sledge_bdev::uring::UringDevice;
use sledge_bdev::{BlockDevice, DeviceError};
use sledge_nvme::Status;

const BLOCK: u32 = 4096;

/// A file of so many bytes, its last one an 'e', and a device on it.
fn file(bytes: u64) -> (tempfile::TempDir, std::fs::File, Result<Arc<UringDevice>, DeviceError>) {
    let folder = common::folder();
    let path = folder.path().join("disk");
    let file = std::fs::File::create_new(&path).unwrap();
    file.set_len(bytes).unwrap();
    file.write_all_at(b"e", bytes - 1).unwrap();
    let mut options = common::uring_options(&path, 1, BLOCK);
    options.create_bytes = None;
    (folder, file, UringDevice::open(options).map(Arc::new))
}

// Deleting this lets a file that is no whole number of blocks be refused, grow, or lose what is behind the last block.
#[test]
fn an_odd_end_is_left_alone() {
    let bytes = 10 * u64::from(BLOCK) + 777;
    let (folder, file, bdev) = file(bytes);
    let bdev = bdev.unwrap();
    assert_eq!(bdev.geometry().blocks, 10);
    on_reactor(move || async move {
        let mut channel = bdev.open_channel().unwrap();
        let channel = channel.as_mut();
        assert!(std::fs::metadata(folder.path().join("disk")).unwrap().blocks() <= 16, "sparse");
        assert_eq!(read(channel, 0, 10).await, (Status::SUCCESS, vec![0; 10 * BLOCK as usize]));
        assert_eq!(write(channel, 9, &[7; BLOCK as usize], BLOCK).await, Status::SUCCESS);
        assert_eq!(read(channel, 9, 1).await, (Status::SUCCESS, vec![7; BLOCK as usize]));
        assert!(write(channel, 10, &[7; BLOCK as usize], BLOCK).await.is(Status::LBA_OUT_OF_RANGE));
        let zeroes = sledge_nvme::io::Operation::WriteZeroes { deallocate: true };
        let end = common::run(channel, sledge_nvme::io::IoCommand::new(1, zeroes, 0, 10)).await;
        assert_eq!(end.status, Status::SUCCESS);
        let mut last = [0; 2];
        file.read_exact_at(&mut last, bytes - 2).unwrap();
        assert_eq!((last, file.metadata().unwrap().len()), ([0, b'e'], bytes));
        let mut before = [1];
        file.read_exact_at(&mut before, 10 * u64::from(BLOCK) - 1).unwrap();
        assert_eq!(before, [0]);
    });
    let (_folder, _file, too_small) = self::file(100);
    assert!(too_small.is_err_and(|error| error.to_string().contains("less than one block")));
}

// Deleting this lets a file that was cut under the target look like an error of the target, or give old or short data.
#[test]
fn a_file_that_is_cut_gives_read_errors_and_can_be_written() {
    // At a block's end, inside a block, and inside the smallest block of direct I/O.
    for end in [4 * 4096, 4 * 4096 + 1024, 4 * 4096 + 100] {
        let (_folder, file, bdev) = file(16 * u64::from(BLOCK));
        let bdev = bdev.unwrap();
        on_reactor(move || async move {
            let mut channel = bdev.open_channel().unwrap();
            let channel = channel.as_mut();
            assert_eq!(write(channel, 0, &[3; 16 * BLOCK as usize], BLOCK).await, Status::SUCCESS);
            file.set_len(end).unwrap();
            for (slba, blocks) in [(0, 16), (2, 4), (4, 1), (9, 2)] {
                let (status, _) = read(channel, slba, blocks).await;
                assert_eq!(status.without_flags(), Status::UNRECOVERED_READ_ERROR, "{end}: {slba}");
            }
            assert_eq!(read(channel, 0, 4).await, (Status::SUCCESS, vec![3; 4 * BLOCK as usize]));
            // What is written is there; what was cut off is lost, and reads as zeroes once it lies within again.
            assert_eq!(write(channel, 9, &[5; BLOCK as usize], BLOCK).await, Status::SUCCESS);
            assert_eq!(read(channel, 9, 1).await, (Status::SUCCESS, vec![5; BLOCK as usize]));
            assert_eq!(read(channel, 8, 1).await, (Status::SUCCESS, vec![0; BLOCK as usize]));
        });
    }
}
