//! Tables of what a host can get wrong, each with what it gets: a status for a command, FES and FEI for a PDU.

use sledge_nvme::command::Fuse;
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Status};
use sledge_nvmf::pdu::{DataHeader, DataKind};

use crate::support::raw::{Arrived, queues, read_to_end, with_a_disk, write_all};

/// Bytes of the large writes here.
const LARGE: u32 = 131_072;

fn with_data(mut command: Command, descriptor: Descriptor) -> Command {
    command.dptr = descriptor;
    command
}

// Without this a command that is wrong could be executed, hang its queue, or get a status that misleads the host.
#[test]
fn commands_get_their_status() {
    let (capsule, transport) = (Descriptor::in_capsule(0, 512), Descriptor::transport(512));
    let on = |command: fn(u32, u64, u32) -> Command| move |nsid, slba| command(nsid, slba, 1);
    let (read, write, compare) = (on(Command::read), on(Command::write), on(Command::compare));
    let reserved = |mut command: Command| {
        command.flags |= 0b1100_0000;
        command
    };
    let cases: Vec<(&str, Command, usize, Status)> = vec![
        ("opcode", with_data(Command::new(0x7d, 1), transport), 0, Status::INVALID_OPCODE),
        ("opcode with data", with_data(Command::new(0x7d, 1), capsule), 512, Status::INVALID_OPCODE),
        ("reservation", Command::new(0x0e, 1), 0, Status::INVALID_OPCODE),
        ("NSID 0", with_data(read(0, 0), transport), 0, Status::INVALID_NAMESPACE_OR_FORMAT),
        ("NSID inactive", with_data(read(2, 0), transport), 0, Status::INVALID_NAMESPACE_OR_FORMAT),
        ("NSID of all", with_data(write(!0, 0), capsule), 512, Status::INVALID_NAMESPACE_OR_FORMAT),
        ("flush of none", Command::flush(2), 0, Status::INVALID_NAMESPACE_OR_FORMAT),
        ("verify of none", Command::verify(2, 0, 1), 0, Status::INVALID_NAMESPACE_OR_FORMAT),
        ("read at the end", with_data(read(1, 1024), transport), 0, Status::LBA_OUT_OF_RANGE),
        ("read far behind", with_data(read(1, u64::MAX), transport), 0, Status::LBA_OUT_OF_RANGE),
        ("write at the end", with_data(write(1, 1024), capsule), 512, Status::LBA_OUT_OF_RANGE),
        ("compare at the end", with_data(compare(1, 1024), capsule), 512, Status::LBA_OUT_OF_RANGE),
        ("zeroes over the end", Command::write_zeroes(1, 1023, 2, true), 0, Status::LBA_OUT_OF_RANGE),
        ("verify over the end", Command::verify(1, 1000, 25), 0, Status::LBA_OUT_OF_RANGE),
        (
            "more than MDTS",
            with_data(Command::read(1, 0, 257), Descriptor::transport(257 * 512)),
            0,
            Status::INVALID_FIELD,
        ),
        (
            "write of more than MDTS",
            with_data(Command::write(1, 0, 257), Descriptor::transport(257 * 512)),
            0,
            Status::INVALID_FIELD,
        ),
        (
            "buffer too small",
            with_data(read(1, 0), Descriptor::transport(511)),
            0,
            Status::SGL_DATA_LENGTH_INVALID,
        ),
        ("read into the capsule", with_data(read(1, 0), capsule), 0, Status::SGL_DESCRIPTOR_TYPE_INVALID),
        (
            "keyed SGL",
            with_data(write(1, 0), Descriptor::keyed(0, 512, 1)),
            0,
            Status::SGL_DESCRIPTOR_TYPE_INVALID,
        ),
        (
            "offset behind the capsule",
            with_data(write(1, 0), Descriptor::in_capsule(600, 512)),
            512,
            Status::SGL_OFFSET_INVALID,
        ),
        (
            "offset far behind the capsule",
            with_data(write(1, 0), Descriptor::in_capsule(!0, 512)),
            512,
            Status::SGL_OFFSET_INVALID,
        ),
        (
            "data beyond the capsule",
            with_data(write(1, 0), Descriptor::in_capsule(8, 512)),
            512,
            Status::SGL_DATA_LENGTH_INVALID,
        ),
        (
            "something behind the data",
            with_data(write(1, 0), Descriptor::in_capsule(8, 512)),
            528,
            Status::SGL_DATA_LENGTH_INVALID,
        ),
        (
            "data longer than the range",
            with_data(write(1, 0), Descriptor::in_capsule(0, 1024)),
            1024,
            Status::SGL_DATA_LENGTH_INVALID,
        ),
        (
            "capsule shorter than it says",
            with_data(write(1, 0), capsule),
            256,
            Status::SGL_DATA_LENGTH_INVALID,
        ),
        ("data that is not there", with_data(write(1, 0), capsule), 0, Status::SGL_DATA_LENGTH_INVALID),
        ("data not asked for", with_data(write(1, 0), transport), 512, Status::SGL_DATA_LENGTH_INVALID),
        ("PRPs", with_data(reserved(read(1, 0)), transport), 0, Status::INVALID_FIELD),
        ("fused flush", Command::flush(1).with_fuse(Fuse::First), 0, Status::INVALID_FIELD),
        ("no second before", with_data(write(1, 0), capsule), 512, Status::SUCCESS),
    ];
    with_a_disk(|address| async move {
        let (_admin, mut io) = queues(address).await;
        for (name, command, data, expected) in cases {
            let completion = io.execute(command, &vec![1; data]).await;
            let status = completion.status();
            assert!(status.is(expected), "{name}: {status}");
            assert_eq!(status.is_do_not_retry(), !expected.is_success(), "{name}");
        }
    });
}

// Without this fused halves could be executed alone, out of order or against each other, or left without an answer.
#[test]
fn fused_commands_follow_their_rules() {
    let descriptor = Descriptor::in_capsule(0, 512);
    let first = move |slba| with_data(Command::compare(1, slba, 1).with_fuse(Fuse::First), descriptor);
    let second = move |slba| with_data(Command::write(1, slba, 1).with_fuse(Fuse::Second), descriptor);
    let plain = with_data(Command::write(1, 500, 1), descriptor);
    let wrong_type = with_data(Command::write(1, 0, 1).with_fuse(Fuse::First), descriptor);
    let (ok, invalid, missing, failed) =
        (Status::SUCCESS, Status::INVALID_FIELD, Status::ABORTED_MISSING_FUSED, Status::ABORTED_FAILED_FUSED);
    // Blocks are zeroes; what is compared and written too, but where byte 1 is given.
    type Case = (&'static str, Vec<(Command, u8, Status)>);
    let cases: Vec<Case> = vec![
        ("a pair", vec![(first(0), 0, ok), (second(0), 0, ok)]),
        ("a miscompare", vec![(first(0), 1, Status::COMPARE_FAILURE), (second(0), 2, failed)]),
        ("second alone", vec![(second(0), 2, missing)]),
        ("first, then another", vec![(first(0), 0, missing), (plain, 0, ok)]),
        ("first, first, second", vec![(first(0), 0, missing), (first(1), 0, ok), (second(1), 0, ok)]),
        ("different ranges", vec![(first(0), 0, invalid), (second(1), 2, failed)]),
        ("first refused", vec![(first(2000), 0, Status::LBA_OUT_OF_RANGE), (second(2000), 2, failed)]),
        ("write first", vec![(wrong_type, 2, invalid), (second(0), 2, failed)]),
    ];
    with_a_disk(|address| async move {
        let (_admin, mut io) = queues(address).await;
        for (name, commands) in cases {
            let mut expected = Vec::new();
            for (command, byte, status) in commands {
                expected.push((io.send(command, &[byte; 512]).await, status));
            }
            for _ in 0..expected.len() {
                let Ok(Arrived::Completion(completion)) = io.next().await else {
                    panic!("{name}: no answer")
                };
                let at = expected.iter().position(|(cid, _)| *cid == completion.cid.get());
                let (_, status) = expected.remove(at.unwrap_or_else(|| panic!("{name}: answered twice")));
                assert!(completion.status().is(status), "{name}: {} for {status}", completion.status());
            }
        }
        // A first half that is never followed is answered when the queue goes on.
        let alone = io.send(first(0), &[0; 512]).await;
        io.send(Command::flush(1), &[]).await;
        let status = io.completion(alone).await.status();
        assert!(status.is(missing), "{status}");
        assert!(matches!(io.next().await, Ok(Arrived::Completion(_))));
        let read = with_data(Command::read(1, 0, 4), Descriptor::transport(2048));
        assert!(io.read(read).await.iter().all(|byte| *byte == 0), "a refused half was written");
    });
}

// Without this wrong H2CData could be written somewhere, or the host not be told which field was wrong.
#[test]
fn wrong_host_data_is_terminated_with_its_reason() {
    let right = |cid, tag| DataHeader {
        kind: DataKind::HostToController,
        command_id: cid,
        transfer_tag: tag,
        offset: 0,
        length: LARGE,
        last: true,
        success: false,
    };
    type Edit = fn(DataHeader) -> DataHeader;
    // (what, the header, data bytes, FES, FEI)
    let cases: [(&str, Edit, u32, u16, u32); 7] = [
        ("CCCID", |header| DataHeader { command_id: header.command_id + 1, ..header }, LARGE, 1, 8),
        ("TTAG", |header| DataHeader { transfer_tag: 77, ..header }, LARGE, 1, 10),
        ("DATAO", |header| DataHeader { offset: 512, length: 512, last: false, ..header }, 512, 2, 0),
        ("range", |header| DataHeader { offset: 512, ..header }, LARGE, 4, 0),
        ("LAST_PDU too early", |header| DataHeader { length: 512, ..header }, 512, 2, 0),
        ("LAST_PDU missing", |header| DataHeader { last: false, ..header }, LARGE, 2, 0),
        ("MAXH2CDATA", |header| DataHeader { length: LARGE + 4, ..header }, LARGE + 4, 5, 0),
    ];
    with_a_disk(|address| async move {
        for (name, edit, bytes, status, information) in cases {
            let (_admin, mut io) = queues(address).await;
            let write = with_data(Command::write(1, 0, LARGE / 512), Descriptor::transport(LARGE));
            let cid = io.send(write, &[]).await;
            let tag = match io.next().await.unwrap() {
                Arrived::ReadyToTransfer { cid: of, tag, offset: 0, length: LARGE } if of == cid => tag,
                other => panic!("{other:?}"),
            };
            let pdu = io.host_data(edit(right(cid, tag)), &vec![1; bytes as usize]);
            let _ = write_all(&io.stream, &pdu).await;
            match io.next().await {
                Ok(Arrived::Terminated(fes, fei)) => assert_eq!((fes, fei), (status, information), "{name}"),
                other => panic!("{name}: not terminated: {other:?}"),
            }
            assert_eq!(read_to_end(&io.stream).await, [], "{name}");
        }
        // The same, sent right, in pieces and with an empty one among them.
        let (_admin, mut io) = queues(address).await;
        let write = with_data(Command::write(1, 0, LARGE / 512), Descriptor::transport(LARGE));
        let cid = io.send(write, &[]).await;
        let Ok(Arrived::ReadyToTransfer { tag, .. }) = io.next().await else { panic!("no R2T") };
        for (offset, length) in [(0, 4), (4, 0), (4, LARGE / 2), (4 + LARGE / 2, LARGE / 2 - 4)] {
            let last = offset + length == LARGE;
            let header = DataHeader { offset, length, last, ..right(cid, tag) };
            let pdu = io.host_data(header, &vec![1; length as usize]);
            write_all(&io.stream, &pdu).await.unwrap();
        }
        assert!(io.completion(cid).await.status().is_success());
    });
}
