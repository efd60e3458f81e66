//! `sledge setup` on a machine that is a tree of files: what it shows and what it refuses. That it binds is shown in the
//! lab, where a kernel does what is asked.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{cells, failure, sledge};

const PLACE: &str = "sys/bus/pci/devices/0000:00:04.0";

fn file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A machine with one controller, whose one disk is mounted.
fn machine() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, text) in
        [("class", "0x010802"), ("vendor", "0x144d"), ("device", "0xa80a"), ("numa_node", "0")]
    {
        file(root, &format!("{PLACE}/{name}"), text);
    }
    file(root, &format!("{PLACE}/driver_override"), "(null)\n");
    file(root, &format!("{PLACE}/nvme/nvme0/model"), "Drive X\n");
    file(root, &format!("{PLACE}/nvme/nvme0/serial"), "S1\n");
    file(root, &format!("{PLACE}/nvme/nvme0/nvme0n1/size"), "2097152\n");
    file(root, &format!("{PLACE}/nvme/nvme0/nvme0n1/dev"), "259:0\n");
    file(root, "sys/bus/pci/drivers/vfio-pci/unbind", "");
    file(root, "sys/kernel/iommu_groups/3/devices/0000:00:04.0", "");
    symlink("../../../../kernel/iommu_groups/3", root.join(PLACE).join("iommu_group")).unwrap();
    file(root, "sys/bus/pci/drivers/nvme/unbind", "");
    symlink("../../drivers/nvme", root.join(PLACE).join("driver")).unwrap();
    file(root, "proc/self/mountinfo", "30 22 259:0 / /data rw - ext4 /dev/nvme0n1 rw\n");
    for pages in ["sys/kernel/mm/hugepages", "sys/devices/system/node/node0/hugepages"] {
        file(root, &format!("{pages}/hugepages-2048kB/nr_hugepages"), "512\n");
        file(root, &format!("{pages}/hugepages-2048kB/free_hugepages"), "500\n");
    }
    folder
}

/// What the command prints.
fn says(machine: &TempDir, arguments: &[&str]) -> String {
    let output = command(machine, arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn command(machine: &TempDir, arguments: &[&str]) -> std::process::Command {
    let mut command = sledge(machine.path());
    command.args(["setup", "--root"]).arg(machine.path()).args(arguments);
    command
}

// Without it: a person could not see which controllers there are, or that one is in use, without a running target.
#[test]
fn the_machine_is_shown_without_a_target() {
    let machine = machine();
    let shown = says(&machine, &["status"]);
    let rows = cells(&shown);
    assert_eq!(rows[0], ["ADDRESS", "DEVICE", "DRIVER", "GROUP", "NODE", "DISKS", "IN USE"]);
    assert_eq!(
        rows[1],
        [
            "0000:00:04.0",
            "Drive X, serial S1",
            "nvme",
            "3",
            "0",
            "nvme0n1 (1 GiB)",
            "/dev/nvme0n1 is mounted at /data"
        ]
    );
    assert!(rows.contains(&vec!["IOMMU".into(), "on".into()]), "{shown}");
    assert!(rows.contains(&vec!["huge pages".into(), "512 of 2 MiB, 500 free".into()]), "{shown}");
    let json: Value = serde_json::from_str(&says(&machine, &["--json", "status"])).unwrap();
    let controller = &json["controllers"][0];
    assert_eq!((&controller["address"], &controller["in_use"]), (&"0000:00:04.0".into(), &true.into()));
    assert_eq!((&controller["vendor"], &controller["numa_node"]), (&"144d".into(), &0.into()));
    assert_eq!(
        (&json["drivers"], &json["huge_pages"]["free"]),
        (&serde_json::json!(["vfio-pci"]), &500.into())
    );
    assert_eq!(cells(&says(&machine, &["hugepages"]))[1], ["0", "512", "500", "1 GiB"]);
}

// Without it: a script could take a mounted disk, or go on after it was refused.
#[test]
fn a_controller_in_use_is_refused() {
    let machine = machine();
    let said = failure(command(&machine, &["bind", "00:04.0"]).output().unwrap());
    assert_eq!(
        said,
        "0000:00:04.0 is in use: /dev/nvme0n1 is mounted at /data; unmount it, or end what uses it, first"
    );
    let untouched = fs::read_to_string(machine.path().join(PLACE).join("driver_override")).unwrap();
    assert_eq!(untouched, "(null)\n");
    let unknown = failure(command(&machine, &["unbind", "0000:00:05.0"]).output().unwrap());
    assert!(unknown.ends_with("`sledge setup status` lists them"), "{unknown}");
    let wrong = command(&machine, &["bind", "nvme0"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("no PCI address, as 0000:00:04.0"));
    let more = failure(command(&machine, &["hugepages", "1G", "--node", "7"]).output().unwrap());
    assert_eq!(more, "this kernel has no huge pages of 2 MiB at NUMA node 7");
}
