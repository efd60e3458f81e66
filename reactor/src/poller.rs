//! Pollers: functions that a reactor calls once a turn, which report whether they did work.
//!
//! Invariant: a poller is never called again after its handle was dropped, nor while it runs already. A poller
//! may register and remove pollers, itself included.

use std::cell::RefCell;
use std::fmt;
use std::rc::{Rc, Weak};

use crate::statistics::PollerStatistics;

/// Something to be polled each turn.
pub trait Poller {
    /// Its name in the statistics.
    fn name(&self) -> &'static str;
    /// Does what there is to do, without blocking.
    fn poll(&mut self) -> Turn;
}

/// What a poller did in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing; the reactor may sleep, because an event will wake it when there is work.
    Idle,
    /// This many pieces of work; the reactor takes another turn at once.
    Worked(u32),
    /// Nothing, but no event will tell when there is work: the reactor must not sleep.
    KeepPolling,
}

/// Registers a poller with the current reactor, from the next turn on.
///
/// # Panics
/// Outside a reactor.
pub fn register_poller(poller: impl Poller + 'static) -> PollerHandle {
    crate::core::with_current(|core| core.pollers().add(Box::new(poller)))
}

/// Keeps a poller registered; dropping it removes the poller.
#[must_use = "dropping the handle removes the poller"]
pub struct PollerHandle {
    pollers: Weak<Pollers>,
    index: usize,
    generation: u64,
}

impl fmt::Debug for PollerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PollerHandle").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Drop for PollerHandle {
    fn drop(&mut self) {
        if let Some(pollers) = self.pollers.upgrade() {
            pollers.remove(self.index, self.generation);
        }
    }
}

/// One reactor's pollers.
#[derive(Default)]
pub(crate) struct Pollers {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    places: Vec<Place>,
    next_generation: u64,
    closed: bool,
}

struct Place {
    /// Absent while the place is free, or while the poller runs.
    poller: Option<Box<dyn Poller>>,
    /// 0 for a free place.
    generation: u64,
    name: &'static str,
    runs: u64,
    work: u64,
}

/// What all pollers did in one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Polled {
    /// Pieces of work.
    pub work: u32,
    /// Whether one must be polled again without an event.
    pub keep_polling: bool,
}

impl Pollers {
    fn add(self: &Rc<Self>, poller: Box<dyn Poller>) -> PollerHandle {
        let mut state = self.state.borrow_mut();
        state.next_generation += 1;
        let generation = state.next_generation;
        let name = poller.name();
        let place = Place { poller: Some(poller), generation, name, runs: 0, work: 0 };
        if state.closed {
            // The reactor is ending: it would never be called. Dropped after the borrow ends.
            drop(state);
            drop(place);
            return PollerHandle { pollers: Rc::downgrade(self), index: usize::MAX, generation };
        }
        let index = match state.places.iter().position(|place| place.generation == 0) {
            Some(index) => {
                state.places[index] = place;
                index
            }
            None => {
                state.places.push(place);
                state.places.len() - 1
            }
        };
        PollerHandle { pollers: Rc::downgrade(self), index, generation }
    }

    fn remove(&self, index: usize, generation: u64) {
        let mut state = self.state.borrow_mut();
        let Some(place) = state.places.get_mut(index) else { return };
        if place.generation != generation {
            return;
        }
        place.generation = 0;
        let poller = place.poller.take();
        // Dropped outside the borrow: it may own other pollers' handles.
        drop(state);
        drop(poller);
    }

    /// Calls every poller once.
    pub(crate) fn run(&self) -> Polled {
        let mut total = Polled::default();
        let mut index = 0;
        loop {
            let mut state = self.state.borrow_mut();
            let Some(place) = state.places.get_mut(index) else { break };
            let generation = place.generation;
            let Some(mut poller) = place.poller.take() else {
                index += 1;
                continue;
            };
            drop(state);
            let turn = poller.poll();
            let mut state = self.state.borrow_mut();
            match state.places.get_mut(index) {
                Some(place) if place.generation == generation => {
                    place.runs += 1;
                    if let Turn::Worked(work) = turn {
                        place.work += u64::from(work);
                    }
                    place.poller = Some(poller);
                }
                // Removed while it ran.
                _ => {
                    drop(state);
                    drop(poller);
                }
            }
            match turn {
                Turn::Idle => {}
                Turn::Worked(work) => total.work = total.work.saturating_add(work.max(1)),
                Turn::KeepPolling => total.keep_polling = true,
            }
            index += 1;
        }
        total
    }

    /// Drops all pollers, and those registered while they are dropped.
    pub(crate) fn clear(&self) {
        self.state.borrow_mut().closed = true;
        loop {
            let Some(place) = self.state.borrow_mut().places.pop() else { return };
            drop(place);
        }
    }

    /// Counts by poller, in the order of registration.
    pub(crate) fn statistics(&self) -> Vec<PollerStatistics> {
        let state = self.state.borrow();
        let registered = state.places.iter().filter(|place| place.generation != 0);
        registered
            .map(|place| PollerStatistics { name: place.name, runs: place.runs, work: place.work })
            .collect()
    }
}
