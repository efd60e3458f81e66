//! What keeps the process alive when a device's registers vanish under a running access.
//!
//! A device that is pulled out, or whose memory decoding the kernel switches off, makes the next access to its mapped
//! registers a `SIGBUS`, which ends a process that does not expect it. Owns the process's handler of that signal and a
//! table of the mapped registers. The handler marks the window that was hit as gone, puts zeroed memory where the
//! registers were, and returns, so that the access is done again and succeeds; whoever reads then sees the mark and
//! takes all ones for the value. A `SIGBUS` anywhere else goes on to whoever handled the signal before.
//!
//! Invariant: an entry describes mapped registers of one [`Window`](super::window::Window), which removes it before it
//! unmaps them. The handler calls `mmap` and `sigaction` only, and touches atomics: nothing that a signal may not do.

#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Most windows of a process.
const MOST: usize = 256;

struct Entry {
    taken: AtomicBool,
    /// First byte; 0 when there is no window.
    start: AtomicUsize,
    bytes: AtomicUsize,
    gone: AtomicBool,
}

static TABLE: [Entry; MOST] = [const {
    Entry {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        gone: AtomicBool::new(false),
    }
}; MOST];

/// Who handled the signal before us; set once the handler is in place.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A window's entry in the table.
pub(super) struct Watched(&'static Entry);

impl Watched {
    /// Guards `bytes` bytes of registers at `start`, whole pages, until it is dropped.
    pub(super) fn new(start: usize, bytes: usize) -> io::Result<Watched> {
        install()?;
        let free = TABLE.iter().find(|entry| !entry.taken.swap(true, Ordering::AcqRel));
        let entry = free.ok_or_else(|| io::Error::other(format!("more than {MOST} PCI functions")))?;
        entry.gone.store(false, Ordering::Relaxed);
        entry.bytes.store(bytes, Ordering::Relaxed);
        entry.start.store(start, Ordering::Release);
        Ok(Watched(entry))
    }

    /// Whether the registers have vanished. Right after an access, in the same thread, it says whether that one failed.
    #[inline]
    pub(super) fn gone(&self) -> bool {
        self.0.gone.load(Ordering::Acquire)
    }
}

impl Watched {
    /// Has the registers vanish now, as the device is known to be gone: what is there may soon be another device's.
    pub(super) fn give_up(&self) {
        replace(self.0.start.load(Ordering::Acquire));
    }

    /// Ends it: before the registers are unmapped, as something else may be mapped there right after.
    pub(super) fn end(&mut self) {
        self.0.start.store(0, Ordering::Release);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.end();
        self.0.taken.store(false, Ordering::Release);
    }
}

fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    // Only this function holds it, and does not panic.
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    // SAFETY: an all-zero `sigaction` is a valid one; the kernel fills it.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: asks only; the pointer is valid.
    check(unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) })?;
    // Set already: an earlier attempt failed after this.
    let _ = BEFORE.set(before);
    // SAFETY: as above.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction =
        handle as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `handle` has the signature that SA_SIGINFO asks for, and does only what a signal handler may; what it
    // needs, `BEFORE`, is set.
    check(unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut()) })?;
    *installed = true;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid `info` to handlers with SA_SIGINFO, and SIGBUS has an address.
    let address = unsafe { (*info).si_addr() }.addr();
    if !replace(address) {
        pass_on(signal, info, context);
    }
}

/// Puts memory where the window that holds `address` was. False when there is no such window.
fn replace(address: usize) -> bool {
    for entry in &TABLE {
        let start = entry.start.load(Ordering::Acquire);
        let bytes = entry.bytes.load(Ordering::Relaxed);
        if start == 0 || !(start..start + bytes).contains(&address) {
            continue;
        }
        // First the mark, so that nobody takes the zeroes for registers.
        entry.gone.store(true, Ordering::Release);
        // SAFETY: `errno` of this thread; the interrupted code may be about to read it.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: the range is a window's, mapped by us and in use by the access that was interrupted, or by the window
        // that gives up, so it can't be unmapped now; anonymous memory takes its place at once, without a moment in which
        // nothing is there.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::without_provenance_mut(start),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
        return mapped != libc::MAP_FAILED;
    }
    false
}

/// Lets whoever handled the signal before have it.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get();
    match before.map(|before| (before.sa_sigaction, before.sa_flags)) {
        Some((handler, flags)) if handler != libc::SIG_DFL && handler != libc::SIG_IGN => {
            if flags & libc::SA_SIGINFO != 0 {
                // SAFETY: with SA_SIGINFO the number is the address of a function of this signature.
                let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                    unsafe { std::mem::transmute(handler) };
                handler(signal, info, context);
            } else {
                // SAFETY: without SA_SIGINFO, and being neither default nor ignore, it is one of this signature.
                let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
                handler(signal);
            }
        }
        // The default: once we return, the same access ends the process.
        _ => {
            // SAFETY: an all-zero `sigaction` is the default action; setting it is allowed in a handler.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            }
        }
    }
}
