//! What a simulated world is like: the cost of turns, the weather of its links, and its bounds.
//!
//! Invariant: a configuration holds only numbers, so a seed and a configuration together determine a run.
//! Made by tests, read by the rest of the simulator.

use std::ops::RangeInclusive;
use std::time::Duration;

/// The properties of a whole simulated world.
#[derive(Clone, Debug)]
pub struct SimulationConfig {
    /// Virtual time that one turn of a reactor takes.
    pub turn_cost: RangeInclusive<Duration>,
    /// The longest step of the clock while reactors only poll and find nothing.
    pub longest_idle_poll: Duration,
    /// Most turns and events in one call that runs the world; one more is [`super::Stalled`].
    pub max_steps: u64,
    /// Most virtual time in one call that runs the world; more is [`super::Stalled`].
    pub max_time: Duration,
    /// The link between two different nodes, until [`super::Simulation::set_link`] changes it.
    pub link: LinkConfig,
    /// The link of a node to itself.
    pub loopback: LinkConfig,
    /// Bytes that a connection holds in one direction between write and read; drawn per connection.
    pub send_buffer_bytes: RangeInclusive<u64>,
    /// How many of a million reads and writes move less than they could, so that messages split anywhere.
    pub short_io_per_million: u32,
    /// After how long without an answer a connection attempt fails with `TimedOut`.
    pub connect_timeout: RangeInclusive<Duration>,
    /// After how long without delivery (a partition, a dead peer) a connection fails with `TimedOut`.
    pub delivery_timeout: RangeInclusive<Duration>,
    /// How many of a million connections of a crashing node end in silence rather than a reset.
    pub silent_crash_per_million: u32,
    /// Connections that wait for an accept; more are dropped and tried again by their host.
    pub backlog: usize,
    /// The service time of a disk, until [`super::SimulatedDisk::set_latency`] changes it.
    pub disk_latency: RangeInclusive<Duration>,
    /// Bytes of the buffer pool of each reactor.
    pub pool_bytes: usize,
}

impl Default for SimulationConfig {
    fn default() -> SimulationConfig {
        SimulationConfig {
            turn_cost: Duration::from_nanos(200)..=Duration::from_nanos(2_000),
            longest_idle_poll: Duration::from_micros(100),
            max_steps: 20_000_000,
            max_time: Duration::from_secs(24 * 3600),
            link: LinkConfig::default(),
            loopback: LinkConfig {
                latency: Duration::from_micros(3)..=Duration::from_micros(15),
                ..LinkConfig::default()
            },
            send_buffer_bytes: 16 * 1024..=256 * 1024,
            short_io_per_million: 100_000,
            connect_timeout: Duration::from_secs(3)..=Duration::from_secs(6),
            delivery_timeout: Duration::from_secs(10)..=Duration::from_secs(40),
            silent_crash_per_million: 500_000,
            backlog: 1024,
            disk_latency: Duration::from_micros(10)..=Duration::from_micros(200),
            pool_bytes: 16 << 20,
        }
    }
}

/// The properties of the link between two nodes, the same in both directions.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// How long a packet takes; drawn for each packet. Order is kept within one direction of a connection
    /// and nowhere else.
    pub latency: RangeInclusive<Duration>,
    /// How many of a million packets are lost and sent again.
    pub loss_per_million: u32,
    /// How much longer a packet takes that was lost.
    pub retransmission: RangeInclusive<Duration>,
    /// How many of a million writes are cut into several packets.
    pub split_per_million: u32,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            latency: Duration::from_micros(15)..=Duration::from_micros(80),
            loss_per_million: 0,
            retransmission: Duration::from_millis(5)..=Duration::from_millis(200),
            split_per_million: 150_000,
        }
    }
}
