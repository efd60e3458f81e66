//! Where the connections of one reactor receive, and how data of writes is lent to devices from there.
//!
//! Owns the chunk that is received into, and those whose data devices still have. Invariant: a chunk is written only
//! while nobody else refers to it, so what is lent stays as it is. Bounded: at most [`MOST_LENT`] chunks are lent from
//! at a time; beyond, nothing more is lent and data is copied. Used by `receive`.

use std::ptr::NonNull;
use std::rc::Rc;

use sledge_reactor::memory::{LendOwner, Lent};

/// Bytes of a chunk: most that one receive brings.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that devices may hold on to. They rarely do, since only devices that take data at once are lent any.
const MOST_LENT: usize = 4;

/// Memory that was received into.
pub(crate) struct Chunk {
    memory: Box<[u8]>,
}

impl LendOwner for Chunk {
    fn give_back(&self, _key: u64, _len: usize) {
        // The loan's reference is what counts, and it goes with the loan.
    }
}

impl Chunk {
    fn new() -> Rc<Chunk> {
        Rc::new(Chunk { memory: vec![0; CHUNK_BYTES].into_boxed_slice() })
    }

    /// The first `length` bytes.
    pub fn received(&self, length: usize) -> &[u8] {
        &self.memory[..length]
    }

    /// Lends `bytes`, which lie in this chunk.
    ///
    /// # Panics
    /// When they don't.
    pub fn lend(self: &Rc<Self>, bytes: &[u8]) -> Lent {
        let (ours, theirs) = (self.memory.as_ptr_range(), bytes.as_ptr_range());
        assert!(
            ours.start <= theirs.start && theirs.end <= ours.end,
            "only what lies in a chunk is lent from it"
        );
        // SAFETY: the bytes lie in the chunk's memory, which the owner that goes with the loan keeps. They stay
        // unchanged: the memory is written only through `Rc::get_mut`, which fails as long as the loan is there.
        unsafe { Lent::new(NonNull::from(bytes).cast(), bytes.len(), self.clone(), 0) }
    }
}

/// The memory that connections receive into, one at a time.
pub(crate) struct Scratch {
    current: Rc<Chunk>,
    /// Chunks that were lent from when the next receive came.
    lent: Vec<Rc<Chunk>>,
}

impl Scratch {
    /// One chunk.
    pub fn new() -> Scratch {
        Scratch { current: Chunk::new(), lent: Vec::with_capacity(MOST_LENT) }
    }

    /// Memory to receive into.
    pub fn writable(&mut self) -> &mut [u8] {
        if Rc::get_mut(&mut self.current).is_none() {
            let back = self.lent.iter().position(|chunk| Rc::strong_count(chunk) == 1);
            let free = back.map_or_else(Chunk::new, |back| self.lent.swap_remove(back));
            let lent = std::mem::replace(&mut self.current, free);
            if self.lent.len() < MOST_LENT {
                self.lent.push(lent);
            }
        }
        match Rc::get_mut(&mut self.current) {
            Some(chunk) => &mut chunk.memory,
            None => unreachable!("it was alone, or made, just now"),
        }
    }

    /// What was received last.
    pub fn current(&self) -> Rc<Chunk> {
        self.current.clone()
    }

    /// Whether more may be lent.
    pub fn lends(&self) -> bool {
        self.lent.len() < MOST_LENT || self.lent.iter().any(|chunk| Rc::strong_count(chunk) == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Without this a device could find other data than the host sent, because the next receive came over it, or slow
    // devices could make a target take memory without bound.
    #[test]
    fn lent_memory_is_never_received_into() {
        let mut scratch = Scratch::new();
        let mut loans = Vec::new();
        for number in 0..MOST_LENT as u8 {
            scratch.writable()[..4].fill(number);
            assert!(scratch.lends());
            let chunk = scratch.current();
            loans.push(chunk.lend(&chunk.received(4)[1..3]));
        }
        scratch.writable()[..4].fill(0xff);
        assert!(!scratch.lends(), "the bound is reached");
        for (number, loan) in loans.iter().enumerate() {
            assert_eq!(&loan[..], [number as u8; 2]);
        }
        drop(loans);
        assert!(scratch.lends());
        let current = scratch.current();
        scratch.writable()[0] = 1;
        assert!(!Rc::ptr_eq(&current, &scratch.current()), "somebody had the chunk");
        assert_eq!(scratch.lent.len(), MOST_LENT, "one came back, one went");
    }
}
