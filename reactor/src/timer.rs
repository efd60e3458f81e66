//! The timer wheel: wakes wakers at deadlines, with insertion and cancellation in constant time.
//!
//! Nine levels of 64 slots each cover the whole clock, so nothing ever wraps. One tick is 1.024 µs: finer than
//! any wake-up from sleep, so a delay of a few microseconds is kept, and free, because a bit map per level lets
//! the wheel jump over empty slots instead of counting through them.
//!
//! Invariants: a timer fires once, never before its deadline, and not after it was cancelled; timers of one
//! tick fire in the order of their insertion. Belongs to one reactor, which calls [`Timers::advance`].

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Waker;

use crate::time::Instant;

/// A tick is 2^10 ns.
const TICK_SHIFT: u32 = 10;
/// A level has 2^6 slots.
const LEVEL_SHIFT: u32 = 6;
const SLOTS: usize = 1 << LEVEL_SHIFT;
/// (64 - TICK_SHIFT) bits of ticks in groups of LEVEL_SHIFT.
const LEVELS: usize = (64 - TICK_SHIFT).div_ceil(LEVEL_SHIFT) as usize;
/// The clock's last tick, 584 years away.
const LAST_TICK: u64 = u64::MAX >> TICK_SHIFT;
/// "No entry" in the lists.
const NONE: u32 = u32::MAX;

/// Names one inserted timer; stale once it fired or was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey {
    index: u32,
    generation: u32,
}

/// One reactor's timers; a cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Timers {
    wheel: Rc<RefCell<Wheel>>,
}

#[derive(Debug)]
struct Wheel {
    /// Ticks up to which everything has fired.
    elapsed: u64,
    /// For each level, which slots have entries.
    occupied: [u64; LEVELS],
    slots: Box<[[Slot; SLOTS]; LEVELS]>,
    entries: Vec<Entry>,
    free: u32,
    armed: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    first: u32,
    last: u32,
}

#[derive(Debug)]
struct Entry {
    /// First tick at or after the deadline.
    due: u64,
    next: u32,
    previous: u32,
    level: u8,
    slot: u8,
    generation: u32,
    /// Present while armed.
    waker: Option<Waker>,
}

impl Timers {
    /// An empty wheel that starts at `now`.
    pub(crate) fn new(now: Instant) -> Timers {
        let empty = Slot { first: NONE, last: NONE };
        let wheel = Wheel {
            elapsed: now.as_nanos() >> TICK_SHIFT,
            occupied: [0; LEVELS],
            slots: Box::new([[empty; SLOTS]; LEVELS]),
            entries: Vec::new(),
            free: NONE,
            armed: 0,
        };
        Timers { wheel: Rc::new(RefCell::new(wheel)) }
    }

    /// Arms a timer.
    pub(crate) fn insert(&self, deadline: Instant, waker: Waker) -> TimerKey {
        self.wheel.borrow_mut().insert(deadline, waker)
    }

    /// Disarms a timer; nothing happens when it has fired.
    pub(crate) fn cancel(&self, key: TimerKey) {
        // The waker is dropped outside the borrow: its task may own another timer.
        let waker = self.wheel.borrow_mut().remove(key);
        drop(waker);
    }

    /// Makes an armed timer wake `waker` instead. False when it has fired.
    pub(crate) fn refresh(&self, key: TimerKey, waker: &Waker) -> bool {
        let mut wheel = self.wheel.borrow_mut();
        let Some(entry) = wheel.entries.get_mut(key.index as usize) else { return false };
        if entry.generation != key.generation {
            return false;
        }
        let Some(old) = &mut entry.waker else { return false };
        if !old.will_wake(waker) {
            let old = std::mem::replace(old, waker.clone());
            drop(wheel);
            drop(old);
        }
        true
    }

    /// Fires everything due at `now`; returns how many fired.
    pub(crate) fn advance(&self, now: Instant) -> u32 {
        let now_tick = now.as_nanos() >> TICK_SHIFT;
        let mut fired = 0;
        loop {
            let next = self.wheel.borrow_mut().pop_due(now_tick);
            let Some(waker) = next else { return fired };
            waker.wake();
            fired += 1;
        }
    }

    /// A moment at or before the next deadline, and after now: when to call `advance` next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let wheel = self.wheel.borrow();
        let (_, _, start) = wheel.next_slot()?;
        Some(Instant::from_nanos(start.saturating_mul(1 << TICK_SHIFT)))
    }

    /// Timers that are armed.
    #[cfg(test)]
    pub(crate) fn armed(&self) -> usize {
        self.wheel.borrow().armed
    }
}

impl Wheel {
    fn insert(&mut self, deadline: Instant, waker: Waker) -> TimerKey {
        // Rounded up, so that it never fires early, and at least the next tick, so that it fires at all.
        let due = deadline.as_nanos().div_ceil(1 << TICK_SHIFT).max(self.elapsed + 1).min(LAST_TICK);
        let index = if self.free == NONE {
            self.entries.push(Entry {
                due,
                next: NONE,
                previous: NONE,
                level: 0,
                slot: 0,
                generation: 0,
                waker: Some(waker),
            });
            (self.entries.len() - 1) as u32
        } else {
            let index = self.free;
            let entry = &mut self.entries[index as usize];
            self.free = entry.next;
            entry.due = due;
            entry.waker = Some(waker);
            index
        };
        self.armed += 1;
        self.link(index);
        TimerKey { index, generation: self.entries[index as usize].generation }
    }

    fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.generation != key.generation || entry.waker.is_none() {
            return None;
        }
        self.unlink(key.index);
        self.release(key.index)
    }

    /// Puts an unlinked entry on the free list.
    fn release(&mut self, index: u32) -> Option<Waker> {
        let free = self.free;
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.next = free;
        self.free = index;
        self.armed -= 1;
        entry.waker.take()
    }

    /// Appends an entry to the slot where its due tick belongs, seen from `elapsed`.
    fn link(&mut self, index: u32) {
        let due = self.entries[index as usize].due;
        // The highest group of bits in which the due tick differs from now.
        let differing = 63 - ((due ^ self.elapsed) | (SLOTS as u64 - 1)).leading_zeros();
        let level = (differing / LEVEL_SHIFT) as usize;
        let slot = (due >> (level as u32 * LEVEL_SHIFT)) as usize % SLOTS;
        let place = &mut self.slots[level][slot];
        let previous = place.last;
        place.last = index;
        if previous == NONE {
            place.first = index;
            self.occupied[level] |= 1 << slot;
        } else {
            self.entries[previous as usize].next = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.previous = previous;
        entry.next = NONE;
        entry.level = level as u8;
        entry.slot = slot as u8;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { next, previous, level, slot, .. } = self.entries[index as usize];
        let place = &mut self.slots[level as usize][slot as usize];
        if previous == NONE {
            place.first = next;
        } else {
            self.entries[previous as usize].next = next;
        }
        if next == NONE {
            place.last = previous;
        } else {
            self.entries[next as usize].previous = previous;
        }
        if place.first == NONE {
            self.occupied[level as usize] &= !(1 << slot);
        }
    }

    /// The earliest slot with entries: (level, slot, its first tick). All entries of a level share the bits
    /// above that level with `elapsed`, so the lowest level with entries has the earliest.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = level as u32 * LEVEL_SHIFT;
        let above = self.elapsed >> shift >> LEVEL_SHIFT << LEVEL_SHIFT << shift;
        Some((level, slot, above | (slot as u64) << shift))
    }

    /// The waker of the next entry due at `now` or before, moving entries down from higher levels on the way.
    fn pop_due(&mut self, now: u64) -> Option<Waker> {
        while let Some((level, slot, start)) = self.next_slot() {
            if start > now {
                break;
            }
            self.elapsed = self.elapsed.max(start);
            let first = self.slots[level][slot].first;
            if level == 0 {
                self.unlink(first);
                if let Some(waker) = self.release(first) {
                    return Some(waker);
                }
            } else {
                self.slots[level][slot] = Slot { first: NONE, last: NONE };
                self.occupied[level] &= !(1 << slot);
                let mut index = first;
                while index != NONE {
                    let next = self.entries[index as usize].next;
                    self.link(index);
                    index = next;
                }
            }
        }
        self.elapsed = self.elapsed.max(now);
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
