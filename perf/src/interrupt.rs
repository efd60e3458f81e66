//! Ctrl-C: before there is anything to report it ends the process; from then on the first one ends the run early, with
//! a report of what was measured, and the second ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

const WORDS: &[u8] = b"sledge-perf: interrupted\n";

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static DEFERRED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    if DEFERRED.load(Ordering::Relaxed) {
        INTERRUPTED.store(true, Ordering::Relaxed);
        return;
    }
    // SAFETY: both calls may be made in a signal handler; the bytes are there for as long as the program is.
    unsafe {
        libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len());
        libc::_exit(libc::EXIT_FAILURE);
    }
}

/// Takes note of the first SIGINT or SIGTERM from now on.
pub fn watch() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: all-zero bytes are a valid `sigaction` (no flags, nothing masked).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND | libc::SA_RESTART;
        // SAFETY: the handler only reads and writes atomics, writes a line and ends the process, all of which a signal
        // handler may do; should the call fail, the signal ends the process, as it does without it.
        unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
    }
}

/// There is something to report from now on: a signal is taken note of, and ends nothing by itself.
pub fn defer() {
    DEFERRED.store(true, Ordering::Relaxed);
}

/// Whether there was one.
pub fn is_set() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
