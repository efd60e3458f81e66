//! Range locks in poll mode: what makes a block never torn and compare-and-write atomic across reactors.
//!
//! A [`Gate`] has one atomic word a slot; a slot is one 4 KiB page of the device ([`Gate::exact`]), or a page
//! modulo a table of fixed size ([`Gate::hashed`]). Readers share a slot, a writer has it alone. Nobody blocks:
//! [`Gate::advance`] takes what it can and is called again from the channel's poll.
//!
//! Invariants:
//! - Slots are taken in ascending order and kept while waiting for the next one, so a cycle of waiters can't form;
//!   whoever holds its whole range finishes without waiting for another range or for memory (channels take
//!   memory first).
//! - A writer that must wait marks the slot (`INTENT`): no new reader enters, and it is the next writer. A reader
//!   that must wait marks it too (`READER_WAITS`): once the writer there and the one already marked have passed,
//!   readers go before further writers. So neither side starves; among several writers of one slot the order is
//!   that of their polls.
//! - Every mark is owned by a waiting [`Hold`] and is taken back by [`Gate::release`], also when it gives up.
//!
//! Called by the channels of devices, on any reactor. Nothing here allocates but the constructors.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes that one slot covers.
pub const PAGE_BYTES: u64 = 4096;
/// Binary logarithm of [`PAGE_BYTES`].
const PAGE_SHIFT: u32 = PAGE_BYTES.trailing_zeros();
/// Slots of a hashed gate: pages of 256 MiB lie side by side without meeting.
const HASHED_SLOTS: u64 = 1 << 16;

/// A writer has the slot.
const EXCLUSIVE: u32 = 1 << 31;
/// A writer waits for the slot and is next.
const INTENT: u32 = 1 << 30;
/// A reader waits for the slot; no further writer may mark or take it.
const READER_WAITS: u32 = 1 << 29;
/// Readers that have the slot.
const SHARES: u32 = READER_WAITS - 1;

/// The atomic word of a slot; the standard one, or the model checker's.
pub trait Word {
    /// Reads the value.
    fn load(&self) -> u32;
    /// Replaces `current` by `new`, acquiring; false when it was something else (or for no reason).
    fn replace(&self, current: u32, new: u32) -> bool;
    /// Clears `bits`, releasing.
    fn clear(&self, bits: u32);
    /// Subtracts one, releasing.
    fn decrement(&self);
}

impl Word for AtomicU32 {
    fn load(&self) -> u32 {
        AtomicU32::load(self, Ordering::Relaxed)
    }

    fn replace(&self, current: u32, new: u32) -> bool {
        self.compare_exchange_weak(current, new, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn clear(&self, bits: u32) {
        self.fetch_and(!bits, Ordering::Release);
    }

    fn decrement(&self) {
        self.fetch_sub(1, Ordering::Release);
    }
}

/// How a range is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With other readers.
    Share,
    /// Alone.
    Exclusive,
}

/// One command's way through the gate: what it wants and how far it got. Must end in [`Gate::release`].
#[derive(Debug)]
#[must_use = "a hold that is dropped leaves its slots taken for ever"]
pub struct Hold {
    kind: Kind,
    first_page: u64,
    pages: u64,
    /// Slots taken so far, in ascending order.
    taken: u64,
    /// Whether our mark stands on the next slot.
    marked: bool,
}

impl Hold {
    /// A hold of nothing, complete from the start.
    pub const NOTHING: Hold = Hold { kind: Kind::Share, first_page: 0, pages: 0, taken: 0, marked: false };

    /// Wants the bytes `offset..offset + len`, holds none of them yet.
    pub fn new(kind: Kind, offset: u64, len: u64) -> Hold {
        if len == 0 {
            return Hold::NOTHING;
        }
        let first_page = offset >> PAGE_SHIFT;
        let pages = ((offset + len - 1) >> PAGE_SHIFT) - first_page + 1;
        Hold { kind, first_page, pages, taken: 0, marked: false }
    }

    /// Whether it wants nothing.
    pub fn is_nothing(&self) -> bool {
        self.pages == 0
    }

    /// Leaves nothing in its place.
    pub fn take(&mut self) -> Hold {
        std::mem::replace(self, Hold::NOTHING)
    }

    /// Describes a range that is held already, so that another owner than the taker can release it.
    pub fn complete(kind: Kind, offset: u64, len: u64, gate: &Gate) -> Hold {
        let mut hold = Hold::new(kind, offset, len);
        hold.taken = if gate.hashed { gate.runs(&hold).count() } else { hold.pages };
        hold
    }
}

/// The slots of a range: at most four runs, ascending, disjoint.
struct Runs {
    runs: [(u64, u64); 4],
    len: usize,
}

impl Runs {
    fn one(start: u64, end: u64) -> Runs {
        Runs { runs: [(start, end), (0, 0), (0, 0), (0, 0)], len: usize::from(end > start) }
    }

    /// Adds a run; `settle` puts them in order.
    fn add(&mut self, start: u64, end: u64) {
        if end > start {
            self.runs[self.len] = (start, end);
            self.len += 1;
        }
    }

    /// Sorts, and joins runs that overlap or touch.
    fn settle(mut self) -> Runs {
        self.runs[..self.len].sort_unstable();
        let mut settled = Runs { runs: [(0, 0); 4], len: 0 };
        for (start, end) in self.runs[..self.len].iter().copied() {
            match settled.runs[..settled.len].last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => settled.add(start, end),
            }
        }
        settled
    }

    fn count(&self) -> u64 {
        self.runs[..self.len].iter().map(|(start, end)| end - start).sum()
    }

    /// Slots in ascending order, without the first `skip`.
    fn slots(&self, mut skip: u64) -> impl Iterator<Item = u64> {
        self.runs[..self.len].iter().flat_map(move |(start, end)| {
            let passed = skip.min(end - start);
            skip -= passed;
            start + passed..*end
        })
    }
}

/// What became of an attempt on one slot.
enum Attempt {
    Taken,
    /// Refused; whether our mark now stands on the slot.
    Refused {
        marked: bool,
    },
}

/// A device's range locks.
pub struct Gate<W = AtomicU32> {
    slots: Box<[W]>,
    hashed: bool,
}

impl<W> std::fmt::Debug for Gate<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("slots", &self.slots.len()).field("hashed", &self.hashed).finish()
    }
}

impl Gate {
    /// One slot for each page of a device of `bytes` bytes.
    pub fn exact(bytes: u64) -> Gate {
        Gate { slots: zeroed_words(bytes.div_ceil(PAGE_BYTES).max(1) as usize), hashed: false }
    }

    /// A table of fixed size, for devices of any size: distant pages may share a slot and then exclude each other
    /// for no reason, which costs time only.
    pub fn hashed() -> Gate {
        Gate { slots: zeroed_words(HASHED_SLOTS as usize), hashed: true }
    }
}

impl<W: Word> Gate<W> {
    /// The slots of a hold's range, ascending.
    fn runs(&self, hold: &Hold) -> Runs {
        if hold.pages == 0 {
            return Runs::one(0, 0);
        }
        let (first, end) = (hold.first_page, hold.first_page + hold.pages);
        if !self.hashed {
            return Runs::one(first, end);
        }
        let slots = self.slots.len() as u64;
        if hold.pages >= slots {
            return Runs::one(0, slots);
        }
        // Pages of one region lie side by side, turned by a number of the region's own, so that streams at equal
        // distances don't all meet. A range is shorter than a region, so it touches at most two.
        let mut runs = Runs { runs: [(0, 0); 4], len: 0 };
        let boundary = (first / slots + 1) * slots;
        for (start, end) in [(first, end.min(boundary)), (boundary, end.max(boundary))] {
            let turn = (start / slots).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let from = (start + turn) % slots;
            let to = from + (end - start);
            runs.add(from, to.min(slots));
            runs.add(0, to.saturating_sub(slots));
        }
        runs.settle()
    }

    /// Takes as much of the range as can be had now. True when all of it is held; otherwise call again later.
    pub fn advance(&self, hold: &mut Hold) -> bool {
        if !self.hashed {
            // The pages are the slots.
            while hold.taken < hold.pages {
                if !self.step(hold, hold.first_page + hold.taken) {
                    return false;
                }
            }
            return true;
        }
        let runs = self.runs(hold);
        for slot in runs.slots(hold.taken) {
            if !self.step(hold, slot) {
                return false;
            }
        }
        true
    }

    /// Attempts the hold's next slot.
    fn step(&self, hold: &mut Hold, slot: u64) -> bool {
        let word = &self.slots[slot as usize];
        let attempt = match hold.kind {
            Kind::Share => take_share(word, hold.marked),
            Kind::Exclusive => take_exclusive(word, hold.marked),
        };
        match attempt {
            Attempt::Taken => {
                hold.taken += 1;
                hold.marked = false;
                true
            }
            Attempt::Refused { marked } => {
                hold.marked = marked;
                false
            }
        }
    }

    /// Gives back whatever the hold has, complete or not, and its mark.
    pub fn release(&self, hold: Hold) {
        if self.hashed {
            self.give_back(&hold, self.runs(&hold).slots(0));
        } else {
            // The pages are the slots.
            self.give_back(&hold, hold.first_page..hold.first_page + hold.pages);
        }
    }

    /// Gives back the slots that the hold has taken, and its mark on the next one.
    fn give_back(&self, hold: &Hold, mut slots: impl Iterator<Item = u64>) {
        for slot in slots.by_ref().take(hold.taken as usize) {
            let word = &self.slots[slot as usize];
            match hold.kind {
                Kind::Share => word.decrement(),
                Kind::Exclusive => word.clear(EXCLUSIVE),
            }
        }
        if hold.marked
            && let Some(slot) = slots.next()
        {
            // Another reader's wait may be cleared with ours; it marks the slot again when it next tries.
            let mark = if hold.kind == Kind::Share { READER_WAITS } else { INTENT };
            self.slots[slot as usize].clear(mark);
        }
    }

    /// Whether no slot is held or marked; for tests and assertions at a device's end.
    pub fn is_idle(&self) -> bool {
        self.slots.iter().all(|slot| slot.load() == 0)
    }
}

fn take_share<W: Word>(word: &W, marked: bool) -> Attempt {
    loop {
        let state = word.load();
        if state & (EXCLUSIVE | INTENT) != 0 || state & SHARES == SHARES {
            if state & READER_WAITS != 0 {
                return Attempt::Refused { marked };
            }
            if word.replace(state, state | READER_WAITS) {
                return Attempt::Refused { marked: true };
            }
        } else if word.replace(state, (state & !READER_WAITS) + 1) {
            return Attempt::Taken;
        }
    }
}

fn take_exclusive<W: Word>(word: &W, marked: bool) -> Attempt {
    loop {
        let state = word.load();
        let busy = state & (EXCLUSIVE | SHARES) != 0;
        if marked {
            if busy {
                return Attempt::Refused { marked };
            }
            if word.replace(state, (state & !INTENT) | EXCLUSIVE) {
                return Attempt::Taken;
            }
        } else if state & (INTENT | READER_WAITS) != 0 {
            return Attempt::Refused { marked };
        } else if busy {
            if word.replace(state, state | INTENT) {
                return Attempt::Refused { marked: true };
            }
        } else if word.replace(state, EXCLUSIVE) {
            return Attempt::Taken;
        }
    }
}

/// Words of value 0, whose memory the kernel hands out as it is first touched.
fn zeroed_words(count: usize) -> Box<[AtomicU32]> {
    let layout = match Layout::array::<AtomicU32>(count) {
        Ok(layout) if layout.size() > 0 => layout,
        _ => return Box::default(),
    };
    // SAFETY: the layout's size is not 0.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: `start` is a fresh allocation of exactly this slice's layout by the global allocator, and zero
    // bytes are a valid `AtomicU32`.
    unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(start.cast::<AtomicU32>(), count)) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "gate_tests.rs"]
mod tests;
