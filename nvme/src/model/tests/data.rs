//! Where data lies and what becomes of it: PRPs, SGLs, limits, cache, metadata, protection.

use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use super::super::function::with_registered;
use super::super::{ModelNamespace, ModelOptions};
use super::{Host, host_with_queue, prp};
use crate::command::{DataPointerKind, DatasetRange};
use crate::function::{DmaMemory, Function};
use crate::opcode::Admin;
use crate::sgl::{Descriptor, descriptor_type};
use crate::{Command, Status};

const BAD_OFFSET: Status = Status::PRP_OFFSET_INVALID.do_not_retry();

/// Memory whose byte at each offset is the number of its 512-byte piece.
fn numbered(host: &Host, bytes: usize) -> DmaMemory {
    let mut memory = host.model.allocate(bytes).unwrap();
    for offset in 0..bytes {
        memory.write::<u8>(offset, (offset / 512) as u8);
    }
    memory
}

// Deleting this lets a driver with wrong PRPs pass its tests: each form, and each misalignment that is an error.
#[test]
fn prps_of_every_form() {
    let mut host = host_with_queue(ModelOptions { mdts: 10, ..Default::default() }, 8);
    let data = numbered(&host, 64 << 12);
    let mut list = host.model.allocate(3 << 12).unwrap();
    let page = |index: u64| data.device_address(0) + (index << 12);
    let at = list.device_address(0);
    let write = |host: &mut Host, blocks: u32, first: u64, second: u64| {
        host.run(1, prp(Command::write(1, 0, blocks), first, second)).status()
    };

    // One entry, at an offset; two entries, the first at an offset.
    assert_eq!(write(&mut host, 4, page(2) + 2048, 0), Status::SUCCESS);
    assert_eq!(host.model.content(1, 3), [16 + 7; 512]);
    assert_eq!(write(&mut host, 8, page(2) + 2048, page(9)), Status::SUCCESS);
    assert_eq!((host.model.content(1, 3), host.model.content(1, 4)), (vec![23; 512], vec![72; 512]));
    assert_eq!(write(&mut host, 8, page(2) + 2, page(9)), BAD_OFFSET);
    assert_eq!(write(&mut host, 8, page(2) + 2048, page(9) + 512), BAD_OFFSET);
    assert_eq!(write(&mut host, 16, page(2), page(9) + 8), BAD_OFFSET);

    // A list, beginning in the middle of its page.
    let entries = [page(5), page(7), page(3)];
    entries.iter().enumerate().for_each(|(index, &entry)| list.write(256 + index * 8, entry));
    assert_eq!(write(&mut host, 32, page(2), at + 256), Status::SUCCESS);
    let pages: Vec<u8> = (0..4).map(|index| host.model.content(1, index * 8)[0] / 8).collect();
    assert_eq!(pages, [2, 5, 7, 3]);
    assert_eq!(write(&mut host, 32, page(2), at + 260), BAD_OFFSET);
    list.write(256 + 8, page(7) + 512);
    assert_eq!(write(&mut host, 32, page(2), at + 256), BAD_OFFSET);

    // The last entry of a list's page is data when it is the last that is needed, and else the next list.
    list.write(4096 - 16, page(5));
    list.write(4096 - 8, page(7));
    assert_eq!(write(&mut host, 24, page(2), at + 4096 - 16), Status::SUCCESS);
    assert_eq!(host.model.content(1, 16)[0] / 8, 7);
    list.write(4096 - 8, at + 8192);
    list.write(8192, page(11));
    list.write(8192 + 8, page(12));
    assert_eq!(write(&mut host, 32, page(2), at + 4096 - 16), Status::SUCCESS);
    let pages: Vec<u8> = (0..4).map(|index| host.model.content(1, index * 8)[0] / 8).collect();
    assert_eq!(pages, [2, 5, 11, 12]);
    list.write(4096 - 8, at + 8192 + 8);
    assert_eq!(
        write(&mut host, 32, page(2), at + 4096 - 16),
        BAD_OFFSET,
        "lists that follow begin their page"
    );
    host.faultless();
}

// Deleting this lets a driver with wrong SGLs, or SGLs that nobody offered, pass its tests.
#[test]
fn sgls() {
    let mut host = host_with_queue(ModelOptions { sgl: true, ..Default::default() }, 8);
    let data = numbered(&host, 8 << 12);
    let mut list = host.model.allocate(4096).unwrap();
    let sgl = |descriptor| {
        let mut command = Command::write(1, 0, 3).with_data(descriptor);
        command.flags = DataPointerKind::SglContiguousMetadata.value() << 6;
        command
    };
    let block = |index: u64| Descriptor::data_block(data.device_address(0) + index * 512, 512);
    assert_eq!(host.run(1, sgl(Descriptor { length: U32::new(1536), ..block(3) })).status(), Status::SUCCESS);
    assert_eq!(host.model.content(1, 2), [5; 512]);
    let too_short = Status::SGL_DATA_LENGTH_INVALID.do_not_retry();
    assert_eq!(host.run(1, sgl(block(3))).status(), too_short);

    for (index, from) in [9, 1, 30].into_iter().enumerate() {
        list.write(index * 16, block(from));
    }
    let mut segment = Descriptor::data_block(list.device_address(0), 48);
    segment.identifier = descriptor_type::LAST_SEGMENT << 4;
    assert_eq!(host.run(1, sgl(segment)).status(), Status::SUCCESS);
    let blocks: Vec<u8> = (0..3).map(|lba| host.model.content(1, lba)[0]).collect();
    assert_eq!(blocks, [9, 1, 30]);
    let odd = Descriptor { length: U32::new(40), ..segment };
    let bad_segment = Status::SGL_INVALID_SEGMENT_DESCRIPTOR.do_not_retry();
    assert_eq!(host.run(1, sgl(odd)).status(), bad_segment);
    host.faultless();

    let mut plain = host_with_queue(ModelOptions::default(), 8);
    assert_eq!(plain.run(1, sgl(block(3))).status(), Status::INVALID_FIELD.do_not_retry());
}

// Deleting this lets the model reach memory that it may not, and a driver that frees too early pass its tests.
#[test]
fn the_iommu_refuses_what_is_not_mapped() {
    let mut host = host_with_queue(ModelOptions::default(), 8);
    let page = host.model.allocate(4096).unwrap();
    let at = page.device_address(0);
    let mapped = host.model.mapped_bytes();
    let read =
        |host: &mut Host, blocks, at| host.run(1, prp(Command::read(1, 0, blocks), at, at + 4096)).status();
    assert_eq!(read(&mut host, 8, at), Status::SUCCESS);
    host.faultless();
    assert_eq!(read(&mut host, 9, at), Status::DATA_TRANSFER_ERROR, "a page beyond");
    drop(page);
    assert_eq!(host.model.mapped_bytes(), mapped - 4096);
    assert_eq!(read(&mut host, 1, at), Status::DATA_TRANSFER_ERROR, "freed");
    let addresses: Vec<_> = host.model.faults().iter().map(|fault| (fault.address, fault.write)).collect();
    assert_eq!(addresses, [(at + 4096, true), (at, true)]);
    host.model.set_bus_master(false).unwrap();
    host.submit(1, prp(Command::flush(1), 0, 0));
    assert!(host.status().fatal(), "not even a queue can be read without bus mastering");
}

// Deleting this lets memory that is contiguous for the process only be taken for contiguous for the device.
#[test]
fn registered_memory_may_be_scattered() {
    for scattered in [false, true] {
        let mut host = host_with_queue(ModelOptions { scattered, ..Default::default() }, 8);
        let mut bytes = vec![0_u8; 5 * 4096];
        let first = bytes.as_ptr().addr().next_multiple_of(4096) - bytes.as_ptr().addr();
        let memory = &mut bytes[first..first + 4 * 4096];
        memory.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index / 512) as u8);
        let model = host.model.clone();
        let mut at = 0;
        with_registered(&model, memory, |registration| {
            let (address, contiguous) =
                registration.device_address(registration.start() + 4096 + 512).unwrap();
            assert_eq!(contiguous, if scattered { 4096 - 512 } else { 3 * 4096 - 512 });
            assert_eq!(host.run(1, prp(Command::write(1, 0, 1), address, 0)).status(), Status::SUCCESS);
            at = address;
        });
        assert_eq!(host.model.content(1, 0), [9; 512]);
        assert_eq!(host.run(1, prp(Command::write(1, 0, 1), at, 0)).status(), Status::DATA_TRANSFER_ERROR);
    }
}

// Deleting this lets commands pass that are too large, beyond the end, or of no namespace.
#[test]
fn limits() {
    let namespaces = vec![ModelNamespace::new(1, 100, 512)];
    let mut host = host_with_queue(ModelOptions { mdts: 1, namespaces, ..Default::default() }, 8);
    let page = host.model.allocate(16384).unwrap();
    let at = page.device_address(0);
    let status = |host: &mut Host, command| host.run(1, prp(command, at, at + 4096)).status().without_flags();
    assert_eq!(status(&mut host, Command::read(1, 0, 16)), Status::SUCCESS);
    assert_eq!(status(&mut host, Command::read(1, 0, 17)), Status::INVALID_FIELD);
    assert_eq!(status(&mut host, Command::read(1, 99, 2)), Status::LBA_OUT_OF_RANGE);
    assert_eq!(status(&mut host, Command::read(1, u64::MAX, 2)), Status::LBA_OUT_OF_RANGE);
    assert_eq!(status(&mut host, Command::read(2, 0, 1)), Status::INVALID_NAMESPACE_OR_FORMAT);
    assert_eq!(status(&mut host, Command { opcode: 0x7d, ..Command::read(1, 0, 1) }), Status::INVALID_OPCODE);
    assert_eq!(
        status(&mut host, Command::write_zeroes(1, 0, 100, true)),
        Status::SUCCESS,
        "no data, no MDTS"
    );
    host.faultless();
}

// Deleting this lets zeroed, freed, compared and verified blocks be something else.
#[test]
fn commands_without_data_transfer() {
    let mut host = host_with_queue(ModelOptions::default(), 8);
    let mut page = numbered(&host, 8192);
    let at = page.device_address(0);
    let status =
        |host: &mut Host, command, at| host.run(1, prp(command, at, at + 4096)).status().without_flags();
    assert_eq!(status(&mut host, Command::write(1, 0, 8), at), Status::SUCCESS);
    assert_eq!(status(&mut host, Command::compare(1, 0, 8), at), Status::SUCCESS);
    assert_eq!(status(&mut host, Command::compare(1, 0, 8), at + 4096), Status::COMPARE_FAILURE);
    assert_eq!(status(&mut host, Command::verify(1, 0, 8), 0), Status::SUCCESS);
    assert_eq!(status(&mut host, Command::write_zeroes(1, 1, 2, false), 0), Status::SUCCESS);
    page.copy_from(0, [DatasetRange::new(4, 1), DatasetRange::new(6, 2)].as_bytes());
    assert_eq!(status(&mut host, Command::deallocate_ranges(1, 2), at), Status::SUCCESS);
    let blocks: Vec<u8> = (0..8).map(|lba| host.model.content(1, lba)[511]).collect();
    assert_eq!(blocks, [0, 0, 0, 3, 0, 5, 0, 0]);
    page.copy_from(0, DatasetRange::new(1 << 20, 1).as_bytes());
    assert_eq!(status(&mut host, Command::deallocate_ranges(1, 1), at), Status::LBA_OUT_OF_RANGE);
    host.faultless();
}

// Deleting this lets a driver that forgets FUA or Flush pass its tests.
#[test]
fn what_is_not_flushed_is_lost_with_power() {
    let mut host = host_with_queue(ModelOptions { volatile_write_cache: true, ..Default::default() }, 8);
    let page = numbered(&host, 4096);
    let at = page.device_address(512);
    let write = |lba| prp(Command::write(1, lba, 1), at, 0);
    host.run(1, write(1));
    host.run(1, prp(Command::flush(1), 0, 0));
    host.run(1, write(2));
    host.run(1, write(3).with_fua());
    assert_eq!(host.model.content(1, 2), [1; 512]);
    host.model.cycle_power();
    let blocks: Vec<u8> = (1..4).map(|lba| host.model.content(1, lba)[0]).collect();
    assert_eq!(blocks, [1, 0, 1]);
}

// Deleting this lets metadata and protection information be lost, or corruption go unnoticed.
#[test]
fn metadata_and_protection() {
    let plain = ModelNamespace::new(1, 100, 512).with_metadata(0);
    let protected = ModelNamespace::new(2, 100, 512).with_metadata(1);
    let extended = ModelNamespace { nsid: 3, extended: true, ..protected.clone() };
    let namespaces = vec![plain, protected, extended];
    let mut host = host_with_queue(ModelOptions { namespaces, ..Default::default() }, 8);
    let mut page = numbered(&host, 8192);
    let at = page.device_address(0);
    let with = |command: Command, metadata: u64, prinfo: u32| {
        let mut command = prp(command, at, at + 4096);
        command.mptr.set(metadata);
        command.cdw12.set(command.cdw12.get() | prinfo << 26);
        command.cdw14.set(command.slba() as u32);
        command
    };

    page.copy_from(4096, b"metadata--------");
    assert_eq!(host.run(1, with(Command::write(1, 5, 2), at + 4096, 0)).status(), Status::SUCCESS);
    assert_eq!(host.model.content(1, 5)[512..], *b"metadata");
    assert_eq!(host.run(1, with(Command::read(1, 5, 2), at + 6144, 0)).status(), Status::SUCCESS);
    assert_eq!(page.read::<[u8; 16]>(6144), *b"metadata--------");

    // The controller makes the information (PRACT), checks it, gives it out, and checks what it is given.
    let (make, check) = (0x8, 0x7);
    assert_eq!(host.run(1, with(Command::write(2, 5, 1), 0, make)).status(), Status::SUCCESS);
    assert_eq!(host.run(1, with(Command::read(2, 5, 1), 0, make | check)).status(), Status::SUCCESS);
    assert_eq!(host.run(1, with(Command::read(2, 5, 1), at + 6144, check)).status(), Status::SUCCESS);
    assert_eq!(page.read::<[u8; 4]>(6148), [0, 0, 0, 5]);
    assert_eq!(host.run(1, with(Command::write(2, 5, 1), at + 6144, check)).status(), Status::SUCCESS);
    page.write::<u8>(0, 1);
    let guard = Status::GUARD_CHECK_ERROR;
    assert_eq!(host.run(1, with(Command::write(2, 5, 1), at + 6144, check)).status(), guard);
    page.write::<u8>(0, 0);
    let reference = Status::REFERENCE_TAG_CHECK_ERROR;
    assert_eq!(host.run(1, with(Command::write(2, 6, 1), at + 6144, check)).status(), reference);
    assert_eq!(host.run(1, with(Command::read(2, 50, 1), at + 6144, check)).status(), Status::SUCCESS);
    let mut other = with(Command::read(2, 5, 1), at + 6144, check);
    other.cdw14.set(9);
    assert_eq!(host.run(1, other).status(), Status::INVALID_PROTECTION_INFORMATION.do_not_retry());

    assert_eq!(host.run(1, with(Command::write(3, 8, 1), 0, 0)).status(), Status::SUCCESS);
    assert_eq!(host.model.content(3, 8)[511..], [0, 1, 1, 1, 1, 1, 1, 1, 1]);
    host.faultless();
}

// Deleting this lets a format leave the old content or block size.
#[test]
fn format_changes_the_block_size() {
    let mut host = host_with_queue(ModelOptions::default(), 8);
    let page = numbered(&host, 4096);
    host.run(1, prp(Command::write(1, 1, 1), page.device_address(512), 0));
    let mut format = Command { opcode: Admin::FormatNvm.value(), ..Command::new(0, 1) };
    format.cdw10.set(1);
    assert_eq!(host.admin(format).status(), Status::SUCCESS);
    assert_eq!(host.model.content(1, 1), [0; 4096]);
    format.cdw10.set(9);
    assert_eq!(host.admin(format).status(), Status::INVALID_FORMAT.do_not_retry());
}
