//! The part of a log page or Identify structure that a host asked for.
//!
//! Invariant: pages are written from their first byte to their last as if they were whole; only the bytes between
//! the host's offset and the end of its buffer are kept, and everything else of the buffer is zero. So a page of
//! any size costs no memory of its own.

use crate::target::fault::{Fault, field};

/// A window on a page that is being written.
pub(crate) struct Page<'a> {
    window: &'a mut [u8],
    offset: u64,
    position: u64,
}

impl<'a> Page<'a> {
    /// The window from byte `offset` of the page, zeroed.
    pub fn new(window: &'a mut [u8], offset: u64) -> Self {
        window.fill(0);
        Self { window, offset, position: 0 }
    }

    /// Appends bytes to the page.
    pub fn put(&mut self, bytes: &[u8]) {
        let start = self.position.max(self.offset);
        let end =
            (self.position + bytes.len() as u64).min(self.offset.saturating_add(self.window.len() as u64));
        if start < end {
            // Both differences are below the length of a slice, so they fit.
            let from = (start - self.position) as usize..(end - self.position) as usize;
            let to = (start - self.offset) as usize..(end - self.offset) as usize;
            self.window[to].copy_from_slice(&bytes[from]);
        }
        self.position += bytes.len() as u64;
    }

    /// Appends zeros until the page is `bytes` long.
    pub fn pad_to(&mut self, bytes: u64) {
        self.position = self.position.max(bytes);
    }

    /// Whether nothing that is still to come can be seen, so that it need not be made.
    pub fn is_full(&self) -> bool {
        self.position >= self.offset.saturating_add(self.window.len() as u64)
    }

    /// Ends the page.
    ///
    /// # Errors
    /// `INVALID_FIELD` when the host's offset lies beyond the page's end (Base 5.16.1).
    pub fn finish(self) -> Result<(), Fault> {
        if self.offset > self.position { Err(Fault::field(field::DWORD_12)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a page that is read in pieces differ from the page that is read at once.
    #[test]
    fn every_window_shows_its_part_of_the_page() {
        let whole: Vec<u8> = (1..=20).collect();
        for offset in 0..=24_usize {
            for length in 0..=24_usize {
                let mut window = vec![0xee; length];
                let mut page = Page::new(&mut window, offset as u64);
                page.put(&whole[..3]);
                page.put(&whole[3..3]);
                page.put(&whole[3..17]);
                assert_eq!(page.is_full(), offset + length <= 17);
                page.put(&whole[17..]);
                page.pad_to(22);
                let finished = page.finish();
                let expected: Vec<u8> =
                    (offset..offset + length).map(|at| whole.get(at).copied().unwrap_or(0)).collect();
                assert_eq!(window, expected);
                assert_eq!(finished.is_ok(), offset <= 22);
            }
        }
        let mut window = [1; 4];
        let mut page = Page::new(&mut window, u64::MAX);
        page.put(&whole);
        assert_eq!(page.finish(), Err(Fault::field(48)));
    }
}
