//! Builders: each writes one PDU header, with its digest and padding, to the caller's bytes and returns the length.
//!
//! Data is never copied here: the caller sends it after the header, then the data digest if one is in force.
//! Every builder panics when `out` is too short; [`super::MAX_ENCODED_BYTES`] is always enough.

use super::{
    CAPSULE_COMMAND_BYTES, CAPSULE_RESPONSE_BYTES, CapsuleCommandPdu, CapsuleResponsePdu, CommonHeader,
    DATA_BYTES, DIGEST_DATA_ENABLE, DIGEST_HEADER_ENABLE, DataPdu, FLAG_DATA_DIGEST, FLAG_HEADER_DIGEST,
    FLAG_LAST, FLAG_SUCCESS, FatalError, INITIALIZE_BYTES, InitializeRequestPdu, InitializeResponsePdu,
    PduType, ProtocolError, READY_TO_TRANSFER_BYTES, ReadyToTransferPdu, TERMINATION_BYTES,
    TERMINATION_DATA_BYTES, TerminationPdu,
};
use crate::digest::{DIGEST_BYTES, digest};
use sledge_nvme::{Command, Completion};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

/// What the two ends agreed on for one direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// Header digests are in force.
    pub header_digest: bool,
    /// Data digests are in force.
    pub data_digest: bool,
    /// The receiver's HPDA or CPDA: data starts at a multiple of 4 * (alignment + 1) bytes.
    pub alignment: u8,
}

impl Framing {
    /// Multiple that the data's offset must have, in bytes.
    pub const fn alignment_bytes(&self) -> usize {
        (self.alignment as usize + 1) * 4
    }

    /// Bytes of a header with its digest.
    pub const fn header_and_digest(&self, header_bytes: usize) -> usize {
        header_bytes + if self.header_digest { DIGEST_BYTES } else { 0 }
    }

    /// PDO for data that follows a header of `header_bytes`.
    #[inline]
    pub const fn data_offset(&self, header_bytes: usize) -> usize {
        let end = self.header_and_digest(header_bytes);
        // Headers and digests are multiples of 4 bytes. Nearly all hosts and targets ask for no more than that, and a
        // division for each PDU costs as much as all the rest of building it.
        if self.alignment == 0 { end } else { end.next_multiple_of(self.alignment_bytes()) }
    }

    /// Whether data of the peer may start at `offset`.
    #[inline]
    pub(crate) const fn allows_data_at(&self, offset: usize) -> bool {
        if self.alignment == 0 {
            offset.is_multiple_of(4)
        } else {
            offset.is_multiple_of(self.alignment_bytes())
        }
    }

    /// PLEN of a PDU with `header_bytes` of header and `data` bytes of data.
    pub const fn pdu_length(&self, header_bytes: usize, data: usize) -> usize {
        if data == 0 {
            self.header_and_digest(header_bytes)
        } else {
            self.data_offset(header_bytes) + data + if self.data_digest { DIGEST_BYTES } else { 0 }
        }
    }
}

/// The fields of ICReq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitializeRequest {
    /// HPDA.
    pub data_alignment: u8,
    /// The host asks for header digests.
    pub header_digest: bool,
    /// The host asks for data digests.
    pub data_digest: bool,
    /// MAXR2T, zero-based.
    pub max_ready_to_transfer: u32,
}

/// The fields of ICResp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitializeResponse {
    /// CPDA.
    pub data_alignment: u8,
    /// Header digests are in force.
    pub header_digest: bool,
    /// Data digests are in force.
    pub data_digest: bool,
    /// MAXH2CDATA in bytes.
    pub max_host_data: u32,
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// H2CData.
    HostToController,
    /// C2HData.
    ControllerToHost,
}

/// The fields of H2CData and C2HData.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// Which of the two.
    pub kind: DataKind,
    /// CCCID.
    pub command_id: u16,
    /// TTAG; zero in C2HData.
    pub transfer_tag: u16,
    /// DATAO in bytes.
    pub offset: u32,
    /// DATAL in bytes.
    pub length: u32,
    /// LAST_PDU.
    pub last: bool,
    /// SUCCESS: no CapsuleResp follows. C2HData only, and only with `last`.
    pub success: bool,
}

/// The fields of R2T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyToTransfer {
    /// CCCID.
    pub command_id: u16,
    /// TTAG.
    pub transfer_tag: u16,
    /// R2TO in bytes.
    pub offset: u32,
    /// R2TL in bytes.
    pub length: u32,
}

/// A termination request as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    /// FES, or none for a value that the specification reserves.
    pub status: Option<FatalError>,
    /// FES as on the wire.
    pub raw_status: u16,
    /// FEI.
    pub information: u32,
}

fn digest_bits(header: bool, data: bool) -> u8 {
    (if header { DIGEST_HEADER_ENABLE } else { 0 }) | (if data { DIGEST_DATA_ENABLE } else { 0 })
}

fn common(pdu_type: PduType, flags: u8, data_offset: usize, length: usize) -> CommonHeader {
    CommonHeader {
        pdu_type: pdu_type as u8,
        flags,
        // Headers are at most 128 bytes and offsets at most 128 (alignment is at most 32 dwords).
        header_length: pdu_type.header_bytes() as u8,
        data_offset: data_offset as u8,
        length: U32::new(length as u32),
    }
}

/// Puts header, digest and zero padding up to `end` into `out`; returns `end`. Inlined, as the header's length is then
/// known and it is built in place.
#[inline(always)]
fn put(out: &mut [u8], header: &[u8], with_digest: bool, end: usize) -> usize {
    let mut at = header.len();
    out[..at].copy_from_slice(header);
    if with_digest {
        out[at..at + DIGEST_BYTES].copy_from_slice(&digest(header).to_le_bytes());
        at += DIGEST_BYTES;
    }
    // Nearly always there is none.
    if at < end {
        out[at..end].fill(0);
    }
    end
}

/// Writes ICReq.
pub fn encode_initialize_request(out: &mut [u8], request: &InitializeRequest) -> usize {
    let pdu = InitializeRequestPdu {
        header: common(PduType::InitializeRequest, 0, 0, INITIALIZE_BYTES),
        format_version: U16::ZERO,
        data_alignment: request.data_alignment,
        digests: digest_bits(request.header_digest, request.data_digest),
        max_ready_to_transfer: U32::new(request.max_ready_to_transfer),
        reserved: [0; 112],
    };
    put(out, pdu.as_bytes(), false, INITIALIZE_BYTES)
}

/// Writes ICResp.
pub fn encode_initialize_response(out: &mut [u8], response: &InitializeResponse) -> usize {
    let pdu = InitializeResponsePdu {
        header: common(PduType::InitializeResponse, 0, 0, INITIALIZE_BYTES),
        format_version: U16::ZERO,
        data_alignment: response.data_alignment,
        digests: digest_bits(response.header_digest, response.data_digest),
        max_host_data: U32::new(response.max_host_data),
        reserved: [0; 112],
    };
    put(out, pdu.as_bytes(), false, INITIALIZE_BYTES)
}

/// Writes a whole termination request, H2CTermReq when `from_host`, with the offending header as its data.
pub fn encode_termination(out: &mut [u8], from_host: bool, error: &ProtocolError) -> usize {
    let data = &error.header[..error.header.len().min(TERMINATION_DATA_BYTES)];
    let length = TERMINATION_BYTES + data.len();
    let kind = if from_host { PduType::HostTermination } else { PduType::ControllerTermination };
    let pdu = TerminationPdu {
        header: common(kind, 0, 0, length),
        status: U16::new(error.status.wire()),
        information: U32::new(error.information),
        reserved: [0; 10],
    };
    let at = put(out, pdu.as_bytes(), false, TERMINATION_BYTES);
    out[at..length].copy_from_slice(data);
    length
}

/// Writes the header of CapsuleCmd up to where its `data_length` bytes of in-capsule data start.
#[inline]
pub fn encode_capsule_command(
    out: &mut [u8],
    command: &Command,
    data_length: u32,
    framing: &Framing,
) -> usize {
    let data = data_length as usize;
    let (end, offset) = data_start(CAPSULE_COMMAND_BYTES, data, framing);
    let mut flags = if framing.header_digest { FLAG_HEADER_DIGEST } else { 0 };
    if framing.data_digest && data > 0 {
        flags |= FLAG_DATA_DIGEST;
    }
    let length = framing.pdu_length(CAPSULE_COMMAND_BYTES, data);
    let pdu = CapsuleCommandPdu {
        header: common(PduType::CapsuleCommand, flags, offset, length),
        command: *command,
    };
    put(out, pdu.as_bytes(), framing.header_digest, end)
}

/// Writes a whole CapsuleResp.
#[inline]
pub fn encode_capsule_response(out: &mut [u8], completion: &Completion, framing: &Framing) -> usize {
    let length = framing.header_and_digest(CAPSULE_RESPONSE_BYTES);
    let flags = if framing.header_digest { FLAG_HEADER_DIGEST } else { 0 };
    let pdu = CapsuleResponsePdu {
        header: common(PduType::CapsuleResponse, flags, 0, length),
        completion: *completion,
    };
    put(out, pdu.as_bytes(), framing.header_digest, length)
}

/// Writes the header of H2CData or C2HData up to where its data starts. Inlined, as callers know most of the fields.
#[inline(always)]
pub fn encode_data_header(out: &mut [u8], data: &DataHeader, framing: &Framing) -> usize {
    let bytes = data.length as usize;
    let (end, offset) = data_start(DATA_BYTES, bytes, framing);
    let mut flags = if framing.header_digest { FLAG_HEADER_DIGEST } else { 0 };
    if framing.data_digest && bytes > 0 {
        flags |= FLAG_DATA_DIGEST;
    }
    if data.last {
        flags |= FLAG_LAST;
    }
    let (kind, transfer_tag) = match data.kind {
        DataKind::HostToController => (PduType::HostData, data.transfer_tag),
        DataKind::ControllerToHost => {
            if data.success {
                flags |= FLAG_SUCCESS;
            }
            (PduType::ControllerData, 0)
        }
    };
    let pdu = DataPdu {
        header: common(kind, flags, offset, framing.pdu_length(DATA_BYTES, bytes)),
        command_id: U16::new(data.command_id),
        transfer_tag: U16::new(transfer_tag),
        offset: U32::new(data.offset),
        length: U32::new(data.length),
        reserved: [0; 4],
    };
    put(out, pdu.as_bytes(), framing.header_digest, end)
}

/// Writes a whole R2T.
pub fn encode_ready_to_transfer(out: &mut [u8], ready: &ReadyToTransfer, framing: &Framing) -> usize {
    let length = framing.header_and_digest(READY_TO_TRANSFER_BYTES);
    let flags = if framing.header_digest { FLAG_HEADER_DIGEST } else { 0 };
    let pdu = ReadyToTransferPdu {
        header: common(PduType::ReadyToTransfer, flags, 0, length),
        command_id: U16::new(ready.command_id),
        transfer_tag: U16::new(ready.transfer_tag),
        offset: U32::new(ready.offset),
        length: U32::new(ready.length),
        reserved: [0; 4],
    };
    put(out, pdu.as_bytes(), framing.header_digest, length)
}

/// Writes the digest that ends a PDU's data (`value` from [`crate::digest`]).
pub fn encode_data_digest(out: &mut [u8], value: u32) -> usize {
    out[..DIGEST_BYTES].copy_from_slice(&value.to_le_bytes());
    DIGEST_BYTES
}

/// (where the built bytes end, PDO) for a header before `data` bytes: without data there is no padding and PDO is zero.
fn data_start(header_bytes: usize, data: usize, framing: &Framing) -> (usize, usize) {
    if data == 0 {
        (framing.header_and_digest(header_bytes), 0)
    } else {
        let offset = framing.data_offset(header_bytes);
        (offset, offset)
    }
}
