//! Which NVMe controllers came and went: one look at the bus after the other.
//!
//! Invariant: a controller that was taken out and put in again between two looks is seen to have gone and come, as its
//! folder is another one. Called by whoever attaches drives again after they were away.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use super::PciAddress;
use super::system::{System, names, number};

/// What happened to a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There is a new one.
    Came(PciAddress),
    /// One is no longer there.
    Went(PciAddress),
}

/// Remembers what was there at the last look.
pub struct Watch {
    system: System,
    /// By address, the number of its folder.
    there: BTreeMap<PciAddress, u64>,
}

impl Watch {
    /// Remembers what is there now.
    #[must_use]
    pub fn new(system: System) -> Watch {
        let there = look(&system);
        Watch { system, there }
    }

    /// What came and went since the last look: first all that went. Reads one folder, and a file for each function in
    /// it that was not there before; some times a second does not hurt.
    pub fn changes(&mut self) -> Vec<Change> {
        let now = look(&self.system);
        let went = self.there.iter().filter(|(address, folder)| now.get(address) != Some(folder));
        let came = now.iter().filter(|(address, folder)| self.there.get(address) != Some(folder));
        let mut changes: Vec<Change> = went.map(|(address, _)| Change::Went(*address)).collect();
        changes.extend(came.map(|(address, _)| Change::Came(*address)));
        self.there = now;
        changes
    }
}

fn look(system: &System) -> BTreeMap<PciAddress, u64> {
    let addresses =
        names(&system.path("/sys/bus/pci/devices")).into_iter().filter_map(|name| name.parse().ok());
    addresses
        .filter_map(|address: PciAddress| {
            let folder = system.function(&address);
            let class = number(&folder.join("class"))?;
            (class >> 8 == 0x0108).then_some(())?;
            Some((address, std::fs::metadata(&folder).ok()?.ino()))
        })
        .collect()
}
