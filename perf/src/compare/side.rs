//! One side of a comparison, and its turns.
//!
//! Each turn is a process of its own, of the limit as of a host: it has connections, memory and a place in the caches
//! of its own, so that one unlucky layout spoils one turn and not a whole comparison.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::options::{CompareOptions, HostCores, Load, Metric, Side, Wait};
use super::process::{ProcessError, Ready, StartedTarget, run_self};
use crate::job::Target;
use crate::limit::Core;

/// Time that a turn may take besides ramp and measurement.
const SPARE: Duration = Duration::from_secs(60);

/// Why a side could not have its turn.
#[derive(Debug, thiserror::Error)]
pub enum SideError {
    /// A process failed.
    #[error("{0}")]
    Process(#[from] ProcessError),
    /// What the host printed lacks something.
    #[error("the report of a turn has no {0}")]
    Report(&'static str),
    /// Options that don't go together.
    #[error("{0}")]
    Options(String),
}

/// What one turn measured, in the order of [`Metric::ALL`]: I/Os and bytes a second, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Sample {
    iops: f64,
    bytes_per_second: f64,
    mean_ns: f64,
    p50_ns: f64,
    p90_ns: f64,
    p99_ns: f64,
    p99_9_ns: f64,
}

/// One side, ready for turns.
#[derive(Debug)]
pub struct Player {
    arguments: Vec<String>,
    start: Option<(String, Ready)>,
    real_time: bool,
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
            Side::Limit => limit_arguments(other, load, options)?,
            Side::Target(target) => host_arguments(target, load, options)?,
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
            (Some(_), Side::Limit) => {
                return Err(SideError::Options("the limit needs no command to start it".into()));
            }
            (Some(line), Side::Target(Target::NvmeTcp(target))) => {
                Some((line.to_owned(), Ready::Port(SocketAddr::new(target.traddr, target.trsvcid))))
            }
            (Some(line), Side::Target(Target::File { path, .. })) => {
                Some((line.to_owned(), Ready::File(path.clone())))
            }
        };
        let time = Duration::from_secs_f64(options.ramp + options.round_time) + SPARE;
        Ok(Self { arguments, start, real_time: options.real_time, time })
    }

    /// Has one turn.
    ///
    /// # Errors
    /// When the target doesn't start, or the host fails.
    pub fn turn(&self) -> Result<Sample, SideError> {
        let target = match &self.start {
            Some((line, ready)) => Some(StartedTarget::start(line, ready, self.real_time)?),
            None => None,
        };
        let output = run_self(&self.arguments, self.real_time, self.time)?;
        drop(target);
        Sample::read(&output)
    }
}

fn limit_arguments(other: &Side, load: &Load, options: &CompareOptions) -> Result<Vec<String>, SideError> {
    let client = match &options.cores {
        HostCores::Any => "any".to_owned(),
        HostCores::List(list) if list.count() == 1 => list.to_string(),
        HostCores::List(list) => {
            return Err(SideError::Options(format!("the limit asks on one core, and --cores is {list}")));
        }
    };
    let server = match options.server_core {
        Core::Any => "any".to_owned(),
        Core::Number(number) => number.to_string(),
    };
    let mut words: Vec<String> =
        ["limit", "--json", "--server-core", &server, "--client-core", &client].map(str::to_owned).into();
    if let Some(queues) = load.queues {
        words.extend(["--connections".to_owned(), queues.to_string()]);
    }
    // The limit moves the bytes of what it is compared with.
    if let Side::Target(Target::NvmeTcp(target)) = other {
        digests(&mut words, target.header_digest, target.data_digest);
    }
    Ok(words)
}

fn host_arguments(target: &Target, load: &Load, options: &CompareOptions) -> Result<Vec<String>, SideError> {
    let HostCores::List(cores) = &options.cores else {
        return Err(SideError::Options("--cores any is for the limit only".into()));
    };
    let mut words: Vec<String> = ["run", "--json"].map(str::to_owned).into();
    let mut put = |name: &str, value: String| words.extend([format!("--{name}"), value]);
    put("target", target.to_string());
    put("cores", cores.to_string());
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

impl Sample {
    /// Reads the report that `run --json` or `limit --json` prints.
    fn read(output: &[u8]) -> Result<Self, SideError> {
        let report: Value = serde_json::from_slice(output).map_err(|_| SideError::Report("JSON"))?;
        let total = &report["total"];
        let number = |value: &Value, name| value.as_f64().ok_or(SideError::Report(name));
        // Latency over both directions, if there are two.
        let latency = [total, &report["read"], &report["write"]]
            .into_iter()
            .map(|part| &part["latency_ns"])
            .find(|latency| latency.is_object())
            .ok_or(SideError::Report("latency"))?;
        Ok(Self {
            iops: number(&total["iops"], "iops")?,
            bytes_per_second: number(&total["bytes_per_second"], "bandwidth")?,
            mean_ns: number(&latency["mean"], "mean")?,
            p50_ns: number(&latency["p50"], "p50")?,
            p90_ns: number(&latency["p90"], "p90")?,
            p99_ns: number(&latency["p99"], "p99")?,
            p99_9_ns: number(&latency["p99_9"], "p99_9")?,
        })
    }

    /// One of its values.
    pub fn get(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Iops => self.iops,
            Metric::Bandwidth => self.bytes_per_second,
            Metric::Mean => self.mean_ns,
            Metric::P50 => self.p50_ns,
            Metric::P90 => self.p90_ns,
            Metric::P99 => self.p99_ns,
            Metric::P99_9 => self.p99_9_ns,
        }
    }
}
