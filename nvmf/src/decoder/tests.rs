//! Tests of the decoder and, through it, of the builders.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::digest::digest_of;
use crate::pdu::*;
use proptest::prelude::*;
use sledge_nvme::Status;

const LIMITS: Limits = Limits { max_in_capsule: 8192, max_host_data: 16384 };
const PLAIN: Framing = Framing { header_digest: false, data_digest: false, alignment: 0 };
const DIGESTS: Framing = Framing { header_digest: true, data_digest: true, alignment: 0 };

/// An event that owns its data, with the runs of one PDU joined.
#[derive(Clone, Debug, PartialEq)]
enum Owned {
    Event(Event<'static>),
    Data(Vec<u8>),
    Error(ProtocolError),
}

fn ready(role: Role, framing: Framing) -> Decoder {
    let mut decoder = Decoder::new(role);
    decoder.initialized(framing, LIMITS);
    decoder
}

/// Feeds `stream` in pieces that end at `cuts`, and collects the events.
fn collect(decoder: &mut Decoder, stream: &[u8], cuts: &[usize]) -> Vec<Owned> {
    let mut events = Vec::new();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([stream.len()]) {
        let cut = cut.clamp(from, stream.len());
        let mut input = &stream[from..cut];
        from = cut;
        loop {
            match decoder.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Data(run))) => match events.last_mut() {
                    Some(Owned::Data(joined)) => joined.extend_from_slice(run),
                    _ => events.push(Owned::Data(run.to_vec())),
                },
                Ok(Some(event)) => events.push(Owned::Event(match event {
                    Event::Data(_) => unreachable!("matched above"),
                    Event::InitializeRequest(request) => {
                        decoder.initialized(DIGESTS, LIMITS);
                        Event::InitializeRequest(request)
                    }
                    Event::InitializeResponse(response) => Event::InitializeResponse(response),
                    Event::Command { command, in_capsule_length } => {
                        Event::Command { command, in_capsule_length }
                    }
                    Event::Completion(completion) => Event::Completion(completion),
                    Event::ReadyToTransfer(ready) => Event::ReadyToTransfer(ready),
                    Event::DataHeader(header) => Event::DataHeader(header),
                    Event::DataEnd(verdict) => Event::DataEnd(verdict),
                    Event::Termination(request) => Event::Termination(request),
                })),
                Err(error) => events.push(Owned::Error(error)),
            }
        }
        assert!(input.is_empty(), "none is only said with the input used up");
    }
    events
}

fn with_data(mut head: Vec<u8>, data: &[u8], framing: &Framing) -> Vec<u8> {
    head.extend_from_slice(data);
    if framing.data_digest && !data.is_empty() {
        head.extend_from_slice(&digest_of([data]).to_le_bytes());
    }
    head
}

fn command_pdu(cid: u16, data: &[u8], framing: &Framing) -> Vec<u8> {
    let mut out = vec![0xEE; MAX_ENCODED_BYTES];
    let command = Command::write(1, 77, 1).with_cid(cid);
    let length = encode_capsule_command(&mut out, &command, data.len() as u32, framing);
    out.truncate(length);
    with_data(out, data, framing)
}

fn data_pdu(header: DataHeader, data: &[u8], framing: &Framing) -> Vec<u8> {
    let mut out = vec![0xEE; MAX_ENCODED_BYTES];
    let length = encode_data_header(&mut out, &header, framing);
    out.truncate(length);
    with_data(out, data, framing)
}

fn host_data(data: &[u8]) -> DataHeader {
    DataHeader {
        kind: DataKind::HostToController,
        command_id: 5,
        transfer_tag: 9,
        offset: 4096,
        length: data.len() as u32,
        last: true,
        success: false,
    }
}

fn request() -> InitializeRequest {
    InitializeRequest { data_alignment: 3, header_digest: true, data_digest: true, max_ready_to_transfer: 7 }
}

fn initialize_pdu() -> Vec<u8> {
    let mut out = vec![0; MAX_ENCODED_BYTES];
    let length = encode_initialize_request(&mut out, &request());
    out.truncate(length);
    out
}

/// A stream that a target may see: every PDU a host sends, with and without data.
fn host_stream() -> (Vec<u8>, Vec<Owned>) {
    let data: Vec<u8> = (0..=255).cycle().take(700).collect();
    let mut stream = initialize_pdu();
    let mut events = vec![Owned::Event(Event::InitializeRequest(request()))];
    stream.extend(command_pdu(1, &[], &DIGESTS));
    let command = |cid, length| {
        let command = Command::write(1, 77, 1).with_cid(cid);
        Owned::Event(Event::Command { command, in_capsule_length: length })
    };
    events.push(command(1, 0));
    stream.extend(command_pdu(2, &data, &DIGESTS));
    events.extend([command(2, 700), Owned::Data(data.clone())]);
    events.push(Owned::Event(Event::DataEnd(DataDigest::Correct)));
    stream.extend(data_pdu(host_data(&data[..512]), &data[..512], &DIGESTS));
    events.push(Owned::Event(Event::DataHeader(host_data(&data[..512]))));
    events.push(Owned::Data(data[..512].to_vec()));
    events.push(Owned::Event(Event::DataEnd(DataDigest::Correct)));
    stream.extend(data_pdu(host_data(&[]), &[], &DIGESTS));
    events.push(Owned::Event(Event::DataHeader(host_data(&[]))));
    events.push(Owned::Event(Event::DataEnd(DataDigest::Absent)));
    let mut out = vec![0; MAX_ENCODED_BYTES];
    let error = ProtocolError::new(FatalError::ReadyToTransferLimit, 3, &[9; 24]);
    let length = encode_termination(&mut out, true, &error);
    stream.extend_from_slice(&out[..length]);
    events.push(Owned::Event(Event::Termination(Termination {
        status: Some(FatalError::ReadyToTransferLimit),
        raw_status: 5,
        information: 3,
    })));
    (stream, events)
}

// Without it an event could depend on how TCP cuts the stream.
#[test]
fn every_split_position_gives_the_same_events() {
    let (stream, expected) = host_stream();
    for cut in 0..=stream.len() {
        let mut decoder = Decoder::new(Role::Target);
        assert_eq!(collect(&mut decoder, &stream, &[cut]), expected, "cut at {cut}");
        assert!(decoder.is_closed());
    }
}

proptest! {
    // Without it more than one cut could confuse the decoder.
    #[test]
    fn random_pieces_give_the_same_events(mut cuts in proptest::collection::vec(0usize..2200, 0..40)) {
        cuts.sort_unstable();
        let (stream, expected) = host_stream();
        prop_assert_eq!(collect(&mut Decoder::new(Role::Target), &stream, &cuts), expected);
    }

    // Without it an alignment or digest combination could misplace data.
    #[test]
    fn framings_round_trip(
        header_digest: bool, data_digest: bool, alignment in 0u8..=31,
        data in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..500,
    ) {
        let framing = Framing { header_digest, data_digest, alignment };
        let header = DataHeader {
            kind: DataKind::ControllerToHost, command_id: 0xBEEF, transfer_tag: 0, offset: 12,
            length: data.len() as u32, last: true, success: true,
        };
        let stream = data_pdu(header, &data, &framing);
        prop_assert_eq!(stream.len(), framing.pdu_length(DATA_BYTES, data.len()));
        let events = collect(&mut ready(Role::Host, framing), &stream, &[cut]);
        prop_assert_eq!(&events[0], &Owned::Event(Event::DataHeader(header)));
        let verdict = if data_digest && !data.is_empty() { DataDigest::Correct } else { DataDigest::Absent };
        prop_assert_eq!(events.last().unwrap(), &Owned::Event(Event::DataEnd(verdict)));
        if !data.is_empty() {
            prop_assert_eq!(&events[1], &Owned::Data(data));
        }
    }

    // Without it bytes from outside could panic the decoder, or go on after an error.
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), host: bool, digests: bool) {
        let role = if host { Role::Host } else { Role::Target };
        let mut decoder = ready(role, if digests { DIGESTS } else { PLAIN });
        let events = collect(&mut decoder, &bytes, &[]);
        let errors = events.iter().filter(|event| matches!(event, Owned::Error(_))).count();
        prop_assert!(errors <= 1);
        prop_assert_eq!(errors == 1 && decoder.is_closed(), errors == 1);
    }
}

// Without it a PDU that only a host receives could be built or read wrongly.
#[test]
fn host_role_round_trips() {
    for framing in [PLAIN, DIGESTS] {
        let mut decoder = Decoder::new(Role::Host);
        let mut out = vec![0; MAX_ENCODED_BYTES];
        let response = InitializeResponse {
            data_alignment: 1,
            header_digest: framing.header_digest,
            data_digest: framing.data_digest,
            max_host_data: 131_072,
        };
        let length = encode_initialize_response(&mut out, &response);
        let mut input = &out[..length];
        assert_eq!(decoder.next(&mut input), Ok(Some(Event::InitializeResponse(response))));
        assert_eq!(decoder.next(&mut input), Ok(None));
        decoder.initialized(framing, Limits::NONE);

        let completion = Completion::new(3, Status::INVALID_FIELD).with_sqhd(4);
        let mut stream = vec![0; MAX_ENCODED_BYTES];
        let length = encode_capsule_response(&mut stream, &completion, &framing);
        stream.truncate(length);
        let transfer = ReadyToTransfer { command_id: 8, transfer_tag: 2, offset: 8192, length: 4096 };
        let length = encode_ready_to_transfer(&mut out, &transfer, &framing);
        stream.extend_from_slice(&out[..length]);
        let error = ProtocolError::new(FatalError::DataLimit, 0, &[]);
        let length = encode_termination(&mut out, false, &error);
        stream.extend_from_slice(&out[..length]);
        let termination = Termination { status: Some(FatalError::DataLimit), raw_status: 5, information: 0 };
        assert_eq!(
            collect(&mut decoder, &stream, &[]),
            [
                Owned::Event(Event::Completion(completion)),
                Owned::Event(Event::ReadyToTransfer(transfer)),
                Owned::Event(Event::Termination(termination)),
            ]
        );
    }
}

// Without it a read's data could not be received straight into its buffer, or its digest would be wrong then.
#[test]
fn data_received_by_the_caller_counts() {
    let data = [7u8; 1000];
    let stream = data_pdu(host_data(&data), &data, &DIGESTS);
    let mut decoder = ready(Role::Target, DIGESTS);
    let start = DIGESTS.data_offset(DATA_BYTES);
    let mut input = &stream[..start + 100];
    while decoder.next(&mut input).unwrap().is_some() {}
    assert_eq!(decoder.data_remaining(), 900);
    decoder.data_received(&stream[start + 100..start + 600]);
    assert_eq!(decoder.data_remaining(), 400);
    // More than the data: the digest is not swallowed.
    decoder.data_received(&stream[start + 600..]);
    assert_eq!(decoder.data_remaining(), 0);
    let mut input = &stream[start + 1000..];
    assert_eq!(decoder.next(&mut input), Ok(Some(Event::DataEnd(DataDigest::Correct))));
}

// Without it a corrupted payload could be taken for good, or kill the whole connection.
#[test]
fn wrong_data_digest_is_reported_and_not_fatal() {
    let data = [1u8, 2, 3, 4];
    let mut stream = command_pdu(1, &data, &DIGESTS);
    let at = stream.len() - DIGEST_BYTES - 1;
    stream[at] ^= 0x80;
    stream.extend(command_pdu(2, &[], &DIGESTS));
    let events = collect(&mut ready(Role::Target, DIGESTS), &stream, &[]);
    assert!(matches!(events[2], Owned::Event(Event::DataEnd(DataDigest::Mismatch { .. }))));
    assert!(matches!(events[3], Owned::Event(Event::Command { in_capsule_length: 0, .. })));
}

/// The error that `stream` ends in, which must be the same for every cut.
fn error_of(decoder: impl Fn() -> Decoder, stream: &[u8]) -> ProtocolError {
    let whole = collect(&mut decoder(), stream, &[]);
    for cut in 0..stream.len().min(160) {
        let mut closed = decoder();
        assert_eq!(collect(&mut closed, stream, &[cut]), whole);
        assert!(closed.is_closed());
    }
    match whole.last() {
        Some(Owned::Error(error)) => error.clone(),
        other => panic!("no error but {other:?}"),
    }
}

fn changed(mut stream: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    stream[at..at + bytes.len()].copy_from_slice(bytes);
    stream
}

// Without it a malformed PDU could pass, or the host be told a wrong reason (FES) or place (FEI).
#[test]
fn malformed_pdus_have_their_fes_and_fei() {
    use FatalError::*;
    let data = [9u8; 64];
    let plain = |stream: Vec<u8>| error_of(|| ready(Role::Target, PLAIN), &stream);
    let digests = |stream: Vec<u8>| error_of(|| ready(Role::Target, DIGESTS), &stream);
    let fresh = |stream: Vec<u8>| error_of(|| Decoder::new(Role::Target), &stream);
    let host = |stream: Vec<u8>| error_of(|| ready(Role::Host, PLAIN), &stream);
    let fresh_host = |stream: Vec<u8>| error_of(|| Decoder::new(Role::Host), &stream);
    let capsule = || command_pdu(1, &data, &PLAIN);
    let h2c = || data_pdu(host_data(&data), &data, &PLAIN);
    let c2h = |last, success| {
        let header = DataHeader { kind: DataKind::ControllerToHost, last, success, ..host_data(&data) };
        data_pdu(header, &data, &PLAIN)
    };
    let mut out = vec![0; MAX_ENCODED_BYTES];
    let response = InitializeResponse {
        data_alignment: 0,
        header_digest: false,
        data_digest: false,
        max_host_data: 4096,
    };
    let length = encode_initialize_response(&mut out, &response);
    let ic_resp = || out[..length].to_vec();
    let mut r2t = vec![0; READY_TO_TRANSFER_BYTES];
    let transfer = ReadyToTransfer { command_id: 1, transfer_tag: 1, offset: 0, length: 0 };
    encode_ready_to_transfer(&mut r2t, &transfer, &PLAIN);
    let mut termination = vec![0; TERMINATION_BYTES];
    encode_termination(&mut termination, true, &ProtocolError::new(Sequence, 0, &[]));

    let cases: Vec<(&str, ProtocolError, FatalError, u32, usize)> = vec![
        ("reserved type 08h", plain(changed(capsule(), 0, &[8])), InvalidHeaderField, 0, 8),
        ("type of the other direction", plain(changed(capsule(), 0, &[5])), InvalidHeaderField, 0, 8),
        ("HLEN", plain(changed(capsule(), 2, &[71])), InvalidHeaderField, 2, 8),
        ("PLEN below the header", plain(changed(capsule(), 4, &[71, 0])), InvalidHeaderField, 4, 8),
        (
            "PLEN that ends before data",
            plain(changed(capsule(), 4, &[72, 0, 0, 0])),
            InvalidHeaderField,
            0,
            8,
        ),
        ("PDO inside the header", plain(changed(capsule(), 3, &[68])), InvalidHeaderField, 3, 8),
        ("PDO not aligned", plain(changed(capsule(), 3, &[74])), InvalidHeaderField, 3, 8),
        ("PDO behind the PDU", plain(changed(capsule(), 3, &[252])), InvalidHeaderField, 4, 8),
        ("header digest flag not agreed", plain(changed(capsule(), 1, &[1])), InvalidHeaderField, 1, 8),
        ("data digest flag not agreed", plain(changed(capsule(), 1, &[2])), InvalidHeaderField, 1, 8),
        ("header digest flag missing", digests(changed(capsule(), 1, &[2])), InvalidHeaderField, 1, 8),
        (
            "data digest flag missing",
            digests(changed(command_pdu(1, &data, &DIGESTS), 1, &[1])),
            InvalidHeaderField,
            1,
            8,
        ),
        ("too much in the capsule", plain(command_pdu(1, &[0; 8196], &PLAIN)), DataLimit, 0, 8),
        ("too much H2CData", plain(data_pdu(host_data(&[0; 16388]), &[0; 16388], &PLAIN)), DataLimit, 0, 8),
        ("DATAL is not what PLEN says", plain(changed(h2c(), 16, &[60])), InvalidHeaderField, 16, 24),
        ("ICReq again", plain(initialize_pdu()), Sequence, 0, 8),
        ("command before ICReq", fresh(capsule()), Sequence, 0, 8),
        ("garbage before ICReq", fresh(b"GET / HTTP/1.1\r\n".to_vec()), InvalidHeaderField, 0, 8),
        ("ICReq PLEN", fresh(changed(initialize_pdu(), 4, &[129])), InvalidHeaderField, 4, 8),
        ("ICReq PFV", fresh(changed(initialize_pdu(), 8, &[1])), UnsupportedParameter, 8, 128),
        ("ICReq HPDA", fresh(changed(initialize_pdu(), 10, &[32])), UnsupportedParameter, 10, 128),
        ("H2CTermReq too long", plain(changed(termination, 4, &[153])), InvalidHeaderField, 4, 8),
        ("ICResp again", host(ic_resp()), Sequence, 0, 8),
        ("data before ICResp", fresh_host(c2h(true, true)), Sequence, 0, 8),
        ("ICResp PFV", fresh_host(changed(ic_resp(), 9, &[1])), UnsupportedParameter, 8, 128),
        ("ICResp CPDA", fresh_host(changed(ic_resp(), 10, &[40])), UnsupportedParameter, 10, 128),
        ("ICResp MAXH2CDATA", fresh_host(changed(ic_resp(), 12, &[0, 8])), UnsupportedParameter, 12, 128),
        ("SUCCESS without LAST_PDU", host(changed(c2h(true, true), 1, &[8])), InvalidHeaderField, 1, 8),
        ("R2TL of zero", host(r2t), InvalidHeaderField, 16, 24),
    ];
    for (name, error, status, information, header) in cases {
        // PLEN that ends before the data: the rest is read as the next PDU, whose type is garbage.
        assert_eq!((error.status, error.information), (status, information), "{name}");
        assert_eq!(error.header.len(), header, "{name}");
    }
}

// Without it a corrupted header could be believed.
#[test]
fn wrong_header_digest_is_fatal_and_names_what_came() {
    let mut stream = command_pdu(1, &[], &DIGESTS);
    stream[72..76].copy_from_slice(&0x1234_5678u32.to_le_bytes());
    let error = error_of(|| ready(Role::Target, DIGESTS), &stream);
    assert_eq!((error.status, error.information), (FatalError::HeaderDigest, 0x1234_5678));
    assert_eq!(error.header.len(), 72);
    assert!(error.answerable());
}

// Without it two ends could answer each other's termination requests for ever.
#[test]
fn a_malformed_termination_is_not_answered() {
    let mut pdu = vec![0; MAX_ENCODED_BYTES];
    let length = encode_termination(&mut pdu, true, &ProtocolError::new(FatalError::Sequence, 0, &[]));
    pdu.truncate(length);
    let error = error_of(|| ready(Role::Target, PLAIN), &changed(pdu, 2, &[23]));
    assert!(!error.answerable());
}

// Without it a host that sends ahead of ICResp would be decoded with the wrong framing.
#[test]
fn nothing_is_decoded_between_icreq_and_its_answer() {
    let mut stream = initialize_pdu();
    stream.extend(command_pdu(1, &[], &DIGESTS));
    let mut decoder = Decoder::new(Role::Target);
    let mut input = &stream[..];
    assert!(matches!(decoder.next(&mut input), Ok(Some(Event::InitializeRequest(_)))));
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert_eq!(input.len(), 76);
    decoder.initialized(DIGESTS, LIMITS);
    assert!(matches!(decoder.next(&mut input), Ok(Some(Event::Command { .. }))));
}
