//! Get Features and Set Features (Base 5.15 and 5.27).
//!
//! Owns the values of one controller's features. Invariant: a value that Get Features returns is one that Set
//! Features accepted, or the default; nothing is saveable, so a reset brings every default back.

use sledge_nvme::command::BROADCAST_NSID;
use sledge_nvme::feature::{
    Arbitration, AsyncEventConfiguration, ErrorRecovery, Feature, FeatureCapabilities, HostBehavior,
    HostIdentifierFormat, NumberOfQueues, PowerManagement, Select, TemperatureThreshold, Timestamp,
    VolatileWriteCache, WriteAtomicity,
};
use sledge_nvme::{Command, Status};
use sledge_reactor::time::Instant;
use zerocopy::{FromBytes, IntoBytes};

use super::events::EventKind;
use super::{Controller, Outcome, Transfer, keep_alive};
use crate::target::fault::{Fault, field};

/// FID: no such feature.
const INVALID_FEATURE: Fault = Fault::field(field::DWORD_10);
/// A value that the feature can't have.
const INVALID_VALUE: Fault = Fault::field(field::DWORD_11);
/// The data is wrong, not a field.
const INVALID_DATA: Status = Status::INVALID_FIELD.do_not_retry();
/// SEL, of Get Features.
const INVALID_SELECT: Fault = Fault::field(field::DWORD_10 + 1);
/// SV, the last bit of Set Features' dword 10.
const NOT_SAVEABLE: Fault = Fault::at_bit(Status::FEATURE_NOT_SAVEABLE, field::DWORD_10 + 3, 7);

/// Bytes of a Host Identifier; Fabrics knows only the long form (Base 5.27.1.25).
const HOST_IDENTIFIER_BYTES: u32 = 16;

/// Arbitration Burst that means no limit (Base 5.27.1.1).
const NO_BURST_LIMIT: u8 = 7;
/// Over temperature threshold that never triggers (Base 5.27.1.3).
const OVER_TEMPERATURE_DEFAULT: u16 = 0xffff;
/// SMART critical warnings that a host may ask events for (Base 5.27.1.8, bits 5:0).
const CRITICAL_WARNINGS: u32 = 0x3f;

/// A moment of the host's clock.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// Milliseconds since the start of 1970 when it was set; 48 bits.
    milliseconds: u64,
    set_at: Instant,
}

/// The values of one controller's features.
#[derive(Debug)]
pub(super) struct Features {
    arbitration: Arbitration,
    power_management: PowerManagement,
    over_temperature: u16,
    under_temperature: u16,
    error_recovery: ErrorRecovery,
    write_cache: bool,
    write_atomicity: WriteAtomicity,
    async_events: AsyncEventConfiguration,
    queues: Option<u16>,
    clock: Option<Clock>,
    host_behavior: HostBehavior,
}

impl Features {
    /// Every feature at its default.
    pub fn new(discovery: bool) -> Self {
        Self {
            arbitration: Arbitration::default().with_burst(NO_BURST_LIMIT),
            power_management: PowerManagement::default(),
            over_temperature: OVER_TEMPERATURE_DEFAULT,
            under_temperature: 0,
            error_recovery: ErrorRecovery::default(),
            write_cache: true,
            write_atomicity: WriteAtomicity::default(),
            async_events: AsyncEventConfiguration::from_bits(supported_events(discovery, true)),
            queues: None,
            clock: None,
            host_behavior: HostBehavior::new(),
        }
    }

    /// Asynchronous Event Configuration: the bits of the events that the host wants.
    pub fn async_events(&self) -> u32 {
        self.async_events.bits()
    }

    /// I/O queues that Set Features Number of Queues granted, once the host has asked.
    pub fn queues(&self) -> Option<u16> {
        self.queues
    }

    /// Whether the volatile write cache is enabled.
    pub fn write_cache(&self) -> bool {
        self.write_cache
    }
}

/// Events that can be enabled besides critical warnings, as bits of OAES and of Asynchronous Event Configuration.
pub(super) fn supported_events(discovery: bool, ana: bool) -> u32 {
    match (discovery, ana) {
        (true, _) => EventKind::DiscoveryLog.bit(),
        (false, true) => EventKind::NamespaceAttribute.bit() | EventKind::AnaChange.bit(),
        (false, false) => EventKind::NamespaceAttribute.bit(),
    }
}

/// What can be done with a feature; all that are supported can be read, and none can be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Support {
    /// Whether Set Features works.
    pub changeable: bool,
    /// Whether each namespace has its own value.
    pub namespace_specific: bool,
}

/// What a controller can do with a feature; `None` when it does not support it.
pub(super) fn support(feature: Feature, discovery: bool) -> Option<Support> {
    let support = |changeable, namespace_specific| Some(Support { changeable, namespace_specific });
    match feature {
        Feature::AsyncEventConfiguration | Feature::KeepAliveTimer => support(true, false),
        _ if discovery => None,
        Feature::Arbitration
        | Feature::PowerManagement
        | Feature::TemperatureThreshold
        | Feature::ErrorRecovery
        | Feature::VolatileWriteCache
        | Feature::NumberOfQueues
        | Feature::WriteAtomicityNormal
        | Feature::Timestamp
        | Feature::HostBehaviorSupport => support(true, false),
        Feature::HostIdentifier => support(false, false),
        _ => None,
    }
}

/// The data that Get Features or Set Features moves.
pub(super) fn transfer(command: &Command, set: bool) -> Transfer {
    let bytes = match Feature::from_value(command.feature_identifier()) {
        Some(Feature::Timestamp) => size_of::<Timestamp>() as u32,
        Some(Feature::HostBehaviorSupport) => size_of::<HostBehavior>() as u32,
        Some(Feature::HostIdentifier) => HOST_IDENTIFIER_BYTES,
        _ => return Transfer::None,
    };
    match Select::from_value(command.feature_select()) {
        _ if set => Transfer::HostToController(bytes),
        Some(Select::Current | Select::Default | Select::Saved) => Transfer::ControllerToHost(bytes),
        Some(Select::SupportedCapabilities) | None => Transfer::None,
    }
}

impl Controller {
    /// Get Features.
    pub(super) fn get_features(
        &self,
        command: &Command,
        reply: &mut [u8],
        now: Instant,
    ) -> Result<Outcome, Fault> {
        let feature = Feature::from_value(command.feature_identifier()).ok_or(INVALID_FEATURE)?;
        let support = support(feature, self.is_discovery()).ok_or(INVALID_FEATURE)?;
        let defaults;
        let (values, current) = match Select::from_value(command.feature_select()).ok_or(INVALID_SELECT)? {
            Select::Current => (&self.features, true),
            // A feature that cannot be saved has its default for its saved value.
            Select::Default | Select::Saved => {
                defaults = Features::new(self.is_discovery());
                (&defaults, false)
            }
            Select::SupportedCapabilities => {
                let capabilities = FeatureCapabilities::default()
                    .with_changeable(support.changeable)
                    .with_namespace_specific(support.namespace_specific);
                return Ok(Outcome::done(capabilities.bits().into()));
            }
        };
        let result = match feature {
            Feature::Arbitration => values.arbitration.bits(),
            Feature::PowerManagement => values.power_management.bits(),
            Feature::TemperatureThreshold => match threshold(command)? {
                Threshold::Over => values.over_temperature.into(),
                Threshold::Under => values.under_temperature.into(),
            },
            Feature::ErrorRecovery => values.error_recovery.bits(),
            Feature::VolatileWriteCache => {
                VolatileWriteCache::default().with_enable(values.write_cache).bits()
            }
            Feature::NumberOfQueues if current => NumberOfQueues::pairs(self.io_queues_granted()).bits(),
            Feature::NumberOfQueues => NumberOfQueues::pairs(self.io_queue_limit()).bits(),
            Feature::WriteAtomicityNormal => values.write_atomicity.bits(),
            Feature::AsyncEventConfiguration => {
                values.async_events() & (self.accepted_events() | CRITICAL_WARNINGS)
            }
            Feature::KeepAliveTimer if current => self.keep_alive.timeout_ms(),
            Feature::KeepAliveTimer => keep_alive::round_up(self.identity.keep_alive_ms),
            Feature::Timestamp => {
                fill(reply, self.timestamp(values, now).as_bytes());
                0
            }
            Feature::HostBehaviorSupport => {
                fill(reply, values.host_behavior.as_bytes());
                0
            }
            Feature::HostIdentifier => {
                require(HostIdentifierFormat::from_bits(command.feature_value()).extended())?;
                fill(reply, &self.identity.host_id);
                0
            }
            _ => return Err(INVALID_FEATURE),
        };
        Ok(Outcome::Done { result: result.into(), reply_bytes: reply.len() })
    }

    /// Set Features.
    pub(super) fn set_features(
        &mut self,
        command: &Command,
        data: &[u8],
        now: Instant,
    ) -> Result<Outcome, Fault> {
        let feature = Feature::from_value(command.feature_identifier()).ok_or(INVALID_FEATURE)?;
        let support = support(feature, self.is_discovery()).ok_or(INVALID_FEATURE)?;
        if command.feature_save() {
            return Err(NOT_SAVEABLE);
        }
        if !matches!(command.nsid.get(), 0 | BROADCAST_NSID) && !support.namespace_specific {
            return Err(Fault::at(Status::FEATURE_NOT_NAMESPACE_SPECIFIC, field::NSID));
        }
        let value = command.feature_value();
        match feature {
            // Commands are executed as they come, so that the weights and the burst make no difference.
            Feature::Arbitration => self.features.arbitration = Arbitration::from_bits(value & 0xffff_ff07),
            // There is one power state, 0, and no workload hint makes a difference.
            Feature::PowerManagement => {
                let wanted = PowerManagement::from_bits(value & 0xff);
                require(wanted.power_state() == 0)?;
                self.features.power_management = wanted;
            }
            Feature::TemperatureThreshold => {
                let kelvins = TemperatureThreshold::from_bits(value).kelvins();
                match threshold(command)? {
                    Threshold::Over => self.features.over_temperature = kelvins,
                    Threshold::Under => self.features.under_temperature = kelvins,
                }
            }
            // DULBE needs namespaces that report deallocated blocks as errors; there are none.
            Feature::ErrorRecovery => {
                let wanted = ErrorRecovery::from_bits(value & 0x1_ffff);
                require(!wanted.deallocated_error())?;
                self.features.error_recovery = wanted;
            }
            Feature::VolatileWriteCache => {
                self.features.write_cache = VolatileWriteCache::from_bits(value).enable();
            }
            Feature::NumberOfQueues => return self.set_number_of_queues(NumberOfQueues::from_bits(value)),
            Feature::WriteAtomicityNormal => {
                self.features.write_atomicity = WriteAtomicity::from_bits(value & 1);
            }
            Feature::AsyncEventConfiguration => {
                require(value & !(self.accepted_events() | CRITICAL_WARNINGS) == 0)?;
                self.features.async_events = AsyncEventConfiguration::from_bits(value);
                for kind in EventKind::ALL.into_iter().filter(|kind| value & kind.bit() == 0) {
                    self.events.clear(kind);
                }
            }
            Feature::KeepAliveTimer => self.keep_alive.set_timeout(value, now),
            Feature::Timestamp => {
                let (timestamp, _) = Timestamp::read_from_prefix(data).map_err(|_| INVALID_DATA)?;
                self.features.clock = Some(Clock { milliseconds: timestamp.get(), set_at: now });
            }
            Feature::HostBehaviorSupport => {
                let (wanted, _) = HostBehavior::read_from_prefix(data).map_err(|_| INVALID_DATA)?;
                // What the other fields would enable is not offered by Identify Controller.
                let honoured = HostBehavior { acre: wanted.acre, ..HostBehavior::new() };
                if wanted.acre > 1 || wanted != honoured {
                    return Err(INVALID_DATA.into());
                }
                self.features.host_behavior = honoured;
            }
            // Connect has set it, and over Fabrics nothing else may (Base 5.27.1.25).
            Feature::HostIdentifier => return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry().into()),
            _ => return Err(INVALID_FEATURE),
        }
        Ok(Outcome::done(0))
    }

    /// Number of Queues (Base 5.27.1.5): before any I/O queue exists.
    fn set_number_of_queues(&mut self, wanted: NumberOfQueues) -> Result<Outcome, Fault> {
        let (submission, completion) = (wanted.submission_minus_one(), wanted.completion_minus_one());
        require(submission != 0xffff && completion != 0xffff)?;
        if !self.io_queues.is_empty() {
            return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry().into());
        }
        // Over Fabrics a submission queue and its completion queue are one pair.
        let granted = (submission.min(completion) + 1).min(self.io_queue_limit());
        self.features.queues = Some(granted);
        Ok(Outcome::done(NumberOfQueues::pairs(granted).bits().into()))
    }

    /// Bits of events that this controller can report.
    pub(super) fn accepted_events(&self) -> u32 {
        let ana = self.identity.subsystem.as_ref().is_some_and(|subsystem| subsystem.ana_reporting);
        supported_events(self.is_discovery(), ana)
    }

    /// A clock that goes on from what the host set, or from the controller's start.
    fn timestamp(&self, values: &Features, now: Instant) -> Timestamp {
        let (start, since) =
            values.clock.map_or((0, self.created), |clock| (clock.milliseconds, clock.set_at));
        // `Timestamp` keeps 48 bits: 8,900 years.
        Timestamp::new(start.wrapping_add((now - since).as_millis() as u64), values.clock.is_some())
    }
}

enum Threshold {
    Over,
    Under,
}

/// The temperature threshold that a command selects: of the composite temperature (0) or of all sensors (15), as there
/// are no others.
fn threshold(command: &Command) -> Result<Threshold, Fault> {
    let selected = TemperatureThreshold::from_bits(command.feature_value());
    if !matches!(selected.sensor(), 0 | 15) {
        return Err(Fault::field(field::DWORD_11 + 2));
    }
    match selected.kind() {
        0 => Ok(Threshold::Over),
        1 => Ok(Threshold::Under),
        _ => Err(Fault::field_bit(field::DWORD_11 + 2, 4)),
    }
}

fn require(condition: bool) -> Result<(), Fault> {
    if condition { Ok(()) } else { Err(INVALID_VALUE) }
}

/// Fills the reply with a structure, zeros after it.
fn fill(reply: &mut [u8], bytes: &[u8]) {
    reply.fill(0);
    for (to, from) in reply.iter_mut().zip(bytes) {
        *to = *from;
    }
}
