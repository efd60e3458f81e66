//! The controls: each does what it says, so that what a test of the driver provokes is what it meant to.

use super::super::ModelOptions;
use super::{Host, host_with_queue, prp};
use crate::command::Fuse;
use crate::function::Function;
use crate::opcode::{Admin, Nvm};
use crate::{Command, Completion, Status};

fn flush() -> Command {
    prp(Command::flush(1), 0, 0)
}

/// What lies in the completion queue, as identifier and status.
fn all(host: &mut Host, queue: usize) -> Vec<(u16, Status)> {
    let found: Vec<Completion> = std::iter::from_fn(|| host.next(queue)).collect();
    host.consumed(queue);
    found.iter().map(|completion| (completion.cid.get(), completion.status())).collect()
}

// Deleting this lets the phase tag stick or the controller overrun a completion queue that the host does not empty.
#[test]
fn phase_wraps_and_a_full_completion_queue_waits() {
    let mut host = host_with_queue(ModelOptions::default(), 4);
    for _ in 0..21 {
        assert_eq!(host.run(1, flush()).status(), Status::SUCCESS);
    }
    let first = host.cid + 1;
    for _ in 0..5 {
        host.submit(1, flush());
    }
    let found: Vec<u16> =
        std::iter::from_fn(|| host.next(1)).map(|completion| completion.cid.get()).collect();
    assert_eq!(found, [first, first + 1, first + 2], "an entry stays free");
    host.consumed(1);
    assert_eq!(all(&mut host, 1).len(), 2);
    host.faultless();
}

// Deleting this lets a held command complete by itself, or twice.
#[test]
fn held_commands_wait_and_can_be_aborted() {
    let mut host = host_with_queue(ModelOptions::default(), 8);
    host.model.hold(|queue, command| queue == 1 && command.opcode == Nvm::Flush.value());
    let ids: Vec<u16> = (0..4).map(|_| host.submit(1, flush())).collect();
    assert_eq!((host.model.held().len(), host.next(1)), (4, None));
    assert!(host.model.release(2) && !host.model.release(3));
    assert_eq!(all(&mut host, 1), [(ids[2], Status::SUCCESS)]);
    assert_eq!(host.admin(Command::abort(1, ids[0])).result.get(), 0);
    assert_eq!(host.admin(Command::abort(1, ids[0])).result.get(), 1, "it is gone");
    host.model.ignore_aborts(true);
    assert_eq!(host.admin(Command::abort(1, ids[1])).result.get(), 1);
    assert_eq!(all(&mut host, 1), [(ids[0], Status::ABORTED_BY_REQUEST)]);
    assert!(host.model.forget(0));
    host.model.hold_none();
    host.model.release_all();
    assert_eq!(all(&mut host, 1), [(ids[3], Status::SUCCESS)]);
    host.faultless();
    // What was forgotten is still in flight.
    host.cid = ids[1] - 1;
    host.submit(1, flush());
    assert_eq!(all(&mut host, 1), [(ids[1], Status::COMMAND_ID_CONFLICT)]);
    assert_eq!(host.model.violations().len(), 1);
}

// Deleting this lets a deleted queue answer later, or leave a command without an answer.
#[test]
fn deleting_a_queue_aborts_what_it_holds() {
    let mut host = host_with_queue(ModelOptions::default(), 8);
    host.model.hold(|queue, _| queue == 1);
    let cid = host.submit(1, flush());
    let mut delete = Command { opcode: Admin::DeleteIoSubmissionQueue.value(), ..Command::default() };
    delete.cdw10.set(1);
    assert_eq!(host.admin(delete).status(), Status::SUCCESS);
    assert_eq!(
        host.next(1).map(|found| (found.cid.get(), found.status())),
        Some((cid, Status::ABORTED_SQ_DELETION))
    );
    assert_eq!((host.model.held().len(), host.model.io_queues()), (0, vec![]));
}

// Deleting this lets planned failures hit other commands, or more of them.
#[test]
fn failures_duplicates_and_strangers() {
    let mut host = host_with_queue(ModelOptions::default(), 8);
    host.model.fail_next(Status::WRITE_FAULT);
    host.model.fail(2, Status::INTERNAL_ERROR, |_, command| command.opcode == Nvm::Verify.value());
    let verify = prp(Command::verify(1, 0, 1), 0, 0);
    let statuses: Vec<Status> = [flush(), flush(), verify, verify, verify]
        .into_iter()
        .map(|command| host.run(1, command).status())
        .collect();
    let (ok, broken) = (Status::SUCCESS, Status::INTERNAL_ERROR);
    assert_eq!(statuses, [Status::WRITE_FAULT, ok, broken, broken, ok]);
    host.model.duplicate(1);
    let cid = host.submit(1, flush());
    assert_eq!(all(&mut host, 1), [(cid, ok), (cid, ok)]);
    assert!(host.model.inject_completion(1, 0xbeef, Status::ABORTED_BY_REQUEST));
    assert_eq!(all(&mut host, 1), [(0xbeef, Status::ABORTED_BY_REQUEST)]);
    assert!(!host.model.inject_completion(9, 0xbeef, ok));
    host.faultless();
}

// Deleting this lets the order of completions depend on something else than the seed, or always be the same.
#[test]
fn a_seed_decides_the_order() {
    let order = |seed| {
        let mut host = host_with_queue(ModelOptions::default(), 32);
        host.model.automatic(false);
        host.model.reorder(Some(seed));
        host.model.most_per_step(7);
        for _ in 0..20 {
            host.submit(1, flush());
        }
        let first = host.cid - 19;
        let mut found = Vec::new();
        while host.model.step() {
            found.extend(all(&mut host, 1).iter().map(|(cid, _)| cid - first));
        }
        host.faultless();
        found
    };
    let (once, again, other) = (order(1), order(1), order(2));
    assert_eq!(once, again);
    assert_ne!(once, other);
    let mut sorted = once.clone();
    sorted.sort_unstable();
    assert!(once != sorted && sorted == (0..20).collect::<Vec<_>>());
}

// Deleting this lets half of a fused pair run, or a pair that was rung for in two halves pass.
#[test]
fn fused_pairs_run_together() {
    let mut host = host_with_queue(ModelOptions::default(), 8);
    let mut page = host.model.allocate(4096).unwrap();
    page.copy_from(512, &[1; 512]);
    let (zeroes, ones) = (page.device_address(0), page.device_address(512));
    let pair = |host: &mut Host, expected: u64, ring_between: bool| {
        let compare = prp(Command::compare(1, 3, 1).with_fuse(Fuse::First), expected, 0);
        host.cid += 2;
        host.put(1, compare.with_cid(host.cid - 1));
        if ring_between {
            host.ring(1);
        }
        host.put(1, prp(Command::write(1, 3, 1).with_fuse(Fuse::Second), ones, 0).with_cid(host.cid));
        host.ring(1);
        all(host, 1).into_iter().map(|(_, status)| status).collect::<Vec<_>>()
    };
    assert_eq!(pair(&mut host, ones, false), [Status::COMPARE_FAILURE, Status::ABORTED_FAILED_FUSED]);
    assert_eq!(host.model.content(1, 3), [0; 512]);
    assert_eq!(pair(&mut host, zeroes, false), [Status::SUCCESS, Status::SUCCESS]);
    assert_eq!(host.model.content(1, 3), [1; 512]);
    host.faultless();
    let missing = Status::ABORTED_MISSING_FUSED;
    assert_eq!(pair(&mut host, zeroes, true), [missing, missing]);
    assert_eq!(host.model.violations().len(), 2);
}

// Deleting this lets a dead controller go on answering, or a reset not revive it.
#[test]
fn fatal_status_stops_everything_until_reset() {
    let mut host = host_with_queue(ModelOptions::default(), 8);
    host.model.set_fatal();
    host.submit(1, flush());
    assert!(host.status().fatal() && host.next(1).is_none());
    host.model.write_u32(0x14, 0);
    host.enable(4);
    assert!(!host.status().fatal());
    assert_eq!(host.create_pair(1, 8), Status::SUCCESS);
    host.faultless();
}

// Deleting this lets a driver ring doorbells of queues that are not there, or with values out of range, unnoticed.
#[test]
fn wrong_doorbells_are_noted() {
    let host = host_with_queue(ModelOptions::default(), 8);
    host.model.write_u32(host.doorbell(2, false), 0);
    host.model.write_u32(host.doorbell(1, false), 8);
    host.model.write_u32(host.doorbell(1, true), 1);
    assert_eq!(host.model.violations().len(), 3);
}

// Deleting this lets what a failed allocation leaves behind go untested.
#[test]
fn allocations_fail_when_told() {
    let host = Host::new(ModelOptions::default());
    host.model.fail_allocation(1);
    assert!(host.model.allocate(1).is_ok());
    assert!(host.model.allocate(1).is_err());
    assert!(host.model.allocate(1).is_ok());
}
