//! Closes a function on a thread of its own.
//!
//! The kernel resets a function that is closed, and when it is gone waits for it for up to a minute: whoever lets go of
//! one, a reactor as a rule, must not wait with it. Invariants: DMA is off before a drop has returned, so a device can't
//! write to memory that its driver no longer holds; the thread only closes, and changes nothing of the function; who
//! opens the same address again waits until it is closed ([`wait`]), so nobody finds it busy with ourselves; one that was
//! pulled out is closed once the kernel asks for it, when it resets nothing ([`wait_until_asked`]).

#![allow(unsafe_code)]

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::pci_function::PciFunction;
use crate::function::{DmaError, DmaMemory, Function, Presence, Registration};

/// How long an opener waits for the same function to be closed. One that is gone takes longer, and is not opened again
/// before the kernel has let go of it anyway.
pub(super) const MOST_WAIT: Duration = Duration::from_secs(10);

/// How often it is looked whether the kernel has asked for a function that does not answer, and what is waited in between:
/// 5 s, and longer on a machine that stands still, as its kernel does then, too. Where no slot tells the kernel that a
/// device was pulled out, nobody ever asks.
const MOST_LOOKS: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(5);

/// Addresses of the functions that are being closed.
static UNDER_WAY: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// One of them was closed.
static CLOSED: Condvar = Condvar::new();

fn under_way() -> MutexGuard<'static, Vec<String>> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no function of this address is being closed, at most so long. Whether that is so.
pub(super) fn wait(address: &str, most: Duration) -> bool {
    let end = Instant::now() + most;
    let mut list = under_way();
    while list.iter().any(|closing| closing == address) {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        list = CLOSED.wait_timeout(list, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    true
}

/// An address in the list, as long as it is there.
struct Mark(String);

impl Mark {
    fn new(address: &str) -> Mark {
        under_way().push(address.to_owned());
        Mark(address.to_owned())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut list = under_way();
        if let Some(place) = list.iter().position(|closing| *closing == self.0) {
            list.swap_remove(place);
        }
        CLOSED.notify_all();
    }
}

/// Keeps a function that was pulled out until the kernel takes it away, or for `looks`; whether it may be closed now.
///
/// A driver sees by a register that its device is gone before the kernel has begun to take the device out of the system.
/// Closed at that moment, the function is reset by the kernel, which then waits a minute for a device that can't answer
/// and keeps it locked meanwhile: until then its slot takes no other. Once the kernel is taking it away, which it
/// announces, it resets nothing.
fn wait_until_asked(function: &PciFunction, mut looks: u32) -> bool {
    while !function.config.answers() && function.place.is_there() && !function.control.leaving() {
        if looks == 0 {
            return false;
        }
        looks -= 1;
        thread::sleep(PAUSE);
    }
    true
}

/// A function on its way to be closed. In this order: first it is closed, then it is off the list.
struct Leaving {
    function: PciFunction,
    _mark: Mark,
}

impl Leaving {
    fn close(self) {
        if !wait_until_asked(&self.function, MOST_LOOKS) {
            tracing::warn!(
                function = self.function.address(),
                "a function does not answer and the kernel does not ask for it: closing it may take a minute"
            );
        }
    }
}

/// A function that is closed elsewhere when it is dropped.
pub(super) struct Closing(ManuallyDrop<PciFunction>);

impl Closing {
    pub(super) fn new(function: PciFunction) -> Closing {
        Closing(ManuallyDrop::new(function))
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        // Here and not in the thread, which would do it to whoever opens the function next. Fails when the device is gone,
        // and then it does no DMA either.
        let _ = self.0.set_bus_master(false);
        // SAFETY: it is taken once, as a value is dropped once, and not used afterwards.
        let function = unsafe { ManuallyDrop::take(&mut self.0) };
        let leaving = Leaving { _mark: Mark::new(function.address()), function };
        let closing = thread::Builder::new().name("nvme-close".into());
        // Without a thread it is closed here: what should have moved to it is dropped.
        let _ = closing.spawn(move || leaving.close());
    }
}

impl Function for Closing {
    fn address(&self) -> &str {
        self.0.address()
    }

    fn environment(&self) -> &'static str {
        self.0.environment()
    }

    fn register_bytes(&self) -> usize {
        self.0.register_bytes()
    }

    fn read_u32(&self, offset: usize) -> u32 {
        self.0.read_u32(offset)
    }

    fn write_u32(&self, offset: usize, value: u32) {
        self.0.write_u32(offset, value);
    }

    fn read_u64(&self, offset: usize) -> u64 {
        self.0.read_u64(offset)
    }

    fn write_u64(&self, offset: usize, value: u64) {
        self.0.write_u64(offset, value);
    }

    fn allocate(&self, bytes: usize) -> Result<DmaMemory, DmaError> {
        self.0.allocate(bytes)
    }

    unsafe fn register(&self, start: NonNull<u8>, bytes: usize) -> Result<Arc<Registration>, DmaError> {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.0.register(start, bytes) }
    }

    fn set_bus_master(&self, on: bool) -> io::Result<()> {
        self.0.set_bus_master(on)
    }

    fn reset(&self) -> io::Result<bool> {
        self.0.reset()
    }

    fn presence(&self) -> Presence {
        self.0.presence()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::pci::arena::Arena;
    use crate::pci::config_space::ConfigSpace;
    use crate::pci::pci_function::{Control, Place};
    use crate::pci::reach::Reach;
    use crate::pci::window::Window;

    /// A kernel that asks for its function on being looked at for the `asks`th time. Tells how often it had been looked
    /// at when the function was closed.
    struct Kernel {
        asks: u32,
        looks: AtomicU32,
        closed: Arc<Mutex<Option<u32>>>,
    }

    impl Control for Kernel {
        fn reset(&self) -> io::Result<bool> {
            Ok(false)
        }

        fn leaving(&self) -> bool {
            self.looks.fetch_add(1, Ordering::Relaxed) + 1 >= self.asks
        }
    }

    impl Drop for Kernel {
        fn drop(&mut self) {
            *self.closed.lock().unwrap() = Some(self.looks.load(Ordering::Relaxed));
        }
    }

    /// A function whose configuration space is full of `byte`, and where its closing is told.
    fn function(
        address: &str,
        byte: u8,
        asks: u32,
    ) -> (PciFunction, Arc<Mutex<Option<u32>>>, tempfile::TempDir) {
        let space = tempfile::tempfile().unwrap();
        space.write_all_at(&[byte; 64], 0).unwrap();
        let registers: File = tempfile::tempfile().unwrap();
        registers.set_len(8192).unwrap();
        let (folder, closed) = (tempfile::tempdir().unwrap(), Arc::default());
        let function = PciFunction {
            address: address.to_owned(),
            environment: "test",
            place: Place::of(folder.path().to_owned()).unwrap(),
            // SAFETY: a file that nobody else has.
            registers: unsafe { Window::map(registers.as_fd(), 0, 8192) }.unwrap(),
            config: ConfigSpace::new(space, 0),
            memory: Box::new(Arena::new(Reach::Physical)),
            control: Box::new(Kernel { asks, looks: AtomicU32::new(0), closed: Arc::clone(&closed) }),
        };
        (function, closed, folder)
    }

    // Without it a drive that is pulled out may be closed before the kernel takes it away: the kernel then resets it,
    // waits a minute for it, and its slot takes no other drive meanwhile.
    #[test]
    fn one_that_was_pulled_out_is_closed_when_the_kernel_asks() {
        let minute = Duration::from_secs(60);
        let (gone, closed, _folder) = function("0000:7e:00.0", 0xff, 3);
        drop(Closing::new(gone));
        assert!(wait("0000:7e:00.0", minute));
        assert_eq!(closed.lock().unwrap().take(), Some(3));

        // The kernel has taken it away already, so nobody asks any more.
        let (taken, closed, folder) = function("0000:7e:00.1", 0xff, u32::MAX);
        drop(folder);
        drop(Closing::new(taken));
        assert!(wait("0000:7e:00.1", minute));
        assert_eq!(closed.lock().unwrap().take(), Some(0));

        // One that answers is let go of at once.
        let (there, closed, _folder) = function("0000:7e:00.2", 0, u32::MAX);
        drop(Closing::new(there));
        assert!(wait("0000:7e:00.2", minute));
        assert_eq!(closed.lock().unwrap().take(), Some(0));

        // Where nobody asks, it is not kept for ever.
        let (silent, _closed, _folder) = function("0000:7e:00.3", 0xff, u32::MAX);
        assert!(!wait_until_asked(&silent, 1));
    }

    // Without it a controller that is attached right after it was detached is found in use, by ourselves.
    #[test]
    fn who_opens_waits_for_who_closes() {
        let (first, again) = (Mark::new("0000:7f:00.0"), Mark::new("0000:7f:00.0"));
        assert!(wait("0000:7f:00.1", Duration::ZERO), "another function's closing is nobody's business");
        assert!(!wait("0000:7f:00.0", Duration::ZERO));
        drop(first);
        assert!(!wait("0000:7f:00.0", Duration::ZERO), "it was opened and let go of twice");
        let waiting = thread::spawn(|| wait("0000:7f:00.0", Duration::from_secs(60)));
        drop(again);
        assert!(waiting.join().is_ok_and(|closed| closed));
    }
}
