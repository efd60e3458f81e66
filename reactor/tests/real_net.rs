//! Real reactors: TCP over loopback.
#![allow(clippy::unwrap_used)]

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::time::Duration;

use sledge_reactor::{
    CoreList, PoolOptions, ReactorOptions, Reactors, ReadySet, TcpListener, TcpStream, Wait, current, peers,
    spawn_local, yield_now,
};

fn start(count: usize) -> Reactors {
    let wait = Wait::Adaptive { spin: Duration::ZERO };
    let pool = PoolOptions { total_bytes: 1 << 20 };
    Reactors::start(ReactorOptions { cores: CoreList::floating(count), wait, pool }).unwrap()
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(&[IoSlice::new(bytes)])? {
            Some(written) => bytes = &bytes[written..],
            None => stream.writable().await,
        }
    }
    Ok(())
}

async fn read_some(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.try_read(&mut [IoSliceMut::new(bytes)])? {
            Some(read) => return Ok(read),
            None => stream.readable().await,
        }
    }
}

async fn read_exact(stream: &TcpStream, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = read_some(stream, bytes).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
    }
    Ok(())
}

/// Accepts connections on the current reactor and echoes them on the last of its peers.
fn serve(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let bound = listener.local_addr().unwrap();
    drop(spawn_local(async move {
        loop {
            let (detached, _) = listener.accept().await.unwrap();
            let server = peers().pop().unwrap();
            drop(server.spawn(move || async move {
                let stream = detached.attach().unwrap();
                let mut bytes = vec![0; 10_000];
                loop {
                    match read_some(&stream, &mut bytes).await {
                        Ok(0) | Err(_) => break,
                        Ok(read) => write_all(&stream, &bytes[..read]).await.unwrap(),
                    }
                }
            }));
        }
    }));
    bound
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

async fn echo(address: SocketAddr) {
    let stream = TcpStream::connect(address).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
    for length in [1, 72, 4096, 1 << 20] {
        let sent = pattern(length);
        let mut echoed = vec![0; length];
        // More than the socket holds: both directions at once.
        let stream = std::rc::Rc::new(TcpStreamPair::new(&stream));
        let (_, read) = stream.exchange(&sent, &mut echoed).await;
        read.unwrap();
        assert_eq!(sent, echoed, "{length} bytes");
    }
}

/// Writes and reads one stream in one task.
struct TcpStreamPair<'a> {
    stream: &'a TcpStream,
}

impl<'a> TcpStreamPair<'a> {
    fn new(stream: &'a TcpStream) -> Self {
        TcpStreamPair { stream }
    }

    async fn exchange(&self, sent: &[u8], echoed: &mut [u8]) -> (usize, io::Result<()>) {
        let (mut written, mut read) = (0, 0);
        while read < echoed.len() {
            let mut moved = false;
            if written < sent.len()
                && let Some(more) = self.stream.try_write(&[IoSlice::new(&sent[written..])]).unwrap()
            {
                written += more;
                moved = true;
            }
            if let Some(more) = self.stream.try_read(&mut [IoSliceMut::new(&mut echoed[read..])]).unwrap() {
                if more == 0 {
                    return (written, Err(io::ErrorKind::UnexpectedEof.into()));
                }
                read += more;
                moved = true;
            }
            if moved {
                continue;
            }
            // Whatever blocks, echoes must come back for it to go on.
            self.stream.readable().await;
        }
        (written, Ok(()))
    }
}

// Without it the kernel's sockets, their edges, and moving a connection to another reactor are untried.
#[test]
fn bytes_are_echoed_over_both_families_and_across_reactors() {
    let reactors = start(2);
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let done = reactors.handles()[0].spawn(move || async move {
            let bound = serve(address);
            echo(bound).await;
        });
        assert_eq!(done.wait_blocking(), Ok(()), "{address}");
    }
    reactors.stop();
}

// Without it the end of a stream that follows its data closely could be missed: a short read is taken for
// "drained", which is wrong once the peer has ended.
#[test]
fn the_end_is_seen_right_after_data() {
    let reactors = start(2);
    let [first, second] = reactors.handles() else { panic!("two reactors") };
    let (address_sender, address) = std::sync::mpsc::channel();
    let server = first.spawn(move || async move {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        address_sender.send(listener.local_addr().unwrap()).unwrap();
        for _ in 0..500 {
            let stream = listener.accept().await.unwrap().0.attach().unwrap();
            let mut bytes = [0; 100];
            read_exact(&stream, &mut bytes[..10]).await.unwrap();
            assert_eq!(read_some(&stream, &mut bytes).await.unwrap(), 0);
        }
    });
    let address = address.recv().unwrap();
    let client = second.spawn(move || async move {
        for _ in 0..500 {
            let stream = TcpStream::connect(address).await.unwrap();
            write_all(&stream, b"0123456789").await.unwrap();
            drop(stream);
        }
    });
    assert_eq!(client.wait_blocking(), Ok(()));
    assert_eq!(server.wait_blocking(), Ok(()));
    reactors.stop();
}

// Without it what somebody has given up would still be sent, minutes later, from the kernel's queue: a write after newer
// writes.
#[test]
fn nothing_leaves_after_an_abort() {
    let reactors = start(1);
    let exchange = reactors.handles()[0].spawn(|| async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let receiver = listener.accept().await.unwrap().0.attach().unwrap();
        let mut written = 0;
        while let Some(bytes) = sender.try_write(&[IoSlice::new(&[7; 65_536])]).unwrap() {
            written += bytes;
        }
        sender.abort();
        let mut received = 0;
        let end = loop {
            match read_some(&receiver, &mut [0; 65_536]).await {
                Ok(0) => break None,
                Ok(bytes) => received += bytes,
                Err(error) => break Some(error.kind()),
            }
        };
        assert!(received < written, "all {written} bytes arrived");
        assert_eq!(end, Some(io::ErrorKind::ConnectionReset));
        // It ends for whoever is still there, too.
        assert!(sender.peer_addr().is_err());
    });
    assert_eq!(exchange.wait_blocking(), Ok(()));
    reactors.stop();
}

// Without it a refused or taken address could hang or go unnoticed.
#[test]
fn refusals_are_errors() {
    let reactors = start(1);
    let done = reactors.handles()[0].spawn(|| async {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let bound = listener.local_addr().unwrap();
        assert_eq!(TcpListener::bind(bound).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // A connection stays, so that nobody else is given the port meanwhile.
        let _kept = (TcpStream::connect(bound).await.unwrap(), listener.accept().await.unwrap());
        drop(listener);
        assert_eq!(TcpStream::connect(bound).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        // The port is free again.
        TcpListener::bind(bound).unwrap();
    });
    assert_eq!(done.wait_blocking(), Ok(()));
    reactors.stop();
}

// Without it a ready set could miss a stream, or name one twice in one take.
#[test]
fn ready_sets_name_each_ready_stream_once() {
    let reactors = start(1);
    let done = reactors.handles()[0].spawn(|| async {
        let address = serve("127.0.0.1:0".parse().unwrap());
        let set = ReadySet::new();
        let mut streams = Vec::new();
        for key in 0..70 {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.notify(&set, key);
            streams.push(stream);
        }
        let mut keys = Vec::new();
        set.take(&mut keys);
        // Once each on registering.
        assert_eq!(keys, (0..70).collect::<Vec<u32>>());
        for stream in &streams {
            let mut byte = [0];
            assert_eq!(stream.try_read(&mut [IoSliceMut::new(&mut byte)]).unwrap(), None);
        }
        set.take(&mut keys);
        for key in [69, 0, 33] {
            write_all(&streams[key], b"x").await.unwrap();
        }
        let mut echoed = Vec::new();
        while echoed.len() < 3 {
            yield_now().await;
            keys.clear();
            set.take(&mut keys);
            let mut distinct = keys.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), keys.len(), "a key twice in one take");
            for key in &keys {
                let mut byte = [0];
                if streams[*key as usize].try_read(&mut [IoSliceMut::new(&mut byte)]).unwrap() == Some(1) {
                    echoed.push(*key);
                }
            }
        }
        echoed.sort_unstable();
        assert_eq!(echoed, [0, 33, 69]);
        assert!(current().id() == 0);
    });
    assert_eq!(done.wait_blocking(), Ok(()));
    reactors.stop();
}
