//! The seconds of a job, put together from those of its reactors.
//!
//! Invariant: histograms are kept only of seconds that some reactor has not ended yet, so that a long run takes
//! little memory.

use super::meter::Counts;
use crate::histogram::Latencies;
use crate::results::Second;
use crate::workload::DIRECTIONS;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The seconds of a job.
#[derive(Debug)]
pub struct Series {
    reactors: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ended: Vec<Second>,
    open: VecDeque<Open>,
}

/// A second that some reactors have ended.
#[derive(Debug)]
struct Open {
    parts: usize,
    length: Duration,
    latencies: Latencies,
    ios: [u64; DIRECTIONS],
    bytes: [u64; DIRECTIONS],
}

impl Series {
    /// Of a job on so many reactors.
    pub fn new(reactors: usize) -> Self {
        Self { reactors, state: Mutex::default() }
    }

    /// A reactor's second number `index`. Returns the whole second when this was its last part.
    pub fn add(&self, index: usize, length: Duration, counts: &Counts) -> Option<Second> {
        let mut state = self.lock();
        let place = index.checked_sub(state.ended.len())?;
        while state.open.len() <= place {
            let latencies = Latencies::new();
            let open = Open {
                parts: 0,
                length: Duration::ZERO,
                latencies,
                ios: [0; DIRECTIONS],
                bytes: [0; DIRECTIONS],
            };
            state.open.push_back(open);
        }
        let open = &mut state.open[place];
        open.parts += 1;
        open.length = open.length.max(length);
        for kind in 0..DIRECTIONS {
            open.latencies.merge(&counts.latencies[kind]);
            open.ios[kind] += counts.latencies[kind].count();
            open.bytes[kind] += counts.bytes[kind];
        }
        let mut latest = None;
        while state.open.front().is_some_and(|open| open.parts == self.reactors) {
            let Some(open) = state.open.pop_front() else { break };
            let second = open.close();
            state.ended.push(second.clone());
            latest = Some(second);
        }
        latest
    }

    /// All seconds, those which only some reactors reached included.
    pub fn seconds(&self) -> Vec<Second> {
        let state = self.lock();
        state.ended.iter().cloned().chain(state.open.iter().map(Open::close)).collect()
    }

    /// What `of` says of the seconds that all reactors have ended.
    pub fn ended<T>(&self, of: impl FnOnce(&[Second]) -> T) -> T {
        of(&self.lock().ended)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain values: usable also if another reactor panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn close(&self) -> Second {
        Second {
            length: self.length,
            ios: self.ios,
            bytes: self.bytes,
            p50_ns: self.latencies.quantile(0.5),
            p99_ns: self.latencies.quantile(0.99),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::meter::Meter;
    use super::*;
    use crate::workload::Kind;

    fn second(kind: Kind, latency: u64) -> Counts {
        let mut meter = Meter::new();
        (0..10).for_each(|_| meter.record(kind, latency, 4096));
        meter.end_second(|_| ());
        meter.total().clone()
    }

    // Without it the per-second series could mix up seconds of reactors that are not in step.
    #[test]
    fn seconds_of_two_reactors_add_up() {
        let series = Series::new(2);
        let whole = Duration::from_secs(1);
        assert_eq!(series.add(0, whole, &second(Kind::Read, 100)), None);
        assert_eq!(series.add(1, whole, &second(Kind::Read, 300)), None);
        let first = series.add(0, whole, &second(Kind::Write, 1000)).unwrap();
        assert_eq!((first.ios, first.bytes), ([10, 10, 0, 0], [40_960, 40_960, 0, 0]));
        assert!((99..102).contains(&first.p50_ns) && (980..1020).contains(&first.p99_ns), "{first:?}");
        let all = series.seconds();
        assert_eq!((all.len(), all[1].ios, all[1].length), (2, [10, 0, 0, 0], whole));
    }
}
