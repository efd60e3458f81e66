//! Runs one case under callgrind and reads what it counted.
//!
//! Invariant: the child sees the same arguments and environment every time, so its stack and its tables lie alike.

use crate::cases::Case;
use crate::measure::{BEGIN, END, SECTIONS};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The argument that makes this program run one case.
pub const INSIDE: &str = "--inside";

/// No `rep movsb`, of which callgrind counts every byte and processors differ in when it pays.
const TUNABLES: &str =
    "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824";

/// Why there is no count.
#[derive(Debug, thiserror::Error)]
pub enum CallgrindError {
    /// No valgrind.
    #[error("valgrind can't be started ({0}); install it: apt-get install valgrind")]
    Start(io::Error),
    /// The case failed, or valgrind did.
    #[error("{case}: {status}; what it printed:\n{printed}")]
    Failed {
        /// The case.
        case: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of its output.
        printed: String,
    },
    /// Something is wrong with what callgrind wrote.
    #[error("{0}: callgrind wrote no total there")]
    NoTotal(PathBuf),
    /// A file can't be read or written.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
}

/// Counts the instructions of a case's section; returns the least of its sections, whose profile is left in
/// `folder` as `CASE.callgrind`, with a dash for each slash of the name.
pub fn count(case: &Case, folder: &Path) -> Result<u64, CallgrindError> {
    let file = |path: PathBuf| move |error| CallgrindError::File(path, error);
    fs::create_dir_all(folder).map_err(file(folder.to_owned()))?;
    let stem = folder.join(format!("{}.callgrind", case.name.replace('/', "-")));
    let part = |number: usize| PathBuf::from(format!("{}.{number}", stem.display()));
    let program = env::current_exe().map_err(file(PathBuf::from("this program")))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", stem.display()))
        .arg(format!("--zero-before={BEGIN}"))
        .arg(format!("--dump-before={END}"))
        .arg(program)
        .args([INSIDE, case.name])
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()
        .map_err(CallgrindError::Start)?;
    if !output.status.success() {
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed[printed.len().saturating_sub(4000)..]).into_owned();
        return Err(CallgrindError::Failed { case: case.name, status: output.status, printed });
    }
    let mut least: Option<(u64, usize)> = None;
    for number in 1..=SECTIONS {
        let text = fs::read_to_string(part(number)).map_err(file(part(number)))?;
        let total = total(&text).ok_or_else(|| CallgrindError::NoTotal(part(number)))?;
        least = Some(least.map_or((total, number), |least| least.min((total, number))));
    }
    let (total, best) = least.ok_or_else(|| CallgrindError::NoTotal(stem.clone()))?;
    // What came after the last section is of no interest; it has the name without a number.
    fs::rename(part(best), &stem).map_err(file(stem.clone()))?;
    for number in (1..=SECTIONS + 1).filter(|number| *number != best) {
        // A part beyond the last may be there or not.
        let _ = fs::remove_file(part(number));
    }
    Ok(total)
}

/// The instructions that a profile sums up to.
fn total(profile: &str) -> Option<u64> {
    let mut lines = profile.lines().rev();
    let value =
        lines.find_map(|line| line.strip_prefix("totals:").or_else(|| line.strip_prefix("summary:")))?;
    value.split_whitespace().next()?.parse().ok()
}
