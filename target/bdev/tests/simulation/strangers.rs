//! Hosts whose PDUs are well formed and whose commands are anything: wrong fields, identifiers that are in flight, data that
//! never comes, aborts, resets and shutdowns at any moment, while namespaces come and go.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies};
use sledge_nvme::Command;
use sledge_nvme::command::{DatasetRange, Fuse};
use sledge_nvme::fabrics::{DisconnectCommand, PropertyGetCommand, PropertySetCommand};
use sledge_nvme::property::{Configuration, Property, ShutdownNotification};
use sledge_nvme::sgl::Descriptor;
use sledge_nvmf::pdu::{DataHeader, DataKind};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{sleep, spawn_local};
use uuid::Uuid;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::support::model::Draw;
use crate::support::raw::{RawQueue, write_all};
use crate::support::{NQN, World, malloc, namespace};

/// A queue of a stranger, who counts what it is answered.
struct Queue {
    raw: RawQueue,
    inbox: Vec<u8>,
    /// Commands sent less completions received, by identifier.
    unanswered: BTreeMap<u16, u32>,
    ended: bool,
}

impl Queue {
    fn new(raw: RawQueue) -> Queue {
        Queue { raw, inbox: Vec::new(), unanswered: BTreeMap::new(), ended: false }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.ended |= write_all(&self.raw.stream, bytes).await.is_err();
    }

    async fn send(&mut self, command: Command, data: &[u8]) {
        *self.unanswered.entry(command.cid.get()).or_default() += 1;
        let bytes = self.raw.capsule(command, data);
        self.write(&bytes).await;
    }

    /// Takes in what is there, and answers some of it.
    async fn listen(&mut self, draw: &mut Draw) {
        let mut some = [0; 8192];
        while !self.ended {
            match self.raw.stream.try_read(&mut [IoSliceMut::new(&mut some)]) {
                Ok(Some(count @ 1..)) => self.inbox.extend_from_slice(&some[..count]),
                Ok(None) => break,
                Ok(Some(0)) | Err(_) => self.ended = true,
            }
        }
        while self.inbox.len() >= 8 {
            let length = u32::from_le_bytes(self.inbox[4..8].try_into().unwrap()) as usize;
            if self.inbox.len() < length {
                break;
            }
            let pdu: Vec<u8> = self.inbox.drain(..length).collect();
            self.heard(&pdu, draw).await;
        }
    }

    async fn heard(&mut self, pdu: &[u8], draw: &mut Draw) {
        let word = |at: usize| u16::from_le_bytes([pdu[at], pdu[at + 1]]);
        let double = |at: usize| u32::from_le_bytes(pdu[at..at + 4].try_into().unwrap());
        match pdu[0] {
            // C2HTermReq.
            0x03 => self.ended = true,
            0x05 => self.answered(word(20)),
            0x07 if pdu[1] & 8 != 0 => self.answered(word(8)),
            0x07 => {}
            0x09 => self.transfer(word(8), word(10), double(16), draw).await,
            other => panic!("PDU of type {other:#x}"),
        }
    }

    fn answered(&mut self, cid: u16) {
        let left = self.unanswered.get_mut(&cid).unwrap_or_else(|| panic!("{cid} was never sent"));
        *left = left.checked_sub(1).unwrap_or_else(|| panic!("{cid} is answered twice"));
    }

    /// Answers an R2T: as asked, not at all, or wrong.
    async fn transfer(&mut self, cid: u16, tag: u16, length: u32, draw: &mut Draw) {
        let mut header = DataHeader {
            kind: DataKind::HostToController,
            command_id: cid,
            transfer_tag: tag,
            offset: 0,
            length,
            last: true,
            success: false,
        };
        match draw.below(40) {
            0 => return,
            1 => header.offset = 4,
            2 => header.transfer_tag ^= 1 << draw.below(16),
            3 => header.last = false,
            _ => {}
        }
        let cut = draw.below(u64::from(length)) as u32 / 4 * 4;
        if header
            == (DataHeader { command_id: cid, transfer_tag: tag, offset: 0, length, last: true, ..header })
            && draw.one_in(2)
        {
            for (offset, length, last) in [(0, cut, false), (cut, length - cut, true)] {
                let part = DataHeader { offset, length, last, ..header };
                let bytes = self.raw.host_data(part, &vec![2; length as usize]);
                self.write(&bytes).await;
            }
        } else {
            let bytes = self.raw.host_data(header, &vec![2; length as usize]);
            self.write(&bytes).await;
        }
    }
}

/// Anything that an I/O queue may be sent, and its data in the capsule. Small numbers, so that some of it is right.
fn io_command(draw: &mut Draw) -> (Command, Vec<u8>) {
    let nsid = [2, 2, 2, 2, 2, 2, 0, 7, u32::MAX][draw.below(9) as usize];
    let (slba, blocks) = (draw.below(1030), 1 + draw.below(20) as u32);
    let mut command = match draw.below(12) {
        0..3 => Command::write(nsid, slba, blocks),
        3 | 4 => Command::read(nsid, slba, blocks),
        5 | 6 => Command::compare(nsid, slba, blocks).with_fuse(Fuse::First),
        7 | 8 => Command::write(nsid, slba, blocks).with_fuse(Fuse::Second),
        9 => Command::flush(nsid),
        10 => Command::deallocate_ranges(nsid, 1 + draw.below(8) as usize),
        _ => match draw.below(4) {
            0 => Command::write_zeroes(nsid, slba, blocks, true),
            1 => Command::verify(nsid, slba, blocks),
            2 => Command::from(DisconnectCommand::new()),
            _ => Command::new(draw.next() as u8, nsid),
        },
    };
    if draw.one_in(12) {
        command.flags = draw.next() as u8;
    }
    let mut bytes = match command.opcode {
        0x01 | 0x02 | 0x05 => blocks * 512,
        0x09 => command.dataset_ranges() as u32 * 16,
        _ => 0,
    };
    if draw.one_in(20) {
        bytes += 512;
    }
    let mut in_capsule = 0;
    command.dptr = match (command.opcode, draw.below(12)) {
        (_, 0) => Descriptor::keyed(0, bytes, 1),
        (0x01 | 0x05 | 0x09, 1 | 2) if bytes <= 4096 => {
            in_capsule = bytes + 64;
            Descriptor::in_capsule(64, bytes)
        }
        (0x01 | 0x05 | 0x09, 3..7) if bytes <= 8192 => {
            in_capsule = bytes;
            Descriptor::in_capsule(0, bytes)
        }
        _ => Descriptor::transport(bytes),
    };
    let mut data = vec![1; in_capsule as usize];
    if command.opcode == 0x09 {
        let from = data.len().saturating_sub(bytes as usize);
        for range in data[from..].chunks_exact_mut(16) {
            range.copy_from_slice(DatasetRange::new(draw.below(1030), draw.below(20) as u32).as_bytes());
        }
    }
    (command, data)
}

/// Anything that an admin queue may be sent.
fn admin_command(draw: &mut Draw) -> Command {
    let configuration = match draw.below(8) {
        0 => Configuration::from_bits(0),
        1 => Configuration::ENABLE_NVM.with_shutdown(ShutdownNotification::Normal),
        2 => Configuration::from_bits(draw.next() as u32),
        _ => Configuration::ENABLE_NVM,
    };
    let mut command = match draw.below(16) {
        0..5 => {
            let sqid = draw.below(3) as u16;
            Command::abort(sqid, draw.below(8) as u16 + if sqid == 1 { 100 } else { 0 })
        }
        5..8 => Command::async_event_request(),
        8 => Command::identify(draw.below(0x20) as u8, draw.below(4) as u32),
        9 => Command::get_log_page(draw.below(0x14) as u8, 0, draw.below(3) * 4, 512),
        10 => Command::get_features(draw.below(0x20) as u8, 0).with_select(draw.below(5) as u8),
        11 => Command::set_features(draw.below(0x20) as u8, 0, draw.next() as u32 & 0x0001_0101),
        12 => Command::from(PropertyGetCommand::new(Property::Csts)),
        13 => Command::from(PropertySetCommand::new(Property::Cc, u64::from(configuration.bits()))),
        14 => Command::from(DisconnectCommand::new()),
        _ => Command::new(draw.next() as u8, draw.below(3) as u32),
    };
    if draw.one_in(20) {
        command.cdw11 = U32::new(draw.next() as u32);
    }
    command.dptr = Descriptor::transport([4096, 512, 16, 8][draw.below(4) as usize]);
    command
}

/// One visit: a controller, an I/O queue, and what comes to mind.
async fn visit(address: SocketAddr, host: u128, mut draw: Draw) {
    let (admin, cntlid) = RawQueue::admin(address, host, 2_000).await;
    let mut io = RawQueue::initialize(address, draw.one_in(2), draw.one_in(2)).await;
    io.connect(1, cntlid, host, 0).await.unwrap();
    let mut queues = [Queue::new(admin), Queue::new(io)];
    for _ in 0..40 + draw.below(40) {
        let which = usize::from(!draw.one_in(4));
        // Few identifiers: some are in flight.
        let cid = 100 + draw.below(8) as u16;
        let (command, data) = match which {
            0 => (admin_command(&mut draw), Vec::new()),
            _ => io_command(&mut draw),
        };
        let cid = if which == 0 { cid } else { cid - 100 };
        if !queues[which].ended {
            queues[which].send(command.with_cid(cid), &data).await;
        }
        if draw.one_in(3) {
            sleep(Duration::from_micros(draw.below(500))).await;
        }
        for queue in &mut queues {
            queue.listen(&mut draw).await;
        }
    }
    // In any order, with anything under way.
    let [admin, io] = queues;
    let (first, second) = if draw.one_in(2) { (admin, io) } else { (io, admin) };
    drop(first);
    sleep(Duration::from_micros(draw.below(2_000))).await;
    drop(second);
}

// Without this some order of commands that nobody thought of could bring the target down, answer a command twice, or
// leave connections, controllers or buffers behind.
#[test]
fn whatever_strangers_send_nothing_is_answered_twice_or_left_behind() {
    for_seeds(150, |seed| {
        let mut draw = Draw::new(seed, 1);
        let config = SimulationConfig { pool_bytes: 4 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1 + draw.below(2) as usize, 1);
        let latencies = Latencies {
            avg_read_latency: 100,
            p99_read_latency: 1_000,
            avg_write_latency: 100,
            p99_write_latency: 1_000,
        };
        let options = DelayOptions { name: "slow".to_owned(), uuid: Some(Uuid::from_u128(8)), latencies };
        let slow: Arc<dyn BlockDevice> =
            Arc::new(DelayDevice::new(malloc("below", 1024, 512), options).unwrap());
        let quick = malloc("quick", 1024, 512);
        world.serve(vec![quick.clone(), slow.clone()]);
        let (address, target) = (world.address(), world.target.clone());
        let left = Rc::new(Cell::new(3));
        for host in 0..left.get() {
            let (left, draw) = (left.clone(), Draw::new(seed, 10 + host));
            world.simulation.spawn(world.host_node, move || async move {
                let mut draw = draw;
                for _ in 0..3 {
                    let visit = visit(address, 70 + u128::from(host), Draw::new(draw.next(), 1));
                    spawn_local(visit).await;
                }
                left.set(left.get() - 1);
            });
        }
        let visiting = left.clone();
        world.simulation.spawn(world.target_node, move || async move {
            while visiting.get() > 0 {
                sleep(Duration::from_micros(500 + draw.below(5_000))).await;
                let device = if draw.one_in(2) { &quick } else { &slow };
                let mut definition = (*target.definition()).clone();
                let subsystem = Arc::make_mut(definition.subsystems.get_mut(NQN).unwrap());
                subsystem.namespaces.remove(&2);
                if !draw.one_in(3) {
                    subsystem.namespaces.insert(2, namespace(&target, 2, device.clone()));
                }
                target.apply(definition).await.unwrap();
            }
        });
        world.simulation.run_until(|| left.get() == 0).unwrap();
        world.expect_target_is_empty(1);
    });
}
