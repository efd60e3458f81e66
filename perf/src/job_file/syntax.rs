//! Lines of a job file: sections with their settings, globals already handed down.

use std::path::{Path, PathBuf};

use super::JobFileError;

/// How deep files may include one another.
const DEEPEST: usize = 16;

/// A job's section, with what it inherits in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Between the brackets.
    pub name: String,
    /// File and line of the brackets.
    pub place: String,
    /// In the order in which they apply.
    pub settings: Vec<Setting>,
}

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name as it was written.
    pub key: String,
    /// After the equals sign, if there was one.
    pub value: Option<String>,
    /// File and line.
    pub place: String,
}

#[derive(Default)]
struct Reader {
    globals: Vec<Setting>,
    sections: Vec<Section>,
    /// Whether settings go to the globals, to the last section, or nowhere yet.
    current: Current,
}

#[derive(Default, PartialEq)]
enum Current {
    #[default]
    None,
    Global,
    Job,
}

/// Reads the sections of a file and of those that it includes.
pub fn read(path: &Path) -> Result<Vec<Section>, JobFileError> {
    let mut reader = Reader::default();
    reader.read(path, 0)?;
    Ok(reader.sections)
}

impl Reader {
    fn read(&mut self, path: &Path, depth: usize) -> Result<(), JobFileError> {
        let failed = |error: String| JobFileError::File { path: path.into(), error };
        let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|_| failed("this is not a text file".into()))?;
        for (index, line) in text.lines().enumerate() {
            let place = format!("{}:{}", path.display(), index + 1);
            // fio ends a line at the first of these, wherever it stands.
            let line = line.split([';', '#']).next().unwrap_or_default().trim();
            let error = |error: &str| JobFileError::Line { place: place.clone(), error: error.into() };
            if line.is_empty() {
                continue;
            } else if let Some(rest) = line.strip_prefix('[') {
                let name =
                    rest.strip_suffix(']').ok_or_else(|| error("no ] at the end of a section's name"))?;
                self.begin(name.trim(), place);
            } else if let Some(name) = line.strip_prefix("include ") {
                if depth == DEEPEST {
                    return Err(error("too many files include one another"));
                }
                self.read(&beside(path, name.trim()), depth + 1)?;
            } else {
                let (key, value) = match line.split_once('=') {
                    Some((key, value)) => (
                        key.trim(),
                        Some(
                            expand(value.trim())
                                .map_err(|name| error(&format!("the environment has no variable {name}")))?,
                        ),
                    ),
                    None => (line, None),
                };
                let setting = Setting { key: key.to_owned(), value, place: place.clone() };
                match (&self.current, self.sections.last_mut()) {
                    (Current::Global, _) => self.globals.push(setting),
                    (Current::Job, Some(section)) => section.settings.push(setting),
                    _ => return Err(error("an option outside of any section")),
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, name: &str, place: String) {
        if name.eq_ignore_ascii_case("global") {
            self.current = Current::Global;
        } else {
            self.current = Current::Job;
            let settings = self.globals.clone();
            self.sections.push(Section { name: name.to_owned(), place, settings });
        }
    }
}

/// An included file, as it is named, or else in the folder of the file that includes it.
fn beside(path: &Path, name: &str) -> PathBuf {
    let named = PathBuf::from(name);
    match path.parent() {
        Some(folder) if named.is_relative() && !named.exists() => folder.join(named),
        _ => named,
    }
}

/// Puts in variables of the environment (`${NAME}`) and fio's own words. Gives the name of a variable that is missing.
pub fn expand(value: &str) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, following)) = after.split_once('}') else { break };
        expanded += before;
        expanded += &std::env::var(name).map_err(|_| name.to_owned())?;
        rest = following;
    }
    expanded += rest;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(expanded.replace("$ncpus", &cpus.to_string()).replace("$pagesize", "4096"))
}
