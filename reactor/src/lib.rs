//! Pinned per-core reactors, and the simulated one.
//!
//! A reactor is a thread that polls: sockets, disks, timers, messages from other reactors, ready local tasks
//! and registered pollers, in turns. Code on a reactor reaches time, sockets, disks and randomness only through
//! this crate, so that the same code runs on processor cores ([`Reactors`]) or inside the simulator ([`sim`]),
//! where one seed decides everything.
//!
//! | module | what |
//! |---|---|
//! | [`time`] | [`now`], [`sleep`] |
//! | [`task`] | [`spawn_local`], [`yield_now`] |
//! | [`poller`] | [`Poller`], [`register_poller`] |
//! | [`message`] | [`Handle`], [`Remote`], [`current`], [`peers`] |
//! | [`memory`] | pools of aligned [`Buffer`](memory::Buffer)s, [`Segments`](memory::Segments) |
//! | [`net`] | TCP with edge-triggered readiness |
//! | [`disk`] | files and block devices, asynchronously |
//! | [`options`] | how many reactors, where, and how they wait |

mod backend;
mod core;
pub mod disk;
pub mod local;
pub mod memory;
pub mod message;
pub mod net;
pub mod options;
pub mod poller;
pub mod random;
mod reactors;
mod real;
pub mod sim;
pub mod statistics;
pub mod task;
pub mod time;
mod timer;

pub use disk::{Disk, DiskCompletion, DiskOperation, DiskOptions, DiskQueue, DiskRequest};
pub use memory::{
    Buffer, LendOwner, Lent, MAX_SEGMENTS, Pool, PoolOptions, PoolStatistics, Segment, Segments, allocate,
};
pub use message::{Handle, ReactorGone, Remote, current, peers};
pub use net::{DetachedStream, ReadySet, TcpListener, TcpStream};
pub use options::{CoreList, CoreListError, ReactorOptions, Wait};
pub use poller::{Poller, PollerHandle, Turn, register_poller};
pub use random::random_u64;
pub use reactors::{Reactors, StartError};
pub use statistics::{PollerStatistics, ReactorStatistics};
pub use task::{JoinHandle, spawn_local, yield_now};
pub use time::{Instant, Sleep, now, precise_now, sleep, sleep_until};
