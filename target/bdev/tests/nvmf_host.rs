//! Host and target of this crate together, in the simulator.
#![allow(clippy::unwrap_used)]

mod host_support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use host_support::*;
use sledge_nvme::Status;
use sledge_nvme::async_event::Notice;
use sledge_nvme::fabrics::Nqn;
use sledge_nvme::io::{Channel, IoCommand, Operation};
use sledge_nvmf::host::{Controller, HostError, HostIdentity, OnLoss, QueuePair, QueuePairState, discover};
use sledge_nvmf::target::{Target, TransportOptions};
use sledge_reactor::random_u64;
use sledge_reactor::sim::Simulation;
use sledge_reactor::time::{now, sleep};

fn io(token: u64, operation: Operation, slba: u64, blocks: u32, data: &[u8]) -> IoCommand {
    let mut command = IoCommand::new(token, operation, slba, blocks);
    if !data.is_empty() {
        command.data = memory(data);
    }
    command
}

// Without it no test would connect the two sides: every operation, through capsules, R2T and C2HData, each digest.
#[test]
fn every_operation_works_over_the_wire() {
    for (header_digest, data_digest) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut simulation = Simulation::new(u64::from(header_digest) * 2 + u64::from(data_digest));
        let (target, host) = (simulation.add_node("target", 2), simulation.add_node("host", 1));
        let device = device();
        let address = start_target(&mut simulation, target, &device, TransportOptions::default());
        let work = move || async move {
            let mut options = options(address);
            (options.header_digest, options.data_digest) = (header_digest, data_digest);
            let controller = Controller::connect(options).await.unwrap();
            assert_eq!(controller.active_namespaces().await.unwrap(), [1]);
            let geometry = controller.geometry(1).await.unwrap();
            assert_eq!((geometry.blocks, geometry.block_bytes), (BLOCKS, BLOCK as u32));
            let mut pair = QueuePair::open(&controller, 1).await.unwrap();

            let small: Vec<u8> = (0..4 * BLOCK).map(|at| (at % 251) as u8).collect();
            let large: Vec<u8> = (0..128 * BLOCK).map(|at| (at % 249) as u8).collect();
            let statuses: Vec<Status> = run(
                &mut pair,
                vec![
                    io(0, Operation::Write, 0, 4, &small),
                    io(1, Operation::Write, 100, 128, &large),
                    io(2, Operation::Flush, 0, 0, &[]),
                    io(3, Operation::Write, BLOCKS, 1, &small[..BLOCK]),
                ],
            )
            .await
            .into_iter()
            .map(|completion| completion.status)
            .collect();
            assert_eq!(statuses[..3], [Status::SUCCESS; 3]);
            assert_eq!(statuses[3], Status::LBA_OUT_OF_RANGE.do_not_retry());

            let done = run(
                &mut pair,
                vec![
                    io(0, Operation::Read, 0, 4, &[]),
                    io(1, Operation::Read, 100, 128, &[]),
                    io(2, Operation::Compare, 0, 4, &small),
                    io(3, Operation::Compare, 1, 4, &small),
                    io(4, Operation::Verify, 0, 4, &[]),
                ],
            )
            .await;
            assert_eq!(content(&done[0].data), small);
            assert_eq!(content(&done[1].data), large);
            assert_eq!(done[2].status, Status::SUCCESS);
            assert!(done[3].status.is(Status::COMPARE_FAILURE), "{}", done[3].status);
            assert_eq!(done[4].status, Status::SUCCESS);

            let pairs = [[&small[..BLOCK], &[9; BLOCK]].concat(), [&[1; BLOCK][..], &[9; BLOCK]].concat()];
            for (data, expected) in pairs.iter().zip([Status::SUCCESS, Status::COMPARE_FAILURE]) {
                let done = run(&mut pair, vec![io(0, Operation::CompareAndWrite, 0, 1, data)]).await;
                assert!(done[0].status.is(expected), "{}", done[0].status);
            }
            // Each half may be as large as MDTS; more is refused here.
            let most = pair.max_transfer_bytes().unwrap() as usize;
            let before = run(&mut pair, vec![io(0, Operation::Read, 256, (most / BLOCK) as u32, &[])]).await;
            let both = [content(&before[0].data), vec![7; most]].concat();
            let whole = io(0, Operation::CompareAndWrite, 256, (most / BLOCK) as u32, &both);
            let after = io(1, Operation::Read, 256, (most / BLOCK) as u32, &[]);
            assert_eq!(run(&mut pair, vec![whole]).await[0].status, Status::SUCCESS);
            assert_eq!(content(&run(&mut pair, vec![after]).await[0].data), vec![7; most]);
            let more = vec![0; 2 * (most + BLOCK)];
            let more = io(0, Operation::CompareAndWrite, 256, (most / BLOCK) as u32 + 1, &more);
            assert!(run(&mut pair, vec![more]).await[0].status.is(Status::INVALID_FIELD));

            let done = run(
                &mut pair,
                vec![
                    io(0, Operation::WriteZeroes { deallocate: true }, 101, 1, &[]),
                    io(1, Operation::Deallocate, 103, 2, &[]),
                ],
            )
            .await;
            assert_eq!([done[0].status, done[1].status], [Status::SUCCESS; 2]);
            let done = run(&mut pair, vec![io(0, Operation::Read, 100, 6, &[])]).await;
            let zero = [0; BLOCK];
            let expected = [
                &large[..BLOCK],
                &zero,
                &large[2 * BLOCK..3 * BLOCK],
                &zero,
                &zero,
                &large[5 * BLOCK..6 * BLOCK],
            ];
            assert_eq!(content(&done[0].data), expected.concat());
            assert_eq!(pair.outstanding(), 0);
            drop(pair);
            controller.shutdown().await.unwrap();
        };
        simulation.block_on(host, work).unwrap();
        simulation.run_for(Duration::from_secs(1));
        assert_eq!(simulation.open_sockets(host), 0, "nothing leaks");
    }
}

// Without it a discovery log could be unreadable for our own host.
#[test]
fn discovery_lists_the_subsystem() {
    let mut simulation = Simulation::new(5);
    let (target, host) = (simulation.add_node("target", 1), simulation.add_node("host", 1));
    let address = start_target(&mut simulation, target, &device(), TransportOptions::default());
    let entries = simulation
        .block_on(host, move || async move { discover(address, HostIdentity::random().unwrap()).await })
        .unwrap()
        .unwrap();
    let found = entries.iter().find(|entry| Nqn::from_field(&entry.subnqn).unwrap().as_str() == NQN).unwrap();
    assert_eq!(found.socket_address(), Some(address));
}

// Without it a person would get no usable reason when connecting fails.
#[test]
fn refusals_say_why() {
    let mut simulation = Simulation::new(6);
    let (target, host) = (simulation.add_node("target", 1), simulation.add_node("host", 1));
    let address = start_target(&mut simulation, target, &device(), TransportOptions::default());
    let work = move || async move {
        let mut wrong = options(address);
        wrong.subsystem = Nqn::new("nqn.2016-06.io.spdk:nobody").unwrap();
        let error = Controller::connect(wrong).await.unwrap_err();
        assert!(matches!(error, HostError::Refused { field: Some(256), .. }), "{error}");
        let mut nobody = options(address);
        nobody.address.set_port(1);
        let error = Controller::connect(nobody).await.unwrap_err();
        assert!(matches!(error, HostError::Connect { .. }), "{error}");
        let controller = Controller::connect(options(address)).await.unwrap();
        let error = QueuePair::open(&controller, 7).await.unwrap_err();
        assert!(matches!(error, HostError::Command { .. }), "{error}");
        let pair = QueuePair::open(&controller, 1).await.unwrap();
        let error = QueuePair::open(&controller, 1).await.unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        drop(pair);
        QueuePair::open(&controller, 1).await.unwrap();
    };
    simulation.block_on(host, work).unwrap();
}

// Without it a host would not learn of a namespace that was added while it is connected.
#[test]
fn a_new_namespace_is_announced() {
    let mut simulation = Simulation::new(7);
    let (target, host) = (simulation.add_node("target", 2), simulation.add_node("host", 1));
    let address = SocketAddr::new(simulation.address(target), 4420);
    let handles = simulation.handles(target);
    let device = device();
    let (first, second) = (device.clone(), device);
    let serving = simulation
        .block_on(target, move || async move {
            let serving = Target::start(handles).await.unwrap();
            let definition = definition(&serving, &first, address, TransportOptions::default());
            serving.apply(definition).await.unwrap();
            serving
        })
        .unwrap();
    let told = Arc::new(AtomicBool::new(false));
    let end = told.clone();
    simulation.spawn(host, move || async move {
        let controller = Controller::connect(options(address)).await.unwrap();
        let event = controller.next_event().await;
        assert_eq!(event.as_notice(), Some(Notice::NamespaceAttributeChanged));
        assert_eq!(controller.active_namespaces().await.unwrap(), [1, 2]);
        end.store(true, Ordering::Relaxed);
    });
    simulation.run_for(Duration::from_secs(1));
    assert!(!told.load(Ordering::Relaxed));
    let change = move || async move {
        let mut changed = definition(&serving, &second, address, TransportOptions::default());
        let mut subsystem = (*changed.subsystems[NQN]).clone();
        let mut namespace = subsystem.namespaces[&1].clone();
        namespace.nsid = 2;
        namespace.instance = serving.next_instance();
        // The first stays what it is.
        subsystem.namespaces = serving.definition().subsystems[NQN].namespaces.clone();
        subsystem.namespaces.insert(2, namespace);
        changed.subsystems.insert(NQN.to_owned(), Arc::new(subsystem));
        serving.apply(changed).await.unwrap();
    };
    simulation.block_on(target, change).unwrap();
    simulation.run_for(Duration::from_secs(1));
    assert!(told.load(Ordering::Relaxed));
}

/// Random I/O against a model while connections are reset; then everything is read back.
async fn hammer(mut pair: QueuePair, rounds: usize, on_loss: OnLoss) -> u64 {
    // What each block holds; none while a write of it has failed and nothing later succeeded.
    let mut model: Vec<Option<u8>> = vec![Some(0); 256];
    let mut lost = 0;
    for _ in 0..rounds {
        // One batch touches each block at most once.
        let mut commands = Vec::new();
        let mut plan = Vec::new();
        let mut next = random_u64() % 8;
        while next < 240 && commands.len() < 24 {
            let blocks = 1 + random_u64() % 12;
            let value = random_u64() as u8;
            let token = commands.len() as u64;
            let operation = match random_u64() % 8 {
                0..3 => Operation::Read,
                3..6 => Operation::Write,
                6 => Operation::WriteZeroes { deallocate: random_u64().is_multiple_of(2) },
                _ => Operation::Deallocate,
            };
            let data = vec![value; if operation == Operation::Write { blocks as usize * BLOCK } else { 0 }];
            commands.push(io(token, operation, next, blocks as u32, &data));
            plan.push((operation, next as usize, blocks as usize, value));
            next += blocks + random_u64() % 16;
        }
        let done = run(&mut pair, commands).await;
        for (completion, (operation, at, blocks, value)) in done.into_iter().zip(plan) {
            let range = at..at + blocks;
            let written = if operation == Operation::Write { value } else { 0 };
            if completion.status.is_success() {
                if operation == Operation::Read {
                    let bytes = content(&completion.data);
                    for (expected, block) in model[range].iter().zip(bytes.chunks(BLOCK)) {
                        assert!(block.iter().all(|byte| *byte == block[0]), "a torn block");
                        assert!(expected.is_none_or(|value| value == block[0]), "an old or foreign block");
                    }
                } else {
                    model[range].fill(Some(written));
                }
                continue;
            }
            lost += 1;
            assert!(completion.status.is(Status::HOST_PATHING_ERROR), "{}", completion.status);
            assert_eq!(on_loss, OnLoss::Fail);
            if operation != Operation::Read {
                model[range].fill(None);
            }
        }
        if pair.state() != QueuePairState::Live {
            sleep(Duration::from_millis(random_u64() % 100)).await;
        }
    }
    lost
}

fn storm(seed: u64, on_loss: OnLoss) -> (u64, u64) {
    let mut simulation = Simulation::new(seed);
    let (target, host) = (simulation.add_node("target", 2), simulation.add_node("host", 1));
    let device = device();
    let address = start_target(&mut simulation, target, &device, TransportOptions::default());
    let outcome = Arc::new(Mutex::new(None));
    let result = outcome.clone();
    simulation.spawn(host, move || async move {
        let mut options = options(address);
        options.on_loss = on_loss;
        (options.header_digest, options.data_digest) =
            (random_u64().is_multiple_of(2), random_u64().is_multiple_of(2));
        // The network is unreliable from the start.
        let controller = loop {
            match Controller::connect(options.clone()).await {
                Ok(controller) => break controller,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        let pair = loop {
            match QueuePair::open(&controller, 1).await {
                Ok(pair) => break pair,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        let lost = hammer(pair, 40, on_loss).await;
        *result.lock().unwrap() = Some(lost);
    });
    for round in 0..2000u64 {
        simulation.run_for(Duration::from_millis(5 + (seed * 7 + round * 13) % 40));
        if outcome.lock().unwrap().is_some() {
            break;
        }
        match (seed + round) % 11 {
            0 => simulation.reset_connections(target, host),
            5 => {
                simulation.partition(target, host);
                simulation.run_for(Duration::from_millis(seed % 50));
                simulation.heal(target, host);
            }
            _ => {}
        }
    }
    let lost = outcome.lock().unwrap().unwrap_or_else(|| panic!("seed {seed}: not done"));
    (lost, simulation.trace_hash())
}

// Without it a command could be lost, answered twice, or misplace data when connections break at any moment.
#[test]
fn connections_break_at_any_moment() {
    let mut lost = 0;
    for seed in seeds(60) {
        lost += storm(seed, OnLoss::Fail).0;
    }
    assert!(lost > 0 || std::env::var_os("SLEDGE_SEED").is_some(), "the storm breaks something");
}

// Without it commands that are kept over a reconnection could be lost or repeated wrongly.
#[test]
fn kept_commands_survive_broken_connections() {
    for seed in seeds(30) {
        storm(seed, OnLoss::Resubmit);
    }
}

// Without it a failing seed could not be replayed.
#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 4] {
        assert_eq!(storm(seed, OnLoss::Fail), storm(seed, OnLoss::Fail));
    }
    assert_ne!(storm(3, OnLoss::Fail).1, storm(4, OnLoss::Fail).1);
}

// Without it a host would hang on a target that is gone for good, or spin.
#[test]
fn a_target_that_never_returns_is_given_up() {
    let mut simulation = Simulation::new(9);
    let (target, host) = (simulation.add_node("target", 1), simulation.add_node("host", 1));
    let address = start_target(&mut simulation, target, &device(), TransportOptions::default());
    let done = Arc::new(AtomicBool::new(false));
    let end = done.clone();
    simulation.spawn(host, move || async move {
        let mut options = options(address);
        options.loss_timeout = Some(Duration::from_secs(10));
        options.on_loss = OnLoss::Resubmit;
        let controller = Controller::connect(options).await.unwrap();
        let mut pair = QueuePair::open(&controller, 1).await.unwrap();
        sleep(Duration::from_secs(3)).await;
        let before = now();
        let done = run(&mut pair, vec![io(0, Operation::Read, 0, 1, &[])]).await;
        assert!(done[0].status.is(Status::HOST_PATHING_ERROR), "{}", done[0].status);
        assert!(now() - before > Duration::from_secs(9));
        assert_eq!(pair.state(), QueuePairState::Ended);
        let done = run(&mut pair, vec![io(0, Operation::Read, 0, 1, &[])]).await;
        assert!(done[0].status.is(Status::HOST_PATHING_ERROR));
        end.store(true, Ordering::Relaxed);
    });
    simulation.run_for(Duration::from_secs(2));
    simulation.crash(target);
    simulation.run_for(Duration::from_secs(60));
    assert!(done.load(Ordering::Relaxed));
}
