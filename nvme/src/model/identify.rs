//! The model's Identify data.
//!
//! Owns the formats that its namespaces can have. Invariant: what is announced is what the model does.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::controller::State;
use super::options::ModelNamespace;
use crate::identify::capability::{dlfeat, fuses, oacs, oaes, oncs, sgls, vwc};
use crate::identify::{
    Cns, CommandSet, CommandSetVectors, ControllerData, ControllerList, ControllerType, DescriptorList,
    IDENTIFY_BYTES, IndependentNamespaceData, LbaFormat, NamespaceData, NamespaceIdentifier, NamespaceList,
    NvmControllerData, NvmNamespaceData,
};
use crate::{Command, Status};

/// Metadata bytes and binary logarithm of the block size of each format.
pub(super) const FORMATS: [(u16, u8); 4] = [(0, 9), (0, 12), (8, 9), (8, 12)];
/// Most blocks of a fused Compare and Write, less one (ACWU).
pub(super) const COMPARE_AND_WRITE_MINUS_ONE: u16 = 63;

const INVALID_FIELD: Status = Status::INVALID_FIELD.do_not_retry();
const NO_NAMESPACE: Status = Status::INVALID_NAMESPACE_OR_FORMAT.do_not_retry();

impl State {
    /// The data that an Identify command asks for.
    pub(super) fn identify(&self, command: &Command) -> Result<Vec<u8>, Status> {
        let nsid = command.nsid.get();
        let set = CommandSet::from_value(command.identify_command_set());
        match Cns::from_value(command.cns()).ok_or(INVALID_FIELD)? {
            Cns::Controller => Ok(self.controller_data().as_bytes().to_vec()),
            Cns::Namespace | Cns::AllocatedNamespace => self.namespace_data(nsid),
            Cns::ActiveNamespaceList | Cns::AllocatedNamespaceList => self.list(nsid, |_| true),
            Cns::CommandSetActiveNamespaceList | Cns::CommandSetAllocatedNamespaceList => {
                let set = set.ok_or(INVALID_FIELD)?;
                self.list(nsid, |namespace| namespace.command_set == set)
            }
            Cns::NamespaceDescriptors => self.active(nsid).map(descriptors),
            Cns::CommandSetNamespace | Cns::CommandSetAllocatedNamespace => {
                if self.active(nsid)?.command_set != set.ok_or(INVALID_FIELD)? {
                    return Err(Status::INVALID_IO_COMMAND_SET.do_not_retry());
                }
                Ok(NvmNamespaceData::new().as_bytes().to_vec())
            }
            Cns::CommandSetController => match set {
                Some(CommandSet::Nvm) => Ok(NvmControllerData::new().as_bytes().to_vec()),
                Some(CommandSet::Zoned) if self.configuration.command_set() == 6 => {
                    Ok(vec![0; IDENTIFY_BYTES])
                }
                _ => Err(INVALID_FIELD),
            },
            Cns::IndependentNamespace => {
                self.active(nsid)?;
                let data = NamespaceData::inactive();
                Ok(IndependentNamespaceData::of(&data, true).as_bytes().to_vec())
            }
            Cns::ControllerList | Cns::AttachedControllerList => {
                let from = command.identify_controller_id();
                Ok(ControllerList::starting_at(from, [1]).as_bytes().to_vec())
            }
            Cns::CommandSets => {
                let mut vectors = CommandSetVectors::new_zeroed();
                let sets = self.media.values().map(|media| 1 << media.namespace.command_set.value());
                vectors.vectors[0].set(sets.fold(1, |all: u64, set: u64| all | set));
                Ok(vectors.as_bytes().to_vec())
            }
            _ => Err(INVALID_FIELD),
        }
    }

    fn active(&self, nsid: u32) -> Result<&ModelNamespace, Status> {
        let media = self.media.get(&nsid).filter(|_| self.is_active(nsid));
        media.map(|media| &media.namespace).ok_or(NO_NAMESPACE)
    }

    fn list(&self, after: u32, which: impl Fn(&ModelNamespace) -> bool) -> Result<Vec<u8>, Status> {
        if after >= u32::MAX - 1 {
            return Err(NO_NAMESPACE);
        }
        let chosen = self.media.values().map(|media| &media.namespace);
        let nsids = chosen.filter(|space| self.is_active(space.nsid) && which(space)).map(|space| space.nsid);
        Ok(NamespaceList::after(after, nsids).as_bytes().to_vec())
    }

    fn namespace_limit(&self) -> u32 {
        self.media.keys().next_back().copied().unwrap_or(0).max(self.options.namespace_limit)
    }

    fn controller_data(&self) -> ControllerData {
        let options = &self.options;
        let mut data = ControllerData::new();
        data.vid = U16::new(0x1b36);
        data.set_serial_number(&options.serial);
        data.set_model_number(&options.model_number);
        data.set_firmware_revision(&options.firmware);
        data.mdts = options.mdts;
        data.cntlid = U16::new(1);
        data.ver = U32::new(options.version.bits());
        data.oaes = U32::new(oaes::NAMESPACE_ATTRIBUTE | oaes::FIRMWARE_ACTIVATION);
        data.cntrltype = ControllerType::Io.value();
        data.crdt = [U16::new(1), U16::new(10), U16::new(100)];
        let shadow = if options.shadow_doorbells { oacs::DOORBELL_BUFFER } else { 0 };
        data.oacs = U16::new(oacs::FORMAT | oacs::FIRMWARE | oacs::SELF_TEST | shadow);
        data.acl = options.abort_limit_minus_one;
        data.aerl = options.event_limit_minus_one;
        data.elpe = (super::events::ERROR_ENTRIES - 1) as u8;
        data.lpa = crate::identify::capability::lpa::EXTENDED_DATA;
        data.sqes = 0x66;
        data.cqes = 0x44;
        data.nn = U32::new(self.namespace_limit());
        let supported = [
            (options.compare, oncs::COMPARE),
            (options.dataset_management, oncs::DATASET_MANAGEMENT),
            (options.write_zeroes, oncs::WRITE_ZEROES),
            (options.verify, oncs::VERIFY),
        ];
        let bits = supported.iter().filter(|(on, _)| *on).fold(0, |all, (_, bit)| all | bit);
        data.oncs = U16::new(bits);
        data.fuses = U16::new(if options.compare_and_write { fuses::COMPARE_AND_WRITE } else { 0 });
        data.acwu = U16::new(if options.compare_and_write { COMPARE_AND_WRITE_MINUS_ONE } else { 0 });
        data.vwc = if options.volatile_write_cache { vwc::PRESENT | vwc::FLUSH_ALL_SUPPORTED } else { 0 };
        data.sgls = U32::new(if options.sgl { sgls::SUPPORTED } else { 0 });
        data
    }

    fn namespace_data(&self, nsid: u32) -> Result<Vec<u8>, Status> {
        if nsid == 0 || nsid > self.namespace_limit() {
            return Err(NO_NAMESPACE);
        }
        let Ok(namespace) = self.active(nsid) else {
            return Ok(NamespaceData::inactive().as_bytes().to_vec());
        };
        let mut data = NamespaceData::new(namespace.blocks, namespace.block_bytes.ilog2() as u8);
        data.lbaf = [LbaFormat::default(); 64];
        for (place, (metadata, shift)) in data.lbaf.iter_mut().zip(FORMATS) {
            (place.metadata_bytes, place.data_shift) = (U16::new(metadata), shift);
        }
        data.nlbaf = FORMATS.len() as u8 - 1;
        let wanted = (namespace.metadata_bytes, namespace.block_bytes.ilog2() as u8);
        let index = FORMATS.iter().position(|format| *format == wanted).unwrap_or(0) as u8;
        data.flbas = index | u8::from(namespace.extended) << 4;
        // Metadata either way; protection information of all types, in the first or last bytes (which are the same).
        (data.mc, data.dpc, data.dps) = (0b11, 0b1_1111, namespace.protection);
        data.dlfeat = dlfeat::READS_ZEROES | dlfeat::WRITE_ZEROES_DEALLOCATE;
        data.noiob = U16::new(namespace.optimal_boundary);
        (data.nguid, data.eui64) = (namespace.nguid, namespace.eui64);
        Ok(data.as_bytes().to_vec())
    }
}

fn descriptors(namespace: &ModelNamespace) -> Vec<u8> {
    let mut list = DescriptorList::new();
    if namespace.eui64 != [0; 8] {
        list.push(NamespaceIdentifier::Eui64(namespace.eui64));
    }
    if namespace.nguid != [0; 16] {
        list.push(NamespaceIdentifier::Nguid(namespace.nguid));
    }
    if namespace.uuid != [0; 16] {
        list.push(NamespaceIdentifier::Uuid(namespace.uuid));
    }
    list.push(NamespaceIdentifier::CommandSet(namespace.command_set));
    list.as_bytes().to_vec()
}
