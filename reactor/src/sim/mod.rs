//! The simulated world: whole clusters on one thread, where one seed decides everything.
//!
//! A [`Simulation`] has nodes, each with reactors that run the same program code as real ones; a virtual clock
//! that jumps over idle time; a network with delay, loss, reordering between connections, partitions and
//! resets; and disks that reorder, fail, and lose or tear unsynced sectors when their node crashes. Every
//! decision comes from the seed, so a run can be replayed exactly; [`Simulation::trace_hash`] shows that it was.
//!
//! ```
//! use sledge_reactor::sim::Simulation;
//! use sledge_reactor::time::{now, sleep};
//! use std::time::Duration;
//!
//! let mut simulation = Simulation::new(7);
//! let node = simulation.add_node("one", 1);
//! let slept = simulation.block_on(node, || async {
//!     let before = now();
//!     sleep(Duration::from_secs(3600)).await;
//!     now() - before
//! });
//! assert!(slept.is_ok_and(|slept| slept >= Duration::from_secs(3600)));
//! ```
//!
//! | file | what |
//! |---|---|
//! | `simulation` | nodes, schedule, and what a test does to the world |
//! | `node` | a node's reactors and when they may take a turn |
//! | `world`, `clockwork`, `random` | what reactors share: events, virtual time, draws, trace |
//! | `backend` | the world as a reactor sees it |
//! | `network`, `endpoint`, `delivery`, `stream`, `links` | connections and how their packets travel |
//! | `disks`, `medium`, `simulated_disk` | requests, content and faults of disks |
//! | `seeds` | running a test over many seeds, and one again |

mod backend;
mod clockwork;
mod config;
mod delivery;
mod disks;
mod endpoint;
mod links;
mod medium;
mod network;
mod node;
mod random;
mod seeds;
mod simulated_disk;
mod simulation;
mod stream;
mod world;

pub use clockwork::NodeId;
pub use config::{LinkConfig, SimulationConfig};
pub use disks::{DiskCounters, DiskFault};
pub use seeds::for_seeds;
pub use simulated_disk::SimulatedDisk;
pub use simulation::{Simulation, Stalled};
