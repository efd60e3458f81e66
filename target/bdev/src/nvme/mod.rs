//! The NVMe device: a namespace of a controller elsewhere, reached over NVMe/TCP or, as a drive of this machine, over
//! PCIe; over one path or several.
//!
//! Owns the named controllers ([`Controllers`]), their paths, and the devices of their namespaces. Invariants: a command
//! is answered exactly once, whatever becomes of its path; a command whose outcome is not known is sent again only if
//! doing it twice gives what doing it once gives, and not while its first copy may still be under way; a path carries
//! I/O only in a connection in which its namespace was found to be the same as before (identifiers, block size, no
//! smaller). A device that has lost all paths stays: its I/O waits, and then fails with a status that hosts retry.
//! The management side attaches and detaches; reactors open channels.
//!
//! | file | what |
//! |---|---|
//! | `controllers`, `deferred` | the table of named controllers: attach, detach, find; paths that could not be reached at the start |
//! | `controller` | one name: its paths and devices, and what a look at a path's namespaces changes |
//! | `path`, `tcp`, `pcie` | one way to a controller, and what keeps it |
//! | `look`, `found` | what a path shows: the controller, its namespaces with geometry and identity |
//! | `route` | one path's way to one namespace: connection and ANA state |
//! | `device` | the block device |
//! | `channel`, `lower` | one reactor's I/O on a device, and its queue on each route |
//! | `select`, `retry` | which route a command takes, and whether it is sent again: pure |
//! | `split` | commands that are larger than a controller takes |
//! | `options`, `error`, `report` | what is asked for, why not, and what is told |

mod channel;
mod controller;
mod controllers;
mod deferred;
mod device;
mod error;
mod found;
mod look;
mod lower;
pub mod options;
mod path;
mod pcie;
pub mod report;
mod retry;
mod route;
mod select;
mod split;
mod tcp;

pub use controller::Change;
pub use controllers::{Attached, Controllers, Detaching};
pub use deferred::Deferred;
pub use device::NvmeDevice;
pub use error::NvmeError;
pub use found::Identity;
pub use sledge_nvmf::host::{AdminData, AdminReply};
