//! Errors that end a connection, with what the termination request says about them.

use super::{PduType, TERMINATION_DATA_BYTES};

/// FES: why a connection is terminated (NVMe/TCP transport specification, "H2CTermReq" and "C2HTermReq").
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FatalError {
    /// A header field has a wrong value; FEI is the field's byte offset.
    #[error("invalid PDU header field")]
    InvalidHeaderField,
    /// A PDU arrived that its place in the sequence forbids.
    #[error("PDU sequence error")]
    Sequence,
    /// The header digest is wrong; FEI is the digest received.
    #[error("header digest error")]
    HeaderDigest,
    /// Data lies outside of the command's transfer.
    #[error("data transfer out of range")]
    OutOfRange,
    /// Sent by a host: more R2Ts than MAXR2T. Shares its wire value with the next.
    #[error("R2T limit exceeded")]
    ReadyToTransferLimit,
    /// Sent by a controller: more data than MAXH2CDATA or the capsule allows.
    #[error("data transfer limit exceeded")]
    DataLimit,
    /// A parameter that is not supported; FEI is its byte offset.
    #[error("unsupported parameter")]
    UnsupportedParameter,
}

impl FatalError {
    /// The value of FES on the wire.
    pub const fn wire(self) -> u16 {
        match self {
            Self::InvalidHeaderField => 0x01,
            Self::Sequence => 0x02,
            Self::HeaderDigest => 0x03,
            Self::OutOfRange => 0x04,
            Self::ReadyToTransferLimit | Self::DataLimit => 0x05,
            Self::UnsupportedParameter => 0x06,
        }
    }

    /// The words for a FES received in `from` (H2CTermReq or C2HTermReq), or none for a reserved value.
    pub const fn from_wire(value: u16, from: PduType) -> Option<Self> {
        Some(match value {
            0x01 => Self::InvalidHeaderField,
            0x02 => Self::Sequence,
            0x03 => Self::HeaderDigest,
            0x04 => Self::OutOfRange,
            0x05 => match from {
                PduType::HostTermination => Self::ReadyToTransferLimit,
                _ => Self::DataLimit,
            },
            0x06 => Self::UnsupportedParameter,
            _ => return None,
        })
    }
}

/// A violation of the protocol by the peer. The connection can't go on: send a termination request and close.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status} (information {information:#x})")]
pub struct ProtocolError {
    /// FES.
    pub status: FatalError,
    /// FEI.
    pub information: u32,
    /// The bytes of the offending PDU's header that were read, at most 128.
    pub header: Box<[u8]>,
}

impl ProtocolError {
    /// An error found in the PDU that starts with `header`, which is cut to what a termination request can carry.
    pub fn new(status: FatalError, information: u32, header: &[u8]) -> Self {
        let kept = header.len().min(TERMINATION_DATA_BYTES);
        Self { status, information, header: header[..kept].into() }
    }

    /// False when the offending PDU is itself a termination request: that is answered by closing only.
    pub fn answerable(&self) -> bool {
        !matches!(
            self.header.first().and_then(|value| PduType::from_wire(*value)),
            Some(PduType::HostTermination | PduType::ControllerTermination)
        )
    }
}
