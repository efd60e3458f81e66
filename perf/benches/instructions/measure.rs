//! Where counting starts and ends, in the process that callgrind watches.
//!
//! Invariant: callgrind is told by the names of two functions of this file, so neither may be inlined, merged or
//! renamed without [`BEGIN`] and [`END`]. What runs before the first section warms caches, tables and the allocator.

use std::hint::black_box;

/// Times that a case runs before it is counted.
pub const WARM_UP: usize = 6;
/// Sections of every case. The least counts: whatever disturbs a section only adds to it. Short ones, and so many that
/// even on an overloaded machine one is left alone.
pub const SECTIONS: usize = 9;
/// Callgrind's pattern for the function that zeroes its counts.
pub const BEGIN: &str = "*measured_section_begins*";
/// Callgrind's pattern for the function that writes its counts.
pub const END: &str = "*measured_section_ends*";

/// A section that is being counted, until it is dropped.
#[must_use = "counting ends when it is dropped"]
#[derive(Debug)]
pub struct Section(());

impl Section {
    /// Counting starts.
    pub fn begin() -> Self {
        measured_section_begins();
        Self(())
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        measured_section_ends();
    }
}

#[inline(never)]
fn measured_section_begins() {
    black_box(1u8);
}

#[inline(never)]
fn measured_section_ends() {
    black_box(2u8);
}

/// Runs something to warm up and then as often as there are sections, counting each.
pub fn sections(mut run: impl FnMut()) {
    for round in 0..WARM_UP + SECTIONS {
        let section = (round >= WARM_UP).then(Section::begin);
        run();
        drop(section);
    }
}
