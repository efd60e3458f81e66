//! Who uses the block devices of an NVMe controller: the reason to leave it to the kernel.
//!
//! Invariant: whatever a person would lose data or a running system by losing is named here: file systems, swap,
//! holders (device-mapper, md, bcache), and processes that have the device open. Only reads. Called by `device` for
//! listings and by `binding` before a controller is taken from its driver.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::system::{System, link_name, names, number, read};

/// A disk that the kernel's driver made of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its name, as `nvme0n1`.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// What uses it or one of its partitions, in words: `/dev/nvme0n1p2 is mounted at /`.
    pub uses: Vec<String>,
}

/// The machine's uses of block devices, read once for all of them.
pub(super) struct Usage<'a> {
    system: &'a System,
    /// What is mounted and where, by the device's number and by its path.
    mounts: Vec<Mount>,
    /// Paths of swap areas.
    swaps: Vec<String>,
    /// By path, the processes that have it open.
    open: BTreeMap<String, Vec<String>>,
}

struct Mount {
    number: String,
    source: String,
    place: String,
}

impl<'a> Usage<'a> {
    /// Looks at the whole machine.
    pub(super) fn read(system: &'a System) -> Usage<'a> {
        let text = |path: &str| read(&system.path(path)).unwrap_or_default();
        let mounts = text("/proc/self/mountinfo").lines().filter_map(mount).collect();
        let swaps = text("/proc/swaps");
        let swaps = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(unescape);
        let swaps = swaps.collect();
        Usage { system, mounts, swaps, open: open_files(system) }
    }

    /// The block devices of a PCI function, with their uses.
    pub(super) fn block_devices(&self, function: &Path) -> Vec<BlockDevice> {
        let mut found = Vec::new();
        for controller in names(&function.join("nvme")) {
            let folder = function.join("nvme").join(&controller);
            let own = names(&folder).into_iter().map(|name| folder.join(name));
            // With native multipathing the disk belongs to the subsystem, whose paths are hidden.
            let class = self.system.path("/sys/class/nvme-subsystem");
            let subsystem = names(&class).into_iter().map(|name| class.join(name));
            let subsystem = subsystem.filter(|folder| folder.join(&controller).exists());
            let heads = subsystem.flat_map(|folder| {
                names(&folder).into_iter().map(move |name| folder.join(name)).collect::<Vec<_>>()
            });
            for disk in own.chain(heads).filter(|disk| is_disk(disk)) {
                let device = self.block_device(&disk);
                if !found.contains(&device) {
                    found.push(device);
                }
            }
        }
        found
    }

    /// Processes that have a path open.
    pub(super) fn processes(&self, path: &str) -> &[String] {
        self.open.get(path).map_or(&[], Vec::as_slice)
    }

    fn block_device(&self, disk: &Path) -> BlockDevice {
        let mut uses = Vec::new();
        self.look(disk, &mut uses);
        for partition in names(disk).into_iter().map(|name| disk.join(name)) {
            if partition.join("partition").exists() {
                self.look(&partition, &mut uses);
            }
        }
        // Whoever claims a partition has a claim on the disk, too.
        let path = format!("/dev/{}", file_name(disk));
        if uses.is_empty() && self.claimed(&path) {
            uses.push(format!("{path} is claimed by the kernel or by a program"));
        }
        // Sizes are in units of 512 bytes whatever the block size.
        let bytes = number(&disk.join("size")).map_or(0, |sectors| sectors.unsigned_abs() * 512);
        BlockDevice { name: file_name(disk), bytes, uses }
    }

    /// Adds the uses of one disk or partition.
    fn look(&self, device: &Path, uses: &mut Vec<String>) {
        let path = format!("/dev/{}", file_name(device));
        let number = read(&device.join("dev")).unwrap_or_default();
        for mount in &self.mounts {
            if mount.source == path || (!number.is_empty() && mount.number == number) {
                uses.push(format!("{path} is mounted at {}", mount.place));
            }
        }
        if self.swaps.contains(&path) {
            uses.push(format!("{path} is swap"));
        }
        for holder in names(&device.join("holders")) {
            let named = read(&self.system.path("/sys/class/block").join(&holder).join("dm/name"));
            let named = named.map_or(String::new(), |name| format!(" ({name})"));
            uses.push(format!("{path} is part of /dev/{holder}{named}"));
        }
        for process in self.processes(&path) {
            uses.push(format!("{path} is open in {process}"));
        }
    }

    /// Whether someone holds the device for himself: what `O_EXCL` finds, also of other mount namespaces.
    fn claimed(&self, path: &str) -> bool {
        claim(&self.system.path(path)).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
    }
}

/// Opens a device for this process alone, so that no one can mount it while the file is there.
pub(super) fn claim(path: &Path) -> std::io::Result<fs::File> {
    fs::File::options().read(true).custom_flags(libc::O_EXCL | libc::O_CLOEXEC).open(path)
}

/// Disks below a controller or a subsystem; hidden paths of a multipath disk are none.
fn is_disk(folder: &Path) -> bool {
    folder.join("dev").exists() && folder.join("size").exists() && number(&folder.join("hidden")) != Some(1)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A line of mountinfo: `36 35 98:0 /root /place options - type source options`, with fields between.
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let before: Vec<&str> = before.split(' ').collect();
    Some(Mount {
        number: (*before.get(2)?).to_owned(),
        source: unescape(after.split(' ').nth(1)?),
        place: unescape(before.get(4)?),
    })
}

/// The kernel writes blanks in paths as octal numbers.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// By path below `/dev`, who has it open. Processes of others are seen by root only.
fn open_files(system: &System) -> BTreeMap<String, Vec<String>> {
    let mut open: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let processes = system.path("/proc");
    for process in names(&processes).into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) {
        let folder = processes.join(&process);
        let files = names(&folder.join("fd")).into_iter().map(|name| folder.join("fd").join(name));
        for target in files.filter_map(|file| fs::read_link(file).ok()).filter(|target| is_device(target)) {
            let name = read(&folder.join("comm")).unwrap_or_default();
            let said = format!("process {process} ({name})");
            let who = open.entry(target.to_string_lossy().into_owned()).or_default();
            if !who.contains(&said) {
                who.push(said);
            }
        }
    }
    open
}

fn is_device(target: &Path) -> bool {
    target.starts_with("/dev/")
}

/// The driver of a PCI function.
pub(super) fn driver(function: &Path) -> Option<String> {
    link_name(&function.join("driver"))
}

/// Paths below `/dev` of a function's disks.
pub(super) fn device_paths(system: &System, devices: &[BlockDevice]) -> Vec<PathBuf> {
    devices.iter().map(|device| system.path("/dev").join(&device.name)).collect()
}
