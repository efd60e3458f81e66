//! Asynchronous events of one controller (Base 5.2): requests that wait, events that wait.
//!
//! Invariant: at most one event of each kind waits or has been reported and not yet been cleared, so nothing here
//! grows; a kind that was reported is masked until the host reads its log page without Retain Asynchronous Event.
//! [`Controller`](super::Controller) raises and clears; the poll group sends what [`Events::deliver`] pairs up.

use std::collections::VecDeque;

use sledge_nvme::Status;
use sledge_nvme::async_event::{EventResult, Notice};
use sledge_nvme::identify::capability::oaes;
use sledge_nvme::log_page::LogPage;

/// The events that a controller reports, each with the log page that clears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// The list of namespaces or a namespace's Identify data changed.
    NamespaceAttribute,
    /// An ANA group changed its state.
    AnaChange,
    /// The discovery log changed.
    DiscoveryLog,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::NamespaceAttribute, Self::AnaChange, Self::DiscoveryLog];

    /// Bit of Asynchronous Event Configuration and of OAES that enables the kind (Base 5.27.1.7).
    pub const fn bit(self) -> u32 {
        match self {
            Self::NamespaceAttribute => oaes::NAMESPACE_ATTRIBUTE,
            Self::AnaChange => oaes::ANA_CHANGE,
            Self::DiscoveryLog => oaes::DISCOVERY_CHANGE,
        }
    }

    /// The kind whose events are cleared by reading a log page.
    pub fn of_log_page(page: LogPage) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.result().log_page() == page.value())
    }

    /// Result of the request that reports it; it names the log page that tells more.
    const fn result(self) -> EventResult {
        EventResult::notice(match self {
            Self::NamespaceAttribute => Notice::NamespaceAttributeChanged,
            Self::AnaChange => Notice::AnaChange,
            Self::DiscoveryLog => Notice::DiscoveryChange,
        })
    }
}

/// How far an event of one kind has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    #[default]
    Quiet,
    /// Waits for a request.
    Pending,
    /// Reported, and not to be reported again until cleared.
    Masked,
}

/// Requests and events that wait for each other.
#[derive(Debug)]
pub(super) struct Events {
    held: VecDeque<u16>,
    limit: usize,
    progress: [Progress; EventKind::ALL.len()],
}

impl Events {
    /// Nothing waits; at most `limit` requests may.
    pub fn new(limit: u8) -> Self {
        Self { held: VecDeque::new(), limit: limit.into(), progress: Default::default() }
    }

    /// Keeps an Asynchronous Event Request until there is an event.
    pub fn hold(&mut self, cid: u16) -> Result<(), Status> {
        if self.held.len() >= self.limit {
            return Err(Status::ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED);
        }
        self.held.push_back(cid);
        Ok(())
    }

    /// Takes a request back, if it still waits.
    pub fn take(&mut self, cid: u16) -> bool {
        let found = self.held.iter().position(|&held| held == cid);
        found.is_some_and(|at| self.held.remove(at).is_some())
    }

    /// Something happened that the host wants to know about.
    pub fn raise(&mut self, kind: EventKind) {
        let progress = &mut self.progress[kind as usize];
        if *progress == Progress::Quiet {
            *progress = Progress::Pending;
        }
    }

    /// The host has read the log page of `kind`, or does not want to know about it any more.
    pub fn clear(&mut self, kind: EventKind) {
        self.progress[kind as usize] = Progress::Quiet;
    }

    /// Pairs the oldest request with an event: the request's command identifier and its completion dword 0.
    pub fn deliver(&mut self) -> Option<(u16, u64)> {
        let kind =
            EventKind::ALL.into_iter().find(|&kind| self.progress[kind as usize] == Progress::Pending)?;
        let cid = self.held.pop_front()?;
        self.progress[kind as usize] = Progress::Masked;
        Some((cid, kind.result().bits().into()))
    }

    /// Forgets all events and gives all requests back, for a reset.
    pub fn reset(&mut self) -> VecDeque<u16> {
        self.progress = Default::default();
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets an event be lost when it comes before its request, or be reported again and again.
    #[test]
    fn an_event_waits_for_a_request_and_is_then_masked() {
        let mut events = Events::new(4);
        events.raise(EventKind::NamespaceAttribute);
        assert_eq!(events.deliver(), None);
        assert_eq!(events.hold(7), Ok(()));
        assert_eq!(events.hold(8), Ok(()));
        assert_eq!(events.deliver(), Some((7, 0x0004_0002)));
        events.raise(EventKind::NamespaceAttribute);
        assert_eq!(events.deliver(), None);
        events.raise(EventKind::AnaChange);
        assert_eq!(events.deliver(), Some((8, 0x000c_0302)));
        events.clear(EventKind::NamespaceAttribute);
        events.raise(EventKind::NamespaceAttribute);
        assert_eq!(events.hold(9), Ok(()));
        assert_eq!(events.deliver(), Some((9, 0x0004_0002)));
        events.raise(EventKind::DiscoveryLog);
        assert_eq!(events.hold(10), Ok(()));
        assert_eq!(events.deliver(), Some((10, 0x0070_f002)));
    }

    // Deleting this lets a host hold requests without bound, or an aborted request be answered a second time.
    #[test]
    fn requests_are_bounded_and_can_be_taken_back() {
        let mut events = Events::new(2);
        assert_eq!((events.hold(1), events.hold(2)), (Ok(()), Ok(())));
        assert_eq!(events.hold(3), Err(Status::ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED));
        assert!(events.take(1) && !events.take(1));
        events.raise(EventKind::AnaChange);
        assert_eq!(events.deliver(), Some((2, 0x000c_0302)));
        assert_eq!(events.hold(4), Ok(()));
        assert_eq!(events.reset(), [4]);
        assert_eq!(events.deliver(), None);
    }
}
