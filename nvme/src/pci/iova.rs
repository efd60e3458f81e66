//! Addresses for devices behind an IOMMU: which are free.
//!
//! Invariant: ranges that were taken and not given back never overlap, lie inside what the IOMMU allows, and the free
//! list is sorted, without neighbours that touch. Addresses below 1 MiB are never given out, so that a null pointer of
//! a device's is no valid one. The process's own addresses can't serve: they have 47 bits, an IOMMU may have 39.

use std::ops::RangeInclusive;

/// Where addresses begin.
const LOWEST: u64 = 1 << 20;

/// The free addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// First and last of each free range.
    free: Vec<(u64, u64)>,
}

impl Addresses {
    /// Those that the IOMMU allows, all free. In whole pages of 4096 bytes.
    pub(super) fn new(allowed: &[RangeInclusive<u64>]) -> Addresses {
        let mut free: Vec<(u64, u64)> = allowed.iter().filter_map(whole_pages).collect();
        free.sort_unstable();
        Addresses { free }
    }

    /// Keeps only those that are in `allowed`, too: a device came behind another IOMMU that can do less.
    pub(super) fn restrict(&mut self, allowed: &[RangeInclusive<u64>]) {
        let mut left = Vec::new();
        for (start, last) in self.free.drain(..) {
            for (first, end) in allowed.iter().filter_map(whole_pages) {
                let both = (start.max(first), last.min(end));
                if both.0 <= both.1 {
                    left.push(both);
                }
            }
        }
        left.sort_unstable();
        self.free = left;
    }

    /// Takes the lowest free `bytes` addresses (a multiple of 4096) at a multiple of `alignment`, a power of two.
    pub(super) fn take(&mut self, bytes: u64, alignment: u64) -> Option<u64> {
        let fit = |(start, last): &(u64, u64)| {
            let first = start.checked_next_multiple_of(alignment)?;
            let end = first.checked_add(bytes - 1)?;
            (end <= *last).then_some((first, end))
        };
        let (index, (first, end)) =
            self.free.iter().enumerate().find_map(|(index, range)| Some((index, fit(range)?)))?;
        let (start, last) = self.free.remove(index);
        if end < last {
            self.free.insert(index, (end + 1, last));
        }
        if start < first {
            self.free.insert(index, (start, first - 1));
        }
        Some(first)
    }

    /// Gives a range back.
    pub(super) fn give(&mut self, first: u64, bytes: u64) {
        let (mut first, mut last) = (first, first + (bytes - 1));
        let mut index = self.free.partition_point(|range| range.0 < first);
        debug_assert!(self.free.get(index).is_none_or(|next| next.0 > last), "given back once");
        if self.free.get(index).is_some_and(|next| next.0 == last.wrapping_add(1)) {
            last = self.free.remove(index).1;
        }
        if index > 0 && self.free[index - 1].1.wrapping_add(1) == first {
            index -= 1;
            first = self.free.remove(index).0;
        }
        self.free.insert(index, (first, last));
    }
}

/// The part of a range that is whole pages and not too low.
fn whole_pages(range: &RangeInclusive<u64>) -> Option<(u64, u64)> {
    let first = range.start().checked_next_multiple_of(4096)?.max(LOWEST);
    // The last byte of the last whole page; the range may end with the last address there is.
    let last = match range.end().checked_add(1) {
        Some(end) => (end & !4095).checked_sub(1)?,
        None => u64::MAX,
    };
    (first < last).then_some((first, last))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Deleting this lets an address be handed out that the IOMMU refuses, or that the interrupt window swallows.
    #[test]
    fn addresses_come_from_what_is_allowed() {
        let mut addresses = Addresses::new(&[0..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1]);
        assert_eq!(addresses.take(4096, 4096), Some(1 << 20));
        assert_eq!(addresses.take(2 << 20, 2 << 20), Some(2 << 20));
        // What does not fit below the hole goes above it, at its alignment.
        assert_eq!(addresses.take(0xff00_0000, 2 << 20), Some(0xff00_0000));
        assert_eq!(addresses.take(1 << 39, 4096), None);
        addresses.restrict(&[0..=(1 << 32) - 1]);
        assert_eq!(addresses.take(0xfef0_0000, 4096), None);
        assert_eq!(Addresses::new(&[0..=4095, 0x1f_ffff..=0x20_0ffe]).free, []);
        assert_eq!(Addresses::new(&[0..=u64::MAX]).free, [(1 << 20, u64::MAX)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        // Deleting this lets two buffers share addresses, so that a device writes one's data into the other.
        #[test]
        fn ranges_never_overlap_and_all_come_back(
            steps in prop::collection::vec((1u64..64, 0u32..4, any::<prop::sample::Index>(), any::<bool>()), 1..200)
        ) {
            let start = Addresses::new(&[0..=0x3f_ffff, 0x50_0000..=0xff_ffff]);
            let mut addresses = start.clone();
            let mut out: Vec<(u64, u64)> = Vec::new();
            for (pages, shift, which, give) in steps {
                if give && !out.is_empty() {
                    let (first, bytes) = out.swap_remove(which.index(out.len()));
                    addresses.give(first, bytes);
                } else if let Some(first) = addresses.take(pages * 4096, 4096 << shift) {
                    prop_assert!(first.is_multiple_of(4096 << shift));
                    let end = first + pages * 4096;
                    prop_assert!((1 << 20..=0x40_0000).contains(&end) && first >= 1 << 20
                        || (0x50_0000..=0xff_f000).contains(&first) && end <= 0x100_0000);
                    prop_assert!(out.iter().all(|(other, bytes)| other + bytes <= first || end <= *other));
                    out.push((first, pages * 4096));
                }
            }
            for (first, bytes) in out {
                addresses.give(first, bytes);
            }
            prop_assert_eq!(addresses, start);
        }
    }
}
