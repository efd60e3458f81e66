//! What reactors count. Plain values, copied out on request; the counters themselves live with what they count.

use crate::memory::PoolStatistics;
use crate::options::Wait;

/// One reactor's counts since its start.
#[derive(Clone, Debug)]
pub struct ReactorStatistics {
    /// The reactor's number.
    pub id: u32,
    /// The processor core it is pinned to, if it is.
    pub core: Option<usize>,
    /// How it waits.
    pub wait: Wait,
    /// Turns taken.
    pub turns: u64,
    /// Nanoseconds in turns that did work.
    pub busy_ns: u64,
    /// Nanoseconds in turns that did none, and asleep.
    pub idle_ns: u64,
    /// Tasks alive.
    pub tasks: usize,
    /// Times a task was polled.
    pub tasks_run: u64,
    /// Messages received from other threads and reactors.
    pub messages: u64,
    /// Events of sockets and disks.
    pub events: u64,
    /// By poller.
    pub pollers: Vec<PollerStatistics>,
    /// The buffer pool.
    pub pool: PoolStatistics,
}

/// One poller's counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollerStatistics {
    /// Its name.
    pub name: &'static str,
    /// Times it was called.
    pub runs: u64,
    /// Pieces of work it reported.
    pub work: u64,
}
