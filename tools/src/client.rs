//! Finds a running target's management socket and calls its methods.
//!
//! Blocking, one connection, one call at a time. What goes wrong is one line that says what to do.

use std::io::{BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

/// How long a target may take to answer; changes wait for I/O in flight, which is bounded.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a target may take to read a request, of which it reads one at a time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The error code of JSON-RPC for a method that there is not.
const NO_SUCH_METHOD: i64 = -32601;

/// Why a command failed: one line.
#[derive(Debug, Error)]
pub enum Failure {
    /// Nobody listens.
    #[error(
        "no target is listening on {0}; start one with `sledge-target`, or name its socket with --socket"
    )]
    NotRunning(String),
    /// The socket belongs to somebody else.
    #[error("not allowed to use {0}; run this as the user that runs sledge-target (sudo sledge …)")]
    NotAllowed(PathBuf),
    /// The connection broke.
    #[error("the target on {socket} does not answer: {reason}; see its log")]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The target has no such method.
    #[error(
        "the target on {socket} does not know {method}, it is of another version than this command: `sledge rpc \
         spdk_get_version` says which; restart the target after installing both together"
    )]
    Unknown {
        /// The socket.
        socket: PathBuf,
        /// The method.
        method: String,
    },
    /// The target refused.
    #[error("{message}")]
    Refused {
        /// JSON-RPC error code.
        code: i64,
        /// The target's reason.
        message: String,
    },
    /// Wrong use of this program, or a file that can't be read.
    #[error("{0}")]
    Usage(String),
}

/// A connection to a target.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: UnixStream,
    last_id: u64,
}

/// Where a target's socket is looked for, in this order, when none is named: that of a target started in this
/// folder, of this user, of this machine.
fn usual_places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("sledge-data/sledge.sock")];
    if let Some(folder) = std::env::var_os("XDG_RUNTIME_DIR") {
        places.push(Path::new(&folder).join("sledge.sock"));
    }
    places.push(PathBuf::from("/run/sledge/sledge.sock"));
    places
}

impl Client {
    /// Connects to the socket that was named, or to the first usual one that is answered.
    ///
    /// # Errors
    /// [`Failure::NotRunning`], [`Failure::NotAllowed`].
    pub fn connect(named: Option<PathBuf>) -> Result<Client, Failure> {
        let places = named.map_or_else(usual_places, |socket| vec![socket]);
        let mut forbidden = None;
        for socket in &places {
            match UnixStream::connect(socket) {
                Ok(stream) => return Client::on(socket.clone(), stream),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    forbidden.get_or_insert_with(|| socket.clone());
                }
                Err(_) => {}
            }
        }
        match forbidden {
            Some(socket) => Err(Failure::NotAllowed(socket)),
            None => {
                let names: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
                Err(Failure::NotRunning(names.join(" or ")))
            }
        }
    }

    fn on(socket: PathBuf, stream: UnixStream) -> Result<Client, Failure> {
        stream
            .set_read_timeout(Some(ANSWER_TIMEOUT))
            .and_then(|()| stream.set_write_timeout(Some(REQUEST_TIMEOUT)))
            .map_err(|error| Failure::Broken { socket: socket.clone(), reason: error.to_string() })?;
        Ok(Client { socket, stream, last_id: 0 })
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Calls a method and gives its result.
    ///
    /// # Errors
    /// [`Failure::Refused`] with the target's reason, [`Failure::Broken`].
    pub fn call(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        let mut response = self.exchange(method, params)?;
        let Some(error) = response.get("error") else { return Ok(response["result"].take()) };
        let code = error["code"].as_i64().unwrap_or(0);
        if code == NO_SUCH_METHOD {
            return Err(Failure::Unknown { socket: self.socket.clone(), method: method.to_owned() });
        }
        let message = error["message"].as_str().unwrap_or("the target gave no reason").to_owned();
        Err(Failure::Refused { code, message })
    }

    /// Calls a method that takes no parameters.
    ///
    /// # Errors
    /// As for [`Client::call`].
    pub fn ask(&mut self, method: &str) -> Result<Value, Failure> {
        self.call(method, json!({}))
    }

    fn exchange(&mut self, method: &str, params: Value) -> Result<Value, Failure> {
        self.last_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": params});
        let broken = |reason: String| Failure::Broken { socket: self.socket.clone(), reason };
        let written = self.stream.write_all(request.to_string().as_bytes());
        // A target that refuses a request before it has read it whole says why, and then closes.
        match &written {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Err(broken(format!("it does not read, for {} s now", REQUEST_TIMEOUT.as_secs())));
            }
            _ => {}
        }
        let mut reader = serde_json::Deserializer::from_reader(BufReader::new(&self.stream));
        let response = Value::deserialize(&mut reader).map_err(|error| {
            if let Err(error) = &written {
                return broken(error.to_string());
            }
            broken(match error.io_error_kind() {
                Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())
                }
                _ if error.is_eof() => "it closed the connection".into(),
                _ => error.to_string(),
            })
        })?;
        // An answer that the target could not assign has no id; it says what was wrong.
        if !response["id"].is_null() && response["id"] != self.last_id {
            return Err(broken(format!(
                "it answered request {} instead of {}",
                response["id"], self.last_id
            )));
        }
        Ok(response)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Read;

    fn answered(answer: &'static str) -> Result<Value, Failure> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            let length = theirs.read(&mut bytes).unwrap();
            theirs.write_all(answer.as_bytes()).unwrap();
            serde_json::from_slice::<Value>(&bytes[..length]).unwrap()
        });
        let outcome = Client::on("test.sock".into(), ours).unwrap().ask("some_method");
        assert_eq!(server.join().unwrap()["method"], "some_method");
        outcome
    }

    // Without it: a refusal could look like a success, or a person would not learn its reason.
    #[test]
    fn answers_are_told_apart() {
        assert_eq!(answered("{\"id\":1,\"result\":[1]}").unwrap(), json!([1]));
        let refused =
            answered("{\"id\":1,\"error\":{\"code\":-19,\"message\":\"No such device: x\"}}").unwrap_err();
        assert_eq!(refused.to_string(), "No such device: x");
        let broken = answered("").unwrap_err().to_string();
        assert_eq!(broken, "the target on test.sock does not answer: it closed the connection; see its log");
        assert!(matches!(answered("{\"id\":7,\"result\":1}"), Err(Failure::Broken { .. })));
    }

    // Without it: a person who has not started a target would get an error that does not help.
    #[test]
    fn a_missing_target_is_explained() {
        let folder = std::env::temp_dir().join("sledge-no-such-folder/x.sock");
        let failure = Client::connect(Some(folder)).unwrap_err().to_string();
        assert!(
            failure.starts_with("no target is listening on ") && failure.contains("--socket"),
            "{failure}"
        );
    }
}
