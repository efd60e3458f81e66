//! The short way for headers that begin like one before.
//!
//! On a busy connection nearly every header begins with the same eight bytes: type, flags and lengths. Whether they are
//! right depends on nothing else but what initialization agreed on, so they are judged once and remembered. Called by
//! the decoder only. Invariant: what comes out here is what the long way would have yielded; whatever is not plain (a
//! header digest, a header that is cut, a length that contradicts itself) takes the long way.

use super::{DataDigest, Decoder, Event, State, header};
use crate::digest::{DIGEST_BYTES, RunningDigest};
use crate::pdu::{
    CAPSULE_COMMAND_BYTES, CAPSULE_RESPONSE_BYTES, CapsuleCommandPdu, CapsuleResponsePdu, DATA_BYTES,
    DataPdu, FLAG_DATA_DIGEST, PduType, READY_TO_TRANSFER_BYTES, ReadyToTransferPdu,
};
use zerocopy::FromBytes;

const COMMAND: u8 = PduType::CapsuleCommand as u8;
const RESPONSE: u8 = PduType::CapsuleResponse as u8;
const HOST_DATA: u8 = PduType::HostData as u8;
const CONTROLLER_DATA: u8 = PduType::ControllerData as u8;
const READY: u8 = PduType::ReadyToTransfer as u8;

/// The first eight bytes of a header, as one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Start(u64);

impl Start {
    pub(super) fn of(bytes: &[u8; 8]) -> Self {
        Self(u64::from_le_bytes(*bytes))
    }

    const fn pdu_type(self) -> u8 {
        self.0 as u8
    }

    const fn flags(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// PDO.
    const fn data_offset(self) -> usize {
        (self.0 >> 24) as u8 as usize
    }

    /// PLEN.
    const fn length(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// Data bytes of a PDU with data.
    const fn data_bytes(self) -> usize {
        let digest = if self.flags() & FLAG_DATA_DIGEST != 0 { DIGEST_BYTES } else { 0 };
        self.length() - digest - self.data_offset()
    }

    /// Which memory it has: one for each kind of PDU that an end receives while I/O runs.
    const fn place(self) -> usize {
        let odd = (self.0 >> 1 | self.0 >> 3) & 1;
        odd as usize | ((self.data_offset() != 0) as usize) << 1
    }
}

/// The starts that were judged to be right, one of each kind. The default is that of no PDU with a short way.
#[derive(Debug, Default)]
pub(super) struct Starts([Start; 4]);

impl Starts {
    /// Keeps the start of a header that was found right, and that no digest follows.
    pub(super) fn remember(&mut self, start: Start, data_bytes: usize) {
        let has_data = data_bytes > 0;
        let short = match start.pdu_type() {
            // A PDO without data means nothing, and is legal.
            COMMAND | RESPONSE | READY => has_data == (start.data_offset() > 0),
            // One without data is legal, and rare.
            HOST_DATA | CONTROLLER_DATA => has_data,
            _ => false,
        };
        if short {
            self.0[start.place()] = start;
        }
    }
}

impl Decoder {
    /// The next event, if it comes by the short way. None says nothing, and leaves all as it was.
    #[inline(always)]
    pub(super) fn usual<'a>(&mut self, input: &mut &'a [u8]) -> Option<Event<'a>> {
        match self.state {
            State::Header if self.carried == 0 => self.usual_header(input),
            State::Data { left } if !self.with_digest => {
                if left == 0 {
                    self.state = State::Header;
                    return Some(Event::DataEnd(DataDigest::Absent));
                }
                let (run, rest) = input.split_at_checked(left)?;
                *input = rest;
                self.state = State::Data { left: 0 };
                Some(Event::Data(run))
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn usual_header<'a>(&mut self, input: &mut &'a [u8]) -> Option<Event<'a>> {
        let start = Start::of(input.first_chunk()?);
        if self.starts.0[start.place()] != start {
            return None;
        }
        match start.pdu_type() {
            COMMAND => {
                let header = self.keep::<CAPSULE_COMMAND_BYTES>(input)?;
                let command = CapsuleCommandPdu::read_from_bytes(header).ok()?.command;
                let mut in_capsule_length = 0;
                if start.data_offset() > 0 {
                    self.data_follows(start, CAPSULE_COMMAND_BYTES);
                    in_capsule_length = start.data_bytes() as u32;
                }
                Some(Event::Command { command, in_capsule_length })
            }
            RESPONSE => {
                let header = self.keep::<CAPSULE_RESPONSE_BYTES>(input)?;
                Some(Event::Completion(CapsuleResponsePdu::read_from_bytes(header).ok()?.completion))
            }
            HOST_DATA | CONTROLLER_DATA => {
                let pdu = DataPdu::ref_from_bytes(input.get(..DATA_BYTES)?).ok()?;
                if pdu.length.get() as usize != start.data_bytes() {
                    return None;
                }
                let header = header::data_header(pdu, start.pdu_type() == CONTROLLER_DATA, start.flags());
                self.keep::<DATA_BYTES>(input)?;
                self.data_follows(start, DATA_BYTES);
                Some(Event::DataHeader(header))
            }
            READY => {
                let pdu = ReadyToTransferPdu::ref_from_bytes(input.get(..READY_TO_TRANSFER_BYTES)?).ok()?;
                let ready = header::ready_to_transfer(pdu)?;
                self.keep::<READY_TO_TRANSFER_BYTES>(input)?;
                Some(Event::ReadyToTransfer(ready))
            }
            // What nothing has been remembered of.
            _ => None,
        }
    }

    /// Takes a whole header off the input and keeps a copy as the current one.
    #[inline]
    fn keep<'a, const BYTES: usize>(&mut self, input: &mut &'a [u8]) -> Option<&'a [u8; BYTES]> {
        let (header, rest) = input.split_first_chunk::<BYTES>()?;
        *input = rest;
        self.carry[..BYTES].copy_from_slice(header);
        self.current_bytes = BYTES;
        Some(header)
    }

    #[inline]
    fn data_follows(&mut self, start: Start, header_bytes: usize) {
        self.with_digest = start.flags() & FLAG_DATA_DIGEST != 0;
        if self.with_digest {
            self.running = RunningDigest::new();
        }
        let left = start.data_bytes();
        self.data_after_padding = left;
        let padding = start.data_offset() - header_bytes;
        self.state = if padding > 0 { State::Padding { left: padding } } else { State::Data { left } };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::decoder::{Limits, Role};
    use crate::digest::digest_of;
    use crate::pdu::{
        DataHeader, DataKind, Framing, MAX_ENCODED_BYTES, ProtocolError, ReadyToTransfer,
        encode_capsule_command, encode_capsule_response, encode_data_header, encode_ready_to_transfer,
    };
    use proptest::prelude::*;
    use sledge_nvme::{Command, Completion, Status};

    const LIMITS: Limits = Limits { max_in_capsule: 1024, max_host_data: 1024 };

    fn ready(role: Role, framing: Framing) -> Decoder {
        let mut decoder = Decoder::new(role);
        decoder.initialized(framing, LIMITS);
        decoder
    }

    /// A PDU of an end's usual kinds.
    fn pdu(role: Role, with_data: bool, cid: u16, data: &[u8], framing: &Framing) -> Vec<u8> {
        let mut out = vec![0; MAX_ENCODED_BYTES];
        let mut data = data;
        let length = match (role, with_data) {
            (Role::Host, false) if cid.is_multiple_of(3) => {
                let length = data.len() as u32;
                data = &[];
                let ready = ReadyToTransfer { command_id: cid, transfer_tag: 7, offset: 1, length };
                encode_ready_to_transfer(&mut out, &ready, framing)
            }
            (Role::Host, false) => {
                data = &[];
                encode_capsule_response(&mut out, &Completion::new(cid, Status::SUCCESS), framing)
            }
            (Role::Target, false) => {
                let command = Command::write(1, u64::from(cid), 1).with_cid(cid);
                encode_capsule_command(&mut out, &command, data.len() as u32, framing)
            }
            (_, true) => {
                let host = role == Role::Target;
                let header = DataHeader {
                    kind: if host { DataKind::HostToController } else { DataKind::ControllerToHost },
                    command_id: cid,
                    transfer_tag: cid,
                    offset: 512,
                    length: data.len() as u32,
                    last: cid.is_multiple_of(2),
                    success: !host && cid.is_multiple_of(4),
                };
                encode_data_header(&mut out, &header, framing)
            }
        };
        out.truncate(length);
        out.extend_from_slice(data);
        if framing.data_digest && !data.is_empty() {
            out.extend_from_slice(&digest_of([data]).to_le_bytes());
        }
        out
    }

    /// Events as text, with the runs of one PDU's data counted together, up to the first error.
    fn events(decoder: &mut Decoder, stream: &[u8], piece: usize) -> (Vec<String>, Option<ProtocolError>) {
        let (mut seen, mut data) = (Vec::new(), Vec::new());
        for piece in stream.chunks(piece) {
            let mut input = piece;
            loop {
                match decoder.next(&mut input) {
                    Ok(None) => break,
                    Ok(Some(Event::Data(run))) => data.extend_from_slice(run),
                    Ok(Some(event)) => {
                        let header = decoder.current_header().to_vec();
                        seen.push(format!("{:?} {event:?} {header:?}", std::mem::take(&mut data)));
                    }
                    Err(error) => return (seen, Some(error)),
                }
            }
        }
        (seen, None)
    }

    /// Bytes that mean something in a header's lengths, and any.
    fn byte() -> impl Strategy<Value = u8> {
        const LENGTHS: [u8; 4] = [0, DATA_BYTES as u8, CAPSULE_COMMAND_BYTES as u8, DIGEST_BYTES as u8];
        prop_oneof![any::<u8>(), prop::sample::select(&LENGTHS[..])]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        // Without this a header that begins like one before could be taken for something else than what it is, or pass
        // though it is wrong: in single bytes all headers take the long way.
        #[test]
        fn both_ways_lead_to_the_same_events(
            host: bool,
            header_digest: bool,
            data_digest: bool,
            alignment in 0u8..3,
            // Few lengths, so that most headers have come before.
            pdus in prop::collection::vec((any::<bool>(), any::<u16>(), 0usize..4), 1..24),
            changed in prop::collection::vec((any::<prop::sample::Index>(), 0usize..24, byte()), 0..6),
        ) {
            let role = if host { Role::Host } else { Role::Target };
            let framing = Framing { header_digest, data_digest, alignment };
            let data = [0x5A; 1024];
            let (mut stream, mut starts) = (Vec::new(), Vec::new());
            for (with_data, cid, size) in pdus {
                starts.push(stream.len());
                let bytes = [0, if with_data { 4 } else { 0 }, 512, 1024][size];
                stream.extend(pdu(role, with_data, cid, &data[..bytes], &framing));
            }
            for (pdu, at, value) in changed {
                stream[starts[pdu.index(starts.len())] + at] = value;
            }
            let long = events(&mut ready(role, framing), &stream, 1);
            let short = events(&mut ready(role, framing), &stream, usize::MAX);
            prop_assert_eq!(long, short);
        }
    }

    // Without this a PDU that announces data where its length leaves room for none would pass, and the rest of the stream
    // be taken for padding.
    #[test]
    fn data_pdus_without_data_take_the_long_way() {
        for (role, with_digest) in [(Role::Host, false), (Role::Host, true), (Role::Target, false)] {
            let framing = Framing { data_digest: with_digest, ..Framing::default() };
            let mut empty = pdu(role, true, 0, &[], &framing);
            empty.truncate(DATA_BYTES);
            let start = [empty[0], empty[1], DATA_BYTES as u8, 0, DATA_BYTES as u8, 0, 0, 0];
            empty[..8].copy_from_slice(&start);
            for length in [0, 1, DATA_BYTES - 4, DATA_BYTES, DATA_BYTES + 4] {
                let mut second = empty.clone();
                second[16..20].copy_from_slice(&(length as u32).to_le_bytes());
                let stream = [&empty[..], &second[..], &empty[..]].concat();
                let long = events(&mut ready(role, framing), &stream, 1);
                assert_eq!(long.1.is_some(), length > 0, "{role:?} {length}");
                assert_eq!(long, events(&mut ready(role, framing), &stream, usize::MAX), "{role:?} {length}");
            }
        }
    }

    // Without this a host could go on to send more data in a capsule than its queue allows.
    #[test]
    fn what_was_right_is_forgotten_with_a_new_limit() {
        let framing = Framing::default();
        let mut decoder = ready(Role::Target, framing);
        let capsule = pdu(Role::Target, false, 1, &[0; 1024], &framing);
        let twice = [&capsule[..], &capsule[..]].concat();
        assert_eq!(events(&mut decoder, &twice, usize::MAX).1, None);
        decoder.limit_in_capsule(512);
        assert!(events(&mut decoder, &capsule, usize::MAX).1.is_some());
    }
}
