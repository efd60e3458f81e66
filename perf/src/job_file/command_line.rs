//! A command line of fio's: options of jobs, of which `--name` begins one, and job files.
//!
//! Options in front of the first `--name` are for all jobs behind them. Those that are about the program rather than a job
//! are told apart by their names and left to the caller.

use std::path::Path;

use super::syntax::{self, Section, Setting};
use super::{JobFileError, syntax::expand};

/// Where options stand that are in no file.
const PLACE: &str = "command line";

/// Options of the program, by fio's names and ours.
const PROGRAM: &[&str] = &[
    "busy",
    "cores",
    "html",
    "output",
    "output-format",
    "parse-only",
    "status-interval",
    "target-pid",
    "target-socket",
];

/// What fio's program takes, and has no meaning here.
const IGNORED: &[&str] = &["eta", "eta-interval", "eta-newline", "max-jobs", "alloc-size", "warnings-fatal"];

/// Options that stand without a value: what follows is another word.
const SWITCHES: &[&str] = &[
    "allrandrepeat",
    "busy",
    "exitall",
    "fixedbufs",
    "group_reporting",
    "hipri",
    "new_group",
    "norandommap",
    "overwrite",
    "parse-only",
    "registerfiles",
    "stonewall",
    "thread",
    "time_based",
    "unlink",
    "verify_only",
    "wait_for_previous",
];

/// A command line that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Its jobs, and those of its files.
    pub sections: Vec<Section>,
    /// What is about the program, as `--KEY=VALUE` or `--KEY`.
    pub program: Vec<String>,
}

impl CommandLine {
    /// Reads the words behind the program's name.
    ///
    /// # Errors
    /// When a file can't be read, or there is no job.
    pub fn read(words: &[String]) -> Result<Self, JobFileError> {
        let failed = |error: String| JobFileError::Line { place: PLACE.into(), error };
        let mut line = Self::default();
        let mut globals: Vec<Setting> = Vec::new();
        let mut is_in_job = false;
        let mut words = words.iter().peekable();
        while let Some(word) = words.next() {
            let Some(option) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                line.sections.extend(syntax::read(Path::new(word))?);
                is_in_job = false;
                continue;
            };
            let (key, mut value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value.to_owned())),
                None => (option, None),
            };
            if value.is_none() && !SWITCHES.contains(&key) {
                value = words.next_if(|next| !next.starts_with("--")).cloned();
            }
            if PROGRAM.contains(&key) {
                line.program.push(match value {
                    Some(value) => format!("--{key}={value}"),
                    None => format!("--{key}"),
                });
                continue;
            }
            if IGNORED.contains(&key) {
                continue;
            }
            let value = value.map(|value| expand(&value)).transpose();
            let value = value.map_err(|name| failed(format!("the environment has no variable {name}")))?;
            if key == "name" {
                let name = value.ok_or_else(|| failed("--name without a name".into()))?;
                line.sections.push(Section { name, place: PLACE.into(), settings: globals.clone() });
                is_in_job = true;
                continue;
            }
            let setting = Setting { key: key.to_owned(), value, place: PLACE.into() };
            match line.sections.last_mut().filter(|_| is_in_job) {
                Some(section) => section.settings.push(setting),
                None => globals.push(setting),
            }
        }
        if line.sections.is_empty() {
            return Err(failed("there is no job: --name=NAME begins one, and a FILE.fio has some".into()));
        }
        Ok(line)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<CommandLine, String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        CommandLine::read(&words).map_err(|error| error.to_string())
    }

    // Without it a command line that works with fio could be another load here.
    #[test]
    fn names_begin_jobs() {
        let line = "--bs=4k --time_based --name=a --rw randread --output-format=json --name b --direct=1 --eta=never";
        let line = read(line).unwrap();
        let of = |section: &Section| {
            let settings =
                section.settings.iter().map(|setting| (setting.key.clone(), setting.value.clone()));
            (section.name.clone(), settings.collect::<Vec<_>>())
        };
        let some = |text: &str| Some(text.to_owned());
        let common = || vec![("bs".to_owned(), some("4k")), ("time_based".to_owned(), None)];
        let with = |key: &str, value: &str| [common(), vec![(key.to_owned(), some(value))]].concat();
        let sections: Vec<_> = line.sections.iter().map(of).collect();
        assert_eq!(
            sections,
            [("a".to_owned(), with("rw", "randread")), ("b".to_owned(), with("direct", "1"))]
        );
        assert_eq!(line.program, ["--output-format=json"]);
        assert!(read("--rw=read").unwrap_err().contains("there is no job: --name=NAME begins one"));
        assert!(read("--name").unwrap_err().contains("without a name"));
        assert!(read("/nobody.fio").unwrap_err().starts_with("/nobody.fio: "));
    }
}
