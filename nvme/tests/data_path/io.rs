//! What goes to the device and comes back, as long as it behaves.

use sledge_nvme::driver::io_queue::IoQueueOptions;
use sledge_nvme::driver::{NamespaceChannel, RawIo};
use sledge_nvme::io::{Channel, IoCommand, Operation};
use sledge_nvme::model::{ModelNamespace, ModelOptions};
use sledge_nvme::opcode::Nvm;
use sledge_nvme::{Command, Status};
use sledge_reactor::memory::{self, Pool, PoolOptions, Segments};

use crate::rig::{Rig, bytes_of, collect, data, pattern, read, run, simulated, submit, write};

/// Writes and reads back, in several lengths, alignments and pieces.
async fn write_and_read_back(rig: &Rig, block_bytes: usize) {
    let mut channel = rig.channel(1);
    for (number, (slba, blocks, piece)) in [
        (0, 1, 1 << 20),
        (3, 2, 1 << 20),
        (100, 8, 4096),
        (60, 24, 1 << 20),
        (257, 64, 1 << 17),
        (1000, 300, 1 << 18),
        (5, 700, 1 << 20),
    ]
    .into_iter()
    .enumerate()
    {
        let bytes = pattern(number as u64, blocks as usize * block_bytes);
        let pieces = piece.max(bytes.len().div_ceil(4).next_multiple_of(4096));
        let written = run(&mut channel, write(1, slba, blocks, data(&bytes, pieces))).await;
        assert_eq!(written.status, Status::SUCCESS, "{blocks} blocks");
        assert_eq!(bytes_of(&written.data), bytes, "data comes back with the completion");
        let got = run(&mut channel, read(2, slba, blocks)).await;
        assert_eq!(got.status, Status::SUCCESS);
        assert!(bytes_of(&got.data) == bytes, "{blocks} blocks from {slba}");
        let given = IoCommand { data: data(&vec![0; bytes.len()], pieces), ..read(3, slba, blocks) };
        let got = run(&mut channel, given).await;
        assert!(bytes_of(&got.data) == bytes, "{blocks} blocks from {slba} into given memory");
        assert_eq!(rig.model.content(1, slba + u64::from(blocks) - 1), bytes[bytes.len() - block_bytes..]);
    }
    rig.assert_faultless();
}

// Deleting this lets data land at wrong addresses: PRP entries, PRP lists, SGLs, cuts at MDTS and boundaries.
#[test]
fn data_comes_back_as_it_was_written() {
    for (block_bytes, scattered, sgl, boundary, mdts) in [
        (512, false, false, 0, 5),
        (512, true, false, 96, 5),
        (4096, true, true, 0, 3),
        (4096, false, true, 24, 0),
        (512, true, true, 0, 1),
    ] {
        simulated(move || async move {
            let mut namespace = ModelNamespace::new(1, 1 << 20, block_bytes);
            namespace.optimal_boundary = boundary;
            let options =
                ModelOptions { scattered, sgl, mdts, namespaces: vec![namespace], ..ModelOptions::default() };
            let rig = Rig::new(options, IoQueueOptions { depth: 8, ..IoQueueOptions::default() });
            write_and_read_back(&rig, block_bytes as usize).await;
        });
    }
}

// Deleting this lets a large I/O be answered several times, or before all of it is done.
#[test]
fn a_cut_io_has_one_answer() {
    simulated(|| async {
        let options = ModelOptions { mdts: 1, ..ModelOptions::default() };
        let rig = Rig::new(options, IoQueueOptions { depth: 4, ..IoQueueOptions::default() });
        let mut channel = rig.channel(1);
        rig.model.hold(|queue, command| queue == 1 && command.opcode == Nvm::Read.value());
        submit(&mut channel, read(7, 0, 160));
        let mut done = Vec::new();
        for _ in 0..10 {
            assert!(done.is_empty(), "answered before its last part");
            channel.poll(&mut done);
            assert!(rig.model.held().len() <= 3, "more commands than slots");
            // The parts end in the wrong order.
            let last = rig.model.held().len() - 1;
            assert!(rig.model.release(last));
        }
        done.extend(collect(&mut channel, 1).await);
        assert_eq!(done.len(), 1);
        assert_eq!((done[0].token, done[0].data.len_bytes()), (7, 160 * 512));
        assert_eq!(channel.outstanding(), 0);
        rig.assert_faultless();
    });
}

/// Keeps `depth` I/Os going until `count` have ended; the device works between the turns.
fn keep_going(rig: &Rig, channel: &mut NamespaceChannel, depth: u64, count: usize) {
    let mut done = Vec::new();
    let (mut submitted, mut ended) = (0, 0);
    for _ in 0..depth {
        submit(channel, read(submitted, submitted % 1000, 8));
        submitted += 1;
    }
    while ended < count {
        channel.poll(&mut done);
        ended += done.len();
        for completion in done.drain(..) {
            assert_eq!(completion.status, Status::SUCCESS);
            submit(channel, read(submitted, submitted % 1000, 8));
            submitted += 1;
        }
        channel.poll(&mut done);
        ended += done.len();
        done.clear();
        rig.model.step();
    }
}

// Deleting this lets a doorbell be rung for each command again, which costs more than all else.
#[test]
fn doorbells_are_rung_once_for_many() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions::default(), IoQueueOptions::default());
        let mut channel = rig.channel(1);
        rig.model.automatic(false);
        let before = rig.model.statistics();
        keep_going(&rig, &mut channel, 128, 12_800);
        let after = rig.model.statistics();
        let ios = (after.io_completions - before.io_completions) as f64;
        let submission = (after.submission_doorbells - before.submission_doorbells) as f64 / ios;
        let completion = (after.completion_doorbells - before.completion_doorbells) as f64 / ios;
        assert!(submission < 0.1, "{submission} writes of the submission doorbell an I/O");
        assert!(completion < 0.1, "{completion} writes of the completion doorbell an I/O");
        rig.assert_faultless();
    });
}

// Deleting this lets the two ends of a small ring lose each other at its end, or the completion queue run over.
#[test]
fn small_rings_go_round_many_times() {
    for depth in [2, 3, 4, 5, 8] {
        simulated(move || async move {
            let rig =
                Rig::new(ModelOptions::default(), IoQueueOptions { depth, ..IoQueueOptions::default() });
            let mut channel = rig.channel(1);
            rig.model.automatic(false);
            keep_going(&rig, &mut channel, 16, 500);
            rig.assert_faultless();
        });
    }
}

// Deleting this lets the driver ring registers although the device reads memory, or not ring when it sleeps.
#[test]
fn shadow_doorbells_spare_the_registers() {
    simulated(|| async {
        let options = ModelOptions { shadow_doorbells: true, doorbell_stride: 1, ..ModelOptions::default() };
        let rig = Rig::new(options, IoQueueOptions { depth: 16, ..IoQueueOptions::default() });
        rig.use_shadows();
        let mut channel = rig.channel(1);
        rig.model.automatic(false);
        let before = rig.model.statistics();
        keep_going(&rig, &mut channel, 10, 2000);
        let after = rig.model.statistics();
        assert!(after.io_completions - before.io_completions >= 2000);
        let rung = after.submission_doorbells - before.submission_doorbells;
        assert!(rung < 400, "{rung} writes for 2000 commands");
        rig.assert_faultless();
    });
}

// Deleting this lets one of the less usual operations do something else, or nothing.
#[test]
fn every_operation_does_what_it_says() {
    for supported in [true, false] {
        simulated(move || async move {
            let options = ModelOptions {
                write_zeroes: supported,
                verify: supported,
                volatile_write_cache: true,
                ..ModelOptions::default()
            };
            let rig = Rig::new(options, IoQueueOptions { depth: 8, ..IoQueueOptions::default() });
            let mut channel = rig.channel(1);
            let full = vec![0xee; 1000 * 512];
            let written = run(&mut channel, write(1, 10, 1000, data(&full, 1 << 20))).await;
            assert_eq!(written.status, Status::SUCCESS);
            let operation = Operation::WriteZeroes { deallocate: true };
            let zeroed = run(&mut channel, IoCommand::new(2, operation, 20, 900)).await;
            assert_eq!(zeroed.status, Status::SUCCESS);
            for (lba, byte) in [(19, 0xee), (20, 0), (500, 0), (919, 0), (920, 0xee)] {
                assert_eq!(rig.model.content(1, lba), vec![byte; 512], "block {lba}");
            }
            for operation in [Operation::Verify, Operation::Flush] {
                let done = run(&mut channel, IoCommand::new(3, operation, 10, 1000)).await;
                assert_eq!((done.status, done.data.is_empty()), (Status::SUCCESS, true), "{operation:?}");
            }
            let compare = |bytes: &[u8]| IoCommand {
                data: data(bytes, 1 << 20),
                ..IoCommand::new(4, Operation::Compare, 10, 8)
            };
            assert_eq!(run(&mut channel, compare(&full[..4096])).await.status, Status::SUCCESS);
            assert!(run(&mut channel, compare(&[1; 4096])).await.status.is(Status::COMPARE_FAILURE));
            let gone = run(&mut channel, IoCommand::new(5, Operation::Deallocate, 10, 5)).await;
            assert_eq!(gone.status, Status::SUCCESS);
            assert_eq!(rig.model.content(1, 14), vec![0; 512]);
            assert_eq!(rig.model.content(1, 15), vec![0xee; 512]);
            let flushes = rig.model.statistics().io_commands[&Nvm::Flush.value()];
            assert_eq!(flushes, 1);
            rig.assert_faultless();
        });
    }
}

// Deleting this lets a Compare and Write write though the comparison failed, or be torn, or report the wrong half.
#[test]
fn compare_and_write_is_one() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions::default(), IoQueueOptions { depth: 4, ..IoQueueOptions::default() });
        let mut channel = rig.channel(1);
        let pair = |token, old: u8, new: u8| {
            let bytes = [[old; 512], [new; 512]].concat();
            IoCommand {
                data: data(&bytes, 1 << 20),
                ..IoCommand::new(token, Operation::CompareAndWrite, 9, 1)
            }
        };
        assert_eq!(run(&mut channel, pair(1, 0, 5)).await.status, Status::SUCCESS);
        assert!(run(&mut channel, pair(2, 0, 6)).await.status.is(Status::COMPARE_FAILURE));
        assert_eq!(rig.model.content(1, 9), vec![5; 512]);
        // With one slot left a pair waits; what follows it does not overtake it for ever.
        rig.model.automatic(false);
        submit(&mut channel, read(3, 0, 1));
        submit(&mut channel, read(4, 0, 1));
        submit(&mut channel, pair(5, 5, 7));
        submit(&mut channel, read(6, 0, 1));
        let mut done = Vec::new();
        while done.len() < 4 {
            channel.poll(&mut done);
            rig.model.step();
        }
        assert!(done.iter().all(|done| done.status.is_success()), "{done:?}");
        assert_eq!(rig.model.content(1, 9), vec![7; 512]);
        let too_much = data(&vec![0; 2 * 512 * 4000], 1 << 20);
        let too_much = IoCommand { data: too_much, ..IoCommand::new(7, Operation::CompareAndWrite, 0, 4000) };
        assert!(run(&mut channel, too_much).await.status.is(Status::ATOMIC_WRITE_UNIT_EXCEEDED));
        rig.assert_faultless();
    });
}

// Deleting this lets blocks with protection information be written without it, or read without a look at it.
#[test]
fn the_controller_protects_blocks_that_have_protection() {
    for kind in 1..=3 {
        simulated(move || async move {
            let namespace = ModelNamespace::new(1, 1 << 16, 512).with_metadata(kind);
            let options = ModelOptions { namespaces: vec![namespace], ..ModelOptions::default() };
            let rig = Rig::new(options, IoQueueOptions { depth: 8, ..IoQueueOptions::default() });
            let mut channel = rig.channel(1);
            let bytes = pattern(3, 40 * 512);
            let written = run(&mut channel, write(1, 77, 40, data(&bytes, 1 << 20))).await;
            assert_eq!(written.status, Status::SUCCESS);
            let got = run(&mut channel, read(2, 77, 40)).await;
            assert_eq!((got.status, bytes_of(&got.data) == bytes), (Status::SUCCESS, true), "type {kind}");
            let stored = rig.model.content(1, 80);
            assert_eq!(stored[..512], bytes[3 * 512..4 * 512]);
            assert!(stored[512..] != [0; 8], "no protection information was stored");
            let checked = run(&mut channel, IoCommand::new(3, Operation::Verify, 77, 40)).await;
            assert_eq!(checked.status, Status::SUCCESS);
            rig.assert_faultless();
        });
    }
}

// Deleting this lets metadata be lost on the way, in either direction.
#[test]
fn metadata_passes_through_raw_commands() {
    simulated(|| async {
        let namespace = ModelNamespace::new(1, 1 << 16, 512).with_metadata(0);
        let plain = ModelNamespace::new(2, 1 << 16, 512);
        let options = ModelOptions { namespaces: vec![namespace, plain], ..ModelOptions::default() };
        let rig = Rig::new(options, IoQueueOptions::default());
        assert!(rig.shape(1).is_err_and(|reason| reason.contains("metadata")));
        // A channel of the other namespace carries the commands: they name theirs.
        let mut channel = rig.channel(2);
        let (bytes, tags) = (pattern(1, 4 * 512), pattern(9, 4 * 8));
        let raw = |token, command, data, metadata| RawIo { token, command, data, metadata };
        channel.submit_raw(raw(1, Command::write(1, 5, 4), data(&bytes, 1 << 20), data(&tags, 1 << 20)));
        let (zeroes, no_tags) = (data(&[0; 4 * 512], 1 << 20), data(&[0; 4 * 8], 1 << 20));
        let mut done = Vec::new();
        channel.poll_raw(&mut done);
        channel.submit_raw(raw(2, Command::read(1, 5, 4), zeroes, no_tags));
        channel.submit_raw(raw(3, Command::new(0x7e, 1), Segments::new(), Segments::new()));
        while done.len() < 3 {
            channel.poll_raw(&mut done);
        }
        assert_eq!(done.iter().map(|done| done.token).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(done[0].completion.status(), Status::SUCCESS);
        assert_eq!(bytes_of(&done[1].data), bytes);
        assert_eq!(bytes_of(&done[1].metadata), tags);
        assert!(done[2].completion.status().is(Status::INVALID_OPCODE));
        rig.assert_faultless();
    });
}

// Deleting this lets memory that the device does not reach be handed to it, or data be taken from the wrong place.
#[test]
fn memory_that_is_not_registered_goes_by_way_of_the_pool() {
    simulated(|| async {
        let rig = Rig::new(ModelOptions { mdts: 1, ..ModelOptions::default() }, IoQueueOptions::default());
        let mut channel = rig.channel(1);
        let foreign = Pool::ordinary(&PoolOptions { total_bytes: 1 << 20 }).unwrap();
        let bytes = pattern(4, 100 * 512);
        // The first part lies where the device reaches it, the rest not; none of it ends at a page.
        let mut mixed = data(&bytes[..33 * 512], 1 << 20);
        let mut rest = foreign.allocate(67 * 512).unwrap();
        rest.copy_from_slice(&bytes[33 * 512..]);
        mixed.push(rest).unwrap();
        assert_eq!(run(&mut channel, write(1, 40, 100, mixed)).await.status, Status::SUCCESS);
        let mut place: Segments = foreign.allocate(13 * 512).unwrap().into();
        place.push(memory::allocate(87 * 512).unwrap()).unwrap();
        let got = run(&mut channel, IoCommand { data: place, ..read(2, 40, 100) }).await;
        assert!(got.status.is_success() && bytes_of(&got.data) == bytes);
        drop(got);
        assert_eq!(memory::statistics().used_buffers, 0, "what stood in for it went back");
        rig.assert_faultless();
    });
}
