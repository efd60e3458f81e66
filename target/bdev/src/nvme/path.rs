//! One way to a controller: its connection, what the controller said about itself, and how it is.
//!
//! Invariant: a path is one connected controller for its whole life, over any number of connections; once it is over it
//! never comes back, and a new path takes its place. Made by [`super::tcp`]; kept by the task that watches it; read by
//! channels on all reactors without locks.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sledge_nvme::Command;
use sledge_nvme::identify::{ControllerData, capability};
use sledge_nvmf::host::{AdminData, AdminReply};
use sledge_reactor::message::Handle;

use super::error::NvmeError;
use super::options::{AttachOptions, NvmeOptions, Transport};
use super::pcie::PcieLink;
use super::tcp::TcpLink;

/// How a path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum PathState {
    /// Connected.
    Live,
    /// Not connected; attempts go on.
    Lost,
    /// Not connected, and no attempts are made any more.
    GivenUp,
    /// Switched off by the management side.
    Disabled,
}

impl PathState {
    /// Its name in the management interface.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            PathState::Live => "enabled",
            PathState::Lost => "reconnecting",
            PathState::GivenUp => "failed",
            PathState::Disabled => "disabled",
        }
    }
}

/// What a controller says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) cntlid: u16,
    pub(crate) vendor_id: u16,
    pub(crate) model_number: String,
    pub(crate) serial_number: String,
    pub(crate) firmware_revision: String,
    pub(crate) subnqn: String,
    pub(crate) version: u32,
    /// Optional Admin Command Support.
    pub(crate) oacs: u16,
    /// Optional NVM Command Support.
    pub(crate) oncs: u16,
    /// Fused Operation Support.
    pub(crate) fuses: u16,
    pub(crate) volatile_write_cache: bool,
    pub(crate) multiple_controllers: bool,
    pub(crate) ana_reporting: bool,
    /// MDTS in bytes; none is unlimited.
    pub(crate) max_transfer_bytes: Option<u64>,
}

impl About {
    /// Takes Identify Controller apart.
    pub(crate) fn read(data: &ControllerData, version: u32) -> Self {
        Self {
            cntlid: data.cntlid.get(),
            vendor_id: data.vid.get(),
            model_number: data.model_number().to_owned(),
            serial_number: data.serial_number().to_owned(),
            firmware_revision: data.firmware_revision().to_owned(),
            subnqn: String::from_utf8_lossy(&data.subnqn).trim_end_matches(['\0', ' ']).to_owned(),
            version,
            oacs: data.oacs.get(),
            oncs: data.oncs.get(),
            fuses: data.fuses.get(),
            volatile_write_cache: data.vwc & capability::vwc::PRESENT != 0,
            multiple_controllers: data.cmic & capability::cmic::MULTIPLE_CONTROLLERS != 0,
            ana_reporting: data.cmic & capability::cmic::ANA_REPORTING != 0,
            max_transfer_bytes: data.max_transfer_bytes(),
        }
    }

    /// Whether this can be a controller of the same subsystem, or the same drive.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn is_of_the_same(&self, other: &About) -> Result<(), String> {
        for (what, one, two) in [
            ("serial number", &self.serial_number, &other.serial_number),
            ("model number", &self.model_number, &other.model_number),
            ("subsystem", &self.subnqn, &other.subnqn),
        ] {
            if one != two {
                return Err(format!("its {what} is {one:?}, not {two:?}"));
            }
        }
        Ok(())
    }
}

/// How a path's controller is reached.
pub(crate) enum Link {
    /// NVMe/TCP.
    Tcp(TcpLink),
    /// A drive of this machine.
    Pcie(PcieLink),
}

/// One way to a controller.
pub(crate) struct Path {
    /// Its own number in this process.
    pub(crate) number: u64,
    pub(crate) options: AttachOptions,
    pub(crate) settings: NvmeOptions,
    /// The reactor on which the controller lives.
    pub(crate) owner: Handle,
    pub(crate) link: Link,
    about: Mutex<Arc<About>>,
    state: AtomicU8,
    /// The ANA states are not what they were: they are to be asked for.
    pub(crate) ana_stale: AtomicBool,
}

impl Path {
    pub(crate) fn new(
        number: u64,
        options: AttachOptions,
        settings: NvmeOptions,
        owner: Handle,
        link: Link,
        about: About,
    ) -> Self {
        Self {
            number,
            options,
            settings,
            owner,
            link,
            about: Mutex::new(Arc::new(about)),
            state: AtomicU8::new(PathState::Live as u8),
            ana_stale: AtomicBool::new(false),
        }
    }

    pub(crate) fn about(&self) -> Arc<About> {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_about(&self, about: About) {
        *self.about.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(about);
    }

    pub(crate) fn state(&self) -> PathState {
        match self.state.load(Ordering::Acquire) {
            0 => PathState::Live,
            1 => PathState::Lost,
            2 => PathState::GivenUp,
            _ => PathState::Disabled,
        }
    }

    pub(crate) fn set_state(&self, state: PathState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Whether no attempt to bring it back is made.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state(), PathState::GivenUp | PathState::Disabled)
    }

    /// Whether an attach names this path.
    pub(crate) fn leads_to(&self, transport: &Transport) -> bool {
        match (&self.options.transport, transport) {
            (Transport::Tcp { address, .. }, Transport::Tcp { address: other, .. }) => address == other,
            (Transport::Pcie { address, .. }, Transport::Pcie { address: other, .. }) => address == other,
            _ => false,
        }
    }

    /// Sends an admin command, which may take `limit`, or as long as admin commands usually may.
    ///
    /// # Errors
    /// When the controller is not connected, or fails the command.
    pub(crate) async fn admin(
        &self,
        command: Command,
        data: AdminData,
        limit: Option<Duration>,
    ) -> Result<AdminReply, NvmeError> {
        match &self.link {
            Link::Tcp(link) => link.admin(self, command, data, limit).await,
            Link::Pcie(link) => link.admin(self, command, data, limit).await,
        }
    }

    /// Resets the controller; its I/O waits until it is back.
    ///
    /// # Errors
    /// When the controller is not connected, or does not answer.
    pub(crate) async fn reset(&self) -> Result<(), NvmeError> {
        match &self.link {
            Link::Tcp(link) => link.reset(self).await,
            Link::Pcie(link) => link.reset(self).await,
        }
    }

    /// Shuts the controller down and disconnects it. Queues of it that are open end.
    pub(crate) async fn close(&self, state: PathState) {
        self.set_state(state);
        match &self.link {
            Link::Tcp(link) => link.close(self).await,
            Link::Pcie(link) => link.close(self).await,
        }
    }

    pub(crate) fn not_connected(&self) -> NvmeError {
        NvmeError::NotConnected { name: self.options.name.clone() }
    }
}
