//! The life of a controller, as a state, the events that change it and one function over both.
//!
//! Invariant: [`next`] decides every pair of state and event, and is the only place where a controller's state
//! changes. [`Controller`](super::Controller) turns property writes, timers and the poll group's reports into
//! events and carries the effects out.

use sledge_nvme::property::{ControllerStatus, ShutdownStatus};

/// Where a controller stands (Base 3.5 to 3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// CC.EN is 0, or has never been 1: only Fabrics commands are answered.
    Disabled,
    /// CC.EN is 1 and CSTS.RDY is 1.
    Ready,
    /// CC.EN went from 1 to 0; the I/O queues are being closed.
    Disabling,
    /// CC.SHN announced a shutdown; the I/O queues are being closed.
    ShuttingDown,
    /// CSTS.SHST says that shutdown processing is complete.
    ShutDown,
    /// CSTS.CFS is 1: the host asked for something that cannot be, and has to reset the controller.
    Failed,
    /// All its connections are being closed; nothing revives it.
    Terminated,
}

/// What happens to a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// CC.EN goes from 0 to 1 with a configuration that the controller supports.
    Enable,
    /// CC.EN goes from 0 to 1 with a configuration that it does not support.
    EnableUnsupported,
    /// CC.EN goes from 1 to 0.
    Disable,
    /// CC.SHN goes from "no notification" to a shutdown notification.
    Shutdown,
    /// The poll group has closed all I/O queues.
    QueuesGone,
    /// A timer ran out, or what the controller belongs to is gone.
    Terminate,
}

/// What the controller has to do because of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Timers start; commands are answered from now on.
    Start,
    /// Everything that a controller level reset resets goes back to its default (Base 3.7.2).
    Reset,
    /// As [`Effect::Reset`], and the I/O queues are to be closed.
    ResetAndDrain,
    /// The I/O queues are to be closed; all else stays.
    Drain,
    /// Every connection is to be closed.
    Close,
    /// The property write is answered with an error and changes nothing.
    Refuse,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Disabled,
        Self::Ready,
        Self::Disabling,
        Self::ShuttingDown,
        Self::ShutDown,
        Self::Failed,
        Self::Terminated,
    ];

    /// CSTS as the host sees it in this state, with CC.EN as given (Base 3.1.3.6).
    #[must_use]
    pub const fn status(self, enabled: bool) -> ControllerStatus {
        let status = ControllerStatus::from_bits(0);
        match self {
            Self::Disabled => status,
            Self::Ready | Self::Disabling => status.with_ready(true),
            Self::ShuttingDown => status.with_ready(enabled).with_shutdown(ShutdownStatus::Occurring),
            Self::ShutDown => status.with_ready(enabled).with_shutdown(ShutdownStatus::Complete),
            Self::Failed | Self::Terminated => status.with_fatal(true),
        }
    }
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 6] = [
        Self::Enable,
        Self::EnableUnsupported,
        Self::Disable,
        Self::Shutdown,
        Self::QueuesGone,
        Self::Terminate,
    ];
}

/// The state after an event, and what to do.
#[must_use]
pub const fn next(state: State, event: Event) -> (State, Effect) {
    use Effect as F;
    use Event as E;
    use State as S;
    match (state, event) {
        (S::Terminated, E::Enable | E::EnableUnsupported) => (S::Terminated, F::Refuse),
        (S::Terminated, _) => (S::Terminated, F::None),
        (_, E::Terminate) => (S::Terminated, F::Close),

        (S::Disabled | S::ShutDown, E::Enable) => (S::Ready, F::Start),
        (S::Disabled | S::ShutDown, E::EnableUnsupported) => (S::Failed, F::None),
        // Nothing runs, so nothing has to be waited for.
        (S::Disabled | S::Failed, E::Shutdown) => (S::ShutDown, F::None),
        (S::Disabled, E::Disable | E::QueuesGone) => (S::Disabled, F::None),

        (S::Ready, E::Disable) => (S::Disabling, F::ResetAndDrain),
        (S::Ready, E::Shutdown) => (S::ShuttingDown, F::Drain),
        // Enabled already: not an edge. Queues that the host closed by itself are no news either.
        (S::Ready, E::Enable | E::QueuesGone) => (S::Ready, F::None),
        (S::Ready, E::EnableUnsupported) => (S::Ready, F::Refuse),

        // Enabled again while CSTS.RDY is still 1: the specification leaves it undefined (Base 3.1.3.5).
        (S::Disabling | S::ShuttingDown, E::Enable | E::EnableUnsupported) => (state, F::Refuse),
        (S::Disabling, E::Disable) => (S::Disabling, F::None),
        // The queues are being closed already; the host then waits for SHST rather than for RDY.
        (S::Disabling, E::Shutdown) => (S::ShuttingDown, F::None),
        (S::Disabling, E::QueuesGone) => (S::Disabled, F::None),

        (S::ShuttingDown, E::Disable) => (S::Disabling, F::Reset),
        (S::ShuttingDown, E::Shutdown) => (S::ShuttingDown, F::None),
        (S::ShuttingDown, E::QueuesGone) => (S::ShutDown, F::None),

        (S::ShutDown, E::Disable) => (S::Disabled, F::Reset),
        (S::ShutDown, E::Shutdown | E::QueuesGone) => (S::ShutDown, F::None),

        (S::Failed, E::Disable) => (S::Disabled, F::Reset),
        (S::Failed, E::Enable | E::EnableUnsupported) => (S::Failed, F::Refuse),
        (S::Failed, E::QueuesGone) => (S::Failed, F::None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every edge, in the order of `State::ALL` and `Event::ALL`.
    const EDGES: [[(State, Effect); 6]; 7] = {
        use Effect as F;
        use State as S;
        [
            // Disabled
            [
                (S::Ready, F::Start),
                (S::Failed, F::None),
                (S::Disabled, F::None),
                (S::ShutDown, F::None),
                (S::Disabled, F::None),
                (S::Terminated, F::Close),
            ],
            // Ready
            [
                (S::Ready, F::None),
                (S::Ready, F::Refuse),
                (S::Disabling, F::ResetAndDrain),
                (S::ShuttingDown, F::Drain),
                (S::Ready, F::None),
                (S::Terminated, F::Close),
            ],
            // Disabling
            [
                (S::Disabling, F::Refuse),
                (S::Disabling, F::Refuse),
                (S::Disabling, F::None),
                (S::ShuttingDown, F::None),
                (S::Disabled, F::None),
                (S::Terminated, F::Close),
            ],
            // ShuttingDown
            [
                (S::ShuttingDown, F::Refuse),
                (S::ShuttingDown, F::Refuse),
                (S::Disabling, F::Reset),
                (S::ShuttingDown, F::None),
                (S::ShutDown, F::None),
                (S::Terminated, F::Close),
            ],
            // ShutDown
            [
                (S::Ready, F::Start),
                (S::Failed, F::None),
                (S::Disabled, F::Reset),
                (S::ShutDown, F::None),
                (S::ShutDown, F::None),
                (S::Terminated, F::Close),
            ],
            // Failed
            [
                (S::Failed, F::Refuse),
                (S::Failed, F::Refuse),
                (S::Disabled, F::Reset),
                (S::ShutDown, F::None),
                (S::Failed, F::None),
                (S::Terminated, F::Close),
            ],
            // Terminated
            [
                (S::Terminated, F::Refuse),
                (S::Terminated, F::Refuse),
                (S::Terminated, F::None),
                (S::Terminated, F::None),
                (S::Terminated, F::None),
                (S::Terminated, F::None),
            ],
        ]
    };

    // Deleting this lets an edge of the controller's life change without anyone having decided it.
    #[test]
    fn every_edge_is_decided() {
        for (row, state) in EDGES.iter().zip(State::ALL) {
            for (expected, event) in row.iter().zip(Event::ALL) {
                assert_eq!(next(state, event), *expected, "{state:?} on {event:?}");
            }
        }
    }

    // Deleting this lets a host wait for ever for RDY or SHST, or use a controller that is not ready.
    #[test]
    fn csts_follows_the_state() {
        let bits = State::ALL.map(|state| (state.status(true).bits(), state.status(false).bits()));
        assert_eq!(
            bits,
            [(0x0, 0x0), (0x1, 0x1), (0x1, 0x1), (0x5, 0x4), (0x9, 0x8), (0x2, 0x2), (0x2, 0x2),]
        );
    }

    // Deleting this lets a reset or a shutdown never finish: from each state that waits, the end of the queues
    // leads to one that does not.
    #[test]
    fn waiting_ends_with_the_queues() {
        assert_eq!(next(State::Disabling, Event::QueuesGone).0, State::Disabled);
        assert_eq!(next(State::ShuttingDown, Event::QueuesGone).0, State::ShutDown);
    }
}
