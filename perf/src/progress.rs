//! One line a second on a terminal, while a run goes on.

use crate::arguments::RunOptions;
use crate::worker::Shared;
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
    pub fn start(shared: Arc<Shared>, options: &RunOptions) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let thread = std::io::stderr().is_terminal().then(|| {
            let (end, bytes, total) = (end.clone(), options.bs, options.ramp + options.time);
            std::thread::spawn(move || show(&shared, &end, bytes, total))
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

fn show(shared: &Shared, end: &AtomicBool, bytes: u64, total: f64) {
    let start = Instant::now();
    let (mut before, mut at) = (shared.done.load(Ordering::Relaxed), start);
    let mut stderr = std::io::stderr();
    while !end.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(50));
        let passed = at.elapsed();
        if passed < Duration::from_secs(1) {
            continue;
        }
        let done = shared.done.load(Ordering::Relaxed);
        let rate = (done - before) as f64 / passed.as_secs_f64();
        let seconds = start.elapsed().as_secs_f64();
        let gibi = rate * bytes as f64 / f64::from(1 << 30);
        // A terminal that is gone is no reason to end the run.
        let _ =
            write!(stderr, "\r{seconds:5.0} of {total:.0} s  {:9.1} kIOPS  {gibi:7.3} GiB/s ", rate / 1e3);
        (before, at) = (done, Instant::now());
    }
    let _ = write!(stderr, "\r{:60}\r", "");
}
