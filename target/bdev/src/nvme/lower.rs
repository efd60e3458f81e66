//! A channel's queue on one route: opened as soon as the path is there, and left when the route is taken away.
//!
//! Invariant: a queue that has commands is polled until they have ended, also when the route is no longer the device's.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sledge_nvme::Status;
use sledge_nvme::io::{Channel, Geometry, IoCommand, IoCompletion, Submitted};
use sledge_nvme::log_page::AnaState;
use sledge_nvmf::host::{QueuePair, QueuePairState};
use sledge_reactor::task::{JoinHandle, spawn_local};
use sledge_reactor::time::sleep;

use super::path::{Link, PathState};
use super::pcie;
use super::route::Route;

/// Pause before another attempt to open a queue.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause after the controller refused one.
const LONG_PAUSE: Duration = Duration::from_secs(1);

enum Queue {
    Opening,
    Tcp(QueuePair),
    /// The driver splits, retries, and has commands wait while the drive is reset.
    Pcie(Box<dyn Channel>),
}

/// A queue on a route.
pub(crate) struct Lower {
    pub(crate) route: Arc<Route>,
    queue: Rc<RefCell<Queue>>,
    opener: JoinHandle<()>,
    /// Commands there.
    pub(crate) outstanding: usize,
    /// The route is no longer the device's.
    pub(crate) leaving: bool,
}

impl Lower {
    /// Begins to open a queue.
    pub(crate) fn open(route: Arc<Route>, geometry: Geometry) -> Self {
        let at_once = match &route.path.link {
            Link::Pcie(link) if route.is_up() => link.drive.open_channel(route.nsid).ok(),
            _ => None,
        };
        let queue = Rc::new(RefCell::new(at_once.map_or(Queue::Opening, Queue::Pcie)));
        let opener = spawn_local(open(route.clone(), geometry, Rc::downgrade(&queue)));
        Self { route, queue, opener, outstanding: 0, leaving: false }
    }

    /// The route's state, if it takes commands now.
    pub(crate) fn usable(&self) -> Option<AnaState> {
        let ana = self.route.ana();
        if self.leaving || !ana.is_accessible() {
            return None;
        }
        let there = match &*self.queue.borrow() {
            Queue::Opening => false,
            Queue::Tcp(pair) => {
                pair.state() == QueuePairState::Live && self.route.is_verified(pair.incarnation())
            }
            Queue::Pcie(_) => self.route.is_verified(pcie::INCARNATION),
        };
        there.then_some(ana)
    }

    /// Sends a command.
    pub(crate) fn submit(&mut self, io: IoCommand) -> Submitted {
        let submitted = match &mut *self.queue.borrow_mut() {
            Queue::Opening => Submitted::Done(io.complete(Status::HOST_PATHING_ERROR)),
            Queue::Tcp(pair) => pair.submit(io),
            Queue::Pcie(channel) => channel.submit(io),
        };
        if matches!(submitted, Submitted::Pending) {
            self.outstanding += 1;
        }
        submitted
    }

    /// What a status means here: a drive that was given up or taken out fails its commands for good, but may return.
    pub(crate) fn translate(&self, status: Status) -> Status {
        let gone = self.route.path.state() != PathState::Live;
        let drive = matches!(self.route.path.link, Link::Pcie(_));
        if drive && gone && status.is(Status::INTERNAL_ERROR) { Status::HOST_PATHING_ERROR } else { status }
    }

    /// Appends what ended.
    pub(crate) fn poll(&mut self, done: &mut Vec<IoCompletion>) {
        let before = done.len();
        match &mut *self.queue.borrow_mut() {
            Queue::Opening => {}
            Queue::Tcp(pair) => pair.poll(done),
            Queue::Pcie(channel) => channel.poll(done),
        }
        self.outstanding -= (done.len() - before).min(self.outstanding);
    }

    /// The controller refused a command for the namespace's ANA state: none more before it was asked for.
    pub(crate) fn refused_by_ana(&self, status: Status) {
        let states = [AnaState::Inaccessible, AnaState::PersistentLoss, AnaState::Change];
        let state = states.into_iter().find(|state| state.status().is(status));
        self.route.set_ana(state.unwrap_or(AnaState::Change));
        self.route.path.ana_stale.store(true, Ordering::Release);
    }

    pub(crate) fn needs_polling(&self) -> bool {
        match &*self.queue.borrow() {
            Queue::Opening => false,
            Queue::Tcp(pair) => pair.needs_polling(),
            Queue::Pcie(channel) => channel.needs_polling(),
        }
    }

    pub(crate) fn abort(&mut self, token: u64) -> bool {
        match &mut *self.queue.borrow_mut() {
            Queue::Opening => false,
            Queue::Tcp(pair) => pair.abort(token),
            Queue::Pcie(channel) => channel.abort(token),
        }
    }

    /// Whether the controller may still have commands of the connection that was lost last.
    pub(crate) fn lost_silently(&self) -> bool {
        match &*self.queue.borrow() {
            // A drive that was given up or taken out does nothing any more.
            Queue::Opening | Queue::Pcie(_) => false,
            Queue::Tcp(pair) => pair.lost_silently(),
        }
    }
}

impl Drop for Lower {
    fn drop(&mut self) {
        self.opener.abort();
    }
}

/// Opens a queue, however long that takes, unless the path or the channel ends first.
async fn open(route: Arc<Route>, geometry: Geometry, place: Weak<RefCell<Queue>>) {
    let mut told = false;
    loop {
        let Some(wanted) = place.upgrade() else { return };
        if !matches!(*wanted.borrow(), Queue::Opening) {
            return;
        }
        drop(wanted);
        let pause = if route.is_up() {
            let opened = match &route.path.link {
                Link::Tcp(link) => {
                    let opened = link.connector.open(route.nsid, geometry).await;
                    opened.map(Queue::Tcp).map_err(|error| error.to_string())
                }
                Link::Pcie(link) => {
                    link.drive.open_channel(route.nsid).map(Queue::Pcie).map_err(|error| error.to_string())
                }
            };
            match opened {
                Ok(queue) => {
                    if let Some(place) = place.upgrade() {
                        *place.borrow_mut() = queue;
                    }
                    return;
                }
                Err(error) => {
                    let (to, nsid) = (&route.path.options.transport, route.nsid);
                    // Once is enough: it may go on for long.
                    if told {
                        tracing::debug!(%to, nsid, error, "can't open an I/O queue; trying again");
                    } else {
                        tracing::warn!(%to, nsid, error, "can't open an I/O queue; trying again");
                    }
                    told = true;
                    LONG_PAUSE
                }
            }
        } else {
            PAUSE
        };
        sleep(pause).await;
    }
}
