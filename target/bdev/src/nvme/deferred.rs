//! Paths of a configuration that could not be reached when it was read: they wait here, and are tried again.
//!
//! So a target starts as long as each of its controllers has one path that works. Invariant: a path that waits is not
//! attached. The management side defers, tries again and forgets; nothing here is known to reactors.

use std::net::SocketAddr;

use super::controllers::Controllers;
use super::error::NvmeError;
use super::options::{AttachOptions, NvmeOptions, Transport};
use sledge_nvmf::host::HostError;

/// A path that waits.
#[derive(Clone)]
pub struct Deferred {
    /// What was to be attached.
    pub options: AttachOptions,
    /// What held for it.
    pub settings: NvmeOptions,
    /// Why it could not be.
    pub reason: String,
}

impl Deferred {
    /// Where it leads; none for a drive, which is never deferred.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.options.transport {
            Transport::Tcp { address, .. } => Some(*address),
            Transport::Pcie { .. } => None,
        }
    }
}

impl NvmeError {
    /// Whether the other side was not there, rather than refusing or being another.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        let lost = |source: &HostError| {
            matches!(source, HostError::Connect { .. } | HostError::Lost(_) | HostError::Timeout { .. })
        };
        match self {
            NvmeError::Host { source, .. } => lost(source),
            NvmeError::Timeout { .. } => true,
            _ => false,
        }
    }
}

impl Controllers {
    /// Has a path wait.
    pub fn defer(&self, deferred: Deferred) {
        let (name, to) = (&deferred.options.name, &deferred.options.transport);
        tracing::warn!(name, %to, reason = deferred.reason, "can't be reached now; trying again later");
        self.with_deferred(|all| all.push(deferred));
    }

    /// The paths that wait.
    #[must_use]
    pub fn deferred(&self) -> Vec<Deferred> {
        self.with_deferred(|all| all.clone())
    }

    /// No longer has a path wait: it is attached, or not wanted any more.
    pub fn forget_deferred(&self, options: &AttachOptions) {
        self.with_deferred(|all| all.retain(|deferred| deferred.options != *options));
    }

    /// A path that waits under a name that has no path that works.
    #[must_use]
    pub fn unreached(&self) -> Option<Deferred> {
        self.deferred().into_iter().find(|deferred| self.list(Some(&deferred.options.name)).is_err())
    }
}
