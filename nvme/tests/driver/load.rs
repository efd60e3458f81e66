//! Users on several reactors who write and read while something happens to the controller, and check what they get.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::driver::Controller;
use sledge_nvme::io::{IoCommand, IoCompletion, Operation, Submitted};
use sledge_reactor::random_u64;
use sledge_reactor::time::sleep;

use crate::rig::{BLOCK, Rig};

/// I/Os that a user has under way at most.
const DEPTH: usize = 24;
/// Blocks of each user.
const BLOCKS: u64 = 64;

/// What the users have counted, all together.
#[derive(Default)]
pub struct Tally {
    stop: AtomicBool,
    running: AtomicU64,
    pub done: AtomicU64,
    pub failed: AtomicU64,
    /// Completions that were wrong, by number; the users say what it was.
    wrong: AtomicU64,
}

impl Tally {
    /// Starts a user on each reactor.
    pub fn start(rig: &mut Rig, controller: &Controller) -> Arc<Self> {
        let tally = Arc::new(Self::default());
        for reactor in 0..rig.reactors {
            let (tally, controller) = (tally.clone(), controller.clone());
            tally.running.fetch_add(1, Ordering::Relaxed);
            let node = rig.node;
            rig.sim.spawn_on(node, reactor, move || async move {
                user(&controller, reactor as u64 * BLOCKS, &tally).await;
                tally.running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        tally
    }

    /// Lets them finish what they have under way, and checks that each got all its answers, once.
    pub fn finish(&self, rig: &mut Rig) {
        self.stop.store(true, Ordering::Relaxed);
        rig.sim.run_until(|| self.running.load(Ordering::Relaxed) == 0).unwrap();
        assert_eq!(self.wrong.load(Ordering::Relaxed), 0, "wrong answers");
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What may be in a block.
#[derive(Clone, Default)]
struct Block {
    /// Of the writes that succeeded, the newest; none yet when it was not written by this user.
    content: Option<u8>,
    /// Of a write that failed: it may have been done.
    perhaps: Vec<u8>,
    busy: bool,
}

struct Under {
    lba: usize,
    /// The byte that is written; none for a read.
    writes: Option<u8>,
}

async fn user(controller: &Controller, first: u64, tally: &Tally) {
    let mut channel = controller.open_channel(1).unwrap();
    let mut blocks = vec![Block::default(); BLOCKS as usize];
    let mut under: Vec<Option<Under>> = (0..DEPTH).map(|_| None).collect();
    let next = Rc::new(Cell::new(1u8));
    let mut done = Vec::new();
    let mut pause = 50;
    loop {
        let stop = tally.stop.load(Ordering::Relaxed);
        if stop && under.iter().all(Option::is_none) {
            break;
        }
        if !stop {
            for (token, under) in under.iter_mut().enumerate() {
                if under.is_some() || random_u64().is_multiple_of(3) {
                    continue;
                }
                let lba = (random_u64() % BLOCKS) as usize;
                if std::mem::replace(&mut blocks[lba].busy, true) {
                    continue;
                }
                let writes = random_u64().is_multiple_of(2).then(|| next.replace(next.get() % 255 + 1));
                let operation = if writes.is_some() { Operation::Write } else { Operation::Read };
                let mut io = IoCommand::new(token as u64, operation, first + lba as u64, 1);
                if let Some(byte) = writes {
                    let mut buffer = sledge_reactor::memory::allocate(BLOCK).unwrap();
                    buffer.truncate(BLOCK);
                    buffer.fill(byte);
                    io.data = buffer.into();
                }
                *under = Some(Under { lba, writes });
                if let Submitted::Done(completion) = channel.submit(io) {
                    done.push(completion);
                }
            }
        }
        channel.poll(&mut done);
        // Who gets nothing looks less often, so that long waits are quickly simulated.
        let good = done.iter().any(|completion| completion.status.is_success());
        pause = if good { 50 } else { (pause * 2).min(10_000) };
        for completion in done.drain(..) {
            if !check(&mut blocks, &mut under, &completion, tally) {
                tally.wrong.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(Duration::from_micros(pause + random_u64() % (4 * pause))).await;
    }
    assert_eq!(channel.outstanding(), 0);
}

fn check(
    blocks: &mut [Block],
    under: &mut [Option<Under>],
    completion: &IoCompletion,
    tally: &Tally,
) -> bool {
    let token = completion.token as usize;
    let Some(was) = under.get_mut(token).and_then(Option::take) else {
        eprintln!("an answer to nothing, or a second one: {completion:?}");
        return false;
    };
    let block = &mut blocks[was.lba];
    block.busy = false;
    let good = completion.status.is_success();
    if good { &tally.done } else { &tally.failed }.fetch_add(1, Ordering::Relaxed);
    match (was.writes, good) {
        (Some(byte), true) => {
            block.content = Some(byte);
            block.perhaps.clear();
            true
        }
        (Some(byte), false) => {
            block.perhaps.push(byte);
            true
        }
        (None, true) => {
            let mut bytes = [0; BLOCK];
            completion.data.copy_to(0, &mut bytes);
            let byte = bytes[0];
            let known = block.content.is_none_or(|content| content == byte) || block.perhaps.contains(&byte);
            let whole = bytes.iter().all(|other| *other == byte);
            if !known || !whole {
                eprintln!("block {} is {byte} (whole: {whole}), not {:?}", was.lba, block.content);
            }
            known && whole
        }
        (None, false) => completion.status != Status::SUCCESS,
    }
}
