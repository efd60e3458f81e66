//! What an engine with a queue pair does for reactors that have none.
//!
//! Owns nothing; it is the engine's. Invariant: commands of other reactors take only slots that are free after this
//! reactor's own have been issued.

use sledge_reactor::time;

use super::engine::Engine;
use super::io_queue::QueueState;
use super::lender::Lane;

impl Engine {
    /// Lets another reactor submit through this one's queue pair; `None` when it has none itself, or lends to too many.
    pub fn lend(&mut self) -> Option<Lane> {
        let slots = self.device.as_ref()?.port.own()?.slots();
        let (lane, lent) = Lane::to_here(slots);
        self.lanes.insert(lent).ok()?;
        Some(lane)
    }

    /// Puts on the device what other reactors have sent.
    pub fn serve_lanes(&mut self) {
        let now = time::now();
        let pair = self.device.as_deref_mut().and_then(|device| device.port.own_mut());
        let mut pair = pair.filter(|_| self.state == QueueState::Running);
        let mut over = None;
        for (number, lane) in self.lanes.iter_mut() {
            match (&mut pair, self.state) {
                (Some(pair), _) => lane.serve(number, pair, now),
                (None, QueueState::Failed(status)) => lane.refuse(status),
                (None, _) => {}
            }
            if lane.is_over() {
                over = Some(number);
            }
        }
        if let Some(number) = over {
            self.lanes.discard(number);
        }
    }

    /// Whether no other reactor needs this one to take turns now. If so, they wake it when they do.
    pub fn lanes_may_rest(&self) -> bool {
        self.state == QueueState::Stopped || self.lanes.iter().all(|(_, lane)| lane.may_rest())
    }

    /// Whether other reactors submit through this one.
    pub fn lends(&self) -> bool {
        self.lanes.len() > 0
    }
}
