//! The data path against the model controller, in any order and with faults: every I/O is answered once, and every
//! block holds what was written there.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::Bench;
use proptest::prelude::*;
use sledge_nvme::Status;
use sledge_nvme::driver::NamespaceChannel;
use sledge_nvme::driver::io_queue::{IoQueue, IoQueueOptions, Reclaim};
use sledge_nvme::driver::shadow::ShadowDoorbells;
use sledge_nvme::driver::shape::NamespaceShape;
use sledge_nvme::identify::{Cns, ControllerData, NamespaceData};
use sledge_nvme::io::{Channel, IoCommand, IoCompletion, Operation, Submitted};
use sledge_nvme::model::{ModelNamespace, ModelOptions};
use sledge_nvme::{Command, opcode::Admin};
use sledge_reactor::memory::{Segments, allocate};
use sledge_reactor::sim::{Simulation, SimulationConfig};
use sledge_reactor::{now, sleep, yield_now};

const BLOCKS: u64 = 200;
const OPERATIONS: [Operation; 9] = [
    Operation::Read,
    Operation::Read,
    Operation::Write,
    Operation::Write,
    Operation::Compare,
    Operation::CompareAndWrite,
    Operation::WriteZeroes { deallocate: true },
    Operation::Deallocate,
    Operation::Verify,
];
const FAULTS: [Status; 6] = [
    Status::NAMESPACE_NOT_READY,
    Status::INTERNAL_ERROR,
    Status::COMMAND_INTERRUPTED.with_retry_delay(2),
    Status::WRITE_FAULT,
    Status::UNRECOVERED_READ_ERROR.do_not_retry(),
    Status::NAMESPACE_NOT_READY.do_not_retry(),
];
const GIVEN_UP: Status = Status::INTERNAL_PATH_ERROR;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Submit { operation: usize, slba: u64, blocks: u32, fua: bool, cut: u16, own_buffers: bool, right: bool },
    Poll,
    Run,
    Sleep(u16),
    Hold(bool),
    Release(u8),
    Fail(usize),
    Duplicate,
    Abort(u8),
    AbortOverdue,
    Reset(bool),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let submit =
        (0..OPERATIONS.len(), 0..BLOCKS, 1..50u32, any::<bool>(), any::<u16>(), any::<bool>(), any::<bool>());
    prop_oneof![
        12 => submit.prop_map(|(operation, slba, blocks, fua, cut, own_buffers, right)| {
            Step::Submit { operation, slba, blocks, fua, cut, own_buffers, right }
        }),
        8 => Just(Step::Poll),
        6 => Just(Step::Run),
        1 => (0..200u16).prop_map(Step::Sleep),
        1 => any::<bool>().prop_map(Step::Hold),
        3 => any::<u8>().prop_map(Step::Release),
        1 => (0..FAULTS.len()).prop_map(Step::Fail),
        1 => Just(Step::Duplicate),
        1 => any::<u8>().prop_map(Step::Abort),
        1 => Just(Step::AbortOverdue),
        1 => any::<bool>().prop_map(Step::Reset),
        1 => Just(Step::Reopen),
    ]
}

/// What the controller is like, and the queue.
#[derive(Clone, Debug)]
struct Setting {
    options: ModelOptions,
    depth: u16,
    pool_bytes: usize,
    seed: u64,
    per_step: usize,
}

fn setting() -> impl Strategy<Value = Setting> {
    let flags = prop::array::uniform8(any::<bool>());
    let shape = (0..4u8, prop::sample::select(vec![0, 0, 8, 24]), 0..3u8);
    (flags, shape, 2..20u16, any::<u64>(), 1..9usize).prop_map(
        |(flags, (mdts, optimal_boundary, protection), depth, seed, per_step)| {
            let [large, sgl, shadow_doorbells, scattered, write_zeroes, dataset_management, verify, cache] =
                flags;
            let mut namespace = ModelNamespace::new(1, BLOCKS, if large { 4096 } else { 512 });
            if protection > 0 {
                namespace = namespace.with_metadata(protection);
            }
            namespace.optimal_boundary = optimal_boundary;
            let options = ModelOptions {
                mdts: mdts + 1,
                doorbell_stride: mdts,
                sgl,
                shadow_doorbells,
                scattered,
                write_zeroes,
                dataset_management,
                verify,
                volatile_write_cache: cache,
                namespaces: vec![namespace],
                ..Default::default()
            };
            let pool_bytes = if sgl ^ scattered { 16 << 20 } else { 2 << 20 };
            Setting { options, depth, pool_bytes, seed, per_step }
        },
    )
}

/// An I/O that was submitted.
#[derive(Clone, Debug)]
struct Pending {
    operation: Operation,
    slba: u64,
    blocks: u32,
    /// What is compared with, and what is written.
    compared: u64,
    written: u64,
}

impl Pending {
    fn range(&self) -> std::ops::Range<usize> {
        self.slba as usize..self.slba as usize + self.blocks as usize
    }
}

/// The content of a block that has a tag; tag 0 is zeroes.
fn content(tag: u64, lba: u64, block: usize) -> Vec<u8> {
    if tag == 0 {
        return vec![0; block];
    }
    let word = |index: u64| tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ lba << 20 ^ index;
    (0..block as u64 / 8).flat_map(|index| word(index).to_le_bytes()).collect()
}

struct World {
    bench: Bench,
    queue: Rc<IoQueue>,
    shadows: Option<Arc<ShadowDoorbells>>,
    shape: Arc<NamespaceShape>,
    channel: NamespaceChannel,
    /// The tags that each block may have.
    blocks: Vec<BTreeSet<u64>>,
    /// Blocks that something under way writes, or reads so often.
    written: Vec<bool>,
    read: Vec<u32>,
    pending: BTreeMap<u64, Pending>,
    /// I/Os whose channel was closed under them.
    orphans: Vec<Pending>,
    next: u64,
    faulty: bool,
    /// The pool is so small that it may run dry.
    small: bool,
}

impl World {
    fn new(setting: &Setting) -> Self {
        let mut bench = Bench::new(setting.options.clone());
        let controller: ControllerData = bench.identify(Cns::Controller, 0);
        let namespace: NamespaceData = bench.identify(Cns::Namespace, 1);
        let shape = Arc::new(NamespaceShape::new(1, &controller, None, &namespace).unwrap());
        let stride_bytes = bench.stride();
        let options = IoQueueOptions {
            depth: setting.depth,
            stride_bytes,
            sgl: setting.options.sgl,
            retry_delays: [Duration::from_millis(1), Duration::from_millis(50), Duration::from_millis(500)],
            ..Default::default()
        };
        let queue = IoQueue::new(bench.model.clone(), &options).unwrap();
        let shadows = setting.options.shadow_doorbells.then(|| {
            let shadows = ShadowDoorbells::new(&*bench.model, stride_bytes).unwrap();
            let configure = Command::new(Admin::DoorbellBufferConfig.value(), 0);
            let configure = common::prp(configure, shadows.doorbells_address(), shadows.events_address());
            assert!(bench.admin(configure).status().is_success());
            queue.set_shadows(Some(&shadows));
            shadows
        });
        bench.create(queue.addresses().unwrap());
        queue.start();
        let channel = queue.open_channel(shape.clone()).unwrap();
        bench.model.automatic(false);
        bench.model.reorder(Some(setting.seed));
        bench.model.most_per_step(setting.per_step);
        Self {
            bench,
            queue,
            shadows,
            shape,
            channel,
            blocks: vec![[0].into(); BLOCKS as usize],
            written: vec![false; BLOCKS as usize],
            read: vec![0; BLOCKS as usize],
            pending: BTreeMap::new(),
            orphans: Vec::new(),
            next: 1,
            faulty: false,
            small: setting.pool_bytes < 16 << 20,
        }
    }

    fn block_bytes(&self) -> usize {
        self.shape.geometry.block_bytes as usize
    }

    /// Buffers of `bytes` bytes in all, cut somewhere; `None` when the pool is dry.
    fn buffers(&self, bytes: usize, cut: u16) -> Option<Segments> {
        let first = match cut % 3 {
            0 => bytes,
            1 => (usize::from(cut) * 4096 % bytes).max(1),
            _ => (usize::from(cut) * 4 % bytes).max(1),
        };
        let mut segments = Segments::new();
        for part in [first, bytes - first].into_iter().filter(|part| *part > 0) {
            segments.push(allocate(part)?).ok()?;
        }
        Some(segments)
    }

    fn submit(&mut self, mut io: IoCommand, right: bool, cut: u16, own_buffers: bool) {
        let block = self.block_bytes();
        let token = io.token;
        let range = io.slba as usize..io.slba as usize + io.blocks as usize;
        let modifies = io.operation.modifies();
        let free = range.clone().all(|lba| !self.written[lba] && (!modifies || self.read[lba] == 0));
        if !free || !self.shape.supports(io.operation) {
            return;
        }
        // Compares need a tag that all blocks surely have, to know how they end.
        let mut tags = range.clone().map(|lba| &self.blocks[lba]);
        let common = tags
            .next()
            .filter(|tags| tags.len() == 1)
            .and_then(|first| tags.all(|tags| tags == first).then(|| *first.first().unwrap()));
        let compares = matches!(io.operation, Operation::Compare | Operation::CompareAndWrite);
        let Some(common) = common.or((!compares).then_some(0)) else { return };
        let compared = if right { common } else { common + 1 };
        let written =
            if matches!(io.operation, Operation::Write | Operation::CompareAndWrite) { token } else { 0 };
        let bytes = io.operation.data_bytes(io.blocks, block as u32) as usize;
        if bytes > 0 && (io.operation != Operation::Read || own_buffers) {
            let Some(mut data) = self.buffers(bytes, cut) else { return };
            let image = |tag| range.clone().flat_map(move |lba| content(tag, lba as u64, block));
            let image: Vec<u8> = match io.operation {
                Operation::Read => vec![0xee; bytes],
                Operation::Compare => image(compared).collect(),
                Operation::CompareAndWrite => image(compared).chain(image(written)).collect(),
                _ => image(written).collect(),
            };
            assert_eq!(data.copy_from(0, &image), bytes);
            io.data = data;
        }
        let pending =
            Pending { operation: io.operation, slba: io.slba, blocks: io.blocks, compared, written };
        for lba in range {
            if modifies {
                self.written[lba] = true;
            } else {
                self.read[lba] += 1;
            }
        }
        assert!(self.pending.insert(token, pending).is_none());
        if let Submitted::Done(completion) = self.channel.submit(io) {
            self.answered(completion);
        }
    }

    /// What was under way is over.
    fn release(&mut self, pending: &Pending, succeeded: bool) {
        for lba in pending.range() {
            if pending.operation.modifies() {
                self.written[lba] = false;
                if succeeded {
                    self.blocks[lba].clear();
                }
                self.blocks[lba].insert(pending.written);
            } else {
                self.read[lba] -= 1;
            }
        }
    }

    fn answered(&mut self, completion: IoCompletion) {
        let pending = self.pending.remove(&completion.token).expect("answered once, and only what was asked");
        let status = completion.status;
        let compares = matches!(pending.operation, Operation::Compare | Operation::CompareAndWrite);
        let differs = compares && pending.range().any(|lba| self.blocks[lba] != [pending.compared].into());
        if status.is_success() {
            assert!(!differs, "{pending:?} must not succeed");
        } else if status.is(Status::COMPARE_FAILURE) {
            assert!(differs, "{pending:?} must not fail");
        } else if status.is(Status::ATOMIC_WRITE_UNIT_EXCEEDED) || status.is(Status::INVALID_OPCODE) {
            // Longer than what is atomic, or in a queue that has no room for two.
            assert!(pending.operation == Operation::CompareAndWrite);
        } else {
            // An I/O waits so long for memory.
            let starved = self.small && status.is(Status::COMMAND_INTERRUPTED);
            assert!(self.faulty || starved, "{pending:?} failed for nothing: {status}");
        }
        if [Status::COMPARE_FAILURE, Status::ATOMIC_WRITE_UNIT_EXCEEDED, Status::INVALID_OPCODE]
            .iter()
            .any(|known| status.is(*known))
        {
            // It has written nothing.
            pending.range().for_each(|lba| match pending.operation.modifies() {
                true => self.written[lba] = false,
                false => self.read[lba] -= 1,
            });
            return;
        }
        self.release(&pending, status.is_success());
        if pending.operation == Operation::Read && status.is_success() {
            let block = self.block_bytes();
            let mut bytes = vec![0; pending.blocks as usize * block];
            assert_eq!(completion.data.copy_to(0, &mut bytes), bytes.len());
            for (lba, bytes) in pending.range().zip(bytes.chunks_exact(block)) {
                let found = self.blocks[lba].iter().find(|&&tag| content(tag, lba as u64, block) == bytes);
                let found = *found.unwrap_or_else(|| panic!("block {lba} is none of {:?}", self.blocks[lba]));
                // Other reads may have begun before: what they saw is the same, since nothing writes meanwhile.
                self.blocks[lba] = [found].into();
            }
        }
    }

    fn poll(&mut self) {
        let mut done = Vec::new();
        self.channel.poll(&mut done);
        done.into_iter().for_each(|completion| self.answered(completion));
        if self.queue.statistics().orphans == 0 {
            for pending in std::mem::take(&mut self.orphans) {
                self.release(&pending, false);
            }
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Submit { operation, slba, blocks, fua, cut, own_buffers, right } => {
                let blocks = blocks.min((BLOCKS - slba) as u32);
                let mut io = IoCommand::new(self.next, OPERATIONS[operation], slba, blocks);
                io.fua = fua;
                self.next += 1;
                self.submit(io, right, cut, own_buffers);
            }
            Step::Poll => {
                self.poll();
                yield_now().await;
            }
            Step::Run => {
                self.bench.model.step();
            }
            Step::Sleep(milliseconds) => sleep(Duration::from_millis(milliseconds.into())).await,
            Step::Hold(true) => {
                let mut count = 0;
                self.bench.model.hold(move |queue, _| {
                    count += 1;
                    queue == 1 && count % 3 == 0
                });
            }
            Step::Hold(false) => self.bench.model.hold_none(),
            Step::Release(index) => {
                let held = self.bench.model.held().len().max(1);
                self.bench.model.release(usize::from(index) % held);
            }
            Step::Fail(which) => {
                self.faulty = true;
                self.bench.model.fail_next(FAULTS[which]);
            }
            Step::Duplicate => self.bench.model.duplicate(1),
            Step::Abort(index) => {
                let index = usize::from(index) % self.pending.len().max(1);
                if let Some((&token, _)) = self.pending.iter().nth(index) {
                    self.faulty = true;
                    self.channel.abort(token);
                }
            }
            Step::AbortOverdue => {
                while let Some(cid) = self.queue.abort_candidate(now() - Duration::from_millis(100)) {
                    // Tried again, but not for ever.
                    self.faulty = true;
                    self.bench.admin(common::prp(Command::abort(1, cid), 0, 0));
                }
            }
            Step::Reset(retry) => self.reset(retry),
            Step::Reopen => {
                self.channel = self.queue.open_channel(self.shape.clone()).unwrap();
                self.orphans.extend(std::mem::take(&mut self.pending).into_values());
            }
        }
    }

    fn reset(&mut self, retry: bool) {
        self.faulty = true;
        self.queue.stop();
        self.bench.delete(1);
        self.queue.reclaim(if retry { Reclaim::Retry } else { Reclaim::Fail(GIVEN_UP) });
        assert_eq!(self.queue.outstanding(), 0);
        self.queue.reset_rings();
        if let Some(shadows) = &self.shadows {
            shadows.clear();
        }
        self.bench.create(self.queue.addresses().unwrap());
        self.queue.start();
    }

    /// No more faults: everything ends, and everything is where it belongs.
    async fn finish(mut self) {
        self.bench.model.hold_none();
        self.bench.model.fail_none();
        self.bench.model.duplicate(0);
        self.settle().await;
        self.faulty = false;
        for slba in (0..BLOCKS).step_by(25) {
            for _ in 0..if self.small { 20 } else { 1 } {
                let io = IoCommand::new(self.next, Operation::Read, slba, 25);
                self.next += 1;
                self.submit(io, true, 0, false);
                self.settle().await;
            }
        }
        assert!(self.blocks.iter().all(|tags| tags.len() == 1), "everything was read");
        assert_eq!((self.queue.outstanding(), self.queue.statistics().accepted), (0, 0));
        assert!(!self.channel.needs_polling() && self.channel.outstanding() == 0);
        // Zeroes and verification that the controller has no command for are cut by size alone.
        if self.shape.max_zeroes_blocks > 0 && self.shape.max_verify_blocks > 0 {
            assert_eq!(self.bench.model.statistics().boundary_crossings, 0);
        }
        self.bench.check();
    }

    async fn settle(&mut self) {
        for turn in 0..5000_u64 {
            self.bench.model.step();
            self.bench.model.release_all();
            self.poll();
            if self.pending.is_empty() && self.orphans.is_empty() {
                return;
            }
            sleep(Duration::from_millis(turn / 100)).await;
        }
        self.bench.check();
        panic!(
            "never answered: {:?} {:?}; {} on the device, {:?}",
            self.pending,
            self.orphans,
            self.queue.outstanding(),
            self.queue.statistics(),
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    // Deleting this lets an I/O be answered twice, never or wrongly, or its data go elsewhere, when completions come in
    // another order, late, twice, with errors, or after a queue was made anew.
    #[test]
    fn every_io_is_answered_once_with_the_right_data(
        setting in setting(),
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let config = SimulationConfig { pool_bytes: setting.pool_bytes, ..Default::default() };
        let mut simulation = Simulation::with_config(setting.seed, config);
        let node = simulation.add_node("node", 1);
        simulation.block_on(node, || async move {
            let mut world = World::new(&setting);
            for step in steps {
                world.step(step).await;
            }
            world.finish().await;
        }).unwrap();
    }
}
