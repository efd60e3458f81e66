//! Flushes that no command asked for: when the target ends, and when a host shuts its controller down.
//!
//! Invariant: a controller's normal shutdown is complete only when every cache of its subsystem is durable, as far as
//! this reactor's channels can make it so, and a device's flush does so for all channels.

use sledge_nvme::io::{IoCommand, Operation, Submitted};

use super::PollGroup;

/// The connection number in tokens of these flushes. In place of the slot is the controller, or [`NOBODY`].
pub(super) const INTERNAL: u32 = u32::MAX;
/// No controller has this identifier.
const NOBODY: u16 = 0;

impl PollGroup {
    /// Starts a flush of every device with a volatile cache.
    pub fn flush_devices(&mut self) {
        let channels = self.shared.namespaces.cached();
        self.flushes += usize::from(self.flush_for(NOBODY, channels));
    }

    /// Starts flushes; how many are under way.
    fn flush_for(&mut self, whom: u16, channels: Vec<usize>) -> u16 {
        let token = u64::from(INTERNAL) << 16 | u64::from(whom);
        let mut pending = 0;
        for channel in channels {
            let io = IoCommand::new(token, Operation::Flush, 0, 0);
            pending += u16::from(matches!(self.shared.namespaces.submit(channel, io), Submitted::Pending));
        }
        pending
    }

    /// The last I/O queue of a controller is closed: its reset or shutdown finishes, after flushes if need be.
    pub(super) fn queues_closed(&mut self, controller_id: u16) {
        let Some(entry) = self.shared.controllers.entry(controller_id) else { return };
        if entry.flushes == 0 && entry.controller.shuts_down_normally() {
            let channels = self.shared.namespaces.cached_of(&entry.controller.identity().subsystem_nqn);
            let flushes = self.flush_for(controller_id, channels);
            if let Some(entry) = self.shared.controllers.entry(controller_id) {
                entry.flushes = flushes;
            }
        }
        self.finish_closing(controller_id);
    }

    /// A flush is done, or failed: a device that can't flush does not keep hosts from shutting down.
    pub(super) fn flushed(&mut self, whom: u16) {
        if whom == NOBODY {
            self.flushes -= 1;
            return;
        }
        // The controller may be gone, with its admin queue.
        let Some(entry) = self.shared.controllers.entry(whom) else { return };
        entry.flushes = entry.flushes.saturating_sub(1);
        self.finish_closing(whom);
    }

    fn finish_closing(&mut self, controller_id: u16) {
        let Some(entry) = self.shared.controllers.entry(controller_id) else { return };
        if entry.flushes == 0 && entry.queues.is_empty() {
            entry.controller.queues_gone();
            self.shared.collect_actions(controller_id);
        }
    }
}
