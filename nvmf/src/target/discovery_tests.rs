//! Tests of the discovery log.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use sledge_nvme::fabrics::{DiscoveryEntry, SubsystemType};
use zerocopy::FromBytes;

use super::{Viewer, fingerprint, write};
use crate::target::controller::page::Page;
use crate::target::controller::tests_support::{HOST, NQN, address, subsystem, target};
use crate::target::definition::{
    DISCOVERY_NQN, ListenerDefinition, Referral, SubsystemDefinition, TargetDefinition,
};

const CURRENT: u8 = SubsystemType::CurrentDiscovery.value();
const NVM: u8 = SubsystemType::Nvm.value();
const REFERRAL: u8 = SubsystemType::DiscoveryReferral.value();

fn viewer(local: &str) -> Viewer<'static> {
    Viewer { host_nqn: HOST, discovery_nqn: DISCOVERY_NQN, local_address: address(local) }
}

fn listening(nqn: &str, addresses: &[&str]) -> SubsystemDefinition {
    let listeners = addresses
        .iter()
        .map(|text| ListenerDefinition { address: address(text), ana_states: Default::default() })
        .collect();
    SubsystemDefinition { nqn: nqn.into(), listeners, ..subsystem(&[]) }
}

fn read(target: &TargetDefinition, viewer: Viewer<'_>) -> (u64, Vec<DiscoveryEntry>) {
    let mut bytes = vec![0; 32 * 1024];
    let mut page = Page::new(&mut bytes, 0);
    write(&mut page, target, viewer);
    assert_eq!(page.finish(), Ok(()));
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(bytes[16..1024], [0; 1008]);
    let entries = bytes[1024..]
        .chunks_exact(1024)
        .take(usize::try_from(number(8)).unwrap())
        .map(|entry| DiscoveryEntry::read_from_bytes(entry).unwrap())
        .collect();
    (number(0), entries)
}

fn seen(target: &TargetDefinition, local: &str) -> Vec<(u8, SocketAddr)> {
    let (_, entries) = read(target, viewer(local));
    entries.iter().map(|entry| (entry.subsystem_type, entry.socket_address().unwrap())).collect()
}

// Deleting this lets `nvme discover` show entries that `nvme connect-all` then cannot connect to.
#[test]
fn each_entry_is_complete() {
    let mut target = target([listening(NQN, &["127.0.0.1:4420", "[::1]:4421"])]);
    target.referrals = vec![Referral { address: address("10.0.0.9:8009"), nqn: DISCOVERY_NQN.into() }];
    let (generation, entries) = read(&target, viewer("127.0.0.1:4420"));
    assert_eq!((generation, entries.len()), (7, 4));
    let [own, v4, v6, referral] = &entries[..] else { panic!("{entries:?}") };
    for entry in &entries {
        assert_eq!((entry.transport_type, entry.cntlid.get()), (3, 0xffff));
        assert_eq!(entry.transport_specific, [0; 256]);
    }
    assert_eq!((own.subsystem_type, own.port_id.get(), own.flags.get()), (CURRENT, 1, 3));
    assert_eq!((own.transport_requirements, own.admin_queue_entries.get()), (0x6, 128));
    assert!(own.subnqn.starts_with(DISCOVERY_NQN.as_bytes()));
    assert_eq!((v4.subsystem_type, v4.address_family, v4.port_id.get()), (NVM, 1, 1));
    assert_eq!((v4.flags.get(), v4.transport_requirements), (0, 0x6));
    assert!(v4.subnqn.starts_with(NQN.as_bytes()) && v4.subnqn[NQN.len()..].iter().all(|&byte| byte == 0));
    assert!(v4.address.starts_with(b"127.0.0.1  ") && v4.service.starts_with(b"4420  "));
    assert_eq!((v4.address[255], v4.service[31]), (b' ', b' '));
    assert_eq!((v6.address_family, v6.port_id.get()), (2, 2));
    assert_eq!(v6.socket_address(), Some(address("[::1]:4421")));
    assert_eq!((referral.subsystem_type, referral.transport_requirements), (REFERRAL, 0x2));
    assert_eq!(referral.socket_address(), Some(address("10.0.0.9:8009")));
}

// Deleting this lets hosts learn of subsystems that are none of their business, or miss those that are.
#[test]
fn hosts_see_what_they_may_connect_to() {
    let hosts = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|&name| name.into()).collect() };
    let listed = SubsystemDefinition {
        allow_any_host: false,
        hosts: hosts(&[HOST]),
        ..listening("nqn.2026-01.io.sledge:a", &["10.0.0.1:4420"])
    };
    let other = SubsystemDefinition {
        allow_any_host: false,
        hosts: hosts(&["nqn.2026-01.io.sledge:someone-else"]),
        ..listening("nqn.2026-01.io.sledge:b", &["10.0.0.2:4420"])
    };
    let open = listening("nqn.2026-01.io.sledge:c", &["10.0.0.3:4420"]);
    let target = target([listed, other, open]);
    assert_eq!(
        seen(&target, "10.0.0.1:8009")[1..],
        [(NVM, address("10.0.0.1:4420")), (NVM, address("10.0.0.3:4420"))]
    );
}

// Deleting this lets hosts be told to connect to 0.0.0.0.
#[test]
fn listeners_on_every_address_are_where_the_host_came_in() {
    let target = target([listening(NQN, &["0.0.0.0:4420", "[::]:4421", "10.0.0.7:4422"])]);
    assert_eq!(
        seen(&target, "10.0.0.1:4420"),
        [
            (CURRENT, address("10.0.0.1:4420")),
            (NVM, address("10.0.0.1:4420")),
            (NVM, address("10.0.0.7:4422")),
        ]
    );
    assert_eq!(
        seen(&target, "[fd00::1]:4421"),
        [
            (CURRENT, address("[fd00::1]:4421")),
            (NVM, address("[fd00::1]:4421")),
            (NVM, address("10.0.0.7:4422")),
        ]
    );
    let (_, entries) = read(&target, viewer("10.0.0.1:4420"));
    assert_eq!(entries[0].port_id, entries[1].port_id);
}

// Deleting this lets a log that a host reads in pieces, as Linux does, not fit together.
#[test]
fn the_log_can_be_read_in_pieces() {
    let target = target([listening(NQN, &["10.0.0.1:4420", "10.0.0.1:4421"])]);
    let window = |offset: u64, length: usize| {
        let mut bytes = vec![0xee; length];
        let mut page = Page::new(&mut bytes, offset);
        write(&mut page, &target, viewer("10.0.0.1:4420"));
        (bytes, page_end(&target, offset))
    };
    fn page_end(target: &TargetDefinition, offset: u64) -> bool {
        let mut nothing = [];
        let mut page = Page::new(&mut nothing, offset);
        write(&mut page, target, viewer("10.0.0.1:4420"));
        page.finish().is_ok()
    }
    let (whole, _) = window(0, 4096);
    for (offset, length) in [(0, 16), (1024, 1024), (2040, 16), (3072, 1024)] {
        let start = usize::try_from(offset).unwrap();
        assert_eq!(window(offset, length), (whole[start..start + length].to_vec(), true));
    }
    assert!(window(4096, 4).1 && !window(4100, 4).1);
}

// Deleting this lets hosts be woken though nothing that they see has changed, or sleep when it has.
#[test]
fn the_fingerprint_is_of_what_is_seen() {
    let one = target([listening(NQN, &["10.0.0.1:4420"])]);
    let later = TargetDefinition { generation: 99, ..one.clone() };
    let moved = target([listening(NQN, &["10.0.0.1:4421"])]);
    let print = |target| fingerprint(target, viewer("10.0.0.1:8009"));
    assert_eq!(print(&one), print(&later));
    assert_ne!(print(&one), print(&moved));
}

// Deleting this lets a name that breaks the specification's rules be cut short or replaced.
#[test]
fn unusual_names_are_shown_as_they_are() {
    let (_, entries) = read(&target([listening("disk_1", &["10.0.0.1:4420"])]), viewer("10.0.0.1:4420"));
    assert!(entries[1].subnqn.starts_with(b"disk_1\0"));
    let field = super::nqn_field(&"x".repeat(300));
    assert_eq!((field[254], field[255]), (b'x', 0));
}
