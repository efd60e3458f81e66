//! The processes of a comparison: a target that is started for a turn, and the host (or the limit) of a turn.
//!
//! Invariant: every process that was started here has ended when its owner is dropped, and is told to end when this
//! process dies.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a target may take until it answers, or until it has ended.
const START_TIME: Duration = Duration::from_secs(30);
/// How long a target may take to end by itself.
const END_TIME: Duration = Duration::from_secs(10);
/// Most bytes that are kept of what a process prints.
const MOST_WORDS: usize = 4 << 20;
/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Why a process was of no use.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It did not start.
    #[error("cannot start {0:?}: {1}")]
    Start(String, io::Error),
    /// Something is there before the target is started.
    #[error("{0} answers already, before the target is started")]
    Occupied(String),
    /// It ended before it answered.
    #[error("{line:?} ended before it answered at {place}, {status}: {last}")]
    Ended {
        /// The command.
        line: String,
        /// Where it should have answered.
        place: String,
        /// How it ended.
        status: ExitStatus,
        /// The last line that it printed.
        last: String,
    },
    /// It did not answer.
    #[error("{0:?} does not answer at {1}")]
    Silent(String, String),
    /// The host said what went wrong.
    #[error("{0}")]
    Failed(String),
    /// The host did not end.
    #[error("a turn did not end within {0:?}")]
    Late(Duration),
    /// The system refused something else.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// Where a started target shows that it is ready.
#[derive(Clone, Debug)]
pub enum Ready {
    /// A port takes connections.
    Port(SocketAddr),
    /// A file is there.
    File(PathBuf),
}

impl Ready {
    fn is_there(&self) -> bool {
        match self {
            Self::Port(address) => TcpStream::connect_timeout(address, Duration::from_secs(1)).is_ok(),
            Self::File(path) => Path::exists(path),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Port(address) => address.to_string(),
            Self::File(path) => path.display().to_string(),
        }
    }
}

/// A target for the time of a turn.
#[derive(Debug)]
pub struct StartedTarget {
    child: Child,
    /// Reads what it says until it ends.
    words: Option<JoinHandle<Vec<u8>>>,
}

impl StartedTarget {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When something else is at its place, or it doesn't get ready.
    pub fn start(line: &str, ready: &Ready, nice: Option<i8>) -> Result<Self, ProcessError> {
        // A file may be there before; a port must be the target's own.
        if matches!(ready, Ready::Port(_)) && ready.is_there() {
            return Err(ProcessError::Occupied(ready.name()));
        }
        let mut command = Command::new("sh");
        // The shell gives its place to the target, so that signals reach it.
        command.args(["-c", &format!("exec {line}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = spawn(&mut command, nice).map_err(|error| start_error(line, error))?;
        let words = child.stderr.take().map(|pipe| std::thread::spawn(move || read(pipe)));
        let mut target = Self { child, words };
        let end = Instant::now() + START_TIME;
        while Instant::now() < end {
            if let Some(status) = target.child.try_wait()? {
                let words = target.words.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
                let words = String::from_utf8_lossy(&words);
                let last = words.trim().lines().next_back().unwrap_or("it said nothing").to_owned();
                return Err(ProcessError::Ended { line: line.to_owned(), place: ready.name(), status, last });
            }
            if ready.is_there() {
                return Ok(target);
            }
            std::thread::sleep(LOOK);
        }
        Err(ProcessError::Silent(line.to_owned(), ready.name()))
    }
}

impl StartedTarget {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for StartedTarget {
    fn drop(&mut self) {
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: kill touches no memory; the process has not been waited for, so the number is still its.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        let end = Instant::now() + END_TIME;
        while Instant::now() < end {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(LOOK),
                _ => return,
            }
        }
        // It had its time. That it may be gone just now is no failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs this program with other arguments to its end and returns what it printed.
///
/// # Errors
/// When it fails, with what it said, or takes longer than `time` (and is ended).
pub fn run_self(arguments: &[String], nice: Option<i8>, time: Duration) -> Result<Vec<u8>, ProcessError> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let name = program.display().to_string();
    let child = spawn(&mut command, nice).map_err(|error| start_error(&name, error))?;
    let Output { status, stdout, stderr } = finish(child, time)?;
    if status.success() {
        return Ok(stdout);
    }
    let message = String::from_utf8_lossy(&stderr);
    let message = message.trim().trim_start_matches("sledge-perf: ");
    Err(ProcessError::Failed(if message.is_empty() { status.to_string() } else { message.to_owned() }))
}

/// Waits for the end, and ends it when that takes too long.
fn finish(mut child: Child, time: Duration) -> Result<Output, ProcessError> {
    // Both pipes are read by threads, since one that is full would stop the process.
    let mut pipes = Vec::new();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    pipes.push(stdout.map(|pipe| std::thread::spawn(move || read(pipe))));
    pipes.push(stderr.map(|pipe| std::thread::spawn(move || read(pipe))));
    let end = Instant::now() + time;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if Instant::now() < end => std::thread::sleep(LOOK),
            None => {
                let _ = child.kill();
                child.wait()?;
                return Err(ProcessError::Late(time));
            }
        }
    };
    // A reader that panicked has read nothing of use.
    let mut read = pipes.into_iter().map(|reader| reader.and_then(|it| it.join().ok()).unwrap_or_default());
    let (stdout, stderr) = (read.next().unwrap_or_default(), read.next().unwrap_or_default());
    Ok(Output { status, stdout, stderr })
}

/// All that comes through a pipe, or its last part when that is long.
fn read(mut pipe: impl io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut more = [0; 4096];
    // What came before a failure is as good as all: the exit status decides.
    while let Ok(count @ 1..) = pipe.read(&mut more) {
        if bytes.len() > MOST_WORDS {
            bytes.drain(..MOST_WORDS / 2);
        }
        bytes.extend_from_slice(&more[..count]);
    }
    bytes
}

fn spawn(command: &mut Command, nice: Option<i8>) -> io::Result<Child> {
    let before = move || {
        // SAFETY: plain system calls that read one local value; they are safe between fork and exec.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
            // Not a real-time class: two threads that poll in one would leave the kernel's own threads no time at all,
            // and with them no packet.
            nice.is_some_and(|nice| libc::setpriority(libc::PRIO_PROCESS, 0, nice.into()) != 0)
        };
        if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the function allocates nothing and takes no lock.
    unsafe { command.pre_exec(before) };
    command.spawn()
}

fn start_error(name: &str, error: io::Error) -> ProcessError {
    ProcessError::Start(name.to_owned(), error)
}
