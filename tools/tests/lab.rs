//! The virtual-machine lab as tests: Linux's own NVMe/TCP host against `sledge-target`, and `sledge-target`'s own NVMe
//! driver on emulated drives.
//!
//! Where the lab's programs are not installed (`tools/lab/setup` installs them) the tests say so in one line and pass,
//! unless `SLEDGE_LAB=required` is set, as it is in `.ci/run`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// One guest at a time: each has two processors.
static MACHINE: Mutex<()> = Mutex::new(());

/// If this goes, nothing in `cargo test` shows that a Linux kernel can attach, partition, format and
/// trust a disk of ours, or that it finds its data after the target was killed.
#[test]
fn linux_host_in_a_guest() {
    run("run-tests");
}

/// If this goes, nothing in `cargo test` shows that the driver drives a controller behind an IOMMU, and that data outlives
/// resets, stalls, unplugging and a power cut.
#[test]
fn drives_in_a_guest() {
    run("run-drive-tests");
}

fn run(script: &str) {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
    let required = match std::env::var("SLEDGE_LAB").as_deref() {
        Ok("required") => true,
        Ok("") | Err(_) => false,
        Ok(other) => panic!("SLEDGE_LAB is '{other}'; it is either unset or 'required'"),
    };
    let ready = Command::new(lab.join("setup"))
        .arg("--check")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !ready {
        assert!(!required, "SLEDGE_LAB=required, but the lab is not set up: run tools/lab/setup");
        // Not `println!`: the harness hides that when a test passes.
        let _ = writeln!(
            std::io::stderr(),
            "left out: the lab with a Linux guest, as QEMU and a kernel are missing (tools/lab/setup brings them)"
        );
        return;
    }
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let status = Command::new(lab.join(script))
        .env("CARGO", env!("CARGO"))
        .status()
        .unwrap_or_else(|error| panic!("tools/lab/{script} does not start: {error}"));
    assert!(status.success(), "tools/lab/{script} failed ({status}); its steps are above");
}
