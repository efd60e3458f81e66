//! One side of a comparison, and its turns.
//!
//! Each turn is a process of its own, of the limit as of a host: it has connections, memory and a place in the caches
//! of its own, so that one unlucky layout spoils one turn and not a whole comparison.

use std::net::SocketAddr;
use std::time::Duration;

use super::options::{CompareOptions, HostCores, Load, Side, Wait};
use super::process::{ProcessError, Ready, StartedTarget, run_self};
use super::sample::{Sample, Unreadable};
use crate::job::Target;
use crate::limit::Core;

/// Time that a turn may take besides ramp and measurement.
const SPARE: Duration = Duration::from_secs(60);

/// Core of a host that is told none.
const HOST_CORE: usize = 1;

/// Times that a turn is had in which no I/O ended, before that is an error.
const ATTEMPTS: u32 = 10;

/// Why a side could not have its turn.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// A process failed.
    #[error("{0}")]
    Process(#[from] ProcessError),
    /// What the host printed lacks something.
    #[error("{0}")]
    Report(#[from] Unreadable),
    /// Options that don't go together.
    #[error("{0}")]
    Options(String),
}

/// One side, ready for turns.
#[derive(Debug)]
pub struct Player {
    arguments: Vec<String>,
    start: Option<(String, Ready)>,
    nice: Option<i8>,
    time: Duration,
}

impl Player {
    /// A side with its load; `other` is the side it is compared with.
    ///
    /// # Errors
    /// When the options don't fit it.
    pub fn new(
        side: &Side,
        other: &Side,
        load: &Load,
        start: Option<&str>,
        options: &CompareOptions,
    ) -> Result<Self, SideError> {
        let mut arguments = match side {
            Side::Limit { own_buffers } => limit_arguments(*own_buffers, other, load, options)?,
            Side::Target(target) => host_arguments(target, load)?,
        };
        let mut put = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        put("time", options.round_time.to_string());
        put("ramp", options.ramp.to_string());
        if let Some(mode) = load.rw {
            put("rw", mode.name().to_owned());
        }
        if let Some(percent) = load.rwmix {
            put("rwmix", percent.to_string());
        }
        if let Some(bytes) = load.bs {
            put("bs", bytes.to_string());
        }
        if let Some(depth) = load.iodepth {
            put("iodepth", depth.to_string());
        }
        let start = match (start, side) {
            (None, _) => None,
            (Some(_), Side::Limit { .. }) => {
                return Err(SideError::Options("the limit needs no command to start it".into()));
            }
            (Some(line), Side::Target(Target::NvmeTcp(target))) => {
                Some((line.to_owned(), Ready::Port(SocketAddr::new(target.traddr, target.trsvcid))))
            }
            (Some(_), Side::Target(Target::Pcie(_))) => {
                return Err(SideError::Options(
                    "a controller of this machine needs no command to start it".into(),
                ));
            }
            (Some(line), Side::Target(Target::File { path, .. })) => {
                Some((line.to_owned(), Ready::File(path.clone())))
            }
        };
        let time = Duration::from_secs_f64(options.ramp + options.round_time) + SPARE;
        Ok(Self { arguments, start, nice: options.nice, time })
    }

    /// Has one turn.
    ///
    /// # Errors
    /// When the target doesn't start, or the host fails.
    pub fn turn(&self) -> Result<Sample, SideError> {
        let target = match &self.start {
            Some((line, ready)) => Some(StartedTarget::start(line, ready, self.nice)?),
            None => None,
        };
        let mut arguments = self.arguments.clone();
        let is_named =
            |word: &String| word.starts_with("--target-pid") || word.starts_with("--target-socket");
        if let Some(target) = target.as_ref().filter(|_| !arguments.iter().any(is_named)) {
            arguments.extend(["--target-pid".to_owned(), target.pid().to_string()]);
        }
        let mut attempt = 1;
        let sample = loop {
            match Sample::read(&run_self(&arguments, self.nice, self.time)?) {
                // Something else had the cores all the time: that says nothing of this side.
                Err(Unreadable::NoIo) if attempt < ATTEMPTS => attempt += 1,
                outcome => break outcome,
            }
        };
        drop(target);
        Ok(sample?)
    }
}

fn limit_arguments(
    own_buffers: bool,
    other: &Side,
    load: &Load,
    options: &CompareOptions,
) -> Result<Vec<String>, SideError> {
    let client = match &load.cores {
        None => HOST_CORE.to_string(),
        Some(HostCores::Any) => "any".to_owned(),
        Some(HostCores::List(list)) if list.count() == 1 => list.to_string(),
        Some(HostCores::List(list)) => {
            return Err(SideError::Options(format!("the limit asks on one core, and --cores is {list}")));
        }
    };
    let server = match options.server_core {
        Core::Any => "any".to_owned(),
        Core::Number(number) => number.to_string(),
    };
    let mut words: Vec<String> =
        ["limit", "--json", "--server-core", &server, "--client-core", &client].map(str::to_owned).into();
    if own_buffers {
        words.push("--own-buffers".to_owned());
    }
    if let Some(queues) = load.queues {
        words.extend(["--connections".to_owned(), queues.to_string()]);
    }
    // The limit moves the bytes of what it is compared with.
    if let Side::Target(Target::NvmeTcp(target)) = other {
        digests(&mut words, target.header_digest, target.data_digest);
    }
    Ok(words)
}

fn host_arguments(target: &Target, load: &Load) -> Result<Vec<String>, SideError> {
    let cores = match &load.cores {
        None => HOST_CORE.to_string(),
        Some(HostCores::List(cores)) => cores.to_string(),
        Some(HostCores::Any) => return Err(SideError::Options("--cores any is for the limit only".into())),
    };
    let mut words: Vec<String> = ["run", "--json"].map(str::to_owned).into();
    let mut put = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    put("target", target.to_string());
    put("cores", cores);
    if let Some(queues) = load.queues {
        put("queues", queues.to_string());
    }
    if load.wait != Some(Wait::Adaptive) {
        words.push("--busy".into());
    }
    if let Some(more) = &load.run_options {
        words.extend(more.split_whitespace().map(str::to_owned));
    }
    Ok(words)
}

fn digests(words: &mut Vec<String>, header: bool, data: bool) {
    let named = [(header, "--header-digest"), (data, "--data-digest")];
    words.extend(named.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned()));
}
