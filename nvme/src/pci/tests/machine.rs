//! A machine as a tree of files, with a kernel that moves functions between drivers as the real one does.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::pci::{PciAddress, System};

/// The machine. What is written to its kernel is kept in `written`.
pub(super) struct Machine {
    folder: TempDir,
    pub(super) system: System,
    pub(super) written: Arc<Mutex<Vec<String>>>,
}

/// An NVMe controller to be.
pub(super) struct Nvme {
    pub(super) address: &'static str,
    pub(super) name: &'static str,
    pub(super) group: Option<u32>,
}

pub(super) const FIRST: Nvme = Nvme { address: "0000:00:04.0", name: "nvme0", group: Some(3) };
pub(super) const SECOND: Nvme = Nvme { address: "0000:00:05.0", name: "nvme1", group: Some(4) };

impl Nvme {
    pub(super) fn at(&self) -> PciAddress {
        self.address.parse().unwrap()
    }
}

impl Machine {
    /// A machine without controllers, whose kernel has the drivers.
    pub(super) fn new(drivers: &[&str]) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let written = Arc::new(Mutex::new(Vec::new()));
        let log = written.clone();
        let kernel = move |path: &Path, word: &str| {
            let shown = path.strip_prefix(&root).unwrap().display().to_string();
            log.lock().unwrap().push(format!("{shown} {}", word.trim()));
            obey(&root, path, word)
        };
        let machine = Machine { system: System::at(folder.path()).with_writer(kernel), folder, written };
        for driver in drivers {
            machine.file(&format!("sys/bus/pci/drivers/{driver}/unbind"), "");
        }
        for folder in ["sys/bus/pci/devices", "dev", "proc/self"] {
            fs::create_dir_all(machine.path(folder)).unwrap();
        }
        machine.file("sys/bus/pci/drivers_probe", "");
        machine.file("proc/self/mountinfo", "22 1 0:21 / / rw - ext4 /dev/sda1 rw\n");
        machine.file("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
        machine
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Writes a file, with the folders above it.
    pub(super) fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(super) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Adds a PCI function with a driver.
    pub(super) fn function(&self, address: &str, class: &str, group: Option<u32>, driver: Option<&str>) {
        let place = format!("sys/bus/pci/devices/{address}");
        for (name, text) in [
            ("class", class),
            ("vendor", "0x1b36"),
            ("device", "0x0010"),
            ("numa_node", "-1"),
            ("driver_override", "(null)"),
        ] {
            self.file(&format!("{place}/{name}"), &format!("{text}\n"));
        }
        if let Some(driver) = driver {
            symlink(format!("../../drivers/{driver}"), self.path(&format!("{place}/driver"))).unwrap();
        }
        if let Some(group) = group {
            self.file(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"), "");
            self.file(&format!("sys/kernel/iommu_groups/{group}/type"), "DMA-FQ\n");
            let link = self.path(&format!("{place}/iommu_group"));
            symlink(format!("../../../../kernel/iommu_groups/{group}"), link).unwrap();
        }
    }

    /// Adds an NVMe controller that the kernel's driver has, with a disk of 1 GiB with two partitions.
    pub(super) fn nvme(&self, nvme: &Nvme) {
        self.function(nvme.address, "0x010802", nvme.group, Some("nvme"));
        let controller = format!("sys/bus/pci/devices/{}/nvme/{}", nvme.address, nvme.name);
        self.file(&format!("{controller}/model"), "Drive X   \n");
        self.file(&format!("{controller}/serial"), "S1\n");
        self.disk(&controller, &format!("{}n1", nvme.name), 0);
    }

    /// Adds a disk of 1 GiB with two partitions below a folder.
    pub(super) fn disk(&self, folder: &str, name: &str, minor: u32) {
        let disk = format!("{folder}/{name}");
        self.file(&format!("{disk}/dev"), &format!("259:{minor}\n"));
        self.file(&format!("{disk}/size"), "2097152\n");
        fs::create_dir_all(self.path(&format!("{disk}/holders"))).unwrap();
        for part in 1..=2 {
            self.file(&format!("{disk}/{name}p{part}/partition"), &format!("{part}\n"));
            self.file(&format!("{disk}/{name}p{part}/dev"), &format!("259:{}\n", minor + part));
            fs::create_dir_all(self.path(&format!("{disk}/{name}p{part}/holders"))).unwrap();
        }
        self.file(&format!("dev/{name}"), "");
    }

    /// Adds a process that has a file open.
    pub(super) fn process(&self, number: u32, name: &str, open: &str) {
        self.file(&format!("proc/{number}/comm"), &format!("{name}\n"));
        fs::create_dir_all(self.path(&format!("proc/{number}/fd"))).unwrap();
        symlink(open, self.path(&format!("proc/{number}/fd/7"))).unwrap();
    }

    pub(super) fn driver(&self, nvme: &Nvme) -> Option<String> {
        crate::pci::usage::driver(&self.system.function(&nvme.at()))
    }
}

/// What the kernel does with a word.
fn obey(root: &Path, path: &Path, word: &str) -> io::Result<()> {
    if !path.exists() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let name = path.file_name().unwrap().to_str().unwrap();
    let device = root.join("sys/bus/pci/devices").join(word.trim());
    match name {
        "unbind" => {
            fs::remove_file(device.join("driver"))?;
            let _ = fs::remove_dir_all(device.join("nvme"));
        }
        "drivers_probe" => {
            let wanted = fs::read_to_string(device.join("driver_override"))?;
            let wanted = match wanted.trim() {
                // A driver that was told the device's identity comes first.
                "" | "(null)" => {
                    let told =
                        |driver: &&str| root.join("sys/bus/pci/drivers").join(driver).join("told").exists();
                    ["vfio-pci"].into_iter().find(told).unwrap_or("nvme").to_owned()
                }
                wanted => wanted.to_owned(),
            };
            let driver = root.join("sys/bus/pci/drivers").join(&wanted);
            if driver.exists() && !driver.join("refuses").exists() {
                symlink(format!("../../drivers/{wanted}"), device.join("driver"))?;
            }
        }
        "nr_hugepages" => {
            let wanted: u64 = word.trim().parse().unwrap();
            let got = wanted.min(100).to_string();
            fs::write(path, &got)?;
            fs::write(path.with_file_name("free_hugepages"), got)?;
        }
        _ => fs::write(path, word)?,
    }
    Ok(())
}
