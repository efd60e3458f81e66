//! Property Get and Property Set: the registers through which a host enables, resets and shuts down a controller.
//!
//! Invariant: CSTS is computed from the state, never stored, so that both cannot disagree; a refused write leaves
//! everything as it was.

use sledge_nvme::Status;
use sledge_nvme::property::{
    Capabilities, CommandSetSelected, Configuration, Property, ReadyTimeouts, ShutdownNotification, Version,
};
use sledge_reactor::time::Instant;

use super::state::{Effect, Event};
use super::{Action, Controller, DisconnectReason};

/// CAP.TO and CRTO.CRWMT: at most 15 s until RDY follows EN, which the draining of I/O may take after a reset.
const TIMEOUT_500MS: u8 = 30;

/// Binary logarithms of the sizes of queue entries: 64 and 16 bytes.
pub(super) const SUBMISSION_ENTRY_SIZE: u8 = 6;
/// See [`SUBMISSION_ENTRY_SIZE`].
pub(super) const COMPLETION_ENTRY_SIZE: u8 = 4;

const INVALID: Status = Status::INVALID_FIELD.do_not_retry();

impl Controller {
    /// Property Get (Base 6.6): the value of the property at `offset`, read with a size of 8 or 4 bytes.
    ///
    /// # Errors
    /// `INVALID_FIELD` when there is no such property over Fabrics, or it has another size. CAP may be read in
    /// halves.
    pub fn property_get(&self, offset: u32, size_8: bool) -> Result<u64, Status> {
        const CAP_HIGH: u32 = Property::Cap.value() + 4;
        let capabilities = self.capabilities().bits();
        if !size_8 {
            match offset {
                0 => return Ok(capabilities & 0xffff_ffff),
                CAP_HIGH => return Ok(capabilities >> 32),
                _ => {}
            }
        }
        let property = Property::from_value(offset).ok_or(INVALID)?;
        if size_8 != (property.bytes() == 8) {
            return Err(INVALID);
        }
        match property {
            Property::Cap => Ok(capabilities),
            Property::Vs => Ok(Version::V2_0.bits().into()),
            Property::Cc => Ok(self.configuration.bits().into()),
            Property::Csts => Ok(self.state.status(self.is_enabled()).bits().into()),
            // Neither subsystem reset nor subsystem shutdown is supported; both read as 0.
            Property::Nssr | Property::Nssd => Ok(0),
            Property::Crto => {
                Ok(ReadyTimeouts::default().with_with_media_500ms(TIMEOUT_500MS.into()).bits().into())
            }
            _ => Err(INVALID),
        }
    }

    /// Property Set (Base 6.7). Only CC can be written; what follows from it comes as actions.
    ///
    /// # Errors
    /// `INVALID_FIELD` when there is no such property, it can't be written or has another size, or when the value
    /// has a reserved shutdown notification or changes the configuration of an enabled controller;
    /// `COMMAND_SEQUENCE_ERROR` when the controller is enabled while a reset or shutdown is not finished.
    pub fn property_set(
        &mut self,
        offset: u32,
        size_8: bool,
        value: u64,
        now: Instant,
    ) -> Result<(), Status> {
        if Property::from_value(offset) != Some(Property::Cc) || size_8 {
            return Err(INVALID);
        }
        self.keep_alive.restart(now);
        // CC has 32 bits. CRIME cannot be set, because CAP.CRMS does not offer it.
        let new = Configuration::from_bits(value as u32).with_ready_independent_of_media(false);
        let old = self.configuration;
        let Some(shutdown) = new.shutdown() else { return Err(INVALID) };
        if old.enable() && new.enable() && selected(old) != selected(new) && !self.supports(new) {
            return Err(INVALID);
        }
        match (old.enable(), new.enable()) {
            (false, true) => {
                let event = if self.supports(new) { Event::Enable } else { Event::EnableUnsupported };
                if self.step(event, now) == Effect::Refuse {
                    return Err(Status::COMMAND_SEQUENCE_ERROR);
                }
            }
            (true, false) => _ = self.step(Event::Disable, now),
            _ => {}
        }
        self.configuration = new;
        let announced = shutdown != ShutdownNotification::None;
        if announced
            && old.shutdown() == Some(ShutdownNotification::None)
            && self.step(Event::Shutdown, now) == Effect::Drain
        {
            let reason = match shutdown {
                ShutdownNotification::Abrupt => DisconnectReason::AbruptShutdown,
                _ => DisconnectReason::Shutdown,
            };
            self.actions.push_back(Action::DisconnectQueues(reason));
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
            .with_max_queue_entries_minus_one(self.transport.max_queue_depth.max(2) - 1)
            .with_contiguous_queues_required(true)
            .with_timeout_500ms(TIMEOUT_500MS)
            .with_nvm_command_set(true)
            .with_ready_with_media(true)
    }

    /// Whether the controller can be enabled with a configuration. A discovery controller has no I/O queues, so that
    /// the sizes of their entries may be left 0.
    fn supports(&self, configuration: Configuration) -> bool {
        let sizes = (configuration.io_submission_entry_size(), configuration.io_completion_entry_size());
        configuration.command_set() == CommandSetSelected::Nvm.value()
            && configuration.memory_page_size() == 0
            && configuration.arbitration() == 0
            && (sizes == (SUBMISSION_ENTRY_SIZE, COMPLETION_ENTRY_SIZE)
                || self.is_discovery() && sizes == (0, 0))
    }
}

/// The fields that select how an enabled controller works.
fn selected(configuration: Configuration) -> [u8; 5] {
    [
        configuration.command_set(),
        configuration.memory_page_size(),
        configuration.arbitration(),
        configuration.io_submission_entry_size(),
        configuration.io_completion_entry_size(),
    ]
}
