//! CRC-32C as NVMe/TCP uses it for header and data digests (NVMe/TCP transport specification, "Digest").
//!
//! Owns nothing but the running state of one digest. A digest travels as four little-endian bytes.
//! Called by the PDU builders, the decoder, and by both sides when they stream data.

use crc_fast::{CrcAlgorithm, Digest};

/// Bytes that a digest takes on the wire.
pub const DIGEST_BYTES: usize = 4;

/// What the register of the CRC starts with, and what its end is combined with.
const ONES: u32 = u32::MAX;

/// A data digest in progress over any number of runs of bytes.
///
/// Only the register is kept between runs: the library's own object is 200 bytes, and each connection has one of these.
#[derive(Clone, Debug)]
pub struct RunningDigest {
    register: u32,
}

impl RunningDigest {
    /// A digest over no bytes yet.
    pub fn new() -> Self {
        Self { register: ONES }
    }

    /// Takes the next bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(self.register));
            digest.update(bytes);
            // The crate keeps every width in a u64; a 32-bit polynomial fills the low half only.
            self.register = digest.get_state() as u32;
        }
    }

    /// The CRC-32C of everything taken in so far.
    pub fn value(&self) -> u32 {
        self.register ^ ONES
    }
}

impl Default for RunningDigest {
    fn default() -> Self {
        Self::new()
    }
}

/// The CRC-32C of one contiguous run of bytes.
pub fn digest(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// The CRC-32C of several runs of bytes, as if they were joined.
pub fn digest_of<'a>(runs: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let mut running = RunningDigest::new();
    for run in runs {
        running.update(run);
    }
    running.value()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Without it a wrong polynomial, seed or bit order goes unseen until a foreign host refuses us (RFC 3720 B.4 values).
    #[test]
    fn known_values() {
        assert_eq!(digest(b"123456789"), 0xE306_9283);
        assert_eq!(digest(&[0u8; 32]), 0x8A91_36AA);
        assert_eq!(digest(&[0xFF; 32]), 0x62A8_AB43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(digest(&rising), 0x46DD_794E);
        assert_eq!(digest(&[]), 0);
    }

    // Without it data received in pieces could get another digest than data received at once.
    #[test]
    fn pieces_equal_whole() {
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        for cut in [0, 1, 3, 4, 63, 64, 500, 999, 1000] {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(digest_of([left, right]), digest(&bytes), "cut at {cut}");
        }
    }
}
