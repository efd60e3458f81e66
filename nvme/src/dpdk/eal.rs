//! The EAL's start, once a process.
//!
//! Owns what came of it. Invariant: [`Eal`] exists only when the EAL is up, and then for good: it can't be stopped and
//! started again, so it stays until the process ends, and all else here may rely on it. Called by `dpdk` and, as the proof
//! that the EAL is up, passed to everything else here.

#![allow(unsafe_code)]

use std::env;
use std::ffi::{CStr, CString, NulError, c_char, c_int};
use std::io;
use std::mem;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use sledge_dpdk_sys as sys;

use super::arguments;

/// What came of the one attempt.
static OUTCOME: OnceLock<Result<Eal, EalError>> = OnceLock::new();
/// Held while starting.
static STARTING: Mutex<()> = Mutex::new(());

/// The EAL, up and running.
#[derive(Debug)]
pub struct Eal {
    arguments: Vec<String>,
    iova_mode: IovaMode,
    huge_pages: bool,
}

/// What devices' addresses are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IovaMode {
    /// Those of this process, through an IOMMU.
    Virtual,
    /// Those of the machine's memory.
    Physical,
}

/// Why there is no EAL.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EalError {
    /// It would not start.
    #[error(
        "DPDK's EAL refused to start with {arguments:?}: {reason}; standard error has its own words, and {variable} \
         other arguments",
        variable = arguments::VARIABLE
    )]
    Refused {
        /// What it was given.
        arguments: Vec<String>,
        /// Its error code's text.
        reason: String,
    },
    /// There is no memory for it.
    #[error("DPDK needs huge pages, and none is free: reserve some (`sledge setup hugepages`)")]
    NoHugePages,
    /// An argument with a zero byte.
    #[error("an argument for DPDK's EAL holds a zero byte")]
    Zero(#[from] NulError),
    /// There is no thread for it.
    #[error("can't start the thread that brings DPDK's EAL up: {0}")]
    Thread(String),
}

impl Eal {
    /// What devices' addresses are.
    #[must_use]
    pub fn iova_mode(&self) -> IovaMode {
        self.iova_mode
    }

    /// Whether its memory lies on huge pages.
    #[must_use]
    pub fn has_huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// What it was started with.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

/// The EAL, started with `given` (see [`arguments`] for what stands in when there is nothing) unless it is up already.
/// Blocks for as long as the EAL looks at the machine, about a second.
///
/// # Errors
/// When it can't start. Once it has refused, it is not asked again in this process.
pub fn start(given: Option<&str>) -> Result<&'static Eal, EalError> {
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if OUTCOME.get().is_none() {
        let cpus = process_cpus();
        let variable = env::var(arguments::VARIABLE).ok();
        let arguments = arguments::choose(given, variable.as_deref(), first_cpu(&cpus));
        if !arguments::without_huge_pages(&arguments) && arguments::free_huge_pages() == Some(0) {
            return Err(EalError::NoHugePages);
        }
        // The program's name comes first, as in any list of arguments.
        let words: Vec<CString> = [Ok(CString::from(c"sledge"))]
            .into_iter()
            .chain(arguments.iter().map(|word| CString::new(word.as_str())))
            .collect::<Result<_, _>>()?;
        // The EAL pins the thread that starts it to one core, so that thread does nothing else and ends.
        let code = thread::Builder::new()
            .name("dpdk-eal".to_owned())
            .spawn(move || initialise(words, &cpus))
            .map_err(|error| EalError::Thread(error.to_string()))?
            .join()
            .map_err(|_| EalError::Thread("it panicked".to_owned()))?;
        OUTCOME.get_or_init(|| match code {
            // SAFETY: the EAL is up; these only read what it has found.
            Ok(()) => unsafe {
                Ok(Eal {
                    arguments,
                    iova_mode: match sys::rte_eal_iova_mode() {
                        sys::rte_iova_mode::RTE_IOVA_VA => IovaMode::Virtual,
                        _ => IovaMode::Physical,
                    },
                    huge_pages: sys::rte_eal_has_hugepages() != 0,
                })
            },
            Err(errno) => Err(EalError::Refused { arguments, reason: errno.to_string() }),
        });
    }
    match OUTCOME.get() {
        Some(outcome) => outcome.as_ref().map_err(Clone::clone),
        None => Err(EalError::Thread("it was lost".to_owned())),
    }
}

/// Starts the EAL on this thread, which may run on `cpus`: threads that the EAL makes run where it may.
fn initialise(words: Vec<CString>, cpus: &libc::cpu_set_t) -> Result<(), io::Error> {
    // SAFETY: `cpus` is a whole set. When it fails, the EAL has this thread's own set, which is right but for where the
    // EAL's threads run.
    unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), cpus) };
    // The EAL may keep pointers to its arguments, and reorder them: both are left to it for good.
    let mut pointers: Vec<*mut c_char> = words.into_iter().map(CString::into_raw).collect();
    let count = c_int::try_from(pointers.len()).map_err(|_| io::Error::other("too many arguments"))?;
    pointers.push(std::ptr::null_mut());
    let pointers = Vec::leak(pointers);
    // SAFETY: `pointers` are `count` strings and a null pointer, all writable and leaked; `start` lets nobody else in.
    match unsafe { sys::rte_eal_init(count, pointers.as_mut_ptr()) } {
        0.. => Ok(()),
        _ => Err(last_error()),
    }
}

/// The error of the EAL's last call on this thread.
pub(super) fn last_error() -> io::Error {
    // SAFETY: reads a variable of this thread.
    match unsafe { sys::sledge_rte_errno() } {
        errno @ 1..=4095 => io::Error::from_raw_os_error(errno),
        errno => {
            // SAFETY: gives a string of this thread, ended by zero, that stays until the next such call.
            let text = unsafe { CStr::from_ptr(sys::rte_strerror(errno)) };
            io::Error::other(text.to_string_lossy().into_owned())
        }
    }
}

/// Where this process may run: what its first thread may, which is pinned to nothing.
fn process_cpus() -> libc::cpu_set_t {
    // SAFETY: a set of no CPUs is all zeroes.
    let mut cpus: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `cpus` is a whole set to be written. When that fails it stays empty, and is refused where it is used.
    unsafe { libc::sched_getaffinity(libc::getpid(), mem::size_of::<libc::cpu_set_t>(), &raw mut cpus) };
    cpus
}

/// The first CPU of a set; 0 when it is empty.
fn first_cpu(cpus: &libc::cpu_set_t) -> usize {
    // SAFETY: the index is below the size of a set.
    (0..libc::CPU_SETSIZE as usize).find(|cpu| unsafe { libc::CPU_ISSET(*cpu, cpus) }).unwrap_or(0)
}
