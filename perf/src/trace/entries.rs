//! The I/Os of a trace, one by one, as its rules have them.
//!
//! Invariant: of the file there is one line in memory, whatever its length, and the names of its files, of which there is
//! a bound.

use super::Rules;
use super::line::{Action, Line, MOST_BYTES, Version};
use crate::workload::Kind;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

/// Most files of a trace.
const MOST_FILES: usize = 4096;
/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;
/// A time beyond which nothing is due: a year.
const MOST_NANOSECONDS: u64 = 365 * 86_400 * 1_000_000_000;

/// One I/O of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What.
    pub kind: Kind,
    /// Bytes.
    pub length: u32,
    /// First byte.
    pub offset: u64,
    /// Nanoseconds from the first I/O on.
    pub due: u64,
    /// Line of the file.
    pub line: u64,
}

/// What is wrong with a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// It can't be read.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// A line is not as it has to be.
    #[error("{path}:{line}: {error}", path = path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Its line, counted from 1.
        line: u64,
        /// Why.
        error: String,
    },
}

/// A trace that is being read.
pub struct Entries<R = File> {
    rules: Rules,
    version: Version,
    reader: BufReader<R>,
    text: Vec<u8>,
    line: u64,
    files: BTreeSet<String>,
    first_file: Option<String>,
    /// Time of the first I/O in nanoseconds, once there was one.
    start: Option<u64>,
    /// Until when nothing happens.
    waited: u64,
    latest: u64,
    is_over: bool,
}

impl Entries<File> {
    /// Opens a trace.
    ///
    /// # Errors
    /// When it can't be read, or is none.
    pub fn open(rules: &Rules) -> Result<Self, TraceError> {
        let failed = |error: String| TraceError::File { path: rules.path.clone(), error };
        let file = File::open(&rules.path).map_err(|error| failed(error.to_string()))?;
        // It is read twice, so that its mistakes are known before it is replayed.
        if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
            return Err(failed("this is no regular file".into()));
        }
        Self::new(rules, file)
    }
}

impl<R: Read> Entries<R> {
    /// Reads a trace from anywhere.
    ///
    /// # Errors
    /// When it can't be read, or is none.
    pub fn new(rules: &Rules, source: R) -> Result<Self, TraceError> {
        let mut entries = Self {
            rules: rules.clone(),
            version: Version::Two,
            reader: BufReader::with_capacity(CHUNK, source),
            text: Vec::with_capacity(MOST_BYTES),
            line: 0,
            files: BTreeSet::new(),
            first_file: None,
            start: None,
            waited: 0,
            latest: 0,
            is_over: false,
        };
        entries.read_line()?;
        let first = std::str::from_utf8(&entries.text).map_err(|_| {
            let error = "this is not a text file; of blktrace's files fio makes iologs with write_iolog";
            TraceError::File { path: rules.path.clone(), error: error.into() }
        });
        entries.version = Version::parse(first?).map_err(|error| entries.wrong(error))?;
        Ok(entries)
    }

    /// The name of the file that was added first, of those that were there so far.
    pub fn first_file(&self) -> Option<&str> {
        self.first_file.as_deref()
    }

    fn wrong(&self, error: String) -> TraceError {
        TraceError::Line { path: self.rules.path.clone(), line: self.line, error }
    }

    /// Reads the next line into `text`. False at the end.
    fn read_line(&mut self) -> Result<bool, TraceError> {
        self.text.clear();
        let mut line = (&mut self.reader).take(MOST_BYTES as u64 + 1);
        let read = line.read_until(b'\n', &mut self.text);
        let length = read
            .map_err(|error| TraceError::File { path: self.rules.path.clone(), error: error.to_string() })?;
        self.line += u64::from(length > 0);
        if length > MOST_BYTES {
            return Err(self.wrong(format!("a line of over {MOST_BYTES} bytes")));
        }
        Ok(length > 0)
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, TraceError> {
        while self.read_line()? {
            // Taken for a moment, so that what is said of the line can be kept.
            let text = std::mem::take(&mut self.text);
            let taken = self.take(&text);
            self.text = text;
            if let Some(entry) = taken.map_err(|error| self.wrong(error))? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// What a line means, if that is an I/O.
    fn take(&mut self, text: &[u8]) -> Result<Option<Entry>, String> {
        let text = std::str::from_utf8(text).map_err(|_| "this is no text".to_owned())?;
        let Some(Line { at, file, action }) = Line::parse(self.version, text)? else { return Ok(None) };
        if action == Action::Add {
            self.add(file)?;
            return Ok(None);
        }
        if !self.files.contains(file) {
            return Err(format!("{file:?} was not added before"));
        }
        let (kind, offset, length) = match action {
            Action::Add | Action::OpenOrClose => return Ok(None),
            Action::Wait(milliseconds) => {
                self.waited = self.waited.max(milliseconds.saturating_mul(1_000_000));
                return Ok(None);
            }
            Action::Io(kind, offset, length) => (kind, offset, length),
        };
        let due = self.due(at)?;
        if self.rules.skips(kind) {
            return Ok(None);
        }
        if length == 0 && kind != Kind::Flush {
            return Err("an I/O of 0 bytes".into());
        }
        let length = u32::try_from(length).map_err(|_| format!("an I/O of {length} bytes is too large"))?;
        let mut offset = offset / self.rules.scale.max(1);
        if self.rules.align > 0 {
            offset &= !(self.rules.align - 1);
        }
        if offset.checked_add(u64::from(length)).is_none() {
            return Err(format!("an offset of {offset} is too large"));
        }
        Ok(Some(Entry { kind, length, offset, due, line: self.line }))
    }

    fn add(&mut self, file: &str) -> Result<(), String> {
        if self.files.contains(file) {
            return Ok(());
        }
        if self.files.len() == 1 && !self.rules.is_redirected {
            return Err(format!(
                "{file:?} is a second file; a job has one target, and replay_redirect sends the I/Os of all files there"
            ));
        }
        if self.files.len() == MOST_FILES {
            return Err(format!("more than {MOST_FILES} files"));
        }
        self.first_file.get_or_insert_with(|| file.to_owned());
        self.files.insert(file.to_owned());
        Ok(())
    }

    /// Nanoseconds from the first I/O to one at `at` microseconds; times never run backwards.
    fn due(&mut self, at: Option<u64>) -> Result<u64, String> {
        if self.rules.no_stall {
            return Ok(0);
        }
        let due = match at {
            None => self.waited,
            Some(microseconds) => {
                let at = microseconds.saturating_mul(1000);
                at.saturating_sub(*self.start.get_or_insert(at))
            }
        };
        let due = u128::from(due) * 100 / u128::from(self.rules.time_scale.max(1));
        let due = u64::try_from(due).ok().filter(|due| *due <= MOST_NANOSECONDS);
        self.latest = self.latest.max(due.ok_or("a time of over a year")?);
        Ok(self.latest)
    }
}

impl<R: Read> Iterator for Entries<R> {
    type Item = Result<Entry, TraceError>;

    /// The next I/O; nothing more comes behind an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_entry().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}
