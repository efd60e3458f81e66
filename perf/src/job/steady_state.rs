//! When a job ends because its rate is steady, in fio's words.

use std::time::Duration;

use serde::Serialize;

/// When a rate is steady: no job ends by it before the window is full.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SteadyState {
    /// What has to be steady.
    pub rate: SteadyRate,
    /// Whether it is the slope of the line of best fit that must stay below the limit, a second; else it is the
    /// distance of every second from the mean.
    pub slope: bool,
    /// The limit.
    pub limit: f64,
    /// Whether the limit is a percentage of the mean.
    pub percent: bool,
    /// Time that is looked at.
    pub window: Duration,
    /// Measured time before the first window begins.
    pub after: Duration,
}

/// A rate that may be steady.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SteadyRate {
    /// I/Os a second.
    Iops,
    /// Bytes a second.
    Bandwidth,
}

impl SteadyState {
    /// Reads what fio's `steadystate` takes, such as `iops:2%` or `bw_slope:0.1%`, for a window of 10 seconds.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is none of iops:LIMIT, iops_slope:LIMIT, bw:LIMIT, bw_slope:LIMIT");
        let (what, limit) = text.split_once(':').ok_or_else(wrong)?;
        let (rate, slope) = match what {
            "iops" => (SteadyRate::Iops, false),
            "iops_slope" => (SteadyRate::Iops, true),
            "bw" => (SteadyRate::Bandwidth, false),
            "bw_slope" => (SteadyRate::Bandwidth, true),
            _ => return Err(wrong()),
        };
        let number = limit.strip_suffix('%').unwrap_or(limit);
        let percent = number.len() < limit.len();
        let limit = number.parse::<f64>().ok().filter(|limit| *limit > 0.0 && limit.is_finite());
        let limit = limit.ok_or_else(|| format!("{text:?}: {number:?} is not a limit above zero"))?;
        Ok(Self { rate, slope, limit, percent, window: Duration::from_secs(10), after: Duration::ZERO })
    }

    /// As [`SteadyState::parse`] reads it.
    pub fn name(&self) -> String {
        let rate = match self.rate {
            SteadyRate::Iops => "iops",
            SteadyRate::Bandwidth => "bw",
        };
        let (slope, percent) = (if self.slope { "_slope" } else { "" }, if self.percent { "%" } else { "" });
        format!("{rate}{slope}:{}{percent}", self.limit)
    }
}
