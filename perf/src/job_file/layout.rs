//! Files that a job needs and that are not there yet, or too short.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use super::JobFileError;
use crate::job::{Job, Target};

const CHUNK: usize = 1 << 20;

/// Writes what is missing of the job's file, so that reads find data and not a hole. Only regular files grow; none is
/// made below `/dev`. Gives what was done, in words, if anything was.
///
/// # Errors
/// When the file can't be written.
pub fn lay_out(job: &Job) -> Result<Option<String>, JobFileError> {
    let (Target::File { path, .. }, Some(size)) = (&job.target, job.size) else { return Ok(None) };
    let failed = |error: String| JobFileError::File { path: path.clone(), error };
    let end = job.offset.saturating_add(size);
    let there = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Ok(None),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound || path.starts_with("/dev") => {
            return Err(failed(error.to_string()));
        }
        Err(_) => 0,
    };
    if there >= end {
        return Ok(None);
    }
    fill(path, there, end).map_err(|error| failed(error.to_string()))?;
    Ok(Some(format!("{}: wrote bytes {there} to {end}, which were missing", path.display())))
}

fn fill(path: &Path, from: u64, to: u64) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut chunk = vec![0u8; CHUNK];
    let mut state = from | 1;
    let mut at = from;
    while at < to {
        // Not compressible, and different in each chunk.
        for word in chunk.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&(state ^ (state >> 31)).to_le_bytes());
        }
        let now = (to - at).min(CHUNK as u64);
        file.write_all(&chunk[..now as usize])?;
        at += now;
    }
    file.sync_all()
}
