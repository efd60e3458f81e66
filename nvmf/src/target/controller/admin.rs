//! Admin commands: which there are, when they may run, and where they go.
//!
//! Invariant: a command that fails sends no data and has no effect; a command that the controller does not list in its
//! Commands Supported and Effects log ([`supported`]) is answered with `INVALID_OPCODE`.

use sledge_nvme::fabrics::{AuthenticationCommand, PropertyGetCommand, PropertySetCommand, PropertySize};
use sledge_nvme::identify::IDENTIFY_BYTES;
use sledge_nvme::opcode::{Admin, FABRICS, FabricsType};
use sledge_nvme::{Command, Status};
use sledge_reactor::time::Instant;

use super::{Controller, Outcome, Transfer, features};
use crate::target::definition::TargetDefinition;
use crate::target::fault::{Fault, field};

/// Bytes of the data of Connect (Base 6.3).
const CONNECT_DATA_BYTES: u32 = 1024;

/// Abort Command Limit, 0's based: aborts that a host may have outstanding. Each is decided at once, so that more do
/// no harm and are not refused.
pub(super) const ABORT_LIMIT: u8 = 3;

/// Whether a controller executes an Admin command.
pub(super) const fn supported(opcode: Admin, discovery: bool) -> bool {
    match opcode {
        Admin::GetLogPage
        | Admin::Identify
        | Admin::SetFeatures
        | Admin::GetFeatures
        | Admin::AsynchronousEventRequest
        | Admin::KeepAlive
        | Admin::Fabrics => true,
        Admin::Abort => !discovery,
        _ => false,
    }
}

impl Controller {
    /// The data of an Admin command, as its fields say; a command that is not known has none. The sizes come from the
    /// host: Get Log Page may ask for up to 4 GiB.
    #[must_use]
    pub fn transfer(command: &Command) -> Transfer {
        if command.opcode == FABRICS {
            let length = AuthenticationCommand::of(command).length.get();
            return match FabricsType::from_value(command.fctype()) {
                Some(FabricsType::Connect) => Transfer::HostToController(CONNECT_DATA_BYTES),
                Some(FabricsType::AuthenticationSend) => Transfer::HostToController(length),
                Some(FabricsType::AuthenticationReceive) => Transfer::ControllerToHost(length),
                Some(FabricsType::PropertyGet | FabricsType::PropertySet | FabricsType::Disconnect)
                | None => Transfer::None,
            };
        }
        match Admin::from_value(command.opcode) {
            Some(Admin::Identify) => Transfer::ControllerToHost(IDENTIFY_BYTES as u32),
            Some(Admin::GetLogPage) => {
                Transfer::ControllerToHost(u32::try_from(command.log_page_bytes()).unwrap_or(u32::MAX))
            }
            Some(Admin::GetFeatures) => features::transfer(command, false),
            Some(Admin::SetFeatures) => features::transfer(command, true),
            _ => Transfer::None,
        }
    }

    /// Executes a command of the Admin queue. `data` is what the host sent, `reply` has the size that
    /// [`Controller::transfer`] gave and is filled whole when the command succeeds.
    pub fn execute(
        &mut self,
        command: &Command,
        data: &[u8],
        reply: &mut [u8],
        target: &TargetDefinition,
        now: Instant,
    ) -> Outcome {
        self.activity(now);
        if command.opcode == FABRICS {
            return self.fabrics(command, now).unwrap_or_else(Outcome::Failed);
        }
        let known =
            Admin::from_value(command.opcode).filter(|&opcode| supported(opcode, self.is_discovery()));
        let Some(opcode) = known else { return Outcome::Failed(Fault::OPCODE) };
        if !self.is_ready() {
            return Outcome::Failed(Status::COMMAND_SEQUENCE_ERROR.do_not_retry().into());
        }
        let outcome = match opcode {
            Admin::Identify => self.identify(command, reply),
            Admin::GetLogPage => self.get_log_page(command, reply, target, now),
            Admin::GetFeatures => self.get_features(command, reply, now),
            Admin::SetFeatures => self.set_features(command, data, now),
            Admin::AsynchronousEventRequest => self.async_event_request(command),
            Admin::Abort => Ok(self.abort(command)),
            // It has restarted the timer by arriving.
            Admin::KeepAlive => Ok(Outcome::done(0)),
            _ => Err(Fault::OPCODE),
        };
        outcome.unwrap_or_else(Outcome::Failed)
    }

    fn fabrics(&mut self, command: &Command, now: Instant) -> Result<Outcome, Fault> {
        match FabricsType::from_value(command.fctype()) {
            Some(FabricsType::PropertyGet) => {
                let get = PropertyGetCommand::of(command);
                let size = get.size().ok_or(Fault::field(field::DWORD_10))?;
                let value = self.property_get(get.offset.get(), size == PropertySize::Eight)?;
                Ok(Outcome::done(value))
            }
            Some(FabricsType::PropertySet) => {
                let set = PropertySetCommand::of(command);
                let size = set.size().ok_or(Fault::field(field::DWORD_10))?;
                self.property_set(set.offset.get(), size == PropertySize::Eight, set.value.get(), now)?;
                Ok(Outcome::done(0))
            }
            // The queue is connected already.
            Some(FabricsType::Connect) => Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry().into()),
            // The Admin queue ends with its connection (Base 6.4).
            Some(FabricsType::Disconnect) => Err(Status::INVALID_QUEUE_TYPE.do_not_retry().into()),
            Some(FabricsType::AuthenticationSend | FabricsType::AuthenticationReceive) | None => {
                Err(Fault::at(Status::INVALID_OPCODE, field::NSID))
            }
        }
    }

    fn async_event_request(&mut self, command: &Command) -> Result<Outcome, Fault> {
        self.events.hold(command.cid.get())?;
        self.deliver_events();
        Ok(Outcome::Held)
    }

    fn abort(&mut self, command: &Command) -> Outcome {
        /// Bit 0 of dword 0: the command was not aborted.
        const NOT_ABORTED: u64 = 1;
        let (sqid, cid) = (command.abort_sqid(), command.abort_cid());
        if sqid != 0 && !self.io_queues.contains(&sqid) {
            return Outcome::done(NOT_ABORTED);
        }
        Outcome::Abort { sqid, cid, request: sqid == 0 && self.events.take(cid) }
    }
}
