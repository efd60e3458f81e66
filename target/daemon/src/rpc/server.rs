//! Serves the management socket: one task a connection, requests of one connection in order.
//!
//! Invariant: a call that has begun runs to its end even when its client goes away, so that no change is left
//! half done; connections, request sizes and the time a client may take to read an answer are bounded.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{RwLock, Semaphore};
use tracing::{debug, warn};

use super::error::RpcError;
use super::framing::Framer;
use super::message;

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 128;

/// How long a client may leave an answer unread.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Calls methods for the server. Cloned into each connection's task.
pub trait Calls: Clone + Send + Sync + 'static {
    /// Runs one method to its end.
    fn call(&self, method: String, params: Value) -> impl Future<Output = Result<Value, RpcError>> + Send;
}

/// Requests being answered: each holds it for reading until its answer has left. The end of the process takes it
/// for writing, so that a client that asks for the end is answered too.
pub type Answering = Arc<RwLock<()>>;

/// Accepts connections until the future is dropped.
pub async fn serve(listener: UnixListener, calls: impl Calls, answering: Answering) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (calls, answering) = (calls.clone(), answering.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, calls, answering).await {
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

async fn converse(mut stream: UnixStream, calls: impl Calls, answering: Answering) -> std::io::Result<()> {
    let mut framer = Framer::new();
    let mut bytes = vec![0; 16 * 1024];
    loop {
        loop {
            match framer.next_value() {
                Ok(Some(text)) => {
                    let _answering = answering.read().await;
                    let (answer, go_on) = answer_in_own_task(text, calls.clone()).await;
                    if let Some(answer) = answer {
                        send(&mut stream, &answer).await?;
                    }
                    if !go_on {
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let answer = message::error_response(&Value::Null, &RpcError::parse(error));
                    return send(&mut stream, &answer).await;
                }
            }
        }
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            length => framer.push(&bytes[..length]),
        }
    }
}

/// Runs the calls apart from the connection, whose end would otherwise cut them short.
async fn answer_in_own_task(text: Vec<u8>, calls: impl Calls) -> (Option<Value>, bool) {
    let task = tokio::spawn(async move {
        message::answer(&text, |method, params| {
            let calls = calls.clone();
            async move { calls.call(method, params).await }
        })
        .await
    });
    task.await.unwrap_or_else(|error| {
        // The panic itself has been reported where it happened.
        let error = RpcError::internal(format!("the call did not end properly: {error}"));
        (Some(message::error_response(&Value::Null, &error)), false)
    })
}

async fn send(stream: &mut UnixStream, answer: &Value) -> std::io::Result<()> {
    let mut text = answer.to_string();
    text.push('\n');
    match tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(text.as_bytes())).await {
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
            if method == "slow" {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(params)
        }
    }

    async fn exchange(sent: &[u8], answers: usize) -> (Vec<Value>, bool) {
        let (mut client, server) = UnixStream::pair().unwrap();
        let task = tokio::spawn(converse(server, Slow::default(), Answering::default()));
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
        let task = tokio::spawn(converse(server, calls.clone(), Answering::default()));
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
}
