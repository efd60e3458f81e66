//! A scripted controller for tests of the queue: bytes in memory instead of sockets, a disk in memory behind it.

#![allow(clippy::unwrap_used)]

use super::link::Link;
use super::queue::{Order, Queue, QueueOptions, QueueState};
use super::slot::Direction;
use crate::decoder::{DataDigest, Decoder, Event, Limits, Role};
use crate::digest::digest_of;
use crate::pdu::*;
use sledge_nvme::sgl::Sgl;
use sledge_nvme::{Command, Completion, Status};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut};
use std::rc::Rc;

/// Block size of the peer's disk.
pub(super) const BLOCK: usize = 512;

/// The two directions of a connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) to_host: VecDeque<u8>,
    pub(super) from_host: Vec<u8>,
    /// Most bytes of one call; zero is no limit.
    pub(super) read_limit: usize,
    pub(super) write_limit: usize,
    /// Bytes that still fit before a write would block; none is no limit.
    pub(super) room: Option<usize>,
    pub(super) ended: bool,
    pub(super) error: Option<io::ErrorKind>,
    pub(super) closed: bool,
    pub(super) aborted: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct TestLink(pub(super) Rc<RefCell<Wire>>);

impl Link for TestLink {
    fn read(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        let mut wire = self.0.borrow_mut();
        if let Some(kind) = wire.error {
            return Err(kind.into());
        }
        if wire.to_host.is_empty() {
            return Ok(wire.ended.then_some(0));
        }
        let mut left = if wire.read_limit == 0 { usize::MAX } else { wire.read_limit };
        let mut total = 0;
        for part in into {
            for place in part.iter_mut() {
                if left == 0 {
                    return Ok(Some(total));
                }
                let Some(byte) = wire.to_host.pop_front() else { return Ok(Some(total)) };
                *place = byte;
                left -= 1;
                total += 1;
            }
        }
        Ok(Some(total))
    }

    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        let mut wire = self.0.borrow_mut();
        let limit = if wire.write_limit == 0 { usize::MAX } else { wire.write_limit };
        let mut left = limit.min(wire.room.unwrap_or(usize::MAX));
        if left == 0 {
            return Ok(None);
        }
        let mut total = 0;
        for part in from {
            let taken = left.min(part.len());
            wire.from_host.extend_from_slice(&part[..taken]);
            left -= taken;
            total += taken;
        }
        if let Some(room) = wire.room.as_mut() {
            *room -= total;
        }
        Ok(Some(total))
    }

    fn close(&mut self) {
        self.0.borrow_mut().closed = true;
    }

    fn abort(&mut self) {
        let mut wire = self.0.borrow_mut();
        (wire.closed, wire.aborted) = (true, true);
    }
}

/// How the peer behaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    pub(super) framing: Framing,
    /// Bytes asked for by one R2T.
    pub(super) r2t: u32,
    pub(super) max_host_data: u32,
    /// Bytes of one C2HData.
    pub(super) c2h: u32,
    /// Use SUCCESS instead of CapsuleResp.
    pub(super) success_flag: bool,
    /// Answer nothing by itself: the test does.
    pub(super) silent: bool,
    /// Corrupt the data digest of reads.
    pub(super) corrupt: bool,
}

impl Manners {
    pub(super) const PLAIN: Self = Self {
        framing: Framing { header_digest: false, data_digest: false, alignment: 0 },
        r2t: 1 << 20,
        max_host_data: 1 << 17,
        c2h: 1 << 20,
        success_flag: true,
        silent: false,
        corrupt: false,
    };
}

#[derive(Debug)]
struct Write {
    command: Command,
    data: Vec<u8>,
    received: usize,
    asked: usize,
    spoiled: bool,
}

/// The scripted controller.
pub(super) struct Peer {
    pub(super) wire: Rc<RefCell<Wire>>,
    pub(super) manners: Manners,
    decoder: Decoder,
    pub(super) disk: Vec<u8>,
    /// Commands in the order of their arrival.
    pub(super) commands: Vec<Command>,
    pub(super) terminations: Vec<Termination>,
    writes: BTreeMap<u16, Write>,
    current: Option<u16>,
}

impl Peer {
    pub(super) fn new(manners: Manners) -> (Self, TestLink) {
        let link = TestLink::default();
        let peer = Self {
            wire: link.0.clone(),
            manners,
            decoder: Decoder::new(Role::Target),
            disk: (0..256 * BLOCK).map(|at| (at / BLOCK) as u8).collect(),
            commands: Vec::new(),
            terminations: Vec::new(),
            writes: BTreeMap::new(),
            current: None,
        };
        (peer, link)
    }

    fn emit(&mut self, encode: impl FnOnce(&mut [u8]) -> usize) {
        let mut out = [0; MAX_ENCODED_BYTES];
        let length = encode(&mut out);
        self.wire.borrow_mut().to_host.extend(&out[..length]);
    }

    pub(super) fn emit_completion(&mut self, cid: u16, status: Status) {
        let framing = self.manners.framing;
        self.emit(|out| encode_capsule_response(out, &Completion::new(cid, status), &framing));
    }

    pub(super) fn emit_r2t(&mut self, cid: u16, offset: u32, length: u32) {
        let framing = self.manners.framing;
        let ready = ReadyToTransfer { command_id: cid, transfer_tag: cid ^ 0x5555, offset, length };
        self.emit(|out| encode_ready_to_transfer(out, &ready, &framing));
    }

    pub(super) fn emit_data(&mut self, cid: u16, offset: u32, data: &[u8], last: bool, success: bool) {
        let framing = self.manners.framing;
        let header = DataHeader {
            kind: DataKind::ControllerToHost,
            command_id: cid,
            transfer_tag: 0,
            offset,
            length: data.len() as u32,
            last,
            success,
        };
        self.emit(|out| encode_data_header(out, &header, &framing));
        self.wire.borrow_mut().to_host.extend(data);
        if framing.data_digest && !data.is_empty() {
            let digest = digest_of([data]) ^ u32::from(self.manners.corrupt);
            self.emit(|out| encode_data_digest(out, digest));
        }
    }

    pub(super) fn emit_termination(&mut self, error: &ProtocolError) {
        self.emit(|out| encode_termination(out, false, error));
    }

    pub(super) fn emit_initialize_response(&mut self, framing: Framing) {
        let response = InitializeResponse {
            data_alignment: framing.alignment,
            header_digest: framing.header_digest,
            data_digest: framing.data_digest,
            max_host_data: self.manners.max_host_data,
        };
        self.emit(|out| encode_initialize_response(out, &response));
    }

    /// Takes in what the host sent and answers it.
    pub(super) fn turn(&mut self) {
        let bytes = std::mem::take(&mut self.wire.borrow_mut().from_host);
        let mut input = &bytes[..];
        loop {
            let event = match self.decoder.next(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) => panic!("the host sent nonsense: {error}"),
            };
            match event {
                Event::InitializeRequest(request) => {
                    assert_eq!(request.max_ready_to_transfer, 0);
                    let framing = self.manners.framing;
                    self.emit_initialize_response(framing);
                    let limits = Limits { max_in_capsule: 8192, max_host_data: self.manners.max_host_data };
                    self.decoder.initialized(framing, limits);
                }
                Event::Command { command, in_capsule_length } => self.on_command(command, in_capsule_length),
                Event::DataHeader(header) => {
                    let write = self.writes.get(&header.command_id).unwrap();
                    assert_eq!(header.transfer_tag, header.command_id ^ 0x5555);
                    assert_eq!(header.offset as usize, write.received, "data in order");
                    assert!(
                        header.offset as usize + header.length as usize <= write.asked,
                        "only what was asked"
                    );
                    assert_eq!(header.last, header.offset as usize + header.length as usize == write.asked);
                    self.current = Some(header.command_id);
                }
                Event::Data(run) => {
                    let write = self.writes.get_mut(&self.current.unwrap()).unwrap();
                    write.data[write.received..write.received + run.len()].copy_from_slice(run);
                    write.received += run.len();
                }
                Event::DataEnd(verdict) => {
                    let cid = self.current.take().unwrap();
                    self.on_data_end(cid, matches!(verdict, DataDigest::Mismatch { .. }));
                }
                Event::Termination(request) => self.terminations.push(request),
                other => panic!("not for a target: {other:?}"),
            }
        }
    }

    fn on_command(&mut self, command: Command, in_capsule: u32) {
        self.commands.push(command);
        let cid = command.cid.get();
        let out = matches!(command.opcode, 0x01 | 0x05 | 0x09 | 0x7f);
        let length = match command.dptr.decode() {
            Sgl::InCapsule { length, .. } => {
                assert_eq!(length, in_capsule);
                length as usize
            }
            Sgl::Transport { length } => {
                assert_eq!(in_capsule, 0);
                length as usize
            }
            other => panic!("a strange data pointer: {other:?}"),
        };
        if out {
            let asked = in_capsule as usize;
            let data = vec![0; length];
            self.writes.insert(cid, Write { command, data, received: 0, asked, spoiled: false });
            if in_capsule > 0 {
                self.current = Some(cid);
            } else if !self.manners.silent {
                self.ask(cid);
            }
        } else if !self.manners.silent {
            if command.opcode == 0x02 {
                self.answer_read(cid, command.slba() as usize * BLOCK, length);
            } else {
                self.emit_completion(cid, Status::SUCCESS);
            }
        }
    }

    fn ask(&mut self, cid: u16) {
        let most = self.manners.r2t;
        let write = self.writes.get_mut(&cid).unwrap();
        let offset = write.received as u32;
        let length = (write.data.len() as u32 - offset).min(most);
        write.asked = (offset + length) as usize;
        self.emit_r2t(cid, offset, length);
    }

    fn on_data_end(&mut self, cid: u16, spoiled: bool) {
        let write = self.writes.get_mut(&cid).unwrap();
        write.spoiled |= spoiled;
        if self.manners.silent || write.received < write.asked {
            return;
        }
        if write.received < write.data.len() {
            return self.ask(cid);
        }
        let write = self.writes.remove(&cid).unwrap();
        let at = write.command.slba() as usize * BLOCK;
        let status = match write.command.opcode {
            _ if write.spoiled => Status::TRANSIENT_TRANSPORT_ERROR,
            0x01 => {
                self.disk[at..at + write.data.len()].copy_from_slice(&write.data);
                Status::SUCCESS
            }
            0x05 if self.disk[at..at + write.data.len()] != write.data[..] => Status::COMPARE_FAILURE,
            _ => Status::SUCCESS,
        };
        self.emit_completion(cid, status);
    }

    fn answer_read(&mut self, cid: u16, at: usize, length: usize) {
        let data = self.disk[at..at + length].to_vec();
        let parts = data.chunks(self.manners.c2h as usize).count();
        let mut offset = 0;
        for (index, part) in data.chunks(self.manners.c2h as usize).enumerate() {
            let last = index + 1 == parts;
            self.emit_data(cid, offset, part, last, last && self.manners.success_flag);
            offset += part.len() as u32;
        }
        if !self.manners.success_flag {
            self.emit_completion(cid, Status::SUCCESS);
        }
    }
}

/// Exchanges bytes until nothing moves any more.
pub(super) fn settle(queue: &mut Queue<TestLink>, peer: &mut Peer) {
    for _ in 0..100_000 {
        let moved = queue.turn();
        let waiting = !peer.wire.borrow().from_host.is_empty();
        if waiting {
            peer.turn();
        }
        if moved == 0
            && !waiting
            && (peer.wire.borrow().to_host.is_empty() || queue.state == QueueState::Closed)
        {
            return;
        }
    }
    panic!("the exchange does not end");
}

pub(super) fn options(framing: Framing, depth: usize) -> QueueOptions {
    QueueOptions {
        depth,
        header_digest: framing.header_digest,
        data_digest: framing.data_digest,
        data_alignment: framing.alignment,
    }
}

/// A live queue with the peer at its other end. Its capsules take 1,024 bytes.
pub(super) fn live(manners: Manners, depth: usize) -> (Queue<TestLink>, Peer) {
    let (mut peer, link) = Peer::new(manners);
    let mut queue = Queue::new(link, options(manners.framing, depth), 8192);
    queue.turn();
    assert_eq!(queue.state, QueueState::Initializing);
    peer.turn();
    queue.turn();
    assert_eq!(queue.state, QueueState::Connecting);
    queue.connected(1024);
    assert_eq!(queue.state, QueueState::Live);
    (queue, peer)
}

/// Submits a command and returns its identifier.
pub(super) fn submit(
    queue: &mut Queue<TestLink>,
    token: u64,
    command: Command,
    direction: Direction,
    payload: super::payload::Payload,
) -> u16 {
    let order = Order { token, command, direction, unhurried: false };
    let index = queue.submit(&order, || payload).unwrap();
    queue.slots.command_id(index)
}
