//! What the simulator's tests share: whole reads and writes on streams, and an echo server.
#![allow(dead_code, clippy::unwrap_used)]

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;

use sledge_reactor::{TcpListener, TcpStream, spawn_local};

/// Writes all bytes.
pub async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(&[IoSlice::new(bytes)])? {
            Some(count) => bytes = &bytes[count..],
            None => stream.writable().await,
        }
    }
    Ok(())
}

/// Reads what comes next; 0 at the end.
pub async fn read_some(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.try_read(&mut [IoSliceMut::new(into)])? {
            Some(count) => return Ok(count),
            None => stream.readable().await,
        }
    }
}

/// Fills the buffer.
pub async fn read_exact(stream: &TcpStream, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match read_some(stream, into).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => into = &mut into[count..],
        }
    }
    Ok(())
}

/// Sends bytes to an echo server and checks that they come back. Reads while it writes, since neither side
/// need have room for all.
pub async fn echo(stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut back = vec![0; bytes.len()];
    let (mut sent, mut received) = (0, 0);
    while received < bytes.len() {
        let wrote = match sent < bytes.len() {
            true => stream.try_write(&[IoSlice::new(&bytes[sent..])])?,
            false => None,
        };
        let read = stream.try_read(&mut [IoSliceMut::new(&mut back[received..])])?;
        if read == Some(0) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sent += wrote.unwrap_or(0);
        received += read.unwrap_or(0);
        if wrote.is_none() && read.is_none() {
            let (mut readable, mut writable) = (pin!(stream.readable()), pin!(stream.writable()));
            poll_fn(|context| {
                let ready = readable.as_mut().poll(context).is_ready();
                match ready || (sent < bytes.len() && writable.as_mut().poll(context).is_ready()) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
        }
    }
    assert!(back == bytes, "the echo differs");
    Ok(())
}

/// Sends everything back on every connection to this address, until the node ends.
pub async fn echo_server(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    loop {
        let (detached, _) = listener.accept().await?;
        let stream = detached.attach()?;
        spawn_local(async move {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = read_some(&stream, &mut buffer).await {
                if write_all(&stream, &buffer[..count]).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Bytes that differ by position and by `salt`.
pub fn pattern(salt: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ salt.wrapping_mul(167)) as u8).collect()
}

/// Whether the seeds are those that the tests were written for, so that how often something happens can be
/// checked.
pub fn usual_seeds() -> bool {
    std::env::var_os("SLEDGE_SEED").is_none() && std::env::var_os("SLEDGE_SEEDS").is_none()
}
