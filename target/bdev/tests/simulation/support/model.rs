//! What blocks may hold, and random I/O that is checked against it.
//!
//! Every write has a stamp of its own, and every block of it holds the stamp and its own number, so that a block in
//! the wrong place, of an older write or torn in itself is seen.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::io::Operation;
use sledge_nvmf::host::QueuePairState;
use sledge_reactor::sleep;

use super::queue::Queue;

/// Random numbers of a test, apart from those of the simulation.
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// Numbers for a seed and a purpose.
    pub fn new(seed: u64, purpose: u64) -> Draw {
        Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True in one of `many` cases.
    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// Gives out stamps; zero is for blocks of zeroes.
#[derive(Clone, Debug)]
pub struct Stamps(Rc<Cell<u64>>);

impl Stamps {
    /// From 1.
    pub fn new() -> Stamps {
        Stamps(Rc::new(Cell::new(1)))
    }

    /// A fresh one.
    pub fn next(&self) -> u64 {
        self.0.replace(self.0.get() + 1)
    }
}

/// Fills blocks from `slba` on.
pub fn fill(data: &mut [u8], slba: u64, block_bytes: usize, stamp: u64) {
    for (block, lba) in data.chunks_mut(block_bytes).zip(slba..) {
        if stamp == 0 {
            block.fill(0);
            continue;
        }
        for (at, word) in block.chunks_mut(8).enumerate() {
            let value = match at {
                0 => stamp,
                1 => lba,
                _ => stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ lba.rotate_left(32) ^ at as u64,
            };
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// The stamp of a block, which must be whole and in its place.
pub fn stamp_of(block: &[u8], lba: u64) -> u64 {
    let stamp = u64::from_le_bytes(block[..8].try_into().unwrap());
    let mut expected = vec![0; block.len()];
    fill(&mut expected, lba, block.len(), stamp);
    assert!(block == expected, "block {lba} is torn or not in its place: it begins with stamp {stamp}");
    stamp
}

/// What each block of a range may hold, by stamp. Whoever owns it is the only one to write there.
#[derive(Clone, Debug)]
pub struct Model {
    first: u64,
    possible: Vec<Vec<u64>>,
    block_bytes: usize,
}

impl Model {
    /// A range of zeroes.
    pub fn new(range: Range<u64>, block_bytes: u32) -> Model {
        let possible = vec![vec![0]; (range.end - range.start) as usize];
        let block_bytes = block_bytes as usize;
        Model { first: range.start, possible, block_bytes }
    }

    /// The range.
    pub fn range(&self) -> Range<u64> {
        self.first..self.first + self.possible.len() as u64
    }

    /// Blocks hold `stamp` from now on.
    pub fn written(&mut self, slba: u64, blocks: u32, stamp: u64) {
        for possible in self.at(slba, blocks) {
            *possible = vec![stamp];
        }
    }

    /// Blocks may hold `stamp`, or still what they held.
    pub fn attempted(&mut self, slba: u64, blocks: u32, stamp: u64) {
        for possible in self.at(slba, blocks) {
            possible.push(stamp);
        }
    }

    /// Checks what was read. From then on blocks hold that.
    pub fn check(&mut self, slba: u64, data: &[u8]) {
        for (block, lba) in data.chunks(self.block_bytes).zip(slba..) {
            let stamp = stamp_of(block, lba);
            let at = (lba - self.first) as usize;
            let possible = &mut self.possible[at];
            assert!(possible.contains(&stamp), "block {lba} holds {stamp}, but may only hold {possible:?}");
            *possible = vec![stamp];
        }
    }

    /// The content of blocks if it is certain.
    pub fn certain(&self, slba: u64, blocks: u32) -> Option<Vec<u8>> {
        let mut data = vec![0; blocks as usize * self.block_bytes];
        for (block, lba) in data.chunks_mut(self.block_bytes).zip(slba..) {
            let at = (lba - self.first) as usize;
            match self.possible[at][..] {
                [stamp] => fill(block, lba, self.block_bytes, stamp),
                _ => return None,
            }
        }
        Some(data)
    }

    fn at(&mut self, slba: u64, blocks: u32) -> &mut [Vec<u64>] {
        let start = (slba - self.first) as usize;
        &mut self.possible[start..start + blocks as usize]
    }
}

/// What a worker does with a command that failed.
pub type Tolerates = fn(Status) -> bool;

/// One sequence of random commands on a range that nobody else writes.
pub struct Worker {
    pub queue: Rc<Queue>,
    pub model: Model,
    pub stamps: Stamps,
    pub draw: Draw,
    /// Which failures are part of the test; after one, the command may or may not have been done.
    pub tolerates: Tolerates,
    /// Commands that succeeded.
    pub successes: u64,
    /// Commands that failed.
    pub failures: u64,
}

impl Worker {
    /// A worker on a range of zeroes.
    pub fn new(queue: Rc<Queue>, range: Range<u64>, draw: Draw, tolerates: Tolerates) -> Worker {
        let model = Model::new(range, queue.geometry().block_bytes);
        Worker { queue, model, stamps: Stamps::new(), draw, tolerates, successes: 0, failures: 0 }
    }

    /// One random command, checked.
    pub async fn step(&mut self) {
        let range = self.model.range();
        let length = range.end - range.start;
        let most = u64::from(self.queue.max_blocks()).min(length);
        let blocks = match self.draw.below(4) {
            0 => 1,
            1 => most,
            _ => 1 + self.draw.below(most),
        };
        let slba = range.start + self.draw.below(length - blocks + 1);
        let blocks = blocks as u32;
        match self.draw.below(20) {
            0..=6 => self.write(slba, blocks).await,
            7..=13 => self.read(slba, blocks).await,
            14 => self.zero(Operation::WriteZeroes { deallocate: false }, slba, blocks).await,
            15 => self.zero(Operation::WriteZeroes { deallocate: true }, slba, blocks).await,
            16 => self.zero(Operation::Deallocate, slba, blocks).await,
            17 => self.compare(slba, blocks).await,
            18 => self.compare_and_write(slba, (blocks / 2).max(1)).await,
            _ => {
                let (status, _) = self.queue.io(Operation::Flush, 0, 0, false, &[]).await;
                self.succeeded("flush", status);
            }
        }
    }

    /// Many random commands. After one that failed the connection is given time to come back.
    pub async fn run(&mut self, steps: u64, pause: Duration) {
        for _ in 0..steps {
            let before = self.failures;
            self.step().await;
            let mut patience = 10_000;
            while self.failures > before && self.queue.state() != QueuePairState::Live {
                assert!(self.queue.state() != QueuePairState::Ended, "the host has given the controller up");
                patience -= 1;
                assert!(patience > 0, "the connection does not come back");
                sleep(Duration::from_millis(100)).await;
            }
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }

    /// Reads and checks all of the range.
    pub async fn verify(&mut self) {
        let range = self.model.range();
        let mut at = range.start;
        while at < range.end {
            let blocks = u64::from(self.queue.max_blocks()).min(range.end - at) as u32;
            let data = self.queue.read(at, blocks).await;
            self.model.check(at, &data);
            at += u64::from(blocks);
        }
    }

    /// Reads and checks all of the range, however often that takes.
    pub async fn settle(&mut self) {
        let range = self.model.range();
        let mut at = range.start;
        let mut patience = 1000;
        while at < range.end {
            let blocks = u64::from(self.queue.max_blocks()).min(range.end - at) as u32;
            let (status, data) = self.queue.io(Operation::Read, at, blocks, false, &[]).await;
            if status.is_success() {
                self.model.check(at, &data);
                at += u64::from(blocks);
                continue;
            }
            assert!((self.tolerates)(status), "read: {status}");
            patience -= 1;
            assert!(patience > 0, "the connection does not come back");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn write(&mut self, slba: u64, blocks: u32) {
        let stamp = self.stamps.next();
        let data = self.data(slba, blocks, stamp);
        let fua = self.draw.one_in(8);
        let (status, _) = self.queue.io(Operation::Write, slba, blocks, fua, &data).await;
        self.changed("write", status, slba, blocks, stamp);
    }

    async fn zero(&mut self, operation: Operation, slba: u64, blocks: u32) {
        let (status, _) = self.queue.io(operation, slba, blocks, false, &[]).await;
        self.changed("zero", status, slba, blocks, 0);
    }

    async fn read(&mut self, slba: u64, blocks: u32) {
        let (status, data) = self.queue.io(Operation::Read, slba, blocks, false, &[]).await;
        if self.succeeded("read", status) {
            assert_eq!(data.len(), blocks as usize * self.model.block_bytes, "bytes read");
            self.model.check(slba, &data);
        }
    }

    async fn compare(&mut self, slba: u64, blocks: u32) {
        let Some(mut data) = self.model.certain(slba, blocks) else { return };
        let differs = self.draw.one_in(3);
        if differs {
            let at = self.draw.below(data.len() as u64) as usize;
            data[at] ^= 1;
        }
        let (status, _) = self.queue.io(Operation::Compare, slba, blocks, false, &data).await;
        if differs && status.is(Status::COMPARE_FAILURE) {
            return;
        }
        let succeeded = self.succeeded("compare", status);
        assert!(!(succeeded && differs), "a compare of other data succeeded");
    }

    async fn compare_and_write(&mut self, slba: u64, blocks: u32) {
        let Some(mut data) = self.model.certain(slba, blocks) else { return };
        let differs = self.draw.one_in(3);
        if differs {
            let at = self.draw.below(data.len() as u64) as usize;
            data[at] ^= 1;
        }
        let stamp = self.stamps.next();
        data.extend_from_slice(&self.data(slba, blocks, stamp));
        let (status, _) = self.queue.io(Operation::CompareAndWrite, slba, blocks, false, &data).await;
        if differs {
            assert!(!status.is_success(), "a compare and write of other data succeeded");
            if !status.is(Status::COMPARE_FAILURE) {
                self.succeeded("compare and write", status);
            }
            return;
        }
        self.changed("compare and write", status, slba, blocks, stamp);
    }

    fn data(&self, slba: u64, blocks: u32, stamp: u64) -> Vec<u8> {
        let mut data = vec![0; blocks as usize * self.model.block_bytes];
        fill(&mut data, slba, self.model.block_bytes, stamp);
        data
    }

    fn changed(&mut self, what: &str, status: Status, slba: u64, blocks: u32, stamp: u64) {
        if self.succeeded(what, status) {
            self.model.written(slba, blocks, stamp);
        } else {
            self.model.attempted(slba, blocks, stamp);
        }
    }

    fn succeeded(&mut self, what: &str, status: Status) -> bool {
        let succeeded = status.is_success();
        assert!(succeeded || (self.tolerates)(status), "{what}: {status}");
        self.successes += u64::from(succeeded);
        self.failures += u64::from(!succeeded);
        succeeded
    }
}
