//! What has come and gone: the last changes that clients may want to follow, numbered.
//!
//! Invariant: numbers begin with 0 and rise by one; only the last [`KEPT`] events are kept, so that the numbers a client
//! finds tell it whether it has missed some. Written by the daemon when a change has been made.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many events are kept.
pub const KEPT: usize = 1024;

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is a new device.
    DeviceCame,
    /// A device is no more.
    DeviceWent,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 2] = [Kind::DeviceCame, Kind::DeviceWent];

    /// Its name, which is SPDK's.
    pub fn name(self) -> &'static str {
        match self {
            Kind::DeviceCame => "bdev_register",
            Kind::DeviceWent => "bdev_unregister",
        }
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What has happened.
    pub kind: Kind,
    /// The name of what it happened to.
    pub subject: String,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the first.
    first: u64,
    events: VecDeque<Event>,
}

/// The last events.
#[derive(Debug, Default)]
pub struct Events(Mutex<Kept>);

impl Events {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds events in their order.
    pub fn add(&self, events: impl IntoIterator<Item = Event>) {
        let mut kept = self.lock();
        for event in events {
            if kept.events.len() == KEPT {
                kept.events.pop_front();
                kept.first += 1;
            }
            kept.events.push_back(event);
        }
    }

    /// Those with the number `id` and above that are still there, at most so many, with their numbers.
    pub fn since(&self, id: u64, most: usize) -> Vec<(u64, Event)> {
        let kept = self.lock();
        let past = usize::try_from(id.saturating_sub(kept.first)).unwrap_or(usize::MAX);
        (kept.first..)
            .zip(&kept.events)
            .skip(past)
            .take(most)
            .map(|(id, event)| (id, event.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event { kind: Kind::DeviceCame, subject: number.to_string() }
    }

    // Without it: the target's memory would grow with each device, or a client miss events without learning of it.
    #[test]
    fn the_last_are_kept_with_their_numbers() {
        let events = Events::default();
        assert_eq!(events.since(0, 9), []);
        events.add((0..3).map(event));
        assert_eq!(events.since(1, 1), [(1, event(1))]);
        assert_eq!(events.since(3, 9), []);
        events.add((3..KEPT as u64 + 2).map(event));
        let all = events.since(0, usize::MAX);
        assert_eq!((all.len(), &all[0]), (KEPT, &(2, event(2))));
        assert_eq!(events.since(KEPT as u64 + 1, 9), [(KEPT as u64 + 1, event(KEPT as u64 + 1))]);
        assert_eq!(events.since(u64::MAX, 9), []);
    }
}
