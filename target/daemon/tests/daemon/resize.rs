//! Devices that grow under a connected host.

use std::fs::OpenOptions;
use std::sync::mpsc;

use serde_json::{Value, json};
use sledge_nvme::Status;
use sledge_nvme::io::{Geometry, IoCommand, Operation};
use sledge_reactor::sleep;

use crate::host::{beside, connect, run, serving};
use crate::support::Target;

const BLOCK: u32 = 4096;
const MIB: u64 = 1 << 20;

/// Grows the device below namespace 1 from 1 to 2 MiB with `grow`, and checks what a connected host sees.
fn grows(
    calls: impl FnOnce(&Target) -> Vec<(&'static str, Value)>,
    device: &str,
    grow: impl FnOnce(&mut Target),
) {
    let (mut target, address) = serving(calls, device);
    let (connected, told) = mpsc::channel();
    let (grown, go_on) = mpsc::channel();
    let host = move || async move {
        let controller = connect(address).await;
        assert_eq!(controller.geometry(1).await.unwrap().blocks, MIB / u64::from(BLOCK));
        // The host's own check of the range is not what is tested here.
        let large = Geometry::new(4 * MIB / u64::from(BLOCK), BLOCK);
        let mut queue = controller.connector().open(1, large).await.unwrap();
        let last = 2 * MIB / u64::from(BLOCK) - 1;
        let before = run(&mut queue, IoCommand::new(1, Operation::Read, last, 1)).await;
        assert!(before.is(Status::LBA_OUT_OF_RANGE), "{before}");
        connected.send(()).unwrap();
        while go_on.try_recv().is_err() {
            sleep(std::time::Duration::from_millis(1)).await;
        }
        // The host is told, finds the new size and reads there, and not beyond it.
        controller.next_event().await;
        assert_eq!(controller.geometry(1).await.unwrap().blocks, 2 * MIB / u64::from(BLOCK));
        let inside = run(&mut queue, IoCommand::new(2, Operation::Read, last, 1)).await;
        assert!(inside.is_success(), "{inside}");
        let beyond = run(&mut queue, IoCommand::new(3, Operation::Read, last, 2)).await;
        assert!(beyond.is(Status::LBA_OUT_OF_RANGE), "{beyond}");
    };
    beside(host, || {
        told.recv_timeout(crate::support::PATIENCE).unwrap();
        grow(&mut target);
        grown.send(()).unwrap();
    });
}

// Without it: a host would not learn that its disk has grown, or be refused where it has.
#[test]
fn a_null_device_grows_below_another() {
    let calls = |_: &Target| {
        vec![
            ("bdev_null_create", json!({"name": "N", "num_blocks": 256, "block_size": BLOCK})),
            ("bdev_error_create", json!({"base_name": "N"})),
        ]
    };
    grows(calls, "EE_N", |target| {
        let mut resize = |size: u64| target.call("bdev_null_resize", json!({"name": "N", "new_size": size}));
        assert!(resize(0).is_err() && resize(u64::MAX).is_err());
        assert_eq!(resize(2), Ok(json!(true)));
        let (code, reason) = resize(1).unwrap_err();
        assert!(code == -32602 && reason.contains("can only grow"), "{code} {reason}");
        let saved = target.call("save_config", json!({})).unwrap();
        assert_eq!(saved["subsystems"][0]["config"][0]["params"]["num_blocks"], 512);
        assert_eq!(
            target.call("bdev_null_resize", json!({"name": "EE_N", "new_size": 3})).unwrap_err().0,
            -22
        );
    });
}

// Without it: a file that was made larger would keep its old size until the target is restarted; or another
// file that took its place would be served as the same disk.
#[test]
fn a_file_that_has_grown_is_seen() {
    let calls = |target: &Target| {
        let file = target.folder.path().join("disk.img");
        vec![(
            "bdev_uring_create",
            json!({"name": "F", "filename": file, "block_size": BLOCK, "create_bytes": MIB}),
        )]
    };
    grows(calls, "F", |target| {
        let path = target.folder.path().join("disk.img");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let mut rescan = || target.call("bdev_uring_rescan", json!({"name": "F"}));
        rescan().unwrap();
        file.set_len(2 * MIB).unwrap();
        assert_eq!(rescan(), Ok(json!(true)));
        file.set_len(MIB).unwrap();
        let (_, reason) = rescan().unwrap_err();
        assert!(reason.contains("can only grow"), "{reason}");
        file.set_len(2 * MIB).unwrap();
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        std::fs::write(&path, vec![0; 3 << 20]).unwrap();
        let (_, reason) = rescan().unwrap_err();
        assert!(reason.contains("another file"), "{reason}");
    });
}

// Without it: a configuration that fails after a resize in it would leave the device larger.
#[test]
fn a_resize_that_is_not_made_leaves_the_size() {
    let mut target = Target::start(&["--empty"]);
    target.call("bdev_null_create", json!({"name": "N", "num_blocks": 256, "block_size": BLOCK})).unwrap();
    let calls = json!([
        {"method": "bdev_null_resize", "params": {"name": "N", "new_size": 2}},
        {"method": "bdev_null_delete", "params": {"name": "none"}},
    ]);
    target.call("load_subsystem_config", json!({"subsystem": "bdev", "config": calls})).unwrap_err();
    assert_eq!(target.call("bdev_get_bdevs", json!({"name": "N"})).unwrap()[0]["num_blocks"], 256);
}
