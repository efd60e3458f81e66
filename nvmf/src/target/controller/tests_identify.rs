//! Tests of Identify: every structure, for every kind of namespace identifier.

use std::sync::Arc;

use sledge_nvme::identify::CommandSet;
use sledge_nvme::identify::{NamespaceIdentifier, NamespaceIdentifiers};
use sledge_nvme::io::Geometry;
use sledge_nvme::{Command, Status};
use zerocopy::little_endian::U32;

use super::tests_support::{CONTROLLER_ID, Fixture, NQN, subsystem, target};
use super::{Controller, ControllerIdentity};
use crate::target::definition::{DISCOVERY_NQN, TransportOptions};

const INVALID_FIELD: Status = Status::INVALID_FIELD.do_not_retry();
const INVALID_NAMESPACE: Status = Status::INVALID_NAMESPACE_OR_FORMAT.do_not_retry();

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

// Deleting this lets the controller promise what it does not do, or hide what it does: hosts believe every field.
#[test]
fn identify_controller_is_true() {
    let mut fixture = Fixture::ready(&[1, 3]);
    let id = fixture.read(&Command::identify(0x01, 0));
    assert_eq!((id.u16(0), id.u16(2)), (0, 0));
    assert_eq!(text(&id.data[4..24]), "SLEDGE0001          ");
    assert_eq!(text(&id.data[24..64]), format!("{:40}", "Sledge test"));
    assert_eq!(text(&id.data[64..72]), format!("{:8}", env!("CARGO_PKG_VERSION")));
    assert_eq!((id.data[76], id.data[77], id.u16(78)), (0x3, 5, CONTROLLER_ID));
    assert_eq!(id.u32(80), 0x0002_0000);
    assert_eq!((id.u32(92), id.u32(96)), (1 << 8, 1 | 1 << 6));
    assert_eq!(id.data[111], 1);
    assert_eq!((id.u16(256), id.data[258], id.data[259]), (0, 3, 3));
    assert_eq!((id.data[260], id.data[261], id.data[262], id.data[263]), (0x03, 0x26, 63, 0));
    assert_eq!(id.u16(320), 10);
    assert_eq!((id.data[512], id.data[513], id.u16(514), id.u32(516)), (0x66, 0x44, 128, 32));
    // Compare, Dataset Management, Write Zeroes, Save and Select, Timestamp, Verify.
    assert_eq!((id.u16(520), id.u16(522)), (0b1101_1101, 1));
    assert_eq!((id.data[524], id.data[525]), (0, 0x7));
    assert_eq!((id.u16(526), id.u16(528), id.u16(532)), (0, 0, 0));
    assert_eq!(id.u32(536), 1 | 1 << 20 | 1 << 21);
    assert_eq!(id.u32(540), 32);
    assert!(text(&id.data[768..1024]).trim_end_matches('\0') == NQN);
    assert_eq!((id.u32(1792), id.u32(1796), id.u16(1800)), ((64 + 8192) / 16, 1, 0));
    assert_eq!((id.data[1802], id.data[1803], id.u16(1804)), (0, 1, 1));
    // ANA is not reported.
    assert_eq!((id.data[342], id.data[343], id.u32(344), id.u32(348)), (0, 0, 0, 0));
}

// Deleting this lets a Linux host turn multipath off because ANA fields contradict each other.
#[test]
fn ana_fields_are_there_when_ana_is_reported() {
    let mut with_ana = subsystem(&[1, 2]);
    with_ana.ana_reporting = true;
    with_ana.namespaces.get_mut(&2).unwrap().ana_group = 40;
    let mut fixture = Fixture::of(with_ana.clone());
    let id = fixture.read(&Command::identify(0x01, 0));
    assert_eq!((id.data[76], id.u32(92)), (0xb, 1 << 8 | 1 << 11));
    assert_eq!((id.data[342], id.data[343], id.u32(344), id.u32(348)), (10, 0x1f, 40, 32));
    assert_eq!((id.u32(516), id.u32(540)), (32, 32));
    assert_eq!(fixture.read(&Command::identify(0x00, 2)).u32(92), 40);
    assert_eq!(fixture.read(&Command::identify(0x08, 2)).u32(4), 40);
    // However many namespaces there may be, the log that the host makes room for fits into one transfer.
    with_ana.max_namespaces = 8192;
    let mut fixture = Fixture::of(with_ana);
    let id = fixture.read(&Command::identify(0x01, 0));
    assert!(16 + 32 * id.u32(348) + 4 * id.u32(540) <= 128 * 1024);
    assert!(id.u32(348) >= 2);
}

// Deleting this lets a host send commands that no namespace can execute.
#[test]
fn optional_commands_follow_the_namespaces() {
    let mut fixed = subsystem(&[1]);
    fixed.namespaces.get_mut(&1).unwrap().deallocates = false;
    let mut fixture = Fixture::of(fixed);
    assert_eq!(fixture.read(&Command::identify(0x01, 0)).u16(520), 0b1101_0001);
    let namespace = fixture.read(&Command::identify(0x00, 1));
    assert_eq!(namespace.data[33], 0);
    // A namespace that can may be added while the host is there.
    assert_eq!(Fixture::ready(&[]).read(&Command::identify(0x01, 0)).u16(520), 0b1101_1101);
}

// Deleting this lets limits of the transport differ from those that hosts are told.
#[test]
fn limits_are_those_of_the_transport() {
    let transport = TransportOptions {
        max_io_bytes: 1 << 20,
        in_capsule_data_bytes: 4096,
        max_queue_depth: 1024,
        max_async_events: 8,
        ..TransportOptions::default()
    };
    let mut fixture = Fixture::ready(&[1]);
    let identity: ControllerIdentity = fixture.controller.identity().clone();
    fixture.controller = Controller::new(identity, transport, fixture.now);
    fixture.enable();
    let id = fixture.read(&Command::identify(0x01, 0));
    assert_eq!((id.data[77], id.u32(1792), id.u16(514), id.data[259]), (8, 260, 1024, 7));
    assert_eq!(fixture.controller.property_get(0, true).unwrap() & 0xffff, 1023);
}

// Deleting this lets a discovery controller look like one with disks, or not like one of discovery.
#[test]
fn a_discovery_controller_identifies_itself_alone() {
    let mut fixture = Fixture::discovery(target([subsystem(&[1])]));
    let id = fixture.read(&Command::identify(0x01, 0));
    assert_eq!((id.data[111], id.u32(92), id.u32(516), id.u16(520)), (2, 1 << 31, 0, 0));
    assert_eq!((id.data[261], id.data[77], id.u16(320)), (0x04, 5, 10));
    assert!(text(&id.data[768..1024]).trim_end_matches('\0') == DISCOVERY_NQN);
    for cns in (0..=0xff).filter(|&cns| cns != 1) {
        assert_eq!(fixture.status(&Command::identify(cns, 1)), INVALID_FIELD, "{cns:#x}");
    }
}

// Deleting this lets a disk show up with another size, block size or name.
#[test]
fn identify_namespace() {
    let mut definition = subsystem(&[1, 2]);
    let namespace = definition.namespaces.get_mut(&2).unwrap();
    namespace.geometry =
        Geometry { optimal_io_blocks: 16, max_deallocate_blocks: 4096, ..Geometry::new(0x10_0000, 4096) };
    namespace.nguid = [7; 16];
    namespace.eui64 = [9; 8];
    namespace.deallocated_reads_zeroes = false;
    let mut fixture = Fixture::of(definition);
    let plain = fixture.read(&Command::identify(0x00, 1));
    assert_eq!((plain.u64(0), plain.u64(8), plain.u64(16)), (1000, 1000, 1000));
    assert_eq!((plain.data[24], plain.data[25], plain.data[26], plain.data[30]), (0, 0, 0, 1));
    assert_eq!((plain.data[33], plain.u32(92), plain.data[130]), (0x9, 0, 9));
    assert_eq!(plain.u128(48), 512_000);
    assert_eq!(plain.data[104..128], [0; 24]);
    let tuned = fixture.read(&Command::identify(0x00, 2));
    assert_eq!((tuned.u64(0), tuned.data[24], tuned.data[130]), (0x10_0000, 0x10, 12));
    assert_eq!(tuned.data[33], 0x8);
    for field in [64, 66, 68, 70, 72] {
        assert_eq!(tuned.u16(field), 15);
    }
    assert_eq!(tuned.data[104..120], [7; 16]);
    assert_eq!(tuned.data[120..128], [9; 8]);
    // The independent form says the same, and that it is ready: Linux ignores a namespace that is not.
    let independent = fixture.read(&Command::identify(0x08, 2));
    assert_eq!(independent.data[..16], [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    // The NVM command set's own structures: no protection information, the tightest limit of all namespaces.
    assert_eq!(fixture.read(&Command::identify(0x05, 2)).data, [0; 4096]);
    assert_eq!(
        fixture.read(&Command::identify(0x06, 0)).data[..16],
        [0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
}

// Deleting this lets multipath hosts merge different disks, or not find the same disk again.
#[test]
fn namespaces_have_their_lasting_names() {
    let mut definition = subsystem(&[1, 2]);
    let namespace = definition.namespaces.get_mut(&2).unwrap();
    namespace.nguid = [7; 16];
    namespace.eui64 = [9; 8];
    let mut fixture = Fixture::of(definition);
    let names = |fixture: &mut Fixture, nsid| -> Vec<NamespaceIdentifier> {
        NamespaceIdentifiers::new(&fixture.read(&Command::identify(0x03, nsid)).data).collect()
    };
    let command_set = NamespaceIdentifier::CommandSet(CommandSet::Nvm);
    assert_eq!(names(&mut fixture, 1), [NamespaceIdentifier::Uuid([1; 16]), command_set]);
    assert_eq!(
        names(&mut fixture, 2),
        [
            NamespaceIdentifier::Eui64([9; 8]),
            NamespaceIdentifier::Nguid([7; 16]),
            NamespaceIdentifier::Uuid([2; 16]),
            command_set
        ]
    );
}

// Deleting this lets a wrong or unused identifier be answered as if there were a namespace.
#[test]
fn inactive_namespaces_are_zero_and_invalid_ones_an_error() {
    let mut fixture = Fixture::ready(&[1, 3]);
    for cns in [0x00, 0x05, 0x08] {
        assert_eq!(fixture.read(&Command::identify(cns, 2)).data, [0; 4096], "{cns:#x}");
        for nsid in [0, 33, 0xffff_fffe, 0xffff_ffff] {
            assert_eq!(
                fixture.status(&Command::identify(cns, nsid)),
                INVALID_NAMESPACE,
                "{cns:#x} {nsid:#x}"
            );
        }
    }
    for nsid in [0, 2, 33, 0xffff_ffff] {
        assert_eq!(fixture.status(&Command::identify(0x03, nsid)), INVALID_NAMESPACE, "{nsid:#x}");
    }
}

// Deleting this lets a host miss namespaces, or loop over the list for ever.
#[test]
fn active_namespace_lists() {
    let mut definition = subsystem(&[1, 3, 4]);
    definition.max_namespaces = 4096;
    let mut fixture = Fixture::of(definition);
    for cns in [0x02, 0x07] {
        let list = fixture.read(&Command::identify(cns, 0));
        assert_eq!((list.u32(0), list.u32(4), list.u32(8), list.u32(12)), (1, 3, 4, 0));
        let rest = fixture.read(&Command::identify(cns, 3));
        assert_eq!((rest.u32(0), rest.u32(4)), (4, 0));
        assert_eq!(fixture.read(&Command::identify(cns, 0xffff_fffd)).u32(0), 0);
        for nsid in [0xffff_fffe, 0xffff_ffff] {
            assert_eq!(fixture.status(&Command::identify(cns, nsid)), INVALID_NAMESPACE);
        }
    }
    let nsids: Vec<u32> = (1..=1500).collect();
    let mut definition = subsystem(&nsids);
    definition.max_namespaces = 2000;
    let mut fixture = Fixture::of(definition);
    let list = fixture.read(&Command::identify(0x02, 100));
    assert_eq!((list.u32(0), list.u32(4092)), (101, 1124));
}

// Deleting this lets another command set's structures be answered with those of NVM, or unknown ones with anything.
#[test]
fn other_command_sets_and_structures_are_invalid_fields() {
    let mut fixture = Fixture::ready(&[1]);
    for cns in [0x05, 0x06, 0x07] {
        for csi in [1, 2, 0xff] {
            let command = Command::identify(cns, 1).with_command_set(csi);
            assert_eq!(fixture.status(&command), INVALID_FIELD, "{cns:#x} {csi}");
        }
    }
    let supported = [0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x07, 0x08, 0x1c];
    for cns in (0..=0xff).filter(|cns| !supported.contains(cns)) {
        assert_eq!(fixture.status(&Command::identify(cns, 1)), INVALID_FIELD, "{cns:#x}");
    }
    for (controller, expected) in
        [(0xffff, Status::SUCCESS), (u32::from(CONTROLLER_ID), Status::SUCCESS), (6, INVALID_FIELD)]
    {
        let mut command = Command::identify(0x1c, 0);
        command.cdw10 = U32::new(0x1c | controller << 16);
        let answer = fixture.run(&command);
        assert_eq!(answer.status, expected, "{controller:#x}");
        assert!(!expected.is_success() || (answer.u64(0), answer.u64(8)) == (1, 0));
    }
}

// Deleting this lets a host see a definition that is no longer in force.
#[test]
fn identify_follows_the_definition() {
    let mut fixture = Fixture::ready(&[1]);
    let mut grown = subsystem(&[1]);
    grown.namespaces.get_mut(&1).unwrap().geometry = Geometry::new(5000, 512);
    fixture.change(target([grown]));
    assert_eq!(fixture.read(&Command::identify(0x00, 1)).u64(0), 5000);
    let in_force = fixture.target.subsystems.get(NQN).unwrap();
    assert!(fixture.controller.identity().subsystem.as_ref().is_some_and(|held| Arc::ptr_eq(held, in_force)));
}
