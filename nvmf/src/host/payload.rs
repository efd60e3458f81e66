//! A command's data on the host, wherever it lies.

use sledge_reactor::memory::Segments;

/// Data of one command. Owned by its slot from submission to completion.
#[derive(Debug, Default)]
pub(super) enum Payload {
    /// No data.
    #[default]
    None,
    /// I/O data in pool memory.
    Segments(Segments),
    /// Data of an admin command.
    Owned(Vec<u8>),
    /// The one range of a Dataset Management command.
    Range([u8; 16]),
}

impl Payload {
    /// Bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Segments(segments) => segments.len_bytes(),
            Self::Owned(bytes) => bytes.len(),
            Self::Range(bytes) => bytes.len(),
        }
    }

    /// The longest contiguous run of at most `most` bytes from `offset`; empty behind the end.
    pub(super) fn run(&self, offset: usize, most: usize) -> &[u8] {
        let from = |bytes: &'_ [u8]| -> (usize, usize) {
            let start = offset.min(bytes.len());
            (start, bytes.len().min(start.saturating_add(most)))
        };
        match self {
            Self::None => &[],
            Self::Segments(segments) => {
                let mut skip = offset;
                for segment in segments.iter() {
                    let bytes = segment.as_slice();
                    if skip < bytes.len() {
                        return &bytes[skip..bytes.len().min(skip.saturating_add(most))];
                    }
                    skip -= bytes.len();
                }
                &[]
            }
            Self::Owned(bytes) => {
                let (start, end) = from(bytes);
                &bytes[start..end]
            }
            Self::Range(bytes) => {
                let (start, end) = from(bytes);
                &bytes[start..end]
            }
        }
    }

    /// The same for writing; empty behind the end, and for memory that is only lent.
    pub(super) fn run_mut(&mut self, offset: usize, most: usize) -> &mut [u8] {
        match self {
            Self::None | Self::Range(_) => &mut [],
            Self::Segments(segments) => {
                let mut skip = offset;
                for segment in segments.iter_mut() {
                    let length = segment.len();
                    if skip < length {
                        return match segment.as_mut_slice() {
                            Some(bytes) => &mut bytes[skip..length.min(skip.saturating_add(most))],
                            None => &mut [],
                        };
                    }
                    skip -= length;
                }
                &mut []
            }
            Self::Owned(bytes) => {
                let start = offset.min(bytes.len());
                let end = bytes.len().min(start.saturating_add(most));
                &mut bytes[start..end]
            }
        }
    }

    /// Calls `each` with the contiguous runs of `length` bytes from `offset`, in order, up to memory that can't be
    /// written: at most one for each segment.
    pub(super) fn runs_mut<'a>(
        &'a mut self,
        offset: usize,
        length: usize,
        mut each: impl FnMut(&'a mut [u8]),
    ) {
        match self {
            Self::None | Self::Range(_) => {}
            Self::Owned(bytes) => {
                let start = offset.min(bytes.len());
                let end = bytes.len().min(start.saturating_add(length));
                each(&mut bytes[start..end]);
            }
            Self::Segments(segments) => {
                let (mut skip, mut left) = (offset, length);
                for segment in segments.iter_mut() {
                    let bytes = segment.len();
                    if skip >= bytes {
                        skip -= bytes;
                        continue;
                    }
                    let part = left.min(bytes - skip);
                    let Some(memory) = segment.as_mut_slice() else { return };
                    if part == 0 {
                        return;
                    }
                    each(&mut memory[skip..skip + part]);
                    left -= part;
                    skip = 0;
                }
            }
        }
    }

    /// Copies `bytes` to `offset`; bytes behind the end are dropped (the caller checked the range).
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let run = self.run_mut(offset + done, bytes.len() - done);
            if run.is_empty() {
                return;
            }
            let length = run.len();
            run.copy_from_slice(&bytes[done..done + length]);
            done += length;
        }
    }

    /// The data as pool memory; empty when it was something else.
    pub(super) fn into_segments(self) -> Segments {
        match self {
            Self::Segments(segments) => segments,
            Self::None | Self::Owned(_) | Self::Range(_) => Segments::new(),
        }
    }
}
