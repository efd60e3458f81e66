//! Tests of the queue's state machine against a scripted controller.

#![allow(clippy::unwrap_used)]

use super::error::Loss;
use super::payload::Payload;
use super::queue::{Order, Queue, QueueState};
use super::queue_peer::*;
use super::slot::Direction;
use crate::pdu::{FatalError, Framing, ProtocolError, Termination};
use sledge_nvme::command::Fuse;
use sledge_nvme::{Command, Status};
use sledge_reactor::memory::{Segments, allocate};
use sledge_reactor::sim::Simulation;
use std::io;

/// Runs a test where there is a reactor: the queue reads its clock and its memory.
fn on_reactor(test: impl FnOnce() + 'static) {
    let mut simulation = Simulation::new(1);
    let node = simulation.add_node("host", 1);
    simulation.block_on(node, move || async move { test() }).unwrap();
}

/// Pool memory in two segments, so that every path sees a seam.
fn memory(bytes: &[u8]) -> Payload {
    let seam = (bytes.len() / 3).max(1).min(bytes.len());
    let mut segments = Segments::new();
    for part in [&bytes[..seam], &bytes[seam..]] {
        if !part.is_empty() {
            let mut buffer = allocate(part.len()).unwrap();
            buffer.copy_from_slice(part);
            segments.push(buffer).unwrap();
        }
    }
    Payload::Segments(segments)
}

fn bytes_of(payload: Payload) -> Vec<u8> {
    let segments = payload.into_segments();
    let mut bytes = vec![0; segments.len_bytes()];
    segments.copy_to(0, &mut bytes);
    bytes
}

fn read(queue: &mut Queue<TestLink>, token: u64, slba: u64, blocks: u32) -> u16 {
    let data = memory(&vec![0xEE; blocks as usize * BLOCK]);
    submit(queue, token, Command::read(1, slba, blocks), Direction::In, data)
}

fn write(queue: &mut Queue<TestLink>, token: u64, slba: u64, bytes: &[u8]) -> u16 {
    let command = Command::write(1, slba, (bytes.len() / BLOCK) as u32);
    submit(queue, token, command, Direction::Out, memory(bytes))
}

/// (token, status) of all that ended, in order.
fn ended(queue: &mut Queue<TestLink>) -> Vec<(u64, Status)> {
    let mut ended = Vec::new();
    queue.collect(|token, completion, _| ended.push((token, completion.status())));
    ended
}

// Without it data could be misplaced for some combination of digests, alignment, PDU sizes and cuts of the stream.
#[test]
fn data_goes_both_ways_whatever_the_framing() {
    on_reactor(|| {
        for round in 0..32usize {
            let framing = Framing {
                header_digest: round & 1 != 0,
                data_digest: round & 2 != 0,
                alignment: [0, 31][round >> 2 & 1],
            };
            let (r2t, c2h) = [(1 << 20, 1 << 20), (1024, 4096), (700, 333), (512, 16_384)][round >> 3 & 3];
            let manners = Manners {
                framing,
                r2t,
                c2h,
                max_host_data: if round & 1 != 0 { 4096 } else { 1 << 17 },
                success_flag: round & 2 != 0,
                ..Manners::PLAIN
            };
            let (mut queue, mut peer) = live(manners, 8);
            {
                let mut wire = peer.wire.borrow_mut();
                wire.read_limit = [0, 1, 37, 5000][round & 3];
                wire.write_limit = [0, 113, 1, 3000][round & 3];
            }
            let content: Vec<u8> = (0..40 * BLOCK).map(|at| (at * 31 % 253) as u8).collect();
            write(&mut queue, 1, 0, &content);
            write(&mut queue, 2, 100, &content[..2 * BLOCK]);
            settle(&mut queue, &mut peer);
            let mut done = ended(&mut queue);
            done.sort_unstable_by_key(|(token, _)| *token);
            assert_eq!(done, [(1, Status::SUCCESS), (2, Status::SUCCESS)], "round {round}");
            read(&mut queue, 3, 0, 40);
            read(&mut queue, 4, 100, 2);
            settle(&mut queue, &mut peer);
            let mut count = 0;
            queue.collect(|token, completion, payload| {
                let expected = if token == 3 { &content[..] } else { &content[..2 * BLOCK] };
                assert!(completion.status().is_success());
                assert!(bytes_of(payload) == expected, "round {round}");
                count += 1;
            });
            assert_eq!(count, 2);
            assert_eq!(queue.outstanding(), 0);
            assert!(!queue.has_work() || queue.more_to_read);
        }
    });
}

// Without it a full socket could lose or repeat bytes, or keep the reactor spinning.
#[test]
fn a_blocked_socket_resumes_where_it_stopped() {
    on_reactor(|| {
        let (mut queue, mut peer) = live(Manners::PLAIN, 8);
        peer.wire.borrow_mut().room = Some(50);
        write(&mut queue, 1, 3, &[7; 2 * BLOCK]);
        queue.turn();
        queue.turn();
        assert!(queue.write_blocked && !queue.has_work());
        assert_eq!(peer.wire.borrow().from_host.len(), 50);
        peer.wire.borrow_mut().room = None;
        settle(&mut queue, &mut peer);
        assert_eq!(ended(&mut queue), [(1, Status::SUCCESS)]);
        assert_eq!(peer.disk[3 * BLOCK..5 * BLOCK], [7; 2 * BLOCK]);
    });
}

// Without it a wrong payload could be taken for good, or one bad payload end the connection.
#[test]
fn a_wrong_data_digest_ends_the_command_only() {
    on_reactor(|| {
        let framing = Framing { header_digest: true, data_digest: true, alignment: 0 };
        for success_flag in [true, false] {
            let manners = Manners { framing, success_flag, corrupt: true, ..Manners::PLAIN };
            let (mut queue, mut peer) = live(manners, 8);
            read(&mut queue, 1, 0, 4);
            settle(&mut queue, &mut peer);
            assert_eq!(ended(&mut queue), [(1, Status::TRANSIENT_TRANSPORT_ERROR)]);
            peer.manners.corrupt = false;
            read(&mut queue, 2, 0, 4);
            settle(&mut queue, &mut peer);
            assert_eq!(ended(&mut queue), [(2, Status::SUCCESS)]);
        }
    });
}

// Without it a read that came short could pass with stale memory in it.
#[test]
fn a_short_read_is_an_error() {
    on_reactor(|| {
        let (mut queue, mut peer) = live(Manners { silent: true, ..Manners::PLAIN }, 8);
        let cid = read(&mut queue, 1, 0, 4);
        settle(&mut queue, &mut peer);
        peer.emit_data(cid, 0, &[1; BLOCK], true, true);
        settle(&mut queue, &mut peer);
        assert_eq!(ended(&mut queue), [(1, Status::DATA_TRANSFER_ERROR)]);
        let cid = read(&mut queue, 2, 0, 4);
        settle(&mut queue, &mut peer);
        peer.emit_completion(cid, Status::UNRECOVERED_READ_ERROR);
        settle(&mut queue, &mut peer);
        assert_eq!(
            ended(&mut queue),
            [(2, Status::UNRECOVERED_READ_ERROR)],
            "the controller's reason goes first"
        );
    });
}

// Without it memory could be given back while the socket still sends from it.
#[test]
fn an_early_answer_waits_for_the_data_on_its_way() {
    on_reactor(|| {
        let manners = Manners { silent: true, max_host_data: 4096, ..Manners::PLAIN };
        let (mut queue, mut peer) = live(manners, 8);
        let cid = write(&mut queue, 1, 0, &[9; 32 * BLOCK]);
        settle(&mut queue, &mut peer);
        peer.emit_r2t(cid, 0, 32 * BLOCK as u32);
        peer.wire.borrow_mut().room = Some(100);
        queue.turn();
        peer.emit_completion(cid, Status::WRITE_FAULT);
        queue.turn();
        assert_eq!(ended(&mut queue), []);
        assert_eq!(queue.outstanding(), 1);
        peer.wire.borrow_mut().room = None;
        queue.turn();
        assert_eq!(ended(&mut queue), [(1, Status::WRITE_FAULT)]);
        assert_eq!((queue.outstanding(), queue.state), (0, QueueState::Live));
    });
}

/// What the peer does to a queue with a read (identifier 0) and a write (identifier 1) outstanding.
type Offence = fn(&mut Peer, read: u16, write: u16);

// Without it the host could believe a controller that answers twice, writes where it was not asked to, or asks for
// what it may not; and the controller would not learn why it was cut off.
#[test]
fn violations_close_the_connection_with_a_reason() {
    use FatalError::*;
    let cases: [(&str, Offence, FatalError, u32); 10] = [
        (
            "completion of an unknown command",
            |p, _, _| p.emit_completion(0x0FFF, Status::SUCCESS),
            InvalidHeaderField,
            20,
        ),
        (
            "completion of an older command of the slot",
            |p, read, _| {
                p.emit_completion(read.wrapping_sub(1 << 12), Status::SUCCESS);
            },
            InvalidHeaderField,
            20,
        ),
        (
            "second completion",
            |p, read, _| {
                p.emit_completion(read, Status::INVALID_FIELD);
                p.emit_completion(read, Status::INVALID_FIELD);
            },
            InvalidHeaderField,
            20,
        ),
        ("data for a write", |p, _, write| p.emit_data(write, 0, &[0; 4], true, false), OutOfRange, 0),
        (
            "data for an unknown command",
            |p, _, _| p.emit_data(77, 0, &[0; 4], true, false),
            InvalidHeaderField,
            8,
        ),
        (
            "data behind the end",
            |p, read, _| p.emit_data(read, 0, &[0; 2 * BLOCK + 4], true, false),
            OutOfRange,
            0,
        ),
        ("data with a gap", |p, read, _| p.emit_data(read, 4, &[0; 4], false, false), Sequence, 0),
        ("R2T for a read", |p, read, _| p.emit_r2t(read, 0, 4), OutOfRange, 0),
        ("R2T behind the end", |p, _, write| p.emit_r2t(write, 4 * BLOCK as u32, 4), OutOfRange, 0),
        (
            "second R2T at once",
            |p, _, write| {
                // The first can't be answered in between: both arrive in one read.
                p.emit_r2t(write, 0, 8);
                p.emit_r2t(write, 8, 8);
            },
            ReadyToTransferLimit,
            0,
        ),
    ];
    on_reactor(move || {
        for (name, offence, status, information) in cases {
            let (mut queue, mut peer) = live(Manners { silent: true, ..Manners::PLAIN }, 8);
            // Slots in their second generation, so that there is an older one.
            for token in 0..8 {
                let cid = read(&mut queue, token, 0, 2);
                settle(&mut queue, &mut peer);
                peer.emit_completion(cid, Status::INVALID_FIELD);
                settle(&mut queue, &mut peer);
            }
            ended(&mut queue);
            let reading = read(&mut queue, 1, 0, 2);
            let writing = write(&mut queue, 2, 0, &[0; 4 * BLOCK]);
            settle(&mut queue, &mut peer);
            offence(&mut peer, reading, writing);
            settle(&mut queue, &mut peer);
            assert_eq!(queue.state, QueueState::Closed, "{name}");
            let Some(Loss::Protocol(error)) = queue.loss() else { panic!("{name}: {:?}", queue.loss()) };
            assert_eq!((error.status, error.information), (status, information), "{name}");
            assert_eq!(error.header.len(), 24, "{name}");
            peer.turn();
            assert_eq!(peer.terminations.len(), 1, "{name}");
            assert_eq!(peer.terminations[0].raw_status, status.wire(), "{name}");
            assert!(peer.wire.borrow().closed, "{name}");
            // Both commands end, once.
            queue.fail_outstanding(Status::HOST_PATHING_ERROR);
            let mut tokens: Vec<u64> = ended(&mut queue).into_iter().map(|(token, _)| token).collect();
            tokens.sort_unstable();
            assert_eq!(tokens, [1, 2], "{name}");
            assert_eq!(queue.outstanding(), 0);
        }
    });
}

// Without it the host could use digests that it did not ask for.
#[test]
fn an_answer_to_icreq_that_was_not_asked_for() {
    on_reactor(|| {
        let (mut peer, link) = Peer::new(Manners::PLAIN);
        let mut queue = Queue::new(link, options(Framing::default(), 4), 8192);
        queue.turn();
        peer.emit_initialize_response(Framing { header_digest: true, data_digest: false, alignment: 0 });
        queue.turn();
        let Some(Loss::Protocol(error)) = queue.loss() else { panic!("{:?}", queue.loss()) };
        assert_eq!((error.status, error.information), (FatalError::UnsupportedParameter, 11));
    });
}

// Without it an edge out of a state could be missing: each way that a connection ends, in each state.
#[test]
fn every_state_ends_for_every_reason() {
    type End = fn(&mut Peer);
    let ends: [(End, Loss); 4] = [
        (|peer| peer.wire.borrow_mut().ended = true, Loss::EndOfStream),
        (
            |peer| peer.wire.borrow_mut().error = Some(io::ErrorKind::ConnectionReset),
            Loss::Socket(io::ErrorKind::ConnectionReset),
        ),
        (
            |peer| peer.emit_termination(&ProtocolError::new(FatalError::DataLimit, 0, &[])),
            Loss::Terminated(Termination {
                status: Some(FatalError::DataLimit),
                raw_status: 5,
                information: 0,
            }),
        ),
        (
            |peer| peer.wire.borrow_mut().to_host.extend([0xFF; 8]),
            Loss::Protocol(ProtocolError::new(FatalError::InvalidHeaderField, 0, &[0xFF; 8])),
        ),
    ];
    on_reactor(move || {
        for (end, loss) in ends {
            for state in [QueueState::Initializing, QueueState::Connecting, QueueState::Live] {
                let (mut peer, link) = Peer::new(Manners { silent: true, ..Manners::PLAIN });
                let mut queue = Queue::new(link, options(Framing::default(), 4), 8192);
                queue.turn();
                if state != QueueState::Initializing {
                    peer.turn();
                    queue.turn();
                }
                if state == QueueState::Live {
                    queue.connected(1024);
                }
                assert_eq!(queue.state, state);
                read(&mut queue, 5, 0, 1);
                end(&mut peer);
                queue.turn();
                assert_eq!((queue.state, queue.loss()), (QueueState::Closed, Some(&loss)), "from {state:?}");
                // Of what was given up nothing leaves any more; but the peer is told what it did wrong.
                let told = matches!(loss, Loss::Protocol(_));
                let wire = peer.wire.borrow();
                assert_eq!((wire.closed, wire.aborted), (true, !told), "{loss}");
                drop(wire);
                // Nothing more happens, and nothing more is taken.
                assert_eq!(queue.turn(), 0);
                queue.connected(1024);
                queue.close(Loss::Disconnected);
                assert_eq!((queue.state, queue.loss()), (QueueState::Closed, Some(&loss)));
                let command = Command::flush(1);
                let more = Order { token: 6, command, direction: Direction::None, unhurried: false };
                assert!(queue.submit(&more, || Payload::None).is_none());
                queue.fail_outstanding(Status::HOST_PATHING_ERROR);
                assert_eq!(ended(&mut queue), [(5, Status::HOST_PATHING_ERROR)]);
            }
        }
    });
}

// Without it nothing would stop commands from going out before Connect was answered, or ICReq from being overtaken.
#[test]
fn commands_wait_for_initialization() {
    on_reactor(|| {
        let (mut peer, link) = Peer::new(Manners::PLAIN);
        let mut queue = Queue::new(link, options(Framing::default(), 4), 8192);
        read(&mut queue, 1, 0, 1);
        queue.turn();
        assert_eq!(peer.wire.borrow().from_host.len(), 128, "ICReq only");
        settle(&mut queue, &mut peer);
        assert_eq!(ended(&mut queue), [(1, Status::SUCCESS)]);
    });
}

fn pair(queue: &mut Queue<TestLink>, token: u64, expected: &[u8], new: &[u8]) {
    let blocks = (expected.len() / BLOCK) as u32;
    let first = Command::compare(1, 0, blocks).with_fuse(Fuse::First);
    let command = Command::write(1, 0, blocks).with_fuse(Fuse::Second);
    let payload = memory(&[expected, new].concat());
    let second = Order { token, command, direction: Direction::Out, unhurried: false };
    assert!(queue.submit_pair(first, &second, expected.len() as u32, || payload));
}

// Without it a fused compare-and-write could send the wrong half, or report the wrong one's status.
#[test]
fn fused_pairs_end_together() {
    on_reactor(|| {
        let (mut queue, mut peer) = live(Manners::PLAIN, 8);
        pair(&mut queue, 1, &[0; BLOCK], &[5; BLOCK]);
        settle(&mut queue, &mut peer);
        assert_eq!(ended(&mut queue), [(1, Status::SUCCESS)]);
        assert_eq!(peer.disk[..BLOCK], [5; BLOCK]);
        assert_eq!(peer.commands[0].fuse(), Some(Fuse::First));
        assert_eq!(peer.commands[1].fuse(), Some(Fuse::Second));

        peer.manners.silent = true;
        for (first_status, second_status, expected, swapped) in [
            (Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED, Status::COMPARE_FAILURE, false),
            (Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED, Status::COMPARE_FAILURE, true),
            (Status::SUCCESS, Status::WRITE_FAULT, Status::WRITE_FAULT, false),
            (Status::SUCCESS, Status::SUCCESS, Status::SUCCESS, true),
        ] {
            peer.commands.clear();
            pair(&mut queue, 2, &[0; BLOCK], &[5; BLOCK]);
            settle(&mut queue, &mut peer);
            let mut answers =
                [(peer.commands[0].cid.get(), first_status), (peer.commands[1].cid.get(), second_status)];
            if swapped {
                answers.reverse();
            }
            peer.emit_completion(answers[0].0, answers[0].1);
            settle(&mut queue, &mut peer);
            assert_eq!(ended(&mut queue), [], "one half alone is not the end");
            peer.emit_completion(answers[1].0, answers[1].1);
            settle(&mut queue, &mut peer);
            assert_eq!(ended(&mut queue), [(2, expected)]);
            assert_eq!(queue.outstanding(), 0);
        }
        // A pair with one half answered when the connection goes.
        peer.commands.clear();
        pair(&mut queue, 3, &[0; BLOCK], &[5; BLOCK]);
        settle(&mut queue, &mut peer);
        peer.emit_completion(peer.commands[0].cid.get(), Status::SUCCESS);
        settle(&mut queue, &mut peer);
        queue.close(Loss::Disconnected);
        queue.fail_outstanding(Status::HOST_PATHING_ERROR);
        assert_eq!(ended(&mut queue), [(3, Status::HOST_PATHING_ERROR)]);
        assert_eq!(queue.outstanding(), 0);
    });
}

// Without it commands could be lost, repeated or reordered when a connection comes back.
#[test]
fn a_new_queue_adopts_what_the_old_one_had() {
    on_reactor(|| {
        let (mut old, mut peer) = live(Manners { silent: true, ..Manners::PLAIN }, 8);
        for token in 1..=3 {
            write(&mut old, token, token, &[token as u8; BLOCK]);
        }
        settle(&mut old, &mut peer);
        pair(&mut old, 4, &[0; BLOCK], &[5; BLOCK]);
        write(&mut old, 5, 5, &[5; BLOCK]);
        peer.emit_completion(peer.commands[0].cid.get(), Status::WRITE_FAULT);
        settle(&mut old, &mut peer);
        old.close(Loss::EndOfStream);

        let (mut new, mut peer) = live(Manners::PLAIN, 2);
        new.adopt(&mut old, Status::HOST_PATHING_ERROR);
        settle(&mut new, &mut peer);
        let sent: Vec<u64> = peer.commands.iter().map(Command::slba).collect();
        assert_eq!(sent, [2, 3], "in their order, as far as they fit");
        let mut done = ended(&mut new);
        done.extend(ended(&mut old));
        done.sort_unstable_by_key(|(token, _)| *token);
        let path = Status::HOST_PATHING_ERROR;
        let expected =
            [(1, Status::WRITE_FAULT), (2, Status::SUCCESS), (3, Status::SUCCESS), (4, path), (5, path)];
        assert_eq!(done, expected);
        assert_eq!(old.outstanding(), 0);
    });
}

// Without it a command that never left could not be taken back, or one that left could be.
#[test]
fn only_commands_that_have_not_left_are_aborted() {
    on_reactor(|| {
        let (mut queue, mut peer) = live(Manners { silent: true, ..Manners::PLAIN }, 4);
        read(&mut queue, 1, 0, 1);
        settle(&mut queue, &mut peer);
        read(&mut queue, 2, 0, 1);
        assert!(!queue.abort_queued(1) && queue.abort_queued(2) && !queue.abort_queued(3));
        assert_eq!(ended(&mut queue), [(2, Status::ABORTED_BY_REQUEST)]);
        settle(&mut queue, &mut peer);
        assert_eq!(peer.commands.len(), 1);
    });
}

// Without it a queue could take more than it has slots for, or lose what it refuses.
#[test]
fn a_full_queue_gives_the_command_back() {
    on_reactor(|| {
        let (mut queue, _peer) = live(Manners::PLAIN, 2);
        for token in 0..2 {
            read(&mut queue, token, 0, 1);
        }
        let command = Command::write(1, 0, 1);
        let more = Order { token: 9, command, direction: Direction::Out, unhurried: false };
        assert!(queue.submit(&more, || panic!("the data of a refused command is taken")).is_none());
    });
}
