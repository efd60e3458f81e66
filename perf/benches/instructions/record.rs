//! The recorded figures: a text file of `name  instructions for one operation`, and the comparison with new ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Growth beyond which a figure fails, in percent.
pub const LIMIT: f64 = 10.0;
/// Shrinkage beyond which a figure is worth recording, so that the gain can't be lost again unseen.
pub const GAIN: f64 = -10.0;

const HEAD: &str = "\
# Instructions of one operation, by valgrind's callgrind; see docs/instructions.md.
# Written by: cargo bench --workspace --bench instructions -- --accept
";

/// The figures by name.
pub type Record = BTreeMap<String, f64>;

/// Why the record is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It can't be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// A line is not a name and a figure.
    #[error("{path}:{line}: expected a name and a figure", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
    },
}

/// How a figure compares with its record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Within bounds: percent.
    Same(f64),
    /// Less than recorded by more than [`GAIN`].
    Less(f64),
    /// More than recorded by more than [`LIMIT`].
    More(f64),
    /// Not in the record.
    New,
}

/// Compares.
pub fn compare(recorded: Option<f64>, now: f64) -> Change {
    match recorded.map(|recorded| (now / recorded - 1.0) * 100.0) {
        None => Change::New,
        Some(percent) if percent > LIMIT => Change::More(percent),
        Some(percent) if percent < GAIN => Change::Less(percent),
        Some(percent) => Change::Same(percent),
    }
}

/// Reads the record; an absent file is an empty one.
pub fn read(path: &Path) -> Result<Record, RecordError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(RecordError::File(path.to_owned(), error)),
    };
    let mut record = Record::new();
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let figure = (words.next(), words.next().and_then(|figure| figure.parse::<f64>().ok()), words.next());
        let (Some(name), Some(figure), None) = figure else {
            return Err(RecordError::Line { path: path.to_owned(), line: index + 1 });
        };
        record.insert(name.to_owned(), figure);
    }
    Ok(record)
}

/// Writes the record, in the order of `names`.
pub fn write(path: &Path, names: &[&str], record: &Record) -> Result<(), RecordError> {
    let mut text = HEAD.to_owned();
    for name in names {
        if let Some(figure) = record.get(*name) {
            text.push_str(&format!("{name:<44} {figure:>10.1}\n"));
        }
    }
    fs::write(path, text).map_err(|error| RecordError::File(path.to_owned(), error))
}
