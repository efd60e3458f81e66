//! NVMe/TCP protocol data units: their layouts, their builders, and the errors that end a connection.
//!
//! Owns the wire format (NVMe/TCP transport specification, "PDU Definitions"): every layout is a struct whose size and
//! field offsets are checked when compiled. It does no I/O and keeps no state; the reading direction is in
//! [`crate::decoder`]. Called by the target's and the host's connections.

mod encode;
mod error;
mod layout;

pub use encode::{
    DataHeader, DataKind, Framing, InitializeRequest, InitializeResponse, ReadyToTransfer, Termination,
    encode_capsule_command, encode_capsule_response, encode_data_digest, encode_data_header,
    encode_initialize_request, encode_initialize_response, encode_ready_to_transfer, encode_termination,
};
pub use error::{FatalError, ProtocolError};
pub use layout::{
    CapsuleCommandPdu, CapsuleResponsePdu, CommonHeader, DataPdu, InitializeRequestPdu,
    InitializeResponsePdu, PduType, ReadyToTransferPdu, TerminationPdu,
};

/// Bytes of the common header that starts every PDU.
pub const COMMON_HEADER_BYTES: usize = 8;
/// HLEN and PLEN of ICReq and ICResp.
pub const INITIALIZE_BYTES: usize = 128;
/// HLEN of H2CTermReq and C2HTermReq.
pub const TERMINATION_BYTES: usize = 24;
/// Most bytes of an offending header that a termination request carries.
pub const TERMINATION_DATA_BYTES: usize = 128;
/// HLEN of CapsuleCmd.
pub const CAPSULE_COMMAND_BYTES: usize = 72;
/// HLEN of CapsuleResp.
pub const CAPSULE_RESPONSE_BYTES: usize = 24;
/// HLEN of H2CData and C2HData.
pub const DATA_BYTES: usize = 24;
/// HLEN of R2T.
pub const READY_TO_TRANSFER_BYTES: usize = 24;
/// Room that any builder's output fits in: the longest header with digest, or a header padded to the coarsest alignment.
pub const MAX_ENCODED_BYTES: usize = TERMINATION_BYTES + TERMINATION_DATA_BYTES;

/// FLAGS bit: a header digest follows the header.
pub const FLAG_HEADER_DIGEST: u8 = 1 << 0;
/// FLAGS bit: a data digest follows the data.
pub const FLAG_DATA_DIGEST: u8 = 1 << 1;
/// FLAGS bit of H2CData and C2HData: the last data PDU of its transfer (R2T, or read command).
pub const FLAG_LAST: u8 = 1 << 2;
/// FLAGS bit of C2HData: the command completed successfully and no CapsuleResp follows. Only with [`FLAG_LAST`].
pub const FLAG_SUCCESS: u8 = 1 << 3;

/// DGST bit of ICReq and ICResp: header digests.
pub const DIGEST_HEADER_ENABLE: u8 = 1 << 0;
/// DGST bit of ICReq and ICResp: data digests.
pub const DIGEST_DATA_ENABLE: u8 = 1 << 1;

/// Largest HPDA or CPDA (alignment of 128 bytes).
pub const MAX_ALIGNMENT: u8 = 31;
/// Smallest MAXH2CDATA that a controller may offer, in bytes.
pub const MIN_MAXH2CDATA: u32 = 4096;
