//! What there is in a trace, from going through it once.

use super::{Entries, Rules, TraceError};
use crate::workload::Kind;
use serde::Serialize;

/// What there is in a trace, as its rules have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Reads, writes, deallocations, flushes.
    pub ios: [u64; 4],
    /// Bytes of the largest I/O that moves data.
    pub largest: u32,
    /// Where the I/O that reaches furthest ends, and its line.
    pub end: (u64, u64),
    /// The first line whose offset or length is no multiple of 512 bytes, and of 4096.
    pub unaligned: [Option<u64>; 2],
    /// The file that is named first.
    pub file: Option<String>,
}

impl Summary {
    /// Goes through a trace.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn of(rules: &Rules) -> Result<Self, TraceError> {
        let mut entries = Entries::open(rules)?;
        let mut summary = Self::default();
        for entry in entries.by_ref() {
            let entry = entry?;
            let place = match entry.kind {
                Kind::Read => 0,
                Kind::Write | Kind::Zeroes => 1,
                Kind::Trim => 2,
                Kind::Flush => 3,
            };
            summary.ios[place] += 1;
            if entry.kind.moves_data() {
                summary.largest = summary.largest.max(entry.length);
            }
            let end = entry.offset + u64::from(entry.length);
            if end > summary.end.0 {
                summary.end = (end, entry.line);
            }
            for (first, unit) in summary.unaligned.iter_mut().zip([512, 4096]) {
                if !(entry.offset | u64::from(entry.length)).is_multiple_of(unit) {
                    first.get_or_insert(entry.line);
                }
            }
        }
        summary.file = entries.first_file().map(str::to_owned);
        if summary.ios[..3].iter().sum::<u64>() == 0 {
            let error = "there is no I/O in it".to_owned();
            return Err(TraceError::File { path: rules.path.clone(), error });
        }
        Ok(summary)
    }
}
