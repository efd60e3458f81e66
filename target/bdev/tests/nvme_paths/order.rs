//! What was written last stays, and what was flushed is flushed, whichever paths commands took.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::delay::{DelayDevice, DelayOptions, Latencies};
use sledge_bdev::malloc::MallocDevice;
use sledge_bdev::nvme::options::{PathMode, PathPolicy, PathSelector, ReconnectPolicy};
use sledge_bdev::nvme::{Controllers, NvmeDevice};
use sledge_nvme::Status;
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::sim::{NodeId, Simulation};
use sledge_reactor::time::{Instant, now, sleep};

use super::support::*;

/// A host with a path to each of some nodes, the first of which is preferred.
fn host_of(
    simulation: &mut Simulation,
    nodes: &[Node],
    reconnect: ReconnectPolicy,
) -> (NodeId, Controllers, Arc<NvmeDevice>) {
    let host = simulation.add_node("host", 1);
    let controllers = controllers(simulation, host);
    let mut made = Vec::new();
    for node in nodes {
        let mut options = attach_options(node.address);
        options.reconnect = reconnect;
        made.extend(attach(simulation, host, &controllers, options).unwrap());
    }
    (host, controllers, made.remove(0))
}

fn usual() -> ReconnectPolicy {
    ReconnectPolicy {
        loss_timeout: None,
        delay: Duration::from_millis(200),
        fast_fail: Some(Duration::from_secs(15)),
    }
}

/// The same disk, whose writes take their time.
fn slow(disk: &Arc<MallocDevice>, latency: Duration) -> Arc<dyn BlockDevice> {
    let microseconds = latency.as_micros() as u64;
    let latencies = Latencies {
        avg_write_latency: microseconds,
        p99_write_latency: microseconds,
        ..Latencies::default()
    };
    let options = DelayOptions { name: "Slow".into(), uuid: Some(disk.uuid()), latencies };
    Arc::new(DelayDevice::new(disk.clone(), options).unwrap())
}

fn write(token: u64, stamp: u64) -> IoCommand {
    let mut io = IoCommand::new(token, Operation::Write, 0, 1);
    io.data = stamped(0, 1, stamp);
    io
}

async fn wait(channel: &mut dyn Channel) -> IoCompletion {
    let mut done = Vec::new();
    while done.is_empty() {
        channel.poll(&mut done);
        sleep(Duration::from_micros(200)).await;
    }
    done.remove(0)
}

// Without it: a write that is on its way over a path that is taken away, and is sent again over another, could arrive
// there once more after a newer one, and undo it.
#[test]
fn a_path_that_is_taken_away_leaves_nothing_behind() {
    // Shorter and longer than the path's removal waits for.
    for latency in [400, 1700] {
        let mut simulation = Simulation::new(21);
        let disk = memory_device("Malloc0", 1, BLOCKS);
        let late = slow(&disk, Duration::from_millis(latency));
        let nodes = [
            Node::start(&mut simulation, "slow", &Served::this(late)),
            Node::start(&mut simulation, "quick", &Served::one(&disk)),
        ];
        let (host, controllers, device) = host_of(&mut simulation, &nodes, usual());
        let first = nodes[0].address.to_string();
        let work = move || async move {
            let mut channel = device.open_channel().unwrap();
            sleep(Duration::from_millis(300)).await;
            assert!(matches!(channel.submit(write(1, 1)), Submitted::Pending));
            channel.poll(&mut Vec::new());
            sleep(Duration::from_millis(20)).await;
            let path = |options: &sledge_bdev::nvme::options::AttachOptions| {
                options.transport.to_string().contains(&first)
            };
            let detaching = controllers.detach("Nvme0", path).unwrap();
            controllers.finish_detach(detaching);
            assert_eq!(wait(&mut *channel).await.status, Status::SUCCESS);
            assert_eq!(run(&mut *channel, vec![write(2, 2)]).await[0].status, Status::SUCCESS);
            sleep(Duration::from_secs(4)).await;
            let done = run(&mut *channel, vec![IoCommand::new(3, Operation::Read, 0, 1)]).await;
            assert_eq!(stamp_of(&content(&done[0].data), 0), 2, "{latency} ms");
        };
        simulation.block_on(host, work).unwrap();
    }
}

// Without it: the same, where the other side closes the connection, though its disk is still at work.
#[test]
fn a_target_that_lets_go_leaves_nothing_behind() {
    let mut simulation = Simulation::new(24);
    let disk = memory_device("Malloc0", 1, BLOCKS);
    let late = slow(&disk, Duration::from_millis(600));
    let served = Served::this(late);
    let mut nodes = [
        Node::start(&mut simulation, "slow", &served),
        Node::start(&mut simulation, "quick", &Served::one(&disk)),
    ];
    let (host, _controllers, device) = host_of(&mut simulation, &nodes, usual());
    let finished: Arc<Mutex<bool>> = Arc::default();
    let place = finished.clone();
    simulation.spawn(host, move || async move {
        let mut channel = device.open_channel().unwrap();
        sleep(Duration::from_millis(300)).await;
        assert!(matches!(channel.submit(write(1, 1)), Submitted::Pending));
        assert_eq!(wait(&mut *channel).await.status, Status::SUCCESS);
        assert_eq!(run(&mut *channel, vec![write(2, 2)]).await[0].status, Status::SUCCESS);
        sleep(Duration::from_secs(2)).await;
        let done = run(&mut *channel, vec![IoCommand::new(3, Operation::Read, 0, 1)]).await;
        assert_eq!(stamp_of(&content(&done[0].data), 0), 2);
        *place.lock().unwrap() = true;
    });
    simulation.run_for(Duration::from_millis(350));
    nodes[0].withdraw(&mut simulation, &served);
    simulation.run_for(Duration::from_secs(6));
    assert!(*finished.lock().unwrap());
}

// Without it: a command that may still be at work elsewhere would be answered, and what its submitter writes next be
// undone by it.
#[test]
fn what_may_still_be_done_is_not_answered() {
    for operation in [Operation::Write, Operation::CompareAndWrite] {
        let mut simulation = Simulation::new(22);
        let disk = memory_device("Malloc0", 1, BLOCKS);
        let nodes = [Node::start(&mut simulation, "one", &Served::one(&disk))];
        let impatient = ReconnectPolicy { fast_fail: Some(Duration::from_millis(200)), ..usual() };
        let (host, _controllers, device) = host_of(&mut simulation, &nodes, impatient);
        let answered: Arc<Mutex<Option<(Instant, Status)>>> = Arc::default();
        let (place, user) = (answered.clone(), device.clone());
        simulation.spawn(host, move || async move {
            let mut channel = user.open_channel().unwrap();
            sleep(Duration::from_millis(300)).await;
            let mut io = IoCommand::new(1, operation, 0, 1);
            io.data = stamped(0, 1, 1);
            if operation == Operation::CompareAndWrite {
                let Some(sledge_reactor::memory::Segment::Buffer(new)) = stamped(0, 1, 2).pop() else {
                    unreachable!()
                };
                io.data.push(new).unwrap();
            }
            assert!(matches!(channel.submit(io), Submitted::Pending));
            channel.poll(&mut Vec::new());
            let done = wait(&mut *channel).await;
            *place.lock().unwrap() = Some((now(), done.status));
        });
        simulation.run_for(Duration::from_millis(299));
        simulation.partition(host, nodes[0].node);
        let mut lost = None;
        for _ in 0..200 {
            simulation.run_for(Duration::from_millis(50));
            if device.routes_up() == 0 {
                lost.get_or_insert(simulation.now());
            }
            if answered.lock().unwrap().is_some() {
                break;
            }
        }
        let (at, status) = answered.lock().unwrap().take().unwrap();
        assert!(!status.is_success() && !status.is_do_not_retry(), "{status}");
        let waited = at - lost.unwrap();
        assert!(waited + Duration::from_millis(200) >= KEEP_ALIVE, "{operation:?}: {waited:?}");
    }
}

// Without it: a write over one path could be lost after a flush that took another: a controller answers a flush for the
// commands that it has completed itself.
#[test]
fn a_flush_goes_wherever_writes_went() {
    let mut simulation = Simulation::new(23);
    let disks = ["One", "Two", "Idle"].map(|name| memory_device(name, 1, BLOCKS));
    let served = disks.each_ref().map(|disk| Served { cached: true, ..Served::one(disk) });
    let names = ["one", "two", "idle"];
    let nodes: Vec<Node> =
        names.iter().zip(&served).map(|(name, served)| Node::start(&mut simulation, name, served)).collect();
    let (host, controllers, device) = host_of(&mut simulation, &nodes[..2], usual());
    let flushes = || disks.each_ref().map(|disk| disk.statistics().flushes.operations);
    let user = device.clone();
    let flush = move || {
        let user = user.clone();
        async move {
            let mut channel = user.open_channel().unwrap();
            sleep(Duration::from_millis(300)).await;
            let done = run(&mut *channel, vec![IoCommand::new(9, Operation::Flush, 0, 0)]).await;
            assert_eq!(done[0].status, Status::SUCCESS);
            assert_eq!(channel.outstanding(), 0);
        }
    };
    simulation.block_on(host, flush.clone()).unwrap();
    assert_eq!(flushes().iter().sum::<u64>(), 1, "nothing was written: any path will do");

    let selector = PathSelector::RoundRobin;
    device.set_policy(PathPolicy { mode: PathMode::ActiveActive, selector, min_io: 1 });
    let user = device.clone();
    let writes = move || async move {
        let mut channel = user.open_channel().unwrap();
        sleep(Duration::from_millis(300)).await;
        let done = run(&mut *channel, (0..4).map(|token| write(token, token)).collect()).await;
        assert!(done.iter().all(|done| done.status == Status::SUCCESS));
    };
    simulation.block_on(host, writes).unwrap();
    attach(&mut simulation, host, &controllers, attach_options(nodes[2].address)).unwrap();
    let before = flushes();
    // Of another channel than wrote.
    simulation.block_on(host, flush).unwrap();
    let after = flushes();
    assert!(after[0] > before[0] && after[1] > before[1], "{before:?} {after:?}");
}
