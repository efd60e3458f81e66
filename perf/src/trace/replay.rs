//! The I/Os of a trace for a lane: read by a thread some way ahead, due at their times.
//!
//! Invariant: at most [`AHEAD`] batches are in memory; they go round, so that nothing is allocated for an I/O.

use super::{Entries, Entry, Rules, TraceError};
use sledge_reactor::time::Instant;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

/// Entries of a batch.
const BATCH: usize = 1024;
/// Batches that are read ahead.
const AHEAD: usize = 8;

enum Batch {
    Entries(Vec<Entry>),
    /// The file is not any more what it was.
    Failed(String),
}

/// A trace that is being replayed; all clones are the same.
#[derive(Clone)]
pub struct Replay {
    state: Rc<RefCell<State>>,
}

struct State {
    batches: Receiver<Batch>,
    spare: SyncSender<Vec<Entry>>,
    entries: Vec<Entry>,
    /// The next of them.
    next: usize,
    start: Instant,
    no_stall: bool,
    is_over: bool,
    failure: Option<String>,
}

impl Replay {
    /// Begins to read ahead.
    ///
    /// # Errors
    /// When the file can't be read any more.
    pub fn open(rules: &Rules) -> Result<Self, TraceError> {
        let entries = Entries::open(rules)?;
        let (sender, batches) = sync_channel(AHEAD);
        let (spare, empty) = sync_channel(AHEAD + 2);
        let thread = std::thread::Builder::new().name("trace".into());
        let started = thread.spawn(move || read_ahead(entries, &sender, &empty));
        started.map_err(|error| TraceError::File { path: rules.path.clone(), error: error.to_string() })?;
        let state = State {
            batches,
            spare,
            entries: Vec::new(),
            next: 0,
            start: Instant::default(),
            no_stall: rules.no_stall,
            is_over: false,
            failure: None,
        };
        Ok(Self { state: Rc::new(RefCell::new(state)) })
    }

    /// The first I/O is due at `at`.
    pub fn start(&self, at: Instant) {
        self.state.borrow_mut().start = at;
    }

    /// Whether an I/O may go at `at`: if so, from when its latency counts. [`Replay::take`] takes it.
    pub fn due(&self, at: Instant) -> Option<Instant> {
        let mut state = self.state.borrow_mut();
        let (start, no_stall) = (state.start, state.no_stall);
        let due = start + Duration::from_nanos(state.peek()?.due);
        if no_stall { Some(at) } else { Some(due).filter(|due| *due <= at) }
    }

    /// When the next I/O may go; at once, as long as that is not known. None at the end.
    pub fn wake_at(&self) -> Option<Instant> {
        let mut state = self.state.borrow_mut();
        let start = state.start;
        match state.peek() {
            Some(entry) => Some(start + Duration::from_nanos(entry.due)),
            None if state.is_over => None,
            None => Some(start),
        }
    }

    /// The I/O that is due.
    pub fn take(&self) -> Option<Entry> {
        let mut state = self.state.borrow_mut();
        let entry = state.peek();
        state.next += usize::from(entry.is_some());
        entry
    }

    /// What the next I/O is.
    pub fn peek(&self) -> Option<Entry> {
        self.state.borrow_mut().peek()
    }

    /// Whether there is no more, and never will be.
    pub fn is_over(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.peek().is_none() && state.is_over
    }

    /// Why it ended too early, if it did.
    pub fn failure(&self) -> Option<String> {
        self.state.borrow().failure.clone()
    }
}

impl State {
    fn peek(&mut self) -> Option<Entry> {
        if self.next == self.entries.len() && !self.is_over {
            match self.batches.try_recv() {
                Ok(Batch::Entries(entries)) => {
                    let mut done = std::mem::replace(&mut self.entries, entries);
                    done.clear();
                    self.next = 0;
                    // Where there is no room for it, it is one too many.
                    let _ = self.spare.try_send(done);
                }
                Ok(Batch::Failed(error)) => (self.is_over, self.failure) = (true, Some(error)),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.is_over = true,
            }
        }
        self.entries.get(self.next).copied()
    }
}

/// Fills batches until the end, or until nobody wants more.
fn read_ahead(mut entries: Entries, batches: &SyncSender<Batch>, spare: &Receiver<Vec<Entry>>) {
    loop {
        let mut batch = spare.try_recv().unwrap_or_default();
        let mut failure = None;
        for entry in entries.by_ref().take(BATCH) {
            match entry {
                Ok(entry) => batch.push(entry),
                Err(error) => failure = Some(error.to_string()),
            }
        }
        let is_last = batch.len() < BATCH;
        if !batch.is_empty() && batches.send(Batch::Entries(batch)).is_err() {
            return;
        }
        if let Some(error) = failure {
            // Nobody there wants to know.
            let _ = batches.send(Batch::Failed(error));
            return;
        }
        if is_last {
            return;
        }
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").finish_non_exhaustive()
    }
}
