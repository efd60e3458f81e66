//! Identify: what a controller and its namespaces are.
//!
//! Owns the data structures of the Identify command (Base 5.17.2 and NVM 4.1.5), all of 4,096 bytes, and the numbers
//! that select them. Invariant: all-zero bytes are a valid value of each and mean "nothing supported".
//! The target's Identify handlers fill them; the host side reads them.

pub mod capability;
mod controller;
mod descriptor;
mod list;
mod namespace;
mod nvm;

pub use controller::{ControllerData, PowerState};
pub use descriptor::{DescriptorList, IdentifierType, NamespaceIdentifier, NamespaceIdentifiers};
pub use list::{CommandSetVectors, ControllerList, NamespaceList};
pub use namespace::{IndependentNamespaceData, LbaFormat, NamespaceData};
pub use nvm::{NvmControllerData, NvmNamespaceData};

use crate::wire::wire_enum;

/// Bytes of every Identify data structure (Base 5.17).
pub const IDENTIFY_BYTES: usize = 4096;

wire_enum! {
    /// Controller or Namespace Structure (CNS, Base 5.17.1).
    pub enum Cns: u8 {
        Namespace = 0x00, "Identify Namespace";
        Controller = 0x01, "Identify Controller";
        ActiveNamespaceList = 0x02, "Active Namespace ID list";
        NamespaceDescriptors = 0x03, "Namespace Identification Descriptor list";
        NvmSetList = 0x04, "NVM Set List";
        CommandSetNamespace = 0x05, "I/O Command Set specific Identify Namespace";
        CommandSetController = 0x06, "I/O Command Set specific Identify Controller";
        CommandSetActiveNamespaceList = 0x07, "I/O Command Set specific Active Namespace ID list";
        IndependentNamespace = 0x08, "I/O Command Set Independent Identify Namespace";
        NamespaceUserDataFormat = 0x09, "Identify Namespace for a user data format";
        CommandSetUserDataFormat = 0x0a, "I/O Command Set specific Identify Namespace for a user data format";
        AllocatedNamespaceList = 0x10, "Allocated Namespace ID list";
        AllocatedNamespace = 0x11, "Identify Namespace for an allocated namespace";
        AttachedControllerList = 0x12, "Controllers attached to a namespace";
        ControllerList = 0x13, "Controllers in the NVM subsystem";
        PrimaryControllerCapabilities = 0x14, "Primary Controller Capabilities";
        SecondaryControllerList = 0x15, "Secondary Controller list";
        NamespaceGranularityList = 0x16, "Namespace Granularity List";
        UuidList = 0x17, "UUID List";
        DomainList = 0x18, "Domain List";
        EnduranceGroupList = 0x19, "Endurance Group List";
        CommandSetAllocatedNamespaceList = 0x1a, "I/O Command Set specific Allocated Namespace ID list";
        CommandSetAllocatedNamespace = 0x1b, "I/O Command Set specific Identify Namespace, allocated";
        CommandSets = 0x1c, "Identify I/O Command Set";
    }
}

wire_enum! {
    /// Command Set Identifier (CSI, Base 5.17.1 and Figure "Command Set Identifiers").
    pub enum CommandSet: u8 {
        Nvm = 0, "NVM Command Set";
        KeyValue = 1, "Key Value Command Set";
        Zoned = 2, "Zoned Namespace Command Set";
        SubsystemLocalMemory = 3, "Subsystem Local Memory Command Set";
        ComputationalPrograms = 4, "Computational Programs Command Set";
    }
}

wire_enum! {
    /// Controller Type (CNTRLTYPE, Base 5.17.2.1).
    pub enum ControllerType: u8 {
        NotReported = 0, "not reported";
        Io = 1, "I/O controller";
        Discovery = 2, "Discovery controller";
        Administrative = 3, "Administrative controller";
    }
}
