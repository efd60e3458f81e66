//! A backing file that can't grow: one test, alone in its process, whose file size limit it lowers.

#![allow(clippy::unwrap_used)]

mod common;

use sledge_nvme::Status;

// Deleting this lets a full file system look like a broken disk, or kill the target.
#[test]
fn a_full_file_is_a_capacity_status() {
    let folder = common::folder();
    let device = common::uring(&folder.path().join("disk"), 256, 4096).unwrap();
    let limit = libc::rlimit { rlim_cur: 512 << 10, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: changes this process's limit and how it takes one signal; nothing else runs in it.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
    }
    common::on_reactor(move || async move {
        let mut channel = device.open_channel().unwrap();
        let channel = channel.as_mut();
        assert_eq!(common::write(channel, 0, &[1; 4096], 4096).await, Status::SUCCESS);
        let status = common::write(channel, 200, &[1; 4096], 4096).await;
        assert!(status.is(Status::CAPACITY_EXCEEDED) && status.is_do_not_retry(), "{status}");
        // Half of it fits: still not a success.
        let status = common::write(channel, 126, &[1; 16384], 4096).await;
        assert!(status.is(Status::CAPACITY_EXCEEDED), "{status}");
        assert_eq!(common::read(channel, 200, 1).await, (Status::SUCCESS, vec![0; 4096]));
        assert_eq!(common::write(channel, 0, &[2; 4096], 4096).await, Status::SUCCESS);
        assert_eq!(common::read(channel, 0, 1).await, (Status::SUCCESS, vec![2; 4096]));
    });
}
