//! The simulated disk under programs: a crash takes what was not flushed and nothing else, and faults show
//! where a test put them.
#![allow(clippy::unwrap_used)]

mod sim_support;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use sim_support::usual_seeds;
use sledge_reactor::disk::QUEUE_DEPTH;
use sledge_reactor::sim::{DiskFault, NodeId, SimulatedDisk, Simulation, for_seeds};
use sledge_reactor::{
    Disk, DiskCompletion, DiskOperation, DiskOptions, DiskQueue, DiskRequest, Segments, allocate, now,
    random_u64, sleep,
};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 64;

fn with_disk(seed: u64) -> (Simulation, NodeId, SimulatedDisk) {
    let mut simulation = Simulation::new(seed);
    let node = simulation.add_node("node", 1);
    let disk = simulation.disk(node, "data").create(BLOCKS * BLOCK as u64, BLOCK as u32);
    (simulation, node, disk)
}

fn open() -> DiskQueue {
    DiskQueue::open(&Disk::open("data", DiskOptions::default()).unwrap()).unwrap()
}

fn request(token: u64, operation: DiskOperation, block: u64, blocks: u64, byte: u8) -> DiskRequest {
    let length = blocks * BLOCK as u64;
    let moves = matches!(operation, DiskOperation::Read | DiskOperation::Write { .. });
    let segments = match moves {
        true => {
            let mut buffer = allocate(length as usize).unwrap();
            buffer.fill(byte);
            Segments::from(buffer)
        }
        false => Segments::EMPTY,
    };
    DiskRequest { token, operation, offset: block * BLOCK as u64, length, segments, skip: 0 }
}

async fn complete(queue: &mut DiskQueue, count: usize) -> Vec<DiskCompletion> {
    let mut done = Vec::new();
    while done.len() < count {
        sleep(Duration::from_micros(5)).await;
        queue.poll(&mut done);
    }
    done
}

async fn one(queue: &mut DiskQueue, request: DiskRequest) -> io::Result<Segments> {
    queue.submit(request).unwrap();
    let completion = complete(queue, 1).await.pop().unwrap();
    completion.result.map(|_| completion.segments)
}

const WRITE: DiskOperation = DiskOperation::Write { durable: false };

/// What a writer knows of one block.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The newest content that was flushed or written durably, and so must survive.
    safe: u8,
    /// The newest content whose write completed.
    completed: u8,
    /// The newest content whose write was submitted.
    submitted: u8,
}

// Without this, a crash could take flushed data (and no log above could be trusted to recover), or leave all
// unflushed data in place (and no missing flush above would ever be found).
#[test]
fn a_crash_takes_only_what_was_not_flushed() {
    let (mut lost, mut torn, mut kept) = (0, 0, 0);
    for_seeds(100, |seed| {
        let (mut simulation, node, disk) = with_disk(seed);
        let known = Rc::new(RefCell::new([Known::default(); BLOCKS as usize]));
        let writer = known.clone();
        simulation.spawn(node, || async move {
            let mut queue = open();
            for round in 1..=250u8 {
                let block = random_u64() % BLOCKS;
                writer.borrow_mut()[block as usize].submitted = round;
                let durable = random_u64().is_multiple_of(16);
                let write = request(0, DiskOperation::Write { durable }, block, 1, round);
                one(&mut queue, write).await.unwrap();
                writer.borrow_mut()[block as usize].completed = round;
                if durable {
                    writer.borrow_mut()[block as usize].safe = round;
                }
                if random_u64().is_multiple_of(12) {
                    let flush = request(0, DiskOperation::Flush, 0, 0, 0);
                    one(&mut queue, flush).await.unwrap();
                    for known in writer.borrow_mut().iter_mut() {
                        known.safe = known.completed;
                    }
                }
            }
        });
        simulation.run_for(Duration::from_micros(1_000 + seed * 97));
        simulation.crash(node);
        simulation.restart(node);
        for (block, known) in known.borrow().iter().enumerate() {
            let at = (block * BLOCK) as u64;
            let content = disk.read_bytes(at..at + BLOCK as u64);
            let oldest = content.iter().min().copied().unwrap();
            let newest = content.iter().max().copied().unwrap();
            assert!(oldest >= known.safe && newest <= known.submitted, "block {block} {known:?} {oldest}");
            lost += u32::from(newest < known.completed);
            torn += u32::from(oldest != newest);
            kept += u32::from(oldest == known.completed && known.completed > known.safe);
        }
        let block = simulation.block_on(node, || async {
            one(&mut open(), request(0, DiskOperation::Read, 5, 1, 0))
                .await
                .unwrap()
                .get(0)
                .unwrap()
                .as_slice()[0]
        });
        let at = 5 * BLOCK as u64;
        assert_eq!(block.unwrap(), disk.read_bytes(at..at + 1)[0]);
    });
    let all = usual_seeds();
    assert!(!all || (lost > 50 && torn > 50 && kept > 50), "{lost} lost, {torn} torn, {kept} kept");
}

// Without this, writes in flight at a crash could be all there or all gone, as on no real disk.
#[test]
fn a_write_in_flight_takes_effect_in_part() {
    let (mut some, mut none, mut all) = (0, 0, 0);
    for seed in 0..200 {
        let (mut simulation, node, disk) = with_disk(seed);
        disk.hold();
        // So that only the cut through the write decides, not the loss of what it had put in the cache.
        disk.set_volatile_cache(false);
        simulation.spawn(node, || async {
            let mut queue = open();
            queue.submit(request(0, WRITE, 0, 16, 1)).unwrap();
            complete(&mut queue, 1).await
        });
        simulation.run_for(Duration::from_millis(1));
        simulation.crash(node);
        let bytes = disk.read_bytes(0..16 * BLOCK as u64);
        match bytes.iter().filter(|byte| **byte == 1).count() {
            0 => none += 1,
            count if count == bytes.len() => all += 1,
            _ => some += 1,
        }
    }
    assert!(some > 50 && none > 5 && all > 0, "{some} {none} {all}");
}

// Without this, a program that relies on the order of completions would pass here and fail on a real disk.
#[test]
fn completions_come_out_of_order_and_reads_see_completed_writes() {
    let mut reordered = 0;
    for_seeds(50, |seed| {
        let (mut simulation, node, disk) = with_disk(seed);
        disk.set_latency(Duration::from_micros(5)..=Duration::from_millis(2));
        let tokens = simulation.block_on(node, || async {
            let mut queue = open();
            for token in 0..20 {
                queue.submit(request(token, WRITE, token, 1, token as u8 + 1)).unwrap();
            }
            assert_eq!(queue.outstanding(), 20);
            let tokens: Vec<u64> = complete(&mut queue, 20).await.iter().map(|done| done.token).collect();
            assert_eq!(queue.outstanding(), 0);
            let all = one(&mut queue, request(0, DiskOperation::Read, 0, 20, 0)).await.unwrap();
            for (at, block) in all.get(0).unwrap().as_slice().chunks(BLOCK).enumerate() {
                assert!(block.iter().all(|byte| *byte == at as u8 + 1), "block {at}");
            }
            tokens
        });
        reordered += u32::from(!tokens.unwrap().is_sorted());
        disk.set_latency(Duration::from_millis(10)..=Duration::from_millis(10));
        let took = simulation.block_on(node, || async {
            let mut queue = open();
            let before = now();
            one(&mut queue, request(0, DiskOperation::Read, 0, 1, 0)).await.unwrap();
            now() - before
        });
        assert!(took.unwrap() >= Duration::from_millis(10));
    });
    let all = usual_seeds();
    assert!(!all || reordered > 40, "{reordered}");
}

// Without this, injected errors could miss their target and tests of error paths would test nothing.
#[test]
fn faults_hit_what_they_are_aimed_at() {
    let (mut simulation, node, disk) = with_disk(1);
    let faults = disk.clone();
    simulation
        .block_on(node, || async move {
            let mut queue = open();
            let code = |result: io::Result<Segments>| result.err().and_then(|error| error.raw_os_error());
            faults.fail_next(1, DiskFault::Full);
            assert_eq!(code(one(&mut queue, request(0, DiskOperation::Read, 0, 1, 0)).await), None);
            assert_eq!(code(one(&mut queue, request(0, WRITE, 0, 1, 0)).await), Some(28));
            assert_eq!(code(one(&mut queue, request(0, WRITE, 0, 1, 0)).await), None);
            let bad = 8 * BLOCK as u64..8 * BLOCK as u64 + 1;
            faults.fail_range(bad, DiskFault::Media);
            assert_eq!(code(one(&mut queue, request(0, DiskOperation::Read, 7, 1, 0)).await), None);
            assert_eq!(code(one(&mut queue, request(0, DiskOperation::Read, 7, 2, 0)).await), Some(5));
            assert_eq!(code(one(&mut queue, request(0, DiskOperation::Flush, 0, 0, 0)).await), None);
            faults.clear_faults();
            assert_eq!(code(one(&mut queue, request(0, DiskOperation::Read, 8, 1, 0)).await), None);
            faults.set_error_rate(1_000_000);
            assert_eq!(code(one(&mut queue, request(0, DiskOperation::Flush, 0, 0, 0)).await), Some(5));
            faults.clear_faults();
            let past = one(&mut queue, request(0, DiskOperation::Read, BLOCKS - 1, 2, 0)).await;
            assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            let mut unaligned = request(0, DiskOperation::Read, 0, 1, 0);
            unaligned.offset = 512;
            assert_eq!(one(&mut queue, unaligned).await.unwrap_err().kind(), io::ErrorKind::InvalidInput);
            let options = DiskOptions { read_only: true, ..DiskOptions::default() };
            let mut reader = DiskQueue::open(&Disk::open("data", options).unwrap()).unwrap();
            let refused = one(&mut reader, request(0, WRITE, 0, 1, 1)).await;
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        })
        .unwrap();
    assert_eq!(disk.counters().errors, 6);
    assert_eq!(disk.counters().writes, 1);
}

// Without this, a stuck disk could let requests through, and a full queue could lose one.
#[test]
fn a_stuck_disk_holds_everything_until_released() {
    let (mut simulation, node, disk) = with_disk(2);
    let held = disk.clone();
    let finished = Rc::new(Cell::new(false));
    let seen = finished.clone();
    simulation.spawn(node, || async move {
        let mut queue = open();
        held.hold();
        for token in 0..QUEUE_DEPTH as u64 {
            queue.submit(request(token, DiskOperation::Discard, 0, 1, 0)).unwrap();
        }
        let back = queue.submit(request(7, DiskOperation::Discard, 0, 1, 0)).unwrap_err();
        assert_eq!(back.token, 7);
        complete(&mut queue, QUEUE_DEPTH).await;
        seen.set(true);
    });
    simulation.run_for(Duration::from_millis(100));
    assert!(!finished.get());
    disk.release();
    simulation.run_until(|| finished.get()).unwrap();
}

// Without this, deallocation could be reported and not done, or a dropped queue could lose its writes.
#[test]
fn discards_free_and_dropped_queues_finish() {
    let (mut simulation, node, disk) = with_disk(3);
    simulation
        .block_on(node, || async {
            let mut queue = open();
            one(&mut queue, request(0, WRITE, 0, 8, 1)).await.unwrap();
            one(&mut queue, request(0, DiskOperation::WriteZeroes { deallocate: false }, 2, 1, 0))
                .await
                .unwrap();
            one(&mut queue, request(0, DiskOperation::Discard, 4, 2, 0)).await.unwrap();
            let mut dropped = open();
            dropped.submit(request(0, WRITE, 20, 1, 9)).unwrap();
        })
        .unwrap();
    simulation.run_for(Duration::from_millis(1));
    assert_eq!(disk.allocated_bytes(), 7 * BLOCK as u64);
    let kinds: Vec<u8> = (0..8).map(|block| disk.read_bytes(block * 4096..block * 4096 + 1)[0]).collect();
    assert_eq!(kinds, [1, 1, 0, 1, 0, 0, 1, 1]);
    assert_eq!(disk.read_bytes(20 * 4096 + 5..20 * 4096 + 6), [9]);
    disk.write_bytes(20 * 4096 + 5, &[8]);
    assert_eq!(disk.read_bytes(20 * 4096 + 4..20 * 4096 + 7), [9, 8, 9]);
}

// Without this, a program could not create its disk inside the simulator, or would share it with other nodes.
#[test]
fn programs_create_disks_of_their_node() {
    let mut simulation = Simulation::new(4);
    let (a, b) = (simulation.add_node("a", 1), simulation.add_node("b", 1));
    let len = simulation.block_on(a, || async {
        assert_eq!(Disk::open("new", DiskOptions::default()).unwrap_err().kind(), io::ErrorKind::NotFound);
        let options = DiskOptions { create_bytes: Some(1 << 20), ..DiskOptions::default() };
        let disk = Disk::open("new", options.clone()).unwrap();
        let again = DiskOptions { create_bytes: Some(5 << 20), ..options };
        assert_eq!(Disk::open("new", again).unwrap().len_bytes(), disk.len_bytes());
        (disk.len_bytes(), disk.block_bytes(), now())
    });
    let (len, block, _) = len.unwrap();
    assert_eq!((len, block), (1 << 20, 512));
    assert!(simulation.disk(a, "new").exists() && !simulation.disk(b, "new").exists());
}
