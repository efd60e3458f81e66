//! Processor time of this process's reactors and of the target's process.

use super::worker::Outcome;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Processor time of the current thread.
pub fn of_thread() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
}

/// Processor time of all threads of a process, if it is there and may be asked.
pub fn of_process(pid: u32) -> Option<Duration> {
    let mut clock = 0;
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: writes one clock identifier to a place that is there for it.
    let failed = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if failed == 0 { read(clock) } else { None }
}

/// The processor time of one thread, for others to read while it lives.
#[derive(Clone, Copy, Debug)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// That of the current thread.
    pub fn of_current() -> Option<Self> {
        let mut clock = 0;
        // SAFETY: the current thread is there; one clock identifier is written to a place that is there for it.
        let failed = unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &mut clock) };
        (failed == 0).then_some(Self(clock))
    }

    /// What it shows; none when the thread has ended.
    pub fn read(self) -> Option<Duration> {
        read(self.0)
    }
}

/// The process that listens on a Unix socket.
///
/// # Errors
/// Why it is not known.
pub fn process_behind(socket: &Path) -> Result<u32, String> {
    let said = |error: io::Error| format!("{}: {error}", socket.display());
    let stream = UnixStream::connect(socket).map_err(said)?;
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `peer`, which has as many; the socket is open.
    let failed = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if failed != 0 {
        return Err(said(io::Error::last_os_error()));
    }
    u32::try_from(peer.pid).map_err(|_| format!("{}: its process is not known", socket.display()))
}

/// Processor time that a core's reactor used from when the first job there began to measure until the last one ended.
pub fn on_core(outcomes: &[&Outcome], core: usize) -> Duration {
    let here = || outcomes.iter().filter(|outcome| outcome.core == core);
    let from = here().map(|outcome| outcome.cpu.0).min().unwrap_or_default();
    let to = here().map(|outcome| outcome.cpu.1).max().unwrap_or_default();
    to.saturating_sub(from)
}

fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one time to a place that is there for it.
    let failed = unsafe { libc::clock_gettime(clock, &mut time) };
    (failed == 0).then(|| Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it the processor time of a report could be that of something else.
    #[test]
    fn clocks_advance_with_work() {
        let (thread, process) = (of_thread(), of_process(std::process::id()).unwrap());
        let mut sum = 0u64;
        while of_thread() < thread + Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(of_process(std::process::id()).unwrap() >= process + Duration::from_millis(1));
        assert_eq!(of_process(u32::MAX), None);
        let clock = ThreadClock::of_current().unwrap();
        let of_other = std::thread::spawn(move || clock.read()).join().unwrap().unwrap();
        assert!(of_other >= thread + Duration::from_millis(2) && of_other <= of_thread(), "{of_other:?}");
    }
}
