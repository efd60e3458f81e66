//! A real `sledge-target` in a folder of its own, and the `sledge` command on its socket.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(120);

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

/// The target's program: the one that `SLEDGE_TARGET` names, or what cargo builds.
fn target_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(named) = std::env::var_os("SLEDGE_TARGET") {
            return named.into();
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "-q", "-p", "sledge-target", "--message-format=json"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit());
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let built = build.output().unwrap();
        assert!(built.status.success(), "cargo build -p sledge-target failed");
        let messages = built.stdout.split(|byte| *byte == b'\n');
        let mut programs = messages.filter_map(|line| {
            let message: Value = serde_json::from_slice(line).ok()?;
            let ours = message["target"]["name"] == "sledge-target";
            message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
        });
        programs.next_back().unwrap()
    })
}

/// The `sledge` command in a folder, without what the environment could say to it.
pub fn sledge(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sledge"));
    command
        .current_dir(folder)
        .env_remove("SLEDGE_SOCKET")
        .env_remove("XDG_RUNTIME_DIR")
        .stdin(Stdio::null());
    command
}

/// What a failed command said: one line on standard error and nothing else.
pub fn failure(output: Output) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty() && said.lines().count() == 1, "{said}");
    said.strip_prefix("sledge: ").unwrap_or_else(|| panic!("{said}")).trim_end().to_owned()
}

/// A running target that serves nothing yet; killed when dropped.
pub struct Target {
    pub folder: TempDir,
    process: Child,
}

impl Target {
    /// Starts a target that serves nothing and waits until it says that it is ready.
    pub fn start() -> Target {
        Target::start_with(tempfile::tempdir().unwrap(), &["--empty"])
    }

    /// Starts a target in a folder and waits until it says that it is ready.
    pub fn start_with(folder: TempDir, arguments: &[&str]) -> Target {
        let notify = folder.path().join("notify");
        let ready = UnixDatagram::bind(&notify).unwrap();
        let process = Command::new(target_program())
            .current_dir(folder.path())
            .args(arguments)
            .args(["--log-level", "WARNING"])
            .env_remove("SLEDGE_SOCKET")
            .env("NOTIFY_SOCKET", &notify)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let target = Target { folder, process };
        ready.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut told = [0; 64];
        let length = loop {
            match ready.recv(&mut told) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received.expect("the target does not start; its log is above"),
            }
        };
        assert_eq!(&told[..length], b"READY=1");
        std::fs::remove_file(&notify).unwrap();
        target
    }

    /// Runs the command, which finds the socket by itself.
    pub fn run(&self, arguments: &[&str]) -> Output {
        sledge(self.folder.path()).args(arguments).output().unwrap()
    }

    /// What the command prints for people.
    pub fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let wrong = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && wrong.is_empty(), "{arguments:?}: {wrong}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the command prints for programs.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.says(&[&["--json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Why the command failed.
    pub fn refuses(&self, arguments: &[&str]) -> String {
        failure(self.run(arguments))
    }

    /// Ends the target as a crash would and gives its folder back.
    pub fn kill(mut self) -> TempDir {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A table's cells: columns are at least two spaces apart.
pub fn cells(table: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    table.lines().map(cells).collect()
}
