//! A real `sledge-target` process in a folder of its own, and a client for its management socket.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Longer than anything here takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A port of the loopback, of IPv4 and, where it is there, of IPv6, that nobody else is given until this program ends.
///
/// A connection stays on it. So the kernel gives it to nobody who asks for any port, a client in need of one of its own
/// included, while a listener may take it by its number, time after time.
pub fn free_port() -> u16 {
    static KEPT: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());
    let keep = |listener: &TcpListener| {
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        KEPT.lock().unwrap().extend([ours, listener.accept().unwrap().0]);
    };
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
            Ok(other) => keep(&other),
            Err(error) if error.kind() == ErrorKind::AddrInUse => continue,
            Err(_) => {}
        }
        keep(&listener);
        return port;
    }
}

/// The program, to be run in a folder, without what the environment could say to it.
pub fn program(folder: &Path) -> Command {
    let mut command = without_environment(Command::new(env!("CARGO_BIN_EXE_sledge-target")));
    command.current_dir(folder).stdin(Stdio::null());
    command
}

/// A command that does not see what the environment could say to a target.
pub fn without_environment(mut command: Command) -> Command {
    command.env_remove("SLEDGE_SOCKET").env_remove("NOTIFY_SOCKET");
    command
}

/// Waits until something is so.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a process a signal.
pub fn kill(signal: &str, process: &Child) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", process.id())]).status();
    assert!(sent.unwrap().success());
}

/// Waits for the end of a process.
pub fn wait_for_end(process: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the process ends", || {
        status = process.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// A running target; killed when dropped.
pub struct Target {
    pub folder: TempDir,
    pub process: Child,
    stream: Option<UnixStream>,
}

impl Target {
    /// Starts a target in a new folder and waits until it answers.
    pub fn start(arguments: &[&str]) -> Target {
        Target::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// Starts a target in a folder and waits until it serves.
    pub fn start_in(folder: TempDir, arguments: &[&str]) -> Target {
        let mut target = Target::answering(folder, arguments);
        target.call("framework_wait_init", json!({})).unwrap();
        target
    }

    /// Starts a target in a new folder that answers, and may not serve yet.
    pub fn start_unasked(arguments: &[&str]) -> Target {
        Target::answering(tempfile::tempdir().unwrap(), arguments)
    }

    fn answering(folder: TempDir, arguments: &[&str]) -> Target {
        let process = program(folder.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut target = Target { folder, process, stream: None };
        eventually("the target answers", || {
            if let Some(status) = target.process.try_wait().unwrap() {
                let log = std::io::read_to_string(target.process.stderr.take().unwrap()).unwrap();
                panic!("the target ended with {status}: {log}");
            }
            target.stream = UnixStream::connect(target.socket()).ok();
            target.stream.is_some()
        });
        target.stream.as_ref().unwrap().set_read_timeout(Some(PATIENCE)).unwrap();
        target
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sledge-data/sledge.sock")
    }

    /// The first lines that the target printed.
    pub fn printed(&mut self, lines: usize) -> Vec<String> {
        let output = BufReader::new(self.process.stdout.as_mut().unwrap());
        output.lines().take(lines).map(Result::unwrap).collect()
    }

    /// Calls a method; an error as its code and message.
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, (i64, String)> {
        let stream = self.stream.as_mut().unwrap();
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        stream.write_all(request.to_string().as_bytes()).unwrap();
        let mut reader = serde_json::Deserializer::from_reader(&*stream);
        let mut response = Value::deserialize(&mut reader).unwrap();
        match response.get("error") {
            Some(error) => {
                Err((error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned()))
            }
            None => Ok(response["result"].take()),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        kill(name, &self.process);
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for_end(&mut self.process)
    }

    /// Ends the target in order and gives its folder back.
    pub fn end(mut self) -> TempDir {
        self.signal("TERM");
        assert_eq!(self.wait().code(), Some(0));
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
