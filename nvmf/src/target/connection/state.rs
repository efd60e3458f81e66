//! The life of one NVMe/TCP connection, from accept to close, as a table of states and events.
//!
//! Pure: it decides what happens next and [`super`] does it. Invariant: every (state, event) pair is decided
//! here, [`State::Closed`] is final, and it is reached only when no command is left at a device, so that a
//! command's completion always finds its connection.

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The socket is open and ICReq has not arrived (NVMe/TCP 1.0, 3.1).
    Initializing,
    /// ICResp is on its way; only a Fabrics Connect is accepted.
    Initialized,
    /// A Connect is being decided, here or on the reactor that owns the controller. Nothing is read meanwhile.
    Connecting,
    /// The queue has been created and takes commands.
    Live,
    /// C2HTermReq is on its way; whatever arrives is read and thrown away until the host closes or a deadline.
    Terminating,
    /// The socket is closed; commands are still at their devices.
    Draining,
    /// Nothing is left; the connection's place may be used again.
    Closed,
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A well-formed ICReq arrived.
    InitializeRequest,
    /// A Connect command arrived with all of its data.
    ConnectRequest,
    /// The Connect was granted.
    ConnectGranted,
    /// The Connect was refused; the host may try again on the same connection.
    ConnectRefused,
    /// The host broke the protocol in a way that a C2HTermReq answers.
    ProtocolError,
    /// The stream ended, failed, or was terminated by the host (H2CTermReq): nothing more can be sent.
    StreamEnded,
    /// The controller, the management side or a deadline wants this connection gone.
    Disconnect,
    /// The last command has come back from its device.
    Drained,
}

/// What the connection has to do after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Queue ICResp.
    Accept,
    /// Decide the Connect.
    Decide,
    /// Make the queue and answer the Connect.
    Admit,
    /// Answer the Connect with the status of the refusal.
    Refuse,
    /// Queue C2HTermReq, take no more commands, and start the deadline.
    Terminate,
    /// Close the socket, drop what is queued, and wait for the devices.
    Close,
    /// Give the place free.
    Release,
}

impl State {
    /// Decides one event: the next state, and what to do.
    #[must_use]
    pub fn next(self, event: Event) -> (Self, Effect) {
        use Effect as F;
        use Event as E;
        use State as S;
        match (self, event) {
            (S::Initializing, E::InitializeRequest) => (S::Initialized, F::Accept),
            (S::Initialized, E::ConnectRequest) => (S::Connecting, F::Decide),
            (S::Connecting, E::ConnectGranted) => (S::Live, F::Admit),
            (S::Connecting, E::ConnectRefused) => (S::Initialized, F::Refuse),

            // A second ICReq, or a Connect out of its place, is a PDU sequence error (NVMe/TCP 1.0, 3.4.2);
            // the decoder and the command checks report it, and if they did not, this does.
            (S::Initialized | S::Connecting | S::Live, E::InitializeRequest)
            | (S::Initializing | S::Connecting | S::Live, E::ConnectRequest) => {
                (S::Terminating, F::Terminate)
            }

            (S::Initializing | S::Initialized | S::Connecting | S::Live, E::ProtocolError) => {
                (S::Terminating, F::Terminate)
            }
            (S::Initializing | S::Initialized | S::Connecting | S::Live | S::Terminating, E::StreamEnded)
            | (S::Initializing | S::Initialized | S::Connecting | S::Live | S::Terminating, E::Disconnect) => {
                (S::Draining, F::Close)
            }

            // A decision that comes back after the connection began to end has nobody to tell.
            (S::Terminating | S::Draining | S::Closed, E::ConnectGranted | E::ConnectRefused) => {
                (self, F::None)
            }
            (S::Initializing | S::Initialized | S::Live, E::ConnectGranted | E::ConnectRefused) => {
                (self, F::None)
            }

            // What arrives while terminating is thrown away.
            (S::Terminating, E::InitializeRequest | E::ConnectRequest | E::ProtocolError) => (self, F::None),

            (S::Draining, E::Drained) => (S::Closed, F::Release),
            (S::Draining, _) => (self, F::None),

            // Commands also run out while the connection lives: nothing follows from that.
            (S::Initializing | S::Initialized | S::Connecting | S::Live | S::Terminating, E::Drained) => {
                (self, F::None)
            }

            (S::Closed, _) => (self, F::None),
        }
    }

    /// Whether bytes that arrive are looked at.
    #[must_use]
    pub fn reads(self) -> bool {
        matches!(self, Self::Initializing | Self::Initialized | Self::Live)
    }

    /// Whether commands are answered: nothing may follow a C2HTermReq (NVMe/TCP 1.0, 3.4.1).
    #[must_use]
    pub fn answers(self) -> bool {
        !matches!(self, Self::Terminating | Self::Draining | Self::Closed)
    }

    /// Whether a deadline runs: before the Connect is done, and while terminating.
    #[must_use]
    pub fn has_deadline(self) -> bool {
        matches!(self, Self::Initializing | Self::Initialized | Self::Connecting | Self::Terminating)
    }
}

#[cfg(test)]
mod tests {
    use super::{Effect as F, Event as E, State as S};

    const STATES: [S; 7] =
        [S::Initializing, S::Initialized, S::Connecting, S::Live, S::Terminating, S::Draining, S::Closed];
    const EVENTS: [E; 8] = [
        E::InitializeRequest,
        E::ConnectRequest,
        E::ConnectGranted,
        E::ConnectRefused,
        E::ProtocolError,
        E::StreamEnded,
        E::Disconnect,
        E::Drained,
    ];

    // Without this a changed edge of the table goes unseen: each row is one (state, event) pair, all 56 are listed.
    #[test]
    fn every_edge_is_as_decided() {
        let (initializing, initialized, connecting, live) =
            (S::Initializing, S::Initialized, S::Connecting, S::Live);
        let (terminating, draining, closed) = (S::Terminating, S::Draining, S::Closed);
        let (term, close) = ((terminating, F::Terminate), (draining, F::Close));
        let stay = |state| (state, F::None);
        // Columns in the order of EVENTS.
        let table = [
            (
                initializing,
                [
                    (initialized, F::Accept),
                    term,
                    stay(initializing),
                    stay(initializing),
                    term,
                    close,
                    close,
                    stay(initializing),
                ],
            ),
            (
                initialized,
                [
                    term,
                    (connecting, F::Decide),
                    stay(initialized),
                    stay(initialized),
                    term,
                    close,
                    close,
                    stay(initialized),
                ],
            ),
            (
                connecting,
                [
                    term,
                    term,
                    (live, F::Admit),
                    (initialized, F::Refuse),
                    term,
                    close,
                    close,
                    stay(connecting),
                ],
            ),
            (live, [term, term, stay(live), stay(live), term, close, close, stay(live)]),
            (
                terminating,
                [
                    stay(terminating),
                    stay(terminating),
                    stay(terminating),
                    stay(terminating),
                    stay(terminating),
                    close,
                    close,
                    stay(terminating),
                ],
            ),
            (
                draining,
                [
                    stay(draining),
                    stay(draining),
                    stay(draining),
                    stay(draining),
                    stay(draining),
                    stay(draining),
                    stay(draining),
                    (closed, F::Release),
                ],
            ),
            (closed, [stay(closed); 8]),
        ];
        for (row, (state, edges)) in table.into_iter().enumerate() {
            assert_eq!(state, STATES[row]);
            for (column, edge) in edges.into_iter().enumerate() {
                assert_eq!(state.next(EVENTS[column]), edge, "{state:?} on {:?}", EVENTS[column]);
            }
        }
    }

    // Without this a connection could be brought back from the dead, or its place given away twice.
    #[test]
    fn closing_is_final_and_releases_once() {
        for state in STATES {
            for first in EVENTS {
                let (next, effect) = state.next(first);
                if effect == F::Release {
                    assert_eq!((state, first, next), (S::Draining, E::Drained, S::Closed));
                    for second in EVENTS {
                        assert_eq!(next.next(second), (S::Closed, F::None));
                    }
                }
            }
        }
    }
}
