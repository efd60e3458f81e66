//! PDUs: building and decoding, as both sides do it.

use super::{Case, Failure};
use crate::measure::sections;
use sledge_nvme::{Command, Completion, Status};
use sledge_nvmf::decoder::{Decoder, Limits, Role};
use sledge_nvmf::digest::digest;
use sledge_nvmf::pdu::{
    DataHeader, DataKind, Framing, InitializeRequest, InitializeResponse, MAX_ENCODED_BYTES, ReadyToTransfer,
    encode_capsule_command, encode_capsule_response, encode_data_digest, encode_data_header,
    encode_initialize_request, encode_initialize_response, encode_ready_to_transfer,
};
use std::hint::black_box;

/// PDUs, or pairs of them, in a section.
const COUNT: u64 = 512;
/// Data of one PDU.
const DATA: usize = 4096;
/// Bytes given to the decoder at once, as a connection's scratch memory gives them.
const RECEIVED: usize = 256 * 1024;

const PLAIN: Framing = Framing { header_digest: false, data_digest: false, alignment: 0 };
const DIGESTS: Framing = Framing { header_digest: true, data_digest: true, alignment: 0 };

pub fn cases() -> [Case; 11] {
    let case = |name, run| Case { name, operations: COUNT, run };
    [
        case("pdu/build-command", || build(command)),
        case("pdu/build-command-digests", || build(command_digests)),
        case("pdu/build-data-header", || build(data_header)),
        case("pdu/build-response", || build(response)),
        case("pdu/build-r2t", || build(ready_to_transfer)),
        case("pdu/decode-command", || decode_commands(0, PLAIN)),
        case("pdu/decode-command-4k", || decode_commands(DATA, PLAIN)),
        case("pdu/decode-command-4k-digests", || decode_commands(DATA, DIGESTS)),
        case("pdu/decode-data-4k-and-response", || decode_answers(PLAIN)),
        case("pdu/decode-data-4k-and-response-digests", || decode_answers(DIGESTS)),
        case("pdu/decode-r2t", decode_transfers),
    ]
}

fn build(one: fn(&mut [u8], u16) -> usize) -> Result<(), Failure> {
    let mut out = [0; MAX_ENCODED_BYTES];
    sections(|| {
        for cid in 0..COUNT as u16 {
            black_box(one(black_box(&mut out), black_box(cid)));
        }
    });
    Ok(())
}

fn command(out: &mut [u8], cid: u16) -> usize {
    encode_capsule_command(out, &read_of(cid), 0, &PLAIN)
}

fn command_digests(out: &mut [u8], cid: u16) -> usize {
    encode_capsule_command(out, &read_of(cid), 0, &DIGESTS)
}

fn data_header(out: &mut [u8], cid: u16) -> usize {
    encode_data_header(out, &answer_of(cid), &PLAIN)
}

fn response(out: &mut [u8], cid: u16) -> usize {
    encode_capsule_response(out, &Completion::new(cid, Status::SUCCESS), &PLAIN)
}

fn ready_to_transfer(out: &mut [u8], cid: u16) -> usize {
    encode_ready_to_transfer(out, &transfer_of(cid), &PLAIN)
}

fn read_of(cid: u16) -> Command {
    Command::read(1, u64::from(cid) * 8, 8).with_cid(cid)
}

fn answer_of(cid: u16) -> DataHeader {
    DataHeader {
        kind: DataKind::ControllerToHost,
        command_id: cid,
        transfer_tag: 0,
        offset: 0,
        length: DATA as u32,
        last: true,
        success: false,
    }
}

fn transfer_of(cid: u16) -> ReadyToTransfer {
    ReadyToTransfer { command_id: cid, transfer_tag: cid, offset: 0, length: DATA as u32 }
}

/// Appends what `encode` builds.
fn append(stream: &mut Vec<u8>, encode: impl FnOnce(&mut [u8]) -> usize) {
    let mut out = [0; MAX_ENCODED_BYTES];
    let length = encode(&mut out);
    stream.extend_from_slice(&out[..length]);
}

/// Appends a PDU's data, with its digest if there is one.
fn append_data(stream: &mut Vec<u8>, framing: &Framing) {
    let data: Vec<u8> = (0..DATA).map(|at| at as u8).collect();
    stream.extend_from_slice(&data);
    if framing.data_digest {
        append(stream, |out| encode_data_digest(out, digest(&data)));
    }
}

fn decode_commands(bytes: usize, framing: Framing) -> Result<(), Failure> {
    let request = InitializeRequest {
        data_alignment: 0,
        header_digest: framing.header_digest,
        data_digest: framing.data_digest,
        max_ready_to_transfer: 0,
    };
    let (mut first, mut stream) = (Vec::new(), Vec::new());
    append(&mut first, |out| encode_initialize_request(out, &request));
    for cid in 0..COUNT as u16 {
        let command = if bytes == 0 { read_of(cid) } else { Command::write(1, 0, 8).with_cid(cid) };
        append(&mut stream, |out| encode_capsule_command(out, &command, bytes as u32, &framing));
        if bytes > 0 {
            append_data(&mut stream, &framing);
        }
    }
    decode(Role::Target, &first, &stream, framing)
}

fn decode_answers(framing: Framing) -> Result<(), Failure> {
    let mut stream = Vec::new();
    for cid in 0..COUNT as u16 {
        append(&mut stream, |out| encode_data_header(out, &answer_of(cid), &framing));
        append_data(&mut stream, &framing);
        let completion = Completion::new(cid, Status::SUCCESS);
        append(&mut stream, |out| encode_capsule_response(out, &completion, &framing));
    }
    decode(Role::Host, &initialize_response(framing), &stream, framing)
}

fn decode_transfers() -> Result<(), Failure> {
    let mut stream = Vec::new();
    for cid in 0..COUNT as u16 {
        append(&mut stream, |out| encode_ready_to_transfer(out, &transfer_of(cid), &PLAIN));
    }
    decode(Role::Host, &initialize_response(PLAIN), &stream, PLAIN)
}

fn initialize_response(framing: Framing) -> Vec<u8> {
    let response = InitializeResponse {
        data_alignment: 0,
        header_digest: framing.header_digest,
        data_digest: framing.data_digest,
        max_host_data: 128 * 1024,
    };
    let mut first = Vec::new();
    append(&mut first, |out| encode_initialize_response(out, &response));
    first
}

/// Decodes a stream of whole PDUs in pieces of one receive.
fn decode(role: Role, first: &[u8], stream: &[u8], framing: Framing) -> Result<(), Failure> {
    let mut decoder = Decoder::new(role);
    let mut input = first;
    decoder.next(&mut input).map_err(|error| error.to_string())?;
    decoder.initialized(framing, Limits::NONE);
    let mut failed = None;
    sections(|| {
        for piece in black_box(stream).chunks(RECEIVED) {
            let mut input = piece;
            loop {
                match decoder.next(&mut input) {
                    Ok(Some(event)) => {
                        black_box(event);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        failed = Some(error.to_string());
                        break;
                    }
                }
            }
        }
    });
    failed.map_or(Ok(()), |error| Err(error.into()))
}
