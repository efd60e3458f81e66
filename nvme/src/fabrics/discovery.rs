//! The discovery log page: where subsystems can be reached.
//!
//! Owns its header and entry layouts and their enumerations (Base 5.16.1.23 and TCP 3.1). Invariant: text fields are
//! ASCII, padded with spaces (TRSVCID, TRADDR) or NULs (NQN). The discovery controller writes, `nvme discover` and
//! the host side read.

use std::net::SocketAddr;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::nqn::{NQN_FIELD_BYTES, Nqn};
use crate::wire::{assert_layout, bit_fields, get_ascii, put_ascii, wire_enum};

/// TCP port registered for NVMe/TCP discovery.
pub const DISCOVERY_PORT_TCP: u16 = 8009;
/// TCP and UDP port registered for NVMe/RDMA, in common use for NVMe/TCP I/O too.
pub const DISCOVERY_PORT_RDMA: u16 = 4420;

wire_enum! {
    /// Transport Type (TRTYPE).
    pub enum TransportType: u8 {
        Rdma = 1, "RDMA";
        FibreChannel = 2, "Fibre Channel";
        Tcp = 3, "TCP";
        IntraHost = 254, "Intra-host";
    }
}

wire_enum! {
    /// Address Family (ADRFAM).
    pub enum AddressFamily: u8 {
        Ipv4 = 1, "IPv4";
        Ipv6 = 2, "IPv6";
        InfiniBand = 3, "InfiniBand";
        FibreChannel = 4, "Fibre Channel";
        IntraHost = 254, "Intra-host";
    }
}

impl AddressFamily {
    /// The family of a socket address.
    #[must_use]
    pub const fn of(address: &SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::Ipv4,
            SocketAddr::V6(_) => Self::Ipv6,
        }
    }
}

wire_enum! {
    /// Subsystem Type (SUBTYPE).
    pub enum SubsystemType: u8 {
        DiscoveryReferral = 1, "referral to another discovery subsystem";
        Nvm = 2, "NVM subsystem";
        CurrentDiscovery = 3, "the current discovery subsystem";
    }
}

wire_enum! {
    /// Secure channel part of Transport Requirements (TREQ bits 1:0).
    pub enum SecureChannel: u8 {
        NotSpecified = 0, "not specified";
        Required = 1, "required";
        NotRequired = 2, "not required";
    }
}

bit_fields! {
    /// Transport Requirements (TREQ).
    pub struct TransportRequirements: u8 {
        flags {
            /// The controller can disable submission queue flow control.
            flow_control_disable, with_flow_control_disable = 2;
        }
        fields {
            /// Secure channel; see [`SecureChannel`].
            secure_channel, with_secure_channel: u8 = 0, 2;
        }
    }
}

bit_fields! {
    /// Entry Flags (EFLAGS).
    pub struct DiscoveryEntryFlags: u16 {
        flags {
            /// Duplicate Returned Information (DUPRETINFO): other ports of the same discovery subsystem say the same.
            duplicate_information, with_duplicate_information = 0;
            /// Explicit Persistent Connection Support for Discovery (EPCSD).
            persistent_connection, with_persistent_connection = 1;
            /// No CDC Connectivity (NCC).
            no_cdc_connectivity, with_no_cdc_connectivity = 2;
        }
        fields {}
    }
}

wire_enum! {
    /// Security Type (SECTYPE) in the TCP transport's TSAS (TCP 3.1.1).
    pub enum TcpSecurity: u8 {
        None = 0, "no security";
        Tls12 = 1, "TLS 1.2 or lower";
        Tls13 = 2, "TLS 1.3";
    }
}

/// Header of the discovery log page (Base 5.16.1.23), 1,024 bytes; entries follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiscoveryHeader {
    /// Generation Counter (GENCTR): changes with the log's content.
    pub generation: U64,
    /// Number of Records (NUMREC).
    pub records: U64,
    /// Record Format (RECFMT), 0.
    pub record_format: U16,
    /// Reserved.
    pub reserved18: [u8; 1006],
}

assert_layout!(DiscoveryHeader, 1024, generation @ 0, records @ 8, record_format @ 16);

impl DiscoveryHeader {
    /// A header before `records` entries.
    #[must_use]
    pub fn new(generation: u64, records: u64) -> Self {
        let mut header = Self::new_zeroed();
        header.generation = U64::new(generation);
        header.records = U64::new(records);
        header
    }
}

/// Entry of the discovery log page (Base 5.16.1.23, "Discovery Log Page Entry"), 1,024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiscoveryEntry {
    /// Transport Type (TRTYPE); see [`TransportType`].
    pub transport_type: u8,
    /// Address Family (ADRFAM); see [`AddressFamily`].
    pub address_family: u8,
    /// Subsystem Type (SUBTYPE); see [`SubsystemType`].
    pub subsystem_type: u8,
    /// Transport Requirements (TREQ); see [`TransportRequirements`].
    pub transport_requirements: u8,
    /// NVM subsystem port ID (PORTID).
    pub port_id: U16,
    /// Controller ID (CNTLID): FFFFh dynamic, FFFEh static.
    pub cntlid: U16,
    /// Admin Max SQ Size (ASQSZ), entries; at least 32.
    pub admin_queue_entries: U16,
    /// Entry Flags (EFLAGS); see [`DiscoveryEntryFlags`].
    pub flags: U16,
    /// Reserved.
    pub reserved12: [u8; 20],
    /// Transport Service Identifier (TRSVCID): the TCP port in decimal.
    pub service: [u8; 32],
    /// Reserved.
    pub reserved64: [u8; 192],
    /// NVM Subsystem Qualified Name (SUBNQN), NUL terminated.
    pub subnqn: [u8; NQN_FIELD_BYTES],
    /// Transport Address (TRADDR).
    pub address: [u8; 256],
    /// Transport Specific Address Subtype (TSAS); byte 0 is the Security Type for TCP.
    pub transport_specific: [u8; 256],
}

assert_layout!(
    DiscoveryEntry, 1024, subsystem_type @ 2, port_id @ 4, cntlid @ 6, admin_queue_entries @ 8, flags @ 10,
    service @ 32, subnqn @ 256, address @ 512, transport_specific @ 768,
);

impl DiscoveryEntry {
    /// A TCP entry for a subsystem that listens on an address, with dynamic controllers and no secure channel.
    #[must_use]
    pub fn tcp(subsystem_type: SubsystemType, subnqn: &Nqn, address: &SocketAddr, port_id: u16) -> Self {
        let mut entry = Self::new_zeroed();
        entry.transport_type = TransportType::Tcp.value();
        entry.address_family = AddressFamily::of(address).value();
        entry.subsystem_type = subsystem_type.value();
        entry.transport_requirements =
            TransportRequirements::default().with_secure_channel(SecureChannel::NotRequired.value()).bits();
        entry.port_id = U16::new(port_id);
        entry.cntlid = U16::new(super::ADMIN_CONTROLLER_DYNAMIC);
        entry.admin_queue_entries = U16::new(128);
        entry.subnqn = subnqn.to_field();
        put_ascii(&mut entry.service, &address.port().to_string());
        put_ascii(&mut entry.address, &address.ip().to_string());
        entry
    }

    /// TRADDR without its padding; empty when it is not UTF-8.
    #[must_use]
    pub fn address_text(&self) -> &str {
        get_ascii(&self.address)
    }

    /// TRSVCID without its padding; empty when it is not UTF-8.
    #[must_use]
    pub fn service_text(&self) -> &str {
        get_ascii(&self.service)
    }

    /// The socket address of an entry of the TCP transport; `None` when it is another transport or malformed.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        if self.transport_type != TransportType::Tcp.value() {
            return None;
        }
        Some(SocketAddr::new(self.address_text().parse().ok()?, self.service_text().parse().ok()?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // Deleting this lets `nvme discover` print, or connect to, a wrong address.
    #[test]
    fn entries_are_the_specifications_bytes() {
        let nqn = Nqn::new("nqn.2016-06.io.spdk:cnode1").unwrap();
        let v4: SocketAddr = "127.0.0.1:4420".parse().unwrap();
        let entry = DiscoveryEntry::tcp(SubsystemType::Nvm, &nqn, &v4, 1);
        let bytes = entry.as_bytes();
        assert_eq!(bytes[..12], [3, 1, 2, 2, 1, 0, 0xff, 0xff, 128, 0, 0, 0]);
        assert!(bytes[32..].starts_with(b"4420    "));
        assert!(bytes[256..].starts_with(b"nqn.2016-06.io.spdk:cnode1\0"));
        assert!(bytes[512..].starts_with(b"127.0.0.1   "));
        assert_eq!(entry.socket_address(), Some(v4));
        let v6: SocketAddr = "[fd00::1]:8009".parse().unwrap();
        let entry = DiscoveryEntry::tcp(SubsystemType::DiscoveryReferral, &Nqn::discovery(), &v6, 2);
        assert_eq!((entry.address_family, entry.socket_address()), (2, Some(v6)));
        let rdma = DiscoveryEntry { transport_type: 1, ..entry };
        assert_eq!(rdma.socket_address(), None);
    }

    // Deleting this lets hosts miss entries or the log's changes.
    #[test]
    fn header_bytes() {
        let header = DiscoveryHeader::new(0x0102, 3);
        assert_eq!(header.as_bytes()[..18], [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
