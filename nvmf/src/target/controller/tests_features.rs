//! Tests of Get Features and Set Features.

use sledge_nvme::feature::Feature;
use sledge_nvme::{Command, Status};

use super::Outcome;
use super::tests_support::{Fixture, at, event, subsystem, target};

const INVALID: Status = Status::INVALID_FIELD.do_not_retry();

fn get(fixture: &mut Fixture, fid: u8) -> u64 {
    fixture.read(&Command::get_features(fid, 0)).result
}

fn set(fixture: &mut Fixture, fid: u8, value: u32) -> Status {
    fixture.status(&Command::set_features(fid, 0, value))
}

// Deleting this lets a host set what it believes took effect but did not, or get another value than it set.
#[test]
fn values_come_back_until_a_reset() {
    let mut fixture = Fixture::ready(&[1]);
    for (fid, default, value) in [
        (0x01, 0x7, 0x0102_0304),
        (0x02, 0, 0x40),
        (0x04, 0xffff, 0x0157),
        (0x05, 0, 0x1234),
        (0x06, 1, 0),
        (0x0a, 0, 1),
        (0x0b, 0x100, 0x101),
        (0x0f, 0, 7000),
    ] {
        assert_eq!(get(&mut fixture, fid), default, "{fid:#x}");
        assert_eq!(set(&mut fixture, fid, value), Status::SUCCESS, "{fid:#x}");
        assert_eq!(get(&mut fixture, fid), u64::from(value), "{fid:#x}");
        // Default and saved values stay.
        for select in [1, 2] {
            let command = Command::get_features(fid, 0).with_select(select);
            assert_eq!(fixture.read(&command).result, default, "{fid:#x} {select}");
        }
    }
    assert!(!fixture.controller.write_cache_enabled());
    assert_eq!(fixture.write_cc(0), Ok(()));
    fixture.controller.queues_gone();
    fixture.enable();
    for (fid, default) in
        [(0x01, 0x7), (0x02, 0), (0x04, 0xffff), (0x05, 0), (0x06, 1), (0x0a, 0), (0x0b, 0x100), (0x0f, 0)]
    {
        assert_eq!(get(&mut fixture, fid), default, "{fid:#x}");
    }
    assert!(fixture.controller.write_cache_enabled());
}

// Deleting this lets values be taken that the controller cannot honour.
#[test]
fn values_that_mean_nothing_here_are_refused() {
    let mut fixture = Fixture::ready(&[1]);
    for (fid, value) in [
        // A power state that there is not; DULBE; temperature of a sensor that there is not; a reserved threshold.
        (0x02, 1),
        (0x05, 1 << 16),
        (0x04, 1 << 16),
        (0x04, 2 << 20),
        // Events that OAES does not list.
        (0x0b, 1 << 9),
        (0x0b, 1 << 11),
        (0x0b, 1 << 31),
        (0x0b, 1 << 6),
        // Numbers of queues that are reserved.
        (0x07, 0xffff),
        (0x07, 0xffff_0000),
    ] {
        assert_eq!(set(&mut fixture, fid, value), INVALID, "{fid:#x} {value:#x}");
    }
    assert_eq!(fixture.status(&Command::get_features(0x04, 0).with_select(4)), INVALID);
    let mut sensor = Command::get_features(0x04, 0);
    sensor.cdw11.set(1 << 16);
    assert_eq!(fixture.status(&sensor), INVALID);
    sensor.cdw11.set(1 << 20);
    assert_eq!(fixture.read(&sensor).result, 0);
}

// Deleting this lets features appear that nothing stands behind, such as interrupts over Fabrics.
#[test]
fn other_features_are_invalid_fields() {
    let io = [0x01, 0x02, 0x04, 0x05, 0x06, 0x07, 0x0a, 0x0b, 0x0e, 0x0f, 0x16, 0x81];
    let mut fixture = Fixture::ready(&[1]);
    let mut discovery = Fixture::discovery(target([]));
    for fid in 0..=0xff {
        if !io.contains(&fid) {
            assert_eq!(fixture.status(&Command::get_features(fid, 0)), INVALID, "{fid:#x}");
            assert_eq!(set(&mut fixture, fid, 0), INVALID, "{fid:#x}");
        }
        if ![0x0b, 0x0f].contains(&fid) {
            assert_eq!(discovery.status(&Command::get_features(fid, 0)), INVALID, "{fid:#x}");
            assert_eq!(set(&mut discovery, fid, 0), INVALID, "{fid:#x}");
        }
    }
    assert_eq!(set(&mut discovery, 0x0b, 0x100), INVALID);
    assert_eq!(set(&mut discovery, 0x0b, 1 << 31), Status::SUCCESS);
    assert_eq!(get(&mut discovery, 0x0b), 1 << 31);
}

// Deleting this lets hosts save what is forgotten, or set for one namespace what is of all.
#[test]
fn nothing_is_saved_and_nothing_is_per_namespace() {
    let mut fixture = Fixture::ready(&[1]);
    for &feature in Feature::ALL {
        let fid = feature.value();
        if fixture.status(&Command::get_features(fid, 0).with_select(3)) != Status::SUCCESS {
            continue;
        }
        let mut save = Command::set_features(fid, 0, 0);
        save.cdw10.set(save.cdw10.get() | 1 << 31);
        assert_eq!(fixture.status(&save), Status::FEATURE_NOT_SAVEABLE.do_not_retry(), "{fid:#x}");
        let specific = Command::set_features(fid, 1, 0);
        let expected = Status::FEATURE_NOT_NAMESPACE_SPECIFIC.do_not_retry();
        assert_eq!(fixture.status(&specific), expected, "{fid:#x}");
        let capabilities = fixture.read(&Command::get_features(fid, 0).with_select(3)).result;
        assert_eq!(capabilities, if feature == Feature::HostIdentifier { 0 } else { 1 << 2 }, "{fid:#x}");
    }
    assert_eq!(fixture.status(&Command::set_features(0x0a, u32::MAX, 1)), Status::SUCCESS);
}

// Deleting this lets a host be granted more queues than there are, or change their number under their feet.
#[test]
fn number_of_queues() {
    let mut fixture = Fixture::ready(&[1]);
    assert_eq!(get(&mut fixture, 0x07), 0x007e_007e);
    let grant = |fixture: &mut Fixture, value| fixture.read(&Command::set_features(0x07, 0, value)).result;
    assert_eq!(grant(&mut fixture, 0x0003_0007), 0x0003_0003);
    assert_eq!(get(&mut fixture, 0x07), 0x0003_0003);
    assert_eq!(fixture.controller.io_queues_granted(), 4);
    assert_eq!(grant(&mut fixture, 0xfffe_fffe), 0x007e_007e);
    assert_eq!(fixture.controller.queue_added(1), Ok(()));
    assert_eq!(set(&mut fixture, 0x07, 0), Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
    fixture.controller.queue_removed(1);
    assert_eq!(grant(&mut fixture, 0), 0);
    assert_eq!(fixture.controller.io_queues_granted(), 1);
}

// Deleting this lets the keep alive timer run with another timeout than the host was told.
#[test]
fn keep_alive_timeouts_are_rounded_up_to_the_granularity() {
    let mut fixture = Fixture::connect(target([subsystem(&[1])]), false, 1500);
    fixture.enable();
    assert_eq!((get(&mut fixture, 0x0f), fixture.controller.keep_alive_ms()), (2000, 2000));
    assert_eq!(set(&mut fixture, 0x0f, 100), Status::SUCCESS);
    assert_eq!(get(&mut fixture, 0x0f), 1000);
    fixture.controller.tick(at(1001));
    assert_eq!(fixture.actions().len(), 1);
}

// Deleting this lets the host's clock stop, jump or forget who set it.
#[test]
fn timestamps_go_on() {
    let mut fixture = Fixture::ready(&[1]);
    fixture.now = at(2500);
    let stamp = fixture.read(&Command::get_features(0x0e, 0));
    assert_eq!(stamp.data, [0xc4, 0x09, 0, 0, 0, 0, 0, 0]);
    let answer = fixture.run_with(&Command::set_features(0x0e, 0, 0), &[0, 1, 2, 3, 4, 5, 0xff, 0xff]);
    assert_eq!(answer.status, Status::SUCCESS);
    fixture.now = at(2756);
    let stamp = fixture.read(&Command::get_features(0x0e, 0));
    assert_eq!(stamp.data, [0, 2, 2, 3, 4, 5, 2, 0]);
    assert_eq!(fixture.run_with(&Command::set_features(0x0e, 0, 0), &[0; 5]).status, INVALID);
}

// Deleting this lets a host believe that the controller knows formats or retries that it does not.
#[test]
fn host_behavior_support() {
    let mut fixture = Fixture::ready(&[1]);
    let mut behavior = [0; 512];
    behavior[0] = 1;
    assert_eq!(fixture.run_with(&Command::set_features(0x16, 0, 0), &behavior).status, Status::SUCCESS);
    assert_eq!(fixture.read(&Command::get_features(0x16, 0)).data, behavior);
    for (byte, value) in [(0, 2), (1, 1), (2, 1), (3, 1), (511, 1)] {
        let mut bad = [0; 512];
        bad[byte] = value;
        assert_eq!(fixture.run_with(&Command::set_features(0x16, 0, 0), &bad).status, INVALID, "{byte}");
    }
    assert_eq!(fixture.run_with(&Command::set_features(0x16, 0, 0), &behavior[..511]).status, INVALID);
    assert_eq!(fixture.read(&Command::get_features(0x16, 0)).data, behavior);
}

// Deleting this lets a host change who it is after Connect, or be told a cut-off identifier.
#[test]
fn the_host_identifier_is_that_of_connect() {
    let mut fixture = Fixture::ready(&[1]);
    let mut command = Command::get_features(0x81, 0);
    assert_eq!(fixture.status(&command), INVALID);
    command.cdw11.set(1);
    assert_eq!(fixture.read(&command).data, [0xab; 16]);
    let answer = fixture.run_with(&Command::set_features(0x81, 0, 1), &[1; 16]);
    assert_eq!(answer.status, Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
}

// Deleting this lets a host be disturbed by events that it has turned off.
#[test]
fn events_that_are_off_are_not_reported() {
    let mut fixture = Fixture::ready(&[1]);
    assert_eq!(set(&mut fixture, 0x0b, 0), Status::SUCCESS);
    assert_eq!(fixture.request_event(1), Outcome::Held);
    fixture.change(target([subsystem(&[1, 2])]));
    assert_eq!(fixture.actions(), []);
    assert_eq!(set(&mut fixture, 0x0b, 0x100), Status::SUCCESS);
    fixture.change(target([subsystem(&[1])]));
    assert_eq!(fixture.actions(), [event(1, 0x0004_0002)]);
    // An event that waits when it is turned off is forgotten.
    fixture.read(&Command::get_log_page(4, 0, 0, 4096));
    fixture.change(target([subsystem(&[1, 2])]));
    assert_eq!(set(&mut fixture, 0x0b, 0), Status::SUCCESS);
    assert_eq!(set(&mut fixture, 0x0b, 0x100), Status::SUCCESS);
    assert_eq!(fixture.request_event(2), Outcome::Held);
    assert_eq!(fixture.actions(), []);
}
