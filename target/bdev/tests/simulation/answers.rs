//! What single commands are answered with, and what the target then says about them in its logs, to a host made by
//! hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies};
use sledge_nvme::command::{DatasetRange, Fuse};
use sledge_nvme::fabrics::{
    ConnectAttributes, ConnectCommand, ConnectData, PropertyGetCommand, PropertySetCommand,
};
use sledge_nvme::property::Property;
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Completion, Status};
use sledge_nvmf::digest::digest;
use sledge_nvmf::pdu::InitializeRequest;
use sledge_nvmf::target::{TargetDefinition, TransportOptions};
use sledge_reactor::sim::SimulationConfig;
use sledge_reactor::{TcpStream, sleep};
use uuid::Uuid;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use crate::support::raw::{Arrived, PLAIN, RawQueue, queues, read_pdu, read_to_end, with_a_disk, write_all};
use crate::support::{World, malloc, options};

/// As [`with_a_disk`], with a disk that takes a second for each command.
fn with_a_slow_disk<F: Future<Output = ()> + 'static>(host: impl FnOnce(SocketAddr) -> F) {
    let mut world = World::new(1, SimulationConfig::default(), 2, 1);
    let latencies = Latencies {
        avg_read_latency: 1_000_000,
        p99_read_latency: 1_000_000,
        avg_write_latency: 1_000_000,
        p99_write_latency: 1_000_000,
    };
    let options = DelayOptions { name: "slow".to_owned(), uuid: Some(Uuid::from_u128(8)), latencies };
    world.serve(vec![Arc::new(DelayDevice::new(malloc("below", 1024, 512), options).unwrap())]);
    let address = world.address();
    world.simulation.block_on(world.host_node, || host(address)).unwrap();
    world.expect_target_is_empty(1);
}

/// Connects an I/O queue of 32 entries without submission queue flow control; its completion.
async fn connect_without_flow_control(io: &mut RawQueue, qid: u16, cntlid: u16) -> Completion {
    let host = options("0.0.0.0:1".parse().unwrap(), 77);
    let data = ConnectData::new(host.host.id, cntlid, &host.subsystem, &host.host.nqn);
    let mut connect = ConnectCommand::new(qid, 32, 0);
    connect.attributes = ConnectAttributes::default().with_disable_flow_control(true).bits();
    io.execute(Command::from(connect), data.as_bytes()).await
}

/// Reads `bytes` of a log page.
async fn log_page(admin: &mut RawQueue, page: u8, bytes: u32) -> Vec<u8> {
    let mut command = Command::get_log_page(page, 0, 0, bytes);
    command.dptr = Descriptor::transport(bytes);
    admin.read(command).await
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn ranges(slba: u64, blocks: u32) -> Vec<u8> {
    let range = DatasetRange { slba: U64::new(slba), blocks: U32::new(blocks), ..Default::default() };
    range.as_bytes().to_vec()
}

// Without this hints could be taken for namespaces and blocks that are not there.
#[test]
fn dataset_management_is_checked_whatever_it_asks_for() {
    with_a_disk(|address| async move {
        let (_admin, mut io) = queues(address).await;
        for deallocate in [false, true] {
            for (nsid, slba, expected) in [
                (1, 0, Status::SUCCESS),
                (7, 0, Status::INVALID_NAMESPACE_OR_FORMAT),
                (1, 1020, Status::LBA_OUT_OF_RANGE),
            ] {
                let mut command = Command::deallocate_ranges(nsid, 1);
                if !deallocate {
                    command.cdw11 = U32::new(0);
                }
                command.dptr = Descriptor::in_capsule(0, 16);
                let status = io.execute(command, &ranges(slba, 8)).await.status();
                assert!(
                    status.is(expected),
                    "deallocate {deallocate}, namespace {nsid}, block {slba}: {status}"
                );
            }
        }
    });
}

// Without this `nvme error-log` would name blocks that no command was about, or miss those that one was.
#[test]
fn error_log_entries_name_the_blocks_of_commands_that_have_some() {
    with_a_disk(|address| async move {
        let (mut admin, mut io) = queues(address).await;
        let mut read = Command::read(1, 5000, 8);
        read.dptr = Descriptor::transport(4096);
        assert!(io.execute(read, &[]).await.status().is(Status::LBA_OUT_OF_RANGE));
        let mut hint = Command::deallocate_ranges(9, 1);
        hint.dptr = Descriptor::in_capsule(0, 16);
        let hinted = io.execute(hint, &ranges(3, 1)).await;
        assert!(hinted.status().is(Status::INVALID_NAMESPACE_OR_FORMAT) && hinted.status().is_more());
        // Both queues are on reactors of their own: the entries are messages.
        sleep(Duration::from_millis(10)).await;
        let log = log_page(&mut admin, 0x01, 128).await;
        let (newest, older) = log.split_at(64);
        assert_eq!(
            (word(newest, 0), newest[8], newest[31], word(newest, 16), newest[24]),
            (2, 1, 0x09, 0, 9)
        );
        assert_eq!((word(older, 0), older[8], older[31], word(older, 16), older[24]), (1, 1, 0x02, 5000, 1));
        assert_eq!(&newest[10..12], hinted.cid.as_bytes());
    });
}

// Without this the error log would not say which field of a refused command was wrong, or blame one that is right.
#[test]
fn error_log_entries_name_the_field_that_is_wrong() {
    let (capsule, transport) = (Descriptor::in_capsule(0, 512), Descriptor::transport(512));
    let with = |mut command: Command, descriptor, edit: fn(&mut Command)| {
        command.dptr = descriptor;
        edit(&mut command);
        command
    };
    let (read, write) = (Command::read(1, 0, 1), Command::write(1, 0, 1));
    let keep = |_: &mut Command| ();
    // (command, data bytes, byte, bit)
    let cases: Vec<(Command, usize, u16, u16)> = vec![
        (Command::new(0x7d, 1), 0, 0, 0),
        (with(read, transport, |command| command.flags |= 0xc0), 0, 1, 6),
        (with(read, transport, |command| command.flags |= 1), 0, 1, 0),
        (with(Command::read(9, 0, 1), transport, keep), 0, 4, 0),
        (Command::flush(9), 0, 4, 0),
        (with(write, Descriptor::in_capsule(600, 512), keep), 512, 24, 0),
        (with(write, Descriptor::in_capsule(0, 1024), keep), 1024, 32, 0),
        (with(read, Descriptor::transport(511), keep), 0, 32, 0),
        (with(read, capsule, keep), 0, 39, 0),
        (with(Command::read(1, 2000, 1), transport, keep), 0, 40, 0),
        (Command::write_zeroes(1, 1023, 2, false), 0, 40, 0),
        (with(Command::read(1, 0, 257), Descriptor::transport(257 * 512), keep), 0, 48, 0),
        (with(read, transport, |command| command.cdw12 = U32::new(1 << 29)), 0, 51, 2),
    ];
    with_a_disk(|address| async move {
        let (mut admin, mut io) = queues(address).await;
        for (command, bytes, byte, bit) in cases {
            let completion = io.execute(command, &vec![0; bytes]).await;
            assert!(completion.status().is_more(), "{command:?}: {}", completion.status());
            sleep(Duration::from_millis(10)).await;
            let entry = log_page(&mut admin, 0x01, 64).await;
            assert_eq!(&entry[10..12], completion.cid.as_bytes());
            assert_eq!(u16::from_le_bytes([entry[14], entry[15]]), byte | bit << 8, "{command:?}");
        }
        // A compare that finds a difference is right in every field.
        let mut compare = Command::compare(1, 0, 1);
        compare.dptr = capsule;
        assert!(io.execute(compare, &[1; 512]).await.status().is(Status::COMPARE_FAILURE));
        sleep(Duration::from_millis(10)).await;
        assert_eq!(log_page(&mut admin, 0x01, 64).await[14..16], [0xff, 0xff]);
        // On the admin queue.
        for (command, byte) in [
            (
                Command::from(PropertyGetCommand {
                    offset: U32::new(0x30),
                    ..PropertyGetCommand::new(Property::Cap)
                }),
                44,
            ),
            (Command::from(PropertySetCommand::new(Property::Csts, 0)), 44),
            (Command::from(PropertySetCommand::new(Property::Cc, 3 << 14 | 1)), 48),
            (Command::keep_alive().with_fuse(Fuse::First), 1),
        ] {
            let completion = admin.execute(command, &[]).await;
            assert!(completion.status().is(Status::INVALID_FIELD), "{command:?}: {}", completion.status());
            assert_eq!(log_page(&mut admin, 0x01, 64).await[14..16], [byte, 0], "{command:?}");
        }
    });
}

// Without this two commands could be in flight under one identifier, and the host take the answer of the one for that of
// the other.
#[test]
fn an_identifier_in_flight_is_refused() {
    with_a_slow_disk(|address| async move {
        let (_admin, mut io) = queues(address).await;
        for round in 0..3 {
            let mut write = Command::write(1, 0, 8).with_cid(9);
            write.dptr = Descriptor::in_capsule(0, 4096);
            for (command, data) in
                [(Command::flush(1).with_cid(9), vec![]), (write, vec![1; 4096]), (write, vec![1; 4096])]
            {
                write_all(&io.stream, &io.capsule(command, &data)).await.unwrap();
            }
            // What is refused is answered at once, the flush after its second.
            for expected in [Status::COMMAND_ID_CONFLICT, Status::COMMAND_ID_CONFLICT, Status::SUCCESS] {
                let status = io.completion(9).await.status();
                assert!(status.is(expected), "round {round}: {status}");
            }
        }
        let mut read = Command::read(1, 0, 8);
        read.dptr = Descriptor::transport(4096);
        assert!(io.read(read).await.iter().all(|byte| *byte == 0), "a refused write was executed");
    });
}

// Without this data that lies behind something else in a capsule, as Identify Controller says it may (SGLS bit 20), would
// be refused or taken from the wrong place.
#[test]
fn data_may_start_behind_the_capsules_beginning() {
    for (header_digest, data_digest) in [(false, false), (true, true)] {
        with_a_disk(move |address| async move {
            let (_admin, cntlid) = RawQueue::admin(address, 77, 0).await;
            let mut io = RawQueue::initialize(address, header_digest, data_digest).await;
            io.connect(1, cntlid, 77, 0).await.unwrap();
            for (offset, blocks) in [(4, 1), (512, 1), (16, 8), (4096, 8)] {
                let bytes = blocks as usize * 512;
                let data: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
                let capsule = [vec![0xee; offset], data.clone()].concat();
                let mut write = Command::write(1, 0, blocks);
                write.dptr = Descriptor::in_capsule(offset as u64, bytes as u32);
                let status = io.execute(write, &capsule).await.status();
                assert!(status.is_success(), "offset {offset}: {status}");
                let mut read = Command::read(1, 0, blocks);
                read.dptr = Descriptor::transport(bytes as u32);
                assert!(io.read(read).await == data, "offset {offset}: other data than was sent");
                let range =
                    DatasetRange { slba: U64::new(0), blocks: U32::new(blocks), ..Default::default() };
                let mut free = Command::deallocate_ranges(1, 1);
                free.dptr = Descriptor::in_capsule(offset as u64, 16);
                let capsule = [vec![0xee; offset], range.as_bytes().to_vec()].concat();
                assert!(io.execute(free, &capsule).await.status().is_success());
                assert!(io.read(read).await.iter().all(|byte| *byte == 0), "offset {offset}: not freed");
            }
        });
    }
}

// Without this a target with small I/O queues could not be connected to at all: Linux asks for 32 entries for the admin
// queue, the least that the discovery log may promise.
#[test]
fn an_admin_queue_may_have_32_entries_whatever_io_queues_may() {
    let mut world = World::new(1, SimulationConfig::default(), 1, 1);
    let transport = TransportOptions { max_queue_depth: 16, ..TransportOptions::default() };
    let definition = world.definition(vec![malloc("disk", 1024, 512)]);
    world.apply(TargetDefinition { transport, ..definition });
    let address = world.address();
    let host = || async move {
        let (_admin, cntlid) = RawQueue::admin(address, 77, 0).await;
        let mut io = RawQueue::initialize(address, false, false).await;
        let refused = io.connect(1, cntlid, 77, 0).await.unwrap_err();
        assert!(refused.is(Status::CONNECT_INVALID_PARAMETERS), "{refused}");
    };
    world.simulation.block_on(world.host_node, host).unwrap();
    world.expect_target_is_empty(1);
}

// Without this a flush of all namespaces, or a command with many ranges, could take the stack of the whole target.
#[test]
fn commands_of_many_parts_take_no_stack_for_each() {
    const NAMESPACES: usize = 2000;
    let mut world = World::new(1, SimulationConfig::default(), 1, 1);
    world.serve((0..NAMESPACES).map(|_| malloc("disk", 8, 512)).collect());
    let address = world.address();
    let host = || async move {
        let (_admin, mut io) = queues(address).await;
        assert!(io.execute(Command::flush(!0), &[]).await.status().is_success());
        let mut free = Command::deallocate_ranges(1, 256);
        free.dptr = Descriptor::in_capsule(0, 4096);
        assert!(io.execute(free, &ranges(3, 1).repeat(256)).await.status().is_success());
    };
    world.simulation.block_on(world.host_node, host).unwrap();
    world.expect_target_is_empty(1);
}

// Without this SMART would leave out what fused writes and verifies have moved.
#[test]
fn health_counts_every_kind_of_command() {
    with_a_disk(|address| async move {
        let (mut admin, mut io) = queues(address).await;
        let small = Descriptor::in_capsule(0, 512);
        for _ in 0..2000 {
            let (mut compare, mut write) = (Command::compare(1, 0, 1), Command::write(1, 0, 1));
            (compare.dptr, write.dptr) = (small, small);
            io.send(compare.with_fuse(Fuse::First), &[0; 512]).await;
            io.send(write.with_fuse(Fuse::Second), &[0; 512]).await;
            for _ in 0..2 {
                match io.next().await.unwrap() {
                    Arrived::Completion(completion) => {
                        assert!(completion.status().is_success(), "{}", completion.status())
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        // A verify of 3,000 blocks' worth; the disk has 1,024.
        for _ in 0..3 {
            assert!(io.execute(Command::verify(1, 0, 1000), &[]).await.status().is_success());
        }
        let health = log_page(&mut admin, 0x02, 512).await;
        let counters: Vec<u64> = (32..96).step_by(16).map(|at| word(&health, at)).collect();
        // Units of 1,000 blocks read and written, commands read and written.
        assert_eq!(counters, [5, 2, 2000, 2000]);
    });
}

// Without this the controller would seem to have been idle for all its life.
#[test]
fn busy_time_is_that_with_commands_outstanding() {
    with_a_slow_disk(|address| async move {
        let (mut admin, mut io) = queues(address).await;
        let busy_minutes = async |admin: &mut RawQueue| word(&log_page(admin, 0x02, 512).await, 96);
        // Two at a time: the time counts once.
        for _ in 0..61 {
            let cids = [io.send(Command::flush(1), &[]).await, io.send(Command::flush(1), &[]).await];
            for cid in cids {
                assert!(io.completion(cid).await.status().is_success());
            }
        }
        assert_eq!(busy_minutes(&mut admin).await, 1);
        sleep(Duration::from_secs(70)).await;
        io.execute(Command::flush(1), &[]).await;
        assert_eq!(busy_minutes(&mut admin).await, 1);
    });
}

// Without this a host that does without flow control would not know that the target agrees (SQHD FFFFh in the answer to
// Connect), and would never be spared a response.
#[test]
fn flow_control_is_left_out_when_the_host_asks_for_it() {
    with_a_disk(|address| async move {
        let (mut admin, cntlid) = RawQueue::admin(address, 77, 0).await;
        let mut with = RawQueue::initialize(address, false, false).await;
        with.connect(1, cntlid, 77, 0).await.unwrap();
        let mut without = RawQueue::initialize(address, false, false).await;
        let connected = connect_without_flow_control(&mut without, 2, cntlid).await;
        assert!(connected.status().is_success(), "{}", connected.status());
        assert_eq!(connected.sqhd.get(), 0xffff);
        // With flow control the head goes round the 32 entries, of which the Connect took the first.
        for number in 2..70 {
            assert_eq!(with.execute(Command::flush(1), &[]).await.sqhd.get(), number % 32);
        }
        let mut read = Command::read(1, 0, 1);
        read.dptr = Descriptor::transport(512);
        for (queue, spared) in [(&mut with, false), (&mut without, true)] {
            let cid = queue.send(read, &[]).await;
            match queue.next().await.unwrap() {
                Arrived::Data { cid: of, success, .. } => assert_eq!((of, success), (cid, spared)),
                other => panic!("{other:?}"),
            }
        }
        assert!(admin.csts().await.ready());
    });
}

// Without this a host that goes by SQHD and MAXCMD would be cut off: the entries of commands that were taken are free
// again, whether or not the commands are done.
#[test]
fn more_commands_than_entries_may_be_outstanding() {
    with_a_slow_disk(|address| async move {
        let (_admin, mut io) = queues(address).await;
        for round in 1..=3 {
            for _ in 0..30 {
                io.send(Command::flush(1), &[]).await;
            }
            // Answered at once, with the head behind all that were sent.
            let unknown = io.execute(Command::new(0x7e, 1), &[]).await;
            assert!(unknown.status().is(Status::INVALID_OPCODE));
            assert_eq!(unknown.sqhd.get(), (1 + round * 31) % 32);
        }
        for _ in 0..90 {
            match io.next().await.unwrap() {
                Arrived::Completion(completion) => assert!(completion.status().is_success()),
                other => panic!("{other:?}"),
            }
        }
    });
}

// Without this a host that does without flow control could have commands outstanding without bound.
#[test]
fn without_flow_control_the_entries_are_the_bound() {
    with_a_slow_disk(|address| async move {
        let (_admin, cntlid) = RawQueue::admin(address, 77, 0).await;
        let mut io = RawQueue::initialize(address, false, false).await;
        connect_without_flow_control(&mut io, 1, cntlid).await;
        for _ in 0..33 {
            io.send(Command::flush(1), &[]).await;
        }
        match io.next().await {
            Ok(Arrived::Terminated(0x02, _)) => {}
            other => panic!("not terminated for the sequence: {other:?}"),
        }
    });
}

// Without this answers of commands that were in flight, or requests for their data, could follow a C2HTermReq.
#[test]
fn nothing_follows_a_termination() {
    let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
    let mut world = World::new(1, config, 1, 1);
    let latencies = Latencies { avg_write_latency: 5_000, p99_write_latency: 5_000, ..Latencies::default() };
    let slow = DelayOptions { name: "slow".to_owned(), uuid: Some(Uuid::from_u128(8)), latencies };
    world.serve(vec![Arc::new(DelayDevice::new(malloc("below", 1024, 512), slow).unwrap())]);
    let address = world.address();
    let host = || async move {
        let (_admin, mut io) = queues(address).await;
        io.send(Command::flush(1), &[]).await;
        write_all(&io.stream, &[0xff; 8]).await.unwrap();
        match io.next().await {
            Ok(Arrived::Terminated(0x01, 0)) => {}
            other => panic!("not terminated for the type: {other:?}"),
        }
        assert_eq!(read_to_end(&io.stream).await, []);
    };
    world.simulation.block_on(world.host_node, host).unwrap();
    world.expect_target_is_empty(1);
}

// Without this a target that takes no data in the capsules of I/O commands could not be connected to: the admin queue
// and Connect have 8 KiB whatever IOCCSZ says, and other commands no more than that says.
#[test]
fn connect_data_may_come_in_the_capsule_whatever_ioccsz_says() {
    for in_capsule in [0, 4096] {
        let mut world = World::new(1, SimulationConfig::default(), 1, 1);
        let transport = TransportOptions { in_capsule_data_bytes: in_capsule, ..TransportOptions::default() };
        let definition = world.definition(vec![malloc("disk", 1024, 512)]);
        world.apply(TargetDefinition { transport, ..definition });
        let address = world.address();
        let host = move || async move {
            let (mut admin, mut io) = queues(address).await;
            let mut timestamp = Command::set_features(0x0e, 0, 0);
            timestamp.dptr = Descriptor::in_capsule(0, 8);
            assert!(admin.execute(timestamp, &[1, 0, 0, 0, 0, 0, 0, 0]).await.status().is_success());
            let bytes = in_capsule + 512;
            let mut write = Command::write(1, 0, bytes / 512);
            write.dptr = Descriptor::in_capsule(0, bytes);
            io.send(write, &vec![0; bytes as usize]).await;
            match io.next().await {
                Ok(Arrived::Terminated(0x05, _)) => {}
                other => panic!("not terminated for the limit: {other:?}"),
            }
        };
        world.simulation.block_on(world.host_node, host).unwrap();
        world.expect_target_is_empty(1);
    }
}

// Without this a host could not read a log page in pieces of the size that MDTS offers.
#[test]
fn a_log_page_may_be_read_in_pieces_of_any_size_that_mdts_allows() {
    let mut world = World::new(1, SimulationConfig::default(), 1, 1);
    let transport = TransportOptions { max_io_bytes: 1 << 20, ..TransportOptions::default() };
    let definition = world.definition(vec![malloc("disk", 1024, 512)]);
    world.apply(TargetDefinition { transport, ..definition });
    let address = world.address();
    let host = || async move {
        let (mut admin, _) = RawQueue::admin(address, 77, 0).await;
        let page = log_page(&mut admin, 0x01, 1 << 20).await;
        assert_eq!((page.len(), page.iter().all(|byte| *byte == 0)), (1 << 20, true));
        let mut more = Command::get_log_page(0x01, 0, 0, (1 << 20) + 4);
        more.dptr = Descriptor::transport((1 << 20) + 4);
        assert!(admin.execute(more, &[]).await.status().is(Status::INVALID_FIELD));
    };
    world.simulation.block_on(world.host_node, host).unwrap();
    world.expect_target_is_empty(1);
}

// Without this a host that needs its data aligned (HPDA) could not take it, or take padding for data.
#[test]
fn data_starts_where_the_host_wants_it() {
    for (data_alignment, header_digest, data_digest) in
        [(0, false, false), (0, true, true), (3, false, true), (7, true, false), (31, true, true)]
    {
        with_a_disk(move |address| async move {
            let (_admin, cntlid) = RawQueue::admin(address, 77, 0).await;
            let request = InitializeRequest { data_alignment, header_digest, data_digest, ..PLAIN };
            let stream = TcpStream::connect(address).await.unwrap();
            let mut io = RawQueue::over(stream, request).await;
            io.connect(1, cntlid, 77, 0).await.unwrap();
            let mut write = Command::write(1, 0, 2);
            write.dptr = Descriptor::in_capsule(0, 1024);
            let data: Vec<u8> = (0..1024).map(|at| (at % 251) as u8).collect();
            assert!(io.execute(write, &data).await.status().is_success());
            let mut read = Command::read(1, 0, 2);
            read.dptr = Descriptor::transport(1024);
            io.send(read, &[]).await;
            let pdu = read_pdu(&io.stream).await.unwrap();
            let start = usize::from(pdu[3]);
            let digest_bytes = |used| if used { 4 } else { 0 };
            let unit = 4 * (usize::from(data_alignment) + 1);
            assert_eq!(start, (24_usize + digest_bytes(header_digest)).next_multiple_of(unit));
            assert_eq!(pdu[start..start + 1024], data);
            assert_eq!(pdu.len(), start + 1024 + digest_bytes(data_digest));
            if data_digest {
                assert_eq!(pdu[start + 1024..], digest(&data).to_le_bytes());
            }
        });
    }
}
