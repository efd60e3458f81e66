//! One line on a terminal, renewed each second, while a run goes on; or lines that stay, wherever they go.
//!
//! A thread of its own reads the run's [`Live`] counters; nothing is shown where standard error is no terminal.

mod line;

use crate::engine::Live;
use crate::job::Job;
use line::{Look, Share};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the line is renewed.
const PERIOD: Duration = Duration::from_secs(1);
/// How soon the end of the run is noticed.
const TICK: Duration = Duration::from_millis(20);

/// A running progress line.
pub struct Progress {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts the line, if standard error is a terminal; or, with `every`, a line each time so long has passed, which
    /// stays. `stage` is which of how many runs this is.
    pub fn start(live: Arc<Live>, jobs: &[Job], stage: (usize, usize), every: Option<Duration>) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let thread = (every.is_some() || std::io::stderr().is_terminal()).then(|| {
            let end = end.clone();
            let shares: Vec<Share> = jobs.iter().map(Share::new).collect();
            std::thread::spawn(move || show(&live, &end, &shares, stage, every))
        });
        Self { end, thread }
    }

    /// Ends the line and removes it.
    pub fn stop(self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread {
            // It only prints; if it panicked, the message is on the screen already.
            let _ = thread.join();
        }
    }
}

fn show(live: &Live, end: &AtomicBool, shares: &[Share], stage: (usize, usize), every: Option<Duration>) {
    let period = every.unwrap_or(PERIOD);
    let start = Instant::now();
    let mut before = look(live);
    let mut at = start;
    let mut stderr = std::io::stderr();
    while !end.load(Ordering::Acquire) {
        std::thread::sleep(TICK);
        let passed = at.elapsed();
        if passed < period {
            continue;
        }
        let now = look(live);
        let line = line::line(shares, &before, &now, passed, start.elapsed(), stage);
        // A terminal that is gone is no reason to end the run.
        let _ = match every {
            Some(_) => writeln!(stderr, "{line}"),
            None => write!(stderr, "\r\x1b[K{line}"),
        };
        (before, at) = (now, Instant::now());
    }
    if every.is_none() {
        let _ = write!(stderr, "\r\x1b[K");
    }
}

fn look(live: &Live) -> Vec<Look> {
    let looks = live.jobs().iter().map(|job| Look {
        phase: job.phase(),
        ios: job.ios().iter().sum(),
        bytes: job.bytes().iter().sum(),
        errors: job.errors(),
        p99_ns: job.latest().map(|second| second.p99_ns),
    });
    looks.collect()
}
