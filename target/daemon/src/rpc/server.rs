//! Serves the management socket: one task a connection, requests of one connection in order.
//!
//! Invariant: a call that has begun runs to its end even when its client goes away, so that no change is left
//! half done (those that only wait are given up then); connections, request sizes and the time a client may take to send
//! the rest of a request or to read an answer are bounded, and whoever keeps a place without using it makes room.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{RwLock, watch};
use tokio::task::{JoinError, JoinHandle};
use tracing::{debug, warn};

use super::error::RpcError;
use super::framing::Framer;
use super::message;
use super::places::{Idle, Places};

/// Connections served at once; more have an idle one closed, or wait.
const MAX_CONNECTIONS: usize = 128;

/// How long a client may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may be silent in the middle of a request.
const REST_TIMEOUT: Duration = Duration::from_secs(60);

/// How often it is looked whether the client of a call that waits is still there.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Calls methods for the server. Cloned into each connection's task.
pub trait Calls: Clone + Send + Sync + 'static {
    /// Runs one method to its end.
    fn call(&self, method: String, params: Value) -> impl Future<Output = Result<Value, RpcError>> + Send;

    /// Whether a method only waits for something, maybe for ever, and may be given up at any time.
    fn only_waits(&self, method: &str) -> bool;
}

/// Requests being answered: each holds it for reading until its answer has left. The end of the process takes it
/// for writing, so that a client that asks for the end is answered too.
pub type Answering = Arc<RwLock<()>>;

/// Accepts connections until the future is dropped.
pub async fn serve(listener: UnixListener, calls: impl Calls, answering: Answering) {
    let places = Places::new(MAX_CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let place = places.take().await;
                let (calls, answering, places) = (calls.clone(), answering.clone(), places.clone());
                // Here, so that the next one finds it even before its task has run.
                let idle = places.idle(false);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, calls, answering, places, idle).await {
                        debug!(%error, "a management connection broke");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "can't accept a management connection; trying again in a moment");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(
    mut stream: UnixStream,
    calls: impl Calls,
    answering: Answering,
    places: Places,
    first: Idle,
) -> std::io::Result<()> {
    let mut framer = Framer::new();
    let mut bytes = vec![0; 16 * 1024];
    let mut has_asked = false;
    let mut first = Some(first);
    loop {
        loop {
            match framer.next_value() {
                Ok(Some(text)) => {
                    let _answering = answering.read().await;
                    let request = match message::read(&text) {
                        Ok(request) => request,
                        Err(response) => return send(&mut stream, response).await,
                    };
                    drop(text);
                    has_asked = true;
                    let (gone, is_gone) = watch::channel(false);
                    let mut calling = answer_in_own_task(request, calls.clone(), is_gone);
                    let answer = tokio::select! {
                        answer = &mut calling => answered(answer),
                        () = client_gone(&stream) => {
                            gone.send_replace(true);
                            // What it changes is changed to the end.
                            let _ = calling.await;
                            return Ok(());
                        }
                    };
                    if let Some(answer) = answer {
                        send(&mut stream, answer).await?;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let answer = message::error_response(&Value::Null, &RpcError::parse(error));
                    return send(&mut stream, answer.to_string()).await;
                }
            }
        }
        let rest = if framer.unfinished() { REST_TIMEOUT } else { Duration::MAX };
        let idle = first.take().unwrap_or_else(|| places.idle(has_asked));
        let length = tokio::select! {
            biased;
            read = stream.read(&mut bytes) => read?,
            () = idle.unwanted() => {
                debug!("closing a management connection that is idle: another needs its place");
                return Ok(());
            }
            () = tokio::time::sleep(rest) => {
                let reason = format!("the rest of the request did not come within {} s", rest.as_secs());
                let answer = message::error_response(&Value::Null, &RpcError::parse(reason));
                return send(&mut stream, answer.to_string()).await;
            }
        };
        drop(idle);
        match length {
            0 => return Ok(()),
            length => framer.push(&bytes[..length]),
        }
    }
}

/// Waits until the client has closed its end wholly: one that only sends no more may still read.
async fn client_gone(stream: &UnixStream) {
    // Sending nothing fails when nobody can receive it.
    while SockRef::from(stream).send(&[]).is_ok() {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// Runs the calls apart from the connection, whose end would otherwise cut them short. Those that only wait are given up
/// once the client has gone: a batch of them could wait for days.
fn answer_in_own_task(
    request: Value,
    calls: impl Calls,
    is_gone: watch::Receiver<bool>,
) -> JoinHandle<Option<String>> {
    tokio::spawn(message::answer(request, move |method, params| {
        let (calls, mut is_gone) = (calls.clone(), is_gone.clone());
        async move {
            if !calls.only_waits(&method) {
                return calls.call(method, params).await;
            }
            tokio::select! {
                answer = calls.call(method, params) => answer,
                // An error says that the connection's task is gone, and so is the client.
                _ = is_gone.wait_for(|gone| *gone) => Err(RpcError::internal("nobody waits any more")),
            }
        }
    }))
}

/// The answer of calls that have ended.
fn answered(ended: Result<Option<String>, JoinError>) -> Option<String> {
    ended.unwrap_or_else(|error| {
        // The panic itself has been reported where it happened.
        let error = RpcError::internal(format!("the call did not end properly: {error}"));
        Some(message::error_response(&Value::Null, &error).to_string())
    })
}

async fn send(stream: &mut UnixStream, mut answer: String) -> std::io::Result<()> {
    answer.push('\n');
    match tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(answer.as_bytes())).await {
        Ok(written) => written,
        Err(_) => {
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "the client does not read its answer"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Clone, Default)]
    struct Slow(Arc<AtomicUsize>);

    impl Calls for Slow {
        async fn call(&self, method: String, params: Value) -> Result<Value, RpcError> {
            match method.as_str() {
                "slow" => tokio::time::sleep(Duration::from_millis(30)).await,
                "wait" => std::future::pending().await,
                _ => {}
            }
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(params)
        }

        fn only_waits(&self, method: &str) -> bool {
            method == "wait"
        }
    }

    fn serving(stream: UnixStream, calls: Slow) -> tokio::task::JoinHandle<std::io::Result<()>> {
        let places = Places::new(1);
        let idle = places.idle(false);
        tokio::spawn(converse(stream, calls, Answering::default(), places, idle))
    }

    async fn exchange(sent: &[u8], answers: usize) -> (Vec<Value>, bool) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let task = serving(server, Slow::default());
        client.write_all(sent).await.unwrap();
        let mut framer = Framer::new();
        let mut found = Vec::new();
        let mut bytes = [0; 512];
        loop {
            while let Some(text) = framer.next_value().unwrap() {
                found.push(serde_json::from_slice(&text).unwrap());
            }
            if found.len() >= answers {
                let closed = tokio::time::timeout(Duration::from_millis(50), client.read(&mut bytes)).await;
                task.abort();
                return (found, matches!(closed, Ok(Ok(0))));
            }
            let length = client.read(&mut bytes).await.unwrap();
            assert!(length > 0, "closed after {found:?}");
            framer.push(&bytes[..length]);
        }
    }

    // Without it: requests sent without a newline, or several in one write, might never be answered.
    #[tokio::test]
    async fn requests_need_no_separator() {
        let one = br#"{"jsonrpc":"2.0","id":1,"method":"a"}{"jsonrpc":"2.0","id":2,"method":"slow"}"#;
        let (answers, closed) = exchange(one, 2).await;
        assert_eq!((answers[0]["id"].clone(), answers[1]["id"].clone()), (json!(1), json!(2)));
        assert!(!closed);
    }

    // Without it: a client that lost its place would have its next bytes read as requests.
    #[tokio::test]
    async fn nonsense_is_answered_and_the_connection_closed() {
        let (answers, closed) = exchange(b"GET / HTTP/1.1\r\n", 1).await;
        assert_eq!(answers[0]["error"]["code"], json!(-32700));
        assert!(closed);
    }

    // Without it: a client that disconnects in the middle of a change would leave it half made.
    #[tokio::test]
    async fn a_call_outlives_its_client() {
        let calls = Slow::default();
        let (mut client, server) = UnixStream::pair().unwrap();
        let task = serving(server, calls.clone());
        client.write_all(br#"{"jsonrpc":"2.0","id":1,"method":"slow"}"#).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        drop(client);
        task.abort();
        for _ in 0..100 {
            if calls.0.load(Ordering::SeqCst) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the call was cut short");
    }

    // Without it: clients that give up waiting, one after the other, would take all places for ever; or those that give up
    // in the middle of a batch would leave it half made.
    #[tokio::test(start_paused = true)]
    async fn who_waits_is_given_up_with_its_client() {
        let one = |method: &str| format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\"}}");
        let batch = format!("[{},{},{}]", one("wait"), one("wait"), one("slow"));
        for (request, made) in [(one("wait"), 0), (batch, 1)] {
            let (mut client, server) = UnixStream::pair().unwrap();
            let calls = Slow::default();
            let task = serving(server, calls.clone());
            client.write_all(request.as_bytes()).await.unwrap();
            // One that only sends no more still waits for its answer.
            client.shutdown().await.unwrap();
            tokio::time::sleep(LOOK_PERIOD * 3).await;
            assert!(!task.is_finished());
            drop(client);
            tokio::time::timeout(LOOK_PERIOD * 3, task).await.unwrap().unwrap().unwrap();
            assert_eq!(calls.0.load(Ordering::SeqCst), made);
        }
    }

    // Without it: a client that hangs in the middle of a request would keep its place for ever.
    #[tokio::test(start_paused = true)]
    async fn half_a_request_is_not_waited_for_for_ever() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let task = serving(server, Slow::default());
        client.write_all(br#"{"jsonrpc":"2.0","id":1,"#).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("-32700") && answer.contains("did not come within"), "{answer}");
        task.await.unwrap().unwrap();
        // Between requests a client may be silent for as long as it likes.
        let (mut client, server) = UnixStream::pair().unwrap();
        let _task = serving(server, Slow::default());
        tokio::time::sleep(REST_TIMEOUT * 100).await;
        client.write_all(br#"{"jsonrpc":"2.0","id":1,"method":"a"}"#).await.unwrap();
        assert!(client.read(&mut [0; 64]).await.unwrap() > 0);
    }

    // Without it: programs that leave connections open would lock everybody else out.
    #[tokio::test]
    async fn idle_clients_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(serve(listener, Slow::default(), Answering::default()));
        let mut clients = Vec::new();
        for id in 0..MAX_CONNECTIONS + 2 {
            let mut client = UnixStream::connect(&path).await.unwrap();
            let request = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"a\"}}");
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 64];
            let read = tokio::time::timeout(Duration::from_secs(60), client.read(&mut answer)).await;
            assert!(read.is_ok_and(|read| read.unwrap() > 0), "client {id}");
            clients.push(client);
        }
        // Those that were there first have gone, the others are still served.
        for client in &mut clients[..2] {
            let mut nothing = [0; 64];
            let read = tokio::time::timeout(Duration::from_secs(60), client.read(&mut nothing)).await;
            assert!(read.is_ok_and(|read| read.unwrap() == 0));
        }
        // Of those that come and say nothing, one is there at a time.
        let mut silent = UnixStream::connect(&path).await.unwrap();
        for _ in 0..3 {
            let next = UnixStream::connect(&path).await.unwrap();
            let mut nothing = [0; 64];
            let read = tokio::time::timeout(Duration::from_secs(60), silent.read(&mut nothing)).await;
            assert!(read.is_ok_and(|read| read.unwrap() == 0));
            silent = next;
        }
        clients[3].write_all(br#"{"jsonrpc":"2.0","id":1,"method":"a"}"#).await.unwrap();
        assert!(clients[3].read(&mut [0; 64]).await.unwrap() > 0);
        server.abort();
    }
}
