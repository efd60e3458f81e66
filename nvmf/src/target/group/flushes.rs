//! Flushes that no command asked for: when the target ends, and when a host shuts its controller down.
//!
//! Invariants: a controller's normal shutdown is complete only when every cache of its subsystem is durable, as far as
//! this reactor's channels can make it so, and a device's flush does so for all channels. What ends a shutdown are its own
//! flushes: they are known by the place of their round, which no other round gets while one of them is under way. A
//! controller may go before its flushes, and its identifier to another one.

use sledge_nvme::io::{IoCommand, Operation, Submitted};

use super::PollGroup;

/// The connection number in tokens of these flushes. In place of the slot is the round, or [`NOBODY`].
pub(super) const INTERNAL: u32 = u32::MAX;
/// Of flushes whose end nobody is told.
const NOBODY: u16 = u16::MAX;

/// Flushes that one controller's shutdown waits for.
#[derive(Debug)]
pub(super) struct Round {
    controller_id: u16,
    left: u16,
}

impl PollGroup {
    /// Starts a flush of every device with a volatile cache.
    pub fn flush_devices(&mut self) {
        let channels = self.shared.namespaces.cached();
        self.start_flushes(NOBODY, channels);
    }

    /// Starts flushes; how many are under way.
    fn start_flushes(&mut self, round: u16, channels: Vec<usize>) -> u16 {
        let token = u64::from(INTERNAL) << 16 | u64::from(round);
        let mut pending = 0;
        for channel in channels {
            let io = IoCommand::new(token, Operation::Flush, 0, 0);
            pending += u16::from(matches!(self.shared.namespaces.submit(channel, io), Submitted::Pending));
        }
        pending
    }

    /// Starts the flushes of a controller that shuts down; the place of their round, if any is under way.
    fn start_round(&mut self, controller_id: u16, channels: Vec<usize>) -> Option<u16> {
        let place = self.rounds.iter().position(Option::is_none).unwrap_or(self.rounds.len());
        let round = u16::try_from(place).ok().filter(|round| *round != NOBODY)?;
        let left = self.start_flushes(round, channels);
        if left == 0 {
            return None;
        }
        if place == self.rounds.len() {
            self.rounds.push(None);
        }
        self.rounds[place] = Some(Round { controller_id, left });
        Some(round)
    }

    /// The last I/O queue of a controller is closed: its reset or shutdown finishes, after flushes if need be.
    pub(super) fn queues_closed(&mut self, controller_id: u16) {
        let Some(entry) = self.shared.controllers.entry(controller_id) else { return };
        if entry.flushing.is_none() && entry.controller.shuts_down_normally() {
            let channels = self.shared.namespaces.cached_of(&entry.controller.identity().subsystem_nqn);
            let round = self.start_round(controller_id, channels);
            if let Some(entry) = self.shared.controllers.entry(controller_id) {
                entry.flushing = round;
            }
        }
        self.finish_closing(controller_id);
    }

    /// A flush is done, or failed: a device that can't flush does not keep hosts from shutting down.
    pub(super) fn flushed(&mut self, round: u16) {
        let Some(place) = self.rounds.get_mut(usize::from(round)) else { return };
        let Some(Round { controller_id, left }) = place else { return };
        *left -= 1;
        if *left > 0 {
            return;
        }
        let controller_id = *controller_id;
        *place = None;
        // The controller may be gone, with its admin queue; the one of this identifier waits for other flushes then.
        let Some(entry) = self.shared.controllers.entry(controller_id) else { return };
        if entry.flushing == Some(round) {
            entry.flushing = None;
            self.finish_closing(controller_id);
        }
    }

    fn finish_closing(&mut self, controller_id: u16) {
        let Some(entry) = self.shared.controllers.entry(controller_id) else { return };
        if entry.flushing.is_none() && entry.queues.is_empty() {
            entry.controller.queues_gone();
            self.shared.collect_actions(controller_id);
        }
    }
}
