//! Fabrics commands: Connect, Property Get and Set, Disconnect (NVMe Base 2.0, 6).

use std::rc::Rc;
use std::sync::Arc;

use sledge_nvme::fabrics::{
    ADMIN_CONTROLLER_DYNAMIC, ConnectCommand, ConnectData, InvalidParameter, Nqn, PropertyGetCommand,
    PropertySetCommand, PropertySize,
};
use sledge_nvme::opcode::FabricsType;
use sledge_nvme::property::Property;
use sledge_nvme::{Command, Status};
use zerocopy::FromBytes;

use super::slot::Phase;
use super::state::{Effect, Event, State};
use super::{Connection, PendingConnect, Queue};
use crate::target::controllers::{Admission, Granted, Refusal};
use crate::target::definition::{DISCOVERY_NQN, SubsystemDefinition, TargetDefinition, TransportOptions};
use crate::target::discovery::ADMIN_QUEUE_ENTRIES_MINIMUM;
use crate::target::fault::{Fault, field};
use crate::target::group::{GroupAction, Shared};
use crate::target::namespace_table::SubsystemView;

/// Bytes of Connect data.
pub(super) const CONNECT_DATA_BYTES: u32 = size_of::<ConnectData>() as u32;

impl Connection {
    /// Executes a Fabrics command whose data, if any, has arrived.
    pub(super) fn execute_fabrics(&mut self, slot: u16, shared: &mut Shared) {
        let command = self.slots.get(slot).command;
        match FabricsType::from_value(command.fctype()) {
            Some(FabricsType::Connect) => self.connect_request(slot, shared),
            Some(FabricsType::PropertyGet) => self.property_get(slot, &command, shared),
            Some(FabricsType::PropertySet) => self.property_set(slot, &command, shared),
            Some(FabricsType::Disconnect) if self.queue.as_ref().is_some_and(|queue| queue.id != 0) => {
                self.disconnecting = true;
                self.respond(slot, Status::SUCCESS, 0, shared);
            }
            Some(FabricsType::Disconnect) => {
                self.respond(slot, Status::INVALID_QUEUE_TYPE.do_not_retry(), 0, shared);
            }
            // Authentication is not required by any subsystem yet, and AUTHREQ says so.
            Some(FabricsType::AuthenticationSend | FabricsType::AuthenticationReceive) | None => {
                self.fail(slot, Fault::at(Status::INVALID_OPCODE, field::NSID), 0, shared);
            }
        }
    }

    fn connect_request(&mut self, slot: u16, shared: &mut Shared) {
        if self.state != State::Initialized {
            // A queue is connected once (NVMe Base 2.0, 6.3).
            self.respond(slot, Status::COMMAND_SEQUENCE_ERROR.do_not_retry(), 0, shared);
            return;
        }
        match self.check_connect(slot, shared) {
            Err(refusal) => {
                self.respond(slot, refusal.status, u64::from(refusal.result), shared);
            }
            Ok((admission, dynamic)) => {
                self.handle(Event::ConnectRequest, shared);
                self.slots.get_mut(slot).phase = Phase::Executing;
                self.executing += 1;
                if dynamic {
                    shared.actions.push_back(GroupAction::CreateController { admission: admission.clone() });
                } else {
                    shared.actions.push_back(GroupAction::AdmitQueue { admission: admission.clone() });
                }
                self.connect = Some(Box::new(PendingConnect { slot, admission }));
            }
        }
    }

    /// Checks everything about a Connect that needs no controller; true when a controller is to be made.
    fn check_connect(&self, slot: u16, shared: &Shared) -> Result<(Admission, bool), Refusal> {
        let slot = self.slots.get(slot);
        let connect = ConnectCommand::of(&slot.command);
        let mut bytes = [0; CONNECT_DATA_BYTES as usize];
        slot.data.copy_to(0, &mut bytes);
        let data = ConnectData::read_from_bytes(&bytes[..])
            .map_err(|_| Refusal::new(Status::SGL_DATA_LENGTH_INVALID))?;
        if connect.record_format.get() != 0 {
            return Err(Refusal::new(Status::CONNECT_INCOMPATIBLE_FORMAT));
        }
        let subsystem_nqn =
            Nqn::from_field(&data.subnqn).map_err(|_| Refusal::parameter(InvalidParameter::SUBNQN))?;
        let host_nqn =
            Nqn::from_field(&data.hostnqn).map_err(|_| Refusal::parameter(InvalidParameter::HOSTNQN))?;
        if data.host_id == [0; 16] {
            return Err(Refusal::parameter(InvalidParameter::HOST_ID));
        }
        let entries = connect.entries();
        let most = match connect.qid.get() {
            // The discovery log promises so many to hosts, and they take them, whatever I/O queues may have.
            0 => shared.definition.transport.max_queue_depth.max(ADMIN_QUEUE_ENTRIES_MINIMUM),
            _ => shared.definition.transport.max_queue_depth,
        };
        if entries < 2 || entries > u32::from(most) {
            return Err(Refusal::parameter(InvalidParameter::SQSIZE));
        }
        let discovery = subsystem_nqn.as_str() == DISCOVERY_NQN;
        let dynamic = connect.qid.get() == 0;
        if !discovery {
            let found = |definition: &TargetDefinition| -> Option<Arc<SubsystemDefinition>> {
                let subsystem = definition.subsystems.get(subsystem_nqn.as_str())?;
                subsystem.listeners.iter().any(|l| l.address == self.listener).then(|| subsystem.clone())
            };
            let subsystem = found(&shared.definition)
                // The I/O queues that follow must find it on their reactors, too.
                .filter(|_| !dynamic || found(&shared.announced).is_some())
                .ok_or(Refusal::parameter(InvalidParameter::SUBNQN))?;
            if !subsystem.allows_host(host_nqn.as_str()) {
                tracing::warn!(host = host_nqn.as_str(), subsystem = subsystem_nqn.as_str(), peer = %self.peer,
                    "host is not on the subsystem's list");
                return Err(Refusal::new(Status::CONNECT_INVALID_HOST));
            }
        }
        let controller_id = data.cntlid.get();
        if dynamic && controller_id != ADMIN_CONTROLLER_DYNAMIC {
            // Controllers are made for each association; there are none to choose from (NVMe Base 2.0, 3.1.1).
            return Err(Refusal::parameter(InvalidParameter::CNTLID));
        }
        if !dynamic && discovery {
            return Err(Refusal::parameter(InvalidParameter::QID));
        }
        let admission = Admission {
            controller_id,
            queue_id: connect.qid.get(),
            // Bounded by `most`, which has 16 bits.
            entries: entries as u16,
            subsystem_nqn: subsystem_nqn.as_str().to_owned(),
            host_nqn: host_nqn.as_str().to_owned(),
            host_id: data.host_id,
            keep_alive_ms: connect.keep_alive_timeout.get(),
            flow_control_disabled: connect.connect_attributes().disable_flow_control(),
            listener: self.listener,
            local_address: self.stream.as_ref().and_then(|s| s.local_addr().ok()).unwrap_or(self.listener),
            reactor: shared.this,
            connection: self.key,
        };
        Ok((admission, dynamic))
    }

    /// The answer to a Connect that was being decided. It always comes, and until then the connection's place is
    /// kept, so that it can't reach another connection.
    pub fn connect_decided(&mut self, decision: Result<Granted, Refusal>, shared: &mut Shared) {
        let Some(pending) = self.connect.take() else { return };
        let PendingConnect { slot, admission } = *pending;
        let event = if decision.is_ok() { Event::ConnectGranted } else { Event::ConnectRefused };
        let effect = self.state.next(event).1;
        if !matches!(effect, Effect::Admit | Effect::Refuse) {
            // The connection has ended meanwhile: what was granted is given back.
            if let Ok(Granted { controller_id, owner, .. }) = decision {
                shared.actions.push_back(GroupAction::ConnectionClosed {
                    connection: self.key,
                    controller_id,
                    owner,
                    queue_id: admission.queue_id,
                });
            }
            self.slots.get_mut(slot).phase = Phase::Responding;
            self.slots.release(slot);
            return self.executed(shared);
        }
        self.handle(event, shared);
        self.executed(shared);
        match decision {
            Ok(granted) => {
                let view = shared.namespaces.view(&admission.subsystem_nqn);
                let controller_id = granted.controller_id;
                self.admit(&admission, granted, view, &shared.definition.transport);
                shared.admitted.count(admission.queue_id);
                self.respond(slot, Status::SUCCESS, u64::from(controller_id), shared);
            }
            Err(refusal) => self.respond(slot, refusal.status, u64::from(refusal.result), shared),
        }
        self.resume(shared);
    }

    fn admit(
        &mut self,
        admission: &Admission,
        granted: Granted,
        view: Option<Rc<SubsystemView>>,
        transport: &TransportOptions,
    ) {
        // With flow control, entries are free again once their commands have been taken; MAXCMD bounds those.
        let outstanding = match admission.flow_control_disabled {
            true => admission.entries,
            false => transport.max_queue_depth.max(admission.entries),
        };
        self.slots.set_limit(outstanding);
        if admission.queue_id != 0 {
            self.decoder.limit_in_capsule(transport.in_capsule_data_bytes);
        }
        self.queue = Some(Queue {
            id: admission.queue_id,
            controller_id: granted.controller_id,
            owner: granted.owner,
            view,
            subsystem_nqn: admission.subsystem_nqn.clone(),
            host_nqn: admission.host_nqn.clone(),
            entries: admission.entries,
            flow_control_disabled: admission.flow_control_disabled,
            write_cache: granted.write_cache,
            // The Connect itself took the first entry; all ones tell the host that there is no flow control.
            sqhd: if admission.flow_control_disabled { u16::MAX } else { 1 },
        });
    }

    fn property_get(&mut self, slot: u16, command: &Command, shared: &mut Shared) {
        let get = PropertyGetCommand::of(command);
        let answer = match (self.own_controller(shared), get.size()) {
            (Ok(controller), Some(size)) => controller
                .property_get(get.offset.get(), size == PropertySize::Eight)
                .map_err(|status| Fault::at(status, field::DWORD_11)),
            (Err(status), _) => Err(status.into()),
            (_, None) => Err(Fault::field(field::DWORD_10)),
        };
        match answer {
            Ok(value) => self.respond(slot, Status::SUCCESS, value, shared),
            Err(fault) => self.fail(slot, fault, 0, shared),
        }
    }

    fn property_set(&mut self, slot: u16, command: &Command, shared: &mut Shared) {
        let set = PropertySetCommand::of(command);
        let now = shared.now;
        let answer = match (self.own_controller(shared), set.size()) {
            (Ok(controller), Some(size)) => {
                let eight = size == PropertySize::Eight;
                controller.property_set(set.offset.get(), eight, set.value.get(), now).map_err(|status| {
                    let wrong_property = eight || set.offset.get() != Property::Cc.value();
                    match status.is(Status::INVALID_FIELD) {
                        true if wrong_property => Fault::at(status, field::DWORD_11),
                        true => Fault::at(status, field::DWORD_12),
                        false => status.into(),
                    }
                })
            }
            (Err(status), _) => Err(status.into()),
            (_, None) => Err(Fault::field(field::DWORD_10)),
        };
        match answer {
            Ok(()) => self.respond(slot, Status::SUCCESS, 0, shared),
            Err(fault) => self.fail(slot, fault, 0, shared),
        }
        self.after_controller(shared);
    }
}
