//! One reactor's epoll: who is told about which descriptor's readiness, and the wait that ends with any.
//!
//! Owns the epoll descriptor and the table of sinks. Invariant: an event's number carries the generation of its
//! place in the table, so an event of a socket that was closed meanwhile reaches nobody.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use crate::backend::{Readiness, ReadinessSink};

/// Events taken from the kernel at once; more wait for the next turn.
const EVENTS: usize = 256;
/// The number of descriptors that only end the wait.
const WAKE_ONLY: u64 = u64::MAX;
/// Edges that are always of interest: something to read, and the peer's end.
const EDGES: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
/// Room to write: of interest from a write that found none until the edge. Were it always asked for, the kernel
/// would report it again with each arrival.
const WRITABLE: u32 = libc::EPOLLOUT as u32;
/// Most sockets that are read without asking the epoll first. With more of them traffic, one call of the epoll
/// costs less than reads that find nothing.
const HOT_SOCKETS: usize = 4;
/// Reads in a row that find nothing after which a socket is hot no longer: some tens of microseconds.
const HOT_MISSES: u16 = 128;
/// Turns that may pass without asking the epoll while sockets are hot: how much longer others may wait.
const DIRECT_TURNS: u32 = 8;
/// Times that the epoll is asked after too many sockets had traffic, before any may become hot again.
const CROWDED_TURNS: u32 = 64;
/// After one of these no further edge is sure to come.
const ENDINGS: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

thread_local! {
    /// The epoll of the real reactor that runs on this thread.
    static CURRENT: RefCell<Weak<Poll>> = const { RefCell::new(Weak::new()) };
}

/// The epoll of one reactor.
pub(super) struct Poll {
    descriptor: OwnedFd,
    table: RefCell<Table>,
    events: RefCell<Box<[libc::epoll_event; EVENTS]>>,
    /// Events that the wait has brought and nobody has dispatched.
    pending: Cell<usize>,
    /// Sockets that had traffic lately: the reactor reads them each turn, whatever the epoll would say, which
    /// saves a system call for each time that something arrives.
    hot: RefCell<Vec<Rc<Watch>>>,
    /// Turns since the epoll was asked.
    direct_turns: Cell<u32>,
    /// Above zero: too many sockets have traffic for any to be hot.
    crowded: Cell<u32>,
}

#[derive(Default)]
struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
}

struct Place {
    generation: u32,
    watch: Option<Rc<Watch>>,
}

/// What the kernel has told about one descriptor, and who wants to know.
pub(super) struct Watch {
    key: u32,
    descriptor: RawFd,
    sink: RefCell<Option<Rc<dyn ReadinessSink>>>,
    /// Whether an edge came since a read took all that was there.
    pub(super) readable: Cell<bool>,
    /// Whether the peer has ended or an error waits: reads never wait for an edge then.
    pub(super) ended: Cell<bool>,
    /// Reads that may still find nothing before the socket is hot no longer; zero when it is not hot.
    misses_left: Cell<u16>,
    /// Whether the kernel has been asked for the edge of [`WRITABLE`].
    asked_for_room: Cell<bool>,
}

impl Poll {
    /// Makes the epoll of this thread's reactor.
    pub(super) fn new() -> io::Result<Rc<Poll>> {
        // SAFETY: a plain system call; the result is checked before it is used.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        let poll = Rc::new(Poll {
            // SAFETY: the descriptor was made just now and belongs to nobody else.
            descriptor: unsafe { OwnedFd::from_raw_fd(descriptor) },
            table: RefCell::default(),
            events: RefCell::new(Box::new([libc::epoll_event { events: 0, u64: 0 }; EVENTS])),
            pending: Cell::new(0),
            hot: RefCell::new(Vec::with_capacity(HOT_SOCKETS)),
            direct_turns: Cell::new(0),
            crowded: Cell::new(0),
        });
        CURRENT.with(|current| *current.borrow_mut() = Rc::downgrade(&poll));
        Ok(poll)
    }

    /// The epoll of the real reactor that runs on this thread.
    pub(super) fn current() -> io::Result<Rc<Poll>> {
        let current = CURRENT.with(|current| current.borrow().upgrade());
        current.ok_or_else(|| io::Error::other("a real socket can only be used on a real reactor"))
    }

    /// The epoll itself, readable while it has events.
    pub(super) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Watches a socket for edges. They reach a sink once one is set.
    pub(super) fn register(&self, descriptor: RawFd) -> io::Result<Rc<Watch>> {
        let mut table = self.table.borrow_mut();
        let key = match table.free.pop() {
            Some(key) => key,
            None => {
                table.places.push(Place { generation: 0, watch: None });
                (table.places.len() - 1) as u32
            }
        };
        let place = &mut table.places[key as usize];
        let number = u64::from(place.generation) << 32 | u64::from(key);
        // A connection under way is established when there is room to write.
        if let Err(error) = self.control(libc::EPOLL_CTL_ADD, descriptor, number, EDGES | WRITABLE) {
            table.free.push(key);
            return Err(error);
        }
        let watch = Rc::new(Watch {
            key,
            descriptor,
            sink: RefCell::new(None),
            readable: Cell::new(true),
            ended: Cell::new(false),
            misses_left: Cell::new(0),
            asked_for_room: Cell::new(true),
        });
        place.watch = Some(watch.clone());
        Ok(watch)
    }

    /// Watches a descriptor that only ends the wait and is never read: an eventfd.
    pub(super) fn register_wake(&self, descriptor: RawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, descriptor, WAKE_ONLY, (libc::EPOLLIN | libc::EPOLLET) as u32)
    }

    /// A write found no room: the edge that there is some is of interest now. It comes even if there is room by the
    /// time of this call.
    pub(super) fn ask_for_room(&self, watch: &Watch) -> io::Result<()> {
        if watch.asked_for_room.replace(true) {
            return Ok(());
        }
        self.modify(watch, EDGES | WRITABLE)
    }

    fn modify(&self, watch: &Watch, events: u32) -> io::Result<()> {
        let generation = self.table.borrow().places[watch.key as usize].generation;
        let number = u64::from(generation) << 32 | u64::from(watch.key);
        self.control(libc::EPOLL_CTL_MOD, watch.descriptor, number, events)
    }

    fn control(&self, operation: libc::c_int, descriptor: RawFd, number: u64, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: number };
        // SAFETY: both descriptors are open, and the kernel copies the event.
        let result =
            unsafe { libc::epoll_ctl(self.descriptor.as_raw_fd(), operation, descriptor, &mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Forgets a socket, which the caller closes; closing takes it out of the kernel's set.
    pub(super) fn forget(&self, watch: &Watch) {
        let mut table = self.table.borrow_mut();
        let place = &mut table.places[watch.key as usize];
        place.generation = place.generation.wrapping_add(1);
        let dropped = place.watch.take();
        table.free.push(watch.key);
        drop(table);
        drop(dropped);
        if watch.misses_left.replace(0) > 0 {
            self.hot.borrow_mut().retain(|hot| hot.key != watch.key);
        }
        // Breaks the way back from the sink, and drops it outside all borrows.
        let sink = watch.sink.borrow_mut().take();
        drop(sink);
    }

    /// Waits up to `timeout` (`None` is without limit) and keeps what came for `dispatch`.
    pub(super) fn wait(&self, timeout: Option<Duration>) {
        if self.pending.get() > 0 {
            return;
        }
        let mut events = self.events.borrow_mut();
        let limit = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let limit_pointer = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `events` has room for EVENTS entries, the timespec outlives the call, and the signal mask is
        // absent. The call by number, since the C library's wrapper is younger than some systems' libraries.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.descriptor.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as libc::c_int,
                limit_pointer,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        if count >= 0 {
            self.pending.set(count as usize);
            return;
        }
        if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            // Before Linux 5.11, or in a sandbox that does not know the call (`EPERM`): whole milliseconds, rounded up
            // so that a timer is not polled for.
            let milliseconds = timeout.map_or(-1, |timeout| {
                timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as libc::c_int
            });
            self.pending.set(self.epoll_wait(&mut events, milliseconds));
        }
    }

    fn epoll_wait(&self, events: &mut [libc::epoll_event; EVENTS], milliseconds: libc::c_int) -> usize {
        // SAFETY: `events` has room for EVENTS entries.
        let count = unsafe {
            libc::epoll_wait(
                self.descriptor.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as libc::c_int,
                milliseconds,
            )
        };
        // An error is an interrupting signal: nothing came.
        count.max(0) as usize
    }

    /// A read brought something: the socket is hot from now on.
    pub(super) fn read_hit(&self, watch: &Rc<Watch>) {
        if watch.misses_left.replace(HOT_MISSES) > 0 {
            return;
        }
        let mut hot = self.hot.borrow_mut();
        if self.crowded.get() == 0 && hot.len() < HOT_SOCKETS {
            hot.push(watch.clone());
            return;
        }
        watch.misses_left.set(0);
        hot.drain(..).for_each(|hot| hot.misses_left.set(0));
        self.crowded.set(CROWDED_TURNS);
    }

    /// Tells the sinks of hot sockets that something may have come; false when the epoll has to be asked.
    fn dispatch_hot(&self) -> bool {
        let turns = self.direct_turns.get();
        if turns >= DIRECT_TURNS || self.hot.borrow().is_empty() {
            self.direct_turns.set(0);
            self.crowded.set(self.crowded.get().saturating_sub(1));
            return false;
        }
        self.direct_turns.set(turns + 1);
        let mut index = 0;
        loop {
            // Cloned out: a sink may close this very socket, which takes it off the list.
            let Some(watch) = self.hot.borrow().get(index).cloned() else { return true };
            if watch.misses_left.get() == 0 {
                self.hot.borrow_mut().swap_remove(index);
                continue;
            }
            watch.tell(libc::EPOLLIN as u32);
            index += 1;
        }
    }

    /// Takes events without waiting and tells their sinks. Returns how many sockets had one.
    pub(super) fn dispatch(&self) -> usize {
        let mut count = self.pending.take();
        if count == 0 {
            if self.dispatch_hot() {
                // Whether anything came, those who read will know.
                return 0;
            }
            count = self.epoll_wait(&mut self.events.borrow_mut(), 0);
        }
        let mut told = 0;
        for index in 0..count {
            let libc::epoll_event { events, u64: number } = self.events.borrow()[index];
            if number == WAKE_ONLY {
                continue;
            }
            let watch = {
                let table = self.table.borrow();
                let place = &table.places[number as u32 as usize];
                (place.generation == (number >> 32) as u32).then(|| place.watch.clone()).flatten()
            };
            let Some(watch) = watch else { continue };
            told += 1;
            if events & WRITABLE != 0 && watch.asked_for_room.replace(false) {
                // The next write that finds no room asks again. If the kernel does not take this, it only tells more.
                let _ = self.modify(&watch, EDGES);
            }
            watch.tell(events);
        }
        told
    }
}

impl Watch {
    /// Where edges go from now on.
    pub(super) fn set_sink(&self, sink: Rc<dyn ReadinessSink>) {
        let old = self.sink.replace(Some(sink));
        drop(old);
    }

    /// A read found nothing.
    pub(super) fn read_miss(&self) {
        self.readable.set(false);
        self.misses_left.set(self.misses_left.get().saturating_sub(1));
    }

    fn tell(&self, events: u32) {
        let ended = events & ENDINGS != 0;
        let readiness = Readiness {
            readable: ended || events & libc::EPOLLIN as u32 != 0,
            writable: ended || events & libc::EPOLLOUT as u32 != 0,
        };
        if readiness.readable {
            self.readable.set(true);
        }
        if ended {
            self.ended.set(true);
        }
        // Cloned out: the sink may close this very socket.
        let sink = self.sink.borrow().clone();
        if let Some(sink) = sink {
            sink.ready(readiness);
        }
    }
}
