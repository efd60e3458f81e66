//! What other threads see of a run while it goes on.
//!
//! Each reactor of a job writes its own counters, some hundred times a second; whoever watches adds them up.

use crate::job::Job;
use crate::results::Second;
use crate::workload::DIRECTIONS;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Connecting, or waiting for its time.
    Starting,
    /// Load without measuring.
    Ramp,
    /// Load, measured.
    Measuring,
    /// Reading back what was written.
    ReadingBack,
    /// Over.
    Ended,
}

const PHASES: [Phase; 5] = [Phase::Starting, Phase::Ramp, Phase::Measuring, Phase::ReadingBack, Phase::Ended];

/// A run as others see it.
#[derive(Debug)]
pub struct Live {
    jobs: Vec<LiveJob>,
}

/// A job as others see it.
#[derive(Debug)]
pub struct LiveJob {
    seats: Vec<Seat>,
    latest: Mutex<Option<Second>>,
}

/// One reactor's part of it; alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Seat {
    phase: AtomicU8,
    ios: [AtomicU64; DIRECTIONS],
    bytes: [AtomicU64; DIRECTIONS],
    errors: AtomicU64,
}

impl Live {
    /// Of jobs that have not begun.
    pub fn new(jobs: &[Job]) -> Self {
        let live = |job: &Job| LiveJob {
            seats: job.cores.iter().map(|_| Seat::default()).collect(),
            latest: Mutex::new(None),
        };
        Self { jobs: jobs.iter().map(live).collect() }
    }

    /// Its jobs, in order.
    pub fn jobs(&self) -> &[LiveJob] {
        &self.jobs
    }
}

impl LiveJob {
    /// How far the last of its reactors is.
    pub fn phase(&self) -> Phase {
        let last = self.seats.iter().map(|seat| seat.phase.load(Ordering::Relaxed)).min().unwrap_or(0);
        PHASES[usize::from(last).min(PHASES.len() - 1)]
    }

    /// I/Os of each direction that have ended since the load began.
    pub fn ios(&self) -> [u64; DIRECTIONS] {
        self.sum(|seat| &seat.ios)
    }

    /// Bytes that they moved.
    pub fn bytes(&self) -> [u64; DIRECTIONS] {
        self.sum(|seat| &seat.bytes)
    }

    /// I/Os that failed.
    pub fn errors(&self) -> u64 {
        self.seats.iter().map(|seat| seat.errors.load(Ordering::Relaxed)).sum()
    }

    /// The latest whole second that was measured.
    pub fn latest(&self) -> Option<Second> {
        // A plain value: whole also if its last writer panicked.
        self.latest.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn sum(&self, of: impl Fn(&Seat) -> &[AtomicU64; DIRECTIONS]) -> [u64; DIRECTIONS] {
        std::array::from_fn(|kind| self.seats.iter().map(|seat| of(seat)[kind].load(Ordering::Relaxed)).sum())
    }

    pub(super) fn set_phase(&self, seat: usize, phase: Phase) {
        if let Some(seat) = self.seats.get(seat) {
            seat.phase.store(phase as u8, Ordering::Relaxed);
        }
    }

    pub(super) fn set_counts(
        &self,
        seat: usize,
        ios: [u64; DIRECTIONS],
        bytes: [u64; DIRECTIONS],
        errors: u64,
    ) {
        let Some(seat) = self.seats.get(seat) else { return };
        for kind in 0..DIRECTIONS {
            seat.ios[kind].store(ios[kind], Ordering::Relaxed);
            seat.bytes[kind].store(bytes[kind], Ordering::Relaxed);
        }
        seat.errors.store(errors, Ordering::Relaxed);
    }

    pub(super) fn set_latest(&self, second: Second) {
        *self.latest.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Target;

    // Without it the progress line could lose the counts of all but one core, or say that a job is over too early.
    #[test]
    fn seats_add_up() {
        let mut job = Job::new(Target::File { path: "/dev/null".into(), direct: false });
        job.cores = vec![0, 1];
        let live = Live::new(&[job]);
        let job = &live.jobs()[0];
        job.set_counts(0, [1, 2, 3, 0], [4, 5, 6, 0], 0);
        job.set_counts(1, [10, 20, 30, 7], [40, 50, 60, 8], 2);
        assert_eq!((job.ios(), job.bytes(), job.errors()), ([11, 22, 33, 7], [44, 55, 66, 8], 2));
        job.set_phase(0, Phase::Ended);
        assert_eq!(job.phase(), Phase::Starting);
        job.set_phase(1, Phase::Measuring);
        assert_eq!(job.phase(), Phase::Measuring);
    }
}
