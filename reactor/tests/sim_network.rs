//! The simulated network under programs: bytes arrive whole and in order however they are cut, and a
//! connection ends the way a real one would.
#![allow(clippy::unwrap_used)]

mod sim_support;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sim_support::{echo, echo_server, pattern, read_exact, read_some, usual_seeds, write_all};
use sledge_reactor::sim::{LinkConfig, NodeId, Simulation, SimulationConfig, for_seeds};
use sledge_reactor::{TcpListener, TcpStream, now, peers, sleep, spawn_local};

const PORT: u16 = 4420;

/// A world with an echo server on its first node.
fn with_echo(seed: u64) -> (Simulation, NodeId, NodeId, SocketAddr) {
    let mut simulation = Simulation::new(seed);
    let server = simulation.add_node("server", 1);
    let host = simulation.add_node("host", 1);
    let address = SocketAddr::new(simulation.address(server), PORT);
    simulation.spawn(server, move || async move { echo_server(address).await.unwrap() });
    simulation.run_for(Duration::from_millis(1));
    (simulation, server, host, address)
}

/// Writes a little every 10 ms and reads what comes back, until that fails.
async fn write_until_error(address: SocketAddr) -> io::Error {
    let stream = TcpStream::connect(address).await.unwrap();
    loop {
        if let Err(error) = write_all(&stream, &[1; 100]).await {
            return error;
        }
        match stream.try_read(&mut [io::IoSliceMut::new(&mut [0; 1_000])]) {
            Ok(Some(0)) => return io::ErrorKind::UnexpectedEof.into(),
            Ok(_) => sleep(Duration::from_millis(10)).await,
            Err(error) => return error,
        }
    }
}

// Without this, split, late or reordered packets could corrupt a stream, and every test above would lie.
#[test]
fn echo_survives_every_split_over_200_seeds() {
    let mut reads_seen = std::collections::BTreeSet::new();
    for_seeds(200, |seed| {
        let (mut simulation, server, host, address) = with_echo(seed);
        let lossy = LinkConfig { loss_per_million: 20_000, ..LinkConfig::default() };
        simulation.set_link(server, host, lossy);
        let first_read = simulation
            .block_on(host, || async move {
                let tasks: Vec<_> = (0..4u64)
                    .map(|number| {
                        spawn_local(async move {
                            let stream = TcpStream::connect(address).await.unwrap();
                            for round in 0..5 {
                                let len = [1, 72, 4_168, 1_000, 20_000][(round + number as usize) % 5];
                                echo(&stream, &pattern(number * 10 + round as u64, len)).await.unwrap();
                            }
                        })
                    })
                    .collect();
                for task in tasks {
                    task.await;
                }
                let stream = TcpStream::connect(address).await.unwrap();
                write_all(&stream, &[7; 72]).await.unwrap();
                read_some(&stream, &mut [0; 72]).await.unwrap()
            })
            .unwrap();
        reads_seen.insert(first_read);
    });
    let all = usual_seeds();
    assert!(!all || reads_seen.len() > 5, "72-byte headers arrived only in these pieces: {reads_seen:?}");
}

// Without this, a failing seed could not be replayed.
#[test]
fn equal_seeds_leave_equal_traces_and_others_do_not() {
    let run = |seed| {
        let (mut simulation, server, host, address) = with_echo(seed);
        simulation
            .block_on(host, || async move {
                let stream = TcpStream::connect(address).await.unwrap();
                echo(&stream, &pattern(1, 50_000)).await.unwrap();
            })
            .unwrap();
        simulation.crash(server);
        simulation.run_for(Duration::from_secs(1));
        simulation.trace_hash()
    };
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let hash = run(seed);
        assert_eq!(hash, run(seed), "seed {seed}");
        hashes.insert(hash);
    }
    assert_eq!(hashes.len(), 50);
}

// Without this, a cut link could lose or repeat bytes, or a healed one never come back.
#[test]
fn a_partition_stalls_and_heals() {
    for_seeds(50, |seed| {
        let (mut simulation, server, host, address) = with_echo(seed);
        let done = Rc::new(Cell::new(0));
        let progress = done.clone();
        simulation.spawn(host, move || async move {
            let stream = TcpStream::connect(address).await.unwrap();
            for round in 0.. {
                echo(&stream, &pattern(round, 3_000)).await.unwrap();
                progress.set(progress.get() + 1);
                sleep(Duration::from_millis(1)).await;
            }
        });
        simulation.run_for(Duration::from_millis(30));
        let before = done.get();
        assert!(before > 5, "{before}");
        simulation.partition(server, host);
        simulation.run_for(Duration::from_secs(5));
        assert!(done.get() <= before + 1, "traffic went through the cut");
        simulation.heal(server, host);
        let healed = simulation.now();
        simulation.run_until(|| done.get() > before + 5).unwrap();
        assert!(simulation.now() - healed < Duration::from_secs(5), "traffic came back late");
    });
}

// Without this, a host behind a partition would wait for ever, as no real one does.
#[test]
fn a_long_partition_ends_connections_with_traffic_and_attempts() {
    for_seeds(30, |seed| {
        let (mut simulation, server, host, address) = with_echo(seed);
        let ended = Rc::new(RefCell::new(Vec::new()));
        let ends = ended.clone();
        simulation.spawn(host, move || async move {
            let error = write_until_error(address).await;
            ends.borrow_mut().push(error.kind());
            let again = TcpStream::connect(address).await.err().map(|error| error.kind());
            ends.borrow_mut().extend(again);
        });
        simulation.run_for(Duration::from_millis(5));
        simulation.partition(server, host);
        simulation.run_for(Duration::from_secs(60));
        assert_eq!(*ended.borrow(), [io::ErrorKind::TimedOut, io::ErrorKind::TimedOut]);
        simulation.heal(server, host);
        simulation
            .block_on(host, move || async move {
                let stream = TcpStream::connect(address).await.unwrap();
                echo(&stream, &[2; 100]).await.unwrap();
            })
            .unwrap();
    });
}

// Without this, what a host has given up could arrive in a simulation when it would not in the world, or never.
#[test]
fn what_a_cut_holds_up_is_gone_after_an_abort() {
    for_seeds(50, |seed| {
        let mut simulation = Simulation::new(seed);
        let (server, host) = (simulation.add_node("server", 1), simulation.add_node("host", 1));
        let address = SocketAddr::new(simulation.address(server), PORT);
        let received = Rc::new(RefCell::new(Vec::new()));
        let arriving = received.clone();
        simulation.spawn(server, move || async move {
            let listener = TcpListener::bind(address).unwrap();
            let stream = listener.accept().await.unwrap().0.attach().unwrap();
            let mut some = [0; 1_000];
            while let Ok(count @ 1..) = read_some(&stream, &mut some).await {
                arriving.borrow_mut().extend_from_slice(&some[..count]);
            }
        });
        let stage = Rc::new(Cell::new(0));
        let shared = stage.clone();
        simulation.spawn(host, move || async move {
            let stream = TcpStream::connect(address).await.unwrap();
            write_all(&stream, &[1; 100]).await.unwrap();
            sleep(Duration::from_millis(10)).await;
            shared.set(1);
            while shared.get() == 1 {
                sleep(Duration::from_millis(1)).await;
            }
            write_all(&stream, &[2; 100]).await.unwrap();
            sleep(Duration::from_millis(seed)).await;
            stream.abort();
            assert!(write_all(&stream, &[3; 100]).await.is_err());
            shared.set(3);
        });
        simulation.run_until(|| stage.get() == 1).unwrap();
        simulation.partition_one_way(host, server);
        stage.set(2);
        simulation.run_until(|| stage.get() == 3).unwrap();
        simulation.heal(server, host);
        simulation.run_for(Duration::from_secs(60));
        assert_eq!(*received.borrow(), [1; 100]);
        assert_eq!(simulation.open_sockets(host), 0, "sockets leaked");
    });
}

// Without this, a host could mistake an absent target for a slow one.
#[test]
fn a_port_without_listener_refuses() {
    let (mut simulation, _, host, mut address) = with_echo(3);
    address.set_port(PORT + 1);
    let error = simulation.block_on(host, move || async move { TcpStream::connect(address).await.err() });
    assert_eq!(error.unwrap().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    let nowhere: SocketAddr = "10.9.9.9:1".parse().unwrap();
    let error = simulation.block_on(host, move || async move { TcpStream::connect(nowhere).await.err() });
    assert_eq!(error.unwrap().unwrap().kind(), io::ErrorKind::HostUnreachable);
}

// Without this, resets in mid-transfer would go untested everywhere above.
#[test]
fn resets_reach_both_ends_and_leak_nothing() {
    for_seeds(50, |seed| {
        let (mut simulation, server, host, address) = with_echo(seed);
        let kind = Rc::new(Cell::new(None));
        let seen = kind.clone();
        simulation.spawn(host, move || async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let error = loop {
                if let Err(error) = echo(&stream, &[9; 10_000]).await {
                    break error;
                }
            };
            seen.set(Some(error.kind()));
        });
        simulation.run_for(Duration::from_millis(7));
        assert_eq!(simulation.open_sockets(server), 2);
        simulation.reset_connections(host, server);
        simulation.run_for(Duration::from_secs(1));
        assert_eq!(kind.get(), Some(io::ErrorKind::ConnectionReset));
        assert_eq!((simulation.open_sockets(server), simulation.open_sockets(host)), (1, 0));
    });
}

// Without this, a crashed node's peers could hang for ever or go on as if nothing had happened, and a
// restarted node could still own its old sockets.
#[test]
fn a_crash_is_seen_as_reset_or_silence_and_the_node_comes_back() {
    let (mut resets, mut silences) = (0, 0);
    for_seeds(100, |seed| {
        let (mut simulation, server, host, address) = with_echo(seed);
        let kind = Rc::new(Cell::new(None));
        let seen = kind.clone();
        simulation.spawn(host, move || async move {
            let error = write_until_error(address).await;
            seen.set(Some(error.kind()));
        });
        simulation.run_for(Duration::from_millis(7));
        simulation.crash(server);
        assert!(!simulation.is_up(server));
        assert_eq!(simulation.open_sockets(server), 0);
        simulation.run_for(Duration::from_millis(50));
        match kind.get() {
            Some(io::ErrorKind::ConnectionReset) => resets += 1,
            None => silences += 1,
            other => panic!("{other:?}"),
        }
        simulation.restart(server);
        simulation.spawn(server, move || async move { echo_server(address).await.unwrap() });
        simulation.run_for(Duration::from_secs(60));
        assert!(kind.get().is_some(), "the host never noticed");
        simulation
            .block_on(host, move || async move {
                let stream = TcpStream::connect(address).await.unwrap();
                echo(&stream, &[2; 100]).await.unwrap();
            })
            .unwrap();
    });
    let all = usual_seeds();
    assert!(!all || (resets > 10 && silences > 10), "{resets} resets, {silences} silences");
}

// Without this, a writer could buffer without bound, or never be woken when the reader catches up.
#[test]
fn a_slow_reader_stops_the_writer() {
    for_seeds(30, |seed| {
        let mut simulation = Simulation::new(seed);
        let server = simulation.add_node("server", 1);
        let host = simulation.add_node("host", 1);
        let address = SocketAddr::new(simulation.address(server), PORT);
        let written = Rc::new(Cell::new(0));
        let counter = written.clone();
        simulation.spawn(host, move || async move {
            sleep(Duration::from_millis(1)).await;
            let stream = TcpStream::connect(address).await.unwrap();
            for piece in pattern(5, 1 << 20).chunks(10_000) {
                write_all(&stream, piece).await.unwrap();
                counter.set(counter.get() + piece.len());
            }
        });
        let (most, all) = simulation
            .block_on(server, || async move {
                let listener = TcpListener::bind(address).unwrap();
                let stream = listener.accept().await.unwrap().0.attach().unwrap();
                sleep(Duration::from_secs(1)).await;
                let most = written.get();
                let mut all = vec![0; 1 << 20];
                read_exact(&stream, &mut all).await.unwrap();
                assert_eq!(read_some(&stream, &mut [0; 10]).await.unwrap(), 0);
                (most, all)
            })
            .unwrap();
        assert!(most <= 256 * 1024, "{most} bytes were taken without a reader");
        assert!(all == pattern(5, 1 << 20));
    });
}

// Without this, connections could not be spread over reactors inside the simulator, or loopback would miss.
#[test]
fn accepted_connections_move_to_other_reactors() {
    for_seeds(30, |seed| {
        let mut simulation = Simulation::new(seed);
        let node = simulation.add_node("node", 3);
        let served = simulation
            .block_on(node, || async move {
                let listener = TcpListener::bind("[::]:0".parse().unwrap()).unwrap();
                let address = SocketAddr::new("::1".parse().unwrap(), listener.local_addr().unwrap().port());
                let client = spawn_local(async move {
                    let stream = TcpStream::connect(address).await.unwrap();
                    echo(&stream, &[3; 5_000]).await.unwrap();
                });
                let (detached, peer) = listener.accept().await.unwrap();
                let remote = peers()[2].spawn(move || async move {
                    let stream = detached.attach().unwrap();
                    assert_eq!(stream.peer_addr().unwrap(), peer);
                    let mut all = [0; 5_000];
                    read_exact(&stream, &mut all).await.unwrap();
                    write_all(&stream, &all).await.unwrap();
                    sledge_reactor::current().id()
                });
                client.await;
                remote.await.unwrap()
            })
            .unwrap();
        assert_eq!(served, 2);
    });
}

// Without this, the simulator could keep an order between connections that no real network keeps.
#[test]
fn connections_overtake_each_other() {
    let mut overtaken = 0;
    for_seeds(50, |seed| {
        let (mut simulation, server, host, address) = with_echo(seed);
        let uneven = Duration::from_micros(10)..=Duration::from_millis(2);
        simulation.set_link(server, host, LinkConfig { latency: uneven, ..LinkConfig::default() });
        let order = Rc::new(RefCell::new(Vec::new()));
        let arrivals = order.clone();
        simulation
            .block_on(host, move || async move {
                let mut streams = Vec::new();
                for _ in 0..2 {
                    streams.push(TcpStream::connect(address).await.unwrap());
                }
                let mut waits = Vec::new();
                for (number, stream) in streams.into_iter().enumerate() {
                    let arrivals = arrivals.clone();
                    waits.push(spawn_local(async move {
                        echo(&stream, &[1]).await.unwrap();
                        arrivals.borrow_mut().push(number);
                    }));
                    // Longer than any accident of the schedule.
                    sleep(Duration::from_micros(200)).await;
                }
                for wait in waits {
                    wait.await;
                }
            })
            .unwrap();
        overtaken += u32::from(*order.borrow() == [1, 0]);
    });
    let all = usual_seeds();
    assert!(!all || (5..45).contains(&overtaken), "{overtaken} of 50");
}

// Without this, a link's properties could be ignored.
#[test]
fn latency_is_what_the_link_says() {
    let config = SimulationConfig { short_io_per_million: 0, ..SimulationConfig::default() };
    let mut simulation = Simulation::with_config(1, config);
    let server = simulation.add_node("server", 1);
    let host = simulation.add_node("host", 1);
    let far = Duration::from_millis(30)..=Duration::from_millis(31);
    simulation.set_link(host, server, LinkConfig { latency: far, ..LinkConfig::default() });
    let address = SocketAddr::new(simulation.address_v6(server), PORT);
    simulation.spawn(server, move || async move { echo_server(address).await.unwrap() });
    let round = simulation
        .block_on(host, move || async move {
            let stream = TcpStream::connect(address).await.unwrap();
            let before = now();
            echo(&stream, &[1]).await.unwrap();
            now() - before
        })
        .unwrap();
    assert!((60..63).contains(&round.as_millis()), "{round:?}");
}
