//! Identify (Base 5.17): what the controller and its namespaces are.
//!
//! Owns which structures there are and which namespace identifiers each accepts; [`super::identify_controller`] makes
//! the controller's own. Invariant: what is told of a namespace is what the definition in force says.

use sledge_nvme::Command;
use sledge_nvme::identify::capability::{dlfeat, nmic, nsfeat};
use sledge_nvme::identify::{
    Cns, CommandSet, CommandSetVectors, DescriptorList, IndependentNamespaceData, NamespaceData,
    NamespaceIdentifier, NamespaceList, NvmControllerData, NvmNamespaceData,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::page::Page;
use super::{Controller, Outcome};
use crate::target::definition::{NamespaceDefinition, SubsystemDefinition};
use crate::target::fault::{Fault, field};

/// CNS: no such structure.
const INVALID_CNS: Fault = Fault::field(field::DWORD_10);
/// CNTID, the upper half of dword 10.
const INVALID_CONTROLLER: Fault = Fault::field(field::DWORD_10 + 2);
/// CSI, the last byte of dword 11.
const INVALID_COMMAND_SET: Fault = Fault::field(field::DWORD_11 + 3);

/// Controller identifier that means the controller that executes the command (Base 5.17.2.21).
const THIS_CONTROLLER: u16 = 0xffff;

impl Controller {
    /// Identify.
    pub(super) fn identify(&self, command: &Command, reply: &mut [u8]) -> Result<Outcome, Fault> {
        let cns = Cns::from_value(command.cns()).ok_or(INVALID_CNS)?;
        match &self.identity.subsystem {
            _ if cns == Cns::Controller => answer(reply, self.controller_data().as_bytes()),
            Some(subsystem) => self.identify_in(subsystem, cns, command, reply),
            // Discovery controllers have no namespaces and no command sets (Base 3.1.2.3).
            None => Err(INVALID_CNS),
        }
    }

    fn identify_in(
        &self,
        subsystem: &SubsystemDefinition,
        cns: Cns,
        command: &Command,
        reply: &mut [u8],
    ) -> Result<Outcome, Fault> {
        let nsid = command.nsid.get();
        match cns {
            Cns::Namespace => {
                let data = match active(subsystem, nsid)? {
                    Some(namespace) => namespace_data(subsystem, namespace),
                    None => NamespaceData::inactive(),
                };
                answer(reply, data.as_bytes())
            }
            Cns::ActiveNamespaceList => answer(reply, namespace_list(subsystem, nsid)?.as_bytes()),
            Cns::NamespaceDescriptors => {
                let namespace = active(subsystem, nsid)?.ok_or(Fault::NAMESPACE)?;
                answer(reply, descriptors(namespace).as_bytes())
            }
            Cns::CommandSetNamespace => {
                require_nvm(command)?;
                active(subsystem, nsid)?;
                answer(reply, NvmNamespaceData::new().as_bytes())
            }
            Cns::CommandSetController => {
                require_nvm(command)?;
                answer(reply, nvm_controller_data(subsystem).as_bytes())
            }
            Cns::CommandSetActiveNamespaceList => {
                require_nvm(command)?;
                answer(reply, namespace_list(subsystem, nsid)?.as_bytes())
            }
            Cns::IndependentNamespace => {
                let data = match active(subsystem, nsid)? {
                    Some(namespace) => {
                        IndependentNamespaceData::of(&namespace_data(subsystem, namespace), true)
                    }
                    None => IndependentNamespaceData::new(),
                };
                answer(reply, data.as_bytes())
            }
            Cns::CommandSets => {
                let controller = command.identify_controller_id();
                if controller != THIS_CONTROLLER && controller != self.identity.controller_id {
                    return Err(INVALID_CONTROLLER);
                }
                answer(reply, CommandSetVectors::nvm().as_bytes())
            }
            // NVM sets, namespace management, virtualization, domains and endurance groups are not offered.
            _ => Err(INVALID_CNS),
        }
    }
}

/// The active namespace of an identifier; `None` when the identifier is valid but inactive (Base 3.2.1.3).
fn active(subsystem: &SubsystemDefinition, nsid: u32) -> Result<Option<&NamespaceDefinition>, Fault> {
    if nsid == 0 || nsid > namespace_limit(subsystem) {
        return Err(Fault::NAMESPACE);
    }
    Ok(subsystem.namespaces.get(&nsid))
}

/// Largest valid namespace identifier.
pub(super) fn namespace_limit(subsystem: &SubsystemDefinition) -> u32 {
    let last = subsystem.namespaces.last_key_value().map_or(0, |(&nsid, _)| nsid);
    subsystem.max_namespaces.max(last).max(1)
}

fn namespace_list(subsystem: &SubsystemDefinition, after: u32) -> Result<NamespaceList, Fault> {
    if after >= 0xffff_fffe {
        return Err(Fault::NAMESPACE);
    }
    Ok(NamespaceList::after(after, subsystem.namespaces.keys().copied()))
}

fn require_nvm(command: &Command) -> Result<(), Fault> {
    if command.identify_command_set() == CommandSet::Nvm.value() { Ok(()) } else { Err(INVALID_COMMAND_SET) }
}

/// Identify Namespace (NVM 4.1.5.1).
fn namespace_data(subsystem: &SubsystemDefinition, namespace: &NamespaceDefinition) -> NamespaceData {
    let geometry = &namespace.geometry;
    // A block size is 512 or 4096, so that the shift fits.
    let mut data = NamespaceData::new(geometry.blocks, geometry.block_shift() as u8);
    data.nmic = nmic::SHARED;
    if geometry.optimal_io_blocks > 0 {
        let zero_based = U16::new(u16::try_from(geometry.optimal_io_blocks - 1).unwrap_or(u16::MAX));
        data.nsfeat |= nsfeat::OPTIMAL_PERFORMANCE;
        (data.npwg, data.npwa, data.npdg, data.npda, data.nows) =
            (zero_based, zero_based, zero_based, zero_based, zero_based);
    }
    if namespace.deallocates {
        let reads = match namespace.deallocated_reads_zeroes {
            true => dlfeat::READS_ZEROES,
            false => dlfeat::READS_NOT_REPORTED,
        };
        data.dlfeat = reads | dlfeat::WRITE_ZEROES_DEALLOCATE;
    }
    if subsystem.ana_reporting {
        data.anagrpid = U32::new(namespace.ana_group);
    }
    data.nguid = namespace.nguid;
    data.eui64 = namespace.eui64;
    data
}

/// Namespace Identification Descriptor list (Base 5.17.2.3).
fn descriptors(namespace: &NamespaceDefinition) -> DescriptorList {
    let mut list = DescriptorList::new();
    let names = [
        (namespace.eui64 != [0; 8]).then_some(NamespaceIdentifier::Eui64(namespace.eui64)),
        (namespace.nguid != [0; 16]).then_some(NamespaceIdentifier::Nguid(namespace.nguid)),
        (namespace.uuid != [0; 16]).then_some(NamespaceIdentifier::Uuid(namespace.uuid)),
        Some(NamespaceIdentifier::CommandSet(CommandSet::Nvm)),
    ];
    for name in names.into_iter().flatten() {
        let fits = list.push(name);
        debug_assert!(fits, "four names take a fraction of the list");
    }
    list
}

/// Identify Controller of the NVM command set (NVM 4.1.5.4): the tightest limits of all namespaces.
fn nvm_controller_data(subsystem: &SubsystemDefinition) -> NvmControllerData {
    let mut data = NvmControllerData::new();
    let limits = subsystem.namespaces.values().map(|namespace| namespace.geometry.max_deallocate_blocks);
    data.dmrsl = U32::new(limits.filter(|&blocks| blocks != 0).min().unwrap_or(0));
    data
}

fn answer(reply: &mut [u8], bytes: &[u8]) -> Result<Outcome, Fault> {
    let reply_bytes = reply.len();
    Page::new(reply, 0).put(bytes);
    Ok(Outcome::Done { result: 0, reply_bytes })
}
