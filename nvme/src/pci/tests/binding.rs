//! Tests of taking controllers and giving them back.

use super::machine::{FIRST, Machine, Nvme, SECOND};
use crate::pci::*;

fn machine() -> Machine {
    let machine = Machine::new(&["nvme", "vfio-pci", "uio_pci_generic", "pcieport", "e1000"]);
    machine.nvme(&FIRST);
    machine.nvme(&SECOND);
    machine
}

// Deleting this lets a controller end up with no driver, or with the one that it had.
#[test]
fn a_free_controller_is_taken_and_given_back() {
    let machine = machine();
    assert_eq!(bind(&machine.system, &[FIRST.at()], VFIO_PCI).unwrap(), [Bound::Now]);
    assert_eq!(machine.driver(&FIRST).as_deref(), Some("vfio-pci"));
    assert_eq!(machine.driver(&SECOND).as_deref(), Some("nvme"));
    assert_eq!(
        *machine.written.lock().unwrap(),
        [
            "sys/bus/pci/devices/0000:00:04.0/driver_override vfio-pci",
            "sys/bus/pci/devices/0000:00:04.0/driver/unbind 0000:00:04.0",
            "sys/bus/pci/drivers_probe 0000:00:04.0",
        ]
    );
    machine.written.lock().unwrap().clear();
    assert_eq!(
        bind(&machine.system, &[FIRST.at(), SECOND.at()], VFIO_PCI).unwrap(),
        [Bound::Already, Bound::Now]
    );
    assert_eq!(unbind(&machine.system, &[FIRST.at(), SECOND.at()]).unwrap(), ["nvme", "nvme"]);
    assert_eq!(machine.driver(&FIRST).as_deref(), Some("nvme"));
    assert_eq!(machine.text("sys/bus/pci/devices/0000:00:04.0/driver_override"), "\n");
    // One that the kernel has already is left alone.
    machine.written.lock().unwrap().clear();
    assert_eq!(unbind(&machine.system, &[FIRST.at()]).unwrap(), ["nvme"]);
    assert!(machine.written.lock().unwrap().is_empty());
}

// Deleting this lets a mounted disk be taken, or the one that was named before it.
#[test]
fn nothing_changes_when_one_of_several_is_in_use() {
    let machine = machine();
    machine.file("proc/self/mountinfo", "30 22 0:50 / /data rw - btrfs /dev/nvme1n1p1 rw\n");
    let said = bind(&machine.system, &[FIRST.at(), SECOND.at()], VFIO_PCI).unwrap_err().to_string();
    assert_eq!(
        said,
        "0000:00:05.0 is in use: /dev/nvme1n1p1 is mounted at /data; unmount it, or end what uses it, first"
    );
    let unknown = bind(&machine.system, &["00:06.0".parse().unwrap()], VFIO_PCI).unwrap_err().to_string();
    assert!(unknown.starts_with("0000:00:06.0 is no NVMe controller"), "{unknown}");
    let other = Machine::new(&["nvme"]);
    other.nvme(&FIRST);
    let said = bind(&other.system, &[FIRST.at()], VFIO_PCI).unwrap_err().to_string();
    assert_eq!(said, "the kernel has no driver vfio-pci: `modprobe vfio-pci`");
    assert!(machine.written.lock().unwrap().is_empty() && other.written.lock().unwrap().is_empty());
}

// Deleting this lets VFIO be given a group that it then refuses, or a neighbour of the kernel's lose its isolation.
#[test]
fn a_group_goes_as_a_whole() {
    let machine = Machine::new(&["nvme", "vfio-pci", "e1000", "pcieport"]);
    machine.nvme(&FIRST);
    machine.nvme(&Nvme { group: FIRST.group, ..SECOND });
    machine.function("0000:00:03.0", "0x060400", FIRST.group, Some("pcieport"));
    let said = bind(&machine.system, &[FIRST.at()], VFIO_PCI).unwrap_err().to_string();
    assert!(said.contains("shares IOMMU group 3 with 0000:00:05.0, which driver nvme has"), "{said}");
    assert_eq!(
        bind(&machine.system, &[FIRST.at(), SECOND.at()], VFIO_PCI).unwrap(),
        [Bound::Now, Bound::Now]
    );
    unbind(&machine.system, &[FIRST.at(), SECOND.at()]).unwrap();
    machine.function("0000:00:09.0", "0x020000", FIRST.group, Some("e1000"));
    let said = bind(&machine.system, &[FIRST.at(), SECOND.at()], VFIO_PCI).unwrap_err().to_string();
    assert!(said.contains("0000:00:09.0, which driver e1000 has"), "{said}");
    assert_eq!(machine.driver(&FIRST).as_deref(), Some("nvme"));
}

// Deleting this lets a machine without an IOMMU get a driver that can't work there, or one that does no good with one.
#[test]
fn the_driver_suits_the_iommu() {
    let machine = machine();
    let said = bind(&machine.system, &[FIRST.at()], UIO_PCI_GENERIC).unwrap_err().to_string();
    assert!(
        said.contains("an IOMMU translates") && said.contains("`sledge setup bind 0000:00:04.0`"),
        "{said}"
    );
    machine.file("sys/kernel/iommu_groups/3/type", "identity\n");
    assert_eq!(bind(&machine.system, &[FIRST.at()], UIO_PCI_GENERIC).unwrap(), [Bound::Now]);
    assert_eq!(bind(&machine.system, &[FIRST.at()], VFIO_PCI).unwrap(), [Bound::Now]);

    let bare = Machine::new(&["nvme", "vfio-pci", "uio_pci_generic"]);
    bare.nvme(&Nvme { group: None, ..FIRST });
    let said = bind(&bare.system, &[FIRST.at()], VFIO_PCI).unwrap_err().to_string();
    assert!(
        said.contains("intel_iommu=on") && said.contains("--driver uio_pci_generic 0000:00:04.0"),
        "{said}"
    );
    assert!(bare.written.lock().unwrap().is_empty());
    assert_eq!(bind(&bare.system, &[FIRST.at()], UIO_PCI_GENERIC).unwrap(), [Bound::Now]);
    bare.file("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    assert_eq!(bind(&bare.system, &[FIRST.at()], VFIO_PCI).unwrap(), [Bound::Now]);
}

// Deleting this lets a driver that fails leave controllers with nobody, and their disks away until a reboot.
#[test]
fn what_fails_half_way_is_given_back() {
    let machine = machine();
    let fail_for_second = machine.path("sys/bus/pci/devices/0000:00:05.0/driver_override");
    std::fs::remove_file(&fail_for_second).unwrap();
    let said = bind(&machine.system, &[FIRST.at(), SECOND.at()], VFIO_PCI).unwrap_err().to_string();
    assert!(said.contains("0000:00:05.0/driver_override: "), "{said}");
    assert_eq!(machine.driver(&FIRST).as_deref(), Some("nvme"));
    assert_eq!(machine.text("sys/bus/pci/devices/0000:00:04.0/driver_override"), "\n");

    machine.file("sys/bus/pci/drivers/vfio-pci/refuses", "");
    let said = bind(&machine.system, &[FIRST.at()], VFIO_PCI).unwrap_err().to_string();
    assert!(said.contains("vfio-pci did not take 0000:00:04.0, and the kernel has it again"), "{said}");
    assert_eq!(machine.driver(&FIRST).as_deref(), Some("nvme"));

    // Nor is a controller given back that the same driver takes again.
    std::fs::remove_file(machine.path("sys/bus/pci/drivers/vfio-pci/refuses")).unwrap();
    bind(&machine.system, &[FIRST.at()], VFIO_PCI).unwrap();
    machine.file("sys/bus/pci/drivers/vfio-pci/told", "");
    let said = unbind(&machine.system, &[FIRST.at()]).unwrap_err().to_string();
    assert_eq!(said, "no driver took 0000:00:04.0 back: `modprobe nvme`");
    std::fs::remove_file(machine.path("sys/bus/pci/drivers/vfio-pci/told")).unwrap();
    assert_eq!(unbind(&machine.system, &[FIRST.at()]).unwrap(), ["nvme"]);

    machine.file("sys/bus/pci/drivers/vfio-pci/refuses", "");
    machine.file("sys/bus/pci/drivers/nvme/refuses", "");
    let said = bind(&machine.system, &[FIRST.at()], VFIO_PCI).unwrap_err().to_string();
    assert!(!said.contains("again"), "{said}");
    let said = unbind(&machine.system, &[FIRST.at()]).unwrap_err().to_string();
    assert_eq!(said, "no driver took 0000:00:04.0 back: `modprobe nvme`");
}
