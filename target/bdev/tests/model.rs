//! Devices against a plain vector of bytes: whatever is done to both, both read the same.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{bytes_of, command, run, segments};
use proptest::prelude::*;
use sledge_bdev::BlockDevice;
use sledge_nvme::Status;
use sledge_nvme::io::{IoCommand, Operation};
use sledge_reactor::memory::Segments;
use sledge_reactor::sim::Simulation;

const DEVICE_BYTES: u64 = 512 << 10;

#[derive(Clone, Debug)]
struct Step {
    operation: Operation,
    slba: u64,
    blocks: u32,
    fua: bool,
    /// A read brings its own buffers; a compare gives other bytes than are there.
    twist: bool,
    cuts: Vec<usize>,
    byte: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let operation = prop_oneof![
        4 => Just(Operation::Read),
        4 => Just(Operation::Write),
        1 => Just(Operation::Flush),
        2 => Just(Operation::Compare),
        3 => Just(Operation::CompareAndWrite),
        1 => any::<bool>().prop_map(|deallocate| Operation::WriteZeroes { deallocate }),
        1 => Just(Operation::Deallocate),
        1 => Just(Operation::Verify),
    ];
    let step = (
        operation,
        any::<u64>(),
        prop_oneof![9 => 1..40u32, 1 => 1..2000u32],
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec(any::<usize>(), 0..=2),
        any::<u8>(),
    )
        .prop_map(|(operation, slba, blocks, fua, twist, cuts, byte)| Step {
            operation,
            slba,
            blocks,
            fua,
            twist,
            cuts,
            byte,
        });
    prop::collection::vec(step, 1..40)
}

/// Does the steps to a device and to a vector, and compares the two.
async fn check(device: Arc<dyn BlockDevice>, steps: Vec<Step>) {
    let geometry = device.geometry();
    let block = geometry.block_bytes as usize;
    let mut model = vec![0u8; geometry.bytes() as usize];
    let mut channel = device.open_channel().unwrap();
    for (number, step) in steps.into_iter().enumerate() {
        let slba = step.slba % geometry.blocks;
        let blocks = step.blocks.min((geometry.blocks - slba) as u32);
        let range = slba as usize * block..(slba as usize + blocks as usize) * block;
        let fresh: Vec<u8> = (0..range.len()).map(|at| step.byte.wrapping_add((at / 7) as u8)).collect();
        let mut expected = Status::SUCCESS;
        let mut known = model[range.clone()].to_vec();
        let mut data = Segments::new();
        match step.operation {
            Operation::Read if step.twist => data = segments(&fresh, &step.cuts),
            Operation::Write => {
                data = segments(&fresh, &step.cuts);
                model[range.clone()].copy_from_slice(&fresh);
            }
            Operation::Compare | Operation::CompareAndWrite => {
                if step.twist {
                    *known.last_mut().unwrap() ^= 1;
                    expected = Status::COMPARE_FAILURE;
                }
                if step.operation == Operation::CompareAndWrite {
                    known.extend_from_slice(&fresh);
                    if !step.twist {
                        model[range.clone()].copy_from_slice(&fresh);
                    }
                }
                data = segments(&known, &step.cuts);
            }
            Operation::WriteZeroes { .. } | Operation::Deallocate => model[range.clone()].fill(0),
            _ => {}
        }
        let mut io = command(step.operation, slba, blocks, data);
        io.fua = step.fua;
        let completion = run(channel.as_mut(), io).await;
        assert_eq!(completion.status, expected, "step {number}: {:?} {slba}+{blocks}", step.operation);
        if step.operation == Operation::Read {
            assert!(bytes_of(&completion.data) == model[range], "step {number} read {slba}+{blocks}");
        }
    }
    // A second channel sees all of it.
    let mut other = device.open_channel().unwrap();
    let chunk = (128 << 10) / block;
    for first in (0..geometry.blocks).step_by(chunk) {
        let (status, bytes) = common::read(other.as_mut(), first, chunk as u32).await;
        assert_eq!(status, Status::SUCCESS);
        assert!(bytes == model[first as usize * block..][..bytes.len()], "at {first}");
    }
    assert_eq!((channel.outstanding(), channel.needs_polling()), (0, false));
    let beyond = run(channel.as_mut(), IoCommand::new(0, Operation::Read, geometry.blocks, 1)).await;
    assert!(beyond.status.is(Status::LBA_OUT_OF_RANGE));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    // Deleting this lets the memory device lose, misplace or invent bytes, or leave its ranges locked.
    #[test]
    fn malloc_is_like_a_vector(steps in steps(), small in any::<bool>()) {
        let block = if small { 512 } else { 4096 };
        let device = common::malloc(DEVICE_BYTES / u64::from(block), block);
        common::on_reactor(move || check(device, steps));
    }

    // Deleting this lets the file device do so: bounce buffers, pieces of compares, holes, offsets.
    #[test]
    fn a_file_is_like_a_vector(steps in steps(), small in any::<bool>()) {
        let block = if small { 512 } else { 4096 };
        let folder = common::folder();
        if let Some(device) = common::uring(&folder.path().join("disk"), DEVICE_BYTES / u64::from(block), block) {
            common::on_reactor(move || check(device, steps));
        }
    }

    // Deleting this loses the same on a disk whose requests are reordered by seed, where failures replay.
    #[test]
    fn a_simulated_disk_is_like_a_vector(steps in steps(), small in any::<bool>(), seed in any::<u64>()) {
        let block = if small { 512 } else { 4096 };
        let mut world = Simulation::new(seed);
        let node = world.add_node("node", 1);
        world.disk(node, "disk").create(DEVICE_BYTES, block);
        world.block_on(node, || async move {
            let device = common::uring("disk".as_ref(), DEVICE_BYTES / u64::from(block), block).unwrap();
            check(device, steps).await;
        }).unwrap();
    }
}
