//! Wire layouts of the NVMe/TCP PDU headers, little-endian, checked for size and offset when compiled.

use core::mem::{offset_of, size_of};
use sledge_nvme::{Command, Completion};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// PDU-Type (NVMe/TCP transport specification, "PDU Common Header").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PduType {
    /// ICReq: host asks for a connection.
    InitializeRequest = 0x00,
    /// ICResp: controller accepts it.
    InitializeResponse = 0x01,
    /// H2CTermReq: the host ends the connection for a fatal error.
    HostTermination = 0x02,
    /// C2HTermReq: the controller ends the connection for a fatal error.
    ControllerTermination = 0x03,
    /// CapsuleCmd: a command, with or without data.
    CapsuleCommand = 0x04,
    /// CapsuleResp: a completion.
    CapsuleResponse = 0x05,
    /// H2CData: data that an R2T asked for.
    HostData = 0x06,
    /// C2HData: data of a read.
    ControllerData = 0x07,
    /// R2T: the controller is ready for data.
    ReadyToTransfer = 0x09,
}

impl PduType {
    /// The type of this wire value, or none for a reserved one.
    pub const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            0x00 => Self::InitializeRequest,
            0x01 => Self::InitializeResponse,
            0x02 => Self::HostTermination,
            0x03 => Self::ControllerTermination,
            0x04 => Self::CapsuleCommand,
            0x05 => Self::CapsuleResponse,
            0x06 => Self::HostData,
            0x07 => Self::ControllerData,
            0x09 => Self::ReadyToTransfer,
            _ => return None,
        })
    }

    /// HLEN of this type in bytes.
    pub const fn header_bytes(self) -> usize {
        match self {
            Self::InitializeRequest | Self::InitializeResponse => super::INITIALIZE_BYTES,
            Self::HostTermination | Self::ControllerTermination => super::TERMINATION_BYTES,
            Self::CapsuleCommand => super::CAPSULE_COMMAND_BYTES,
            Self::CapsuleResponse => super::CAPSULE_RESPONSE_BYTES,
            Self::HostData | Self::ControllerData => super::DATA_BYTES,
            Self::ReadyToTransfer => super::READY_TO_TRANSFER_BYTES,
        }
    }

    /// True for the types whose header a digest follows when header digests were negotiated.
    pub const fn has_header_digest(self) -> bool {
        match self {
            Self::InitializeRequest
            | Self::InitializeResponse
            | Self::HostTermination
            | Self::ControllerTermination => false,
            Self::CapsuleCommand
            | Self::CapsuleResponse
            | Self::HostData
            | Self::ControllerData
            | Self::ReadyToTransfer => true,
        }
    }
}

/// CH: the common header of every PDU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CommonHeader {
    /// PDU-Type, see [`PduType`].
    pub pdu_type: u8,
    /// FLAGS, by type.
    pub flags: u8,
    /// HLEN: header bytes, without digest and padding.
    pub header_length: u8,
    /// PDO: byte offset of the data from the start of the PDU; zero when there is none.
    pub data_offset: u8,
    /// PLEN: bytes of the whole PDU with digests, padding and data.
    pub length: U32,
}

/// ICReq.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InitializeRequestPdu {
    /// Common header.
    pub header: CommonHeader,
    /// PFV: PDU format version, zero.
    pub format_version: U16,
    /// HPDA: alignment that the host wants for the data of C2HData; 4 * (HPDA + 1) bytes.
    pub data_alignment: u8,
    /// DGST: digests that the host asks for.
    pub digests: u8,
    /// MAXR2T: most outstanding R2Ts a command, zero-based.
    pub max_ready_to_transfer: U32,
    /// Reserved.
    pub reserved: [u8; 112],
}

/// ICResp.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct InitializeResponsePdu {
    /// Common header.
    pub header: CommonHeader,
    /// PFV: PDU format version, zero.
    pub format_version: U16,
    /// CPDA: alignment that the controller wants for data of CapsuleCmd and H2CData; 4 * (CPDA + 1) bytes.
    pub data_alignment: u8,
    /// DGST: digests that are in force.
    pub digests: u8,
    /// MAXH2CDATA: most data bytes in one H2CData.
    pub max_host_data: U32,
    /// Reserved.
    pub reserved: [u8; 112],
}

/// H2CTermReq and C2HTermReq, without the offending header that follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TerminationPdu {
    /// Common header.
    pub header: CommonHeader,
    /// FES: fatal error status.
    pub status: U16,
    /// FEI: fatal error information; its meaning depends on FES.
    pub information: U32,
    /// Reserved.
    pub reserved: [u8; 10],
}

/// CapsuleCmd, without data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleCommandPdu {
    /// Common header.
    pub header: CommonHeader,
    /// CCSQE: the submission queue entry.
    pub command: Command,
}

/// CapsuleResp.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleResponsePdu {
    /// Common header.
    pub header: CommonHeader,
    /// RCCQE: the completion queue entry.
    pub completion: Completion,
}

/// H2CData and C2HData, without data. TTAG is reserved in C2HData.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct DataPdu {
    /// Common header.
    pub header: CommonHeader,
    /// CCCID: the command's identifier.
    pub command_id: U16,
    /// TTAG: the transfer tag of the R2T that is answered.
    pub transfer_tag: U16,
    /// DATAO: byte offset within the command's data.
    pub offset: U32,
    /// DATAL: data bytes in this PDU.
    pub length: U32,
    /// Reserved.
    pub reserved: [u8; 4],
}

/// R2T.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ReadyToTransferPdu {
    /// Common header.
    pub header: CommonHeader,
    /// CCCID: the command's identifier.
    pub command_id: U16,
    /// TTAG: tag that H2CData repeats.
    pub transfer_tag: U16,
    /// R2TO: byte offset within the command's data.
    pub offset: U32,
    /// R2TL: bytes asked for.
    pub length: U32,
    /// Reserved.
    pub reserved: [u8; 4],
}

const _: () = {
    assert!(size_of::<CommonHeader>() == super::COMMON_HEADER_BYTES);
    assert!(offset_of!(CommonHeader, flags) == 1);
    assert!(offset_of!(CommonHeader, header_length) == 2);
    assert!(offset_of!(CommonHeader, data_offset) == 3);
    assert!(offset_of!(CommonHeader, length) == 4);

    assert!(size_of::<InitializeRequestPdu>() == super::INITIALIZE_BYTES);
    assert!(offset_of!(InitializeRequestPdu, format_version) == 8);
    assert!(offset_of!(InitializeRequestPdu, data_alignment) == 10);
    assert!(offset_of!(InitializeRequestPdu, digests) == 11);
    assert!(offset_of!(InitializeRequestPdu, max_ready_to_transfer) == 12);

    assert!(size_of::<InitializeResponsePdu>() == super::INITIALIZE_BYTES);
    assert!(offset_of!(InitializeResponsePdu, format_version) == 8);
    assert!(offset_of!(InitializeResponsePdu, data_alignment) == 10);
    assert!(offset_of!(InitializeResponsePdu, digests) == 11);
    assert!(offset_of!(InitializeResponsePdu, max_host_data) == 12);

    assert!(size_of::<TerminationPdu>() == super::TERMINATION_BYTES);
    assert!(offset_of!(TerminationPdu, status) == 8);
    assert!(offset_of!(TerminationPdu, information) == 10);

    assert!(size_of::<CapsuleCommandPdu>() == super::CAPSULE_COMMAND_BYTES);
    assert!(offset_of!(CapsuleCommandPdu, command) == 8);
    assert!(size_of::<CapsuleResponsePdu>() == super::CAPSULE_RESPONSE_BYTES);
    assert!(offset_of!(CapsuleResponsePdu, completion) == 8);

    assert!(size_of::<DataPdu>() == super::DATA_BYTES);
    assert!(offset_of!(DataPdu, command_id) == 8);
    assert!(offset_of!(DataPdu, transfer_tag) == 10);
    assert!(offset_of!(DataPdu, offset) == 12);
    assert!(offset_of!(DataPdu, length) == 16);

    assert!(size_of::<ReadyToTransferPdu>() == super::READY_TO_TRANSFER_BYTES);
    assert!(offset_of!(ReadyToTransferPdu, command_id) == 8);
    assert!(offset_of!(ReadyToTransferPdu, transfer_tag) == 10);
    assert!(offset_of!(ReadyToTransferPdu, offset) == 12);
    assert!(offset_of!(ReadyToTransferPdu, length) == 16);
};
