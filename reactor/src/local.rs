//! Values that live on a reactor and are found again by a key that may travel between threads.
//!
//! Owns nothing itself; each reactor's core holds a small map. Invariant: a value is only ever touched, and
//! dropped, on its own reactor. Called by services that have one part on every reactor.

use std::any::Any;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::core::with_current;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Names one value of type `T` on each reactor.
pub struct LocalKey<T> {
    id: u64,
    value: PhantomData<fn() -> T>,
}

impl<T> Clone for LocalKey<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for LocalKey<T> {}

impl<T: 'static> LocalKey<T> {
    /// A key that nothing is stored under yet.
    #[expect(
        clippy::new_without_default,
        reason = "every key is another one; a default would look like a value"
    )]
    pub fn new() -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), value: PhantomData }
    }

    /// Stores a value on the current reactor, in place of the one before.
    ///
    /// # Panics
    /// Outside a reactor.
    pub fn set(self, value: Rc<T>) {
        let before = with_current(|core| core.locals().borrow_mut().insert(self.id, value));
        drop(before);
    }

    /// The current reactor's value, if there is one.
    ///
    /// # Panics
    /// Outside a reactor.
    pub fn get(self) -> Option<Rc<T>> {
        let found: Rc<dyn Any> = with_current(|core| core.locals().borrow().get(&self.id).cloned())?;
        found.downcast().ok()
    }

    /// Takes the current reactor's value out.
    ///
    /// # Panics
    /// Outside a reactor.
    pub fn take(self) -> Option<Rc<T>> {
        let found = with_current(|core| core.locals().borrow_mut().remove(&self.id))?;
        found.downcast().ok()
    }
}
