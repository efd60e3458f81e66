//! Tests of a controller's life as the host sees it: properties, enable, reset, shutdown, timers, queues.

use sledge_nvme::feature::Feature;
use sledge_nvme::property::{Capabilities, Configuration, Property, ShutdownNotification};
use sledge_nvme::{Command, Status};

use super::state::State;
use super::tests_support::{Fixture, at, subsystem, target};
use super::{Action, DisconnectReason, Outcome, TerminateReason};

const ENABLE: u32 = Configuration::ENABLE_NVM.bits();
const INVALID: Status = Status::INVALID_FIELD.do_not_retry();

fn fixture() -> Fixture {
    Fixture::connect(target([subsystem(&[1])]), false, 0)
}

// Deleting this lets a host that trusts CAP, VS or CRTO give up on the controller or overrun its queues.
#[test]
fn properties_that_can_be_read() {
    let controller = fixture().controller;
    let cap = Capabilities::from_bits(controller.property_get(Property::Cap.value(), true).unwrap());
    assert_eq!(cap.max_queue_entries(), 128);
    assert!(cap.contiguous_queues_required() && cap.nvm_command_set() && cap.ready_with_media());
    assert!(!cap.subsystem_reset_supported() && !cap.io_command_sets() && !cap.ready_independent_of_media());
    assert_eq!((cap.memory_page_size_minimum(), cap.memory_page_size_maximum()), (0, 0));
    assert_eq!((cap.timeout_500ms(), cap.doorbell_stride(), cap.arbitration_mechanisms()), (30, 0, 0));
    assert_eq!(controller.property_get(0, false), Ok(cap.bits() & 0xffff_ffff));
    assert_eq!(controller.property_get(4, false), Ok(cap.bits() >> 32));
    assert_eq!(controller.property_get(0x08, false), Ok(0x0002_0000));
    for (property, value) in [(0x14, 0), (0x1c, 0), (0x20, 0), (0x64, 0), (0x68, 30)] {
        assert_eq!(controller.property_get(property, false), Ok(value), "{property:#x}");
        assert_eq!(controller.property_get(property, true), Err(INVALID), "{property:#x}");
    }
    // Of PCIe only, or of nothing at all.
    for offset in [0x0c, 0x18, 0x24, 0x28, 0x38, 0x6c, 0xe00, 0x1000, u32::MAX] {
        assert_eq!(controller.property_get(offset, false), Err(INVALID), "{offset:#x}");
        assert_eq!(controller.property_get(offset, true), Err(INVALID), "{offset:#x}");
    }
}

// Deleting this lets a host write what is read only, or with the wrong size, and believe it took effect.
#[test]
fn only_cc_can_be_written() {
    let mut fixture = fixture();
    for offset in [0x00, 0x08, 0x0c, 0x1c, 0x20, 0x24, 0x64, 0x68, 0x70] {
        for size_8 in [false, true] {
            let written = fixture.controller.property_set(offset, size_8, 0x4e56_4d65, at(0));
            assert_eq!(written, Err(INVALID), "{offset:#x}");
        }
    }
    assert_eq!(fixture.controller.property_set(0x14, true, ENABLE.into(), at(0)), Err(INVALID));
    assert_eq!(fixture.write_cc(ENABLE | 3 << 14), Err(INVALID));
    assert_eq!(fixture.controller.state(), State::Disabled);
}

// Deleting this lets a host enable a controller in a way that it does not work, without CSTS.CFS telling so.
#[test]
fn an_unsupported_configuration_is_a_fatal_status() {
    let good = Configuration::ENABLE_NVM;
    for bad in [
        good.with_command_set(6),
        good.with_command_set(1),
        good.with_memory_page_size(1),
        good.with_arbitration(1),
        good.with_io_submission_entry_size(7),
        good.with_io_submission_entry_size(0),
        good.with_io_completion_entry_size(3),
    ] {
        let mut fixture = fixture();
        assert_eq!(fixture.write_cc(bad.bits()), Ok(()));
        assert_eq!((fixture.controller.state(), fixture.csts().bits()), (State::Failed, 0x2), "{bad:?}");
        assert_eq!(fixture.status(&Command::keep_alive()), Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
        // A reset recovers it.
        assert_eq!(fixture.write_cc(0), Ok(()));
        assert_eq!((fixture.csts().bits(), fixture.actions()), (0, vec![]));
        fixture.enable();
        // While it is enabled, the same change is refused and has no effect.
        assert_eq!(fixture.write_cc(bad.bits()), Err(INVALID));
        assert_eq!((fixture.controller.state(), fixture.csts().bits()), (State::Ready, 0x1));
    }
    let mut discovery = Fixture::connect(target([]), true, 0);
    assert_eq!(discovery.write_cc(1), Ok(()));
    assert!(discovery.controller.is_ready());
}

// Deleting this lets a reset finish while I/O is in flight, or leave settings of the previous host driver behind.
#[test]
fn a_reset_waits_for_the_queues_and_restores_defaults() {
    let mut fixture = fixture();
    fixture.enable();
    assert_eq!((fixture.csts().bits(), fixture.controller.is_enabled()), (0x1, true));
    assert_eq!(
        fixture.read(&Command::set_features(Feature::NumberOfQueues.value(), 0, 0x1_0001)).result,
        0x1_0001
    );
    assert_eq!(fixture.read(&Command::set_features(Feature::KeepAliveTimer.value(), 0, 9000)).result, 0);
    assert_eq!((fixture.controller.queue_added(1), fixture.controller.queue_added(2)), (Ok(()), Ok(())));
    assert_eq!(fixture.request_event(40), Outcome::Held);
    assert_eq!(fixture.write_cc(ENABLE & !1), Ok(()));
    let aborted = Action::CompleteHeld { cid: 40, result: 0, status: Status::ABORTED_BY_REQUEST };
    assert_eq!(fixture.actions(), [aborted, Action::DisconnectQueues(DisconnectReason::Reset)]);
    assert_eq!((fixture.csts().bits(), fixture.controller.is_enabled()), (0x1, false));
    assert_eq!(fixture.write_cc(ENABLE), Err(Status::COMMAND_SEQUENCE_ERROR));
    assert_eq!(fixture.controller.property_get(0x14, false), Ok(u64::from(ENABLE & !1)));
    fixture.controller.queue_removed(1);
    assert_eq!(fixture.controller.io_queues(), 1);
    fixture.controller.queues_gone();
    assert_eq!((fixture.csts().bits(), fixture.controller.io_queues()), (0, 0));
    fixture.enable();
    assert_eq!((fixture.controller.io_queues_granted(), fixture.controller.keep_alive_ms()), (127, 0));
    assert_eq!(fixture.actions(), []);
}

// Deleting this lets a Linux host wait for CSTS.SHST until it times out when it disconnects or reboots.
#[test]
fn a_shutdown_waits_for_the_queues_and_needs_a_reset() {
    for (shutdown, reason) in [
        (ShutdownNotification::Normal, DisconnectReason::Shutdown),
        (ShutdownNotification::Abrupt, DisconnectReason::AbruptShutdown),
    ] {
        let mut fixture = fixture();
        fixture.enable();
        assert_eq!(fixture.controller.queue_added(1), Ok(()));
        assert_eq!(fixture.write_cc(Configuration::ENABLE_NVM.with_shutdown(shutdown).bits()), Ok(()));
        assert_eq!(fixture.actions(), [Action::DisconnectQueues(reason)]);
        assert_eq!(fixture.csts().bits(), 0x5);
        assert_eq!(fixture.status(&Command::keep_alive()), Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
        // Saying it again changes nothing.
        assert_eq!(fixture.write_cc(Configuration::ENABLE_NVM.with_shutdown(shutdown).bits()), Ok(()));
        assert_eq!(fixture.actions(), []);
        fixture.controller.queues_gone();
        assert_eq!(fixture.csts().bits(), 0x9);
        assert_eq!(fixture.write_cc(ENABLE), Ok(()));
        assert_eq!(fixture.csts().bits(), 0x9);
        assert_eq!(fixture.write_cc(0), Ok(()));
        assert_eq!(fixture.csts().bits(), 0);
        fixture.enable();
    }
}

// Deleting this lets a host that disables and shuts down at once, or in the other order, wait for ever.
#[test]
fn reset_and_shutdown_together() {
    let mut fixture = fixture();
    fixture.enable();
    assert_eq!(fixture.write_cc(0x4000), Ok(()));
    assert_eq!(fixture.actions(), [Action::DisconnectQueues(DisconnectReason::Reset)]);
    assert_eq!(fixture.csts().bits(), 0x4);
    fixture.controller.queues_gone();
    assert_eq!(fixture.csts().bits(), 0x8);
    fixture.enable();
    assert_eq!(fixture.write_cc(ENABLE | 0x4000), Ok(()));
    assert_eq!(fixture.actions(), [Action::DisconnectQueues(DisconnectReason::Shutdown)]);
    assert_eq!(fixture.write_cc(0), Ok(()));
    assert_eq!((fixture.actions(), fixture.csts().bits()), (vec![], 0x1));
    fixture.controller.queues_gone();
    assert_eq!(fixture.csts().bits(), 0);
    // A shutdown of a controller that was never enabled is complete at once.
    assert_eq!(fixture.write_cc(0x4000), Ok(()));
    assert_eq!((fixture.actions(), fixture.csts().bits()), (vec![], 0x8));
}

// Deleting this lets Admin commands run on a controller that is not ready.
#[test]
fn commands_wait_for_ready() {
    let mut fixture = fixture();
    for command in [
        Command::identify(1, 0),
        Command::get_log_page(2, 0, 0, 512),
        Command::get_features(7, 0),
        Command::set_features(7, 0, 0),
        Command::abort(0, 1),
        Command::async_event_request(),
        Command::keep_alive(),
    ] {
        assert_eq!(fixture.status(&command), Status::COMMAND_SEQUENCE_ERROR.do_not_retry(), "{command:?}");
    }
    assert_eq!(fixture.controller.queue_added(1), Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()));
}

// Deleting this lets a host connect queues that it was not granted, the same one twice, or one to discovery.
#[test]
fn io_queues_are_those_that_were_granted() {
    let mut fixture = fixture();
    fixture.enable();
    let bad_parameter = Status::CONNECT_INVALID_PARAMETERS.do_not_retry();
    assert_eq!(fixture.controller.io_queues_granted(), 127);
    assert_eq!(fixture.read(&Command::set_features(7, 0, 0x0003_0001)).result, 0x0001_0001);
    assert_eq!(fixture.controller.queue_added(0), Err(bad_parameter));
    assert_eq!(fixture.controller.queue_added(3), Err(bad_parameter));
    assert_eq!(fixture.controller.queue_added(2), Ok(()));
    assert_eq!(fixture.controller.queue_added(2), Err(Status::COMMAND_SEQUENCE_ERROR));
    fixture.controller.queue_removed(2);
    assert_eq!(fixture.controller.queue_added(2), Ok(()));
    let mut discovery = Fixture::discovery(target([]));
    assert_eq!(discovery.controller.queue_added(1), Err(bad_parameter));
}

// Deleting this lets a dead host's controller stay, or a live host be thrown out.
#[test]
fn keep_alive_ends_the_controller_of_a_silent_host() {
    let mut fixture = Fixture::connect(target([subsystem(&[1])]), false, 5000);
    fixture.enable();
    for second in 1..=10 {
        fixture.now = at(second * 4000);
        fixture.controller.tick(fixture.now);
        assert_eq!(fixture.read(&Command::keep_alive()).result, 0);
    }
    // I/O counts as well: traffic based keep alive.
    fixture.controller.activity(at(44_000));
    fixture.controller.tick(at(49_000));
    assert_eq!(fixture.actions(), []);
    fixture.controller.tick(at(49_001));
    assert_eq!(fixture.actions(), [Action::Terminate(TerminateReason::KeepAliveExpired)]);
    assert_eq!(fixture.csts().bits(), 0x2);
    // Once is enough, and nothing revives it.
    fixture.controller.tick(at(60_000));
    fixture.controller.queues_gone();
    assert_eq!(fixture.write_cc(ENABLE & !1), Ok(()));
    assert_eq!(fixture.write_cc(ENABLE), Err(Status::COMMAND_SEQUENCE_ERROR));
    assert_eq!((fixture.actions(), fixture.csts().bits()), (vec![], 0x2));
}

// Deleting this lets associations that are never enabled, or stay after a shutdown, hold their resources for ever.
#[test]
fn a_controller_that_is_not_ready_ends_after_two_minutes() {
    let mut fixture = fixture();
    fixture.controller.tick(at(120_000));
    assert_eq!(fixture.actions(), []);
    fixture.controller.tick(at(120_001));
    assert_eq!(fixture.actions(), [Action::Terminate(TerminateReason::AssociationTimeout)]);
    let mut idle = Fixture::discovery(target([]));
    idle.controller.tick(at(120_001));
    assert_eq!(idle.actions(), [Action::Terminate(TerminateReason::DiscoveryIdle)]);
}
