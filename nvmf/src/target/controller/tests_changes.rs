//! Tests of what a host learns when the target's definition changes under its controller.

use sledge_nvme::io::Geometry;
use sledge_nvme::{Command, Status};

use super::tests_support::{Fixture, HOST, NQN, event, subsystem, target};
use super::{Action, Outcome, TerminateReason};
use crate::target::definition::{AnaState, Referral, SubsystemDefinition, TargetDefinition};

const NAMESPACES_CHANGED: u64 = 0x0004_0002;
const ANA_CHANGED: u64 = 0x000c_0302;
const DISCOVERY_CHANGED: u64 = 0x0070_f002;

fn changed(fixture: &mut Fixture) -> Vec<u32> {
    let list = fixture.read(&Command::get_log_page(4, 0, 0, 4096));
    (0..1024).map(|at| list.u32(at * 4)).take_while(|&nsid| nsid != 0).collect()
}

// Deleting this lets a host keep using a namespace that has become another one.
#[test]
fn every_visible_change_of_a_namespace_is_reported() {
    let changes: [fn(&mut SubsystemDefinition); 9] = [
        |subsystem| drop(subsystem.namespaces.remove(&2)),
        |subsystem| subsystem.namespaces.get_mut(&2).unwrap().instance = 9,
        |subsystem| subsystem.namespaces.get_mut(&2).unwrap().geometry = Geometry::new(1, 512),
        |subsystem| subsystem.namespaces.get_mut(&2).unwrap().uuid = [0xff; 16],
        |subsystem| subsystem.namespaces.get_mut(&2).unwrap().nguid = [0xff; 16],
        |subsystem| subsystem.namespaces.get_mut(&2).unwrap().eui64 = [0xff; 8],
        |subsystem| subsystem.namespaces.get_mut(&2).unwrap().ana_group = 2,
        |subsystem| subsystem.namespaces.get_mut(&2).unwrap().deallocates = false,
        |subsystem| drop(subsystem.namespaces.insert(2, super::tests_support::namespace(5))),
    ];
    for change in changes {
        let mut fixture = Fixture::ready(&[1, 2, 3]);
        assert_eq!(fixture.request_event(1), Outcome::Held);
        let mut new = subsystem(&[1, 2, 3]);
        change(&mut new);
        fixture.change(target([new]));
        assert_eq!(fixture.actions(), [event(1, NAMESPACES_CHANGED)]);
        assert_eq!(changed(&mut fixture), [2]);
    }
}

// Deleting this lets hosts scan again for nothing at each change of the definition.
#[test]
fn what_a_host_cannot_see_is_not_reported() {
    let mut fixture = Fixture::ready(&[1]);
    assert_eq!(fixture.request_event(1), Outcome::Held);
    let mut new = subsystem(&[1]);
    new.hosts.insert(HOST.into());
    new.allow_any_host = false;
    new.namespaces.get_mut(&1).unwrap().device_name = "renamed".into();
    let mut other = subsystem(&[1, 2, 3]);
    other.nqn = "nqn.2026-01.io.sledge:other".into();
    fixture.change(target([new, other]));
    fixture.change(fixture.target.clone());
    assert_eq!(fixture.actions(), []);
    assert_eq!(changed(&mut fixture), []);
}

// Deleting this lets an event be lost that happened while the host had no request outstanding.
#[test]
fn an_event_waits_for_a_request() {
    let mut fixture = Fixture::ready(&[1]);
    fixture.change(target([subsystem(&[1, 2])]));
    assert_eq!(fixture.actions(), []);
    assert_eq!(fixture.request_event(3), Outcome::Held);
    assert_eq!(fixture.actions(), [event(3, NAMESPACES_CHANGED)]);
}

// Deleting this lets changes pile up for, or be told to, a controller that is not enabled.
#[test]
fn a_controller_that_is_not_ready_reports_nothing() {
    let mut fixture = Fixture::connect(target([subsystem(&[1])]), false, 0);
    fixture.change(target([subsystem(&[1, 2])]));
    fixture.enable();
    assert_eq!(fixture.request_event(3), Outcome::Held);
    assert_eq!(fixture.actions(), []);
    assert_eq!(fixture.read(&Command::identify(2, 0)).u32(4), 2);
}

// Deleting this lets a multipath host stay on a path that has become inaccessible.
#[test]
fn ana_state_changes_are_counted_and_reported() {
    let mut with_ana = subsystem(&[1, 2]);
    with_ana.ana_reporting = true;
    with_ana.namespaces.get_mut(&2).unwrap().ana_group = 2;
    let mut fixture = Fixture::of(with_ana.clone());
    assert_eq!(fixture.request_event(1), Outcome::Held);
    with_ana.listeners[0].ana_states = [(2, AnaState::Inaccessible), (30, AnaState::Change)].into();
    fixture.change(target([with_ana.clone()]));
    assert_eq!(fixture.actions(), [event(1, ANA_CHANGED)]);
    let log = fixture.read(&Command::get_log_page(0x0c, 0, 0, 88).with_retain_async_event());
    assert_eq!((log.u64(0), log.u64(24), log.data[32]), (1, 0, 1));
    assert_eq!((log.u32(52), log.u64(60), log.data[68]), (2, 1, 3));
    // A group without namespaces is nobody's concern.
    with_ana.listeners[0].ana_states.remove(&30);
    fixture.change(target([with_ana.clone()]));
    assert_eq!(fixture.read(&Command::get_log_page(0x0c, 0, 0, 8)).u64(0), 1);
    assert_eq!(fixture.request_event(2), Outcome::Held);
    with_ana.listeners[0].ana_states.clear();
    fixture.change(target([with_ana.clone()]));
    assert_eq!(fixture.actions(), [event(2, ANA_CHANGED)]);
    assert_eq!(fixture.read(&Command::get_log_page(0x0c, 0, 0, 8)).u64(0), 2);
    // Both kinds at once are two events.
    assert_eq!((fixture.request_event(3), fixture.request_event(4)), (Outcome::Held, Outcome::Held));
    with_ana.listeners[0].ana_states = [(1, AnaState::NonOptimized)].into();
    with_ana.namespaces.remove(&2);
    fixture.change(target([with_ana]));
    assert_eq!(fixture.actions(), [event(3, NAMESPACES_CHANGED), event(4, ANA_CHANGED)]);
}

// Deleting this lets ANA events reach hosts to which ANA is not reported.
#[test]
fn without_ana_reporting_there_are_no_ana_events() {
    let mut fixture = Fixture::ready(&[1]);
    assert_eq!(fixture.request_event(1), Outcome::Held);
    let mut new = subsystem(&[1]);
    new.listeners[0].ana_states = [(1, AnaState::Inaccessible)].into();
    fixture.change(target([new]));
    assert_eq!(fixture.actions(), []);
}

// Deleting this lets hosts stay connected to what is gone, or that they may no longer reach.
#[test]
fn controllers_end_with_their_subsystem_and_their_permission() {
    let mut fixture = Fixture::ready(&[1]);
    fixture.change(target([]));
    assert_eq!(fixture.actions(), [Action::Terminate(TerminateReason::SubsystemRemoved)]);
    assert!(!fixture.controller.is_ready() && !fixture.controller.is_discovery());
    let mut fixture = Fixture::ready(&[1]);
    let mut closed = subsystem(&[1]);
    closed.allow_any_host = false;
    fixture.change(target([closed]));
    assert_eq!(fixture.actions(), [Action::Terminate(TerminateReason::HostRemoved)]);
}

// Deleting this lets a host with a persistent discovery connection miss a new subsystem, or be woken for nothing.
#[test]
fn discovery_changes_are_reported_to_those_who_see_them() {
    let log = Command::get_log_page(0x70, 0, 0, 1024);
    let mut hidden = subsystem(&[1]);
    hidden.allow_any_host = false;
    let mut fixture = Fixture::discovery(target([hidden.clone()]));
    assert_eq!(fixture.request_event(1), Outcome::Held);
    // Nothing was read yet, so nothing can be out of date.
    fixture.change(target([subsystem(&[1])]));
    assert_eq!(fixture.actions(), []);
    assert_eq!(fixture.read(&log).u64(8), 2);
    // Namespaces are not in the log.
    fixture.change(target([subsystem(&[1, 2])]));
    assert_eq!(fixture.actions(), []);
    fixture.change(target([hidden.clone()]));
    assert_eq!(fixture.actions(), [event(1, DISCOVERY_CHANGED)]);
    assert_eq!(fixture.read(&log.with_retain_async_event()).u64(8), 1);
    assert_eq!(fixture.request_event(2), Outcome::Held);
    fixture.change(target([subsystem(&[1])]));
    assert_eq!(fixture.actions(), []);
    assert_eq!(fixture.read(&log).u64(8), 2);
    let referral = Referral { address: super::tests_support::address("10.0.0.9:8009"), nqn: NQN.into() };
    fixture.change(TargetDefinition { referrals: vec![referral], ..target([subsystem(&[1])]) });
    assert_eq!(fixture.actions(), [event(2, DISCOVERY_CHANGED)]);
    assert_eq!(fixture.status(&log), Status::SUCCESS);
}
