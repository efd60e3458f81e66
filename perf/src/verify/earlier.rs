//! Blocks that an earlier run wrote, held against what they say of themselves and, where it was kept, against what
//! that run knew at its end.
//!
//! Without such a state every block has to be as some write of some run left it, where it belongs; the blocks of one
//! read have to agree with each other: where one says that a write reached over its neighbours, none of these can hold
//! what is older. With it, each block has to hold the very version that was written last.

use std::sync::Arc;

use super::state::State;
use super::{Author, Damage, Fault, Stamp};

/// What an earlier run wrote.
#[derive(Clone, Debug)]
pub struct Earlier {
    state: Option<Arc<State>>,
    block_bytes: u32,
}

impl Earlier {
    /// What is known from `state`, or from the blocks alone.
    pub fn new(state: Option<Arc<State>>, block_bytes: u32) -> Self {
        Self { state, block_bytes }
    }

    /// Checks the blocks that a read brought. True when something was known of them.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check<'a>(&self, blocks: impl Iterator<Item = (u64, &'a [u8])> + Clone) -> Result<bool, Fault> {
        match &self.state {
            Some(state) => self.against(state, blocks),
            None => self.among_themselves(blocks),
        }
    }

    fn against<'a>(
        &self,
        state: &State,
        blocks: impl Iterator<Item = (u64, &'a [u8])> + Clone,
    ) -> Result<bool, Fault> {
        let author = state.author;
        let holds = |block: u64, bytes: &[u8], version: u32| {
            Stamp::read(bytes)
                .is_ok_and(|stamp| stamp == Stamp { block, version, ..stamp } && by(author, &stamp))
        };
        let mut any = false;
        for (block, bytes) in blocks.clone() {
            let expected = state.version(block);
            if expected == 0 {
                continue;
            }
            any = true;
            if expected == super::ZEROED {
                super::expect_zeroes(block, self.block_bytes, bytes)?;
            } else if !holds(block, bytes, expected) {
                let partly = { blocks }
                    .any(|(other, bytes)| state.version(other) == expected && holds(other, bytes, expected));
                let found = Stamp::read(bytes);
                return Err(Fault::new(author, block, self.block_bytes, expected, found, partly));
            }
        }
        Ok(any)
    }

    fn among_themselves<'a>(
        &self,
        blocks: impl Iterator<Item = (u64, &'a [u8])> + Clone,
    ) -> Result<bool, Fault> {
        // The write that reaches furthest of those whose blocks came before.
        let mut write: Option<Stamp> = None;
        let mut any = false;
        for (block, bytes) in blocks.clone() {
            any = true;
            let found = Stamp::read(bytes);
            let over = write.filter(|write| covers(write, block));
            let Ok(stamp) = found else { return Err(self.fault(block, found, over)) };
            let is_at_home = stamp.block == block && covers(&stamp, block);
            // Of two runs it is not known which was the later one.
            if !is_at_home || over.is_some_and(|write| older(&stamp, &write)) {
                return Err(self.fault(block, found, over));
            }
            if over.is_none_or(|write| !of_one_write(&write, &stamp)) {
                // Nearly all writes begin with their first block, and there is nothing to look through.
                if stamp.start < block
                    && let Some((before, bytes)) = torn_before(blocks.clone(), &stamp)
                {
                    return Err(self.fault(before, Stamp::read(bytes), Some(stamp)));
                }
                if over.is_none_or(|write| end(&stamp) >= end(&write)) {
                    write = Some(stamp);
                }
            }
        }
        Ok(any)
    }

    fn fault(&self, block: u64, found: Result<Stamp, Damage>, over: Option<Stamp>) -> Fault {
        match over {
            Some(write) => {
                let author = Author { run: write.run, seed: write.seed };
                Fault::new(author, block, self.block_bytes, write.version, found, true)
            }
            None => Fault::of_unknown(block, self.block_bytes, found),
        }
    }
}

/// A block in front of that of this stamp that its write should have reached, and that holds what is older.
fn torn_before<'a>(blocks: impl Iterator<Item = (u64, &'a [u8])>, stamp: &Stamp) -> Option<(u64, &'a [u8])> {
    let mut reached = blocks.filter(|(block, _)| (stamp.start..stamp.block).contains(block));
    reached.find(|(_, bytes)| Stamp::read(bytes).is_ok_and(|other| older(&other, stamp)))
}

fn by(author: Author, stamp: &Stamp) -> bool {
    (stamp.run, stamp.seed) == (author.run, author.seed)
}

/// Whether a block is known to be older than another.
fn older(one: &Stamp, other: &Stamp) -> bool {
    by(Author { run: other.run, seed: other.seed }, one) && one.version < other.version
}

fn of_one_write(one: &Stamp, other: &Stamp) -> bool {
    *one == Stamp { block: one.block, ..*other }
}

fn covers(stamp: &Stamp, block: u64) -> bool {
    block.checked_sub(stamp.start).is_some_and(|distance| distance < u64::from(stamp.blocks))
}

fn end(stamp: &Stamp) -> u64 {
    stamp.start.saturating_add(u64::from(stamp.blocks))
}
