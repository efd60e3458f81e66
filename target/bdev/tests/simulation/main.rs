//! Host and target in one simulated world: what one writes through the other is what it reads back, and what breaks
//! on the way breaks nothing else. Each seed of each test is a run that replays exactly.
#![allow(clippy::unwrap_used)]

mod announcements;
mod answers;
mod controller_life;
mod crashes;
mod definition_changes;
mod endings;
mod growth;
mod losses;
mod malformed;
mod mixture;
mod random_io;
mod reconnecting;
mod refusals;
mod strangers;
mod support;
