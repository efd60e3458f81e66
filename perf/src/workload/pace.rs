//! When the next I/O of a lane goes.
//!
//! Invariant: latency counts from the moment that [`Pace::next`] gives. In a closed loop that is when the I/O goes; in
//! an open loop it is when the I/O was due, so that an I/O which had to wait behind a slow one says so (no coordinated
//! omission). Allocates only when it is made.

use super::random::Random;
use crate::job::{Arrivals, Job};
use crate::trace::Replay;
use sledge_reactor::time::Instant;
use std::collections::VecDeque;
use std::time::Duration;

/// How a lane is paced.
#[derive(Debug)]
pub enum Pace {
    /// As soon as there is a place.
    Closed,
    /// Each place pauses after its I/O.
    Thinking {
        /// How long.
        pause: Duration,
        /// Places that pause no more.
        ready: usize,
        /// When the others will be ready, the first in front.
        wakes: VecDeque<Instant>,
    },
    /// On a schedule.
    Open(Schedule),
    /// As a trace has it.
    Trace(Replay),
}

/// Due times of an open loop.
#[derive(Debug)]
pub struct Schedule {
    /// Nanoseconds between two, on average.
    interval: f64,
    /// The first one's share of an interval, so that lanes take turns.
    phase: f64,
    start: Instant,
    /// Nanoseconds from the start to the next due time.
    next: f64,
    /// For intervals that vary.
    random: Option<Random>,
}

impl Pace {
    /// The pace of lane `index` out of `lanes` of a job.
    pub fn new(job: &Job, index: usize, lanes: usize) -> Self {
        if let Some(rate) = job.rate_iops {
            let interval = 1e9 * lanes as f64 / rate;
            let random = (job.arrivals == Arrivals::Poisson).then(|| Random::new(job.seed ^ index as u64));
            let phase = index as f64 / lanes as f64;
            return Self::Open(Schedule { interval, phase, start: Instant::default(), next: 0.0, random });
        }
        if job.think_time.is_zero() {
            return Self::Closed;
        }
        let depth = usize::from(job.depth);
        Self::Thinking { pause: job.think_time, ready: depth, wakes: VecDeque::with_capacity(depth) }
    }

    /// Load begins.
    pub fn start(&mut self, at: Instant) {
        match self {
            Self::Closed | Self::Thinking { .. } => {}
            Self::Open(schedule) => {
                schedule.start = at;
                schedule.next = match schedule.random {
                    None => schedule.interval * schedule.phase,
                    Some(_) => schedule.gap(),
                };
            }
            Self::Trace(replay) => replay.start(at),
        }
    }

    /// Whether nothing more will go, and why, if that is too early.
    pub fn end(&self) -> Option<Option<String>> {
        match self {
            Self::Closed | Self::Thinking { .. } | Self::Open(_) => None,
            Self::Trace(replay) => replay.is_over().then(|| replay.failure()),
        }
    }

    /// Whether an I/O may go at `at`: if so, from when its latency counts. The I/O has to go then.
    #[inline]
    pub fn next(&mut self, at: Instant) -> Option<Instant> {
        match self {
            Self::Closed => Some(at),
            Self::Thinking { ready, wakes, .. } => {
                while wakes.front().is_some_and(|wake| *wake <= at) {
                    wakes.pop_front();
                    *ready += 1;
                }
                *ready = ready.checked_sub(1)?;
                Some(at)
            }
            Self::Open(schedule) => {
                let due = schedule.due();
                if due > at {
                    return None;
                }
                schedule.next += schedule.gap();
                Some(due)
            }
            Self::Trace(replay) => replay.due(at),
        }
    }

    /// An I/O ended.
    #[inline]
    pub fn ended(&mut self, at: Instant) {
        if let Self::Thinking { pause, wakes, .. } = self {
            wakes.push_back(at + *pause);
        }
    }

    /// When the next I/O may go, if that has a time.
    #[inline]
    pub fn wake_at(&self) -> Option<Instant> {
        match self {
            Self::Closed => None,
            Self::Thinking { wakes, .. } => wakes.front().copied(),
            Self::Open(schedule) => Some(schedule.due()),
            Self::Trace(replay) => replay.wake_at(),
        }
    }

    /// I/Os that were due before `at` and have not gone.
    pub fn overdue(&self, at: Instant) -> u64 {
        match self {
            Self::Closed | Self::Thinking { .. } | Self::Trace(_) => 0,
            Self::Open(schedule) => {
                let late = (at - schedule.due()).as_nanos() as f64;
                if at > schedule.due() { (late / schedule.interval).ceil() as u64 } else { 0 }
            }
        }
    }
}

impl Schedule {
    #[inline]
    fn due(&self) -> Instant {
        self.start + Duration::from_nanos(self.next as u64)
    }

    /// Nanoseconds to the next due time.
    #[inline]
    fn gap(&mut self) -> f64 {
        match self.random.as_mut() {
            None => self.interval,
            Some(random) => -random.fraction().ln() * self.interval,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::job::Target;

    fn job() -> Job {
        Job::new(Target::File { path: "/dev/null".into(), direct: false })
    }

    fn at(nanoseconds: u64) -> Instant {
        Instant::from_nanos(nanoseconds)
    }

    // Without it a stall would hide the latency of what was due meanwhile.
    #[test]
    fn an_open_loop_counts_from_when_an_io_was_due() {
        let mut job = job();
        job.rate_iops = Some(1e6);
        let mut lanes: Vec<Pace> = (0..2).map(|index| Pace::new(&job, index, 2)).collect();
        lanes.iter_mut().for_each(|lane| lane.start(at(5000)));
        assert_eq!((lanes[0].next(at(5000)), lanes[0].next(at(5000))), (Some(at(5000)), None));
        assert_eq!((lanes[1].next(at(5999)), lanes[1].wake_at()), (None, Some(at(6000))));
        // A stall of ten intervals: all that was due goes at once, each with its own due time.
        let due: Vec<u64> = std::iter::from_fn(|| lanes[0].next(at(25_000))).map(Instant::as_nanos).collect();
        assert_eq!(due, (7000..=25_000).step_by(2000).collect::<Vec<u64>>());
        assert_eq!(lanes[1].overdue(at(25_000)), 10);
        assert_eq!(lanes[0].overdue(at(25_000)), 0);
    }

    // Without it arrivals by chance could come at another rate than was asked for, or evenly.
    #[test]
    fn poisson_arrivals_keep_their_rate() {
        let mut job = job();
        (job.rate_iops, job.arrivals) = (Some(1e6), Arrivals::Poisson);
        let mut lane = Pace::new(&job, 0, 1);
        lane.start(at(0));
        let due: Vec<u64> =
            std::iter::from_fn(|| lane.next(at(100_000_000))).map(Instant::as_nanos).collect();
        assert!(due.len().abs_diff(100_000) < 1500, "{}", due.len());
        let short = due.windows(2).filter(|pair| pair[1] - pair[0] < 500).count() as f64 / due.len() as f64;
        assert!(
            (short - 0.3935).abs() < 0.01,
            "1 - 1/sqrt(e) of the intervals are shorter than half: {short}"
        );
    }

    // Without it places could think together, or not at all.
    #[test]
    fn places_think_each_for_itself() {
        let mut job = job();
        (job.depth, job.think_time) = (2, Duration::from_nanos(100));
        let mut lane = Pace::new(&job, 0, 1);
        lane.start(at(0));
        assert_eq!(lane.next(at(1)), Some(at(1)));
        assert_eq!(lane.next(at(2)), Some(at(2)));
        assert_eq!(lane.next(at(3)), None);
        lane.ended(at(10));
        lane.ended(at(20));
        assert_eq!((lane.wake_at(), lane.next(at(109))), (Some(at(110)), None));
        assert_eq!(lane.next(at(112)), Some(at(112)));
        assert_eq!((lane.next(at(112)), lane.wake_at()), (None, Some(at(120))));
    }
}
