//! A whole controller against the model: the driver's public interface, in the simulator, where time costs nothing.
#![allow(clippy::unwrap_used)]

mod bring_up;
mod escalation;
mod events;
mod pauses;
mod random;
mod removal;
mod reset;
mod rig;
mod threads;
