//! An NVMe device over NVMe/TCP, in the simulator: paths that are lost, come back, change their ANA state or lead to
//! another disk, under load that is verified.
#![allow(clippy::unwrap_used)]

mod drive;
mod order;
mod support;

use std::sync::Arc;
use std::time::Duration;

use sledge_bdev::BlockDevice;
use sledge_bdev::nvme::Change;
use sledge_bdev::nvme::options::{AttachOptions, Multipath, PathMode, PathPolicy, PathSelector};
use sledge_nvme::Status;
use sledge_nvme::io::{IoCommand, Operation};
use sledge_nvmf::target::definition::AnaState;
use sledge_reactor::sim::{LinkConfig, Simulation};
use support::*;

/// Two targets that serve one disk, and a host with a path to each.
struct World {
    simulation: Simulation,
    nodes: [Node; 2],
    host: sledge_reactor::sim::NodeId,
    controllers: sledge_bdev::nvme::Controllers,
    device: Arc<sledge_bdev::nvme::NvmeDevice>,
    served: Served,
}

impl World {
    fn new(seed: u64) -> World {
        let mut simulation = Simulation::new(seed);
        let disk = memory_device("Malloc0", 1, BLOCKS);
        let served = Served::one(&disk);
        let nodes = ["one", "two"].map(|name| Node::start(&mut simulation, name, &served));
        let host = simulation.add_node("host", 2);
        let controllers = controllers(&simulation, host);
        let mut made = Vec::new();
        for node in &nodes {
            // So slow that there are always commands on their way.
            let latency = Duration::from_millis(2)..=Duration::from_millis(9);
            simulation.set_link(host, node.node, LinkConfig { latency, ..LinkConfig::default() });
            made.extend(attach(&mut simulation, host, &controllers, attach_options(node.address)).unwrap());
        }
        assert_eq!(made.len(), 1, "the second path leads to the same device");
        World { simulation, nodes, host, controllers, device: made.remove(0), served }
    }

    fn load(&mut self) -> Progress {
        let (progress, device) = (Progress::default(), self.device.clone());
        let telling = progress.clone();
        self.simulation.spawn(self.host, move || load(device, telling));
        progress
    }

    /// Ends the load.
    fn finish(&mut self, progress: &Progress) -> Tally {
        progress.stop();
        for _ in 0..600 {
            if progress.is_done() {
                return progress.tally();
            }
            self.simulation.run_for(Duration::from_millis(100));
        }
        panic!("seed {}: not done: {:?}", self.simulation.seed(), progress.tally());
    }
}

// Without it: a device of a remote namespace would not show its size and identity, or a path to it could be taken twice,
// or one to another disk.
#[test]
fn a_device_is_its_namespace() {
    let mut world = World::new(1);
    let device = world.device.clone();
    assert_eq!((device.name(), device.product()), ("Nvme0n1", "NVMe disk"));
    assert_eq!(device.uuid(), uuid::Uuid::from_bytes([1; 16]));
    assert_eq!((device.geometry().blocks, device.geometry().block_bytes), (BLOCKS, BLOCK as u32));
    assert_eq!(device.namespace_identity().unwrap().nguid, [1; 16]);
    assert!(device.supports(Operation::CompareAndWrite) && device.supports(Operation::Deallocate));
    let again = attach_options(world.nodes[0].address);
    let error = attach(&mut world.simulation, world.host, &world.controllers, again).unwrap_err();
    assert!(error.contains("exists already"), "{error}");

    let other = Served::one(&memory_device("Malloc1", 2, BLOCKS));
    let stranger = Node::start(&mut world.simulation, "stranger", &other);
    let options = attach_options(stranger.address);
    let error = attach(&mut world.simulation, world.host, &world.controllers, options.clone()).unwrap_err();
    assert!(error.contains("other identifiers"), "{error}");
    let mut alone = options;
    alone.multipath = Multipath::Disable;
    let error = attach(&mut world.simulation, world.host, &world.controllers, alone).unwrap_err();
    assert!(error.contains("multipath is disabled"), "{error}");
    assert_eq!(world.controllers.list(None).unwrap()[0].ctrlrs.len(), 2);

    let detaching = world.controllers.detach("Nvme0", |_| true).unwrap();
    assert_eq!(detaching.devices.len(), 1);
    world.controllers.finish_detach(detaching);
    world.simulation.run_for(Duration::from_secs(1));
    assert_eq!(world.simulation.open_sockets(world.host), 0, "nothing leaks");
    assert!(world.controllers.list(None).unwrap().is_empty());
}

/// Load while paths are reset, cut, and their targets end and begin, one after the other.
fn storm(seed: u64, mode: PathMode) -> (Tally, u64) {
    let mut world = World::new(seed);
    let selector = if seed.is_multiple_of(2) { PathSelector::RoundRobin } else { PathSelector::QueueDepth };
    world.device.set_policy(PathPolicy { mode, selector, min_io: 1 });
    let progress = world.load();
    for round in 0..6u64 {
        // The other path is there again before this one goes.
        world.simulation.run_for(Duration::from_millis(3000 + (seed * 7 + round * 13) % 60));
        let at = ((seed + round / 3) % 2) as usize;
        let (host, node) = (world.host, world.nodes[at].node);
        match (seed + round) % 3 {
            0 => world.simulation.reset_connections(host, node),
            1 => {
                world.simulation.partition(host, node);
                world.simulation.run_for(Duration::from_millis(seed * 997 % 6000));
                world.simulation.heal(host, node);
            }
            _ => {
                world.nodes[at].crash(&mut world.simulation);
                world.simulation.run_for(Duration::from_millis(seed * 331 % 3000));
                let served = world.served.clone();
                world.nodes[at].restart(&mut world.simulation, &served);
            }
        }
    }
    world.simulation.run_for(Duration::from_secs(3));
    let tally = world.finish(&progress);
    (tally, world.simulation.trace_hash())
}

// Without it: a path that is lost could take commands with it, have them answered twice, or let a write that it
// delayed undo a newer one.
#[test]
fn a_lost_path_loses_nothing() {
    for seed in seeds(8) {
        let mode = if seed % 4 < 2 { PathMode::ActivePassive } else { PathMode::ActiveActive };
        let (tally, _) = storm(seed, mode);
        assert!(tally.answered >= 5000, "seed {seed}: {tally:?}");
        // One path is always there, so that nothing has to fail but swaps whose outcome is not known.
        assert!(tally.failed < 40, "seed {seed}: {tally:?}");
        assert!(tally.longest < Duration::from_secs(15), "seed {seed}: {tally:?}");
    }
}

// Without it: a failing seed could not be replayed.
#[test]
fn a_seed_replays_exactly() {
    assert_eq!(storm(3, PathMode::ActiveActive), storm(3, PathMode::ActiveActive));
}

// Without it: I/O could go where the other side said that it must not, or stop while it moves.
#[test]
fn paths_follow_their_ana_state() {
    for seed in seeds(4) {
        let mut world = World::new(seed);
        let progress = world.load();
        let mut states = [AnaState::Optimized, AnaState::Inaccessible];
        for round in 0..6 {
            for (at, state) in states.into_iter().enumerate() {
                world.served.ana = state;
                let served = world.served.clone();
                world.nodes[at].serve(&mut world.simulation, &served);
            }
            world.simulation.run_for(Duration::from_millis(800));
            let paths = world.controllers.io_paths(&world.device);
            let accessible: Vec<bool> = paths.iter().map(|path| path.accessible).collect();
            let expected: Vec<bool> = states.iter().map(|state| state.is_accessible()).collect();
            assert_eq!(accessible, expected, "seed {seed}, round {round}");
            states.reverse();
            if round == 3 {
                // Both are there, one better.
                states = [AnaState::NonOptimized, AnaState::Optimized];
            }
        }
        let current: Vec<bool> =
            world.controllers.io_paths(&world.device).iter().map(|path| path.current).collect();
        assert_eq!(current, [true, false], "the optimized one");
        let tally = world.finish(&progress);
        assert!(tally.answered > 1000 && tally.failed == 0, "seed {seed}: {tally:?}");
    }
}

// Without it: I/O would fail as soon as all paths are lost, though they are back in time; or wait for ever; or a device
// that was lost for long would not come back.
#[test]
fn all_paths_may_be_lost() {
    for (seed, away, fails) in [(1, 4, false), (2, 5, false), (3, 40, true), (4, 60, true)] {
        let mut world = World::new(seed);
        let progress = world.load();
        world.simulation.run_for(Duration::from_secs(1));
        let before = progress.tally();
        for node in &mut world.nodes {
            node.crash(&mut world.simulation);
        }
        world.simulation.run_for(Duration::from_secs(away));
        let lost = progress.tally();
        assert_eq!(lost.failed > 8, fails, "seed {seed}: {lost:?}");
        let served = world.served.clone();
        for node in &mut world.nodes {
            node.restart(&mut world.simulation, &served);
        }
        world.simulation.run_for(Duration::from_secs(8));
        let back = progress.tally();
        assert!(back.answered > lost.answered + 500, "seed {seed}: {before:?} {lost:?} {back:?}");
        assert_eq!(world.device.routes_up(), 2, "seed {seed}");
        let tally = world.finish(&progress);
        // What waits is failed after 15 s, and at once from then on.
        assert!(tally.longest < Duration::from_secs(22), "seed {seed}: {tally:?}");
    }
}

// Without it: the address of a lost target could be taken by another, whose disk would then be written instead.
#[test]
fn another_disk_in_the_old_place_gets_nothing() {
    let mut world = World::new(5);
    let detaching = world
        .controllers
        .detach("Nvme0", |options| {
            format!("{}", options.transport).contains(&world.nodes[1].address.to_string())
        })
        .unwrap();
    assert!(detaching.devices.is_empty());
    world.controllers.finish_detach(detaching);
    let progress = world.load();
    world.simulation.run_for(Duration::from_secs(1));
    world.nodes[0].crash(&mut world.simulation);
    let stranger = memory_device("Malloc9", 9, BLOCKS);
    world.nodes[0].restart(&mut world.simulation, &Served::one(&stranger));
    world.simulation.run_for(Duration::from_secs(30));
    assert!(!world.device.is_up());
    assert_eq!(stranger.statistics().writes.operations, 0);
    assert!(progress.tally().failed > 8, "{:?}", progress.tally());
    world.nodes[0].crash(&mut world.simulation);
    let served = world.served.clone();
    world.nodes[0].restart(&mut world.simulation, &served);
    world.simulation.run_for(Duration::from_secs(6));
    assert!(world.device.is_up());
    world.finish(&progress);
}

// Without it: an I/O larger than the other side takes would fail.
#[test]
fn large_commands_are_cut() {
    let mut simulation = Simulation::new(6);
    let mut served = Served::one(&memory_device("Malloc0", 1, BLOCKS));
    served.transport.max_io_bytes = 8192;
    let node = Node::start(&mut simulation, "small", &served);
    let host = simulation.add_node("host", 1);
    let controllers = controllers(&simulation, host);
    let device = attach(&mut simulation, host, &controllers, attach_options(node.address)).unwrap().remove(0);
    let work = move || async move {
        let mut channel = device.open_channel().unwrap();
        let (slba, blocks) = (3, 77);
        let mut write = IoCommand::new(1, Operation::Write, slba, blocks);
        write.data = stamped(slba, blocks, 42);
        assert_eq!(run(&mut *channel, vec![write]).await[0].status, Status::SUCCESS);
        let done = run(&mut *channel, vec![IoCommand::new(2, Operation::Read, slba, blocks)]).await;
        let bytes = content(&done[0].data);
        assert_eq!(bytes.len(), blocks as usize * BLOCK);
        for (block, lba) in bytes.chunks(BLOCK).zip(slba..) {
            assert_eq!(stamp_of(block, lba), 42);
        }
        let mut compare = IoCommand::new(3, Operation::Compare, slba, blocks);
        compare.data = stamped(slba, blocks, 43);
        assert!(run(&mut *channel, vec![compare]).await[0].status.is(Status::COMPARE_FAILURE));
        assert_eq!(channel.outstanding(), 0);
    };
    simulation.block_on(host, work).unwrap();
}

// Without it: each channel that is closed before its queue is open would take a queue of the controller's with it, until
// there is none left.
#[test]
fn queues_that_nobody_waits_for_are_given_back() {
    let mut simulation = Simulation::new(9);
    let node = Node::start(&mut simulation, "one", &Served::one(&memory_device("Malloc0", 1, BLOCKS)));
    let host = simulation.add_node("host", 1);
    let latency = Duration::from_millis(2)..=Duration::from_millis(9);
    simulation.set_link(host, node.node, LinkConfig { latency, ..LinkConfig::default() });
    let controllers = controllers(&simulation, host);
    let options = AttachOptions { io_queues: 1, ..attach_options(node.address) };
    let device = attach(&mut simulation, host, &controllers, options).unwrap().remove(0);
    let work = move || async move {
        for pause in [1, 5, 10, 15, 20] {
            let channel = device.open_channel().unwrap();
            sledge_reactor::sleep(Duration::from_millis(pause)).await;
            drop(channel);
        }
        let mut channel = device.open_channel().unwrap();
        let mut write = IoCommand::new(1, Operation::Write, 0, 1);
        write.data = stamped(0, 1, 7);
        assert_eq!(run(&mut *channel, vec![write]).await[0].status, Status::SUCCESS);
    };
    simulation.block_on(host, work).unwrap();
}

// Without it: a namespace that is added, grows or goes elsewhere would be seen only after a restart.
#[test]
fn changes_are_announced() {
    let mut world = World::new(7);
    world.served.devices.insert(1, memory_device("Larger", 1, 2 * BLOCKS));
    world.served.devices.insert(2, memory_device("Malloc2", 2, BLOCKS));
    world.served.instances += 1;
    let served = world.served.clone();
    for node in &mut world.nodes {
        node.serve(&mut world.simulation, &served);
    }
    world.simulation.run_for(Duration::from_secs(2));
    let name = |change: &Change| match change {
        Change::Appeared(device) => format!("{} appeared", device.name()),
        Change::Grown(device, geometry) => format!("{} grew to {}", device.name(), geometry.blocks),
        Change::Vanished(device) => format!("{} vanished", device.name()),
    };
    let mut seen: Vec<String> = world.controllers.take_changes().iter().map(name).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, [format!("Nvme0n1 grew to {}", 2 * BLOCKS), "Nvme0n2 appeared".to_owned()]);
    world.served.devices.remove(&2);
    let served = world.served.clone();
    for node in &mut world.nodes {
        node.serve(&mut world.simulation, &served);
    }
    world.simulation.run_for(Duration::from_secs(2));
    let seen: Vec<String> = world.controllers.take_changes().iter().map(name).collect();
    assert!(seen.contains(&"Nvme0n2 vanished".to_owned()), "{seen:?}");
}

// Without it: a person could not reset, switch off and switch on a controller, or a path that was given up would stay
// so until the next start.
#[test]
fn controllers_are_switched_off_and_on() {
    let mut world = World::new(8);
    let progress = world.load();
    world.simulation.run_for(Duration::from_millis(500));
    let cntlid = world.controllers.list(None).unwrap()[0].ctrlrs[0].cntlid;
    let act = |world: &mut World, what: &'static str| {
        let controllers = world.controllers.clone();
        let done = move || async move {
            match what {
                "reset" => controllers.reset("Nvme0", Some(cntlid)).await,
                "disable" => controllers.disable("Nvme0", None).await,
                _ => controllers.enable("Nvme0", None).await,
            }
        };
        let result = world.simulation.block_on(world.host, done).unwrap();
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    act(&mut world, "reset");
    world.simulation.run_for(Duration::from_secs(2));
    assert_eq!(world.device.routes_up(), 2);
    act(&mut world, "disable");
    world.simulation.run_for(Duration::from_millis(200));
    assert_eq!(world.device.routes_up(), 0);
    assert_eq!(world.controllers.list(None).unwrap()[0].ctrlrs[1].state, "disabled");
    act(&mut world, "enable");
    world.simulation.run_for(Duration::from_secs(2));
    assert_eq!(world.device.routes_up(), 2);
    let before = progress.tally();
    world.simulation.run_for(Duration::from_secs(1));
    assert!(progress.tally().answered > before.answered + 100);
    world.finish(&progress);
}
