//! Tests of Get Log Page: each page's content, and the rules for offsets, sizes and identifiers.

use std::sync::atomic::Ordering::Relaxed;

use sledge_nvme::log_page::ParameterLocation;
use sledge_nvme::{Command, Status};

use super::tests_support::{Fixture, address, at, event, subsystem, target};
use super::{CommandError, Outcome};
use crate::target::definition::AnaState;

const INVALID: Status = Status::INVALID_FIELD.do_not_retry();
const IO_PAGES: [u8; 8] = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x12, 0x13];

fn log(lid: u8, bytes: u32) -> Command {
    Command::get_log_page(lid, 0, 0, bytes)
}

fn fail(fixture: &mut Fixture, cid: u16) {
    fixture.controller.command_failed(CommandError {
        sqid: 1,
        cid,
        status: Status::UNRECOVERED_READ_ERROR,
        location: ParameterLocation::NONE,
        lba: 9,
        nsid: 1,
        opcode: 2,
    });
}

// Deleting this lets a host ask for pages that are not there, or never find those that are.
#[test]
fn supported_pages_are_those_that_can_be_read() {
    let mut with_ana = subsystem(&[1]);
    with_ana.ana_reporting = true;
    let with_ana_pages = [&IO_PAGES[..], &[0x0c]].concat();
    for (mut fixture, pages) in [
        (Fixture::ready(&[1]), IO_PAGES.to_vec()),
        (Fixture::of(with_ana), with_ana_pages),
        (Fixture::discovery(target([])), vec![0x00, 0x01, 0x70]),
    ] {
        let supported = fixture.read(&log(0x00, 1024));
        for lid in 0..=0xff_u8 {
            let expected = pages.contains(&lid);
            assert_eq!(supported.u32(usize::from(lid) * 4), u32::from(expected), "{lid:#x}");
            let status = fixture.status(&log(lid, 16));
            let invalid = Status::INVALID_LOG_PAGE.do_not_retry();
            assert_eq!(status, if expected { Status::SUCCESS } else { invalid }, "{lid:#x}");
        }
    }
}

// Deleting this lets a page that is read in pieces, or beyond its end, give wrong bytes.
#[test]
fn offsets_and_sizes() {
    let mut fixture = Fixture::ready(&[1]);
    (0..3).for_each(|cid| fail(&mut fixture, cid));
    let whole = fixture.read(&log(0x01, 4096)).data;
    let mut pieces = Vec::new();
    for offset in (0..4096).step_by(20) {
        pieces.extend(fixture.read(&Command::get_log_page(0x01, 0, offset, 20)).data);
    }
    assert_eq!(pieces[..4096], whole);
    for (lid, bytes) in [
        (0x00, 1024),
        (0x01, 4096),
        (0x02, 512),
        (0x03, 512),
        (0x04, 4096),
        (0x05, 4096),
        (0x12, 1024),
        (0x13, 4096),
    ] {
        assert_eq!(fixture.read(&Command::get_log_page(lid, 0, bytes, 4)).data, [0; 4], "{lid:#x}");
        for offset in [bytes + 4, 1 << 32, !3_u64] {
            assert_eq!(fixture.status(&Command::get_log_page(lid, 0, offset, 4)), INVALID, "{lid:#x}");
        }
        // More than there is: zeros.
        let long = fixture.read(&Command::get_log_page(lid, 0, 0, 8192));
        assert!(long.data[usize::try_from(bytes).unwrap()..].iter().all(|&byte| byte == 0), "{lid:#x}");
    }
    let mut odd = log(0x02, 16);
    odd.cdw12.set(2);
    assert_eq!(fixture.status(&odd), INVALID);
    let mut by_index = log(0x02, 16);
    by_index.cdw14.set(1 << 23);
    assert_eq!(fixture.status(&by_index), INVALID);
    // Nothing is of one namespace.
    for (nsid, status) in [(0, Status::SUCCESS), (u32::MAX, Status::SUCCESS), (1, INVALID), (2, INVALID)] {
        assert_eq!(fixture.status(&Command::get_log_page(0x02, nsid, 0, 512)), status);
    }
}

// Deleting this lets `nvme error-log` show errors in the wrong order, or entries that never were.
#[test]
fn the_error_log_has_the_newest_first() {
    let mut fixture = Fixture::ready(&[1]);
    assert_eq!(fixture.read(&log(0x01, 4096)).data, [0; 4096]);
    (0..70).for_each(|cid| fail(&mut fixture, cid));
    let errors = fixture.read(&log(0x01, 4096));
    for entry in 0..64_u16 {
        let start = usize::from(entry) * 64;
        assert_eq!((errors.u64(start), errors.u16(start + 10)), (70 - u64::from(entry), 69 - entry));
        assert_eq!((errors.u16(start + 14), errors.u64(start + 16)), (0xffff, 9));
    }
    // They outlive a reset.
    assert_eq!(fixture.write_cc(0), Ok(()));
    fixture.controller.queues_gone();
    fixture.enable();
    assert_eq!(fixture.read(&log(0x01, 8)).u64(0), 70);
}

// Deleting this lets SMART show anything but the real counters, in the specified units.
#[test]
fn health_is_counted() {
    let subsystem = subsystem(&[1]);
    let statistics = subsystem.statistics.clone();
    // The subsystem's hours count, not the controller's, from its first start.
    statistics.start(at(3_600_000));
    statistics.start(at(7_200_000));
    let mut fixture = Fixture::of(subsystem);
    let empty = fixture.read(&log(0x02, 512));
    assert_eq!(empty.data[..6], [0, 0, 0, 100, 0, 0]);
    for (reactor, factor) in [(0, 1), (1, 2)] {
        let counters = statistics.of_reactor(reactor);
        counters.read_commands.store(10 * factor, Relaxed);
        counters.write_commands.store(100 * factor, Relaxed);
        counters.read_bytes.store(512_000 * factor, Relaxed);
        counters.written_bytes.store(512_001 * factor, Relaxed);
        counters.media_errors.store(3 * factor, Relaxed);
        counters.error_log_entries.store(5 * factor, Relaxed);
        counters.busy_ns.store(60_000_000_000 * factor, Relaxed);
    }
    fixture.now = at(2 * 3_600_000 + 1);
    let health = fixture.read(&log(0x02, 512));
    let counters: Vec<u128> = (32..192).step_by(16).map(|field| health.u128(field)).collect();
    // Units read and written, read and write commands, busy minutes, power cycles, hours, unsafe shutdowns, errors.
    assert_eq!(counters, [3, 4, 30, 300, 3, 1, 1, 0, 9, 15]);
    assert_eq!(health.data[192..], [0; 320]);
}

// Deleting this lets tools show a firmware that does not run.
#[test]
fn firmware_slot() {
    let slots = Fixture::ready(&[1]).read(&log(0x03, 512));
    assert_eq!(slots.data[0], 1);
    assert_eq!(slots.data[8..16], *format!("{:8}", env!("CARGO_PKG_VERSION")).as_bytes());
    assert_eq!(slots.data[16..], [0; 496]);
}

// Deleting this lets hosts send commands that are refused, or think that a write changes nothing.
#[test]
fn command_and_feature_effects() {
    let mut fixture = Fixture::ready(&[1]);
    let effects = fixture.read(&log(0x05, 4096));
    for opcode in 0..=0xff_usize {
        let admin = [0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x7f].contains(&opcode);
        assert_eq!(effects.u32(opcode * 4), if admin { 1 | 1 << 21 } else { 0 }, "{opcode:#x}");
        let io = match opcode {
            0x00 | 0x02 | 0x05 | 0x0c => 1 | 1 << 20,
            0x01 | 0x08 | 0x09 => 3 | 1 << 20,
            _ => 0,
        };
        assert_eq!(effects.u32(1024 + opcode * 4), io, "{opcode:#x}");
    }
    assert_eq!(fixture.status(&log(0x05, 4096).with_command_set(1)), INVALID);
    let features = fixture.read(&log(0x12, 1024));
    for fid in 0..=0xff_u8 {
        let supported = fixture.status(&Command::get_features(fid, 0).with_select(3)) == Status::SUCCESS;
        let expected = if supported { 1 | 1 << 21 } else { 0 };
        assert_eq!(features.u32(usize::from(fid) * 4), expected, "{fid:#x}");
    }
    assert_eq!(fixture.read(&log(0x13, 4096)).data, [0; 4096]);
    let mut fixed = subsystem(&[1]);
    fixed.namespaces.get_mut(&1).unwrap().deallocates = false;
    let effects = Fixture::of(fixed).read(&log(0x05, 4096));
    assert_eq!((effects.u32(1024 + 8 * 4), effects.u32(1024 + 9 * 4)), (0, 0));
}

// Deleting this lets a host lose track of which namespaces changed, or be told of them for ever.
#[test]
fn the_changed_namespace_list_is_cleared_by_reading() {
    let mut fixture = Fixture::ready(&[1, 2]);
    assert_eq!(fixture.read(&log(0x04, 4096)).data, [0; 4096]);
    assert_eq!(fixture.request_event(1), Outcome::Held);
    fixture.change(target([subsystem(&[2, 3])]));
    assert_eq!(fixture.actions(), [event(1, 0x0004_0002)]);
    let changed = fixture.read(&log(0x04, 4096).with_retain_async_event());
    assert_eq!((changed.u32(0), changed.u32(4), changed.u32(8)), (1, 3, 0));
    // Retained: the event is still masked, and the list still there.
    assert_eq!(fixture.request_event(2), Outcome::Held);
    fixture.change(target([subsystem(&[2, 3, 4])]));
    assert_eq!(fixture.actions(), []);
    let changed = fixture.read(&log(0x04, 4096));
    assert_eq!((changed.u32(0), changed.u32(4), changed.u32(8), changed.u32(12)), (1, 3, 4, 0));
    assert_eq!(fixture.read(&log(0x04, 4096)).u32(0), 0);
    fixture.change(target([subsystem(&[2, 3])]));
    assert_eq!(fixture.actions(), [event(2, 0x0004_0002)]);
}

// Deleting this lets a read that fails clear an event that the host then never learns about.
#[test]
fn a_failed_read_clears_nothing() {
    let mut fixture = Fixture::ready(&[1]);
    assert_eq!(fixture.request_event(1), Outcome::Held);
    fixture.change(target([subsystem(&[1, 2])]));
    assert_eq!(fixture.status(&Command::get_log_page(0x04, 0, 8192, 4)), INVALID);
    assert_eq!(fixture.read(&log(0x04, 4)).u32(0), 2);
}

// Deleting this lets multipath hosts send I/O down a path that cannot take it.
#[test]
fn ana_groups_have_their_states() {
    let mut with_ana = subsystem(&[1, 2, 3]);
    with_ana.ana_reporting = true;
    with_ana.namespaces.get_mut(&2).unwrap().ana_group = 7;
    with_ana.listeners[0].ana_states = [(7, AnaState::Inaccessible), (9, AnaState::Change)].into();
    let mut fixture = Fixture::of(with_ana.clone());
    let page = fixture.read(&log(0x0c, 92 + 16));
    assert_eq!((page.u64(0), page.u16(8)), (0, 2));
    assert_eq!((page.u32(16), page.u32(20), page.u64(24), page.data[32]), (1, 2, 0, 1));
    assert_eq!((page.u32(48), page.u32(52)), (1, 3));
    assert_eq!((page.u32(56), page.u32(60), page.data[72], page.u32(88)), (7, 1, 3, 2));
    assert_eq!(page.data[92..], [0; 16]);
    let groups = fixture.read(&log(0x0c, 80).with_log_specific_field(1));
    assert_eq!((groups.u16(8), groups.u32(16), groups.u32(20)), (2, 1, 0));
    assert_eq!((groups.u32(48), groups.u32(52), groups.data[64]), (7, 0, 3));
    assert_eq!(fixture.status(&Command::get_log_page(0x0c, 0, 96, 4)), INVALID);
    // Another listener has states of its own.
    let mut identity = fixture.controller.identity().clone();
    identity.listener = address("127.0.0.1:4421");
    fixture.controller = super::Controller::new(identity, fixture.target.transport, fixture.now);
    fixture.enable();
    assert_eq!(fixture.read(&log(0x0c, 92)).data[72], 1);
    for (state, value) in [
        (AnaState::Optimized, 1),
        (AnaState::NonOptimized, 2),
        (AnaState::Inaccessible, 3),
        (AnaState::PersistentLoss, 4),
        (AnaState::Change, 15),
    ] {
        with_ana.listeners[0].ana_states = [(1, state)].into();
        assert_eq!(Fixture::of(with_ana.clone()).read(&log(0x0c, 40)).data[32], value);
    }
}
