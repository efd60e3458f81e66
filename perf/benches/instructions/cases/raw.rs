//! A host that is nothing but bytes, so that what is counted is the target's: whole batches of commands that were
//! built before, and answers of which only the length is looked at.

use super::Failure;
use super::load::{Standing, finish};
use super::served::{BLOCK, NSID, Served};
use crate::measure::{SECTIONS, Section, WARM_UP};
use sledge_nvme::Command;
use sledge_nvme::fabrics::{ConnectAttributes, ConnectCommand, ConnectData};
use sledge_nvme::io::Operation;
use sledge_nvme::sgl::Descriptor;
use sledge_nvmf::pdu::{
    CAPSULE_RESPONSE_BYTES, DATA_BYTES, Framing, INITIALIZE_BYTES, InitializeRequest, MAX_ENCODED_BYTES,
    encode_capsule_command, encode_initialize_request,
};
use sledge_reactor::TcpStream;
use sledge_reactor::poller::{Poller, Turn};
use std::cell::Cell;
use std::io::{self, IoSlice, IoSliceMut};
use std::rc::Rc;
use zerocopy::IntoBytes;

const PLAIN: Framing = Framing { header_digest: false, data_digest: false, alignment: 0 };

struct Peer {
    stream: TcpStream,
    batch: Vec<u8>,
    /// Bytes that answer a batch.
    answer: usize,
    scratch: Vec<u8>,
    /// Batches of a section.
    batches: u64,
    round: usize,
    done: u64,
    /// Bytes of the batch that are still to be sent, and of its answer that are still to come.
    to_send: usize,
    to_come: usize,
    section: Option<Section>,
    standing: Rc<Cell<Standing>>,
}

/// Sends batches of `depth` equal commands, without data digests, until all sections are counted.
pub async fn run(
    served: &Served,
    operation: Operation,
    bytes: u32,
    depth: u16,
    operations: u64,
) -> Result<(), Failure> {
    let stream = TcpStream::connect(served.address).await?;
    connect(&stream, served, depth).await?;
    let mut batch = Vec::new();
    let blocks = bytes / BLOCK;
    let mut answer = 0;
    for cid in 0..depth {
        let slba = u64::from(cid) * u64::from(blocks);
        if operation == Operation::Read {
            append_capsule(
                &mut batch,
                Command::read(NSID, slba, blocks).with_data(anywhere(bytes)),
                cid,
                &[],
            );
            // SUCCESS in the data's header stands for the response.
            answer += DATA_BYTES + bytes as usize;
        } else {
            let data: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
            let write = Command::write(NSID, slba, blocks).with_data(Descriptor::in_capsule(0, bytes));
            append_capsule(&mut batch, write, cid, &data);
            answer += CAPSULE_RESPONSE_BYTES;
        }
    }
    let standing = Rc::new(Cell::new(Standing::Running));
    let peer = Peer {
        stream,
        to_send: batch.len(),
        to_come: answer,
        batch,
        answer,
        scratch: vec![0; 256 * 1024],
        batches: operations / u64::from(depth),
        round: 0,
        done: 0,
        section: None,
        standing: standing.clone(),
    };
    finish(peer, &standing).await
}

/// Data of a command that the transport carries by itself.
fn anywhere(bytes: u32) -> Descriptor {
    Descriptor::transport(bytes)
}

fn append_capsule(batch: &mut Vec<u8>, command: Command, cid: u16, data: &[u8]) {
    let mut out = [0; MAX_ENCODED_BYTES];
    let length = encode_capsule_command(&mut out, &command.with_cid(cid), data.len() as u32, &PLAIN);
    batch.extend_from_slice(&out[..length]);
    batch.extend_from_slice(data);
}

/// ICReq and Fabrics Connect of the first I/O queue, without flow control of its submission queue.
async fn connect(stream: &TcpStream, served: &Served, depth: u16) -> Result<(), Failure> {
    let request = InitializeRequest {
        data_alignment: 0,
        header_digest: false,
        data_digest: false,
        max_ready_to_transfer: 0,
    };
    let mut out = [0; MAX_ENCODED_BYTES];
    let length = encode_initialize_request(&mut out, &request);
    write_all(stream, &out[..length]).await?;
    read_exact(stream, &mut [0; INITIALIZE_BYTES]).await?;
    let options = &served.connect;
    let cntlid = served.controller.info().cntlid;
    let mut command = ConnectCommand::new(1, u32::from(depth) + 1, 0);
    command.attributes = ConnectAttributes::from_bits(0).with_disable_flow_control(true).bits();
    let data = ConnectData::new(options.host.id, cntlid, &options.subsystem, &options.host.nqn);
    let mut capsule = Vec::new();
    append_capsule(&mut capsule, Command::from(command), 0, data.as_bytes());
    write_all(stream, &capsule).await?;
    let mut response = [0; CAPSULE_RESPONSE_BYTES];
    read_exact(stream, &mut response).await?;
    match response[22..] {
        [0, 0] => Ok(()),
        _ => Err(format!("Connect failed: {response:?}").into()),
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(&[IoSlice::new(bytes)])? {
            Some(count) => bytes = &bytes[count..],
            None => stream.writable().await,
        }
    }
    Ok(())
}

async fn read_exact(stream: &TcpStream, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match stream.try_read(&mut [IoSliceMut::new(into)])? {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(count) => into = &mut into[count..],
            None => stream.readable().await,
        }
    }
    Ok(())
}

impl Poller for Peer {
    fn name(&self) -> &'static str {
        "peer"
    }

    fn poll(&mut self) -> Turn {
        if self.standing.get() != Standing::Running {
            return Turn::Idle;
        }
        let first = self.done == 0 && self.to_send == self.batch.len();
        if first && self.round >= WARM_UP {
            self.section = Some(Section::begin());
        }
        if self.exchange().is_err() {
            self.section = None;
            self.standing.set(Standing::Failed);
        }
        if self.done == self.batches {
            self.section = None;
            (self.round, self.done) = (self.round + 1, 0);
            if self.round == WARM_UP + SECTIONS {
                self.standing.set(Standing::Done);
            }
        }
        Turn::Worked(1)
    }
}

impl Peer {
    /// Sends what is left of the batch and takes what has come of its answer.
    fn exchange(&mut self) -> io::Result<()> {
        if self.to_send > 0 {
            let from = self.batch.len() - self.to_send;
            let sent = self.stream.try_write(&[IoSlice::new(&self.batch[from..])])?;
            self.to_send -= sent.unwrap_or(0);
            return Ok(());
        }
        match self.stream.try_read(&mut [IoSliceMut::new(&mut self.scratch)])? {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(count) => self.to_come = self.to_come.saturating_sub(count),
            None => {}
        }
        if self.to_come == 0 {
            self.done += 1;
            (self.to_send, self.to_come) = (self.batch.len(), self.answer);
        }
        Ok(())
    }
}
