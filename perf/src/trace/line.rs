//! One line of a trace.
//!
//! | version | line |
//! |---|---|
//! | 2 | `FILE ACTION` or `FILE ACTION OFFSET LENGTH` |
//! | 3 | the same behind a number of microseconds from the start |
//!
//! Actions are add, open, close; read, write, trim, sync, datasync; and, in version 2, wait.

use crate::workload::Kind;

/// Most bytes of a line, as in fio.
pub const MOST_BYTES: usize = 4096;

/// A version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Without times, but for those of waits.
    Two,
    /// A time in front of each line.
    Three,
}

impl Version {
    /// What the first line says.
    ///
    /// # Errors
    /// When it is no trace that can be read.
    pub fn parse(line: &str) -> Result<Self, String> {
        match line.trim_end() {
            "fio version 2 iolog" => Ok(Self::Two),
            "fio version 3 iolog" => Ok(Self::Three),
            _ => Err("this is neither \"fio version 2 iolog\" nor \"fio version 3 iolog\"".into()),
        }
    }
}

/// What a line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// There is such a file.
    Add,
    /// It is opened, or closed.
    OpenOrClose,
    /// Nothing happens until so many milliseconds after the start.
    Wait(u64),
    /// An I/O: what, first byte, bytes.
    Io(Kind, u64, u64),
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Microseconds from the start, where lines have times.
    pub at: Option<u64>,
    /// The file it is about.
    pub file: &'a str,
    /// What is done.
    pub action: Action,
}

impl<'a> Line<'a> {
    /// Reads a line; none if it is blank.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(version: Version, text: &'a str) -> Result<Option<Self>, String> {
        let mut words = text.split_ascii_whitespace();
        let Some(first) = words.next() else { return Ok(None) };
        let missing = |what: &str| format!("{what} is missing");
        let (at, file) = match version {
            Version::Two => (None, first),
            Version::Three => {
                let at = number(first, "time in microseconds")?;
                (Some(at), words.next().ok_or_else(|| missing("the file"))?)
            }
        };
        let word = words.next().ok_or_else(|| missing("what is done"))?;
        let kind = match word {
            "add" | "open" | "close" => None,
            "read" => Some(Kind::Read),
            "write" => Some(Kind::Write),
            "trim" => Some(Kind::Trim),
            "sync" | "datasync" => Some(Kind::Flush),
            "wait" if version == Version::Two => None,
            "wait" => return Err("lines have times in version 3, and there is no wait".into()),
            _ => {
                return Err(format!(
                    "{word:?} is none of add, open, close, read, write, trim, sync, datasync, wait"
                ));
            }
        };
        let mut argument = |what: &str| number(words.next().ok_or_else(|| missing(what))?, what);
        let action = match (kind, word) {
            (None, "add") => Action::Add,
            (None, "wait") => {
                let until = argument("time in milliseconds")?;
                // It says nothing, and need not be there.
                if let Some(length) = words.next() {
                    number(length, "length")?;
                }
                Action::Wait(until)
            }
            (None, _) => Action::OpenOrClose,
            (Some(Kind::Flush), _) => {
                for what in ["offset", "length"] {
                    if let Some(word) = words.next() {
                        number(word, what)?;
                    }
                }
                Action::Io(Kind::Flush, 0, 0)
            }
            (Some(kind), _) => Action::Io(kind, argument("offset")?, argument("length")?),
        };
        match words.next() {
            Some(more) => Err(format!("{more:?} is one word too many")),
            None => Ok(Some(Self { at, file, action })),
        }
    }
}

fn number(word: &str, what: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word:?} is no {what}"))
}
