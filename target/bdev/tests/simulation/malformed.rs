//! Hosts that break the protocol, by intent or by damage: they get what the specification says, and others notice
//! nothing. And a target that is short of memory.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use sledge_nvme::command::Fuse;
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Status};
use sledge_nvmf::host::{Controller, QueuePair};
use sledge_nvmf::pdu::{DataHeader, DataKind};
use sledge_reactor::sim::{SimulationConfig, for_seeds};
use sledge_reactor::{TcpStream, now, sleep, spawn_local};

use crate::support::model::{Draw, Worker, fill, stamp_of};
use crate::support::queue::Queue;
use crate::support::raw::{Arrived, RawQueue, read_to_end, write_all};
use crate::support::{World, malloc};

/// Runs strangers beside a host whose I/O must all succeed; then nothing of anybody may be left.
fn beside_a_bystander<F: Future<Output = ()> + 'static>(
    seed: u64,
    strangers: impl FnOnce(std::net::SocketAddr, Draw) -> F,
) {
    let mut draw = Draw::new(seed, 1);
    let config = SimulationConfig { pool_bytes: 8 << 20, ..SimulationConfig::default() };
    let mut world = World::new(seed, config, 1 + draw.below(2) as usize, 1);
    world.serve(vec![malloc("disk", 512, 512), malloc("other", 1024, 512)]);
    let (stop, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let (stopping, finished, options) = (stop.clone(), done.clone(), world.options());
    world.simulation.spawn(world.host_node, || async move {
        let controller = Controller::connect(options).await.unwrap();
        let queue = Queue::new(QueuePair::open(&controller, 1).await.unwrap());
        let mut worker = Worker::new(queue, 0..512, Draw::new(seed, 3), |_| false);
        while !stopping.get() {
            worker.run(4, Duration::ZERO).await;
            sleep(Duration::from_millis(100)).await;
        }
        worker.verify().await;
        controller.shutdown().await.unwrap();
        finished.set(true);
    });
    let address = world.address();
    let node = world.simulation.add_node("stranger", 1);
    world.simulation.block_on(node, || strangers(address, draw)).unwrap();
    stop.set(true);
    world.simulation.run_until(|| done.get()).unwrap();
    world.expect_target_is_empty(1);
}

/// Bytes of a valid ICReq.
fn initialize_request() -> Vec<u8> {
    let mut bytes = vec![0; 128];
    (bytes[0], bytes[2], bytes[4]) = (0, 128, 128);
    bytes
}

// Without this garbage on the port could stay connected, leak, or take the target down.
#[test]
fn garbage_is_closed_in_bounded_time() {
    for_seeds(60, |seed| {
        beside_a_bystander(seed, |address, mut draw| async move {
            let mut tasks = Vec::new();
            for number in 0..10 {
                let mut draw = Draw::new(draw.next(), number);
                tasks.push(spawn_local(async move {
                    let began = now();
                    let stream = TcpStream::connect(address).await.unwrap();
                    let mut bytes = if draw.one_in(2) { initialize_request() } else { Vec::new() };
                    if draw.one_in(3) {
                        bytes.truncate(draw.below(128) as usize);
                    } else {
                        let length = draw.below(2000);
                        bytes.extend((0..length).map(|_| draw.next() as u8));
                    }
                    // The target may close before it has all.
                    let _ = write_all(&stream, &bytes).await;
                    read_to_end(&stream).await;
                    let took = now() - began;
                    assert!(took < Duration::from_secs(13), "garbage stayed connected for {took:?}");
                }));
            }
            for task in tasks {
                task.await;
            }
        });
    });
}

// Without this half an ICReq could hold a connection for ever, or be given no time at all.
#[test]
fn half_an_initialization_ends_at_its_deadline() {
    for_seeds(20, |seed| {
        beside_a_bystander(seed, |address, mut draw| async move {
            let began = now();
            let stream = TcpStream::connect(address).await.unwrap();
            let half = 1 + draw.below(127) as usize;
            write_all(&stream, &initialize_request()[..half]).await.unwrap();
            read_to_end(&stream).await;
            let took = (now() - began).as_secs_f64();
            assert!((9.5..11.5).contains(&took), "closed after {took} s");
        });
    });
}

/// An I/O queue of an enabled controller, with the admin queue that keeps it.
async fn io_queue(
    address: std::net::SocketAddr,
    header_digest: bool,
    data_digest: bool,
) -> (RawQueue, RawQueue) {
    let (admin, cntlid) = RawQueue::admin(address, 77, 0).await;
    let mut io = RawQueue::initialize(address, header_digest, data_digest).await;
    io.connect(1, cntlid, 77, 0).await.unwrap();
    (admin, io)
}

/// A write of 32 KiB whose data is asked for; (command identifier, transfer tag).
async fn large_write(io: &mut RawQueue) -> (u16, u16) {
    let mut command = Command::write(2, 0, 64);
    command.dptr = Descriptor::transport(32_768);
    let cid = io.send(command, &[]).await;
    match io.next().await.unwrap() {
        Arrived::ReadyToTransfer { cid: asked, tag, offset: 0, length: 32_768 } if asked == cid => (cid, tag),
        other => panic!("not the R2T of command {cid}: {other:?}"),
    }
}

fn header(cid: u16, tag: u16) -> DataHeader {
    DataHeader {
        kind: DataKind::HostToController,
        command_id: cid,
        transfer_tag: tag,
        offset: 0,
        length: 32_768,
        last: true,
        success: false,
    }
}

// Without this data could be written through a transfer tag that was never given out.
#[test]
fn a_wrong_transfer_tag_terminates_the_connection() {
    for_seeds(20, |seed| {
        beside_a_bystander(seed, |address, mut draw| async move {
            let (_admin, mut io) = io_queue(address, false, false).await;
            let (cid, tag) = large_write(&mut io).await;
            let wrong = tag.wrapping_add(1 + draw.below(1000) as u16);
            let bytes = io.host_data(header(cid, wrong), &vec![1; 32_768]);
            let _ = write_all(&io.stream, &bytes).await;
            match io.next().await {
                Ok(Arrived::Terminated(0x01, 10)) => {}
                other => panic!("not terminated for the tag: {other:?}"),
            }
            drop(io);
        });
    });
}

// Without this damaged data could be written, or cost the whole connection.
#[test]
fn a_data_digest_error_ends_one_command() {
    for_seeds(20, |seed| {
        beside_a_bystander(seed, |address, mut draw| async move {
            let (_admin, mut io) = io_queue(address, draw.one_in(2), true).await;
            let mut data = vec![0; 32_768];
            fill(&mut data, 0, 512, 5);
            for damaged in [true, false, true] {
                // In the capsule.
                let mut command = Command::write(2, 100, 8).with_cid(1000);
                command.dptr = Descriptor::in_capsule(0, 4096);
                let mut bytes = io.capsule(command, &data[..4096]);
                if damaged {
                    let last = bytes.len() - 1 - draw.below(4096) as usize;
                    bytes[last] ^= 0x10;
                }
                write_all(&io.stream, &bytes).await.unwrap();
                let status = io.completion(1000).await.status();
                assert!(status.is(Status::TRANSIENT_TRANSPORT_ERROR) == damaged, "{status}");
                assert!(status.is_success() != damaged, "{status}");
                // After an R2T.
                let (cid, tag) = large_write(&mut io).await;
                let mut bytes = io.host_data(header(cid, tag), &data);
                if damaged {
                    let last = bytes.len() - 1 - draw.below(32_768) as usize;
                    bytes[last] ^= 0x10;
                }
                write_all(&io.stream, &bytes).await.unwrap();
                let status = io.completion(cid).await.status();
                assert!(status.is(Status::TRANSIENT_TRANSPORT_ERROR) == damaged, "{status}");
                assert!(status.is_success() != damaged, "{status}");
            }
            let mut command = Command::read(2, 0, 64);
            command.dptr = Descriptor::transport(32_768);
            io.send(command, &[]).await;
            match io.next().await.unwrap() {
                Arrived::Data { bytes, .. } => {
                    let mut blocks = bytes.chunks(512).zip(0..);
                    assert!(blocks.all(|(block, lba)| stamp_of(block, lba) == 5), "damaged data was written");
                }
                other => panic!("no data: {other:?}"),
            }
        });
    });
}

// Without this a damaged header could be acted on.
#[test]
fn a_header_digest_error_terminates_the_connection() {
    for_seeds(20, |seed| {
        beside_a_bystander(seed, |address, mut draw| async move {
            let (_admin, mut io) = io_queue(address, true, draw.one_in(2)).await;
            let mut bytes = io.capsule(Command::flush(2).with_cid(9), &[]);
            // In the command: the fields before it are checked even before the digest.
            let at = 8 + draw.below(64) as usize;
            bytes[at] ^= 1 << draw.below(8);
            write_all(&io.stream, &bytes).await.unwrap();
            match io.next().await {
                Ok(Arrived::Terminated(0x03, _)) => {}
                other => panic!("not terminated for the header digest: {other:?}"),
            }
            assert_eq!(read_to_end(&io.stream).await, [], "nothing follows a termination");
        });
    });
}

// Without this large writes of many hosts could wait for each other's buffers for ever.
#[test]
fn a_dry_pool_delays_writes_but_ends_them() {
    let mut dry = 0;
    for_seeds(40, |seed| {
        let mut draw = Draw::new(seed, 1);
        // At most 16 writes of 128 KiB at a time on the target.
        let config = SimulationConfig { pool_bytes: 2 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1, 1);
        let hosts = 3 + draw.below(3);
        world.serve(vec![malloc("disk", hosts * 6 * 256, 512)]);
        let left = Rc::new(Cell::new(hosts));
        for host in 0..hosts {
            let (options, left) = (world.options(), left.clone());
            let node = world.simulation.add_node("another", 1);
            world.simulation.spawn(node, || async move {
                let controller = Controller::connect(options).await.unwrap();
                let queue = Queue::new(QueuePair::open(&controller, 1).await.unwrap());
                let mut tasks = Vec::new();
                for number in 0..6 {
                    let (queue, first) = (queue.clone(), (host * 6 + number) * 256);
                    // Some go in the capsule, among the large ones.
                    let blocks = if number < 4 { 256 } else { 8 };
                    tasks.push(spawn_local(async move {
                        let mut data = vec![0; blocks * 512];
                        for stamp in 1..8 {
                            fill(&mut data, first, 512, stamp);
                            queue.write(first, &data).await;
                        }
                        assert!(
                            queue.read(first, blocks as u32).await == data,
                            "what was written is not there"
                        );
                    }));
                }
                for task in tasks {
                    task.await;
                }
                drop(queue);
                controller.shutdown().await.unwrap();
                left.set(left.get() - 1);
            });
        }
        world.simulation.run_until(|| left.get() == 0).unwrap();
        let refused = async || sledge_reactor::memory::statistics().refused;
        dry += u64::from(world.simulation.block_on(world.target_node, refused).unwrap() > 0);
        world.expect_target_is_empty(1);
    });
    assert!(dry > 0, "no target was ever short of memory");
}

// Without this a small write could wait for a buffer in front of the data that would free one.
#[test]
fn a_small_write_gets_past_large_ones_that_hold_all_buffers() {
    for_seeds(20, |seed| {
        let config = SimulationConfig { pool_bytes: 2 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1, 1);
        world.serve(vec![malloc("disk", 512, 512), malloc("other", 1024, 512)]);
        let address = world.address();
        let host = async move || {
            let (_admin, mut io) = io_queue(address, false, false).await;
            let large = 131_072;
            for _ in 0..20 {
                let mut command = Command::write(2, 0, 256);
                command.dptr = Descriptor::transport(large);
                io.send(command, &[]).await;
            }
            sleep(Duration::from_millis(10)).await;
            let mut command = Command::write(2, 512, 8);
            command.dptr = Descriptor::in_capsule(0, 4096);
            io.send(command, &[1; 4096]).await;
            let mut completed = 0;
            while completed < 21 {
                match io.next().await.unwrap() {
                    Arrived::ReadyToTransfer { cid, tag, .. } => {
                        let header = DataHeader { length: large, ..header(cid, tag) };
                        let bytes = io.host_data(header, &vec![7; large as usize]);
                        write_all(&io.stream, &bytes).await.unwrap();
                    }
                    Arrived::Completion(completion) => {
                        assert!(completion.status().is_success(), "{}", completion.status());
                        completed += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        world.simulation.block_on(world.host_node, host).unwrap();
        world.expect_target_is_empty(1);
    });
}

/// What comes of a future, if it comes in time.
async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut timer) = (pin!(future), pin!(sleep(limit)));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => timer.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// How a host sits on the target's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sitting {
    /// It never sends the data that it was asked for.
    Writes,
    /// It never takes the data that it has asked for.
    Reads,
    /// It never sends the second halves of fused operations.
    FirstHalves,
}

// Without this one host could keep all others from writing, for ever, by not finishing what it has begun.
#[test]
fn buffers_are_taken_from_a_host_that_sits_on_them() {
    for (seed, sitting) in [
        (0, Sitting::Writes),
        (1, Sitting::Writes),
        (2, Sitting::Reads),
        (3, Sitting::Reads),
        (4, Sitting::FirstHalves),
    ] {
        let config = SimulationConfig { pool_bytes: 2 << 20, ..SimulationConfig::default() };
        let mut world = World::new(seed, config, 1, 1);
        world.serve(vec![malloc("disk", 1024, 512), malloc("other", 1024, 512)]);
        let (address, options) = (world.address(), world.options());
        let node = world.simulation.add_node("sitter", 1);
        let ended = Rc::new(Cell::new(false));
        let end = ended.clone();
        world.simulation.spawn(node, || async move {
            let (_admin, cntlid) = RawQueue::admin(address, 77, 0).await;
            let mut queues = Vec::new();
            for number in 0..30 {
                // One queue will do, but each keeps one first half.
                if queues.is_empty() || sitting == Sitting::FirstHalves {
                    let mut io = RawQueue::initialize(address, false, false).await;
                    io.connect(queues.len() as u16 + 1, cntlid, 77, 0).await.unwrap();
                    queues.push(io);
                }
                let Some(io) = queues.last_mut() else { return };
                let mut command = match sitting {
                    Sitting::Writes => Command::write(2, number * 16, 256),
                    Sitting::Reads => Command::read(2, number * 16, 256),
                    Sitting::FirstHalves => Command::compare(2, number * 16, 256).with_fuse(Fuse::First),
                };
                command.dptr = Descriptor::transport(131_072);
                let cid = io.send(command, &[]).await;
                if sitting == Sitting::FirstHalves {
                    // The pool is dry when there is no answer.
                    let asked = within(Duration::from_millis(100), io.next()).await;
                    let Some(Ok(Arrived::ReadyToTransfer { tag, .. })) = asked else { break };
                    let header = DataHeader { length: 131_072, ..header(cid, tag) };
                    let bytes = io.host_data(header, &[0; 131_072]);
                    write_all(&io.stream, &bytes).await.unwrap();
                }
            }
            // It is alive, and says so.
            let Some(io) = queues.first() else { return };
            while io.stream.try_write(&[]).is_ok() && !end.get() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        world.simulation.run_for(Duration::from_secs(1));
        let host = || async move {
            let controller = Controller::connect(options).await.unwrap();
            let queue = Queue::new(QueuePair::open(&controller, 1).await.unwrap());
            let began = now();
            for first in [0, 256] {
                queue.write(first, &vec![3; 131_072]).await;
            }
            let took = now() - began;
            assert!(took < Duration::from_secs(25), "{sitting:?}: two writes took {took:?}");
            drop(queue);
            controller.shutdown().await.unwrap();
        };
        world.simulation.block_on(world.host_node, host).unwrap();
        ended.set(true);
        world.simulation.run_for(Duration::from_secs(2));
        world.expect_target_is_empty(1);
    }
}
