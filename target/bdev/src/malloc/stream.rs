//! Copies into memory that nobody is going to read soon, past the caches.
//!
//! A block that was written to a device is read again much later than what else the processor works on, if at all.
//! An ordinary copy first reads every line of it from memory, only to overwrite it, and pushes as much of the working
//! set out of the cache. Streaming stores do neither: they write whole lines, on loopback as behind a network card.
//! Invariant: streamed bytes are ordered before later stores only by [`fence`], which whoever makes them visible to
//! another core must call first. Called by `Memory`; stateless.

/// Bytes that are streamed at once, at addresses that are multiples of it.
const LINE: usize = 64;

/// Least bytes that are streamed. Smaller writes gain little, and lose where the kernel has just put a page of zeroes
/// into the cache: on pages that are touched for the first time, 4 KiB streamed were slower more often than not.
const STREAMED_BYTES: usize = 16 * 1024;

/// Copies `len` bytes, streaming the whole lines of the destination if the processor can.
///
/// # Safety
/// `from` is valid for reads and `to` for writes of `len` bytes, and they don't overlap. Before the caller lets another
/// thread at the destination it calls [`fence`].
pub(super) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        let head = (to as usize).wrapping_neg() % LINE;
        if len >= STREAMED_BYTES {
            let lines = (len - head) / LINE;
            let tail = head + lines * LINE;
            // SAFETY: all three parts lie within what the caller promised, the middle one begins at a whole line, and
            // the processor was asked for the instructions.
            unsafe {
                if std::arch::is_x86_feature_detected!("avx512f") {
                    x86::copy_lines_512(to.add(head), from.add(head), lines);
                } else if std::arch::is_x86_feature_detected!("avx") {
                    x86::copy_lines_256(to.add(head), from.add(head), lines);
                } else {
                    return to.copy_from_nonoverlapping(from, len);
                }
                to.copy_from_nonoverlapping(from, head);
                to.add(tail).copy_from_nonoverlapping(from.add(tail), len - tail);
            }
            return;
        }
    }
    // SAFETY: as the caller promised.
    unsafe { to.copy_from_nonoverlapping(from, len) }
}

/// Orders all streamed bytes of this thread before its later stores.
pub(super) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256i, __m512i, _mm256_loadu_si256, _mm256_stream_si256, _mm512_loadu_si512, _mm512_stream_si512,
    };

    use super::LINE;

    /// # Safety
    /// Valid for `lines` whole lines that don't overlap, `to` aligned to a line; the processor has AVX-512F.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn copy_lines_512(to: *mut u8, from: *const u8, lines: usize) {
        for line in 0..lines {
            // SAFETY: within the caller's lines; the destination is aligned.
            unsafe {
                let bytes = _mm512_loadu_si512(from.add(line * LINE).cast::<__m512i>());
                _mm512_stream_si512(to.add(line * LINE).cast::<__m512i>(), bytes);
            }
        }
    }

    /// # Safety
    /// Valid for `lines` whole lines that don't overlap, `to` aligned to a line; the processor has AVX.
    #[target_feature(enable = "avx")]
    pub(super) unsafe fn copy_lines_256(to: *mut u8, from: *const u8, lines: usize) {
        for line in 0..lines {
            // SAFETY: within the caller's lines; the destination is aligned.
            unsafe {
                let (from, to) = (from.add(line * LINE), to.add(line * LINE));
                let low = _mm256_loadu_si256(from.cast::<__m256i>());
                let high = _mm256_loadu_si256(from.add(LINE / 2).cast::<__m256i>());
                _mm256_stream_si256(to.cast::<__m256i>(), low);
                _mm256_stream_si256(to.add(LINE / 2).cast::<__m256i>(), high);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Deleting this lets a part of a line be left out, or written beyond, where pieces begin and end inside lines.
    #[test]
    fn all_bytes_arrive_and_no_others() {
        let from: Vec<u8> = (0..2 * STREAMED_BYTES).map(|at| (at % 251) as u8 + 1).collect();
        for start in [0, 1, 31, 63, 64] {
            for skip in [0, 1, 8] {
                for len in
                    [0, 1, 65, STREAMED_BYTES - 1, STREAMED_BYTES, STREAMED_BYTES + 1, STREAMED_BYTES + 700]
                {
                    let mut to = vec![0; 2 * STREAMED_BYTES];
                    let line = (to.as_ptr() as usize).wrapping_neg() % LINE;
                    let at = line + start;
                    // SAFETY: both lie within their vectors.
                    unsafe { copy(to.as_mut_ptr().add(at), from.as_ptr().add(skip), len) };
                    fence();
                    assert_eq!(to[at..at + len], from[skip..skip + len], "{start} {skip} {len}");
                    assert!(
                        to[..at].iter().chain(&to[at + len..]).all(|byte| *byte == 0),
                        "{start} {skip} {len}"
                    );
                }
            }
        }
    }

    // Deleting this leaves the code of lesser processors untried on better ones.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn both_kinds_copy_the_same() {
        #[repr(align(64))]
        struct Lines([u8; 256]);
        let from: Vec<u8> = (0..=255).collect();
        let mut to = Lines([0; 256]);
        if std::arch::is_x86_feature_detected!("avx") {
            // SAFETY: four whole aligned lines, and the processor was asked.
            unsafe { x86::copy_lines_256(to.0.as_mut_ptr(), from.as_ptr(), 4) };
            assert_eq!(to.0[..], from[..]);
        }
        to.0.fill(0);
        if std::arch::is_x86_feature_detected!("avx512f") {
            // SAFETY: as above.
            unsafe { x86::copy_lines_512(to.0.as_mut_ptr(), from.as_ptr(), 4) };
            assert_eq!(to.0[..], from[..]);
        }
    }
}
