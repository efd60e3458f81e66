//! Command identifiers: which slot of a queue pair a completion is for, and which use of that slot.
//!
//! Owns the split of the 16 bits: the slot below, a generation above. Invariant: a slot's identifier changes each time
//! the slot is used, so a completion that comes late, twice or unasked names a use that is over and is not taken for
//! the one that goes on. FFFFh is never used: the Error Information log means "no command" by it (Base 5.16.1.2).
//! Called by the queue pair and by what stands in for one on reactors that have none.

/// Most slots of one queue: four bits are left for the generation.
pub const MAX_SLOTS: u16 = 1 << 12;

/// How the 16 bits are split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandIds {
    slot_bits: u32,
}

impl CommandIds {
    /// Identifiers for `slots` slots, at most [`MAX_SLOTS`].
    #[must_use]
    pub fn new(slots: u16) -> Self {
        debug_assert!((1..=MAX_SLOTS).contains(&slots), "{slots} slots leave too few generations");
        Self { slot_bits: u16::BITS - slots.saturating_sub(1).leading_zeros() }
    }

    /// The slot that an identifier names.
    #[inline]
    #[must_use]
    pub const fn slot(self, cid: u16) -> u16 {
        cid & (((1u32 << self.slot_bits) - 1) as u16)
    }

    /// The identifier of a slot's first use.
    #[must_use]
    pub const fn first(self, slot: u16) -> u16 {
        slot
    }

    /// The identifier of the use that follows the one with `cid`.
    #[inline]
    #[must_use]
    pub const fn next(self, cid: u16) -> u16 {
        let step = (1u32 << self.slot_bits) as u16;
        match cid.wrapping_add(step) {
            u16::MAX => u16::MAX.wrapping_add(step),
            next => next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a slot's identifier repeat at once, or wander to another slot, or be FFFFh.
    #[test]
    fn identifiers_keep_their_slot_and_change_each_time() {
        for slots in [1u16, 2, 31, 32, 255, 1023, MAX_SLOTS] {
            let ids = CommandIds::new(slots);
            for slot in [0, slots / 2, slots - 1] {
                let mut cid = ids.first(slot);
                let mut seen = vec![cid];
                for _ in 0..100_000u32 {
                    cid = ids.next(cid);
                    assert_eq!(ids.slot(cid), slot, "of {slots} slots");
                    assert_ne!(cid, u16::MAX);
                    if seen.contains(&cid) {
                        break;
                    }
                    if seen.len() < 15 {
                        seen.push(cid);
                    }
                }
                assert!(seen.len() >= 15, "{slots} slots leave {} generations", seen.len());
            }
        }
    }
}
