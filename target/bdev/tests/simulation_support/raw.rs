//! Bytes on a plain connection.

use std::io::{self, IoSlice, IoSliceMut};

use sledge_reactor::TcpStream;

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

/// Reads one PDU, of which the first bytes say how long it is.
pub async fn read_pdu(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut pdu = vec![0; 8];
    read_exact(stream, &mut pdu).await?;
    let length = u32::from_le_bytes([pdu[4], pdu[5], pdu[6], pdu[7]]) as usize;
    assert!((8..1 << 20).contains(&length), "a PDU of {length} bytes");
    pdu.resize(length, 0);
    read_exact(stream, &mut pdu[8..]).await?;
    Ok(pdu)
}

/// Reads until the other side closes; whether by a reset or an end does not matter.
pub async fn read_to_end(stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut some = [0; 4096];
    while let Ok(count @ 1..) = read_some(stream, &mut some).await {
        all.extend_from_slice(&some[..count]);
    }
    all
}
