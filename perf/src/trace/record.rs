//! What a lane sends, into a file: an iolog of version 3, which fio and this program replay.
//!
//! Invariant: every I/O that the lane has handed over is in the file when the recording has ended, or the recording says
//! why not. A thread writes it; the lane only waits for it when it is [`AHEAD`] batches behind. Batches go round, so that
//! nothing is allocated for an I/O.

use crate::workload::{Kind, Step};
use sledge_reactor::time::{Instant, now};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// I/Os of a batch.
const BATCH: usize = 512;
/// Batches that wait to be written.
const AHEAD: usize = 64;
/// Most bytes of a name in an iolog.
const MOST_NAME: usize = 255;

/// One I/O.
#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Instant,
    step: Step,
}

/// A file that is being written.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    batch: Vec<Sent>,
    batches: SyncSender<Vec<Sent>>,
    spare: Receiver<Vec<Sent>>,
    thread: JoinHandle<io::Result<()>>,
}

impl Recorder {
    /// Begins a file on I/Os to `name`, whose blocks have 2 to the power of `shift` bytes.
    ///
    /// # Errors
    /// When it can't be written, in words.
    pub fn begin(path: &Path, name: &str, shift: u32) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        if name.len() > MOST_NAME || name.contains(char::is_whitespace) {
            return Err(format!(
                "{}: {name:?} can't be named in an iolog: over {MOST_NAME} bytes, or with blanks",
                path.display()
            ));
        }
        let file = File::create(path).map_err(failed)?;
        let (batches, filled) = sync_channel(AHEAD);
        let (give_back, spare) = sync_channel(AHEAD);
        let name = name.to_owned();
        let thread = std::thread::Builder::new().name("iolog".into());
        let thread = thread.spawn(move || write(file, &name, shift, &filled, &give_back)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), batch: Vec::with_capacity(BATCH), batches, spare, thread })
    }

    /// An I/O is sent.
    pub fn add(&mut self, step: &Step) {
        self.batch.push(Sent { at: now(), step: *step });
        if self.batch.len() == BATCH {
            let empty = self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH));
            let batch = std::mem::replace(&mut self.batch, empty);
            // A thread that has gone says why when the recording ends.
            let _ = self.batches.send(batch);
        }
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// What kept it from being written, in words.
    pub fn end(self) -> Result<(), String> {
        let Self { path, batch, batches, thread, .. } = self;
        let _ = batches.send(batch);
        drop(batches);
        let written = thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread died")));
        written.map_err(|error| format!("{}: {error}", path.display()))
    }
}

fn write(
    file: File,
    name: &str,
    shift: u32,
    batches: &Receiver<Vec<Sent>>,
    spare: &SyncSender<Vec<Sent>>,
) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(256 << 10, file);
    writeln!(file, "fio version 3 iolog\n0 {name} add\n0 {name} open")?;
    let (mut start, mut latest) = (None, 0);
    for mut batch in batches {
        for Sent { at, step } in batch.drain(..) {
            latest = (at - *start.get_or_insert(at)).as_micros();
            let (offset, length) = (step.block << shift, u64::from(step.blocks) << shift);
            let word = match step.kind {
                Kind::Read => "read",
                Kind::Write | Kind::Zeroes => "write",
                Kind::Trim => "trim",
                Kind::Flush => "datasync",
            };
            writeln!(file, "{latest} {name} {word} {offset} {length}")?;
        }
        // Where there is no room for it, it is one too many.
        let _ = spare.try_send(batch);
    }
    writeln!(file, "{latest} {name} close")?;
    file.flush()
}
