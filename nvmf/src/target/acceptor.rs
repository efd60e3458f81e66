//! Listening sockets: takes connections and deals them out to the reactors in turn.
//!
//! Invariant: an accepted socket is handed to exactly one group or closed. Runs as a task on one reactor.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use sledge_reactor::net::TcpListener;
use sledge_reactor::task::{JoinHandle, spawn_local};
use sledge_reactor::time::sleep;

use super::group::Directory;

/// Pause after a failed accept, which mostly means that the process is out of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket on the current reactor.
pub(crate) enum Listening {
    /// Bound: connections wait in its backlog.
    Bound(TcpListener),
    /// Accepting, in a task.
    Accepting(JoinHandle<()>),
}

impl Listening {
    /// Binds `address`.
    ///
    /// # Errors
    /// The system's, when the address can't be bound.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::Bound(TcpListener::bind(address)?))
    }

    /// Starts to accept, if it does not yet.
    pub fn accept(self, address: SocketAddr, directory: Directory) -> Self {
        match self {
            Self::Bound(listener) => {
                tracing::info!(%address, "listening");
                Self::Accepting(spawn_local(accept(listener, address, directory)))
            }
            accepting @ Self::Accepting(_) => accepting,
        }
    }

    /// Closes the socket.
    pub fn close(self) {
        if let Self::Accepting(task) = self {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, address: SocketAddr, directory: Directory) {
    let next = Cell::new(0);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%address, %error, "cannot accept connections for now");
                sleep(PAUSE).await;
                continue;
            }
        };
        let reactor = &directory.reactors[next.get()];
        next.set((next.get() + 1) % directory.reactors.len());
        let key = directory.key;
        let handed = reactor.spawn(move || async move {
            if let Some(group) = key.get() {
                group.borrow_mut().adopt(stream, peer, address);
            }
        });
        if handed.await.is_err() {
            return;
        }
    }
}
