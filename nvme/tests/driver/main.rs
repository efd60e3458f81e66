//! The whole driver against the model controller, in the simulator: what attaching, resetting, losing and letting go of a
//! controller do to it, to its users and to memory.
#![allow(clippy::unwrap_used)]
#![allow(missing_docs)]

mod attach;
mod escalate;
mod events;
mod load;
mod remove;
mod reset;
mod rig;
