//! What the tests of the controller share: a target with one subsystem, and a host that drives a controller of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use sledge_nvme::io::Geometry;
use sledge_nvme::property::{Configuration, ControllerStatus, Property};
use sledge_nvme::{Command, Status};
use sledge_reactor::time::Instant;

use super::{Action, Controller, ControllerIdentity, Outcome, Transfer};
use crate::target::definition::{
    DISCOVERY_NQN, ListenerDefinition, NamespaceDefinition, SubsystemDefinition, TargetDefinition,
    TransportOptions,
};
use crate::target::statistics::SubsystemStatistics;

pub const NQN: &str = "nqn.2026-01.io.sledge:test";
pub const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6";
pub const CONTROLLER_ID: u16 = 5;

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub const fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

pub fn namespace(nsid: u32) -> NamespaceDefinition {
    NamespaceDefinition {
        nsid,
        instance: u64::from(nsid) + 100,
        opening: 0,
        device_name: format!("device{nsid}"),
        geometry: Geometry::new(1000 * u64::from(nsid), 512),
        uuid: [nsid as u8; 16],
        nguid: [0; 16],
        eui64: [0; 8],
        ana_group: 1,
        volatile_write_cache: false,
        deallocates: true,
        deallocated_reads_zeroes: true,
        open_channel: Arc::new(|| Err("tests do no I/O".into())),
    }
}

pub fn subsystem(nsids: &[u32]) -> SubsystemDefinition {
    SubsystemDefinition {
        nqn: NQN.into(),
        serial_number: "SLEDGE0001".into(),
        model_number: "Sledge test".into(),
        allow_any_host: true,
        hosts: BTreeSet::new(),
        namespaces: nsids.iter().map(|&nsid| (nsid, namespace(nsid))).collect(),
        max_namespaces: 32,
        listeners: vec![ListenerDefinition {
            address: address("127.0.0.1:4420"),
            ana_states: BTreeMap::new(),
        }],
        ana_reporting: false,
        controller_ids: (1, 0xffef),
        statistics: Arc::new(SubsystemStatistics::new(2)),
    }
}

pub fn target(subsystems: impl IntoIterator<Item = SubsystemDefinition>) -> TargetDefinition {
    TargetDefinition {
        generation: 7,
        subsystems: subsystems
            .into_iter()
            .map(|subsystem| (subsystem.nqn.clone(), Arc::new(subsystem)))
            .collect(),
        ..TargetDefinition::default()
    }
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: Status,
    pub result: u64,
    pub data: Vec<u8>,
}

impl Answer {
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.data[at..at + 2].try_into().unwrap())
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.data[at..at + 4].try_into().unwrap())
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.data[at..at + 8].try_into().unwrap())
    }

    pub fn u128(&self, at: usize) -> u128 {
        u128::from_le_bytes(self.data[at..at + 16].try_into().unwrap())
    }
}

/// A controller, the target that it belongs to and the time.
pub struct Fixture {
    pub controller: Controller,
    pub target: TargetDefinition,
    pub now: Instant,
}

impl Fixture {
    /// A controller that is not enabled.
    pub fn connect(target: TargetDefinition, discovery: bool, keep_alive_ms: u32) -> Self {
        let subsystem = target.subsystems.get(NQN).cloned().filter(|_| !discovery);
        let identity = ControllerIdentity {
            controller_id: CONTROLLER_ID,
            host_nqn: HOST.into(),
            host_id: [0xab; 16],
            subsystem,
            subsystem_nqn: if discovery { DISCOVERY_NQN } else { NQN }.into(),
            listener: address("127.0.0.1:4420"),
            local_address: address("127.0.0.1:4420"),
            keep_alive_ms,
            admin_queue_entries: 32,
            disable_sq_flow_control: false,
        };
        let controller = Controller::new(identity, TransportOptions::default(), at(0));
        Self { controller, target, now: at(0) }
    }

    /// An enabled controller of a subsystem.
    pub fn of(subsystem: SubsystemDefinition) -> Self {
        let mut fixture = Self::connect(target([subsystem]), false, 0);
        fixture.enable();
        fixture
    }

    /// An enabled controller of a subsystem with namespaces.
    pub fn ready(nsids: &[u32]) -> Self {
        Self::of(subsystem(nsids))
    }

    /// An enabled discovery controller.
    pub fn discovery(target: TargetDefinition) -> Self {
        let mut fixture = Self::connect(target, true, 0);
        fixture.enable();
        fixture
    }

    pub fn enable(&mut self) {
        assert_eq!(self.write_cc(Configuration::ENABLE_NVM.bits()), Ok(()));
        assert!(self.controller.is_ready());
    }

    pub fn write_cc(&mut self, value: u32) -> Result<(), Status> {
        self.controller.property_set(Property::Cc.value(), false, value.into(), self.now)
    }

    pub fn csts(&self) -> ControllerStatus {
        let value = self.controller.property_get(Property::Csts.value(), false).unwrap();
        ControllerStatus::from_bits(u32::try_from(value).unwrap())
    }

    /// Executes a command with data from the host.
    pub fn execute_with(&mut self, command: &Command, data: &[u8]) -> Outcome {
        let mut reply = self.reply_of(command);
        self.controller.execute(command, data, &mut reply, &self.target, self.now)
    }

    fn reply_of(&self, command: &Command) -> Vec<u8> {
        match Controller::transfer(command) {
            // Not zeroed, so that a reply that is not filled shows.
            Transfer::ControllerToHost(bytes) => vec![0xee; bytes as usize],
            Transfer::HostToController(_) | Transfer::None => Vec::new(),
        }
    }

    /// Executes a command that is answered at once.
    pub fn run(&mut self, command: &Command) -> Answer {
        self.run_with(command, &[])
    }

    /// Executes a command with data from the host that is answered at once.
    pub fn run_with(&mut self, command: &Command, input: &[u8]) -> Answer {
        let mut data = self.reply_of(command);
        match self.controller.execute(command, input, &mut data, &self.target, self.now) {
            Outcome::Done { result, reply_bytes } => {
                assert_eq!(reply_bytes, data.len());
                Answer { status: Status::SUCCESS, result, data }
            }
            Outcome::Failed(fault) => Answer { status: fault.status, result: 0, data: Vec::new() },
            other => panic!("{command:?} came to {other:?}"),
        }
    }

    /// The status of a command.
    pub fn status(&mut self, command: &Command) -> Status {
        self.run(command).status
    }

    /// The reply of a command that succeeds.
    pub fn read(&mut self, command: &Command) -> Answer {
        let answer = self.run(command);
        assert_eq!(answer.status, Status::SUCCESS, "{command:?}");
        answer
    }

    /// Leaves an Asynchronous Event Request with the controller.
    pub fn request_event(&mut self, cid: u16) -> Outcome {
        self.execute_with(&Command::async_event_request().with_cid(cid), &[])
    }

    /// Everything that the controller wants done.
    pub fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.controller.next_action()).collect()
    }

    /// Replaces the target's definition.
    pub fn change(&mut self, new: TargetDefinition) {
        self.target = TargetDefinition { generation: self.target.generation + 1, ..new };
        let subsystem = self.target.subsystems.get(NQN).filter(|_| !self.controller.is_discovery()).cloned();
        self.controller.definition_changed(subsystem.as_ref(), &self.target, self.now);
    }
}

/// The answer to a request that was held, when an event is reported.
pub const fn event(cid: u16, result: u64) -> Action {
    Action::CompleteHeld { cid, result, status: Status::SUCCESS }
}
