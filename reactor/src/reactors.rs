//! The set of real reactors of a process: starts their threads and ends them.

use crate::message::Handle;
use crate::options::ReactorOptions;

/// Why reactors could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The kernel refused something that every reactor needs.
    #[error("reactor {reactor}: {what}: {source}")]
    System {
        /// The reactor's number.
        reactor: u32,
        /// What was attempted.
        what: &'static str,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// Running reactors. Dropping it stops them, as `stop` does.
#[derive(Debug)]
pub struct Reactors {
    handles: Vec<Handle>,
}

impl Reactors {
    /// Starts one reactor for each core of the list.
    ///
    /// # Errors
    /// When a core is not there, or the kernel refuses something; then none is left running.
    pub fn start(_options: ReactorOptions) -> Result<Reactors, StartError> {
        Err(StartError::System {
            reactor: 0,
            what: "starting reactors",
            source: std::io::ErrorKind::Unsupported.into(),
        })
    }

    /// The reactors' handles, in the order of the core list.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }

    /// Ends all reactors and waits for their threads. Tasks and pollers that are left are dropped.
    pub fn stop(self) {}
}
