//! Bytes on a plain connection, and a queue made by hand.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;

use sledge_nvme::fabrics::{ConnectCommand, ConnectData, PropertyGetCommand, PropertySetCommand};
use sledge_nvme::property::{Configuration, ControllerStatus, Property};
use sledge_nvme::{Command, Completion, Status};
use sledge_nvmf::digest::digest;
use sledge_nvmf::pdu::{
    DataHeader, Framing, InitializeRequest, MAX_ENCODED_BYTES, encode_capsule_command, encode_data_header,
    encode_initialize_request,
};
use sledge_reactor::TcpStream;
use sledge_reactor::sim::SimulationConfig;
use zerocopy::{FromBytes, IntoBytes};

/// Writes all bytes.
pub async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(&[IoSlice::new(bytes)])? {
            Some(count) => bytes = &bytes[count..],
            None => stream.writable().await,
        }
    }
    Ok(())
}

/// Reads what comes next; 0 at the end.
pub async fn read_some(stream: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.try_read(&mut [IoSliceMut::new(into)])? {
            Some(count) => return Ok(count),
            None => stream.readable().await,
        }
    }
}

/// Fills the buffer.
pub async fn read_exact(stream: &TcpStream, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match read_some(stream, into).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => into = &mut into[count..],
        }
    }
    Ok(())
}

/// Reads one PDU, of which the first bytes say how long it is.
pub async fn read_pdu(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut pdu = vec![0; 8];
    read_exact(stream, &mut pdu).await?;
    let length = u32::from_le_bytes([pdu[4], pdu[5], pdu[6], pdu[7]]) as usize;
    assert!((8..2 << 20).contains(&length), "a PDU of {length} bytes");
    pdu.resize(length, 0);
    read_exact(stream, &mut pdu[8..]).await?;
    Ok(pdu)
}

/// Reads until the other side closes; whether by a reset or an end does not matter.
pub async fn read_to_end(stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut some = [0; 4096];
    while let Ok(count @ 1..) = read_some(stream, &mut some).await {
        all.extend_from_slice(&some[..count]);
    }
    all
}

/// Asks for nothing.
pub const PLAIN: InitializeRequest = InitializeRequest {
    data_alignment: 0,
    header_digest: false,
    data_digest: false,
    max_ready_to_transfer: 0,
};

/// A queue by hand: whole PDUs out, whole PDUs in.
pub struct RawQueue {
    pub stream: TcpStream,
    pub framing: Framing,
    next_cid: u16,
}

/// What came.
#[derive(Debug)]
pub enum Arrived {
    Completion(Completion),
    Data {
        cid: u16,
        bytes: Vec<u8>,
        success: bool,
    },
    ReadyToTransfer {
        cid: u16,
        tag: u16,
        offset: u32,
        length: u32,
    },
    /// C2HTermReq: FES and FEI.
    Terminated(u16, u32),
}

impl RawQueue {
    /// TCP and ICReq.
    pub async fn initialize(address: SocketAddr, header_digest: bool, data_digest: bool) -> RawQueue {
        let request = InitializeRequest { header_digest, data_digest, ..PLAIN };
        Self::over(TcpStream::connect(address).await.unwrap(), request).await
    }

    /// ICReq.
    pub async fn over(stream: TcpStream, request: InitializeRequest) -> RawQueue {
        let mut bytes = [0; MAX_ENCODED_BYTES];
        let length = encode_initialize_request(&mut bytes, &request);
        write_all(&stream, &bytes[..length]).await.unwrap();
        let response = read_pdu(&stream).await.unwrap();
        assert_eq!((response[0], response.len()), (1, 128), "ICResp");
        let InitializeRequest { header_digest, data_digest, .. } = request;
        RawQueue { stream, framing: Framing { header_digest, data_digest, alignment: 0 }, next_cid: 0 }
    }

    /// Connects the queue; returns the controller's identifier.
    pub async fn connect(&mut self, qid: u16, cntlid: u16, host: u128, kato_ms: u32) -> Result<u16, Status> {
        let host = super::options("0.0.0.0:1".parse().unwrap(), host);
        let data = ConnectData::new(host.host.id, cntlid, &host.subsystem, &host.host.nqn);
        let command = Command::from(ConnectCommand::new(qid, 32, kato_ms));
        let cid = self.send(command, data.as_bytes()).await;
        let completion = self.completion(cid).await;
        completion.status().is_success().then(|| completion.result.get() as u16).ok_or(completion.status())
    }

    /// An admin queue on a controller that is enabled; returns the controller's identifier too.
    pub async fn admin(address: SocketAddr, host: u128, kato_ms: u32) -> (RawQueue, u16) {
        let mut admin = RawQueue::initialize(address, false, false).await;
        let cntlid = admin.connect(0, 0xffff, host, kato_ms).await.unwrap();
        admin.set(Property::Cc, Configuration::ENABLE_NVM).await;
        assert!(admin.csts().await.ready(), "the controller is not ready");
        (admin, cntlid)
    }

    /// Writes CC.
    pub async fn set(&mut self, property: Property, value: Configuration) {
        let command = Command::from(PropertySetCommand::new(property, u64::from(value.bits())));
        let completion = self.execute(command, &[]).await;
        assert!(completion.status().is_success(), "Property Set: {}", completion.status());
    }

    /// Reads CSTS.
    pub async fn csts(&mut self) -> ControllerStatus {
        let completion = self.execute(Command::from(PropertyGetCommand::new(Property::Csts)), &[]).await;
        ControllerStatus::from_bits(completion.result.get())
    }

    /// Sends a command with its data in the capsule; returns its identifier.
    pub async fn send(&mut self, mut command: Command, data: &[u8]) -> u16 {
        self.next_cid += 1;
        command = command.with_cid(self.next_cid);
        let bytes = self.capsule(command, data);
        write_all(&self.stream, &bytes).await.unwrap();
        self.next_cid
    }

    /// The bytes of a capsule.
    pub fn capsule(&self, command: Command, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; MAX_ENCODED_BYTES];
        let length = encode_capsule_command(&mut bytes, &command, data.len() as u32, &self.framing);
        bytes.truncate(length);
        self.append_data(bytes, data)
    }

    /// The bytes of H2CData.
    pub fn host_data(&self, header: DataHeader, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; MAX_ENCODED_BYTES];
        let length = encode_data_header(&mut bytes, &header, &self.framing);
        bytes.truncate(length);
        self.append_data(bytes, data)
    }

    fn append_data(&self, mut bytes: Vec<u8>, data: &[u8]) -> Vec<u8> {
        bytes.extend_from_slice(data);
        if self.framing.data_digest && !data.is_empty() {
            bytes.extend_from_slice(&digest(data).to_le_bytes());
        }
        bytes
    }

    /// Sends a command and waits for its completion, which must come next.
    pub async fn execute(&mut self, command: Command, data: &[u8]) -> Completion {
        let cid = self.send(command, data).await;
        self.completion(cid).await
    }

    /// The data of a command that reads, and succeeds.
    pub async fn read(&mut self, command: Command) -> Vec<u8> {
        let cid = self.send(command, &[]).await;
        let (data, success) = match self.next().await {
            Ok(Arrived::Data { cid: of, bytes, success }) if of == cid => (bytes, success),
            other => panic!("not the data of command {cid}: {other:?}"),
        };
        if !success {
            let status = self.completion(cid).await.status();
            assert!(status.is_success(), "{status}");
        }
        data
    }

    /// Waits for the completion of a command, which must come next.
    pub async fn completion(&mut self, cid: u16) -> Completion {
        match self.next().await {
            Ok(Arrived::Completion(completion)) if completion.cid.get() == cid => completion,
            other => panic!("not the completion of command {cid}: {other:?}"),
        }
    }

    /// The next PDU.
    pub async fn next(&mut self) -> io::Result<Arrived> {
        let pdu = read_pdu(&self.stream).await?;
        let word = |at: usize| u16::from_le_bytes([pdu[at], pdu[at + 1]]);
        let double = |at: usize| u32::from_le_bytes([pdu[at], pdu[at + 1], pdu[at + 2], pdu[at + 3]]);
        Ok(match pdu[0] {
            0x03 => Arrived::Terminated(word(8), double(10)),
            0x05 => Arrived::Completion(Completion::read_from_bytes(&pdu[8..24]).unwrap()),
            0x07 => {
                let offset = usize::from(pdu[3]);
                let bytes = pdu[offset..offset + double(16) as usize].to_vec();
                Arrived::Data { cid: word(8), bytes, success: pdu[1] & 8 != 0 }
            }
            0x09 => Arrived::ReadyToTransfer {
                cid: word(8),
                tag: word(10),
                offset: double(12),
                length: double(16),
            },
            other => panic!("PDU of type {other:#x}"),
        })
    }
}

/// Runs one host against a disk of 1,024 blocks of 512 bytes, as namespace 1; then nothing may be left.
pub fn with_a_disk<F: Future<Output = ()> + 'static>(host: impl FnOnce(SocketAddr) -> F) {
    let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
    let mut world = super::World::new(1, config, 2, 1);
    world.serve(vec![super::malloc("disk", 1024, 512)]);
    let address = world.address();
    world.simulation.block_on(world.host_node, || host(address)).unwrap();
    world.expect_target_is_empty(1);
}

/// An admin queue and an I/O queue of one controller.
pub async fn queues(address: SocketAddr) -> (RawQueue, RawQueue) {
    let (admin, cntlid) = RawQueue::admin(address, 77, 0).await;
    let mut io = RawQueue::initialize(address, false, false).await;
    io.connect(1, cntlid, 77, 0).await.unwrap();
    (admin, io)
}
