//! Who waits for the pool: commands of one reactor whose data has no buffer yet.
//!
//! Invariant: bounded by the sizes of all queues. A command may be listed that waits no longer, because it or its
//! connection has ended; whoever takes it off the list finds that out. Called by the poll group.

use std::collections::VecDeque;

/// Commands, as connection and slot, that wait for a buffer for the host's data, oldest first.
#[derive(Debug, Default)]
pub(crate) struct WaitingForBuffers {
    /// Those whose data is in the capsule; each holds up its connection.
    pub in_capsule: VecDeque<(u32, u16)>,
    /// Those that will ask for their data with an R2T.
    pub by_transfer: VecDeque<(u32, u16)>,
}

impl WaitingForBuffers {
    /// The commands whose data comes this way.
    pub fn of(&mut self, by_transfer: bool) -> &mut VecDeque<(u32, u16)> {
        if by_transfer { &mut self.by_transfer } else { &mut self.in_capsule }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.in_capsule.is_empty() && self.by_transfer.is_empty()
    }
}
