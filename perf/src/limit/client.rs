//! The asking end: keeps every connection at its depth, sends all that is due in one call, and takes the time.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::LimitError;
use super::shape::{Kind, Shape};
use super::stream::{Calls, Due, Stream};
use crate::engine::ThreadClock;
use crate::histogram::Latencies;

/// What the client shall do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// I/Os outstanding on each connection.
    pub depth: usize,
    /// Percentage of reads.
    pub read_percent: u8,
    /// Load before measuring.
    pub ramp: Duration,
    /// Time that is measured.
    pub time: Duration,
    /// Bytes of the receive buffer.
    pub receive_bytes: usize,
    /// Whether it shares its core with the server.
    pub yielding: bool,
    /// Seed of the mix.
    pub seed: u64,
}

/// What the client measured.
#[derive(Debug)]
pub struct Measured {
    /// Latencies of reads.
    pub reads: Latencies,
    /// Latencies of writes.
    pub writes: Latencies,
    /// Time measured.
    pub elapsed: Duration,
    /// System calls, without those of the ramp.
    pub calls: Calls,
    /// Processor time of client and server while measuring, where it is known.
    pub cpu: [Option<Duration>; 2],
}

/// One connection with the times at which its I/Os were sent. Answers come in order, among reads and among writes.
struct Lane {
    stream: Stream,
    reads: VecDeque<Instant>,
    writes: VecDeque<Instant>,
}

/// Puts the load on the connections for as long as the plan says. `server` is the other end's clock, once it is known.
///
/// # Errors
/// When a connection fails or the server ends it.
pub fn load(
    streams: Vec<Stream>,
    shape: &Shape,
    plan: Plan,
    server: &OnceLock<ThreadClock>,
) -> Result<Measured, LimitError> {
    let clock = ThreadClock::of_current();
    let cpu = || [clock, server.get().copied()].map(|clock| clock.and_then(ThreadClock::read));
    let mut cpu_before = cpu();
    let queue = || VecDeque::with_capacity(plan.depth);
    let mut lanes: Vec<Lane> =
        streams.into_iter().map(|stream| Lane { stream, reads: queue(), writes: queue() }).collect();
    let mut buffer = vec![0; plan.receive_bytes];
    let mut slices = Vec::with_capacity(1024);
    let mut calls = Calls::default();
    let mut before = calls;
    let (mut reads, mut writes) = (Latencies::new(), Latencies::new());
    let mut mix = plan.seed | 1;
    let mut from = Instant::now();
    let mut end = from + plan.ramp;
    let mut measuring = false;
    let mut now = from;
    for lane in &mut lanes {
        lane.submit(plan, plan.depth, &mut mix);
        lane.stream.send(shape, &mut slices, &mut calls)?;
    }
    loop {
        let mut worked = false;
        for lane in &mut lanes {
            let Lane { stream, reads: read_times, writes: write_times } = lane;
            let (mut done_reads, mut done_writes) = (0, 0);
            let going = stream.receive(shape, &mut buffer, &mut calls, |kind, due: &mut Due| match kind {
                Kind::Data => done_reads += 1,
                Kind::Response => done_writes += 1,
                Kind::Ready => {
                    due.push(Kind::HostPiece, shape.host_pieces().unwrap_or(0));
                    due.push(Kind::HostLast, 1);
                }
                _ => {}
            })?;
            if !going {
                return Err(LimitError::Ended);
            }
            if done_reads + done_writes > 0 {
                worked = true;
                now = Instant::now();
                for since in read_times.drain(..done_reads) {
                    reads.record(nanoseconds(now - since));
                }
                for since in write_times.drain(..done_writes) {
                    writes.record(nanoseconds(now - since));
                }
                lane.submit(plan, done_reads + done_writes, &mut mix);
            }
            lane.stream.send(shape, &mut slices, &mut calls)?;
        }
        if !worked {
            if plan.yielding {
                std::thread::yield_now();
            }
            continue;
        }
        if now >= end {
            if measuring {
                break;
            }
            measuring = true;
            (reads, writes) = (Latencies::new(), Latencies::new());
            before = calls;
            cpu_before = cpu();
            from = Instant::now();
            end = from + plan.time;
        }
    }
    let elapsed = now - from;
    let after = cpu();
    let cpu = [0, 1].map(|end| Some(after[end]?.saturating_sub(cpu_before[end]?)));
    let calls = Calls {
        receives: calls.receives - before.receives,
        empty_receives: calls.empty_receives - before.empty_receives,
        sends: calls.sends - before.sends,
    };
    Ok(Measured { reads, writes, elapsed, calls, cpu })
}

impl Lane {
    /// So many more I/Os.
    fn submit(&mut self, plan: Plan, count: usize, mix: &mut u64) {
        let now = Instant::now();
        for _ in 0..count {
            let write = match plan.read_percent {
                100 => false,
                0 => true,
                percent => draw(mix) % 100 >= u64::from(percent),
            };
            let (kind, times) =
                if write { (Kind::Write, &mut self.writes) } else { (Kind::Read, &mut self.reads) };
            times.push_back(now);
            self.stream.due().push(kind, 1);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 32
}
