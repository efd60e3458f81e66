//! NVMe over Fabrics: its commands, names and discovery.
//!
//! Owns the Fabrics command set (Base 6), NVMe Qualified Names (Base 4.5) and the discovery log (Base 5.16.1.23).
//! Invariant: these are layouts and pure checks; connections live in `sledge-nvmf`, which is the caller.

mod command;
mod connect;
mod discovery;
mod nqn;

pub use command::{
    AuthenticationCommand, DisconnectCommand, PropertyGetCommand, PropertySetCommand, PropertySize,
};
pub use connect::{
    ADMIN_CONTROLLER_DYNAMIC, ADMIN_CONTROLLER_STATIC, ConnectAttributes, ConnectCommand, ConnectData,
    ConnectResponse, InvalidParameter,
};
pub use discovery::{
    AddressFamily, DISCOVERY_PORT_RDMA, DISCOVERY_PORT_TCP, DiscoveryEntry, DiscoveryEntryFlags,
    DiscoveryHeader, SecureChannel, SubsystemType, TcpSecurity, TransportRequirements, TransportType,
};
pub use nqn::{DISCOVERY_NQN, NQN_FIELD_BYTES, NQN_MAX_BYTES, Nqn, NqnError, nqn_field_text};
