//! One line a second on a terminal, while a run goes on.

use crate::engine::Live;
use crate::job::Job;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running progress line.
pub struct Progress {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts the line, if standard error is a terminal.
    pub fn start(live: Arc<Live>, jobs: &[Job]) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let total = jobs.iter().map(|job| job.start_delay + job.ramp + job.time).max().unwrap_or_default();
        let thread = std::io::stderr().is_terminal().then(|| {
            let end = end.clone();
            std::thread::spawn(move || show(&live, &end, total.as_secs_f64()))
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

fn counts(live: &Live) -> (u64, u64) {
    let ios = live.jobs().iter().flat_map(|job| job.ios()).sum();
    let bytes = live.jobs().iter().flat_map(|job| job.bytes()).sum();
    (ios, bytes)
}

fn show(live: &Live, end: &AtomicBool, total: f64) {
    let start = Instant::now();
    let (mut before, mut at) = (counts(live), start);
    let mut stderr = std::io::stderr();
    while !end.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(50));
        let passed = at.elapsed().as_secs_f64();
        if passed < 1.0 {
            continue;
        }
        let now = counts(live);
        let rate = now.0.saturating_sub(before.0) as f64 / passed;
        let gibi = now.1.saturating_sub(before.1) as f64 / passed / f64::from(1 << 30);
        let seconds = start.elapsed().as_secs_f64();
        // A terminal that is gone is no reason to end the run.
        let _ =
            write!(stderr, "\r{seconds:5.0} of {total:.0} s  {:9.1} kIOPS  {gibi:7.3} GiB/s ", rate / 1e3);
        (before, at) = (now, Instant::now());
    }
    let _ = write!(stderr, "\r{:60}\r", "");
}
