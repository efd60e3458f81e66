//! Tests of the Admin commands as such: which there are, their data, Abort and Asynchronous Event Request.

use sledge_nvme::fabrics::{
    AuthenticationCommand, ConnectCommand, DisconnectCommand, PropertyGetCommand, PropertySetCommand,
};
use sledge_nvme::log_page::ParameterLocation;
use sledge_nvme::opcode::Admin;
use sledge_nvme::property::{Configuration, Property};
use sledge_nvme::sgl::Descriptor;
use sledge_nvme::{Command, Status};

use super::tests_support::{Fixture, event, subsystem, target};
use super::{CommandError, Controller, Outcome, Transfer};

// Deleting this lets data be expected where none comes, or a reply be cut off.
#[test]
fn data_follows_from_the_command() {
    let to_host = Transfer::ControllerToHost;
    let from_host = Transfer::HostToController;
    for (command, transfer) in [
        (Command::identify(1, 0), to_host(4096)),
        (Command::get_log_page(0x70, 0, 0, 1024), to_host(1024)),
        (Command::get_log_page(2, 0, 8, 4), to_host(4)),
        (Command::get_features(0x07, 0), Transfer::None),
        (Command::get_features(0x0e, 0), to_host(8)),
        (Command::get_features(0x0e, 0).with_select(2), to_host(8)),
        (Command::get_features(0x0e, 0).with_select(3), Transfer::None),
        (Command::get_features(0x16, 0), to_host(512)),
        (Command::get_features(0x81, 0), to_host(16)),
        (Command::set_features(0x0b, 0, 0), Transfer::None),
        (Command::set_features(0x0e, 0, 0), from_host(8)),
        (Command::set_features(0x16, 0, 0), from_host(512)),
        (Command::set_features(0x81, 0, 1), from_host(16)),
        (Command::keep_alive(), Transfer::None),
        (Command::async_event_request(), Transfer::None),
        (Command::abort(1, 2), Transfer::None),
        (Command::new(0xc1, 0), Transfer::None),
        (ConnectCommand::new(0, 32, 0).into(), from_host(1024)),
        (PropertyGetCommand::new(Property::Cap).into(), Transfer::None),
        (PropertySetCommand::new(Property::Cc, 0).into(), Transfer::None),
        (DisconnectCommand::new().into(), Transfer::None),
        (AuthenticationCommand::send(Descriptor::in_capsule(0, 24), 24).into(), from_host(24)),
        (AuthenticationCommand::receive(Descriptor::transport(64), 64).into(), to_host(64)),
    ] {
        assert_eq!(Controller::transfer(&command), transfer, "{command:?}");
    }
    let mut huge = Command::get_log_page(2, 0, 0, 4);
    huge.cdw10.set(0xffff_0002);
    huge.cdw11.set(0xffff);
    assert_eq!(Controller::transfer(&huge), to_host(u32::MAX));
}

// Deleting this lets commands that nobody implements succeed, or ones that discovery may not have.
#[test]
fn other_commands_are_invalid_opcodes() {
    let invalid = Status::INVALID_OPCODE.do_not_retry();
    let mut io = Fixture::ready(&[1]);
    let mut discovery = Fixture::discovery(target([subsystem(&[1])]));
    let permitted: Vec<u8> = [0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x7f].into_iter().collect();
    for opcode in 0..=0xff {
        if !permitted.contains(&opcode) {
            assert_eq!(io.status(&Command::new(opcode, 1)), invalid, "{opcode:#x}");
            assert_eq!(discovery.status(&Command::new(opcode, 0)), invalid, "{opcode:#x}");
        }
    }
    assert_eq!(discovery.status(&Command::abort(0, 1)), invalid);
    assert_eq!(io.status(&Command::new(Admin::FormatNvm.value(), 1)), invalid);
    assert_eq!(discovery.read(&Command::keep_alive()).result, 0);
}

// Deleting this lets Fabrics commands on the Admin queue do what they must not, or properties be unreachable.
#[test]
fn fabrics_commands() {
    let mut fixture = Fixture::connect(target([subsystem(&[1])]), false, 0);
    assert_eq!(fixture.read(&PropertyGetCommand::new(Property::Vs).into()).result, 0x0002_0000);
    let cap = fixture.read(&PropertyGetCommand::new(Property::Cap).into()).result;
    assert_eq!(Ok(cap), fixture.controller.property_get(0, true));
    assert_ne!(cap >> 32, 0);
    let enable = u64::from(Configuration::ENABLE_NVM.bits());
    fixture.read(&PropertySetCommand::new(Property::Cc, enable).into());
    assert!(fixture.controller.is_ready());
    for (command, status) in [
        (ConnectCommand::new(0, 32, 0).into(), Status::COMMAND_SEQUENCE_ERROR),
        (DisconnectCommand::new().into(), Status::INVALID_QUEUE_TYPE),
        (AuthenticationCommand::send(Descriptor::transport(8), 8).into(), Status::INVALID_OPCODE),
        (AuthenticationCommand::receive(Descriptor::transport(8), 8).into(), Status::INVALID_OPCODE),
        (Command::new(0x7f, 0x33), Status::INVALID_OPCODE),
        (PropertySetCommand::new(Property::Csts, 1).into(), Status::INVALID_FIELD),
        (
            PropertyGetCommand { attributes: 2, ..PropertyGetCommand::new(Property::Cc) }.into(),
            Status::INVALID_FIELD,
        ),
        (
            PropertySetCommand { attributes: 5, ..PropertySetCommand::new(Property::Cc, 0) }.into(),
            Status::INVALID_FIELD,
        ),
    ] {
        assert_eq!(fixture.status(&command), status.do_not_retry(), "{command:?}");
    }
    assert!(fixture.controller.is_ready());
}

// Deleting this lets an aborted request stay, be answered twice, or queues be searched that do not exist.
#[test]
fn abort_takes_back_requests_and_hands_over_the_rest() {
    let mut fixture = Fixture::ready(&[1]);
    assert_eq!(fixture.controller.queue_added(2), Ok(()));
    assert_eq!((fixture.request_event(10), fixture.request_event(11)), (Outcome::Held, Outcome::Held));
    let mut abort = |sqid, cid| fixture.execute_with(&Command::abort(sqid, cid), &[]);
    assert_eq!(abort(0, 10), Outcome::Abort { sqid: 0, cid: 10, request: true });
    assert_eq!(abort(0, 10), Outcome::Abort { sqid: 0, cid: 10, request: false });
    assert_eq!(abort(2, 7), Outcome::Abort { sqid: 2, cid: 7, request: false });
    assert_eq!(fixture.read(&Command::abort(1, 7)).result, 1);
    assert_eq!(fixture.actions(), []);
    // The event goes to the one that is left; it then can't be taken back any more.
    let mut changed = fixture.target.clone();
    changed.subsystems = target([subsystem(&[1, 2])]).subsystems;
    fixture.change(changed);
    assert_eq!(
        fixture.execute_with(&Command::abort(0, 11), &[]),
        Outcome::Abort { sqid: 0, cid: 11, request: false }
    );
    assert_eq!(fixture.actions(), [event(11, 0x0004_0002)]);
}

// Deleting this lets a host hold more requests than AERL says, without bound.
#[test]
fn event_requests_have_a_limit() {
    let mut fixture = Fixture::ready(&[1]);
    for cid in 0..4 {
        assert_eq!(fixture.request_event(cid), Outcome::Held);
    }
    assert_eq!(fixture.status(&Command::async_event_request()), Status::ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED);
    let mut changed = fixture.target.clone();
    changed.subsystems = target([subsystem(&[1, 2])]).subsystems;
    fixture.change(changed);
    assert_eq!(fixture.actions(), [event(0, 0x0004_0002)]);
    assert_eq!(fixture.request_event(9), Outcome::Held);
}

// Deleting this lets failed commands go without an entry, or their answer without the hint that there is one.
#[test]
fn a_failed_command_has_more_in_the_error_log() {
    let mut fixture = Fixture::ready(&[1]);
    let status = fixture.controller.command_failed(CommandError {
        sqid: 1,
        cid: 2,
        status: Status::LBA_OUT_OF_RANGE.do_not_retry(),
        location: ParameterLocation::default().with_byte(40),
        lba: 5,
        nsid: 1,
        opcode: 2,
    });
    assert_eq!(status, Status::LBA_OUT_OF_RANGE.do_not_retry().more());
    let log = fixture.read(&Command::get_log_page(1, 0, 0, 128));
    assert_eq!((log.u64(0), log.u16(8), log.u16(10)), (1, 1, 2));
    assert_eq!(log.u16(12), status.to_completion_field());
    assert_eq!((log.u16(14), log.u64(16), log.u32(24)), (40, 5, 1));
    assert_eq!((log.data[29], log.data[31], log.u64(64)), (3, 2, 0));
}

// Deleting this lets the error log name no field, or blame one that is right.
#[test]
fn refusals_name_the_field_that_is_wrong() {
    let mut fixture = Fixture::ready(&[1]);
    let word = |command: Command, at: usize, value: u32| -> Command {
        let mut bytes: [u8; 64] = zerocopy::transmute!(command);
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        zerocopy::transmute!(bytes)
    };
    let (identify, log) = (Command::identify(0, 1), Command::get_log_page(2, 0, 0, 512));
    let get = Command::get_features(0x04, 0);
    let set = |fid, value| Command::set_features(fid, 0, value);
    // (command, byte, bit)
    let cases = [
        (Command::new(0x7d, 0), 0, 0),
        (Command::identify(0xee, 1), 40, 0),
        (Command::identify(0, 33), 4, 0),
        (Command::identify(2, u32::MAX), 4, 0),
        (Command::identify(5, 1).with_command_set(1), 47, 0),
        (word(Command::identify(0x1c, 0), 40, 0x0009_001c), 42, 0),
        (word(log, 40, 0x007f_0099), 40, 0),
        (word(log, 4, 1), 4, 0),
        (word(log, 48, 2), 48, 0),
        (word(log, 48, 4096), 48, 0),
        (word(log, 56, 1 << 23), 58, 7),
        (word(Command::get_log_page(5, 0, 0, 512), 56, 1 << 24), 59, 0),
        (Command::get_features(0xee, 0), 40, 0),
        (get.with_select(5), 41, 0),
        (word(get, 44, 7 << 16), 46, 0),
        (word(get, 44, 2 << 20), 46, 4),
        (set(0x0b, 0x200), 44, 0),
        (set(0x07, 0xffff), 44, 0),
        (word(set(0x0b, 0), 40, 1 << 31 | 0x0b), 43, 7),
        (Command::set_features(0x0b, 1, 0), 4, 0),
    ];
    assert_eq!(fixture.status(&identify), Status::SUCCESS);
    for (command, byte, bit) in cases {
        let Outcome::Failed(fault) = fixture.execute_with(&command, &[]) else { panic!("{command:?}") };
        assert_eq!((fault.location.byte(), fault.location.bit()), (byte, bit), "{command:?}");
    }
    // No field is to blame for the moment, or for data.
    for command in [set(0x81, 0), set(0x0e, 0)] {
        let Outcome::Failed(fault) = fixture.execute_with(&command, &[]) else { panic!("{command:?}") };
        assert_eq!(fault.location, ParameterLocation::NONE, "{command:?}");
    }
}

// Deleting this lets a command that nobody thought of bring the reactor down, or leave a reply half filled.
#[test]
fn any_command_is_answered_without_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut with_ana = subsystem(&[1, 2]);
    with_ana.ana_reporting = true;
    let opcodes = [0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x7f];
    let mut fixtures = [Fixture::of(with_ana.clone()), Fixture::discovery(target([with_ana]))];
    let mut succeeded = 0;
    for round in 0..100_000 {
        let mut bytes = [0; 64];
        for word in bytes.chunks_exact_mut(8) {
            // Mostly small numbers, which mean something, sometimes anything at all.
            let value = if random() % 4 == 0 { random() } else { random() & 0x0000_00ff_0000_00ff };
            word.copy_from_slice(&value.to_le_bytes());
        }
        bytes[0] = opcodes[random() as usize % opcodes.len()];
        let command: Command = zerocopy::transmute!(bytes);
        let fixture = &mut fixtures[round % 2];
        let mut reply = vec![0; 8192];
        reply.truncate(match Controller::transfer(&command) {
            Transfer::ControllerToHost(bytes) => bytes as usize,
            Transfer::HostToController(_) | Transfer::None => 0,
        });
        let length = reply.len();
        let outcome = fixture.controller.execute(&command, &bytes, &mut reply, &fixture.target, fixture.now);
        if let Outcome::Done { reply_bytes, .. } = outcome {
            assert_eq!(reply_bytes, length, "{command:?}");
            succeeded += 1;
        }
        // Each request that was held is answered at most once, and few actions wait.
        assert!(fixture.actions().len() <= 8);
        if !fixture.controller.is_ready() {
            fixture.controller.queues_gone();
            let _ = fixture.write_cc(0);
            fixture.controller.queues_gone();
            let _ = fixture.write_cc(Configuration::ENABLE_NVM.bits());
            fixture.actions();
        }
    }
    assert!(succeeded > 10_000, "only {succeeded} commands meant something");
}
