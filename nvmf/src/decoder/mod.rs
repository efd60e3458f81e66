//! Bytes of a connection in, PDUs out: the reading direction of NVMe/TCP, without I/O.
//!
//! Owns where a connection is in its byte stream: the piece of a header that is still incomplete, how much data of the
//! current PDU is to come, the running data digest. Invariants: the events are the same however the stream is cut into
//! receives; nothing is allocated while the peer behaves; at most one header (132 bytes) is kept between calls; a PDU's
//! data is never copied. After an error or a termination request the decoder yields nothing more.
//!
//! The target's connections use it as [`Role::Target`], the host's queue pairs as [`Role::Host`]. A caller receives
//! into scratch memory and calls [`Decoder::next`] until it yields none; when [`Decoder::data_remaining`] is not zero
//! then, it may receive the rest of the data straight into the command's own memory and say so with
//! [`Decoder::data_received`].

mod header;
#[cfg(test)]
mod tests;
mod usual;

use crate::digest::{DIGEST_BYTES, RunningDigest, digest};
use crate::pdu::{
    COMMON_HEADER_BYTES, CapsuleCommandPdu, CapsuleResponsePdu, DataHeader, Framing, InitializeRequest,
    InitializeResponse, ProtocolError, ReadyToTransfer, Termination,
};
use sledge_nvme::{Command, Completion};
use usual::{Start, Starts};

/// Header of a CapsuleCmd.
const COMMAND_BYTES: usize = size_of::<CapsuleCommandPdu>();
/// Header of a CapsuleResp, and of data PDUs and R2Ts.
const RESPONSE_BYTES: usize = size_of::<CapsuleResponsePdu>();
/// Room for the longest header (128 bytes) with its digest.
const CARRY_BYTES: usize = 132;

/// Which end of the connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A controller: receives ICReq, CapsuleCmd, H2CData, H2CTermReq.
    Target,
    /// A host: receives ICResp, CapsuleResp, C2HData, R2T, C2HTermReq.
    Host,
}

/// What may be received after initialization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of in-capsule data in one CapsuleCmd (target).
    pub max_in_capsule: u32,
    /// Most bytes of data in one H2CData: the MAXH2CDATA that was offered (target).
    pub max_host_data: u32,
}

impl Limits {
    /// No limits: what a host uses, whose commands bound what it may receive.
    pub const NONE: Self = Self { max_in_capsule: u32::MAX, max_host_data: u32::MAX };
}

/// The verdict on a PDU's data, after all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataDigest {
    /// The PDU carried no data digest.
    Absent,
    /// The digest is right.
    Correct,
    /// The digest is wrong. Not fatal to the connection: the command ends with Transient Transport Error.
    Mismatch {
        /// What the PDU said.
        received: u32,
        /// What its data has.
        computed: u32,
    },
}

/// Something that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// ICReq. Answer it, then call [`Decoder::initialized`]; nothing more is decoded before.
    InitializeRequest(InitializeRequest),
    /// ICResp. Judge it, then call [`Decoder::initialized`]; nothing more is decoded before.
    InitializeResponse(InitializeResponse),
    /// CapsuleCmd. When the length is not zero, [`Event::Data`] and [`Event::DataEnd`] follow.
    Command {
        /// The submission queue entry.
        command: Command,
        /// Bytes of in-capsule data that follow.
        in_capsule_length: u32,
    },
    /// CapsuleResp.
    Completion(Completion),
    /// R2T.
    ReadyToTransfer(ReadyToTransfer),
    /// H2CData or C2HData starts; its data and always [`Event::DataEnd`] follow.
    DataHeader(DataHeader),
    /// The next run of the current PDU's data.
    Data(&'a [u8]),
    /// The current PDU's data is complete.
    DataEnd(DataDigest),
    /// The peer ends the connection; nothing more is decoded.
    Termination(Termination),
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing but the first PDU of a connection is acceptable.
    New,
    /// The first PDU is out, and the caller has not said what was agreed.
    Negotiating,
    /// In use.
    Ready,
}

/// Where in a PDU the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In a header, of which the carry holds some bytes.
    Header,
    /// In the data of a termination request, which is not kept.
    Termination { left: usize, request: Termination },
    /// In the padding before data.
    Padding { left: usize },
    /// In the data.
    Data { left: usize },
    /// In the data digest, of which the carry holds some bytes.
    Digest,
    /// The stream has ended for us.
    Closed,
}

/// What follows a header.
enum Follows {
    /// The next header.
    Nothing,
    /// A termination request's data.
    Termination { left: usize, request: Termination },
    /// Padding, data and perhaps a digest.
    Data { padding: usize, length: usize, digest: bool },
}

/// Reads one direction of one connection.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    phase: Phase,
    state: State,
    framing: Framing,
    limits: Limits,
    /// Beginnings of headers that are right; emptied when what they were judged by changes.
    starts: Starts,
    /// The current PDU has a data digest.
    with_digest: bool,
    /// Data bytes after the padding.
    data_after_padding: usize,
    running: RunningDigest,
    /// Bytes of the header or data digest in progress that are here already.
    carried: usize,
    /// The header in progress; from its end until the next header starts, the current PDU's.
    carry: [u8; CARRY_BYTES],
    /// The data digest in progress.
    digest_carry: [u8; DIGEST_BYTES],
    /// Length of the current PDU's header.
    current_bytes: usize,
}

impl Decoder {
    /// A decoder at the start of a connection.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            phase: Phase::New,
            state: State::Header,
            framing: Framing::default(),
            limits: Limits { max_in_capsule: 0, max_host_data: 0 },
            starts: Starts::default(),
            with_digest: false,
            data_after_padding: 0,
            running: RunningDigest::new(),
            carried: 0,
            carry: [0; CARRY_BYTES],
            digest_carry: [0; DIGEST_BYTES],
            current_bytes: 0,
        }
    }

    /// Says what the initialization agreed on. `framing.alignment` is what the peer's data must obey: the CPDA that a
    /// target offered, or the HPDA that a host asked for.
    pub fn initialized(&mut self, framing: Framing, limits: Limits) {
        self.framing = framing;
        self.limits = limits;
        self.starts = Starts::default();
        self.phase = Phase::Ready;
    }

    /// Changes the limit on in-capsule data: a controller's differs between its queues.
    pub fn limit_in_capsule(&mut self, bytes: u32) {
        self.limits.max_in_capsule = bytes;
        self.starts = Starts::default();
    }

    /// Data bytes of the current PDU that have not been seen yet; zero outside of data.
    pub fn data_remaining(&self) -> usize {
        match self.state {
            State::Data { left } => left,
            State::Header
            | State::Termination { .. }
            | State::Padding { .. }
            | State::Digest
            | State::Closed => 0,
        }
    }

    /// Whether all that is still to come of the current PDU's data lies in `input`: then one [`Event::Data`] has it.
    pub fn data_lies_in(&self, input: &[u8]) -> bool {
        match self.state {
            State::Padding { left } => input.len() >= left + self.data_after_padding,
            State::Data { left } => input.len() >= left,
            State::Header | State::Termination { .. } | State::Digest | State::Closed => false,
        }
    }

    /// Says that the caller received the next bytes of the current PDU's data by itself, without [`Decoder::next`].
    /// Bytes beyond [`Decoder::data_remaining`] are not data, and must go through `next`; they are ignored here.
    pub fn data_received(&mut self, bytes: &[u8]) {
        if let State::Data { left } = self.state {
            let taken = left.min(bytes.len());
            if self.with_digest {
                self.running.update(&bytes[..taken]);
            }
            self.state = State::Data { left: left - taken };
        }
    }

    /// True after an error or a termination request.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The header bytes of the PDU that the last event belongs to, for errors that only the caller can find
    /// (a transfer out of range, an unknown transfer tag). Valid until the next call. See [`ProtocolError::new`].
    pub fn current_header(&self) -> &[u8] {
        &self.carry[..self.current_bytes]
    }

    /// Takes the next event off the front of `input`. None: all of `input` is consumed (or, between an initialization
    /// PDU and [`Decoder::initialized`], nothing more is decoded).
    ///
    /// # Errors
    /// A violation of the protocol. It is fatal: every later call yields none.
    #[inline]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ProtocolError> {
        match self.usual(input) {
            Some(event) => Ok(Some(event)),
            None => self.next_of_any(input),
        }
    }

    /// The next event, however it comes.
    fn next_of_any<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ProtocolError> {
        loop {
            match self.state {
                State::Closed => {
                    *input = &[];
                    return Ok(None);
                }
                State::Header => {
                    if self.phase == Phase::Negotiating {
                        return Ok(None);
                    }
                    return match self.header(input) {
                        Ok(Some(event)) => Ok(Some(event)),
                        // A termination request with data to skip; otherwise the input is used up.
                        Ok(None) if self.state != State::Header => continue,
                        Ok(None) => Ok(None),
                        Err(error) => {
                            self.state = State::Closed;
                            Err(error)
                        }
                    };
                }
                State::Termination { left, request } => {
                    let taken = take(input, left).len();
                    if taken < left {
                        self.state = State::Termination { left: left - taken, request };
                        return Ok(None);
                    }
                    self.state = State::Closed;
                    return Ok(Some(Event::Termination(request)));
                }
                State::Padding { left } => {
                    let taken = take(input, left).len();
                    if taken < left {
                        self.state = State::Padding { left: left - taken };
                        return Ok(None);
                    }
                    self.state = State::Data { left: self.data_after_padding };
                }
                State::Data { left: 0 } => {
                    if !self.with_digest {
                        self.state = State::Header;
                        return Ok(Some(Event::DataEnd(DataDigest::Absent)));
                    }
                    self.carried = 0;
                    self.state = State::Digest;
                }
                State::Data { left } => {
                    let run = take(input, left);
                    if run.is_empty() {
                        return Ok(None);
                    }
                    if self.with_digest {
                        self.running.update(run);
                    }
                    self.state = State::Data { left: left - run.len() };
                    return Ok(Some(Event::Data(run)));
                }
                State::Digest => {
                    let run = take(input, DIGEST_BYTES - self.carried);
                    self.digest_carry[self.carried..self.carried + run.len()].copy_from_slice(run);
                    self.carried += run.len();
                    if self.carried < DIGEST_BYTES {
                        return Ok(None);
                    }
                    self.carried = 0;
                    self.state = State::Header;
                    let received = u32::from_le_bytes(self.digest_carry);
                    let computed = self.running.value();
                    let verdict = if received == computed {
                        DataDigest::Correct
                    } else {
                        DataDigest::Mismatch { received, computed }
                    };
                    return Ok(Some(Event::DataEnd(verdict)));
                }
            }
        }
    }

    /// Collects and judges a header; none while it is incomplete.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Event<'static>>, ProtocolError> {
        let common = match self.whole_header(input)? {
            Some(common) => common,
            // Rare: the header is cut, or so near the end of the input that it may be.
            None => {
                if self.carried < COMMON_HEADER_BYTES && !self.fill_carry(input, COMMON_HEADER_BYTES) {
                    return Ok(None);
                }
                let common = header::Common::judge(self, &self.carry[..COMMON_HEADER_BYTES])?;
                let whole = common.header_bytes + if common.header_digest { DIGEST_BYTES } else { 0 };
                if !self.fill_carry(input, whole) {
                    return Ok(None);
                }
                common
            }
        };
        self.carried = 0;
        self.current_bytes = common.header_bytes;
        if common.header_digest {
            self.check_header_digest(common.header_bytes)?;
        }
        let (event, follows) = header::parse(self, &common)?;
        match follows {
            Follows::Nothing => {}
            Follows::Termination { left, request } => {
                self.state = State::Termination { left, request };
                return Ok(None);
            }
            Follows::Data { padding, length, digest } => {
                self.with_digest = digest;
                if digest {
                    self.running = RunningDigest::new();
                }
                self.data_after_padding = length;
                self.state =
                    if padding > 0 { State::Padding { left: padding } } else { State::Data { left: length } };
            }
        }
        if matches!(event, Event::InitializeRequest(_) | Event::InitializeResponse(_)) {
            self.phase = Phase::Negotiating;
        }
        Ok(Some(event))
    }

    /// Takes a header that lies in the input as a whole, which most do; none leaves everything as it was.
    fn whole_header(&mut self, input: &mut &[u8]) -> Result<Option<header::Common>, ProtocolError> {
        let rest = *input;
        let (true, Some(start)) = (self.carried == 0, rest.get(..COMMON_HEADER_BYTES)) else {
            return Ok(None);
        };
        let common = header::Common::judge(self, start)?;
        let digest_bytes = if common.header_digest { DIGEST_BYTES } else { 0 };
        let Some((header, rest)) = rest.split_at_checked(common.header_bytes + digest_bytes) else {
            return Ok(None);
        };
        // The usual lengths by constants, so that each copy is a few instructions and no call.
        match header.len() {
            COMMAND_BYTES => self.carry[..COMMAND_BYTES].copy_from_slice(header),
            RESPONSE_BYTES => self.carry[..RESPONSE_BYTES].copy_from_slice(header),
            length => self.carry[..length].copy_from_slice(header),
        }
        if let (false, Some(start)) = (common.header_digest, header.first_chunk()) {
            self.starts.remember(Start::of(start), common.data_bytes());
        }
        *input = rest;
        Ok(Some(common))
    }

    fn check_header_digest(&self, at: usize) -> Result<(), ProtocolError> {
        let bytes = &self.carry;
        let received = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if received == digest(&bytes[..at]) {
            Ok(())
        } else {
            Err(ProtocolError::new(crate::pdu::FatalError::HeaderDigest, received, &bytes[..at]))
        }
    }

    /// Moves bytes from the input to the carry until it holds `wanted`; false when the input ends before.
    fn fill_carry(&mut self, input: &mut &[u8], wanted: usize) -> bool {
        let run = take(input, wanted - self.carried);
        self.carry[self.carried..self.carried + run.len()].copy_from_slice(run);
        self.carried += run.len();
        self.carried == wanted
    }
}

/// Splits at most `most` bytes off the front of the input.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (front, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    front
}
