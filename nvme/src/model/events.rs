//! Asynchronous events, the error log, and namespaces that come and go.
//!
//! Owns what waits to be reported. Invariant: one event of a type is reported, then none of that type until the host
//! has read the log page that clears it (Base 5.2).

use std::collections::{BTreeSet, VecDeque};

use zerocopy::little_endian::U32;

use super::controller::State;
use super::media::Media;
use super::options::ModelNamespace;
use crate::async_event::{EventResult, EventType, Notice};
use crate::feature::{AsyncEventConfiguration, Feature};
use crate::log_page::ErrorEntry;
use crate::{Command, Status};

/// Entries of the error log.
pub(super) const ERROR_ENTRIES: usize = 16;

/// Events and the requests for them.
#[derive(Default)]
pub(super) struct Events {
    requests: VecDeque<Command>,
    waiting: VecDeque<EventResult>,
    /// Types that were reported and not cleared.
    reported: BTreeSet<u8>,
    pub changed: BTreeSet<u32>,
    pub errors: VecDeque<ErrorEntry>,
    pub error_count: u64,
}

impl State {
    fn is_enabled(&self, event: EventResult) -> bool {
        let bits = self.features.get(&Feature::AsyncEventConfiguration.value()).copied().unwrap_or(0);
        let enabled = AsyncEventConfiguration::from_bits(bits);
        match event.as_notice() {
            Some(Notice::NamespaceAttributeChanged) => enabled.namespace_attribute(),
            Some(Notice::FirmwareActivationStarting) => enabled.firmware_activation(),
            Some(Notice::AnaChange) => enabled.ana_change(),
            _ if event.event_type() == EventType::Health.value() => enabled.critical_warnings() != 0,
            _ => true,
        }
    }

    pub(super) fn raise(&mut self, event: EventResult) {
        if self.is_enabled(event) && !self.events.waiting.contains(&event) {
            self.events.waiting.push_back(event);
            self.report();
        }
    }

    /// Answers requests with events.
    fn report(&mut self) {
        while let Some(index) =
            self.events.waiting.iter().position(|event| !self.events.reported.contains(&event.event_type()))
        {
            let Some(request) = self.events.requests.pop_front() else { return };
            if let Some(event) = self.events.waiting.remove(index) {
                self.events.reported.insert(event.event_type());
                self.complete(0, &request, Status::SUCCESS, event.bits());
            }
        }
    }

    pub(super) fn request_event(&mut self, command: &Command) {
        if self.events.requests.len() > usize::from(self.options.event_limit_minus_one) {
            self.violation("more Asynchronous Event Requests than AERL");
            return self.complete(0, command, Status::ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED.do_not_retry(), 0);
        }
        self.events.requests.push_back(*command);
        self.report();
    }

    /// Aborts a request for events.
    pub(super) fn abort_request(&mut self, cid: u16) -> bool {
        let position = self.events.requests.iter().position(|request| request.cid.get() == cid);
        if let Some(request) = position.and_then(|position| self.events.requests.remove(position)) {
            self.complete(0, &request, Status::ABORTED_BY_REQUEST, 0);
        }
        position.is_some()
    }

    /// The host read a log page: events that it clears may be reported again.
    pub(super) fn clear_events(&mut self, log_page: u8) {
        let kinds: &[EventType] = match log_page {
            1 => &[EventType::Error],
            2 => &[EventType::Health],
            3 | 4 | 0x0c => &[EventType::Notice],
            _ => &[],
        };
        for kind in kinds {
            self.events.reported.remove(&kind.value());
        }
        if log_page == 4 {
            self.events.changed.clear();
        }
        self.report();
    }

    pub(super) fn log_error(&mut self, queue: u16, command: &Command, status: Status) {
        self.events.error_count += 1;
        let mut entry = ErrorEntry::new(self.events.error_count, queue, command.cid.get(), status);
        entry.nsid = command.nsid;
        entry.set_opcode(0, command.opcode);
        self.events.errors.push_front(entry);
        self.events.errors.truncate(ERROR_ENTRIES);
    }

    pub(super) fn set_namespace(&mut self, namespace: ModelNamespace) {
        let nsid = namespace.nsid;
        match self.media.get_mut(&nsid) {
            Some(media) if media.namespace.block_bytes == namespace.block_bytes => {
                media.namespace = namespace
            }
            _ => drop(self.media.insert(nsid, Media::new(namespace))),
        }
        self.namespace_changed(nsid);
    }

    pub(super) fn remove_namespace(&mut self, nsid: u32) -> bool {
        let removed = self.media.remove(&nsid).is_some();
        if removed {
            self.namespace_changed(nsid);
        }
        removed
    }

    pub(super) fn namespace_changed(&mut self, nsid: u32) {
        self.events.changed.insert(U32::new(nsid).get());
        self.raise(EventResult::notice(Notice::NamespaceAttributeChanged));
    }
}
