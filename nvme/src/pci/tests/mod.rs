//! Tests of listing, binding and huge pages on a machine that is a tree of files.

mod binding;
mod machine;

use machine::{FIRST, Machine, Nvme, SECOND};

use super::*;

// Deleting this lets a listing miss a controller, or name one that is none.
#[test]
fn controllers_are_listed_with_what_is_known_of_them() {
    let machine = Machine::new(&["nvme", "vfio-pci"]);
    machine.nvme(&SECOND);
    machine.nvme(&FIRST);
    machine.function("0000:00:1f.2", "0x010601", None, Some("ahci"));
    machine.file(&format!("sys/bus/pci/devices/{}/numa_node", FIRST.address), "1\n");
    let listed = list(&machine.system).unwrap();
    assert_eq!(listed.iter().map(|device| device.address).collect::<Vec<_>>(), [FIRST.at(), SECOND.at()]);
    let first = &listed[0];
    assert_eq!((first.vendor, first.device, first.class), (0x1b36, 0x10, 0x01_0802));
    assert_eq!((first.driver.as_deref(), first.driver_override.as_deref()), (Some("nvme"), None));
    assert_eq!((first.iommu_group, first.numa_node), (Some(3), Some(1)));
    assert_eq!(first.identity.as_deref(), Some("Drive X, serial S1"));
    assert_eq!((first.block_devices[0].name.as_str(), first.block_devices[0].bytes), ("nvme0n1", 1 << 30));
    assert_eq!((first.uses(), listed[1].numa_node), (vec![], None));
    let none = list(&System::at("/nowhere")).unwrap_err().to_string();
    assert!(none.starts_with("/nowhere/sys/bus/pci/devices: "), "{none}");
}

/// The uses of the first controller of a machine.
fn uses(machine: &Machine) -> Vec<String> {
    list(&machine.system).unwrap().remove(0).uses()
}

// Deleting this lets a disk be taken from under a running system.
#[test]
fn every_use_of_a_disk_is_seen() {
    let machine = Machine::new(&["nvme", "vfio-pci"]);
    machine.nvme(&FIRST);
    let disk = format!("sys/bus/pci/devices/{}/nvme/nvme0/nvme0n1", FIRST.address);

    // By its number, though it was mounted by another name; by its path, as btrfs has numbers of its own.
    machine.file(
        "proc/self/mountinfo",
        "30 22 259:1 / /data\\040one rw,relatime shared:5 - ext4 /dev/disk/by-label/data rw\n\
         31 22 0:44 /sub /home rw - btrfs /dev/nvme0n1p2 rw\n\
         32 22 259:77 / /other rw - ext4 /dev/nvme7n1 rw\n",
    );
    assert_eq!(
        uses(&machine),
        ["/dev/nvme0n1p1 is mounted at /data one", "/dev/nvme0n1p2 is mounted at /home"]
    );

    machine.file("proc/self/mountinfo", "");
    machine.file("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1p2 partition 1 0 -2\n");
    assert_eq!(uses(&machine), ["/dev/nvme0n1p2 is swap"]);

    machine.file("proc/swaps", "");
    machine.file(&format!("{disk}/nvme0n1p1/holders/dm-0"), "");
    machine.file("sys/class/block/dm-0/dm/name", "vg-root\n");
    machine.file(&format!("{disk}/holders/md127"), "");
    assert_eq!(
        uses(&machine),
        ["/dev/nvme0n1 is part of /dev/md127", "/dev/nvme0n1p1 is part of /dev/dm-0 (vg-root)"]
    );

    std::fs::remove_file(machine.path(&format!("{disk}/nvme0n1p1/holders/dm-0"))).unwrap();
    std::fs::remove_file(machine.path(&format!("{disk}/holders/md127"))).unwrap();
    machine.process(812, "database", "/dev/nvme0n1p2");
    machine.process(813, "editor", "/home/x/nvme0n1");
    assert_eq!(uses(&machine), ["/dev/nvme0n1p2 is open in process 812 (database)"]);

    // Commands can go by other files than the disk's.
    std::fs::remove_dir_all(machine.path("proc/812")).unwrap();
    machine.file(&format!("sys/bus/pci/devices/{}/nvme/nvme0/ng0n1/dev", FIRST.address), "");
    machine.process(814, "keyvalue", "/dev/ng0n1");
    machine.process(815, "format", "/dev/nvme0");
    assert_eq!(
        uses(&machine),
        ["it is driven by process 814 (keyvalue)", "it is driven by process 815 (format)"]
    );
}

// Deleting this lets a disk of several paths be taken, as it does not belong to a controller but to a subsystem.
#[test]
fn disks_of_multipath_subsystems_are_found() {
    let machine = Machine::new(&["nvme", "vfio-pci"]);
    machine.function(FIRST.address, "0x010802", FIRST.group, Some("nvme"));
    let path = format!("sys/bus/pci/devices/{}/nvme/nvme0/nvme0c0n1", FIRST.address);
    machine.file(&format!("{path}/size"), "8\n");
    machine.file(&format!("{path}/hidden"), "1\n");
    machine.file(&format!("{path}/dev"), "259:9\n");
    machine.file("sys/class/nvme-subsystem/nvme-subsys0/nvme0/state", "live\n");
    machine.disk("sys/class/nvme-subsystem/nvme-subsys0", "nvme0n1", 0);
    machine.file("sys/class/nvme-subsystem/nvme-subsys1/nvme1/state", "live\n");
    machine.disk("sys/class/nvme-subsystem/nvme-subsys1", "nvme1n1", 8);
    machine.file("proc/self/mountinfo", "30 22 259:2 / /data rw - ext4 /dev/nvme0n1p2 rw\n");
    let first = list(&machine.system).unwrap().remove(0);
    assert_eq!(first.block_devices.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(), ["nvme0n1"]);
    assert_eq!(first.uses(), ["/dev/nvme0n1p2 is mounted at /data"]);
}

// Deleting this lets a controller be taken from a process that drives it, or the command wait for it for ever.
#[test]
fn processes_that_drive_a_controller_are_seen() {
    for (driver, open) in [
        ("vfio-pci", "/dev/vfio/3"),
        ("vfio-pci", "/dev/vfio/noiommu-3"),
        ("vfio-pci", "/dev/vfio/devices/vfio0"),
        ("uio_pci_generic", "/dev/uio2"),
    ] {
        let machine = Machine::new(&["nvme", driver]);
        machine.function(FIRST.address, "0x010802", FIRST.group, Some(driver));
        machine.file(&format!("sys/bus/pci/devices/{}/vfio-dev/vfio0/dev", FIRST.address), "");
        machine.file(&format!("sys/bus/pci/devices/{}/uio/uio2/dev", FIRST.address), "");
        machine.process(99, "sledge-target", open);
        assert_eq!(uses(&machine), ["it is driven by process 99 (sledge-target)"], "{open}");
        let refused = unbind(&machine.system, &[FIRST.at()]).unwrap_err();
        assert!(matches!(refused, BindError::InUse { .. }), "{refused}");
        let other = if driver == VFIO_PCI { UIO_PCI_GENERIC } else { VFIO_PCI };
        assert!(matches!(bind(&machine.system, &[FIRST.at()], other), Err(BindError::InUse { .. })));
        assert!(machine.written.lock().unwrap().is_empty());
    }
}

// Deleting this lets a target be started on a controller that is not its own, or leaves a person without the next step.
#[test]
fn what_can_not_be_opened_says_what_to_do() {
    let machine = Machine::new(&["nvme", "vfio-pci"]);
    machine.nvme(&FIRST);
    machine.nvme(&Nvme { group: None, ..SECOND });
    machine.function("0000:00:06.0", "0x010802", Some(6), Some("vfio-pci"));
    machine.function("0000:00:07.0", "0x010802", Some(7), Some("uio_pci_generic"));
    let said = |address: &str, kind: &str| {
        let address = address.parse().unwrap();
        match open_on(&machine.system, address, kind.parse().unwrap()) {
            Ok(function) => panic!("{function:?} is open", function = function.address()),
            Err(error) => error.to_string(),
        }
    };
    for (address, kind, words) in [
        ("0000:00:04.0", "vfio", &["is with nvme", "`sledge setup bind 0000:00:04.0`"][..]),
        ("0000:00:04.0", "uio_pci_generic", &["`sledge setup bind --driver uio_pci_generic 0000:00:04.0`"]),
        ("0000:00:05.0", "vfio", &["no IOMMU", "intel_iommu=on"]),
        ("0000:00:09.0", "vfio", &["no NVMe controller", "`sledge setup status`"]),
        ("0000:00:06.0", "vfio", &["/dev/vfio/6", "`modprobe vfio-pci`"]),
        ("0000:00:06.0", "vfio-noiommu", &["/dev/vfio/noiommu-6"]),
        ("0000:00:07.0", "uio_pci_generic", &["an IOMMU translates", "`sledge setup bind 0000:00:07.0`"]),
    ] {
        let said = said(address, kind);
        assert!(words.iter().all(|word| said.contains(word)), "{address} {kind}: {said}");
    }
    // Who may translate is the IOMMU's setting; an identity domain leaves physical addresses alone.
    machine.file("sys/kernel/iommu_groups/7/type", "identity\n");
    assert!(said("0000:00:07.0", "uio_pci_generic").contains("/dev/uioN"));
    assert!("spdk".parse::<EnvironmentKind>().unwrap_err().to_string().contains("uio_pci_generic"));
}

// Deleting this lets a request for memory succeed that the kernel could only half fulfil, or keep what it got.
#[test]
fn huge_pages_are_set_aside_or_left_as_they_were() {
    let machine = Machine::new(&[]);
    let system = &machine.system;
    assert_eq!((hugepages::status(system, None), hugepages::nodes(system)), (None, vec![]));
    assert!(matches!(hugepages::reserve(system, None, 1), Err(hugepages::HugePagesError::None { .. })));
    for folder in ["sys/kernel/mm/hugepages", "sys/devices/system/node/node0/hugepages"] {
        machine.file(&format!("{folder}/hugepages-2048kB/nr_hugepages"), "8\n");
        machine.file(&format!("{folder}/hugepages-2048kB/free_hugepages"), "3\n");
    }
    machine.file("sys/devices/system/node/node10/hugepages/x", "");
    assert_eq!(hugepages::nodes(system), [0, 10]);
    let before = hugepages::HugePages { total: 8, free: 3 };
    assert_eq!(hugepages::status(system, Some(0)), Some(before));
    assert_eq!(hugepages::reserve(system, None, 8).unwrap(), before);
    assert!(machine.written.lock().unwrap().is_empty());
    assert_eq!(hugepages::reserve(system, Some(0), 64).unwrap().total, 64);
    assert_eq!(hugepages::status(system, None), Some(before));
    let said = hugepages::reserve(system, None, 101).unwrap_err().to_string();
    assert!(said.contains("no more than 100") && said.contains("hugepages=101"), "{said}");
    assert_eq!(hugepages::status(system, None).unwrap().total, 8);
}

// Deleting this lets a drive that was pulled and put back look as if it had never been away.
#[test]
fn controllers_come_and_go() {
    let machine = Machine::new(&["nvme"]);
    machine.nvme(&FIRST);
    let mut watch = Watch::new(machine.system.clone());
    assert_eq!(watch.changes(), []);
    machine.nvme(&SECOND);
    machine.function("0000:00:1f.2", "0x010601", None, Some("ahci"));
    assert_eq!(watch.changes(), [Change::Came(SECOND.at())]);
    let folder = machine.system.function(&FIRST.at());
    let aside = machine.path("aside");
    std::fs::rename(&folder, &aside).unwrap();
    machine.nvme(&FIRST);
    assert_eq!(watch.changes(), [Change::Went(FIRST.at()), Change::Came(FIRST.at())]);
    std::fs::remove_dir_all(folder).unwrap();
    assert_eq!(watch.changes(), [Change::Went(FIRST.at())]);
    assert_eq!(watch.changes(), []);
}
