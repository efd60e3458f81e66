//! `sledge setup`: gives NVMe controllers to user space and back, and sets huge pages aside. Works on the machine, not
//! on a target; nothing of it lasts over a reboot.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use sledge_nvme::pci::hugepages::{self, HUGE_PAGE_BYTES, HugePages};
use sledge_nvme::pci::{self, Bound, PciAddress, PciDevice, System};

use crate::client::Failure;
use crate::output::{Report, Rows, facts};
use crate::size;

/// What to do with the machine.
#[derive(Debug, Subcommand)]
pub enum Setup {
    /// List NVMe controllers, who has them and who uses them
    Status,
    /// Take controllers from the kernel, for the target to drive; never one that is in use
    Bind {
        /// PCI addresses, as 0000:00:04.0
        #[arg(required = true)]
        addresses: Vec<PciAddress>,
        /// What has them then
        #[arg(long, value_enum, default_value_t = Driver::VfioPci)]
        driver: Driver,
    },
    /// Give controllers back to the kernel
    Unbind {
        /// PCI addresses, as 0000:00:04.0
        #[arg(required = true)]
        addresses: Vec<PciAddress>,
    },
    /// Show huge pages, or set some aside; until the next boot
    Hugepages {
        /// How much in all, as 1G; rounded up to whole pages of 2 MiB
        #[arg(value_parser = size::parse)]
        size: Option<u64>,
        /// On this NUMA node alone
        #[arg(long)]
        node: Option<u32>,
    },
}

/// A kernel driver for user space.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Driver {
    /// Memory is guarded by the IOMMU
    VfioPci,
    /// Memory is not guarded: for machines without an IOMMU
    #[value(name = "uio_pci_generic", alias = "uio-pci-generic")]
    UioPciGeneric,
}

/// Runs a command of `sledge setup`, on the machine whose files lie below `root`.
pub fn run(root: PathBuf, command: Setup) -> Result<Report, Failure> {
    let system = System::at(root);
    match command {
        Setup::Status => status(&system),
        Setup::Bind { addresses, driver } => bind(&system, &addresses, driver),
        Setup::Unbind { addresses } => unbind(&system, &addresses),
        Setup::Hugepages { size: None, node } => Ok(show_huge_pages(&system, node)),
        Setup::Hugepages { size: Some(bytes), node } => reserve(&system, node, bytes),
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}

fn status(system: &System) -> Result<Report, Failure> {
    let devices = pci::list(system).map_err(failed)?;
    let iommu = devices.iter().any(|device| device.iommu_group.is_some());
    let pages = hugepages::status(system, None);
    let loaded: Vec<&str> = [pci::VFIO_PCI, pci::UIO_PCI_GENERIC]
        .into_iter()
        .filter(|driver| system.path("/sys/bus/pci/drivers").join(driver).exists())
        .collect();
    let json = json!({
        "controllers": devices.iter().map(device_json).collect::<Vec<_>>(),
        "iommu": iommu,
        "drivers": loaded,
        "huge_pages": pages.map(pages_json),
    });

    let mut rows = Rows::new(&["ADDRESS", "DEVICE", "DRIVER", "#GROUP", "#NODE", "DISKS", "IN USE"]);
    for device in &devices {
        let known = device.identity.clone();
        let dash = |number: Option<u32>| number.map_or("-".to_owned(), |number| number.to_string());
        let disks = device.block_devices.iter();
        let disks: Vec<String> =
            disks.map(|disk| format!("{} ({})", disk.name, size::show(disk.bytes))).collect();
        let uses = device.uses();
        rows.add([
            device.address.to_string(),
            known.unwrap_or_else(|| format!("{:04x}:{:04x}", device.vendor, device.device)),
            device.driver.clone().unwrap_or_else(|| "-".to_owned()),
            dash(device.iommu_group),
            dash(device.numa_node),
            if disks.is_empty() { "-".to_owned() } else { disks.join(", ") },
            if uses.is_empty() { "no".to_owned() } else { uses.join(", ") },
        ]);
    }
    let mut report = Report::table(json, rows, "there are no NVMe controllers on the PCI bus");
    let none = "none; `modprobe vfio-pci`, or uio_pci_generic where there is no IOMMU";
    report.text.push('\n');
    report.text.push_str(&facts(&[
        ("IOMMU", said_of_iommu(iommu).to_owned()),
        ("drivers", if loaded.is_empty() { none.to_owned() } else { loaded.join(", ") }),
        ("huge pages", pages.map_or("none of 2 MiB in this kernel".to_owned(), said_of_pages)),
    ]));
    Ok(report)
}

fn said_of_iommu(on: bool) -> &'static str {
    if on {
        "on"
    } else {
        "off; VFIO needs it: VT-d or AMD-Vi in the firmware, intel_iommu=on for the kernel"
    }
}

fn device_json(device: &PciDevice) -> Value {
    let disks = device.block_devices.iter();
    let disks: Vec<Value> =
        disks.map(|disk| json!({"name": disk.name, "bytes": disk.bytes, "uses": disk.uses})).collect();
    json!({
        "address": device.address.to_string(),
        "vendor": format!("{:04x}", device.vendor),
        "device": format!("{:04x}", device.device),
        "identity": device.identity,
        "driver": device.driver,
        "driver_override": device.driver_override,
        "iommu_group": device.iommu_group,
        "numa_node": device.numa_node,
        "block_devices": disks,
        "users": device.users,
        "in_use": !device.uses().is_empty(),
    })
}

fn bind(system: &System, addresses: &[PciAddress], driver: Driver) -> Result<Report, Failure> {
    let driver = match driver {
        Driver::VfioPci => pci::VFIO_PCI,
        Driver::UioPciGeneric => pci::UIO_PCI_GENERIC,
    };
    let done = pci::bind(system, addresses, driver).map_err(failed)?;
    let (mut json, mut lines) = (Vec::new(), Vec::new());
    for (address, bound) in addresses.iter().zip(done) {
        let already = bound == Bound::Already;
        json.push(json!({"address": address.to_string(), "driver": driver, "changed": !already}));
        lines.push(format!("{address} is {}with {driver}", if already { "already " } else { "" }));
    }
    Ok(Report::say(json.into(), lines.join("\n")))
}

fn unbind(system: &System, addresses: &[PciAddress]) -> Result<Report, Failure> {
    let drivers = pci::unbind(system, addresses).map_err(failed)?;
    let all = addresses.iter().zip(drivers);
    let (json, lines): (Vec<Value>, Vec<String>) = all
        .map(|(address, driver)| {
            (json!({"address": address.to_string(), "driver": driver}), format!("{address} is with {driver}"))
        })
        .unzip();
    Ok(Report::say(json.into(), lines.join("\n")))
}

fn show_huge_pages(system: &System, node: Option<u32>) -> Report {
    let nodes = node.map_or_else(|| hugepages::nodes(system), |node| vec![node]);
    let mut rows = Rows::new(&["NODE", "#PAGES", "#FREE", "#SIZE"]);
    let mut json = Vec::new();
    let mut add = |name: String, pages: HugePages, mut value: Value| {
        let bytes = size::show(pages.total * HUGE_PAGE_BYTES);
        rows.add([name.clone(), pages.total.to_string(), pages.free.to_string(), bytes]);
        value["node"] = json!(name);
        json.push(value);
    };
    for node in &nodes {
        if let Some(pages) = hugepages::status(system, Some(*node)) {
            add(node.to_string(), pages, pages_json(pages));
        }
    }
    if node.is_none()
        && nodes.len() != 1
        && let Some(pages) = hugepages::status(system, None)
    {
        add("all".to_owned(), pages, pages_json(pages));
    }
    Report::table(json.into(), rows, "this kernel has no huge pages of 2 MiB")
}

fn reserve(system: &System, node: Option<u32>, bytes: u64) -> Result<Report, Failure> {
    let pages = hugepages::reserve(system, node, bytes.div_ceil(HUGE_PAGE_BYTES)).map_err(failed)?;
    Ok(Report::say(pages_json(pages), said_of_pages(pages)))
}

fn pages_json(pages: HugePages) -> Value {
    json!({"page_bytes": HUGE_PAGE_BYTES, "total": pages.total, "free": pages.free})
}

fn said_of_pages(pages: HugePages) -> String {
    format!("{} of 2 MiB, {} free", pages.total, pages.free)
}
