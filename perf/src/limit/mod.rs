//! `limit`: what the sockets alone can do.
//!
//! Two threads move exactly the bytes that NVMe/TCP puts on the wire for a workload, and do nothing else: no parsing,
//! no buffers of one's own for each I/O, no digests. Both poll plain non-blocking sockets without sleeping, and send
//! all that is due in one call. What a target reaches is judged as a share of this, measured at the same time on the
//! same cores. `main` calls [`run`]; `compare` starts it as a process.

mod client;
mod options;
mod report;
mod server;
mod shape;
mod stream;

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

pub use options::{Core, LimitOptions, parse_core};
pub use report::LimitReport;

use crate::engine::ThreadClock;
use client::Plan;
use shape::{Load, Shape};
use stream::Stream;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// A socket failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// A thread can't be pinned.
    #[error("core {0} is not available to this process")]
    Core(usize),
    /// Something else is at the other end.
    #[error("a PDU of unknown kind {0} came in")]
    Stranger(u8),
    /// The server left.
    #[error("the server ended the connection")]
    Ended,
    /// Options that make no sense.
    #[error("{0}")]
    Options(String),
    /// A thread panicked; its message is on standard error.
    #[error("a thread died")]
    Died,
}

/// Most bytes of one I/O.
const MAX_BYTES: u64 = 16 << 20;
/// Most bytes of data buffers.
const MAX_MEMORY: u64 = 1 << 30;

/// Measures the limit.
///
/// # Errors
/// Whatever keeps it from being measured.
pub fn run(options: &LimitOptions) -> Result<LimitReport, LimitError> {
    for (name, bytes) in [("--bs", options.bs), ("--receive-buffer", options.receive_buffer)] {
        if bytes > MAX_BYTES {
            return Err(LimitError::Options(format!("{name} {bytes} is over 16m")));
        }
    }
    if options.rw.trims() {
        return Err(LimitError::Options("deallocation moves no data: it has no limit here".into()));
    }
    let load = Load {
        bytes: options.bs as usize,
        in_capsule: options.in_capsule as usize,
        host_data: options.max_h2c_data as usize,
        header_digest: options.header_digest,
        data_digest: options.data_digest,
    };
    let buffers =
        if options.own_buffers { usize::from(options.iodepth) * usize::from(options.connections) } else { 1 };
    if options.bs.saturating_mul(buffers as u64) > MAX_MEMORY {
        return Err(LimitError::Options("--own-buffers of this depth and size take over 1 GiB".into()));
    }
    let shape = Shape::new(load, buffers);
    let receive_bytes = options.receive_buffer as usize;
    let yielding = options.server_core == Core::Any || options.server_core == options.client_core;
    let plan = Plan {
        depth: usize::from(options.iodepth),
        read_percent: options.rw.read_percent(options.rwmix),
        ramp: Duration::from_secs_f64(options.ramp),
        time: Duration::from_secs_f64(options.time),
        receive_bytes,
        yielding,
        seed: 1,
    };
    let (clients, servers) = connect(options.connections, options.send_most as usize)?;
    // Each thread owns its ends: when one fails, the other finds its connections closed and ends too.
    let clock = OnceLock::new();
    let (client, server) = std::thread::scope(|scope| {
        let (shape, clock) = (&shape, &clock);
        let server = scope.spawn(move || {
            pin(options.server_core)?;
            // Set once, here; without it the server's processor time is not known.
            let _ = ThreadClock::of_current().map(|own| clock.set(own));
            server::serve(servers, shape, receive_bytes, yielding)
        });
        let client = scope.spawn(move || {
            pin(options.client_core)?;
            client::load(clients, shape, plan, clock)
        });
        (client.join(), server.join())
    });
    let server = server.unwrap_or(Err(LimitError::Died));
    let client = client.unwrap_or(Err(LimitError::Died));
    match (client, server) {
        (Ok(measured), Ok(calls)) => Ok(LimitReport::new(options, &measured, calls)),
        // Of two failures the server's is the cause, if the client only saw the end.
        (Err(LimitError::Ended), Err(error)) | (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// Both ends of so many connections over loopback.
fn connect(connections: u16, send_most: usize) -> Result<(Vec<Stream>, Vec<Stream>), LimitError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (mut clients, mut servers) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        let client = TcpStream::connect(address)?;
        let own = client.local_addr()?;
        loop {
            let (server, peer) = listener.accept()?;
            // Whoever else found the port is none of ours.
            if peer == own {
                servers.push(Stream::new(server, send_most)?);
                break;
            }
        }
        clients.push(Stream::new(client, send_most)?);
    }
    Ok((clients, servers))
}

fn pin(core: Core) -> Result<(), LimitError> {
    match core {
        Core::Any => Ok(()),
        Core::Number(id) if core_affinity::set_for_current(core_affinity::CoreId { id }) => Ok(()),
        Core::Number(id) => Err(LimitError::Core(id)),
    }
}
