//! The answering end: counts commands, and answers all that are due in one call.

use std::io::ErrorKind;

use super::LimitError;
use super::shape::{Kind, Shape};
use super::stream::{Calls, Due, Stream};

/// Answers on all connections until the last one has ended. `yielding` when it shares its core with the client.
///
/// # Errors
/// When a connection fails in another way than by its end.
pub fn serve(
    mut streams: Vec<Stream>,
    shape: &Shape,
    receive_bytes: usize,
    yielding: bool,
) -> Result<Calls, LimitError> {
    let mut buffer = vec![0; receive_bytes];
    let mut slices = Vec::with_capacity(1024);
    let mut calls = Calls::default();
    let by_transfer = shape.host_pieces().is_some();
    let answer = |kind, due: &mut Due| match kind {
        Kind::Read => due.push(Kind::Data, 1),
        Kind::Write if by_transfer => due.push(Kind::Ready, 1),
        Kind::Write | Kind::HostLast => due.push(Kind::Response, 1),
        _ => {}
    };
    while !streams.is_empty() {
        let before = calls.receives;
        let mut index = 0;
        while let Some(stream) = streams.get_mut(index) {
            let mut going = stream.receive(shape, &mut buffer, &mut calls, answer);
            if matches!(going, Ok(true)) {
                going = stream.send(shape, &mut slices, &mut calls).map(|()| true);
            }
            match going {
                Ok(true) => index += 1,
                Ok(false) => drop(streams.swap_remove(index)),
                Err(LimitError::Socket(error)) if is_end(error.kind()) => drop(streams.swap_remove(index)),
                Err(error) => return Err(error),
            }
        }
        if yielding && calls.receives == before {
            std::thread::yield_now();
        }
    }
    Ok(calls)
}

/// The client leaves when its time is over, with answers under way: to the server that is a broken connection.
fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe)
}
