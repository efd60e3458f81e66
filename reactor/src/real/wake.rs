//! How other threads end a reactor's sleep: an eventfd, written only when the reactor sleeps.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::rest::Rest;
use crate::backend::Wake;

/// Makes an eventfd that is never read; each write makes an edge.
pub(super) fn new_eventfd() -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; the result is checked before it is used.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was made just now and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The waker of one real reactor. May be made before the reactor, on another thread.
#[derive(Debug)]
pub(crate) struct RealWaker {
    rest: Rest,
    event: OwnedFd,
}

impl RealWaker {
    /// Makes a waker.
    pub(crate) fn new() -> io::Result<RealWaker> {
        Ok(RealWaker { rest: Rest::new(), event: new_eventfd()? })
    }

    /// The reactor's state of rest.
    pub(super) fn rest(&self) -> &Rest {
        &self.rest
    }

    /// The descriptor whose edges end the wait.
    pub(super) fn descriptor(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

impl Wake for RealWaker {
    fn wake(&self) {
        if !self.rest.notify() {
            return;
        }
        let one = 1u64.to_ne_bytes();
        // SAFETY: the descriptor is open and `one` has the 8 bytes that an eventfd takes. The write fails only
        // when the counter is at its limit of 2^64 - 2, which no run reaches.
        unsafe {
            libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len());
        }
    }
}
