//! What a path shows at one moment: the controller, its namespaces, their ANA states.

use std::sync::Arc;

use sledge_nvme::log_page::AnaState;

use super::found::Found;
use super::path::{About, Path};

/// What a path shows at one moment.
pub(crate) struct Look {
    /// The connection in which it was looked at.
    pub(crate) incarnation: u64,
    pub(crate) about: About,
    pub(crate) found: Vec<Found>,
    /// State by ANA group; none when the controller does not report it.
    pub(crate) ana: Option<Vec<(u32, AnaState)>>,
}

impl Look {
    /// The state of an ANA group.
    pub(crate) fn state_of(ana: Option<&[(u32, AnaState)]>, group: u32) -> AnaState {
        match ana {
            None => AnaState::Optimized,
            Some(states) => states
                .iter()
                .find(|(number, _)| *number == group)
                .map_or(AnaState::Inaccessible, |(_, state)| *state),
        }
    }
}

/// A path that has just been connected.
pub(crate) struct Connected {
    pub(crate) path: Arc<Path>,
    pub(crate) look: Look,
}
