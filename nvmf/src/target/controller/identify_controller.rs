//! Identify Controller (Base 5.17.2.1): everything that a controller can do, in one structure.
//!
//! Invariant: each capability that is reported here is carried out by this target, and each limit is the one that
//! is enforced.

use sledge_nvme::identify::capability::{anacap, cmic, ctratt, frmw, fuses, lpa, ofcs, oncs, sgls, vwc};
use sledge_nvme::identify::{ControllerData, ControllerType};
use sledge_nvme::property::Version;
use zerocopy::little_endian::{U16, U32};

use super::identify::namespace_limit;
use super::registers::{COMPLETION_ENTRY_SIZE, SUBMISSION_ENTRY_SIZE};
use super::{Controller, admin, changes, errors, keep_alive};
use crate::target::definition::{SubsystemDefinition, TransportOptions};
use crate::target::discovery;

/// Firmware revision that is reported.
pub(super) const FIRMWARE_REVISION: &str = env!("CARGO_PKG_VERSION");

/// Seconds that an ANA transition takes at most (ANATT).
const ANA_TRANSITION_SECONDS: u8 = 10;

/// Bytes of the ANA log page's header, of one group descriptor and of one namespace in it (Base 5.16.1.13).
const ANA_LOG_BYTES: (u32, u32, u32) = (16, 32, 4);

/// Page size that MDTS counts in: CAP.MPSMIN is 0.
const PAGE_BYTES: u32 = 4096;

impl Controller {
    /// The Identify Controller data structure.
    pub(super) fn controller_data(&self) -> ControllerData {
        let mut data = ControllerData::new();
        data.set_firmware_revision(FIRMWARE_REVISION);
        data.subnqn = discovery::nqn_field(&self.identity.subsystem_nqn);
        data.mdts = mdts(&self.transport);
        data.cntlid = U16::new(self.identity.controller_id);
        data.ver = U32::new(Version::V2_0.bits());
        data.oaes = U32::new(self.accepted_events());
        data.ctratt = U32::new(ctratt::HOST_IDENTIFIER_128 | ctratt::TRAFFIC_BASED_KEEP_ALIVE);
        data.aerl = self.transport.max_async_events.max(1) - 1;
        // 64 entries: fits.
        data.elpe = (errors::CAPACITY - 1) as u8;
        data.kas = U16::new(keep_alive::GRANULARITY_100MS);
        data.sqes = SUBMISSION_ENTRY_SIZE << 4 | SUBMISSION_ENTRY_SIZE;
        data.cqes = COMPLETION_ENTRY_SIZE << 4 | COMPLETION_ENTRY_SIZE;
        data.maxcmd = U16::new(self.transport.max_queue_depth);
        data.sgls = U32::new(sgls::SUPPORTED | sgls::ADDRESS_AS_OFFSET | sgls::TRANSPORT_DATA_BLOCK);
        data.set_capsule_sizes(self.transport.in_capsule_data_bytes);
        data.msdbd = 1;
        match &self.identity.subsystem {
            Some(subsystem) => self.describe_io(&mut data, subsystem),
            None => {
                data.set_serial_number("discovery");
                data.set_model_number("Sledge Discovery");
                data.cntrltype = ControllerType::Discovery.value();
                data.lpa = lpa::EXTENDED_DATA;
            }
        }
        data
    }

    fn describe_io(&self, data: &mut ControllerData, subsystem: &SubsystemDefinition) {
        data.set_serial_number(&subsystem.serial_number);
        data.set_model_number(&subsystem.model_number);
        data.cntrltype = ControllerType::Io.value();
        data.cmic = cmic::MULTIPLE_PORTS | cmic::MULTIPLE_CONTROLLERS;
        data.acl = admin::ABORT_LIMIT;
        data.frmw = frmw::SLOT_1_READ_ONLY | 1 << frmw::SLOTS_SHIFT;
        data.lpa = lpa::COMMAND_EFFECTS | lpa::EXTENDED_DATA | lpa::SUPPORTED_LOG_PAGES;
        data.nn = U32::new(namespace_limit(subsystem));
        data.mnan = data.nn;
        data.oncs = U16::new(optional_commands(subsystem));
        data.fuses = U16::new(fuses::COMPARE_AND_WRITE);
        // A host reads this once, and a namespace with a volatile cache may come later: were the cache not announced,
        // that host would never flush.
        data.vwc = vwc::PRESENT | vwc::FLUSH_ALL_SUPPORTED;
        data.ofcs = U16::new(ofcs::DISCONNECT);
        if subsystem.ana_reporting {
            let (maximum, number) = ana_groups(subsystem, &self.transport);
            data.cmic |= cmic::ANA_REPORTING;
            data.anatt = ANA_TRANSITION_SECONDS;
            data.anacap = anacap::OPTIMIZED
                | anacap::NON_OPTIMIZED
                | anacap::INACCESSIBLE
                | anacap::PERSISTENT_LOSS
                | anacap::CHANGE;
            data.anagrpmax = U32::new(maximum);
            data.nanagrpid = U32::new(number);
        }
    }
}

/// MDTS: the binary logarithm of the largest transfer in pages. One page cannot be told from "no limit", so that a
/// host may send more than that and be refused.
fn mdts(transport: &TransportOptions) -> u8 {
    // At most 2^20 pages fit into 32 bits of bytes.
    (transport.max_io_bytes / PAGE_BYTES).checked_ilog2().unwrap_or(0) as u8
}

/// ONCS. Deallocation and zeroing are offered while a namespace can do them or none is there that could not.
pub(super) fn optional_commands(subsystem: &SubsystemDefinition) -> u16 {
    let always = oncs::COMPARE | oncs::SAVE_AND_SELECT | oncs::TIMESTAMP | oncs::VERIFY;
    let namespaces = &subsystem.namespaces;
    if namespaces.is_empty() || namespaces.values().any(|namespace| namespace.deallocates) {
        always | oncs::DATASET_MANAGEMENT | oncs::WRITE_ZEROES
    } else {
        always
    }
}

/// ANAGRPMAX and NANAGRPID: largest group identifier, and number of groups. Hosts size their buffer for the ANA log by
/// the second and give ANA up when that exceeds a transfer, so that it is not larger than fits, nor less than there
/// are.
fn ana_groups(subsystem: &SubsystemDefinition, transport: &TransportOptions) -> (u32, u32) {
    let groups = changes::groups(subsystem);
    let limit = namespace_limit(subsystem);
    let (header, descriptor, namespace) = ANA_LOG_BYTES;
    let room = transport.max_io_bytes.saturating_sub(header).saturating_sub(limit.saturating_mul(namespace));
    let used = groups.len() as u32;
    let largest = groups.last_key_value().map_or(0, |(&group, _)| group);
    (limit.max(largest), limit.min(room / descriptor).max(used).max(1))
}
