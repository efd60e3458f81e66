//! The hold that a device has on its file, so that nobody else writes to it.
//!
//! Invariant: of all devices of all targets of this machine one at most holds a file, whatever the names it has. It ends
//! with the process, however that ends: the descriptor is its own, which no transfer in flight keeps open. Kernel block
//! devices need none: they are opened by one process at a time. Called when a device is opened.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

/// How often a file that is held is tried, and how long is waited in between: the device that had it before, of
/// which somebody has just asked something, lets go within this.
const ATTEMPTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// A file that is held, until this is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    _file: File,
}

impl Hold {
    /// Holds a file; `None` where there is no file of that name (but a block device, or nothing, as in the simulator's
    /// world) or its file system has no locks.
    ///
    /// # Errors
    /// [`io::ErrorKind::ResourceBusy`] when somebody else holds it, and what the system says.
    pub fn take(path: &Path) -> io::Result<Option<Hold>> {
        let mut attempt = 1;
        loop {
            match try_take(path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < ATTEMPTS => {
                    attempt += 1;
                    std::thread::sleep(PAUSE);
                }
                taken => return taken,
            }
        }
    }
}

fn try_take(path: &Path) -> io::Result<Option<Hold>> {
    let kind = match std::fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !kind.is_file() {
        return Ok(None);
    }
    let file = File::options().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Hold { _file: file })),
        Err(TryLockError::WouldBlock) => {
            let who = "another target, or another device of this one, serves it; use another file";
            let text = format!("{} is in use: {who}", path.display());
            Err(io::Error::new(io::ErrorKind::ResourceBusy, text))
        }
        Err(TryLockError::Error(error)) => {
            tracing::warn!(path = %path.display(), %error, "can't lock the file; see to it that nobody else serves it");
            Ok(None)
        }
    }
}
