//! Judging headers: which PDU may come when, and which field is wrong.
//!
//! Called by the decoder only: first with the eight bytes of the common header, then with the whole header.

use super::{Decoder, Event, Follows, Phase, Role};
use crate::digest::DIGEST_BYTES;
use crate::pdu::{
    CapsuleCommandPdu, CapsuleResponsePdu, CommonHeader, DIGEST_DATA_ENABLE, DIGEST_HEADER_ENABLE,
    DataHeader, DataKind, DataPdu, FLAG_DATA_DIGEST, FLAG_HEADER_DIGEST, FLAG_LAST, FLAG_SUCCESS, FatalError,
    InitializeRequest, InitializeRequestPdu, InitializeResponse, InitializeResponsePdu, MAX_ALIGNMENT,
    MIN_MAXH2CDATA, PduType, ProtocolError, ReadyToTransfer, ReadyToTransferPdu, TERMINATION_DATA_BYTES,
    Termination, TerminationPdu,
};
use core::mem::offset_of;
use zerocopy::FromBytes;

/// Byte offsets of common header fields, for FEI.
const TYPE: usize = offset_of!(CommonHeader, pdu_type);
const FLAGS: usize = offset_of!(CommonHeader, flags);
const HEADER_LENGTH: usize = offset_of!(CommonHeader, header_length);
const DATA_OFFSET: usize = offset_of!(CommonHeader, data_offset);
const LENGTH: usize = offset_of!(CommonHeader, length);

/// A common header that passed.
pub(super) struct Common {
    pub(super) pdu_type: PduType,
    pub(super) header_bytes: usize,
    /// A header digest follows the header.
    pub(super) header_digest: bool,
    /// A data digest follows the data.
    data_digest: bool,
    flags: u8,
    data_offset: usize,
    length: usize,
}

/// Whether a PDU of this type may arrive now. Every pair of phase and type is decided here.
fn admit(role: Role, phase: Phase, pdu_type: PduType) -> Result<(), FatalError> {
    use PduType as T;
    let ours = match pdu_type {
        T::InitializeRequest | T::CapsuleCommand | T::HostData | T::HostTermination => role == Role::Target,
        T::InitializeResponse
        | T::CapsuleResponse
        | T::ControllerData
        | T::ReadyToTransfer
        | T::ControllerTermination => role == Role::Host,
    };
    if !ours {
        // A type that never goes this way is no better than an unknown one.
        return Err(FatalError::InvalidHeaderField);
    }
    let first = matches!(pdu_type, T::InitializeRequest | T::InitializeResponse);
    let termination = matches!(pdu_type, T::HostTermination | T::ControllerTermination);
    match phase {
        Phase::New if first || termination => Ok(()),
        Phase::New => Err(FatalError::Sequence),
        // The decoder doesn't ask while it waits for the caller; the answer is that of the next phase.
        Phase::Negotiating | Phase::Ready if first => Err(FatalError::Sequence),
        Phase::Negotiating | Phase::Ready => Ok(()),
    }
}

impl Common {
    /// Judges the first eight bytes of a PDU.
    pub(super) fn judge(decoder: &Decoder, bytes: &[u8]) -> Result<Self, ProtocolError> {
        let fail = |status: FatalError, at: usize| {
            let information = if status == FatalError::InvalidHeaderField { at as u32 } else { 0 };
            ProtocolError::new(status, information, bytes)
        };
        let invalid = |at: usize| fail(FatalError::InvalidHeaderField, at);
        let header = CommonHeader::read_from_bytes(bytes).map_err(|_| invalid(TYPE))?;
        let pdu_type = PduType::from_wire(header.pdu_type).ok_or_else(|| invalid(TYPE))?;
        admit(decoder.role, decoder.phase, pdu_type).map_err(|status| fail(status, TYPE))?;
        let header_bytes = pdu_type.header_bytes();
        if header.header_length as usize != header_bytes {
            return Err(invalid(HEADER_LENGTH));
        }
        let flags = header.flags;
        let length = header.length.get() as usize;
        let data_offset = header.data_offset as usize;

        let header_digest = pdu_type.has_header_digest() && decoder.framing.header_digest;
        if pdu_type.has_header_digest() && (flags & FLAG_HEADER_DIGEST != 0) != header_digest {
            return Err(invalid(FLAGS));
        }
        let start = header_bytes + if header_digest { DIGEST_BYTES } else { 0 };
        if length < start {
            return Err(invalid(LENGTH));
        }
        let data_digest = flags & FLAG_DATA_DIGEST != 0;
        match pdu_type {
            PduType::InitializeRequest
            | PduType::InitializeResponse
            | PduType::CapsuleResponse
            | PduType::ReadyToTransfer => {
                if length != start {
                    return Err(invalid(LENGTH));
                }
            }
            PduType::HostTermination | PduType::ControllerTermination => {
                if length > start + TERMINATION_DATA_BYTES {
                    return Err(invalid(LENGTH));
                }
            }
            PduType::CapsuleCommand | PduType::HostData | PduType::ControllerData => {
                if data_digest && !decoder.framing.data_digest {
                    return Err(invalid(FLAGS));
                }
                if length > start {
                    if !data_digest && decoder.framing.data_digest {
                        return Err(invalid(FLAGS));
                    }
                    if data_offset < start || !decoder.framing.allows_data_at(data_offset) {
                        return Err(invalid(DATA_OFFSET));
                    }
                    if length <= data_offset + if data_digest { DIGEST_BYTES } else { 0 } {
                        return Err(invalid(LENGTH));
                    }
                }
                if flags & FLAG_SUCCESS != 0 && flags & FLAG_LAST == 0 && pdu_type == PduType::ControllerData
                {
                    return Err(invalid(FLAGS));
                }
            }
        }
        let common = Self { pdu_type, header_bytes, header_digest, data_digest, flags, data_offset, length };
        let most = match pdu_type {
            PduType::CapsuleCommand => decoder.limits.max_in_capsule,
            PduType::HostData => decoder.limits.max_host_data,
            _ => u32::MAX,
        };
        if common.data_bytes() > most as usize {
            return Err(fail(FatalError::DataLimit, LENGTH));
        }
        Ok(common)
    }

    /// Bytes where data could start if there is no padding.
    fn start(&self) -> usize {
        self.header_bytes + if self.header_digest { DIGEST_BYTES } else { 0 }
    }

    /// Data bytes, as PLEN and PDO say. Not for termination requests.
    pub(super) fn data_bytes(&self) -> usize {
        if self.length == self.start() {
            return 0;
        }
        (self.length - if self.data_digest { DIGEST_BYTES } else { 0 }).saturating_sub(self.data_offset)
    }

    fn data_follows(&self) -> Follows {
        match self.data_bytes() {
            // No digest covers nothing, whatever the flag says.
            0 => Follows::Data { padding: 0, length: 0, digest: false },
            length => {
                Follows::Data { padding: self.data_offset - self.start(), length, digest: self.data_digest }
            }
        }
    }
}

/// Judges the rest of a header, which is in the decoder's current header, and says what follows it.
pub(super) fn parse(decoder: &Decoder, common: &Common) -> Result<(Event<'static>, Follows), ProtocolError> {
    let bytes = decoder.current_header();
    let fail = |status, information: usize| ProtocolError::new(status, information as u32, bytes);
    let invalid = |at| fail(FatalError::InvalidHeaderField, at);
    let unsupported = |at| fail(FatalError::UnsupportedParameter, at);
    // The header's length was checked against its type, so that reading a layout can't fail; if it did, it would be a
    // wrong HLEN.
    let short = || invalid(HEADER_LENGTH);

    match common.pdu_type {
        PduType::InitializeRequest => {
            let pdu = InitializeRequestPdu::read_from_bytes(bytes).map_err(|_| short())?;
            if pdu.format_version.get() != 0 {
                return Err(unsupported(offset_of!(InitializeRequestPdu, format_version)));
            }
            if pdu.data_alignment > MAX_ALIGNMENT {
                return Err(unsupported(offset_of!(InitializeRequestPdu, data_alignment)));
            }
            let request = InitializeRequest {
                data_alignment: pdu.data_alignment,
                header_digest: pdu.digests & DIGEST_HEADER_ENABLE != 0,
                data_digest: pdu.digests & DIGEST_DATA_ENABLE != 0,
                max_ready_to_transfer: pdu.max_ready_to_transfer.get(),
            };
            Ok((Event::InitializeRequest(request), Follows::Nothing))
        }
        PduType::InitializeResponse => {
            let pdu = InitializeResponsePdu::read_from_bytes(bytes).map_err(|_| short())?;
            if pdu.format_version.get() != 0 {
                return Err(unsupported(offset_of!(InitializeResponsePdu, format_version)));
            }
            if pdu.data_alignment > MAX_ALIGNMENT {
                return Err(unsupported(offset_of!(InitializeResponsePdu, data_alignment)));
            }
            if pdu.max_host_data.get() < MIN_MAXH2CDATA || !pdu.max_host_data.get().is_multiple_of(4) {
                return Err(unsupported(offset_of!(InitializeResponsePdu, max_host_data)));
            }
            let response = InitializeResponse {
                data_alignment: pdu.data_alignment,
                header_digest: pdu.digests & DIGEST_HEADER_ENABLE != 0,
                data_digest: pdu.digests & DIGEST_DATA_ENABLE != 0,
                max_host_data: pdu.max_host_data.get(),
            };
            Ok((Event::InitializeResponse(response), Follows::Nothing))
        }
        PduType::HostTermination | PduType::ControllerTermination => {
            let pdu = TerminationPdu::read_from_bytes(bytes).map_err(|_| short())?;
            let request = Termination {
                status: FatalError::from_wire(pdu.status.get(), common.pdu_type),
                raw_status: pdu.status.get(),
                information: pdu.information.get(),
            };
            let left = common.length - common.header_bytes;
            Ok((Event::Termination(request), Follows::Termination { left, request }))
        }
        PduType::CapsuleCommand => {
            let pdu = CapsuleCommandPdu::read_from_bytes(bytes).map_err(|_| short())?;
            let length = common.data_bytes();
            let follows = if length == 0 { Follows::Nothing } else { common.data_follows() };
            // PLEN is 32 bits, so the data's length is too.
            Ok((Event::Command { command: pdu.command, in_capsule_length: length as u32 }, follows))
        }
        PduType::CapsuleResponse => {
            let pdu = CapsuleResponsePdu::read_from_bytes(bytes).map_err(|_| short())?;
            Ok((Event::Completion(pdu.completion), Follows::Nothing))
        }
        PduType::ReadyToTransfer => {
            let pdu = ReadyToTransferPdu::read_from_bytes(bytes).map_err(|_| short())?;
            let ready =
                ready_to_transfer(&pdu).ok_or_else(|| invalid(offset_of!(ReadyToTransferPdu, length)))?;
            Ok((Event::ReadyToTransfer(ready), Follows::Nothing))
        }
        PduType::HostData | PduType::ControllerData => {
            let pdu = DataPdu::read_from_bytes(bytes).map_err(|_| short())?;
            if pdu.length.get() as usize != common.data_bytes() {
                return Err(invalid(offset_of!(DataPdu, length)));
            }
            let controller = common.pdu_type == PduType::ControllerData;
            let header = data_header(&pdu, controller, common.flags);
            Ok((Event::DataHeader(header), common.data_follows()))
        }
    }
}

/// The fields of R2T; none when it asks for nothing.
#[inline]
pub(super) fn ready_to_transfer(pdu: &ReadyToTransferPdu) -> Option<ReadyToTransfer> {
    let ready = ReadyToTransfer {
        command_id: pdu.command_id.get(),
        transfer_tag: pdu.transfer_tag.get(),
        offset: pdu.offset.get(),
        length: pdu.length.get(),
    };
    (ready.length > 0).then_some(ready)
}

/// The fields of C2HData when a controller sent it, else of H2CData.
#[inline]
pub(super) fn data_header(pdu: &DataPdu, controller: bool, flags: u8) -> DataHeader {
    DataHeader {
        kind: if controller { DataKind::ControllerToHost } else { DataKind::HostToController },
        command_id: pdu.command_id.get(),
        transfer_tag: if controller { 0 } else { pdu.transfer_tag.get() },
        offset: pdu.offset.get(),
        length: pdu.length.get(),
        last: flags & FLAG_LAST != 0,
        success: controller && flags & FLAG_SUCCESS != 0,
    }
}
