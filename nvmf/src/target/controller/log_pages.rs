//! Get Log Page (Base 5.16): what the controller reports about itself and its past.
//!
//! Invariant: nothing is reported that was not counted; what is not measured is 0. A page that clears an event does so
//! only when it was read without Retain Asynchronous Event and the command succeeds.

use sledge_nvme::command::BROADCAST_NSID;
use sledge_nvme::fabrics::TransportType;
use sledge_nvme::feature::Feature;
use sledge_nvme::identify::CommandSet;
use sledge_nvme::identify::capability::oncs;
use sledge_nvme::log_page::{
    AnaGroupDescriptor, AnaHeader, CommandEffects, CommandEffectsLog, DataUnits, ErrorEntry, FeatureEffects,
    FeatureEffectsLog, FirmwareSlotLog, HealthLog, LogPage, RETURN_GROUPS_ONLY, SupportedLogPages,
};
use sledge_nvme::opcode::{Admin, Nvm};
use sledge_nvme::{Command, Status};
use sledge_reactor::time::Instant;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64, U128};

use super::events::EventKind;
use super::identify_controller::{FIRMWARE_REVISION, optional_commands};
use super::page::Page;
use super::{Controller, Outcome, admin, changes, errors, features};
use crate::target::definition::{SubsystemDefinition, TargetDefinition};
use crate::target::discovery;
use crate::target::fault::{Fault, field};

/// Bytes of the pages whose end is not reached by what they hold.
const CHANGED_NAMESPACES_BYTES: u64 = 4096;
const MANAGEMENT_EFFECTS_BYTES: u64 = 4096;

/// Scope bits of effects: of a namespace, of a controller (Base 5.16.1.6).
const SCOPE_NAMESPACE: u16 = 1 << 0;
const SCOPE_CONTROLLER: u16 = 1 << 1;

/// Log pages of an I/O controller; ANA is there only when the subsystem reports it.
const IO_PAGES: &[LogPage] = &[
    LogPage::SupportedLogPages,
    LogPage::Error,
    LogPage::Health,
    LogPage::FirmwareSlot,
    LogPage::ChangedNamespaces,
    LogPage::CommandEffects,
    LogPage::FeatureEffects,
    LogPage::ManagementEffects,
];

/// Log pages of a discovery controller.
const DISCOVERY_PAGES: &[LogPage] = &[LogPage::SupportedLogPages, LogPage::Error, LogPage::Discovery];

impl Controller {
    /// Get Log Page.
    pub(super) fn get_log_page(
        &mut self,
        command: &Command,
        reply: &mut [u8],
        target: &TargetDefinition,
        now: Instant,
    ) -> Result<Outcome, Fault> {
        let invalid_page = Fault::at(Status::INVALID_LOG_PAGE, field::DWORD_10);
        let log_page = LogPage::from_value(command.log_page_identifier()).ok_or(invalid_page)?;
        if !self.log_pages().contains(&log_page) {
            return Err(invalid_page);
        }
        let offset = command.log_page_offset();
        // No page is of a namespace (LPA bit 0 is 0), and none is addressed by index.
        if !matches!(command.nsid.get(), 0 | BROADCAST_NSID) {
            return Err(Fault::field(field::NSID));
        }
        if command.log_offset_is_index() {
            return Err(Fault::field_bit(field::DWORD_14 + 2, 7));
        }
        if !offset.is_multiple_of(4) {
            return Err(Fault::field(field::DWORD_12));
        }
        let reply_bytes = reply.len();
        let mut page = Page::new(reply, offset);
        match (log_page, &self.identity.subsystem) {
            (LogPage::SupportedLogPages, _) => {
                page.put(SupportedLogPages::new(&self.log_pages()).as_bytes());
            }
            (LogPage::Error, _) => self.put_errors(&mut page),
            (LogPage::Health, Some(subsystem)) => page.put(self.health(subsystem, now).as_bytes()),
            (LogPage::FirmwareSlot, _) => page.put(FirmwareSlotLog::single(FIRMWARE_REVISION).as_bytes()),
            (LogPage::ChangedNamespaces, _) => {
                for nsid in self.changed.entries() {
                    page.put(&nsid.to_le_bytes());
                }
                page.pad_to(CHANGED_NAMESPACES_BYTES);
            }
            (LogPage::CommandEffects, Some(subsystem)) => {
                if command.log_command_set() != CommandSet::Nvm.value() {
                    return Err(Fault::field(field::DWORD_14 + 3));
                }
                page.put(command_effects(subsystem).as_bytes());
            }
            (LogPage::FeatureEffects, _) => page.put(self.feature_effects().as_bytes()),
            // There is no management endpoint, so that no command of it is supported.
            (LogPage::ManagementEffects, _) => page.pad_to(MANAGEMENT_EFFECTS_BYTES),
            (LogPage::Ana, Some(subsystem)) => {
                let groups_only = command.log_specific_field() & RETURN_GROUPS_ONLY != 0;
                self.put_ana(&mut page, subsystem, groups_only);
            }
            (LogPage::Discovery, _) => discovery::write(&mut page, target, self.viewer()),
            _ => return Err(invalid_page),
        }
        page.finish()?;
        if log_page == LogPage::Discovery && offset == 0 {
            self.discovery_seen = Some(discovery::fingerprint(target, self.viewer()));
        }
        if !command.retain_async_event() {
            if let Some(kind) = EventKind::of_log_page(log_page) {
                self.events.clear(kind);
            }
            if log_page == LogPage::ChangedNamespaces {
                self.changed.clear();
            }
        }
        Ok(Outcome::Done { result: 0, reply_bytes })
    }

    fn log_pages(&self) -> Vec<LogPage> {
        match &self.identity.subsystem {
            None => DISCOVERY_PAGES.to_vec(),
            Some(subsystem) if subsystem.ana_reporting => [IO_PAGES, &[LogPage::Ana]].concat(),
            Some(_) => IO_PAGES.to_vec(),
        }
    }

    fn put_errors(&self, page: &mut Page<'_>) {
        for entry in self.errors.iter() {
            let error = &entry.error;
            let mut wire = ErrorEntry::new(entry.count, error.sqid, error.cid, error.status);
            wire.parameter_location = U16::new(error.location.bits());
            wire.lba = U64::new(error.lba);
            wire.nsid = U32::new(error.nsid);
            wire.transport_type = TransportType::Tcp.value();
            wire.set_opcode(CommandSet::Nvm.value(), error.opcode);
            page.put(wire.as_bytes());
        }
        page.pad_to((errors::CAPACITY * size_of::<ErrorEntry>()) as u64);
    }

    /// SMART / Health Information of the whole controller: the subsystem's counters. Temperatures are not measured
    /// and reported as 0; the storage below wears out and spares on its own, so that spare is whole and nothing used.
    fn health(&self, subsystem: &SubsystemDefinition, now: Instant) -> HealthLog {
        const NS_PER_MINUTE: u64 = 60_000_000_000;
        const SECONDS_PER_HOUR: u64 = 3600;
        let totals = subsystem.statistics.totals();
        let mut log = HealthLog::new();
        log.available_spare = 100;
        log.data_units_read = DataUnits::from_bytes(totals.read_bytes.into()).to_field();
        log.data_units_written = DataUnits::from_bytes(totals.written_bytes.into()).to_field();
        log.host_read_commands = U128::new(totals.read_commands.into());
        log.host_write_commands = U128::new(totals.write_commands.into());
        log.controller_busy_minutes = U128::new((totals.busy_ns / NS_PER_MINUTE).into());
        log.power_cycles = U128::new(1);
        log.power_on_hours = U128::new((subsystem.statistics.age(now).as_secs() / SECONDS_PER_HOUR).into());
        log.media_errors = U128::new(totals.media_errors.into());
        log.error_log_entries = U128::new(totals.error_log_entries.max(self.errors.count()).into());
        log
    }

    fn feature_effects(&self) -> FeatureEffectsLog {
        let mut log = FeatureEffectsLog::new();
        for &feature in Feature::ALL {
            if let Some(support) = features::support(feature, self.is_discovery()) {
                let scope = if support.namespace_specific { SCOPE_NAMESPACE } else { SCOPE_CONTROLLER };
                log.set(feature.value(), FeatureEffects::default().with_supported(true).with_scope(scope));
            }
        }
        log
    }

    fn put_ana(&self, page: &mut Page<'_>, subsystem: &SubsystemDefinition, groups_only: bool) {
        let groups = changes::groups(subsystem);
        // A group has a namespace, and hosts are told of fewer than 65,536 of either.
        page.put(AnaHeader::new(self.ana.changes, groups.len() as u16).as_bytes());
        for (group, nsids) in groups {
            let state = subsystem.ana_state(self.identity.listener, group);
            let listed = if groups_only { &[][..] } else { &nsids[..] };
            let changes = self.ana.changes_of(group);
            page.put(AnaGroupDescriptor::new(group, state, changes, listed.len() as u32).as_bytes());
            for nsid in listed {
                page.put(&nsid.to_le_bytes());
            }
        }
    }
}

/// Commands Supported and Effects (Base 5.16.1.6).
fn command_effects(subsystem: &SubsystemDefinition) -> CommandEffectsLog {
    let mut log = CommandEffectsLog::new();
    for &opcode in Admin::ALL {
        if admin::supported(opcode, false) {
            log.set_admin(opcode.value(), CommandEffects::SUPPORTED.with_scope(SCOPE_CONTROLLER));
        }
    }
    let reads = CommandEffects::SUPPORTED.with_scope(SCOPE_NAMESPACE);
    let changes = CommandEffects::SUPPORTED_CONTENT_CHANGE.with_scope(SCOPE_NAMESPACE);
    for (opcode, effects) in [
        (Nvm::Flush, reads),
        (Nvm::Read, reads),
        (Nvm::Compare, reads),
        (Nvm::Verify, reads),
        (Nvm::Write, changes),
    ] {
        log.set_io(opcode.value(), effects);
    }
    let optional = optional_commands(subsystem);
    for (opcode, bit) in
        [(Nvm::WriteZeroes, oncs::WRITE_ZEROES), (Nvm::DatasetManagement, oncs::DATASET_MANAGEMENT)]
    {
        if optional & bit != 0 {
            log.set_io(opcode.value(), changes);
        }
    }
    log
}
