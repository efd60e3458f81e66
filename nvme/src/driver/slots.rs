//! The commands under way of one queue: a slot each, known by command identifiers.
//!
//! Owns the slots and what they hold. Invariant: a slot is in use from [`Slots::take`] until its completion was seen
//! ([`Slots::end`]) or the queue was emptied ([`Slots::drain`]); abandoning a command leaves its slot in use. So a
//! completion is delivered to the use of the slot that it answers, or to nobody. Queue pairs have one, and so do
//! reactors that submit through another reactor's.

use sledge_reactor::time::Instant;

use super::command_id::{CommandIds, MAX_SLOTS};

/// What is in a slot.
#[derive(Debug)]
enum State<T> {
    Free,
    /// A command under way.
    Busy(T),
    /// A command under way that nobody waits for any more.
    Abandoned,
}

#[derive(Debug)]
struct Slot<T> {
    /// The identifier of the use that goes on, or of the next one.
    cid: u16,
    submitted: Instant,
    state: State<T>,
}

/// What a completion was for.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended<T> {
    /// Of this command.
    Known(T),
    /// Of a command that was abandoned, or of none.
    Nobody,
}

/// The slots of one queue.
#[derive(Debug)]
pub struct Slots<T> {
    ids: CommandIds,
    slots: Box<[Slot<T>]>,
    free: Vec<u16>,
}

impl<T> Slots<T> {
    /// As many free slots, 1 to [`MAX_SLOTS`].
    pub fn new(count: u16) -> Self {
        let count = count.clamp(1, MAX_SLOTS);
        let ids = CommandIds::new(count);
        let slot = |slot| Slot { cid: ids.first(slot), submitted: Instant::default(), state: State::Free };
        Self { ids, slots: (0..count).map(slot).collect(), free: (0..count).rev().collect() }
    }

    /// Slots that are free.
    #[inline]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// The slot that the next command will use.
    #[inline]
    pub fn next(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Slots in use.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot for a command and names it.
    ///
    /// # Errors
    /// Gives the context back when all slots are in use.
    #[inline(always)]
    pub fn take(&mut self, context: T, now: Instant) -> Result<u16, T> {
        let Some(index) = self.free.pop() else { return Err(context) };
        let slot = &mut self.slots[usize::from(index)];
        slot.state = State::Busy(context);
        slot.submitted = now;
        Ok(slot.cid)
    }

    /// Frees the slot of a command that has ended.
    #[inline]
    pub fn end(&mut self, cid: u16) -> Ended<T> {
        let index = self.ids.slot(cid);
        let slot = self.slots.get_mut(usize::from(index)).filter(|slot| slot.cid == cid);
        let Some(slot) = slot.filter(|slot| !matches!(slot.state, State::Free)) else { return Ended::Nobody };
        let state = std::mem::replace(&mut slot.state, State::Free);
        slot.cid = self.ids.next(cid);
        self.free.push(index);
        match state {
            State::Busy(context) => Ended::Known(context),
            State::Abandoned | State::Free => Ended::Nobody,
        }
    }

    /// The command that has been under way for the longest: its identifier, and since when. Looks at all slots.
    pub fn oldest(&self) -> Option<(u16, Instant)> {
        self.under_way().min_by_key(|(_, since, _)| *since).map(|(cid, since, _)| (cid, since))
    }

    /// The commands that somebody waits for: identifier, since when, and whose it is.
    pub fn under_way(&self) -> impl Iterator<Item = (u16, Instant, &T)> {
        self.slots.iter().filter_map(|slot| match &slot.state {
            State::Busy(context) => Some((slot.cid, slot.submitted, context)),
            State::Free | State::Abandoned => None,
        })
    }

    /// The context of a command under way.
    pub fn context_mut(&mut self, cid: u16) -> Option<&mut T> {
        let slot = self.slots.get_mut(usize::from(self.ids.slot(cid))).filter(|slot| slot.cid == cid)?;
        match &mut slot.state {
            State::Busy(context) => Some(context),
            State::Free | State::Abandoned => None,
        }
    }

    /// Takes a command's context out; the slot stays in use.
    pub fn abandon(&mut self, cid: u16) -> Option<T> {
        let slot = self.slots.get_mut(usize::from(self.ids.slot(cid))).filter(|slot| slot.cid == cid)?;
        match std::mem::replace(&mut slot.state, State::Abandoned) {
            State::Busy(context) => Some(context),
            state => {
                slot.state = state;
                None
            }
        }
    }

    /// Frees all slots and gives out every command that somebody waits for.
    pub fn drain(&mut self, mut give: impl FnMut(T)) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            let state = std::mem::replace(&mut slot.state, State::Free);
            if matches!(state, State::Free) {
                continue;
            }
            slot.cid = self.ids.next(slot.cid);
            self.free.push(index as u16);
            if let State::Busy(context) = state {
                give(context);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a slot be used again while the device may still answer for its use before, or an answer reach
    // another use than its own.
    #[test]
    fn answers_go_to_the_use_that_they_are_for() {
        let mut slots = Slots::new(2);
        let now = Instant::default();
        let (a, b) = (slots.take('a', now), slots.take('b', now));
        let (Ok(a), Ok(b)) = (a, b) else { unreachable!("there are two slots") };
        assert_eq!(slots.take('c', now), Err('c'));
        assert_eq!(slots.end(a), Ended::Known('a'));
        assert_eq!(slots.end(a), Ended::Nobody, "it comes twice");
        let Ok(c) = slots.take('c', now) else { unreachable!("a slot is free") };
        assert_eq!(slots.end(a), Ended::Nobody, "it comes late, and the slot has another use");
        assert_eq!((slots.abandon(b), slots.abandon(b), slots.free()), (Some('b'), None, 0));
        assert_eq!((slots.end(b), slots.free()), (Ended::Nobody, 1));
        assert_eq!(slots.end(c ^ 0x8000), Ended::Nobody);
        let mut drained = Vec::new();
        slots.drain(|context| drained.push(context));
        assert_eq!((drained, slots.outstanding(), slots.end(c)), (vec!['c'], 0, Ended::Nobody));
    }
}
