//! The virtual-machine lab as a test: Linux's own NVMe/TCP host against `sledge-target`.
//!
//! Where the lab's programs are not installed (`tools/lab/setup` installs them) the test says so in one
//! line and passes, unless `SLEDGE_LAB=required` is set, as it is in `.ci/run`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// If this goes, nothing in `cargo test` shows that a Linux kernel can attach, partition, format and
/// trust a disk of ours, or that it finds its data after the target was killed.
#[test]
fn linux_host_in_a_guest() {
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
    let status = Command::new(lab.join("run-tests"))
        .env("CARGO", env!("CARGO"))
        .status()
        .unwrap_or_else(|error| panic!("tools/lab/run-tests does not start: {error}"));
    assert!(status.success(), "tools/lab/run-tests failed ({status}); its steps are above");
}
