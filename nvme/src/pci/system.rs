//! The machine as the kernel shows it in files: `/sys`, `/proc` and `/dev`.
//!
//! Owns where these lie, so that tests can put a tree of their own in their place, and how a word is written to the
//! kernel. Invariant: nothing in `pci` opens a path below `/sys`, `/proc` or `/dev` but through here, and every error
//! names its file.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes a word to a file of the kernel's.
type Writer = dyn Fn(&Path, &str) -> io::Result<()> + Send + Sync;

/// A machine: this one, or a tree of files that stands for one.
#[derive(Clone)]
pub struct System {
    root: PathBuf,
    writer: Arc<Writer>,
}

/// A file of the kernel's could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}{}", path.display(), advice(source))]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied { "; run this as root" } else { "" }
}

impl System {
    /// This machine.
    #[must_use]
    pub fn host() -> System {
        System::at("/")
    }

    /// A machine whose `/sys`, `/proc` and `/dev` lie in a folder.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> System {
        // Not created: a file that the kernel does not have is an error.
        let writer = |path: &Path, word: &str| {
            io::Write::write_all(&mut fs::File::options().write(true).open(path)?, word.as_bytes())
        };
        System { root: root.into(), writer: Arc::new(writer) }
    }

    /// The same, with writes that do what the kernel would.
    #[cfg(test)]
    pub(super) fn with_writer(
        mut self,
        writer: impl Fn(&Path, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> System {
        self.writer = Arc::new(writer);
        self
    }

    /// Where an absolute path of the machine lies.
    #[must_use]
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The folder of a PCI function.
    pub(super) fn function(&self, address: &super::PciAddress) -> PathBuf {
        self.path("/sys/bus/pci/devices").join(address.to_string())
    }

    /// Writes a word.
    pub(super) fn write(&self, path: &Path, word: &str) -> Result<(), FileError> {
        (self.writer)(path, word).map_err(|source| FileError { path: path.to_owned(), source })
    }
}

/// A file's text without blanks around it.
pub(super) fn read(path: &Path) -> Result<String, FileError> {
    let text = fs::read_to_string(path).map_err(|source| FileError { path: path.to_owned(), source })?;
    Ok(text.trim().to_owned())
}

/// A file's text as a number, hexadecimal behind `0x`; `None` when there is no such file, or no number in it.
pub(super) fn number(path: &Path) -> Option<i64> {
    let text = read(path).ok()?;
    match text.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The last part of what a link points to; `None` when there is no such link.
pub(super) fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// The names in a folder, sorted; none when there is no such folder.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<OsString> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    names.sort();
    names.into_iter().filter_map(|name| name.into_string().ok()).collect()
}
