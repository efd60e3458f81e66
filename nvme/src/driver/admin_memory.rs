//! Memory for the data of admin commands, and the PRP entries that describe it.
//!
//! Owns [`AdminMemory`] and the few pages that are kept for the next command. Invariant: what a command's PRP entries
//! name is all inside its own memory. The admin queue holds it for as long as the device may use it.

use crate::command::Command;
use crate::function::{DmaError, DmaMemory, Function};

/// A memory page of the controller (CC.MPS 0).
const PAGE: usize = 4096;
/// Most bytes of data of an admin command: what one PRP list in one page describes, and some to spare.
pub(super) const MAX_BYTES: usize = 1 << 20;
/// Pages kept.
const MAX_SPARE: usize = 8;

/// The data of one command.
#[derive(Debug)]
pub(super) struct AdminMemory {
    data: DmaMemory,
    /// The PRP list, for more than two pages.
    list: Option<DmaMemory>,
    bytes: usize,
}

/// Pages for the next commands.
#[derive(Debug, Default)]
pub(super) struct SparePages {
    pages: Vec<DmaMemory>,
}

impl SparePages {
    /// Memory for `bytes` bytes of data, at most [`MAX_BYTES`].
    pub(super) fn take(&mut self, function: &dyn Function, bytes: usize) -> Result<AdminMemory, DmaError> {
        debug_assert!(bytes <= MAX_BYTES, "checked by the admin queue");
        let pages = bytes.div_ceil(PAGE).max(1);
        if pages == 1
            && let Some(mut data) = self.pages.pop()
        {
            data.clear();
            return Ok(AdminMemory { data, list: None, bytes });
        }
        let data = function.allocate(pages * PAGE)?;
        let mut list = None;
        if pages > 2 {
            let mut entries = function.allocate(PAGE)?;
            for page in 1..pages {
                entries.write::<u64>((page - 1) * 8, data.device_address(page * PAGE).to_le());
            }
            list = Some(entries);
        }
        Ok(AdminMemory { data, list, bytes })
    }

    /// Takes memory that the device does not use any more.
    pub(super) fn give_back(&mut self, memory: AdminMemory) {
        if memory.list.is_none() && memory.data.bytes() == PAGE && self.pages.len() < MAX_SPARE {
            self.pages.push(memory.data);
        }
    }

    /// Gives all of it back to the function.
    pub(super) fn clear(&mut self) {
        self.pages.clear();
    }
}

impl AdminMemory {
    /// Fills in the data to the controller.
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        self.data.copy_from(0, bytes);
    }

    /// The data from the controller.
    pub(super) fn contents(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.bytes];
        self.data.copy_to(0, &mut bytes);
        bytes
    }

    /// The same command with PRP entries for this memory.
    pub(super) fn describe(&self, command: Command) -> Command {
        let second = match &self.list {
            Some(list) => list.device_address(0),
            None if self.data.bytes() > PAGE => self.data.device_address(PAGE),
            None => 0,
        };
        command.with_prps(self.data.device_address(0), second)
    }
}
